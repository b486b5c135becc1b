"""Head and cross entropy in one, in chunks: the logits of a batch never exist all at once.

With a vocabulary of 2,048 and 8,192 tokens a batch, logits and their gradient in float32 would take
128 MiB and most of the step's memory traffic; a chunk stays in the processor's cache. Only positions
with a counted target are computed, which in chat fine-tuning are a minority.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import torch
from torch import Tensor

from glasshouse.model import kernels

CHUNK_TOKENS = 1024

IGNORED = -100
"""A target that does not count, as in PyTorch and transformers."""


def head_loss(
    hidden: Tensor, weight: Tensor, targets: Tensor, low_rank: tuple[Tensor, Tensor] | None = None
) -> Tensor:
    """Sum over counted targets of -log softmax(hidden @ weight.T)[target], in nats, float32 scalar.

    hidden (tokens, width) in any float dtype, weight (vocab, width), targets (tokens,) int64 with
    -100 where a position does not count. Products run in hidden's dtype, log-softmax in float32.
    `low_rank`: inner (tokens, rank) and outer (vocab, rank), whose product is added to the logits.
    """
    factors = [hidden, weight, *(low_rank or ())]
    counted = (targets != IGNORED).nonzero()[:, 0]
    if len(counted) < len(targets):
        factors[::2] = [rows.index_select(0, counted) for rows in factors[::2]]
        targets = targets.index_select(0, counted)
    if torch.is_grad_enabled():
        return _HeadLoss.apply(targets, *factors)
    return _forward(targets, factors)


def target_losses(
    hidden: Tensor, weight: Tensor, targets: Tensor, low_rank: tuple[Tensor, Tensor] | None = None
) -> Tensor:
    """-log softmax(hidden @ weight.T)[target] of each position by itself, in nats, (tokens,) float32.

    Arguments as for `head_loss`, but every target counts. What the caller makes of the losses decides how
    much each weighs, so for the backward pass the slopes of all are kept, (tokens, vocab) in hidden's dtype.
    """
    return _TargetLosses.apply(torch.is_grad_enabled(), targets, hidden, weight, *(low_rank or ()))


class _TargetLosses(torch.autograd.Function):
    @staticmethod
    def forward(ctx, wanted: bool, targets: Tensor, *factors: Tensor) -> Tensor:
        pairs = [(rows, m.to(rows.dtype)) for rows, m in zip(factors[::2], factors[1::2], strict=True)]
        (hidden, weight), *more = pairs
        slopes = hidden.new_empty(len(targets) if wanted else 0, len(weight))
        losses = torch.empty(len(targets), dtype=torch.float32, device=targets.device)
        for start in range(0, len(targets), CHUNK_TOKENS):
            chunk = slice(start, start + CHUNK_TOKENS)
            logits = hidden[chunk] @ weight.T  # (chunk, vocab)
            for rows, matrix in more:
                logits.addmm_(rows[chunk], matrix.T)
            losses[chunk], slope = _cross_entropy(logits, targets[chunk])
            if wanted:
                slopes[chunk] = slope
        ctx.save_for_backward(slopes, *factors)
        return losses

    @staticmethod
    def backward(ctx, by_losses: Tensor):  # type: ignore[override]
        slopes, *factors = ctx.saved_tensors
        slope = slopes * by_losses[:, None].to(slopes.dtype)
        grads: list[Tensor | None] = [None, None]
        for i, factor in enumerate(factors):
            if not ctx.needs_input_grad[i + 2]:
                grads.append(None)
            elif i % 2 == 0:  # rows: by the matrix
                grads.append(slope @ factors[i + 1].to(slope.dtype))
            else:
                grads.append((slope.T @ factors[i - 1]).to(factor.dtype))
        return tuple(grads)


def _forward(
    targets: Tensor, factors: Sequence[Tensor], grads: Sequence[tuple[Tensor, Tensor | None]] = ()
) -> Tensor:
    """The loss, of `factors` rows, matrix, rows, matrix: the logits are the sum of rows @ matrix.T.

    `grads`: for each two of them where their gradients are written, and added, if they are wanted.
    """
    total = torch.zeros((), device=targets.device)
    pairs = [(rows, matrix.to(rows.dtype)) for rows, matrix in zip(factors[::2], factors[1::2], strict=True)]
    for start in range(0, len(targets), CHUNK_TOKENS):
        chunk = slice(start, start + CHUNK_TOKENS)
        (rows, matrix), *more = pairs
        logits = rows[chunk] @ matrix.T  # (chunk, vocab)
        for rows, matrix in more:
            logits.addmm_(rows[chunk], matrix.T)
        losses, slope = _cross_entropy(logits, targets[chunk])
        total += losses.sum()
        for (rows, matrix), (by_rows, by_matrix) in zip(pairs, grads, strict=False):
            torch.mm(slope, matrix, out=by_rows[chunk])
            if by_matrix is not None:  # else a frozen head
                by_matrix.add_(slope.T @ rows[chunk])
    return total


def _cross_entropy(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Losses float32 (chunk), and their gradient by the logits in the logits' dtype (chunk, vocab):
    the probabilities, less one at the target. The logits may be overwritten."""
    if kernels.ready(logits, 16, logits.shape[1]):
        return kernels.cross_entropy_(logits, targets), logits
    target = targets[:, None]  # (chunk, 1)
    logprobs = logits.float().log_softmax(-1)
    losses = -logprobs.gather(1, target)[:, 0]
    minus_one = torch.full_like(target, -1, dtype=torch.float32)
    return losses, logprobs.exp_().scatter_add_(1, target, minus_one).to(logits.dtype)


class _HeadLoss(torch.autograd.Function):
    """Gradients are computed beside the loss, while a chunk's logits are still at hand."""

    @staticmethod
    def forward(ctx, targets: Tensor, *factors: Tensor) -> Tensor:
        learns = ctx.needs_input_grad[2::2]
        by_rows = [torch.empty_like(rows) for rows in factors[::2]]
        by_matrix = [
            torch.zeros_like(matrix, dtype=torch.float32) if wanted else None
            for matrix, wanted in zip(factors[1::2], learns, strict=True)
        ]
        grads = list(zip(by_rows, by_matrix, strict=True))
        total = _forward(targets, factors, grads)
        ctx.save_for_backward(
            *(None if g is None else g.to(f.dtype) for g, f in zip(chain(*grads), factors, strict=True))
        )
        return total

    @staticmethod
    def backward(ctx, scale: Tensor):  # type: ignore[override]
        return None, *(None if g is None else g * scale.to(g.dtype) for g in ctx.saved_tensors)
