"""Models of this machine, loaded when they are asked: as many as memory holds, the longest unused go."""

from __future__ import annotations

import asyncio
import gc
import math
import threading
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from glasshouse.core import devices
from glasshouse.core.model_folders import resolve_model
from glasshouse.inference import LanguageModel
from glasshouse.inference.memory_ceiling import free_bytes
from glasshouse.llm.errors import NotAbleError, TimedOutError
from glasshouse.llm.interface import Capabilities, Chunk, Completion, Request
from glasshouse.llm.local import ROWS, LocalLLM, capabilities
from glasshouse.model import Transformer
from glasshouse.model.gguf_reader import GGUFFile
from glasshouse.model.hf_config import read_config, read_scheme
from glasshouse.model.quantize import empty_quantized, size_in_bytes
from glasshouse.tokenizer import Tokenizer

SHARE = 0.5
"""Of the memory that is free at the start, where no ceiling is named: the rest is for the program around."""

CACHE_BYTES = 256 * 2**20
"""Keys and values of a model, if that holds one whole context: what a model's own engine takes, too."""


@dataclass
class _Seat:
    llm: LocalLLM
    size: int  # bytes
    users: int = 1  # calls that are being answered


class LocalModels:
    """Loads and unloads, one model at a time, in a thread of its own. Safe between threads and event loops.

    `ceiling`: bytes of weights, keys and values together; by default half of what is free now. A call that
    needs room which answering models take waits for them `wait` seconds at most, in order: calls that come
    later do not overtake it, even to models that are loaded. So do not ask one model in the middle of
    another's stream where only one of them fits.
    """

    def __init__(self, ceiling: int | None = None, *, device: str = "auto", wait: float = 600.0) -> None:
        self.device, self.wait = devices.pick(device), wait
        if ceiling is None:
            free = free_bytes(torch.device(self.device))
            ceiling = 2**62 if free is None else int(free * SHARE)
        self.ceiling = ceiling
        self._changed = threading.Condition()  # guards what follows
        self._seats: OrderedDict[str, _Seat] = OrderedDict()  # the longest unused first
        self._making_room = self._closed = False
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="llm loader")

    def loaded(self) -> dict[str, int]:
        """Bytes of each model that is in memory, the longest unused first."""
        with self._changed:
            return {name: seat.size for name, seat in self._seats.items()}

    def close(self) -> None:
        """Unload everything; calls under way end with an error."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._loader.shutdown(cancel_futures=True)
        with self._changed:
            seats, self._seats = list(self._seats.values()), OrderedDict()
        for seat in seats:
            _unload(seat)

    @asynccontextmanager
    async def borrowed(self, name: str) -> AsyncIterator[LocalLLM]:
        """The model, loaded, that stays so until the end of the block.

        Raises NotAbleError where it is larger than the ceiling, TimedOutError where no room came free, and
        what opening a folder raises.
        """
        seat = self._at_once(name)
        if seat is None:
            future = self._loader.submit(self._load, name)
            try:
                seat = await asyncio.shield(asyncio.wrap_future(future))
            except asyncio.CancelledError:
                if future.cancelled():  # by `close`
                    raise _closed(name) from None
                future.add_done_callback(self._unwanted)
                raise
        try:
            yield seat.llm
        finally:
            self._leave(seat)

    def _at_once(self, name: str) -> _Seat | None:
        with self._changed:
            if self._closed:
                raise _closed(name)
            if self._making_room:  # it would keep a model busy that somebody waits to see idle
                return None
            return self._take(name)

    def _take(self, name: str) -> _Seat | None:
        seat = self._seats.get(name)
        if seat is not None:
            seat.users += 1
            self._seats.move_to_end(name)
        return seat

    def _leave(self, seat: _Seat) -> None:
        with self._changed:
            seat.users -= 1
            self._changed.notify_all()

    def _unwanted(self, future: Future[_Seat]) -> None:
        if not future.cancelled() and future.exception() is None:
            self._leave(future.result())

    def _load(self, name: str) -> _Seat:
        with self._changed:
            seat = self._take(name)
        if seat is not None:
            return seat
        path = resolve_model(name)
        weights, cache, _ = measure(path, self.device)
        size = weights + cache
        if size > self.ceiling:
            raise NotAbleError(
                f"the model needs {size:,} bytes ({weights:,} of weights), all models together may take "
                f"{self.ceiling:,}",
                where=name,
                fix="raise the ceiling, or take a smaller model",
            )
        self._make_room(name, size)
        model = LanguageModel.load(path, device=self.device)
        seat = _Seat(LocalLLM(model, name, cache_bytes=cache), size)
        with self._changed:
            self._seats[name] = seat
        return seat

    def _make_room(self, name: str, size: int) -> None:
        until = time.monotonic() + self.wait
        while True:
            with self._changed:
                if self._closed:
                    raise _closed(name)
                if sum(seat.size for seat in self._seats.values()) + size <= self.ceiling:
                    self._making_room = False
                    return
                idle = next((key for key, seat in self._seats.items() if not seat.users), None)
                if idle is None:
                    self._making_room = True
                    if not self._changed.wait(until - time.monotonic()):
                        self._making_room = False
                        raise TimedOutError(
                            f"no room for {size:,} bytes within {self.wait:g} s: all loaded models answer",
                            where=name,
                            fix="raise the ceiling, or ask fewer models at once",
                        )
                    continue
                gone = self._seats.pop(idle)
            _unload(gone)  # outside of the lock: it takes a while, and others go on answering
            del gone


def _closed(name: str) -> NotAbleError:
    return NotAbleError("the models have been closed", where=name, fix="make a new LocalModels")


def _unload(seat: _Seat) -> None:
    with seat.llm:  # leaving the block closes it
        pass
    del seat.llm
    gc.collect()  # modules of torch refer to each other


def measure(path: Path, device: str) -> tuple[int, int, int | None]:
    """(bytes of weights, bytes of keys and values, tokens of context) of a model as it would be in memory.

    On a CPU weights are float32 (what is quantized stays so) and count twice, because the native engine packs
    a copy of them; on a GPU they are bfloat16.
    """
    on_gpu = device.startswith("cuda")
    dtype, copies = (torch.bfloat16, 1) if on_gpu else (torch.float32, 2)
    if path.suffix == ".gguf":
        file = GGUFFile(path)
        parameters = sum(math.prod(tensor.shape) for tensor in file.tensors.values())
        context = file.settings.get(f"{file.settings.get('general.architecture')}.context_length")
        return parameters * dtype.itemsize * copies, CACHE_BYTES, context
    config, scheme = read_config(path), read_scheme(path)
    shape = Transformer.empty(config, "meta", dtype)  # takes no memory
    if scheme is not None:
        empty_quantized(shape, scheme)
    token = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * dtype.itemsize
    cache = max(min(CACHE_BYTES, ROWS * config.context * token), (config.context + ROWS) * token)
    return size_in_bytes(shape) * copies, cache, config.context


def _template(path: Path) -> str | None:
    if path.suffix == ".gguf":
        return GGUFFile(path).settings.get("tokenizer.chat_template")
    return Tokenizer.load(path).chat_template


class Managed:
    """An `LLM` whose model is in memory while it is used. Its name is a run, a folder, a GGUF file or hf://...

    Several share one `LocalModels`. Closing it leaves the model loaded for others: close the `LocalModels`.
    """

    def __init__(self, name: str | Path, models: LocalModels) -> None:
        """Raises UsageError or ModelError where there is no such model."""
        self.name, self.models = str(name), models
        path = resolve_model(name)
        self._context = measure(path, models.device)[2]
        self.can: Capabilities = capabilities(_template(path))

    @property
    def context(self) -> int | None:
        return self._context

    async def complete(self, request: Request) -> Completion:
        async with self.models.borrowed(self.name) as llm:
            return await llm.complete(request)

    async def stream(self, request: Request) -> AsyncIterator[Chunk]:
        async with self.models.borrowed(self.name) as llm:
            pieces = llm.stream(request)
            try:
                async for chunk in pieces:
                    yield chunk
            finally:  # a reply that nobody reads must have ended before the model may go
                if isinstance(pieces, AsyncGenerator):
                    await pieces.aclose()

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        async with self.models.borrowed(self.name) as llm:
            return await llm.embed(texts)

    async def count_tokens(self, request: Request) -> int:
        async with self.models.borrowed(self.name) as llm:
            return await llm.count_tokens(request)

    async def close(self) -> None:
        pass
