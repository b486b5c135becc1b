"""Replies sampled from a policy, as a training step needs them: rows of ids, masks, log-probabilities.

The engine (inference/engine.py) writes all replies together, at temperature 1: that is the policy itself.
Their log-probabilities are computed again by the model as it trains, on whole rows: the engine's own are
right to rounding only, and a ratio of two roundings is noise that looks like a change of the policy.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from glasshouse.alignment.packed_rows import pack_rows
from glasshouse.data import IGNORE
from glasshouse.inference import LanguageModel, Sampling
from glasshouse.inference.engine import Engine, EngineSettings
from glasshouse.inference.request import Delta, Event, Request
from glasshouse.model import Transformer
from glasshouse.model.lora import active_adapters
from glasshouse.tokenizer import Tokenizer


@dataclass(frozen=True)
class Reply:
    """One reply to a prompt. `ids` end with the token that ended the reply, where one did."""

    prompt: tuple[int, ...]
    ids: tuple[int, ...]
    text: str
    ended: bool  # by itself; else it was cut at the limit


@dataclass(frozen=True)
class Rows:
    """Replies after their prompts, padded on the right; all (replies, tokens).

    `targets` are the replies' own tokens, IGNORE elsewhere; `segments` are 0, and -1 where a row is padded.
    """

    inputs: Tensor
    targets: Tensor
    segments: Tensor

    @property
    def mask(self) -> Tensor:
        """Which positions predict a token of a reply; bool."""
        return self.targets != IGNORE


def sample_replies(
    model: Transformer,
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[int]],
    seeds: Sequence[int],
    group: int,
    max_new_tokens: int,
    *,
    temperature: float = 1.0,
    at_once: int | None = None,
) -> list[list[Reply]]:
    """`group` replies to each prompt, a pure function of the weights and the arguments before `at_once`.

    The noise of a token is keyed by the prompt's seed, the reply's number and the position, and the engine
    runs in its deterministic mode: what is written beside a reply cannot change it. At most `at_once`
    replies are written at a time, all where it is None. Raises UsageError for prompts that are empty or
    longer than the context.
    """
    rows = group * len(prompts) if at_once is None else max(group, at_once)
    settings = EngineSettings(max_rows=rows, queue_limit=len(prompts), deterministic=True)
    policy = LanguageModel(model, tokenizer)
    (adapter,) = active_adapters(model) or [None]
    engine = Engine(policy, settings)
    ended = threading.Semaphore(0)
    deltas: list[list[list[Delta]]] = [[[] for _ in range(group)] for _ in prompts]
    tickets = []
    try:
        for place, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True)):

            def deliver(event: Event, place: int = place) -> None:
                if isinstance(event, Delta):
                    deltas[place][event.choice].append(event)
                    if event.finish is not None:
                        ended.release()

            request = Request(
                prompt=tuple(prompt),
                max_new_tokens=max_new_tokens,
                sampling=Sampling.parse({"temperature": temperature, "seed": seed}),
                n=group,
                stop_ids=policy.stop_ids,
                adapter=adapter,
            )
            tickets.append(engine.submit(request, deliver))
        for _ in range(group * len(prompts)):
            ended.acquire()
    finally:
        engine.close()
    for ticket in tickets:
        if ticket.error is not None:
            raise ticket.error
    return [
        [_reply(tuple(prompt), said) for said in choices]
        for prompt, choices in zip(prompts, deltas, strict=True)
    ]


def _reply(prompt: tuple[int, ...], deltas: Sequence[Delta]) -> Reply:
    ids = tuple(token for delta in deltas for token in delta.ids)
    finish = deltas[-1].finish
    stop = None if finish is None else finish.stop
    if isinstance(stop, int):  # the policy chose to end here, and is judged for it as for any token
        ids += (stop,)
    return Reply(prompt, ids, "".join(delta.text for delta in deltas), isinstance(stop, int))


def make_rows(replies: Sequence[Reply]) -> Rows:
    """Teacher-forcing rows of some replies, as long as the longest of them."""
    longest = max(len(reply.prompt) + len(reply.ids) for reply in replies) - 1
    inputs = torch.zeros(len(replies), longest, dtype=torch.int64)
    targets, segments = torch.full_like(inputs, IGNORE), torch.full_like(inputs, -1)
    for row, reply in enumerate(replies):
        text = torch.tensor([*reply.prompt, *reply.ids], dtype=torch.int64)
        inputs[row, : len(text) - 1] = text[:-1]
        segments[row, : len(text) - 1] = 0
        targets[row, len(reply.prompt) - 1 : len(text) - 1] = text[len(reply.prompt) :]
    return Rows(inputs, targets, segments)


def token_logprobs(model: Transformer, inputs: Tensor, targets: Tensor, segments: Tensor) -> Tensor:
    """Log-probability in nats of each target, 0 where there is none: (replies, tokens), float32.

    With a gradient where one is wanted.
    """
    packed = pack_rows(inputs, targets, segments, model.config.context)
    where = (targets != IGNORE).nonzero(as_tuple=True)
    states = packed.states(model).index_select(0, packed.places[where])  # (counted, hidden)
    picked = model.logprobs(states, targets[where])
    return torch.zeros(targets.shape, device=picked.device).index_put(where, picked)


@torch.no_grad()
def score_rows(model: Transformer, rows: Rows, at_once: int | None = None) -> Tensor:
    """`token_logprobs` of all rows, `at_once` rows a pass, on the CPU."""
    device, step = model.device, at_once or len(rows.inputs)
    parts = zip(*(t.to(device).split(step) for t in (rows.inputs, rows.targets, rows.segments)), strict=True)
    return torch.cat([token_logprobs(model, *part).cpu() for part in parts])
