"""The model as one call into C for each step: every layer, over a paged cache, with its own threads.

The C code (`native/`) is compiled at first use for this processor. A step's products read packed weights
(`native_weights.py`); bfloat16 products, attention and cache where the model computes in bfloat16, else
float32; few-bit weights meet activations rounded to 8 bits in groups of 64. The residual stream, norms,
softmax and all sums are float32.

A token's result does not depend, to the bit, on the rows beside it, on how its prompt was cut, or on the
number of threads: products add over their inputs in one order, attention goes through pages of 32
positions from the first.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from glasshouse.core.errors import UsageError
from glasshouse.core.native_library import native_library
from glasshouse.inference.native_weights import Weights, large_buffer
from glasshouse.inference.runner import Piece
from glasshouse.model import Transformer, kernels
from glasshouse.model.lora import places

SOURCES = Path(__file__).parent / "native"

PAGE_TOKENS = 32
MAX_ROWS = 512
"""Rows of one call, which bounds its working memory; longer steps are cut, which changes no bit."""

SHORT_ROWS, DOZES, LONGEST_PAUSE = 16, 2, 64
"""A step of at most so many rows in which threads slept more often than that met a busy machine; then one
thread works alone, for 2, 4, ... up to so many steps."""

_SLOWER = "generation on a CPU runs on PyTorch's operators, several times slower"

_DTYPES = (torch.float32, torch.bfloat16)


class _Step(ctypes.Structure):
    """`Step` of native/model.h."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("ids", "positions", "pieces", "first", "count", "adapter")),
        *((name, ctypes.c_void_p) for name in ("pages", "pages_at", "wanted", "cos", "sin")),
        *((name, ctypes.c_void_p) for name in ("cache", "out", "memory")),
        *((name, ctypes.c_int64) for name in ("rows", "n_pieces", "n_wanted", "n_pages", "threads")),
    )


def _library(dtype: torch.dtype, options: tuple[str, ...] = ()) -> ctypes.CDLL | None:
    """The compiled steps for a dtype; `options` are the compiler's, for other instruction sets."""
    real = ("-DBF16",) if dtype == torch.bfloat16 else ()
    flags = ("-O2", "-pthread", "-fvisibility=hidden", *real, *options)  # -O3 takes longer and gains nothing
    library = native_library((SOURCES, kernels.SOURCES), flags, _SLOWER)
    if library is not None:
        for function in (library.step, library.step_memory, library.head_memory):
            function.restype = ctypes.c_int64
    return library


