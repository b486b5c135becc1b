"""What turns text into ids and back below the special tokens: the interface of two engines.

`byte_pair_engine` is tiktoken's byte-level BPE; `pieces_engine` runs every other pipeline that the
`tokenizers` library can, above all SentencePiece's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

Normalization = Literal["NFC", "NFD", "NFKC", "NFKD"]
"""Unicode's normal forms. Ours uses none, so that every text comes back as it was."""


class Engine(Protocol):
    """Plain text to ids, where names of special tokens are text like any other, and ids to bytes."""

    @property
    def pattern(self) -> str | None:
        """The one split pattern; None where text is split otherwise."""
        ...

    @property
    def normalization(self) -> Normalization | None: ...

    @property
    def added(self) -> Mapping[str, int]:
        """Tokens that are found in plain text before it is split."""
        ...

    @property
    def ranks(self) -> Mapping[bytes, int]:
        """Bytes of each token that is merged, to its rank; empty where the engine is not byte-level BPE."""
        ...

    def encode(self, text: str, first: bool = True) -> list[int]:
        """Ids of `text`; `first` says whether it begins a text or follows a special token."""
        ...

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of every text, on all cores: the same as encode of each."""
        ...

    def encode_marked(
        self, text: str, written: Sequence[tuple[int, int]], first: bool = True
    ) -> tuple[list[int], list[bool]]:
        """Ids, and true where a token holds a part of one of the character spans `written` of `text`."""
        ...

    def bytes_of(self, ids: Sequence[int]) -> bytes:
        """The bytes of a whole text; they need not be whole characters."""
        ...

    def text_of(self, ids: Sequence[int]) -> str:
        """The text of the ids; bytes that are not UTF-8 become U+FFFD."""
        ...
