"""Many prompts at once: each gets the text that it would get alone."""

from __future__ import annotations

import threading
from collections.abc import Sequence, Set
from typing import TYPE_CHECKING

from glasshouse.core.errors import UsageError
from glasshouse.inference.request import Delta, Event, Request
from glasshouse.inference.sampling import Sampling

if TYPE_CHECKING:
    from glasshouse.inference.engine import Engine


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
    engine: Engine,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    sampling: Sampling,
    stop_ids: Set[int] = frozenset(),
    adapter: str | None = None,
) -> list[list[int]]:
    """New tokens of every prompt, in the prompts' order, without the stop token that ended a row.

    A row ends at a stop id, after `max_new_tokens`, or where the model's context is full. Equal
    prompts are choices of one request, so that sampling gives each of them its own text.
    """
    config = engine.model.model.config
    check_prompts(prompts, config.context, config.vocab_size)
    texts: list[list[int]] = [[] for _ in prompts]
    rows: dict[tuple[int, ...], list[int]] = {}
    for row, prompt in enumerate(prompts):
        rows.setdefault(tuple(prompt), []).append(row)
    ended = threading.Semaphore(0)
    tickets = []
    for prompt, places in rows.items():

        def deliver(event: Event, places: Sequence[int] = places) -> None:
            if isinstance(event, Delta):
                texts[places[event.choice]] += event.ids
                if event.finish is not None:
                    ended.release()

        request = Request(
            prompt=prompt,
            max_new_tokens=max_new_tokens,
            sampling=sampling,
            n=len(places),
            stop_ids=frozenset(stop_ids),
            adapter=adapter,
        )
        tickets.append(engine.submit(request, deliver))
    try:
        for _ in prompts:
            ended.acquire()
    finally:
        for ticket in tickets:
            ticket.cancel()
    for ticket in tickets:
        if ticket.error is not None:
            raise ticket.error
    return texts
