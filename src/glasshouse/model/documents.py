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

from glasshouse.core.errors import UsageError

QUERY_BLOCK = 128
"""Longer documents are attended in blocks of this many queries, each against the keys before its end."""


@dataclass(frozen=True)
class Spans:
    """The documents of a packed batch as stretches of its tokens, longest first, for the native kernel.

    A document is one stretch, or several that share a beginning: the first stretch, and others that are each
    read after the first `trunk` tokens of the first.
    """

    first: Tensor  # (stretches) int64, index of the first token among batch · seq
    length: Tensor  # (stretches) int64
    bounds: Tensor  # (documents + 1) int64: the stretches of document d are bounds[d] .. bounds[d + 1]
    trunk: Tensor  # (documents) int64
    longest: int  # stretch, with the trunk before it
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


def find_spans(segments: Tensor, heads: int, kv_heads: int, branches: Tensor | None = None) -> Spans:
    """The documents of `segments` (batch, seq); neighbouring tokens of one number are a document.

    `branches` (batch, seq): see `find_branches`.
    """
    first, lengths = _boundaries(segments)
    total, order = lengths.sort(descending=True, stable=True)
    if branches is None:
        bounds = torch.arange(len(first) + 1)
        return Spans(first[order], total, bounds, torch.zeros_like(first), int(total[0]), heads, kv_heads)
    starts = branches.flatten() > 0  # where a branch begins, and how many tokens are its trunk
    stretch = torch.cat([first, starts.nonzero()[:, 0]]).unique()
    length = torch.diff(stretch, append=torch.tensor([segments.numel()]))
    document = torch.searchsorted(first, stretch, right=True) - 1
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order))  # of each document, longest first
    by_place = place[document].sort(stable=True).indices
    stretch, length, document = stretch[by_place], length[by_place], document[by_place]
    counts = torch.bincount(place[document], minlength=len(first))
    bounds = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
    begins = branches.flatten()[stretch]  # 0 of a document's first stretch
    trunk = begins[bounds[1:] - 1]
    alike = (begins == trunk.repeat_interleave(counts)) | (begins == 0)
    if not bool((alike & (trunk <= length[bounds[:-1]]).repeat_interleave(counts)).all()):
        raise UsageError("the branches of one document leave its beginning at different tokens")
    return Spans(stretch, length, bounds, trunk, int((length + begins).max()), heads, kv_heads)


def find_branches(segments: Tensor, positions: Tensor) -> Tensor | None:
    """Where branches begin, int64 (batch, seq): how many tokens of the segment they share, 0 elsewhere.

    A position of a segment that does not follow the one before it begins a branch: the tokens from there on
    are read as if they stood right after the segment's first `position` tokens, whatever lies between. So
    texts with a common beginning are read without repeating it. None where no row has one.
    """
    same = (segments[:, 1:] == segments[:, :-1]) & (segments[:, 1:] >= 0)
    back = same & (positions[:, 1:] != positions[:, :-1] + 1)
    if not bool(back.any()):
        return None
    branches = torch.zeros_like(positions)
    branches[:, 1:] = torch.where(back, positions[:, 1:], 0)
    return branches


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
