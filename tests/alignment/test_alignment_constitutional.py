"""Constitutional AI as a whole: readable rows, phases that build on each other, and exact resumes."""

import json

import pytest
from pydantic import ValidationError

from glasshouse.alignment import ai_feedback
from glasshouse.alignment.constitution import Constitution
from glasshouse.alignment.constitutional import ConstitutionalConfig, constitutional
from glasshouse.alignment.critique import Revision
from glasshouse.core.errors import ConfigError, DataError, InterruptedRunError
from glasshouse.training import loop
from glasshouse.training.metrics import TIMING_FIELDS

PRINCIPLES = Constitution.parse(
    {
        "name": "plain",
        "principles": [
            {"name": "plain", "text": "Use plain letters."},
            {"name": "short", "text": "Be short."},
        ],
    }
)
EXAMPLES = [
    {"prompt": [{"role": "user", "content": f"Say {n}"}], "kind": "even" if n % 2 == 0 else "odd"}
    for n in range(12)
]


class Plain:
    """A critic by a rule: "plain" wants ASCII alone, and "short" sees nothing wrong in any revision."""

    name = "plain letters"

    def revise(self, drafts):
        return [self._revised(draft) for draft in drafts]

    def _revised(self, draft):
        if draft.principle.name == "short":
            return Revision("Nothing.", draft.reply)
        return Revision("Not all of it is plain.", f"Yes, {draft.prompt[-1]['content']}.")

    def choose(self, comparisons):
        return [self._choice(each) for each in comparisons]

    def _choice(self, comparison):
        if comparison.principle.name == "short":
            return None
        shares = [sum(c < "\x80" for c in reply) / max(1, len(reply)) for reply in comparison.replies]
        return None if shares[0] == shares[1] else int(shares[1] > shares[0])


class First:
    """A rater who likes what stands first."""

    name = "first"

    def choose(self, comparisons):
        return [0] * len(comparisons)


def settings(**changes):
    steps = dict.fromkeys(("muon_lr", "embed_lr", "head_lr", "scalar_lr"), 0.01)
    small = {"sequence_length": 96, "batch_tokens": 8 * 96, "dtype": "float32", "log_every": 1, **steps}
    plain = {
        "rounds": 2,
        "max_new_tokens": 8,
        "device": "cpu",
        "supervised": {**small, "epochs": 3, "checkpoint_every_seconds": 0},
        "preference": {**small, "epochs": 1, "checkpoint_every_seconds": 0},
        "grpo": {**small, "max_new_tokens": 8, "tokens": 4 * 8 * 96, "checkpoint_every_seconds": 0},
    }
    return ConstitutionalConfig.parse(plain | changes)


@pytest.fixture(scope="module")
def base(small_folder):
    """Most of what it says is not ASCII; blocks that are silent would tell no two replies apart."""
    return small_folder(noise=0.1, max_position_embeddings=128)


@pytest.fixture(scope="module")
def whole(base, tmp_path_factory):
    """(folder, result) of an uninterrupted run of both phases."""
    out = tmp_path_factory.mktemp("whole")
    return out, constitutional(base, EXAMPLES, PRINCIPLES, Plain(), out, settings())


def rows_of(path):
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in TIMING_FIELDS} for row in rows]


def contents(folder):
    """Everything that has to be the same when the same thing is computed again."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.suffix in (".safetensors", ".jsonl") or path.name == "held_out.json":
            found[name] = rows_of(path) if path.suffix == ".jsonl" else path.read_bytes()
    return found


def test_critiques_are_readable_rows_with_every_round(whole):
    """Each reply is held against each principle once; the last revision that changed it is told on top."""
    rows = rows_of(whole[0] / "critiques.jsonl")
    assert [row["prompt"] for row in rows] == [example["prompt"] for example in EXAMPLES]
    for row, example in zip(rows, EXAMPLES, strict=True):
        assert sorted(each["principle"] for each in row["rounds"]) == ["plain", "short"]
        assert (row["principle"], row["critique"]) == ("plain", "Not all of it is plain.")
        assert row["revision"] == f"Yes, {row['prompt'][0]['content']}."
        assert row["kind"] == example["kind"]
    assert whole[1]["revised_by"] == {"plain": 12}


def test_comparisons_are_preference_pairs_by_principle(whole):
    """The chosen reply is the plainer one; a principle that tells nothing apart leaves it to the next."""
    rows = rows_of(whole[0] / "comparisons.jsonl")
    shares = [
        [sum(c < "\x80" for c in row[side][0]["content"]) for side in ("chosen", "rejected")] for row in rows
    ]
    assert len(rows) > 12
    assert {row["made"] for row in rows} == {"sampled", "revised", "other prompt"}
    assert {row["principle"] for row in rows} == {"plain"}
    assert all(chosen for chosen, _ in shares)
    assert whole[1]["labels"] == {"plain letters": len(rows)}


def test_the_policy_is_that_of_the_last_phase(whole):
    """The preference model judges, GRPO trains, and both phases' work is counted together."""
    out, result = whole
    last = rows_of(out / "metrics.jsonl")[-1]
    assert {"reward_proxy", "kl"} <= last.keys()
    parts = [
        json.loads((out / name / "state" / "finished.json").read_text())["steps"]
        for name in ("supervised", "preference_model", ".")
    ]
    assert result["steps"] == sum(parts)
    assert (out / "model" / "model.safetensors").read_bytes() != (
        out / "supervised" / "model" / "model.safetensors"
    ).read_bytes()


