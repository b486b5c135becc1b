"""Token shards: a corpus as one flat file of token ids with document offsets, read through memory maps.

    tokens.bin    uint16, or uint32 where the vocabulary needs it, little-endian
    offsets.bin   uint64 start of each document, then the end of the last one
    sources.bin   uint16 label of each document, an index into the list in index.json
    mask.bin      uint8 for each token, only where documents came with a mask: 1 = a target of training
    index.json    format, counts, tokens of each source, hash of the content

With an end-of-text id every document is stored as [end-of-text, t1 .. tn] and one more end-of-text
closes the stream. A document's inputs are then its stored tokens and its targets the same stretch
moved by one, so the separator is both the first input and the last target, and no token is stored
twice. Without one (conversations) documents stand as given and nothing after their last token is a
target.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np

from glasshouse.core.errors import DataError
from glasshouse.core.storage import directory, read_json, write_json

FORMAT = 1
"""Version of the layout above; a reader refuses any other."""

MAX_SOURCES = 1 << 16

_OFFSETS = np.dtype("<u8")
_SOURCES = np.dtype("<u2")
_MASK = np.dtype("u1")


def _token_dtype(vocab_size: int) -> np.dtype[Any]:
    return np.dtype("<u2") if vocab_size <= 1 << 16 else np.dtype("<u4")


class ShardWriter:
    """Stream documents into a shard folder, which appears whole when the block ends, or not at all.

    `end_of_text` is the id stored before each document and at the end, or None. Memory stays at one
    document, plus 10 bytes for each document written.

    >>> with ShardWriter(folder, vocab_size=300, end_of_text=0) as writer:
    ...     writer.add([17, 4, 9], source="facts")
    """

    def __init__(self, folder: str | Path, vocab_size: int, end_of_text: int | None = None) -> None:
        self._commit = directory(folder)
        self._vocab_size, self._end_of_text = vocab_size, end_of_text
        self._dtype = _token_dtype(vocab_size)
        self._files: dict[str, BinaryIO] = {}
        self._hash = hashlib.sha256()
        self._offsets: list[int] = [0]
        self._labels: list[int] = []
        self._counts: dict[str, list[int]] = {}  # source -> [documents, tokens]
        self._label_of: dict[str, int] = {}
        self._masked: bool | None = None
        self._targets = 0

    def __enter__(self) -> Self:
        self._folder = self._commit.__enter__()
        self._tokens = self._open("tokens.bin")
        return self

    def _open(self, name: str) -> BinaryIO:
        file = open(self._folder / name, "wb", buffering=1 << 20)  # noqa: SIM115 (closed in __exit__)
        self._files[name] = file
        return file

    def add(self, ids: Sequence[int], *, mask: Sequence[bool] | None = None, source: str = "") -> None:
        """Append one document; `mask` says which of its tokens are targets (all documents or none).

        Raises DataError for an id outside the vocabulary.
        """
        tokens = np.asarray(ids, dtype=np.int64)
        if tokens.size and not 0 <= tokens.min() <= tokens.max() < self._vocab_size:
            raise DataError(
                f"document {len(self._labels)} holds a token id outside 0..{self._vocab_size - 1}",
                where=source or None,
                fix="encode it with the tokenizer that the vocabulary size comes from",
            )
        if self._masked is None:
            self._masked = mask is not None
            if self._masked:
                self._open("mask.bin")
        assert (mask is not None) == self._masked, "either every document has a mask or none has"
        stored = tokens
        if self._end_of_text is not None:
            stored = np.concatenate([[self._end_of_text], tokens])
        self._write("tokens.bin", stored.astype(self._dtype))
        if mask is not None:
            assert len(mask) == len(tokens)
            flags = np.asarray(mask, dtype=_MASK)
            self._targets += int(flags.sum())
            lead = len(stored) - len(tokens)
            self._write("mask.bin", np.concatenate([np.zeros(lead, _MASK), flags]))
        if source not in self._label_of:
            if len(self._label_of) == MAX_SOURCES:
                raise DataError(f"more than {MAX_SOURCES} sources", fix="label documents more coarsely")
            self._label_of[source] = len(self._label_of)
        self._labels.append(self._label_of[source])
        count = self._counts.setdefault(source, [0, 0])
        count[0] += 1
        count[1] += len(stored)
        self._offsets.append(self._offsets[-1] + len(stored))

    def _write(self, name: str, array: np.ndarray) -> None:
        data = array.tobytes()
        self._files[name].write(data)
        self._hash.update(data)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._finish()
        except BaseException as failure:
            self._close()
            self._commit.__exit__(type(failure), failure, failure.__traceback__)
            raise
        self._close()
        self._commit.__exit__(kind, error, trace)

    def _close(self) -> None:
        for file in self._files.values():
            file.close()

    def _finish(self) -> None:
        if self._end_of_text is not None:
            self._write("tokens.bin", np.array([self._end_of_text], self._dtype))
            if self._masked:
                self._write("mask.bin", np.zeros(1, _MASK))
        self._open("offsets.bin")
        self._write("offsets.bin", np.array(self._offsets, _OFFSETS))
        self._open("sources.bin")
        self._write("sources.bin", np.array(self._labels, _SOURCES))
        closing = 1 if self._end_of_text is not None else 0
        write_json(
            self._folder / "index.json",
            {
                "format": FORMAT,
                "dtype": self._dtype.str,
                "vocab_size": self._vocab_size,
                "end_of_text": self._end_of_text,
                "documents": len(self._labels),
                "tokens": self._offsets[-1] + closing,
                "masked": bool(self._masked),
                "targets": self._targets if self._masked else None,
                "sources": {
                    name: {"documents": count[0], "tokens": count[1]} for name, count in self._counts.items()
                },
                "sha256": self._hash.hexdigest(),
            },
        )


class Shards:
    """A shard folder, memory-mapped. Raises DataError naming the file that is missing, cut or foreign.

    `tokens` (tokens,), `offsets` (documents + 1,), `labels` (documents,), `mask` (tokens,) or None.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.index = self._read_index()
        documents, tokens = self.index["documents"], self.index["tokens"]
        self.tokens = self._map("tokens.bin", np.dtype(self.index["dtype"]), tokens)
        self.offsets = self._map("offsets.bin", _OFFSETS, documents + 1)
        self.labels = self._map("sources.bin", _SOURCES, documents)
        self.mask = self._map("mask.bin", _MASK, tokens) if self.index["masked"] else None
        self.sources: dict[str, dict[str, int]] = self.index["sources"]
        self.end_of_text: int | None = self.index["end_of_text"]
        self.vocab_size: int = self.index["vocab_size"]
        self.sha256: str = self.index["sha256"]
        closing = 1 if self.end_of_text is not None else 0
        if int(self.offsets[-1]) + closing != tokens:
            raise self._broken("offsets.bin", "its last offset is not the number of tokens")

    def _read_index(self) -> dict[str, Any]:
        index = read_json(self.folder / "index.json")
        wanted = {"dtype", "documents", "tokens", "masked", "sources", "end_of_text", "vocab_size", "sha256"}
        if not isinstance(index, dict) or not wanted <= index.keys():
            raise self._broken("index.json", "it is not the index of a shard folder")
        if index.get("format") != FORMAT:
            raise self._broken("index.json", f"it has format {index.get('format')}, not {FORMAT}")
        if index["dtype"] not in ("<u2", "<u4"):
            raise self._broken("index.json", f"unknown token type {index['dtype']!r}")
        return index

    def _map(self, name: str, dtype: np.dtype[Any], length: int) -> np.ndarray:
        path = self.folder / name
        try:
            size = path.stat().st_size
        except OSError as error:
            raise self._broken(name, f"it cannot be read ({error.strerror})") from None
        if size != length * dtype.itemsize:
            raise self._broken(name, f"it has {size} bytes, index.json promises {length * dtype.itemsize}")
        if length == 0:
            return np.zeros(0, dtype)
        return np.memmap(path, dtype, mode="r", shape=(length,))

    def _broken(self, name: str, what: str) -> DataError:
        return DataError(
            f"the shard folder is broken: {what}",
            where=self.folder / name,
            fix="delete the folder and build it again from the corpus",
        )

    def __len__(self) -> int:
        """The number of documents."""
        return self.index["documents"]

    def document(self, i: int) -> np.ndarray:
        """The stored tokens of document `i`, its leading end-of-text included."""
        return np.asarray(self.tokens[int(self.offsets[i]) : int(self.offsets[i + 1])])
