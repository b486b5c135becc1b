"""Log-probabilities of given tokens: teacher-forced, batched, no cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from glasshouse.core.errors import UsageError
from glasshouse.inference.decoding import check_prompts
from glasshouse.model import Transformer

BATCH_TOKENS = 16_384
"""Ceiling of rows · longest row in one forward pass."""

LOGITS = 2**23
"""Logits in memory at a time: 32 MiB, whatever the vocabulary."""


@torch.inference_mode()
def score_batch(
    model: Transformer, prompts: Sequence[Sequence[int]], continuations: Sequence[Sequence[int]]
) -> list[Tensor]:
    """For each pair the log-probability in nats of every continuation token, float32 (length,) on CPU."""
    scores: list[Tensor] = [torch.empty(0)] * len(prompts)
    for members, hidden, targets in _states(model, prompts, continuations):
        picked = _logprobs_of(model, hidden, targets, [1.0])[:, 0]
        pieces = picked.cpu().split([len(continuations[member]) for member in members])
        for member, piece in zip(members, pieces, strict=True):
            scores[member] = piece.clone()
    return scores


@torch.inference_mode()
def text_logprobs(
    model: Transformer,
    prompts: Sequence[Sequence[int]],
    continuations: Sequence[Sequence[int]],
    temperatures: Sequence[float],
) -> Tensor:
    """Log-probability in nats of each whole continuation at each temperature: (texts, temperatures)."""
    scores = torch.zeros(len(prompts), len(temperatures))
    for members, hidden, targets in _states(model, prompts, continuations):
        picked = _logprobs_of(model, hidden, targets, temperatures)
        pieces = picked.cpu().split([len(continuations[member]) for member in members])
        for member, piece in zip(members, pieces, strict=True):
            scores[member] = piece.sum(0)
    return scores


def _states(
    model: Transformer, prompts: Sequence[Sequence[int]], continuations: Sequence[Sequence[int]]
) -> Iterator[tuple[list[int], Tensor, list[int]]]:
    """Batches of (indices of texts, the states before their continuations' tokens, those tokens)."""
    if len(prompts) != len(continuations):
        raise UsageError(f"{len(prompts)} prompts but {len(continuations)} continuations")
    texts = [[*prompt, *more] for prompt, more in zip(prompts, continuations, strict=True)]
    check_prompts(prompts, model.config.context, model.config.vocab_size)
    check_prompts(texts, model.config.context, model.config.vocab_size)
    for members, hidden in _forward(model, [text[:-1] for text in texts]):
        rows, columns, targets = [], [], []
        for row, member in enumerate(members):
            for column in range(len(prompts[member]) - 1, len(texts[member]) - 1):
                rows.append(row)
                columns.append(column)
                targets.append(texts[member][column + 1])
        yield members, hidden[rows, columns], targets


def _logprobs_of(
    model: Transformer, hidden: Tensor, targets: list[int], temperatures: Sequence[float]
) -> Tensor:
    """Log-probability of each target after its state: hidden (counted, width) -> (counted, temperatures)."""
    target = torch.tensor(targets, dtype=torch.int64, device=hidden.device)[:, None]
    picked = []
    step = max(LOGITS // model.config.vocab_size, 1)
    for start in range(0, len(hidden), step):
        logits = model.head(hidden[start : start + step]).float()  # (step, vocab)
        chosen = logits.gather(-1, target[start : start + step])[:, 0]
        picked.append(torch.stack([chosen / t - (logits / t).logsumexp(-1) for t in temperatures], dim=-1))
    return torch.cat(picked) if picked else torch.empty(0, len(temperatures))


@torch.inference_mode()
def next_token_logprobs(model: Transformer, prompts: Sequence[Sequence[int]]) -> Tensor:
    """Log-probabilities of every possible next token, float32 (prompts, vocab) on CPU."""
    check_prompts(prompts, model.config.context, model.config.vocab_size)
    result = torch.empty(len(prompts), model.config.vocab_size)
    for members, hidden in _forward(model, prompts):
        last = [len(prompts[member]) - 1 for member in members]
        logits = model.head(hidden[range(len(members)), last]).float()  # (rows, vocab)
        result[members] = logits.log_softmax(-1).cpu()
    return result


def _forward(model: Transformer, texts: Sequence[Sequence[int]]) -> Iterator[tuple[list[int], Tensor]]:
    """Right-padded batches of similar lengths: (indices into texts, hidden (rows, longest, hidden)).

    Padding lies after every real token, so causality alone keeps it out of their states.
    """
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    start = 0
    for end in range(1, len(order) + 1):
        if end < len(order) and (end + 1 - start) * len(texts[order[end]]) <= BATCH_TOKENS:
            continue
        members = order[start:end]
        start = end
        ids = torch.zeros(len(members), max(len(texts[members[-1]]), 1), dtype=torch.int64)
        for row, member in enumerate(members):
            ids[row, : len(texts[member])] = torch.tensor(texts[member], dtype=torch.int64)
        yield members, model.hidden(ids.to(model.device))
