"""A GGUF file taken apart: its settings, and its tensors as numpy arrays (specification: ggml, docs/gguf.md).

The `gguf` library's own reader trusts the counts that a file states, and a damaged one can keep it busy
for ever. Here every count is held against the bytes that are left. Quantized tensors are unpacked by
the library.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from glasshouse.core.errors import ModelError

MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_DEEPEST = 4  # arrays of arrays; nobody writes more
_MOST_AXES = 4


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies in the file. `shape` is in our order, slowest axis first."""

    name: str
    shape: tuple[int, ...]
    kind: int  # ggml type
    start: int  # bytes from the beginning of the file
    size: int


class GGUFFile:
    """A memory-mapped file; raises ModelError where it is damaged or not GGUF."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._data = np.memmap(path, mode="r")
        except (OSError, ValueError) as error:
            raise ModelError(f"cannot be read: {error}", where=path) from None
        self._place = 0
        self.settings: dict[str, Any] = {}
        self.tensors: dict[str, StoredTensor] = {}
        if bytes(self._data[:4]) != MAGIC:
            raise self._broken("it does not begin with GGUF")
        self._place = 4
        if (version := self._number("I")) not in _VERSIONS:
            raise self._broken(f"version {version} is not known")
        tensors, settings = self._number("Q"), self._number("Q")
        for _ in range(self._possible(settings, 13)):
            name = self._string()
            self.settings[name] = self._value(self._number("I"), 0)
        self._read_places([self._tensor() for _ in range(self._possible(tensors, 25))])

    def _broken(self, what: str) -> ModelError:
        return ModelError(
            f"not a whole GGUF file: {what}", where=self.path, fix="download or export it again"
        )

    def _take(self, size: int) -> bytes:
        if size > len(self._data) - self._place:
            raise self._broken(f"it ends within {self._place + size} bytes")
        taken = bytes(self._data[self._place : self._place + size])
        self._place += size
        return taken

    def _possible(self, count: int, smallest: int) -> int:
        """A count of things of at least `smallest` bytes, which must fit into what is left."""
        if count * smallest > len(self._data) - self._place:
            raise self._broken(f"it states {count} entries and ends before")
        return count

    def _number(self, kind: str) -> Any:
        return struct.unpack(f"<{kind}", self._take(struct.calcsize(kind)))[0]

    def _string(self) -> str:
        try:
            return self._take(self._number("Q")).decode("utf-8")
        except UnicodeDecodeError:
            raise self._broken("a text is not UTF-8") from None

    def _value(self, kind: int, depth: int) -> Any:
        if kind == _STRING:
            return self._string()
        if kind in _SCALARS:
            return self._number(_SCALARS[kind])
        if kind != _ARRAY or depth == _DEEPEST:
            raise self._broken(f"a setting of type {kind}")
        inner, count = self._number("I"), self._number("Q")
        if inner in _SCALARS:
            size = struct.calcsize(_SCALARS[inner])
            return list(
                struct.unpack(f"<{count}{_SCALARS[inner]}", self._take(self._possible(count, size) * size))
            )
        return [self._value(inner, depth + 1) for _ in range(self._possible(count, 8))]

    def _tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        name, axes = self._string(), self._number("I")
        if not 0 < axes <= _MOST_AXES:
            raise self._broken(f"tensor '{name}' has {axes} axes")
        shape = tuple(self._number("Q") for _ in range(axes))[::-1]
        return name, shape, self._number("I"), self._number("Q")

    def _read_places(self, found: list[tuple[str, tuple[int, ...], int, int]]) -> None:
        """Hold every tensor's place and size against the file."""
        from gguf import GGML_QUANT_SIZES

        alignment = self.settings.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
            raise self._broken("its alignment is not a power of two")
        begin = -(-self._place // alignment) * alignment
        sizes: Mapping[int, tuple[int, int]] = {int(kind): size for kind, size in GGML_QUANT_SIZES.items()}
        for name, shape, kind, offset in found:
            if kind not in sizes or name in self.tensors or 0 in shape:
                raise self._broken(f"tensor '{name}' is of type {kind}, empty, or there twice")
            weights, size = sizes[kind]
            if shape[-1] % weights:
                raise self._broken(f"a row of '{name}' does not fill whole blocks")
            bytes_ = prod(shape) // weights * size
            if begin + offset + bytes_ > len(self._data):
                raise self._broken(f"tensor '{name}' ends beyond it")
            self.tensors[name] = StoredTensor(name, shape, kind, begin + offset, bytes_)

    def get(self, key: str, check: Callable[[Any], bool], default: Any = None) -> Any:
        """A setting that must pass a check; raises ModelError where it does not, or is missing."""
        value = self.settings.get(key, default)
        if value is None or not check(value):
            raise ModelError(
                f"'{key}' is {value!r}", where=self.path, fix="download or export the file again"
            )
        return value

    def array(self, tensor: StoredTensor) -> np.ndarray:
        """The numbers of a tensor, float32, in its shape."""
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, quants

        kind = GGMLQuantizationType(tensor.kind)
        weights, size = GGML_QUANT_SIZES[kind]
        data = self._data[tensor.start : tensor.start + tensor.size]
        if kind in (GGMLQuantizationType.F32, GGMLQuantizationType.F16):
            return (
                data.view("<f4" if kind == GGMLQuantizationType.F32 else "<f2")
                .reshape(tensor.shape)
                .astype("f4")
            )
        rows = data.reshape(*tensor.shape[:-1], tensor.shape[-1] // weights * size)
        try:
            return quants.dequantize(rows, kind).reshape(tensor.shape)
        except NotImplementedError:  # how the library says that it cannot unpack this ggml type
            raise ModelError(
                f"tensor '{tensor.name}' is {kind.name}, which is not supported",
                where=self.path,
                fix="use a file in Q8_0, Q4_0, F16 or F32",
            ) from None
