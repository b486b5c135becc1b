"""Byte-level BPE on `tiktoken`: every text can be encoded, and decoding gives it back exactly."""

from __future__ import annotations

import os
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate, chain, islice

import numpy as np
import tiktoken

from glasshouse.tokenizer.any_of import any_of
from glasshouse.tokenizer.engine import Normalization
from glasshouse.tokenizer.split_pattern import (
    LONGEST_WHITE_RUN,
    QWEN2,
    is_unicode,
    long_white_runs,
    parts_of,
    well_formed,
)

_GROUP = 262_144
"""Characters that a thread encodes at a time: so many that handing out the work costs nothing."""

_PART = 2_097_152
"""Characters of the parts that a longer text is cut into: joining their ids again is not free."""

_BETWEEN = "\uffff"
"""Stands between texts that are encoded in one go. Unicode keeps this character for such uses."""


class BytePairEngine:
    """The engine of Llama 3's, Qwen's, GPT-2's and our own tokenizers."""

    def __init__(
        self,
        tokens: Sequence[bytes],
        special_ids: Collection[int],
        pattern: str,
        normalization: Normalization | None = None,
        added: Mapping[str, int] | None = None,
    ) -> None:
        """`tokens[id]` are the bytes of each token, in order of rank."""
        self._tokens = tokens
        self.pattern = pattern
        self.normalization: Normalization | None = normalization
        self.added = dict(added or {})
        apart = {*special_ids, *self.added.values()}
        self.ranks = {token: i for i, token in enumerate(tokens) if i not in apart}
        # Special tokens are cut out before tiktoken sees a text; the one it knows is the separator.
        self._encoding = tiktoken.Encoding(
            "glasshouse",
            pat_str=pattern,
            mergeable_ranks=self.ranks,
            special_tokens={_BETWEEN: len(tokens)},
        )
        self._added_text = any_of(self.added)

    def encode(self, text: str, first: bool = True) -> list[int]:
        text = self._normalized(text)
        if not self.added:
            return self._encode_words(text)
        ids: list[int] = []
        for i, piece in enumerate(self._added_text.split(text)):
            ids += [self.added[piece]] if i % 2 else self._encode_words(piece)
        return ids

    def _encode_words(self, text: str) -> list[int]:
        if len(text) < LONGEST_WHITE_RUN:
            return self._encoding.encode_ordinary(text)
        # Very long white space is kept from the engine, whose stack it would overflow.
        ids: list[int] = []
        start = 0
        for run_start, run_end in long_white_runs(text, self.pattern):
            ids += self._encoding.encode_ordinary(text[start:run_start])
            ids += self._encoding._encode_single_piece(text[run_start:run_end])
            start = run_end
        return ids + self._encoding.encode_ordinary(text[start:] if start else text)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of every text, on all cores: the same as encode of each."""
        # Very long texts are cut where every word ends anyway, to share them between threads.
        cut = [list(parts_of(text, _PART)) if self.pattern == QWEN2 else [text] for text in texts]
        encoded = iter(self._encode_parts([part for parts in cut for part in parts]))
        result = []
        for parts in cut:
            ids = next(encoded)
            for more in islice(encoded, len(parts) - 1):
                ids += more
            result.append(ids)
        return result

    def _encode_parts(self, texts: Sequence[str]) -> Iterator[list[int]]:
        groups = list(_groups(texts))
        if len(groups) < 2:
            return chain.from_iterable(map(self._encode_group, groups))
        with ThreadPoolExecutor(min(_threads(), len(groups))) as executor:
            return chain.from_iterable(list(executor.map(self._encode_group, groups)))

    def _encode_group(self, texts: list[str]) -> list[list[int]]:
        """Short texts are encoded as one: a call of the engine costs as much as a hundred characters."""
        joined = self._normalized(_BETWEEN.join(texts))
        separable = joined.count(_BETWEEN) == len(texts) - 1 and is_unicode(joined)
        if len(texts) == 1 or self.added or not separable:
            return [self.encode(text) for text in texts]
        ids = self._encoding.encode_to_numpy(joined, allowed_special={_BETWEEN}, disallowed_special=())
        ends = np.flatnonzero(ids == len(self._tokens)).tolist()  # (texts - 1,)
        flat: list[int] = ids.tolist()
        return [
            flat[start:end] for start, end in zip([0, *(e + 1 for e in ends)], [*ends, None], strict=True)
        ]

    def encode_marked(
        self, text: str, written: Sequence[tuple[int, int]], first: bool = True
    ) -> tuple[list[int], list[bool]]:
        ids = self.encode(text)
        mask = [False] * len(ids)
        if not written:
            return ids, mask
        ends = list(accumulate(len(self._tokens[i]) for i in ids))  # (seq,) bytes up to and with each token
        for start, end in written:
            start_token = bisect_right(ends, len(self._normalized(well_formed(text[:start])).encode()))
            last = bisect_left(ends, len(self._normalized(well_formed(text[:end])).encode()))
            mask[start_token : last + 1] = [True] * (min(last + 1, len(ids)) - start_token)
        return ids, mask

    def bytes_of(self, ids: Sequence[int]) -> bytes:
        return b"".join([self._tokens[i] for i in ids])

    def text_of(self, ids: Sequence[int]) -> str:
        return self.bytes_of(ids).decode("utf-8", errors="replace")

    def _normalized(self, text: str) -> str:
        return text if self.normalization is None else unicodedata.normalize(self.normalization, text)


def _groups(texts: Sequence[str]) -> Iterator[list[str]]:
    """Neighbouring texts of about _GROUP characters together."""
    group: list[str] = []
    size = 0
    for text in texts:
        if group and size + len(text) > _GROUP:
            yield group
            group, size = [], 0
        group.append(text)
        size += len(text)
    if group:
        yield group


def _threads() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
