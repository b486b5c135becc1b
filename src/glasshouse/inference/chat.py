"""One reply of a conversation, with its trace: what was read, what was dropped, how sure each token was."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from glasshouse.core.errors import UsageError
from glasshouse.inference.request import Delta, Request, TokenScore
from glasshouse.inference.sampling import Sampling

if TYPE_CHECKING:
    from glasshouse.inference.engine import Engine
    from glasshouse.tokenizer import Tokenizer

Message = dict[str, Any]

ALTERNATIVES = 5
"""How many tokens of each step the trace names, the chosen one or not."""


@dataclass(frozen=True)
class Reply:
    """What the assistant said, and how it came about (see `ChatStream.trace`)."""

    text: str
    trace: dict[str, Any] = field(repr=False)


class ChatStream:
    """Iterate for the pieces of a reply as they become certain; `.reply` holds what came so far."""

    def __init__(
        self,
        engine: Engine,
        messages: Sequence[Message],
        max_new_tokens: int,
        sampling: Sampling,
        stop: Sequence[str] = (),
        adapter: str | None = None,
    ) -> None:
        self._engine, self._tokenizer = engine, engine.model.tokenizer
        prompt, dropped, notes = fit(self._tokenizer, messages, engine.model.context, max_new_tokens)
        self._request = Request(
            prompt=tuple(prompt),
            max_new_tokens=max_new_tokens,
            sampling=sampling,
            stop=tuple(stop),
            stop_ids=engine.model.stop_ids,
            logprobs=ALTERNATIVES,
            adapter=adapter,
        )
        self._text = ""
        self.trace: dict[str, Any] = {
            "prompt_tokens": len(prompt),
            "dropped_turns": dropped,  # messages left out, oldest first
            "notes": notes,
            "sampling": {**sampling.model_dump(), "max_new_tokens": max_new_tokens},
            "tokens": [],  # {"id", "text", "logprob", "top": [{"id", "text", "logprob"}]}
            "finish_reason": "interrupted",  # or "stop", "length"
            "seconds": {"first_token": None, "total": None},
        }

    @property
    def reply(self) -> Reply:
        return Reply(self._text, self.trace)

    def __iter__(self) -> Iterator[str]:
        start = time.perf_counter()
        seconds = self.trace["seconds"]
        for event in self._engine.events(self._request):
            if not isinstance(event, Delta):
                continue
            seconds["total"] = time.perf_counter() - start
            seconds["first_token"] = seconds["first_token"] or seconds["total"]
            self.trace["tokens"] += map(self._explain, event.scores)
            self._text += event.text
            if event.finish is not None:
                self.trace["finish_reason"] = event.finish.reason
            if event.text:
                yield event.text

    def _explain(self, score: TokenScore) -> dict[str, Any]:
        """A token beside its likeliest alternatives; log-probabilities in nats, at temperature 1."""
        top = [self._named(token, logprob) for token, logprob in score.top]
        return {**self._named(score.id, score.logprob), "top": top}

    def _named(self, token: int, logprob: float) -> dict[str, Any]:
        text = self._engine.token_bytes(token).decode("utf-8", errors="replace")
        return {"id": token, "text": text, "logprob": round(logprob, 6)}


def fit(
    tokenizer: Tokenizer,
    messages: Sequence[Message],
    context: int,
    max_new_tokens: int,
    tools: Sequence[Mapping[str, Any]] | None = None,
) -> tuple[list[int], list[Message], list[str]]:
    """The prompt's ids, the messages dropped to make it fit, and notes that say so.

    Room is kept for the reply: `max_new_tokens`, but at most a quarter of the context. The oldest
    turns go first (a question with its answer); system messages and the last message stay.
    """
    room = min(max_new_tokens, context // 4)
    kept, dropped = list(messages), []
    while True:
        ids = tokenizer.encode_chat(kept, add_generation_prompt=True, tools=tools).ids
        if len(ids) + room <= context:
            break
        turns = [place for place, message in enumerate(kept) if message["role"] != "system"]
        if len(turns) < 2:
            raise UsageError(
                f"the last message needs {len(ids)} tokens, the context holds {context} "
                f"with {room} kept for the reply",
                fix="shorten the message",
            )
        dropped.append(kept.pop(turns[0]))
        while len(turns) > 2 and kept[turns[0]]["role"] != "user":
            dropped.append(kept.pop(turns[0]))
            turns.pop()
    notes = []
    if dropped:
        notes.append(
            f"{len(dropped)} of {len(messages)} messages, the oldest, were left out: "
            f"the context holds {context} tokens, {room} of them for the reply"
        )
    return ids, dropped, notes
