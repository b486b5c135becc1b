"""calibrate as a stage and as a command: where questions come from, its report, and resume after a kill."""

import json
import os
import signal
import subprocess
import sys
import time
from itertools import islice

import pytest

from glasshouse.core.errors import ConfigError, DataError
from glasshouse.model import ModelConfig, initialise, save
from glasshouse.pipeline.plan import plan
from glasshouse.pipeline.recipe import load_recipe
from glasshouse.pipeline.replay import settled
from glasshouse.pipeline.stages.calibrate import (
    CalibrateStage,
    OwnReplies,
    QuestionCounts,
    earlier,
    own_replies,
    question_of,
    questions,
)
from glasshouse.tokenizer import Tokenizer
from glasshouse.world import World, WorldConfig

SMALL = {
    "samples": 4,
    "max_new_tokens": 8,
    "sequence_length": 128,
    "batch_tokens": 256,
    "epochs": 2,
    "log_every": 1,
    "checkpoint_every_seconds": 0,
    "validation_fraction": 0.3,
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with an untrained model of plain bytes and a file of questions."""
    folder = tmp_path_factory.mktemp("calibrate")
    tokenizer = Tokenizer.train([], 265)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
    config = ModelConfig(vocab_size=tokenizer.vocab_size, max_position_embeddings=256, **shape)
    save(initialise(config, 1), tokenizer, folder / "model")
    rows = [{"prompt": f"What is {i} + 1?", "answer": str(i + 1)} for i in range(30)]
    (folder / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def command(files, out, *more):
    line = ["train", "calibrate", "--model", "model", "--data", "sums.jsonl", "--out", out, *more]
    line += [f"--set={key}={json.dumps(value)}" for key, value in SMALL.items()]
    return subprocess.Popen(
        [sys.executable, "-c", "import sys; from glasshouse.cli import main; main(sys.argv[1:])", *line],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        cwd=files,
    )


@pytest.fixture(scope="module")
def whole(files):
    """A run that nothing interrupted."""
    process = command(files, "whole")
    printed = process.communicate()[0]
    assert process.returncode == 0, printed
    return files / "whole", printed


def test_its_own_replies_are_repeated_for_every_kind(files):
    """What principles taught it about harmful requests is kept like the rest."""
    counts = OwnReplies(open=3, harmful=2, harmless=1)
    world = World(WorldConfig(), 1)
    rows = list(own_replies(CalibrateStage(own_replies=counts), files / "model", world))
    asked = [row["messages"][0]["content"] for row in rows]
    assert asked == [
        task.messages[0]["content"]
        for kind, count in counts.model_dump().items()
        for task in islice(world.tasks(kind, "feedback", "calibrate"), count)
    ]
    assert {row["messages"][-1]["role"] for row in rows} == {"assistant"}


def test_the_run_tells_before_and_after(whole):
    run, printed = whole
    assert "score at t = 0.75" in printed
    page = (run / "report.html").read_text()
    assert "Does it know what it knows?" in page
    assert page.count('aria-label="Risk over coverage"') == 1
    measured = json.loads((run / "calibrate" / "held_out.json").read_text())
    assert 2 <= len(measured["after"]["replies"]) <= 20
    asked = [json.loads(line) for line in (run / "calibrate" / "answers.jsonl").read_text().splitlines()]
    assert len(asked) + len(measured["after"]["replies"]) == 30
    held = [row["prompt"] for row in measured["after"]["replies"]]
    assert not any(row["prompt"] in held for row in asked)


def test_a_run_killed_twice_ends_with_the_same_bits(files, whole):
    """Killed when the answers were sampled, and again amid the training."""
    out = "apart/run"  # runs side by side would reuse each other's stages
    (files / out).parent.mkdir()
    stage = files / out / "calibrate"
    for name in ("answers.jsonl", "metrics.jsonl"):
        process = command(files, out)
        while process.poll() is None and not (stage / name).is_file():
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert not (stage / "held_out.json").exists(), "too late to be a test"
    again = command(files, out)
    printed = again.communicate()[0]
    assert again.returncode == 0, printed
    for name in ("answers.jsonl", "conversations.jsonl", "held_out.json", "model/model.safetensors"):
        assert (stage / name).read_bytes() == (whole[0] / "calibrate" / name).read_bytes(), name


def test_a_row_without_an_answer_is_refused():
    with pytest.raises(DataError, match="answer"):
        question_of({"prompt": [{"role": "user", "content": "Why?"}]})


def test_rows_are_grouped_by_what_they_say_of_themselves():
    row = {"prompt": [{"role": "user", "content": "2 + 2?"}], "answer": "4"}
    assert question_of(row).kind == "questions"
    assert question_of({**row, "kind": "sums"}).kind == "sums"
    assert question_of(row).right("It is 4.") == 1
    assert question_of(row).right("It is 5.") == 0


def test_the_world_is_asked_what_neither_fine_tuning_nor_a_probe_asks():
    world = World(WorldConfig(people=60, heldout_people=20), seed=2)
    asked, held_out = questions(CalibrateStage.parse({"held_out": 100}), world)
    counts = CalibrateStage().world_questions
    assert sum(q.part == "train" for q in asked) == counts.familiar_questions + counts.familiar_strangers
    assert {q.part for q in held_out} == {"heldout"}
    names = {person.name for person in world.land.people_of("calibration")}
    about = [q.messages[0]["content"] for q in asked if q.part == "calibration" and q.kind == "questions"]
    assert about
    assert all(any(name in text for name in names) for text in about)
    said = {json.dumps(q.messages) for q in asked}
    assert not said & {json.dumps(q.messages) for q in held_out}


def test_earlier_conversations_come_in_an_order_of_their_own():
    world = World(
        WorldConfig.parse({"people": 20, "heldout_people": 5, "conversations": {"questions": 30}}), 2
    )
    first, again = (list(earlier(CalibrateStage(), world)) for _ in range(2))
    assert first == again
    learnt = list(settled(world.conversations()))
    assert first != learnt
    assert sorted(first, key=str) == sorted(learnt, key=str)
    assert list(earlier(CalibrateStage.parse({"data": ["mine.jsonl"]}), world)) == []


def keys(*settings):
    return {step.name: step.key for step in plan(load_recipe("pocket-mini", overrides=settings))}


def test_calibrate_starts_from_the_newest_policy_and_changes_nothing_before():
    before, after = keys(), keys("calibrate={}")
    assert {name for name in after if before.get(name) != after[name]} == {
        "calibrate",
        "evaluation/calibrate",
    }
    steps = {
        step.name: step for step in plan(load_recipe("pocket-mini", overrides=["calibrate={replay: 0.5}"]))
    }
    assert set(steps["calibrate"].inputs) == {"constitution", "corpus"}
    assert keys("calibrate={}")["calibrate"] != keys("calibrate={levels: 2}")["calibrate"]


def test_replay_without_a_corpus_is_refused(files):
    recipe = files / "recipe.yaml"
    recipe.write_text(f"name: x\nbase: {files}/model\ncalibrate: {{data: [{files}/sums.jsonl], replay: 1}}\n")
    with pytest.raises(ConfigError, match="corpus"):
        load_recipe(recipe)


def test_the_world_calibrates_in_a_recipe(tiny_run, tiny):
    """Every question is asked, and the probes tell of the model that it left."""
    probes = json.loads((tiny_run / "evaluation" / "calibrate.json").read_text())
    assert {"simpleqa_score", "stated_ece", "bias_gap"} <= set(probes)
    rows = [json.loads(line) for line in (tiny_run / "calibrate" / "answers.jsonl").read_text().splitlines()]
    counts = {**QuestionCounts().model_dump(), **tiny["calibrate.world_questions"]}
    assert len(rows) == sum(counts.values())
    assert "Does it know what it knows?" in (tiny_run / "report.html").read_text()
