"""Thousands of documents into one file of results, with a stop at any moment and at no cost.

Each document is read, analyzed, and its result written as one line, in the order in which they finish.
Started again with the same settings, what is done is passed over, and of a document half done only the calls
are made whose replies are missing.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from glasshouse.core.errors import GlasshouseError, InterruptedRunError, StorageError, UsageError
from glasshouse.core.progress import Bar, bar
from glasshouse.documents.folders.find import Found
from glasshouse.documents.folders.results_file import ResultsFile
from glasshouse.documents.folders.resumable import Resumable
from glasshouse.documents.folders.texts import TEXTS, Texts
from glasshouse.documents.result import Result, Task
from glasshouse.files.document import Document
from glasshouse.llm.errors import LLMError
from glasshouse.llm.interface import LLM


class Analyzes(Protocol):
    """What `Analyzer` does."""

    async def run(
        self,
        document: Document,
        task: Task,
        *,
        schema: dict[str, Any] | None = None,
        instructions: str | None = None,
    ) -> Result: ...


@dataclass(frozen=True)
class Job:
    """What every document is asked, and the settings that decide the answers."""

    task: Task
    domain: str
    schema: dict[str, Any] | None = None
    instructions: str | None = None
    settings: Mapping[str, Any] | None = None  # more of them, by name: votes, ...

    def all_settings(self, model: str) -> dict[str, Any]:
        return {
            "task": self.task,
            "model": model,
            "domain": self.domain,
            "schema": self.schema,
            "instructions": self.instructions,
            **(self.settings or {}),
        }


@dataclass(frozen=True)
class Outcome:
    """What a run leaves."""

    documents: int  # that the paths name
    done: int  # of them
    analyzed: int  # of them, in this run
    results: int  # in the file, those of documents that are no longer named too
    failed: int  # of them
    dollars: float | None  # spent on the file so far, by all its runs; None where no price is known
    stopped: GlasshouseError | None  # why not all are done


def analyze_documents(
    documents: Sequence[Found],
    out: str | Path,
    model: LLM,
    analyzer: Callable[[LLM], Analyzes],
    job: Job,
    read: Callable[[Path], Document],
    *,
    at_once: int = 8,
    dollars: float | None = None,
    tokens: int | None = None,
    fresh: bool = False,
    retry_failed: bool = False,
) -> Outcome:
    """Analyze `documents` into the file `out`; see results_file.py for what stands there and beside it.

    `analyzer` makes an Analyzer around the model it is given, which is `model` in layers. `read` gives a
    document or raises; it is called in threads. `at_once`: documents, and calls of all of them together.
    `dollars`, `tokens`: the most that all runs of this file may spend.

    A failure of one document is its result. An error that every other one would meet too (the budget, the
    key, a server that is gone) ends the run early and is told in the outcome; Ctrl-C raises
    InterruptedRunError. In each case the same call goes on.
    """
    with ResultsFile.opened(
        out, job.all_settings(model.name), fresh=fresh, retry_failed=retry_failed
    ) as file:
        run = _Run(documents, file, analyzer, job, read)
        try:
            return asyncio.run(run.run(model, at_once, dollars, tokens))
        except KeyboardInterrupt:
            raise InterruptedRunError(
                f"stopped: {len(file.done):,} of {len(documents):,} documents are done"
            ) from None


class _Run:
    """One run: what is to be done, and what came of it."""

    def __init__(
        self,
        documents: Sequence[Found],
        file: ResultsFile,
        analyzer: Callable[[LLM], Analyzes],
        job: Job,
        read: Callable[[Path], Document],
    ) -> None:
        self.documents, self.file, self.analyzer, self.job = documents, file, analyzer, job
        self.read = read
        self.texts = Texts(file.work / TEXTS)
        self.analyzed = 0
        self.stopped: GlasshouseError | None = None
        self.priced = False

    async def run(self, model: LLM, at_once: int, dollars: float | None, tokens: int | None) -> Outcome:
        await self._take_out_changed(at_once)
        todo = [found for found in self.documents if found.name not in self.file.done]
        self.model = Resumable(model, self.file.work, at_once=at_once, dollars=dollars, tokens=tokens)
        self.priced = self.model.priced
        try:
            with bar("analyze", len(self.documents), "doc") as shown:
                self._done = len(self.documents) - len(todo)
                self._show(shown)
                queue = iter(todo)
                async with asyncio.TaskGroup() as group:
                    for _ in range(min(at_once, len(todo))):
                        group.create_task(self._work(queue, shown))
            return Outcome(
                len(self.documents),
                self._done,
                self.analyzed,
                len(self.file.done),
                self.file.failed,
                self._dollars(),
                self.stopped,
            )
        except BaseExceptionGroup as errors:  # each worker's error would do; the disk is full for all of them
            raise errors.exceptions[0] from None
        finally:
            self.texts.close()
            await self.model.close()

    async def _take_out_changed(self, at_once: int) -> None:
        """Results of files that hold something else now are no longer theirs."""
        there = [found for found in self.documents if found.name in self.file.done]
        changed: set[str] = set()
        for begin in range(0, len(there), at_once):
            batch = there[begin : begin + at_once]
            hashes = await asyncio.gather(*(asyncio.to_thread(_sha256, found.path) for found in batch))
            changed |= {
                found.name
                for found, now in zip(batch, hashes, strict=True)
                if now != self.file.done[found.name]
            }
        self.file.take_out(changed)

    async def _work(self, queue: Iterator[Found], shown: Bar) -> None:
        for found in queue:
            result = await self._one(found)
            if result is None:
                return
            self.file.add(result)
            self.analyzed += 1
            self._done += 1
            self._show(shown)
            if self.stopped is not None:
                return

    async def _one(self, found: Found) -> Result | None:
        """None: the run stops, and this document stays to be done."""
        began = time.perf_counter()
        sha256 = await asyncio.to_thread(_sha256, found.path)
        try:
            document = await asyncio.to_thread(self.read, found.path)
        except (StorageError, UsageError):
            raise
        except Exception as error:
            return self._failed(found, sha256, error, began)
        llm = self.model.layers(self.file.tries.get(found.name, 0))
        job = self.job
        try:
            result = await self.analyzer(llm).run(
                document, job.task, schema=job.schema, instructions=job.instructions
            )
        except (StorageError, UsageError):
            raise
        except Exception as error:
            result = self._failed(found, sha256, error, began)
        if llm.error is not None:
            self.stopped = self.stopped or llm.error
            return None
        if result.sha256:
            self.texts.put(result.sha256, document.text)
        return result.model_copy(update={"document": found.name, "file_sha256": sha256})

    def _failed(self, found: Found, sha256: str, error: Exception, began: float) -> Result:
        """One document's failure; what is no error of ours to users may be its doing all the same."""
        known = isinstance(error, GlasshouseError)
        return Result(
            document=found.name,
            task=self.job.task,
            domain=self.job.domain,
            model=self.model.name,
            prompt="",
            success=False,
            error=str(error) if known else f"{type(error).__name__}: {' '.join(str(error).split())[:300]}",
            seconds=time.perf_counter() - began,
            cost=error.cost if isinstance(error, LLMError) else 0.0 if self.priced else None,
            file_sha256=sha256,
        )

    def _dollars(self) -> float | None:
        return self.model.spending.dollars if self.priced else None

    def _show(self, shown: Bar) -> None:
        values: dict[str, object] = {}
        if self.file.failed:
            values["failed"] = f"{self.file.failed:,}"
        if (dollars := self._dollars()) is not None:
            values["spent"] = f"${dollars:,.4f}" if dollars < 1 else f"${dollars:,.2f}"
        shown.update(self._done, **values)


def _sha256(path: Path) -> str:
    """Of the file's bytes; "" where it cannot be read, which its reader will say better."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""
