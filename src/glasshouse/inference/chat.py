"""One reply of a conversation, with its trace: what was read, what was dropped, how sure each token was."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor

from glasshouse.core.errors import UsageError
from glasshouse.inference.decoding import decode
from glasshouse.inference.sampling import Sampling, row_key
from glasshouse.inference.text_stream import TextStream

if TYPE_CHECKING:
    from glasshouse.model import Transformer
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
        model: Transformer,
        tokenizer: Tokenizer,
        messages: Sequence[Message],
        max_new_tokens: int,
        sampling: Sampling,
        stop: Sequence[str] = (),
        stop_ids: Set[int] = frozenset(),
    ) -> None:
        self._model, self._tokenizer, self._sampling = model, tokenizer, sampling
        self._max_new_tokens = max_new_tokens
        self._stream = TextStream(tokenizer.token_bytes, stop)
        self._stop_ids = stop_ids
        context = model.config.context
        self._prompt, dropped, notes = fit(tokenizer, messages, context, max_new_tokens)
        self._text = ""
        self.trace: dict[str, Any] = {
            "prompt_tokens": len(self._prompt),
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
        key = row_key(self._sampling.seed, 0, self._prompt)
        steps = decode(
            self._model,
            [self._prompt],
            self._max_new_tokens,
            self._sampling,
            keys=[key],
            stop_ids=self._stop_ids,
        )
        seconds = self.trace["seconds"]
        reason = "length"
        for step in steps:
            seconds["total"] = time.perf_counter() - start
            seconds["first_token"] = seconds["first_token"] or seconds["total"]
            token = step.tokens[0]
            self.trace["tokens"].append(self._explain(token, step.logits[0]))
            if token in self._stop_ids:
                reason = "stop"
                break
            piece = self._stream.feed(token)
            self._text += piece
            if piece:
                yield piece
            if self._stream.stopped:
                reason = "stop"
                break
        self.trace["finish_reason"] = reason
        rest = self._stream.finish()
        self._text += rest
        if rest:
            yield rest

    def _explain(self, token: int, logits: Tensor) -> dict[str, Any]:
        """A token beside its likeliest alternatives; log-probabilities in nats, at temperature 1."""
        logprobs = logits.float().log_softmax(-1)
        top = logprobs.topk(min(ALTERNATIVES, len(logprobs)))
        return {
            **self._named(token, logprobs[token]),
            "top": [
                self._named(other, value)
                for other, value in zip(top.indices.tolist(), top.values, strict=True)
            ],
        }

    def _named(self, token: int, logprob: Tensor) -> dict[str, Any]:
        text = self._tokenizer.token_bytes(token).decode("utf-8", errors="replace")
        return {"id": token, "text": text, "logprob": round(float(logprob), 6)}


def fit(
    tokenizer: Tokenizer, messages: Sequence[Message], context: int, max_new_tokens: int
) -> tuple[list[int], list[Message], list[str]]:
    """The prompt's ids, the messages dropped to make it fit, and notes that say so.

    Room is kept for the reply: `max_new_tokens`, but at most a quarter of the context. The oldest
    turns go first (a question with its answer); system messages and the last message stay.
    """
    room = min(max_new_tokens, context // 4)
    kept, dropped = list(messages), []
    while True:
        ids = tokenizer.encode_chat(kept, add_generation_prompt=True).ids
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
