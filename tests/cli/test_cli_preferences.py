"""`train reward` and `train dpo` as a user meets them: a run folder, a report, resume, refusals."""

import json
from pathlib import Path

import pytest

from glasshouse.alignment.reward_model import RewardModel
from glasshouse.pipeline.run import load

SMALL = ["--set=batch_tokens=2000", "--set=validation_fraction=0.2", "--set=epochs=2", "--set=dtype=float32"]


@pytest.fixture
def data(tmp_path):
    rows = [
        {
            "prompt": f"Is {n} a number?",
            "chosen": f"Yes, {n} is.",
            "rejected": f"No, {n} is none" + "." * (n % 5),
        }
        for n in range(60)
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return "pairs.jsonl"


def test_a_reward_model_is_trained_judged_and_reported(glasshouse, tiny_model, data):
    """Table and report tell its held-out accuracy; the folder opens; the same command does nothing."""
    command = ["train", "reward", "--model", tiny_model, "--data", data, "--out", "runs/r", *SMALL]
    result = glasshouse(*command)
    assert result.code == 0, result.err
    quality = json.loads(Path("runs/r/reward/held_out.json").read_text())
    assert 5 <= quality["pairs"] <= 20
    assert "accuracy" in result.out
    assert "runs/r/reward/model" in result.out
    page = Path("runs/r/report.html").read_text()
    assert "The reward model" in page
    assert f"{quality['accuracy']['value']:.3f}" in page
    model = RewardModel.load("runs/r/reward/model")
    rewards = model.score([{"messages": [{"role": "user", "content": "Is 7 a number?"}]}])
    assert rewards.shape == (1,)
    before = Path("runs/r/reward/stage.json").read_text()
    assert glasshouse(*command).code == 0
    assert Path("runs/r/reward/stage.json").read_text() == before
    assert glasshouse("verify", "runs/r").code == 0


def test_dpo_leaves_a_model_to_chat_with(glasshouse, tiny_model, data):
    """With an adapter, merged; metrics say how the rewards of both replies move."""
    command = ["train", "dpo", "--model", tiny_model, "--data", data, "--out", "runs/d", "--lora", "4"]
    result = glasshouse(*command, *SMALL)
    assert result.code == 0, result.err
    assert "glasshouse chat runs/d" in result.out
    rows = [json.loads(line) for line in Path("runs/d/dpo/metrics.jsonl").read_text().splitlines()]
    assert {"accuracy", "reward_margin", "chosen_reward", "rejected_reward", "val_accuracy"} <= set(rows[-1])
    assert load("runs/d").chat([{"role": "user", "content": "Hi."}], max_new_tokens=2) is not None


def test_a_bad_row_and_a_reward_model_as_a_policy_are_refused_in_one_line(glasshouse, tiny_model, data):
    with open(data, "a") as file:
        file.write(json.dumps({"prompt": "Hi.", "chosen": "a", "rejected": "a"}) + "\n")
    for stage in ("reward", "dpo"):
        result = glasshouse("train", stage, "--model", tiny_model, "--data", data, "--out", "runs/x", *SMALL)
        assert result.code == 1
        assert "pairs.jsonl, row 61" in result.err
    result = glasshouse("train", "dpo", "--model", tiny_model, "--data", "no.jsonl", "--out", "runs/y")
    assert result.code == 1
    assert "no such file" in result.err
