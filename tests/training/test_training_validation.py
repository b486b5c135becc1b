"""Validation loss against plain scoring, document by document."""

import pytest
import torch

from glasshouse.data import Shards, ShardWriter
from glasshouse.training import validation_loss


def plain_loss(model, shards, row):
    """Every document alone, in windows of `row` inputs, no packing: (sum of nats, targets)."""
    total, count = 0.0, 0
    stream = torch.tensor(shards.tokens.astype("int64"))
    for begin, end in zip(shards.offsets[:-1].tolist(), shards.offsets[1:].tolist(), strict=True):
        for start in range(begin, end, row):
            stop = min(start + row, end)
            logits = model(stream[None, start:stop])[0].float()
            targets = stream[start + 1 : stop + 1]
            total += torch.nn.functional.cross_entropy(logits, targets, reduction="sum").item()
            count += len(targets)
    return total, count


@pytest.mark.parametrize("row", [8, 16, 64])
def test_it_is_the_mean_over_every_target_once(tiny, row):
    """Packing, document boundaries, cuts and the last short batch leave the mean as it is."""
    shards, model = tiny.corpus(), tiny.model()
    with torch.no_grad():
        model.lm_head.weight.normal_(generator=torch.Generator().manual_seed(0))
        total, count = plain_loss(model, shards, row)
    loss = validation_loss(model, shards, row)
    assert loss.tokens == count == len(shards.tokens) - 1
    assert loss.nats_per_token == pytest.approx(total / count, rel=1e-4)


def test_a_long_text_is_scored_in_windows(tiny):
    """One document of many rows, as characters of one book."""
    with ShardWriter(tiny.folder / "book", tiny.vocab, 0) as writer:
        writer.add([1 + i % 50 for i in range(1000)])
    shards, model = Shards(tiny.folder / "book"), tiny.model()
    with torch.no_grad():
        total, count = plain_loss(model, shards, 32)
    loss = validation_loss(model, shards, 32)
    assert loss.tokens == count == 1001
    assert loss.nats_per_token == pytest.approx(total / count, rel=1e-4)


def test_a_limit_scores_about_so_many_tokens_the_same_each_time(tiny):
    """Repeatable, near the limit, and drawn from everywhere."""
    shards, model = tiny.corpus(documents=300), tiny.model()
    first = validation_loss(model, shards, 16, max_tokens=640)
    assert 500 < first.tokens <= 640
    assert validation_loss(model, shards, 16, max_tokens=640) == first
    assert validation_loss(model, shards, 16, max_tokens=10**9) == validation_loss(model, shards, 16)
