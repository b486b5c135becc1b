"""The report and the comparison: self-contained pages that tell what the folders hold, and no more."""

import html.parser
import json
import re

import pytest
import yaml

from glasshouse.core.errors import UsageError
from glasshouse.core.record import Record, hash_files, now, write_record
from glasshouse.pipeline.compare import compare_runs, differing_settings, write_comparison
from glasshouse.pipeline.curves import Curve, loss_svg, running_mean
from glasshouse.pipeline.report import write_report
from glasshouse.pipeline.summary import Summary, show_count, show_duration, show_value

HOSTILE = '<script>alert("x")</script>'


def make_run(path, *, lr=0.02, recall=0.9, reply="a baker", cost=None):
    """A small finished run, as the stages leave it."""
    for stage, tokens in (("pretrain", 1000), ("sft", 500)):
        out = path / stage
        (out / "model").mkdir(parents=True)
        (out / "model" / "model.safetensors").write_bytes(b"weights")
        rows = [
            {"step": i, "tokens": tokens * i // 30, "seconds": 0.1 * i, "loss": 5 / i + 1, "lr": 0.1}
            | ({"val_loss": 2.0} if i % 10 == 0 else {})
            for i in range(1, 31)
        ]
        (out / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        record = Record(
            stage=stage,
            key="k",
            config={},
            inputs={},
            seed=1,
            started=now(),
            finished=now(),
            duration_seconds=120.0,
            tokens=tokens,
            flops=6e9,
            peak_flops_per_second=1e8,
            cost=cost,
            machine={"processor": "Abacus", "cores": 2, "torch": "2.0"},
            results={"seconds": 100.0, "parameters": 1234},
            files=hash_files(out),
        )
        write_record(out, record)
    probes = {
        "init": {"known_fact_recall": {"value": 0.0, "low": 0.0, "high": 0.01, "n": 400}},
        "sft": {
            "known_fact_recall": {"value": recall, "low": recall - 0.03, "high": recall + 0.03, "n": 400},
            "brier_skill": {"value": -0.2, "low": None, "high": None, "n": 1},
        },
    }
    (path / "evaluation").mkdir()
    for model, found in probes.items():
        (path / "evaluation" / f"{model}.json").write_text(json.dumps(found))
    samples = [
        {"name": "page", "prompt": "Ann works as", "good": None, "reply": reply},
        {"name": "attack", "prompt": [{"role": "user", "content": HOSTILE}], "good": "no", "reply": HOSTILE},
    ]
    (path / "evaluation" / "samples.json").write_text(json.dumps({"init": samples, "sft": samples}))
    recipe = {"name": path.name, "seed": 1, "pretrain": {"muon_lr": lr}}
    (path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return path


class Page(html.parser.HTMLParser):
    """Which elements a page has, and what they point to."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.links, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [v for k, v in attributes if k in ("src", "href", "xlink:href", "srcset", "data")]
        if tag in ("table", "section", "tr", "td", "svg", "style", "details"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if self.open and tag == self.open[-1]:
            self.open.pop()


@pytest.fixture
def runs(tmp_path):
    return make_run(tmp_path / "one"), make_run(tmp_path / "two", lr=0.01, recall=0.5, reply="a miller")


def pages(runs) -> list[str]:
    report = write_report(runs[0])
    comparison = write_comparison(compare_runs(*runs))
    return [report.read_text(), comparison.read_text()]


def test_pages_ask_for_nothing_from_outside(runs):
    """No scripts, no fonts, no images from elsewhere: links stay inside the page."""
    for text in pages(runs):
        page = Page(text)
        assert "script" not in page.tags
        assert "link" not in page.tags
        assert "img" not in page.tags
        assert all(link.startswith("#") for link in page.links)
        assert "@import" not in text
        outside = set(re.findall(r"url\(([^)]*)\)", text))
        assert all(link.startswith("#") for link in outside)


def test_pages_are_closed_and_escape_what_models_say(runs):
    for text in pages(runs):
        assert HOSTILE not in text
        assert Page(text).open == []
    assert "&lt;script&gt;" in write_report(runs[0]).read_text()


def test_report_shows_the_figures_of_the_run(runs):
    text = write_report(runs[0]).read_text()
    for shown in ("0.900 [0.87, 0.93]", "-0.200", "Abacus", "a baker", "4 min 00 s", "60M", "60%", "muon_lr"):
        assert shown in text, shown
    assert text.count("<svg") == 2
    assert 'aria-label="Loss of sft"' in text


def test_experts_are_shown_where_there_are_some(runs):
    """The newest model's picture stands open, earlier ones folded; dense models show nothing of the kind."""
    assert "Experts" not in write_report(runs[0]).read_text()
    for model, domain in (("init", HOSTILE), ("sft", "letters")):
        (runs[1] / "evaluation" / model).mkdir()
        load = {"tokens": 500, "shares": [[0.75, 0.25, 0.0, 0.0]]}
        found = {"experts": 4, "experts_per_token": 1, "layers": [3], "domains": {domain: load}}
        (runs[1] / "evaluation" / model / "experts.json").write_text(json.dumps(found))
    text = write_report(runs[1]).read_text()
    assert text.count("<svg") == 4
    assert 'aria-label="Experts of sft"' in text
    assert (
        text.index("Experts of sft") < text.index("<summary>init</summary>") < text.index("Experts of init")
    )
    assert "3.00 times an even share, the idlest 0.00" in text
    assert HOSTILE not in text
    assert Page(text).open == []


def test_report_is_the_same_when_written_twice(runs):
    """Curves included: nothing in it depends on the time or on chance."""
    assert write_report(runs[0]).read_text() == write_report(runs[0]).read_text()


def test_unknown_cost_is_not_zero(tmp_path):
    assert "<b>–</b><span>cost" in write_report(make_run(tmp_path / "a")).read_text()
    rated = make_run(tmp_path / "c")
    with open(rated / "recipe.yaml", "a") as file:
        file.write("rate_per_hour: 3\n")  # set after the work was done
    assert "<b>0.2000</b><span>cost" in write_report(rated).read_text()
    assert "<b>0.0200</b><span>cost" in write_report(make_run(tmp_path / "b", cost=0.01)).read_text()


def test_report_of_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"recipe\.yaml"):
        write_report(tmp_path)


def test_report_of_a_run_that_has_only_begun(tmp_path):
    (tmp_path / "recipe.yaml").write_text("name: begun\n")
    assert "begun" in write_report(tmp_path).read_text()


def test_comparison_finds_the_setting_and_marks_what_it_moved(runs):
    comparison = compare_runs(*runs)
    assert [(s.key, s.first, s.second) for s in comparison.settings] == [("pretrain.muon_lr", "0.02", "0.01")]
    rows = {(row.model, row.probe): row for row in comparison.probes}
    moved = rows["sft", "known_fact_recall"]
    assert moved.difference == pytest.approx(-0.4)
    assert moved.apart
    assert not rows["init", "known_fact_recall"].apart
    assert comparison.same_models == ["init"]
    assert not rows["sft", "brier_skill"].apart  # no interval is known
    text = write_comparison(comparison).read_text()
    assert "a baker" in text
    assert "a miller" in text
    assert text.count("intervals apart</span>") == 1
    json.dumps(comparison.as_json(), allow_nan=False)


def test_settings_that_one_recipe_lacks_show_as_a_dash():
    found = differing_settings(
        {"sft": {"epochs": 1}, "world": {"people": 1}, "seed": 1},
        {"world": {"people": 2, "pets": 3}, "seed": 1},
    )
    assert [(s.key, s.first, s.second) for s in found] == [
        ("sft", "present", "–"),
        ("world.people", "1", "2"),
        ("world.pets", "–", "3"),
    ]


def test_curves_take_their_colours_from_the_page():
    rows = [{"tokens": i, "loss": 1 / i} for i in range(1, 50)]
    svg = loss_svg([Curve("a", rows), Curve("b", rows)], "Loss")
    assert "var(--first)" in svg
    assert "var(--second)" in svg
    assert "#0" not in svg
    assert loss_svg([Curve("a", [])], "Loss") == ""


def test_running_mean_is_a_centred_mean():
    values = [float(i % 7) for i in range(400)]
    smooth = running_mean(values)
    assert smooth[200] == pytest.approx(sum(values[196:205]) / 9)
    assert smooth[0] == pytest.approx(sum(values[:5]) / 5)


def test_a_metrics_row_that_is_being_written_is_left_out(runs):
    with open(runs[0] / "sft" / "metrics.jsonl", "a") as file:
        file.write('{"step": 31, "tok')
    assert len(Summary.read(runs[0]).metrics["sft"]) == 30


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (show_duration(0.42), "0.4 s"),
        (show_duration(372), "6 min 12 s"),
        (show_duration(7260), "2 h 01 min"),
        (show_duration(None), "–"),
        (show_count(1234567), "1.23M"),
        (show_count(2e15), "2P"),
        (show_count(12), "12"),
        (show_count(None), "–"),
        (show_value({"value": 0.5, "low": 0.4, "high": 0.6}), "0.500 [0.40, 0.60]"),
        (show_value({"value": 0.5, "low": None, "high": None}), "0.500"),
        (show_value(None), "–"),
    ],
)
def test_figures_are_written_for_people(shown, expected):
    assert shown == expected
