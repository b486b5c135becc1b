"""How sure a model was of each value it wrote: from the probabilities of its tokens, and from asking again.

The probability of a value is the product of its tokens' probabilities: what the model gave to exactly this
value, where it stands. (A geometric mean would not be a probability of anything: of "1,204" it is large when
four of five digits are sure, although one wrong digit makes the value wrong.) A token that reaches over the
value's edge counts whole, and so does the one after a number: it decides that the number is over. Where the
value comes with a quote, as extraction asks for it, the quote's tokens count too: a model that took the
wrong sentence copies its number with a probability near 1, and "not mentioned" is decided at the quote.

Tokens that a grammar forced count with what the model itself gave to them, as backends tell it; where one
tells 1 for them, they count 1.
"""

from __future__ import annotations

import bisect
import json
import math
import re
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

from glasshouse.documents.values.equality import same
from glasshouse.documents.values.leaves import Leaf, leaves, spans, without_indices
from glasshouse.llm.interface import Completion, TokenLogprob

_PLACES = 200
"""Brackets of a reply at which its JSON may begin; as in llm/structured.py."""

_BYTES = re.compile(r"bytes:(?:\\x[0-9a-f]{2})+")
"""How OpenAI, and our engine, spell a token that is not whole characters."""


def signals(
    completion: Completion, value: Any = None, votes: Sequence[Any] = ()
) -> dict[str, tuple[float | None, float | None]]:
    """Path -> (token probability, vote share) of every leaf of a reply.

    `value`: the reply as it was parsed; where it is not given, the longest JSON object in the text. `votes`:
    the parsed replies of all samples, the first one's too; one that did not parse is None and says nothing.
    """
    probabilities = token_probabilities(completion, value)
    if value is None:
        found = _json_in(completion.text, None)
        told = {} if found is None else {leaf.path: leaf.value for leaf in found}
    else:
        told = dict(leaves(value))
    shares = vote_shares(told, votes)
    return {path: (probabilities.get(path), shares[path]) for path in told}


def token_probabilities(completion: Completion, value: Any = None) -> dict[str, float]:
    """Path -> the probability of the leaf's tokens. Empty where there are no logprobs, where they do not add
    up to the text, or where the text holds no JSON."""
    if completion.logprobs is None:
        return {}
    found = _json_in(completion.text, value)
    if found is None:
        return {}
    aligned = _Aligned.of(completion.text, completion.logprobs)
    return {} if aligned is None else {leaf.path: aligned.probability(leaf) for leaf in found}


def vote_shares(told: Mapping[str, Any], votes: Sequence[Any]) -> dict[str, float | None]:
    """Path -> the share of the samples that say the same there; None where fewer than two were asked.

    An item of a list is said by a sample that has it anywhere in that list. "Not mentioned" is something
    said too, and so is leaving a path out.
    """
    if len(votes) < 2:
        return dict.fromkeys(told)
    samples = [_by_pattern(vote) for vote in votes]

    def says(sample: dict[str, list[Any]] | None, path: str, value: Any) -> bool:
        if sample is None:
            return False
        others = sample.get(without_indices(path), [None])
        return any(same(value, other) for other in others)

    return {
        path: sum(says(sample, path, value) for sample in samples) / len(samples)
        for path, value in told.items()
    }


def _by_pattern(vote: Any) -> dict[str, list[Any]] | None:
    if vote is None:
        return None
    found: dict[str, list[Any]] = {}
    for path, value in leaves(vote):
        found.setdefault(without_indices(path), []).append(value)
    return found


def _json_in(text: str, value: Any) -> tuple[Leaf, ...] | None:
    """The leaves of the object in the text that says `value`; else of the longest one."""
    best: tuple[int, tuple[Leaf, ...]] | None = None
    decoder, at = json.JSONDecoder(), -1
    for _ in range(_PLACES):
        at = text.find("{", at + 1)
        if at < 0:
            break
        try:
            parsed, end = decoder.raw_decode(text, at)
            if value is not None and parsed == value:
                return spans(text, at)[0]
            if best is None or end - at > best[0]:
                best = end - at, spans(text, at)[0]
        except (ValueError, RecursionError):
            continue
        at = end - 1
    return None if best is None else best[1]


class _Aligned:
    """Which tokens wrote which characters of a text."""

    def __init__(self, text: str, starts: list[int], ends: list[int], logprobs: list[float]) -> None:
        self._text, self._starts, self._ends, self._logprobs = text, starts, ends, logprobs  # in bytes
        self._offsets = None if text.isascii() else [0, *accumulate(len(_encoded(c)) for c in text)]

    @classmethod
    def of(cls, text: str, tokens: Sequence[TokenLogprob]) -> _Aligned | None:
        """None where the tokens do not write the text. What they write before and after it is left out: a
        backend tells of thoughts and of the end too."""
        pieces = [_bytes(token.token) for token in tokens]
        logprobs = [token.logprob for token in tokens]
        begin = b"".join(pieces).rfind(_encoded(text))
        if begin < 0 or any(math.isnan(logprob) for logprob in logprobs):
            return None
        ends = [end - begin for end in accumulate(map(len, pieces))]
        starts = [end - len(piece) for end, piece in zip(ends, pieces, strict=True)]
        return cls(text, starts, ends, logprobs)

    def probability(self, leaf: Leaf) -> float:
        taken: set[int] = set()
        for start, end in leaf.spans:
            number = self._text[end - 1].isdigit()
            taken |= self._between(start, end + (number and end < len(self._text)))
        return math.exp(min(0.0, math.fsum(self._logprobs[i] for i in taken)))

    def _between(self, start: int, end: int) -> set[int]:
        """The tokens that hold any of these characters. A token without text holds none."""
        if self._offsets is not None:
            start, end = self._offsets[start], self._offsets[end]
        first = bisect.bisect_right(self._ends, start)
        last = bisect.bisect_left(self._starts, end)
        return {i for i in range(first, last) if self._ends[i] > self._starts[i]}


def _bytes(token: str) -> bytes:
    if _BYTES.fullmatch(token):
        return bytes.fromhex(token.removeprefix("bytes:").replace("\\x", ""))
    return _encoded(token)


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
