"""The decoding loop: many prompts at once, one token a step, rows leave when they are done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass

import torch
from torch import Tensor

from glasshouse.core.errors import UsageError
from glasshouse.inference.cache import KVCache
from glasshouse.inference.sampling import Sampling, choose, row_key
from glasshouse.model import Transformer

CACHE_BYTES = 256 * 2**20
"""Ceiling of one chunk's cache."""

PREFILL_TOKENS = 16_384
"""Ceiling of rows · longest prompt in one chunk: the prefill's activations stay small."""

COMPACT_BELOW = 0.8
"""Finished rows are removed once at most this share is running, or one is at its end of the cache:
removing copies the cache, so a few of them are better carried along."""


@dataclass(frozen=True)
class Step:
    """One token for each row still running."""

    rows: list[int]  # indices into the prompts
    tokens: list[int]
    logits: Tensor  # (len(rows), vocab), what the tokens were chosen from


def check_prompts(prompts: Sequence[Sequence[int]], context: int, vocab: int) -> None:
    """Raise UsageError for a prompt that is empty, too long, or holds ids outside the vocabulary."""
    for index, prompt in enumerate(prompts):
        where = f"prompt {index}"
        if not prompt:
            raise UsageError("the prompt is empty", where=where, fix="give at least one token")
        if len(prompt) > context:
            raise UsageError(
                f"the prompt has {len(prompt)} tokens, the context holds {context}",
                where=where,
                fix="shorten the prompt",
            )
        if not 0 <= min(prompt) <= max(prompt) < vocab:
            raise UsageError(
                f"token ids run from {min(prompt)} to {max(prompt)}, the vocabulary has {vocab}",
                where=where,
                fix="encode the prompt with this model's own tokenizer",
            )


def generate_batch(
    model: Transformer,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    sampling: Sampling,
    stop_ids: Set[int] = frozenset(),
) -> list[list[int]]:
    """New tokens of every prompt, in the prompts' order, without the stop token that ended a row.

    A row ends at a stop id, after `max_new_tokens`, or where the model's context is full. Equal
    prompts are numbered, so that sampling gives each of them its own text.
    """
    check_prompts(prompts, model.config.context, model.config.vocab_size)
    seen: Counter[tuple[int, ...]] = Counter()
    keys: list[int] = []
    for prompt in map(tuple, prompts):
        keys.append(row_key(sampling.seed, seen[prompt], prompt) if sampling.temperature else 0)
        seen[prompt] += 1
    texts: list[list[int]] = [[] for _ in prompts]
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    for chunk in _chunks(model, [len(prompts[index]) for index in order], max_new_tokens):
        members = [order[place] for place in chunk]
        steps = decode(
            model,
            [prompts[index] for index in members],
            max_new_tokens,
            sampling,
            keys=[keys[index] for index in members],
            stop_ids=stop_ids,
        )
        for step in steps:
            for row, token in zip(step.rows, step.tokens, strict=True):
                if token not in stop_ids:
                    texts[members[row]].append(token)
    return texts


def _chunks(model: Transformer, lengths: list[int], max_new_tokens: int) -> Iterator[range]:
    """Cut sorted lengths into runs that stay below CACHE_BYTES and PREFILL_TOKENS."""
    slots = CACHE_BYTES // KVCache.bytes_per_token(model.config, model.compute_dtype)
    start = 0
    for end in range(1, len(lengths) + 1):
        if end < len(lengths):
            rows, longest = end + 1 - start, lengths[end]
            if rows * (longest + max_new_tokens) <= slots and rows * longest <= PREFILL_TOKENS:
                continue
        yield range(start, end)
        start = end


@torch.inference_mode()
def decode(
    model: Transformer,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    sampling: Sampling,
    *,
    keys: Sequence[int],
    stop_ids: Set[int] = frozenset(),
) -> Iterator[Step]:
    """Yield one Step per token; the caller has checked the prompts.

    `keys` are the rows' noise keys. A stop token is yielded too: it is the last of its row.
    """
    context = model.config.context
    lengths = [len(prompt) for prompt in prompts]
    limits = [min(max_new_tokens, context - length) for length in lengths]  # new tokens a row may have
    rows = [row for row, limit in enumerate(limits) if limit > 0]
    if not rows:
        return
    cache, hidden = _prefill(model, [prompts[row] for row in rows], max(limits))
    row_keys = torch.tensor([keys[row] for row in rows], dtype=torch.int64, device=model.device)
    running = list(range(len(rows)))  # places in the batch that are not done
    for made in range(1, max(limits) + 1):
        logits = model.head(hidden)  # (batch, vocab)
        tokens = choose(logits, sampling, row_keys, cache.lengths)
        chosen = tokens.tolist()
        shown = logits if len(running) == len(rows) else logits[running]
        yield Step([rows[place] for place in running], [chosen[place] for place in running], shown)
        running = [place for place in running if chosen[place] not in stop_ids and made < limits[rows[place]]]
        if not running:
            return
        if len(running) <= COMPACT_BELOW * len(rows) or cache.full:
            cache.keep(running)
            tokens, row_keys = tokens[running], row_keys[running]
            rows = [rows[place] for place in running]
            running = list(range(len(rows)))
        hidden = model.hidden(tokens[:, None], cache=cache)[:, 0]  # (batch, hidden)


def _prefill(model: Transformer, prompts: Sequence[Sequence[int]], room: int) -> tuple[KVCache, Tensor]:
    """Read all prompts into a fresh cache; also the hidden state of each prompt's last token."""
    lengths = [len(prompt) for prompt in prompts]
    cache = KVCache(
        model.config,
        len(prompts),
        min(max(lengths) + room, model.config.context),
        dtype=model.compute_dtype,
        device=model.device,
    )
    ids = torch.zeros(len(prompts), max(lengths), dtype=torch.int64)
    for row, prompt in enumerate(prompts):
        ids[row, : len(prompt)] = torch.tensor(prompt)
    ids = ids.to(model.device)
    last = torch.tensor([length - 1 for length in lengths], device=model.device)
    hidden = model.hidden(ids, cache=cache)  # (batch, longest, hidden)
    cache.set_lengths(lengths)
    return cache, hidden[torch.arange(len(prompts), device=model.device), last]
