"""Objectives whose data the model writes: sampled where they begin, and continued exactly from there."""

import dataclasses
import json

import pytest
import torch

from glasshouse.core.errors import InterruptedRunError
from glasshouse.training import OnPolicy
from glasshouse.training.checkpoint import CheckpointFolder
from glasshouse.training.metrics import TIMING_FIELDS

EVERY = 3


class OwnWords:
    """Next tokens that the model itself finds likely, moved on by the samples so far; new every 3 steps."""

    def __init__(self, inner, stop_at=None):
        self.inner, self.stop_at, self.sampled, self.learnt = inner, stop_at, [], 0
        self.before = 0  # samples of the process that this one continues
        self.steps_per_epoch, self.check, self.identity = inner.steps_per_epoch, inner.check, inner.identity

    def begins(self, step):
        return step % EVERY == 0

    @torch.no_grad()
    def sample(self, model, step):
        assert not model.training
        self.sampled.append(step)
        batch = self.inner.batch(step)
        likely = model(batch.inputs, positions=batch.positions, segments=batch.segments).argmax(-1)
        moved = (likely + self.state()["samples"]) % model.config.vocab_size
        targets = torch.where(batch.targets < 0, batch.targets, moved)
        self.now = dataclasses.replace(batch, targets=targets)

    def state(self):
        return {"samples": self.before + len(self.sampled)}

    def restore(self, state):
        self.before = state["samples"] - len(self.sampled)

    def batch(self, step):
        return self.now

    def loss(self, model, batch):
        assert model.training
        self.learnt += 1
        if self.learnt == self.stop_at:
            raise KeyboardInterrupt
        return self.inner.loss(model, batch)

    def metrics(self):
        return {"sampled_at": float(self.sampled[-1])}


def rows_of(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in TIMING_FIELDS} for row in rows]


def test_data_is_sampled_where_it_begins_and_told_in_every_row(tiny):
    """Twelve steps, four samples; metrics are those of the newest."""
    objective = OwnWords(tiny.objective())
    assert isinstance(objective, OnPolicy)
    assert not isinstance(tiny.objective(), OnPolicy)
    tiny.train(objective=objective)
    assert objective.sampled == [0, 3, 6, 9]
    told = [row["sampled_at"] for row in rows_of(tiny.folder / "out")]
    assert told == [0, 0, 0, 3, 3, 3, 6, 6, 6, 9, 9, 9]


def test_a_run_that_was_stopped_continues_with_the_same_bits(tiny):
    """From the newest step at which data began, though checkpoints were due after every step."""
    tiny.train("whole", objective=OwnWords(tiny.objective()))
    stopping = OwnWords(tiny.objective(), stop_at=9)
    with pytest.raises(InterruptedRunError, match="step 6"):
        tiny.train("parts", objective=stopping, checkpoint_every_seconds=0)
    assert CheckpointFolder(tiny.folder / "parts" / "state").newest() == 6
    again = OwnWords(tiny.objective())
    tiny.train("parts", objective=again, checkpoint_every_seconds=0)
    assert again.sampled == [6, 9]
    whole, parts = tiny.folder / "whole", tiny.folder / "parts"
    assert rows_of(whole) == rows_of(parts)
    weights = [folder / "model" / "model.safetensors" for folder in (whole, parts)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
