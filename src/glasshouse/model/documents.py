"""Attention inside the documents of packed rows, on a CPU.

A packed row of 512 tokens holds several documents of, say, 80. Attention over whole rows with a mask
computes six times the scores that count. Here every document is lifted out of its row, documents of
similar length are padded to one length and attended together as a batch of small dense problems, and
the results are put back. Each token lies in exactly one slot, so lifting out and putting back are
both plain gathers, forward and backward.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

QUERY_BLOCK = 128
"""Longer documents are attended in blocks of this many queries, each against the keys before its end."""


@dataclass(frozen=True)
class Spans:
    """The documents of a packed batch as stretches of its tokens, longest first, for the native kernel."""

    first: Tensor  # (documents) int64, index of the first token among batch · seq
    length: Tensor  # (documents) int64
    longest: int
    heads: int
    kv_heads: int


@dataclass(frozen=True)
class Bucket:
    """`documents` documents, each padded to `length` slots."""

    documents: int
    length: int


@dataclass(frozen=True)
class Documents:
    """Where the tokens of a packed batch go, and where they come back from (see `find_documents`).

    Slots are numbered bucket after bucket, document after document. Indices count (token, head) pairs.
    """

    buckets: list[Bucket]
    queries: Tensor  # (slots · heads) -> token · heads + head; ordered document, kv head, block, group, slot
    keys: Tensor  # (slots · kv_heads) -> token · kv_heads + head; ordered document, kv head, slot
    queries_back: Tensor  # (tokens · heads) -> place in `queries`
    keys_back: Tensor  # (tokens · kv_heads) -> place in `keys`
    query_padding: Tensor  # places in `queries` that hold no token


def padded_length(length: int) -> int:
    """Documents are padded to multiples of 32, long ones to whole blocks of queries."""
    step = 32 if length <= QUERY_BLOCK else QUERY_BLOCK
    return -(-length // step) * step


def find_spans(segments: Tensor, heads: int, kv_heads: int) -> Spans:
    """The documents of `segments` (batch, seq); neighbouring tokens of one number are a document."""
    first, lengths = _boundaries(segments)
    lengths, order = lengths.sort(descending=True, stable=True)
    return Spans(first[order], lengths, int(lengths[0]), heads, kv_heads)


def _boundaries(segments: Tensor) -> tuple[Tensor, Tensor]:
    """First token (flat index) and length of every document, in order, each (documents) int64."""
    starts = torch.ones_like(segments, dtype=torch.bool)
    starts[:, 1:] = segments[:, 1:] != segments[:, :-1]
    first = starts.flatten().nonzero()[:, 0]
    return first, torch.diff(first, append=torch.tensor([segments.numel()]))


def find_documents(segments: Tensor, heads: int, kv_heads: int) -> Documents:
    """Plan the lifting for `segments` (batch, seq), as `find_spans` does for the native kernel."""
    first, lengths = _boundaries(segments)
    padded = torch.tensor([padded_length(length) for length in lengths.tolist()])
    groups = heads // kv_heads
    buckets, queries, keys = [], [], []
    for length in padded.unique().tolist():
        members = (padded == length).nonzero()[:, 0]
        slot = torch.arange(length)
        token = first[members, None] + slot  # (documents, length)
        token = token.masked_fill(slot >= lengths[members, None], -1)
        buckets.append(Bucket(len(members), length))
        kv = torch.arange(kv_heads)[:, None]
        keys.append(torch.where(token[:, None] < 0, -1, token[:, None] * kv_heads + kv).flatten())
        block = min(length, QUERY_BLOCK)
        token = token.view(len(members), 1, length // block, 1, block)
        head = torch.arange(heads).view(kv_heads, 1, groups, 1)
        queries.append(torch.where(token < 0, -1, token * heads + head).flatten())
    query, key = torch.cat(queries), torch.cat(keys)
    return Documents(
        buckets,
        query.clamp(min=0),
        key.clamp(min=0),
        _inverse(query, segments.numel() * heads),
        _inverse(key, segments.numel() * kv_heads),
        (query < 0).nonzero()[:, 0],
    )


def _inverse(index: Tensor, size: int) -> Tensor:
    """For every token · head its place in `index`, where padding is -1."""
    places = torch.arange(len(index))
    back = torch.empty(size, dtype=torch.int64)
    back[index[index >= 0]] = places[index >= 0]
    return back


class _Lift(torch.autograd.Function):
    """x[index] whose backward is grad[back], because every row of x is wanted exactly once."""

    @staticmethod
    def forward(ctx, x: Tensor, index: Tensor, back: Tensor) -> Tensor:
        ctx.save_for_backward(back)
        return x.index_select(0, index)

    @staticmethod
    def backward(ctx, grad: Tensor):  # type: ignore[override]
        (back,) = ctx.saved_tensors
        return grad.index_select(0, back), None, None


class _PutBack(torch.autograd.Function):
    """x[back]; padding slots of x get a zero gradient."""

    @staticmethod
    def forward(ctx, x: Tensor, index: Tensor, back: Tensor, padding: Tensor) -> Tensor:
        ctx.save_for_backward(index, padding)
        return x.index_select(0, back)

    @staticmethod
    def backward(ctx, grad: Tensor):  # type: ignore[override]
        index, padding = ctx.saved_tensors
        return grad.index_select(0, index).index_fill_(0, padding, 0), None, None, None


def attend_documents(
    queries: Tensor, keys: Tensor, values: Tensor, plan: Documents, window: int | None = None
) -> Tensor:
    """Causal attention inside each document, over the last `window` tokens up to a token's own.

    queries (batch, seq, heads, head_dim), keys and values (batch, seq, kv_heads, head_dim); returns
    (batch, seq, heads, head_dim). Scores are kept in the inputs' dtype, their softmax is computed in
    float32 inside the kernel.
    """
    kv_heads, width = keys.shape[2:]
    groups = queries.shape[2] // kv_heads
    lifted = [
        _Lift.apply(x.reshape(-1, width), index, back)
        for x, index, back in (
            (queries, plan.queries, plan.queries_back),
            (keys, plan.keys, plan.keys_back),
            (values, plan.keys, plan.keys_back),
        )
    ]
    sizes = [bucket.documents * bucket.length for bucket in plan.buckets]
    q_parts = lifted[0].split([size * groups * kv_heads for size in sizes])
    k_parts, v_parts = (x.split([size * kv_heads for size in sizes]) for x in lifted[1:])
    mixed = []
    for bucket, q, k, v in zip(plan.buckets, q_parts, k_parts, v_parts, strict=True):
        problems, block = bucket.documents * kv_heads, min(bucket.length, QUERY_BLOCK)
        blocks = bucket.length // block
        q = q.view(problems, blocks, groups * block, width)
        k, v = k.view(problems, bucket.length, width), v.view(problems, bucket.length, width)
        outs = []
        for i in range(blocks):
            end = (i + 1) * block
            mask = _causal(block, end, groups, window, q.dtype)
            scores = torch.baddbmm(mask, q[:, i], k[:, :end].mT, alpha=1 / math.sqrt(width))
            outs.append(scores.softmax(-1) @ v[:, :end])
        mixed.append((outs[0] if blocks == 1 else torch.stack(outs, 1)).view(-1, width))
    out = _PutBack.apply(torch.cat(mixed), plan.queries, plan.queries_back, plan.query_padding)
    return out.view(queries.shape)


def _causal(block: int, end: int, groups: int, window: int | None, dtype: torch.dtype) -> Tensor:
    """Additive mask (groups · block, end) of the last `block` of `end` queries."""
    mask = torch.full((block, end), -torch.inf, dtype=dtype).triu(end - block + 1)
    if window is not None and window < end:
        mask += torch.full_like(mask, -torch.inf).tril(end - block - window)
    return mask.repeat(groups, 1)
