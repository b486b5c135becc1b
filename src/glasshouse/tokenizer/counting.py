"""What a tokenizer makes of a text: the tokens as people can read them, how many, and at what price."""

from __future__ import annotations

from dataclasses import dataclass

from glasshouse.tokenizer.tokenizer import Tokenizer

EXAMPLES: tuple[str, ...] = (
    "Hello",
    "hamburger",
    "uncharacteristically",
    "ChatGPT",
    "2024",
    "1,234,567",
)
"""A common word, a longer one, one of many parts, a name, a number, a number with commas."""

_VISIBLE = {" ": "·", "\n": "↵", "\r": "←", "\t": "→"}


@dataclass(frozen=True)
class Tokenized:
    """One text as one tokenizer sees it."""

    text: str
    ids: list[int]
    pieces: list[str]  # one for each id, readable
    words: int  # parts between white space

    @property
    def count(self) -> int:
        return len(self.ids)

    @property
    def tokens_per_word(self) -> float | None:
        """None for a text without words."""
        return self.count / self.words if self.words else None


def tokenize(tokenizer: Tokenizer, text: str) -> Tokenized:
    """Encode a text and make each token readable."""
    ids = tokenizer.encode(text)
    return Tokenized(text, ids, [readable(tokenizer.token_bytes(i)) for i in ids], len(text.split()))


@dataclass(frozen=True)
class Column:
    """Several texts as one tokenizer sees them."""

    name: str
    vocab_size: int
    texts: list[Tokenized]

    @property
    def count(self) -> int:
        return sum(text.count for text in self.texts)

    @property
    def tokens_per_word(self) -> float | None:
        words = sum(text.words for text in self.texts)
        return self.count / words if words else None


def price(tokens: int, per_million: float) -> float:
    """What so many tokens cost, in the currency of `per_million`."""
    return tokens * per_million / 1_000_000


def readable(token: bytes) -> str:
    """A token for the eye: spaces as ·, line ends as ↵, bytes that are no whole character as \\xNN.

    >>> readable(b" caf\\xc3"), readable("é".encode())
    ('·caf\\\\xc3', 'é')
    """
    text = token.decode("utf-8", errors="backslashreplace")
    return "".join(
        _VISIBLE.get(c) or (c if c.isprintable() else c.encode("unicode_escape").decode()) for c in text
    )
