"""Learn the merges of byte-level BPE from text, with `rustbpe`.

Source: "Neural Machine Translation of Rare Words with Subword Units" (Sennrich et al., 2016), on bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import rustbpe

from glasshouse.core.errors import ConfigError, DataError
from glasshouse.core.progress import say
from glasshouse.tokenizer.special_tokens import SPECIAL_TOKENS
from glasshouse.tokenizer.split_pattern import (
    LONGEST_WHITE_RUN,
    QWEN2,
    long_white_runs,
    parts_of,
    well_formed,
)

BYTES_ONLY = 256 + len(SPECIAL_TOKENS)
"""The vocabulary size that asks for no merges at all: the plain bytes and the special tokens."""

SMALLEST, LARGEST = 300, 200_000
"""Range of the vocabulary of a trained tokenizer, special tokens included."""

_PART = 16_384
"""Characters. rustbpe counts 8,192 texts at a time; cut to parts, they never fill the memory."""


def check_size(vocab_size: int) -> None:
    """Raise ConfigError for a vocabulary size that we do not train."""
    if vocab_size != BYTES_ONLY and not SMALLEST <= vocab_size <= LARGEST:
        raise ConfigError(
            f"a vocabulary of {vocab_size:,} tokens cannot be trained",
            fix=f"choose a size from {SMALLEST} to {LARGEST:,}, or {BYTES_ONLY} for plain bytes",
        )


def learn_tokens(texts: Iterable[str], vocab_size: int) -> list[bytes]:
    """The bytes of every token that is not special, in order of rank: 256 bytes, then the merges.

    `vocab_size` counts the special tokens. Text with too few different pairs yields fewer tokens, and a
    notice says so. Raises ConfigError for a size out of range and DataError when there is no text.
    """
    check_size(vocab_size)
    if vocab_size == BYTES_ONLY:
        return [bytes([byte]) for byte in range(256)]
    counted = _Counted(texts)
    trainer = rustbpe.Tokenizer()  # type: ignore[attr-defined]  (the compiled module has no stub)
    trainer.train_from_iterator(iter(counted), vocab_size - len(SPECIAL_TOKENS), pattern=QWEN2)
    if counted.characters == 0:
        raise DataError("there is no text to train a tokenizer on", fix="give files that hold text")
    ranked = sorted(trainer.get_mergeable_ranks(), key=lambda pair: pair[1])
    tokens = list(dict.fromkeys(bytes(token) for token, _ in ranked))
    size = len(tokens) + len(SPECIAL_TOKENS)
    if size < vocab_size:
        say(
            f"Tokenizer: the text ({counted.characters:,} characters) yields {size:,} tokens, "
            f"not {vocab_size:,}; the vocabulary has {size:,}. More text yields more."
        )
    return tokens


class _Counted:
    """The texts in parts that the trainer can take, and how many characters went through."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = texts
        self.characters = 0

    def __iter__(self) -> Iterator[str]:
        for text in self._texts:
            self.characters += len(text)
            if len(text) <= _PART:
                yield well_formed(text)
                continue
            # The middle of an endless run of spaces teaches nothing and would overflow the engine's stack.
            start = 0
            for run_start, run_end in long_white_runs(text, QWEN2):
                yield from parts_of(well_formed(text[start : run_start + 1]), _PART)
                start = max(run_start + 1, run_end - LONGEST_WHITE_RUN // 4)
            yield from parts_of(well_formed(text[start:] if start else text), _PART)
