"""Head and cross entropy in one, in chunks: the logits of a batch never exist all at once.

With a vocabulary of 2,048 and 8,192 tokens a batch, logits and their gradient in float32 would take
128 MiB and most of the step's memory traffic; a chunk stays in the processor's cache. Only positions
with a counted target are computed, which in chat fine-tuning are a minority.
"""

from __future__ import annotations

import torch
from torch import Tensor

from glasshouse.model import kernels

CHUNK_TOKENS = 1024

IGNORED = -100
"""A target that does not count, as in PyTorch and transformers."""


def head_loss(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Sum over counted targets of -log softmax(hidden @ weight.T)[target], in nats, float32 scalar.

    hidden (tokens, width) in any float dtype, weight (vocab, width), targets (tokens,) int64 with
    -100 where a position does not count. Products run in hidden's dtype, log-softmax in float32.
    """
    counted = (targets != IGNORED).nonzero()[:, 0]
    if len(counted) < len(targets):
        hidden, targets = hidden.index_select(0, counted), targets.index_select(0, counted)
    if torch.is_grad_enabled():
        return _HeadLoss.apply(hidden, weight, targets)
    return _forward(hidden, weight.to(hidden.dtype), targets)


def _forward(
    hidden: Tensor, weight: Tensor, targets: Tensor, grads: tuple[Tensor, Tensor | None] | None = None
) -> Tensor:
    """The loss; with `grads` also its gradients by hidden and weight, written and added into them."""
    total = torch.zeros((), device=hidden.device)
    for start in range(0, len(hidden), CHUNK_TOKENS):
        rows = slice(start, start + CHUNK_TOKENS)
        logits = hidden[rows] @ weight.T  # (chunk, vocab)
        losses, slope = _cross_entropy(logits, targets[rows])
        total += losses.sum()
        if grads is not None:
            torch.mm(slope, weight, out=grads[0][rows])
            if grads[1] is not None:  # a frozen head
                grads[1].add_(slope.T @ hidden[rows])
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
    def forward(ctx, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        by_hidden = torch.empty_like(hidden)
        by_weight = torch.zeros_like(weight, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        total = _forward(hidden, weight.to(hidden.dtype), targets, (by_hidden, by_weight))
        ctx.save_for_backward(by_hidden, None if by_weight is None else by_weight.to(weight.dtype))
        return total

    @staticmethod
    def backward(ctx, scale: Tensor):  # type: ignore[override]
        by_hidden, by_weight = ctx.saved_tensors
        return by_hidden * scale.to(by_hidden.dtype), None if by_weight is None else by_weight * scale, None
