"""`results.jsonl`: one result a line, each document once, whole lines only, whatever happens meanwhile.

Beside it stands `results.jsonl.work/`, which makes a run resumable: the settings that the results were made
with, the replies that were paid for, what was spent, and the texts of the documents. Whoever has the results
and does not want to go on may delete it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from glasshouse.core.errors import ConfigError, DataError, StorageError, UsageError
from glasshouse.core.storage import disk_errors, read_json, replaced, write_json
from glasshouse.documents.result import Result

SETTINGS = "settings.json"
TRIES = "tries.json"


def read_results(path: str | Path) -> Iterator[Result]:
    """The results of a file. A last line that a killed process left half written is passed over.

    Raises DataError for a file that is missing and for a line that is no result.
    """
    path = Path(path)
    try:
        file = open(path, encoding="utf-8", newline="\n")  # noqa: SIM115 (closed below)
    except OSError as error:
        raise DataError(
            f"the results cannot be read: {error.strerror}", where=path, fix="check the path"
        ) from None
    with file:
        try:
            for number, line in enumerate(file, 1):
                if line.endswith("\n"):
                    yield _parsed(line, path, number)
        except UnicodeDecodeError:
            raise DataError("not UTF-8", where=path, fix="name the file that analyze wrote") from None


def work_folder(results: Path) -> Path:
    return results.with_name(f"{results.name}.work")


class ResultsFile:
    """Open for one process at a time, between `opened` and its end."""

    def __init__(self, path: Path, descriptor: int, tries: dict[str, int]) -> None:
        self.path, self.work = path, work_folder(path)
        self.done: dict[str, str] = {}  # name of a document -> SHA-256 of its file
        self._failed: set[str] = set()
        self.tries = tries  # name -> how often it was tried anew after replies that could not be read
        self._descriptor = descriptor

    @classmethod
    @contextlib.contextmanager
    def opened(
        cls, path: str | Path, settings: Mapping[str, Any], *, fresh: bool = False, retry_failed: bool = False
    ) -> Iterator[ResultsFile]:
        """The file with what it holds already.

        `settings`: names and JSON values of all that decides the results; they are kept, and others than
        those kept are an error, unless `fresh` throws the old results away. `retry_failed` takes the results
        of documents that failed out, so that they are done again. Raises ConfigError for other settings,
        StorageError where another process is writing, and DataError for a file of something else.
        """
        path = Path(path)
        work = work_folder(path)
        with disk_errors(path):
            work.mkdir(parents=True, exist_ok=True, mode=0o700)  # texts and replies may be private
        with _locked(work / ".lock", path):
            if fresh:
                _forget(path, work)
            _check_settings(path, work, settings)
            tries: dict[str, int] = read_json(work / TRIES) if (work / TRIES).is_file() else {}
            _cut_torn_line(path)
            if retry_failed:
                _take_out_failed(path, work, tries)
            with disk_errors(path):
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                file = cls(path, descriptor, tries)
                for result in _present(path):
                    file._note(result)
                yield file
                with disk_errors(path):
                    os.fsync(descriptor)
            finally:
                os.close(descriptor)

    @property
    def failed(self) -> int:
        """Results of documents that failed."""
        return len(self._failed)

    def add(self, result: Result) -> None:
        """Write the line, whole or not at all. Raises StorageError where the disk is full."""
        # Not pydantic's own JSON: it fails for the halves of surrogate pairs that models write.
        text = json.dumps(result.model_dump(), ensure_ascii=False)
        line = f"{text}\n".encode("utf-8", "replace")
        with disk_errors(self.path):
            before = os.fstat(self._descriptor).st_size
            try:
                written = 0
                while written < len(line):
                    written += os.write(self._descriptor, line[written:])
            except OSError:
                os.ftruncate(self._descriptor, before)
                raise
        self._note(result)

    def take_out(self, names: set[str]) -> None:
        """Remove the results of documents that have changed since."""
        if not names:
            return
        _rewrite(self.path, lambda result: result.document not in names)
        for name in names:
            del self.done[name]
        self._failed -= names
        with disk_errors(self.path):  # the descriptor still leads to the old file
            new = os.open(self.path, os.O_WRONLY | os.O_APPEND)
            os.dup2(new, self._descriptor)
            os.close(new)

    def _note(self, result: Result) -> None:
        self.done[result.document] = result.file_sha256
        if not result.success:
            self._failed.add(result.document)


@contextlib.contextmanager
def _locked(lock: Path, path: Path) -> Iterator[None]:
    """The lock vanishes with its process, however that ends."""
    with disk_errors(path):
        handle = open(lock, "a+", encoding="utf-8")  # noqa: SIM115 (closed below)
    with handle:
        try:
            import fcntl
        except ImportError:  # Windows: no advisory locks of this kind
            pass
        else:
            try:
                fcntl.flock(handle.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                handle.seek(0)
                owner = handle.read().strip() or "unknown"
                raise StorageError(
                    f"another glasshouse (process {owner}) is writing these results",
                    where=path,
                    fix="wait for it, or name another file with --out",
                ) from None
        handle.truncate(0)
        handle.write(str(os.getpid()))
        handle.flush()
        yield


def _forget(path: Path, work: Path) -> None:
    path.unlink(missing_ok=True)
    for entry in work.iterdir():
        if entry.name != ".lock":
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def _check_settings(path: Path, work: Path, settings: Mapping[str, Any]) -> None:
    given: dict[str, Any] = json.loads(json.dumps(settings))
    file = work / SETTINGS
    if not file.is_file():
        if path.exists() and path.stat().st_size:
            raise UsageError(
                f"nothing says with which settings this file was made ({file} is missing)",
                where=path,
                fix="name another file with --out, or begin anew with --fresh",
            )
        write_json(file, given)
        return
    kept: dict[str, Any] = read_json(file)
    changed = [
        f"{name} was {_short(kept.get(name))} and is {_short(given.get(name))}"
        for name in {**kept, **given}
        if kept.get(name) != given.get(name)
    ]
    if changed:
        raise ConfigError(
            f"these results were made with other settings: {'; '.join(changed)}",
            where=path,
            fix="name another file with --out, or begin anew with --fresh",
        )


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _cut_torn_line(path: Path) -> None:
    """A process that was killed while it wrote may have left part of a line."""
    if not path.exists():
        return
    with disk_errors(path), open(path, "r+b") as file:
        end = file.seek(0, os.SEEK_END)
        at = end
        while at > 0:
            begin = max(at - 65536, 0)
            file.seek(begin)
            newline = file.read(at - begin).rfind(b"\n")
            if newline >= 0:
                at = begin + newline + 1
                break
            at = begin
        if at < end:
            file.truncate(at)


def _present(path: Path) -> Iterator[Result]:
    return read_results(path) if path.exists() else iter(())


def _take_out_failed(path: Path, work: Path, tries: dict[str, int]) -> None:
    failed = [result for result in _present(path) if not result.success]
    if not failed:
        return
    for result in failed:
        if result.parsing_failed:  # the same replies would be read from the cache
            tries[result.document] = tries.get(result.document, 0) + 1
    write_json(work / TRIES, tries)
    _rewrite(path, lambda result: result.success)


def _rewrite(path: Path, keep: Callable[[Result], bool]) -> None:
    with (
        replaced(path) as temporary,
        open(temporary, "w", encoding="utf-8", newline="\n") as new,
        open(path, encoding="utf-8", newline="\n") as old,
    ):
        for number, line in enumerate(old, 1):
            if keep(_parsed(line, path, number)):
                new.write(line)


def _parsed(line: str, path: Path, number: int) -> Result:
    try:
        return Result.model_validate_json(line)
    except ValidationError:
        raise DataError(
            "this line is no result of an analysis",
            where=f"{path}, line {number}",
            fix="name the file that analyze wrote, or begin anew with --fresh",
        ) from None
