"""A text as bytes and special tokens: the small vocabulary in which grammars are searched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from llguidance._tokenizer import TokenizerWrapper

    from glasshouse.tokenizer import Tokenizer


class ByteVocabulary:
    """The 256 bytes, the special tokens and one end: what the search is made of."""

    def __init__(self, tokenizer: Tokenizer, end_ids: frozenset[int]) -> None:
        from llguidance import LLTokenizer

        self.end_ids = end_ids
        names = sorted(tokenizer.special, key=tokenizer.special.__getitem__)
        self.special = {name: 256 + place for place, name in enumerate(names)}  # name -> unit
        self._unit_of = {tokenizer.special[name]: unit for name, unit in self.special.items()}
        self._token_of = {unit: token for token, unit in self._unit_of.items()}
        self.end = 256 + len(names)
        self._tokens = [tokenizer.token_bytes(token) for token in range(tokenizer.vocab_size)]
        self._ids: dict[bytes, int] = {}  # bytes -> the first token that stands for them
        for token, spelled in enumerate(self._tokens):
            if spelled and token not in self._unit_of:
                self._ids.setdefault(spelled, token)
        self._longest = max(map(len, self._ids), default=1)
        self.tokenizer = LLTokenizer(cast("TokenizerWrapper", _Units(names, self.end)), eos_token=self.end)

    def units_of(self, token: int) -> list[int]:
        """A token as bytes, or as the special token that it is."""
        if token in self._unit_of:
            return [self._unit_of[token]]
        return list(self._tokens[token]) if token < len(self._tokens) else []

    def bytes_of(self, token: int) -> bytes:
        """What a token is in the text; a special token is no part of it."""
        return b"" if token in self._unit_of or token >= len(self._tokens) else self._tokens[token]

    def tokens_of(self, units: Sequence[int]) -> tuple[int, ...] | None:
        """The fewest tokens that spell the units; None where the vocabulary lacks a byte."""
        best: list[tuple[int, int, int]] = [
            (0, -1, 0)
        ]  # (tokens, the last of them, its start) up to each place
        text = bytes(unit if unit < 256 else 0 for unit in units)
        last_special = 0
        for end, unit in enumerate(units, 1):
            found: tuple[int, int, int] | None = None
            if unit >= 256:
                last_special = end
                if (before := best[end - 1])[0] >= 0:
                    found = (before[0] + 1, self._token_of[unit], end - 1)
            else:
                for start in range(max(last_special, end - self._longest), end):
                    count = best[start][0]
                    if count < 0 or (found is not None and count + 1 >= found[0]):
                        continue
                    token = self._ids.get(text[start:end])
                    if token is not None:
                        found = (count + 1, token, start)
            best.append(found or (-1, -1, 0))
        if best[-1][0] < 0:
            return None
        tokens: list[int] = []
        place = len(units)
        while place:
            _, token, place = best[place]
            tokens.append(token)
        return tuple(reversed(tokens))


class _Units:
    """What llguidance wants to see of a tokenizer."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, names: Sequence[str], end: int) -> None:
        self.tokens = [bytes([byte]) for byte in range(256)] + [name.encode() for name in names] + [b"<end>"]
        self.special_token_ids = list(range(256, end + 1))
        self.eos_token_id = end

    def __call__(self, text: str) -> list[int]:
        return list(text.encode())