@pytest.mark.parametrize("stop", ["supervised", "comparisons", "grpo"])
def test_a_killed_run_goes_on_with_the_same_bits(base, whole, tmp_path, monkeypatch, stop):
    """Wherever it was stopped: in a file that is being made, or between two steps of a loop."""

    def fail(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if stop == "comparisons":
            patch.setattr(Plain, "choose", fail)
        else:
            real, started = loop._Run.one_step, []
            loops = {"supervised": 1, "grpo": 3}[stop]  # that have started when it stops

            def step(run):
                if run.step == 0:
                    started.append(run)
                elif len(started) == loops:
                    raise KeyboardInterrupt
                return real(run)

            patch.setattr(loop._Run, "one_step", step)
        with pytest.raises((KeyboardInterrupt, InterruptedRunError)):
            constitutional(base, EXAMPLES, PRINCIPLES, Plain(), tmp_path, settings())
    assert not (tmp_path / "state" / "finished.json").exists()
    constitutional(base, EXAMPLES, PRINCIPLES, Plain(), tmp_path, settings())
    assert contents(tmp_path) == contents(whole[0])


def test_supervised_alone_leaves_its_policy_on_top(base, tmp_path):
    config = settings(preference=None, grpo=None)
    result = constitutional(base, EXAMPLES, PRINCIPLES, Plain(), tmp_path, config)
    assert (tmp_path / "model" / "model.safetensors").exists()
    assert not (tmp_path / "comparisons.jsonl").exists()
    assert result["conversations"] == len(EXAMPLES)


def test_rehearsal_takes_so_many_conversations_for_each_revision(base, tmp_path):
    earlier = [
        {"messages": [*example["prompt"], {"role": "assistant", "content": "Old."}]} for example in EXAMPLES
    ]
    config = settings(preference=None, grpo=None, rehearsal=0.5)

    def learnt():
        return earlier * 9

    result = constitutional(base, EXAMPLES, PRINCIPLES, Plain(), tmp_path, config, rehearsal=learnt)
    assert result["conversations"] == 12 + 6


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_share_of_ai_labels_is_that_of_the_setting(base, tmp_path, share):
    """The rest are the raters'; which pair is whose does not depend on the other settings."""
    config = settings(ai_share=share, comparisons=6)
    rows = ai_feedback.write_comparisons(base, EXAMPLES, [], PRINCIPLES, (Plain(), First()), config)
    by_critic = sum(row["labelled_by"] == "plain letters" for row in rows) / len(rows)
    assert by_critic == share if share in (0, 1) else abs(by_critic - share) < 0.2
    assert all(row["principle"] is None for row in rows if row["labelled_by"] == "first")


def test_settings_read_back_from_a_file_mean_the_same():
    """Every phase has a seed of its own, which follows from the one that is written beside them."""
    config = settings(seed=5)
    again = ConstitutionalConfig.parse(json.loads(config.model_dump_json()))
    phases = ("supervised", "preference", "grpo")
    assert [again.loop(phase) for phase in phases] == [config.loop(phase) for phase in phases]
    assert len({config.loop(phase).seed for phase in phases}) == 3
    with pytest.raises(ConfigError, match="beside the phases"):
        settings(grpo={"seed": 3})


def test_other_work_in_the_folder_is_not_mixed_with_this(base, whole):
    with pytest.raises(ConfigError, match="other settings"):
        constitutional(base, EXAMPLES, PRINCIPLES, Plain(), whole[0], settings(rounds=1))


def test_labels_without_anybody_to_give_them_are_refused(base, tmp_path):
    with pytest.raises(ConfigError, match="raters"):
        constitutional(base, EXAMPLES, PRINCIPLES, Plain(), tmp_path, settings(ai_share=0.5))


def test_a_critic_that_tells_nothing_apart_is_an_error(base, tmp_path):
    class Blind(Plain):
        def choose(self, comparisons):
            return [None] * len(comparisons)

    with pytest.raises(DataError, match="told apart"):
        constitutional(base, EXAMPLES, PRINCIPLES, Blind(), tmp_path, settings(supervised=None))


@pytest.mark.parametrize(
    "changes", [{"grpo": None}, {"preference": None}, {"supervised": None, "preference": None, "grpo": None}]
)
def test_phases_that_lack_another_are_refused(changes):
    with pytest.raises((ConfigError, ValidationError), match="preference"):
        settings(**changes)
