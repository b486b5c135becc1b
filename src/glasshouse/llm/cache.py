"""A layer that remembers replies: the same request is asked once.

Kept are whole replies of requests that mean to be repeatable: with a seed, with temperature 0, or with no
temperature named. Who names a temperature above 0 and no seed wants another reply each time, and gets it,
unless `sampled` says otherwise. Failures and refusals are never kept.
"""

from __future__ import annotations

import asyncio
import json
import time
from array import array
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import astuple, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from glasshouse.llm.cache_store import CacheStore
from glasshouse.llm.errors import LLMError
from glasshouse.llm.interface import LLM, Chunk, Completion, Note, Request, TokenLogprob, Usage
from glasshouse.llm.layer import Layer, noted

FORMAT = 1
"""Of keys and values. Another one finds nothing that this one kept."""

ASKED = tuple(name for name in Request.model_fields if name != "labels")
"""What decides a reply; labels change none."""


class Cache(Layer):
    """A hit costs nothing: its `usage` and `cost` are 0, and what it would have cost is in its note.

    `file`: an SQLite file, or a store that several layers share. `ttl`: seconds after which a reply is asked
    anew; None: never. A provider may change the model behind a name: then a year is too long. `cut`: whether
    replies that `max_new_tokens` cut are kept. `version`: any text that decides replies beside request and
    model, such as the settings of a layer further in.

    Equal requests at the same time are asked once, and the others wait; streams wait for nobody, because
    whoever reads one may read slowly. Two that read the same stream at once are two calls.
    """

    def __init__(
        self,
        inner: LLM,
        file: str | Path | CacheStore,
        *,
        ttl: float | None = None,
        sampled: bool = False,
        cut: bool = True,
        version: str = "",
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(inner)
        self._own = not isinstance(file, CacheStore)
        self.store = file if isinstance(file, CacheStore) else CacheStore(file, clock=clock)
        self.ttl, self.sampled, self.cut, self._clock = ttl, sampled, cut, clock
        self.hits = self.misses = 0
        self.saved = 0.0  # US dollars, as far as prices are known
        self._who = [FORMAT, version, inner.name, _fingerprint(inner.name)]
        self._flying: dict[tuple[asyncio.AbstractEventLoop, bytes], asyncio.Future[Completion]] = {}

    async def complete(self, request: Request) -> Completion:
        key = self._key(request)
        if key is None:
            return await self.inner.complete(request)
        found = self._find(key)
        if found is not None:
            return found
        loop = asyncio.get_running_loop()
        while (flight := self._flying.get((loop, key))) is not None:
            await asyncio.wait((flight,))  # unlike awaiting it, this cannot cancel it
            if not flight.cancelled():
                return self._shared(flight)
        flight = self._flying[loop, key] = loop.create_future()
        try:
            completion = await self.inner.complete(request)
            flight.set_result(completion)
        except Exception as error:
            flight.set_exception(error)
            flight.exception()  # nobody may be waiting
            raise
        except BaseException:  # cancelled: one of those who wait asks instead
            flight.cancel()
            raise
        finally:
            del self._flying[loop, key]
        return self._keep(key, completion)

    async def stream(self, request: Request) -> AsyncIterator[Chunk]:
        key = self._key(request)
        found = None if key is None else self._find(key)
        if found is not None:
            yield Chunk(found.text, found.reasoning or "", found)
            return
        pieces = self.inner.stream(request)
        try:
            async for chunk in pieces:
                if key is not None and chunk.completion is not None:
                    chunk = replace(chunk, completion=self._keep(key, chunk.completion))
                yield chunk
        finally:  # whoever stops reading ends the call now, not when the garbage is collected
            if isinstance(pieces, AsyncGenerator):
                await pieces.aclose()

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """Each text's vector is kept by itself; only texts that are new are asked for, each once."""
        keys = {text: sha256(json.dumps([*self._who, "embed", text]).encode()).digest() for text in texts}
        vectors: dict[str, list[float]] = {}
        for text, key in keys.items():
            value = self._get(key)
            if value is not None and len(value[0]) % 8 == 0:
                vectors[text] = array("d", value[0]).tolist()
        missing = [text for text in keys if text not in vectors]
        self.hits += len(vectors)
        self.misses += len(missing)
        if missing:
            for text, vector in zip(missing, await self.inner.embed(missing), strict=True):
                vectors[text] = list(vector)
                self.store.put(keys[text], array("d", vector).tobytes())
        return [list(vectors[text]) for text in texts]

    async def close(self) -> None:
        if self._own:
            await asyncio.to_thread(self.store.close)
        await super().close()

    def _key(self, request: Request) -> bytes | None:
        """None: this request is not for a cache. The order of keys in it counts, as it may to a model."""
        if request.temperature and request.seed is None and not self.sampled:
            return None
        try:
            text = json.dumps([*self._who, *(getattr(request, name) for name in ASKED)])
        except (TypeError, ValueError):  # holds what no server could be sent either
            return None
        return sha256(text.encode()).digest()

    def _get(self, key: bytes) -> tuple[bytes, float] | None:
        """(value, age in seconds)"""
        found = self.store.get(key)
        if found is None:
            return None
        age = max(self._clock() - found[1], 0.0)
        return None if self.ttl is not None and age >= self.ttl else (found[0], age)

    def _find(self, key: bytes) -> Completion | None:
        began = time.perf_counter()
        found = self._get(key)
        if found is None:
            return None
        try:
            completion = _read(found[0])
        except (ValueError, KeyError, TypeError, IndexError):  # half a value: as good as none
            return None
        self.hits += 1
        return replace(
            self._free(
                completion, f"read from the cache, {found[1]:.0f} s old", {"hit": True, "age": found[1]}
            ),
            seconds=time.perf_counter() - began,
        )

    def _shared(self, flight: asyncio.Future[Completion]) -> Completion:
        """What another call with the same request got, which this one need not pay again."""
        error = flight.exception()
        if error is not None:
            self.misses += 1
            raise _twin(error) from error
        self.hits += 1
        return self._free(flight.result(), "the same was just being asked", {"hit": True, "age": 0.0})

    def _free(self, completion: Completion, what: str, details: dict[str, Any]) -> Completion:
        self.saved += completion.cost or 0.0
        usage = completion.usage
        details |= {"saved": completion.cost, "saved_tokens": usage.prompt_tokens + usage.new_tokens}
        note = Note("cache", what, details)
        return replace(
            completion,
            usage=Usage(),
            cost=0.0,
            first_token_seconds=None,
            notes=(*completion.notes, note),
        )

    def _keep(self, key: bytes, completion: Completion) -> Completion:
        self.misses += 1
        kept = completion.finish != "refusal" and completion.refusal is None
        kept = kept and (self.cut or completion.finish != "length")
        if kept:
            self.store.put(key, _write(completion))
        what = "asked, and kept" if kept else "asked, and not kept"
        return noted(completion, Note("cache", what, {"hit": False, "kept": kept}))


def _write(completion: Completion) -> bytes:
    scores = completion.logprobs
    value = {
        "text": completion.text,
        "finish": completion.finish,
        "usage": astuple(completion.usage),
        "model": completion.model,
        "id": completion.id,
        "tool_calls": completion.tool_calls,
        "reasoning": completion.reasoning,
        "logprobs": None if scores is None else [(score.token, score.logprob, score.top) for score in scores],
        "cost": completion.cost,
        "ignored": completion.ignored,
        "notes": [(note.layer, note.what, dict(note.details)) for note in completion.notes],
    }
    return json.dumps(value, default=str).encode()


def _read(value: bytes) -> Completion:
    found = json.loads(value)
    scores = found["logprobs"]
    return Completion(
        found["text"],
        found["finish"],
        Usage(*found["usage"]),
        found["model"],
        found["id"],
        tuple(found["tool_calls"]),
        reasoning=found["reasoning"],
        logprobs=None
        if scores is None
        else tuple(TokenLogprob(token, p, tuple((t, q) for t, q in top)) for token, p, top in scores),
        cost=found["cost"],
        ignored=tuple(found["ignored"]),
        notes=tuple(Note(layer, what, details) for layer, what, details in found["notes"]),
    )


def _twin(error: BaseException) -> BaseException:
    """The same error for somebody whose waiting cost nothing."""
    if not isinstance(error, LLMError):
        return error
    twin = error.__class__.__new__(error.__class__)
    twin.__dict__.update(error.__dict__)
    twin.args, twin.usage, twin.cost = error.args, Usage(), 0.0
    return twin


def _fingerprint(name: str) -> list[tuple[str, int, int]]:
    """Of a model on this disk: a folder that was trained anew is another model under the same name."""
    if not name:
        return []
    path = Path(name)
    try:
        files = [path] if path.is_file() else [*path.rglob("*.safetensors"), *path.rglob("*.json")]
        stats = [(str(file.relative_to(path)), file.stat()) for file in sorted(files)]
    except OSError:
        return []
    return [(file, stat.st_size, stat.st_mtime_ns) for file, stat in stats]
