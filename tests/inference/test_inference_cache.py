"""The KV cache: reading in pieces, rows of different lengths, rows that leave."""

from __future__ import annotations

import pytest
import torch

from glasshouse.inference import KVCache
from glasshouse.model import Transformer


def some_ids(batch: int, seq: int, vocab: int = 300) -> torch.Tensor:
    return torch.randint(0, vocab, (batch, seq), generator=torch.Generator().manual_seed(batch * seq))


@pytest.mark.parametrize("cuts", [[5, 20], [1, 2, 3, 20], [19, 20], list(range(1, 21))])
def test_reading_in_pieces_is_reading_at_once(transformer: Transformer, cuts: list[int]) -> None:
    """Whatever the pieces, logits are those of the whole text."""
    ids = some_ids(3, 20)
    cache = KVCache(transformer.config, 3, 20)
    with torch.no_grad():
        pieces = [transformer(ids[:, a:b], cache=cache) for a, b in zip([0, *cuts], cuts, strict=False)]
        assert torch.allclose(torch.cat(pieces, 1), transformer(ids), atol=1e-4)


def test_rows_of_different_lengths(transformer: Transformer) -> None:
    """After a right-padded prefill each row goes on from its own length, as if it were alone."""
    lengths = [4, 9, 1]
    ids, more = some_ids(3, 9), some_ids(3, 6)
    cache = KVCache(transformer.config, 3, 15)
    with torch.no_grad():
        transformer(ids, cache=cache)
        cache.set_lengths(lengths)
        steps = torch.cat([transformer(more[:, i : i + 1], cache=cache) for i in range(6)], 1)
        for row, length in enumerate(lengths):
            alone = transformer(torch.cat([ids[row, :length], more[row]])[None])[0, length:]
            assert torch.allclose(steps[row], alone, atol=1e-4)


def test_several_tokens_a_step_with_different_lengths(transformer: Transformer) -> None:
    """Ragged rows may also read several tokens at once, each seeing its own past only."""
    lengths = [2, 7]
    ids, more = some_ids(2, 7), some_ids(2, 5)
    cache = KVCache(transformer.config, 2, 12)
    with torch.no_grad():
        transformer(ids, cache=cache)
        cache.set_lengths(lengths)
        together = transformer(more, cache=cache)
        for row, length in enumerate(lengths):
            alone = transformer(torch.cat([ids[row, :length], more[row]])[None])[0, length:]
            assert torch.allclose(together[row], alone, atol=1e-4)


def test_rows_leave(transformer: Transformer) -> None:
    """Dropping rows changes nothing for those that stay."""
    ids, more = some_ids(4, 6), some_ids(4, 3)
    cache = KVCache(transformer.config, 4, 9)
    with torch.no_grad():
        transformer(ids, cache=cache)
        cache.keep([1, 3])
        rest = transformer(more[[1, 3]], cache=cache)
        whole = transformer(torch.cat([ids, more], 1))[[1, 3], 6:]
    assert torch.allclose(rest, whole, atol=1e-4)
    assert cache.lengths.tolist() == [9, 9]


def test_a_full_cache_says_so(transformer: Transformer) -> None:
    """Writing beyond the capacity is an error, not an overwrite."""
    cache = KVCache(transformer.config, 1, 4)
    with pytest.raises(ValueError, match="holds 4 tokens"), torch.no_grad():
        transformer(some_ids(1, 5), cache=cache)
