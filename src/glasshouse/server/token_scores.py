"""Tokens with their log-probabilities, as both APIs of OpenAI write them."""

from __future__ import annotations

import codecs
from collections.abc import Iterable
from typing import Any

from glasshouse.inference.request import TokenScore
from glasshouse.inference.token_names import LOWEST, finite, token_bytes, token_name
from glasshouse.tokenizer import Tokenizer


def chat_logprobs(tokenizer: Tokenizer, scores: Iterable[TokenScore]) -> dict[str, Any]:
    """`logprobs` of a chat's choice."""

    def told(token: int, logprob: float) -> dict[str, Any]:
        raw = token_bytes(tokenizer, token)
        return {"token": token_name(raw), "logprob": finite(logprob), "bytes": list(raw)}

    content = [
        {**told(score.id, score.logprob), "top_logprobs": [told(*other) for other in score.top]}
        for score in scores
    ]
    return {"content": content, "refusal": None}


class ScoredText:
    """`logprobs` of a completion: tokens, their scores, the alternatives, and where each begins in the text.

    A token's score is the same number in `token_logprobs` and in `top_logprobs`, which always holds it.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._length = 0  # characters that the tokens so far have completed
        self._told = 0
        self._tokens: list[str] = []
        self._logprobs: list[float | None] = []
        self._top: list[dict[str, float] | None] = []
        self._offsets: list[int] = []

    def add(self, tokens: Iterable[tuple[int, TokenScore | None]]) -> None:
        """Tokens with their scores; the first of a prompt has none."""
        for token, score in tokens:
            raw = token_bytes(self._tokenizer, token)
            self._tokens.append(token_name(raw))
            self._offsets.append(self._length)
            self._length += len(self._decoder.decode(raw))
            self._logprobs.append(None if score is None else finite(score.logprob))
            self._top.append(None if score is None else self._alternatives(score))

    def _alternatives(self, score: TokenScore) -> dict[str, float]:
        made: dict[str, float] = {}
        for token, logprob in (*score.top, (score.id, score.logprob)):
            name = token_name(token_bytes(self._tokenizer, token))
            made[name] = max(finite(logprob), made.get(name, LOWEST))
        return made

    def told(self) -> dict[str, Any]:
        """What was added since the last time."""
        start, self._told = self._told, len(self._tokens)
        return {
            "tokens": self._tokens[start:],
            "token_logprobs": self._logprobs[start:],
            "top_logprobs": self._top[start:],
            "text_offset": self._offsets[start:],
        }
