"""Attention inside documents: masks, the document path of CPUs, and brute force agree."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from glasshouse.model import make_mask
from glasshouse.model.documents import attend_documents, find_documents


def segments_of(rows: list[list[int]]) -> torch.Tensor:
    """Rows of document lengths -> (batch, seq) segment numbers; a negative length is padding."""
    return torch.stack(
        [torch.cat([torch.full((abs(n),), -1 if n < 0 else i) for i, n in enumerate(row)]) for row in rows]
    )


PACKINGS = {
    "one document": [[40]],
    "several": [[5, 30, 1, 4], [40], [13, 13, 14]],
    "with padding": [[20, 10, -10], [39, -1], [-40]],
    "longer than a block of queries": [[300], [129, 171], [128, 100, 72]],
    "single tokens": [[1, 1, 1, 1], [2, 1, 1]],
}


def brute_force(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, segments: torch.Tensor) -> torch.Tensor:
    """One query at a time, over exactly the tokens it may see."""
    out = torch.zeros_like(q)
    groups = q.shape[2] // k.shape[2]
    for row in range(q.shape[0]):
        for i in range(q.shape[1]):
            seen = [j for j in range(i + 1) if segments[row, j] == segments[row, i]]
            for head in range(q.shape[2]):
                keys, values = k[row, seen, head // groups], v[row, seen, head // groups]
                weights = (keys @ q[row, i, head] / math.sqrt(q.shape[-1])).softmax(0)
                out[row, i, head] = weights @ values
    return out


def inputs(segments: torch.Tensor, heads: int, kv_heads: int, width: int = 8) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [
        torch.randn(*segments.shape, h, width, generator=generator, dtype=torch.float64, requires_grad=True)
        for h in (heads, kv_heads, kv_heads)
    ]


@pytest.mark.parametrize(("heads", "kv_heads"), [(2, 2), (4, 2), (3, 1)])
@pytest.mark.parametrize("name", ["one document", "several", "with padding", "single tokens"])
def test_documents_equal_brute_force(name: str, heads: int, kv_heads: int) -> None:
    """Every token attends to exactly the earlier tokens of its own document."""
    segments = segments_of(PACKINGS[name])
    q, k, v = inputs(segments, heads, kv_heads)
    out = attend_documents(q, k, v, find_documents(segments, heads, kv_heads))
    assert torch.allclose(out, brute_force(q, k, v, segments))


@pytest.mark.parametrize("name", PACKINGS)
def test_documents_equal_the_mask_forward_and_backward(name: str) -> None:
    """The document path and a dense mask give the same output and the same three gradients."""
    segments = segments_of(PACKINGS[name])
    q, k, v = inputs(segments, 4, 2)
    out = attend_documents(q, k, v, find_documents(segments, 4, 2))
    dense = F.scaled_dot_product_attention(
        q.transpose(1, 2),
        k.transpose(1, 2),
        v.transpose(1, 2),
        attn_mask=make_mask(segments),
        enable_gqa=True,
    ).transpose(1, 2)
    assert torch.allclose(out, dense)
    slope = torch.randn_like(out)
    for mine, theirs in zip(
        torch.autograd.grad(out, (q, k, v), slope), torch.autograd.grad(dense, (q, k, v), slope), strict=True
    ):
        assert torch.allclose(mine, theirs)


def test_mask_is_causal_within_segments() -> None:
    """True exactly where the key is no later and of the same segment; no row is empty."""
    mask = make_mask(torch.tensor([[0, 0, 1, 1, -1]]))[0, 0]
    expected = torch.tensor(
        [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 1, 1, 0], [0, 0, 0, 0, 1]]
    ).bool()
    assert torch.equal(mask, expected)


def test_neighbouring_documents_do_not_leak() -> None:
    """Changing one document changes nothing in the documents beside it, not even a bit."""
    segments = segments_of([[10, 12, 8, -2]])
    q, k, v = (x.detach().float() for x in inputs(segments, 4, 2))
    plan = find_documents(segments, 4, 2)
    before = attend_documents(q, k, v, plan)
    for x in (q, k, v):
        x[:, 10:22] += 3
    after = attend_documents(q, k, v, plan)
    assert torch.equal(before[:, :10], after[:, :10])
    assert torch.equal(before[:, 22:], after[:, 22:])
    assert not torch.equal(before[:, 10:22], after[:, 10:22])
