"""Batches of the next-token objective, and settings that contradict each other."""

import pytest
import torch

from glasshouse.core.errors import ConfigError
from glasshouse.data import PackedBatches, Shards, ShardWriter
from glasshouse.training import NextToken, TrainingConfig


def test_counts_are_those_of_the_tensors(tiny):
    """`count` are the targets that the loss counts, `tokens` the inputs that are no padding."""
    batch = tiny.objective().batch(3)
    assert batch.segments is not None
    assert batch.count == int((batch.targets != -100).sum())
    assert batch.tokens == int((batch.segments >= 0).sum())


def test_whole_rows_need_no_segments(tiny):
    """Rows of one piece each take the plain causal path, with the same loss as by segments."""
    with ShardWriter(tiny.folder / "book", tiny.vocab, 0) as writer:
        writer.add([1 + i % 50 for i in range(4 * 16 - 1)])
    arrays = PackedBatches(Shards(tiny.folder / "book"), 16, 4, 0, fixed_cuts=True)
    batch = NextToken(arrays).batch(0)
    assert batch.segments is None
    assert batch.positions is None
    raw, model = arrays.batch(0), tiny.model()
    with_segments = model.loss(
        batch.inputs, batch.targets, torch.from_numpy(raw.segments), torch.from_numpy(raw.positions)
    )
    torch.testing.assert_close(NextToken(arrays).loss(model, batch).loss_sum, with_segments)


@pytest.mark.parametrize("rows", [None, 1, 3, 4, 9])
def test_splitting_keeps_every_row(tiny, rows):
    """Micro-batches in order, the last one shorter."""
    batch = tiny.objective().batch(0)
    parts = list(batch.split(rows))
    assert torch.equal(torch.cat([part.inputs for part in parts]), batch.inputs)
    assert torch.equal(torch.cat([part.targets for part in parts]), batch.targets)
    assert sum(part.tokens for part in parts) == batch.tokens
    assert all(len(part.inputs) <= (rows or 4) for part in parts)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "give either tokens or epochs"),
        ({"tokens": 100, "epochs": 1}, "give either tokens or epochs"),
        ({"tokens": 100, "batch_tokens": 8, "sequence_length": 16}, "at least one row"),
        ({"tokens": 100, "warmup_fraction": 0.6, "decay_fraction": 0.6}, "together exceed 1"),
        ({"tokens": 100, "muon_lr": -1}, "muon_lr"),
        ({"tokens": 100, "learning_rate": 1}, "unknown key 'learning_rate'"),
    ],
)
def test_contradictions_are_refused(settings, message):
    """At the moment the settings are read, naming the key."""
    with pytest.raises(ConfigError, match=message):
        TrainingConfig.parse(settings)