class NativeRunner:
    """A `Runner` (runner.py) on the CPU. Adapters of the model are named by pieces; the switches of `lora.py`
    (`use_adapters`) do not matter here. Weights are copied: later changes of the model are not seen.

    threads: by default PyTorch's number. They are the runner's own: in the thread that calls it,
    torch.set_num_threads(1) keeps PyTorch's from waiting awake beside them after each of its own operators
    (8 sequences at once: 1,060 tokens a second instead of 620). options: more flags for the C compiler.
    """

    page_tokens = PAGE_TOKENS
    deterministic = True

    def __init__(
        self, model: Transformer, *, threads: int | None = None, options: tuple[str, ...] = ()
    ) -> None:
        if (reason := self.supports(model)) is not None:
            raise UsageError(f"the native runner cannot run this model: {reason}")
        config = self.config = model.config
        library = _library(model.compute_dtype, options)
        if library is None:
            raise UsageError(f"the C code did not compile with {' '.join(options)}")
        self._library, self.dtype = library, model.compute_dtype
        self.threads = threads or torch.get_num_threads()
        self._weights = Weights(model, self.dtype)
        self._rope = model.rope
        self._tables = (torch.empty(0), torch.empty(0))
        self.page_bytes = 2 * PAGE_TOKENS * self.dtype.itemsize
        self.page_bytes *= config.num_hidden_layers * config.num_key_value_heads * config.head_dim
        self.pages = 0
        self._memory = torch.empty(0, dtype=torch.uint8)
        library.crew_new.restype = ctypes.c_void_p
        self._crew = ctypes.c_void_p(library.crew_new(ctypes.c_int64(self.threads)))
        weakref.finalize(self, library.crew_free, self._crew)
        self._alone, self._pause = 0, 1  # steps that one thread still takes alone, and how many it was

    @staticmethod
    def supports(model: Transformer) -> str | None:
        """Why this model cannot run here; None where it can."""
        config = model.config
        if model.device.type != "cpu":
            return f"its weights are on {model.device.type}, not on the CPU"
        if model.compute_dtype not in _DTYPES:
            return f"it computes in {model.compute_dtype}"
        widths = {
            "hidden_size": config.hidden_size,
            "head_dim": config.head_dim,
            "intermediate_size": config.intermediate_size,
            "moe_intermediate_size": config.moe_intermediate_size,
        }
        for name, width in widths.items():
            if width % 16:
                return f"{name} is {width}, not a multiple of 16"
        if config.rope_scaling is not None and config.rope_scaling.rope_type == "dynamic":
            return "dynamic RoPE scaling turns earlier keys anew as the text grows"
        elsewhere = {place.kind for place in places(model) if place.adapters} - {"linear"}
        if elsewhere:
            return f"adapters hang on its {' and '.join(sorted(elsewhere))}"
        if _library(model.compute_dtype) is None:
            return "there is no C compiler, or it failed, or GLASSHOUSE_KERNELS=off"
        return None

    def allocate(self, pages: int) -> None:
        self.pages = pages
        self._cache = large_buffer(pages * self.page_bytes)

    def hidden(self, pieces: Sequence[Piece]) -> Tensor:
        """See `Runner.hidden`; float32. Raises UsageError for an adapter that the model does not have."""
        for piece in pieces:
            if piece.adapter is not None and piece.adapter not in self._weights.adapters:
                known = ", ".join(self._weights.adapters) or "none"
                raise UsageError(f"the model has no adapter called '{piece.adapter}'", fix=f"it has: {known}")
        if 0 < sum(len(piece.ids) for piece in pieces) <= MAX_ROWS:
            return self._step(pieces)
        parts = [self._step(group) for group in _groups(pieces)]
        return torch.cat([torch.empty(0, self.config.hidden_size), *parts])

    def _step(self, pieces: Sequence[Piece]) -> Tensor:
        counts = [len(piece.ids) for piece in pieces]
        first, pages_at = np.zeros(len(pieces), np.int32), np.zeros(len(pieces), np.int32)
        np.cumsum(counts[:-1], out=first[1:])
        np.cumsum([len(piece.pages) for piece in pieces[:-1]], out=pages_at[1:])
        ids = np.array([token for piece in pieces for token in piece.ids], np.int32)
        positions = np.concatenate([np.arange(p.start, p.start + len(p.ids), dtype=np.int32) for p in pieces])
        pages = np.array([page for piece in pieces for page in piece.pages], np.int32)
        longest = int(positions.max()) + 1
        self._check(pieces, ids, pages, longest)
        wanted = np.concatenate(
            [np.arange(at + n - p.wanted, at + n) for at, n, p in zip(first, counts, pieces, strict=True)]
        ).astype(np.int32)
        adapters = np.array([self._weights.adapters.get(p.adapter or "", -1) for p in pieces], np.int32)
        owners = np.repeat(np.arange(len(pieces), dtype=np.int32), counts)
        cos = sin = None
        if self._rope is not None:
            if len(self._tables[0]) < longest:
                self._tables = self._rope.tables(longest, torch.device("cpu"))
            cos, sin = (table.data_ptr() for table in self._tables)
        out = torch.empty(len(wanted), self.config.hidden_size)
        sizes = np.array(counts, np.int32)
        model = ctypes.byref(self._weights.model)
        rows = ctypes.c_int64(len(ids))
        arrays = (ids, positions, owners, first, sizes, adapters, pages, pages_at, wanted)
        step = _Step(
            *(array.ctypes.data for array in arrays),
            cos,
            sin,
            self._cache.data_ptr(),
            out.data_ptr(),
            self._room(self._library.step_memory(model, rows, ctypes.c_int64(self.threads))),
            len(ids),
            len(pieces),
            len(wanted),
            self.pages,
            self._hands(len(ids)),
        )
        self._learn(step, self._library.step(model, ctypes.byref(step), self._crew))
        return out

    def _hands(self, rows: int) -> int:
        """Threads of the next step.

        A short step's threads meet every few microseconds. Where other programs take a processor away,
        each loss of one stops all, and a single thread is several times as fast; so after a step in which
        threads slept, one works alone for a while. The result is the same, to the bit.
        """
        if rows > SHORT_ROWS or self._alone == 0:
            return self.threads
        self._alone -= 1
        return 1

    def _learn(self, step: _Step, dozes: int) -> None:
        if step.rows <= SHORT_ROWS and step.threads > 1:
            self._pause = min(2 * self._pause, LONGEST_PAUSE) if dozes > DOZES else 1
            self._alone = self._pause if dozes > DOZES else 0

    def logits(self, hidden: Tensor, adapters: Sequence[str | None] = ()) -> Tensor:
        """See `Runner`; no adapter hangs on the head (see `supports`)."""
        hidden = hidden.float().contiguous()
        out = torch.empty(len(hidden), self.config.vocab_size)
        model = ctypes.byref(self._weights.model)
        threads = ctypes.c_int64(1 if self._alone and len(hidden) <= SHORT_ROWS else self.threads)
        rows = ctypes.c_int64(len(hidden))
        memory = ctypes.c_void_p(self._room(self._library.head_memory(model, rows)))
        address = (ctypes.c_void_p(tensor.data_ptr()) for tensor in (hidden, out))
        self._library.head(model, *address, rows, threads, memory, self._crew)
        return out

    def _room(self, size: int) -> int:
        """The address of at least `size` bytes to work in."""
        if self._memory.numel() < size:
            self._memory = large_buffer(size)
        return self._memory.data_ptr()

    def _check(self, pieces: Sequence[Piece], ids: np.ndarray, pages: np.ndarray, longest: int) -> None:
        """C believes what it is told; wrong numbers are the engine's mistake, not the user's."""
        assert ids.min() >= 0, "a negative token"
        assert ids.max() < self.config.vocab_size, "a token beyond the vocabulary"
        assert pages.min() >= 0, "a negative page"
        assert pages.max() < self.pages, "a page that was not allocated"
        assert longest <= self.config.context, "a position beyond the context"
        for piece in pieces:
            assert 0 <= piece.wanted <= len(piece.ids), "more rows wanted than read"
            assert len(piece.pages) * PAGE_TOKENS >= piece.start + len(piece.ids), "too few pages"


def _groups(pieces: Sequence[Piece]) -> Iterator[list[Piece]]:
    """The same work in calls of at most MAX_ROWS rows, long pieces cut."""
    group: list[Piece] = []
    room = MAX_ROWS
    for piece in pieces:
        at, end = 0, len(piece.ids)
        while at < end:
            size = min(room, end - at)
            wanted = max(0, min(size, at + size - (end - piece.wanted)))
            ids = piece.ids[at : at + size]
            group.append(Piece(ids, piece.start + at, piece.pages, wanted, piece.adapter))
            at, room = at + size, room - size
            if not room:
                yield group
                group, room = [], MAX_ROWS
    if group:
        yield group
