"""The folder of one run: which stages stand in it, which can be taken from elsewhere, and who may write.

A stage is found by its key. Before a run works, everything in its folder that its recipe would not make
is moved to `previous/`, so that what stands in the folder always belongs together; nothing is deleted.
A missing stage is then looked for in `previous/`, after that in the runs beside this one.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from glasshouse.core.errors import StorageError
from glasshouse.core.record import FILE, Record, hash_files, read_record, write_record
from glasshouse.core.storage import directory, disk_errors

LINK_FROM_BYTES = 1 << 20
"""Larger files are shared between runs by hard links; smaller ones are copied, as people edit those."""

PREVIOUS = "previous"


@dataclass(frozen=True)
class Problem:
    """Something that `verify` found: a file of a stage, and what is wrong with it."""

    stage: str
    file: str
    what: str  # "missing", "changed", "not finished", "made from another ..."


class RunFolder:
    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def stage(self, name: str) -> Path:
        """Folder of a stage: `sft`, or `evaluation/sft` for the evaluation of a stage."""
        return self.path / name

    def record(self, name: str) -> Record | None:
        return read_record(self.stage(name))

    def records(self) -> dict[str, Record]:
        """Every stage that stands in the folder, finished or not, by name."""
        found = [path.parent for pattern in (FILE, f"evaluation/*/{FILE}") for path in self._glob(pattern)]
        records = {folder.relative_to(self.path).as_posix(): read_record(folder) for folder in found}
        return {name: record for name, record in records.items() if record is not None}

    def _glob(self, pattern: str) -> Iterable[Path]:
        nested = pattern if "/" in pattern else f"*/{pattern}"
        return (p for p in sorted(self.path.glob(nested)) if not p.parent.name.startswith("."))

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for this process; the lock vanishes with the process, however it ends."""
        with disk_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            handle = open(self.path / ".lock", "a+", encoding="utf-8")  # noqa: SIM115 (closed below)
        with handle:
            try:
                _lock(handle.fileno())
            except OSError:
                handle.seek(0)
                owner = handle.read().strip() or "unknown"
                raise StorageError(
                    f"another glasshouse (process {owner}) is working in this folder",
                    where=self.path,
                    fix="wait for it, or choose another folder with --out",
                ) from None
            handle.truncate(0)
            handle.write(str(os.getpid()))
            handle.flush()
            yield

    def keep_only(self, keys: dict[str, str]) -> list[str]:
        """Move aside every stage that is not in `keys` (name -> key) as it stands; returns their names."""
        moved = []
        for name, record in self.records().items():
            if keys.get(name) != record.key:
                target = self._aside(name, record.key)
                with disk_errors(target):
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.rmtree(target, ignore_errors=True)
                    os.replace(self.stage(name), target)
                moved.append(name)
        return moved

    def take(self, name: str, key: str) -> str | None:
        """Bring in the stage `name` with this key from elsewhere; returns where it came from, or None.

        From `previous/` it is moved back even when unfinished: its work goes on. From another run it is
        taken only when finished, as links and copies, so that each run folder stands alone.
        """
        aside = self._aside(name, key)
        if (record := read_record(aside)) is not None and record.key == key:
            target = self.stage(name)
            with disk_errors(target):
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.rmtree(target, ignore_errors=True)
                os.replace(aside, target)
            return str(aside.parent)
        for run in sorted(self.path.absolute().parent.glob("[!.]*")):
            if run == self.path.absolute():
                continue
            for source in (run / name, run / PREVIOUS / aside.name):
                record = read_record(source)
                if record is None or record.key != key or not _whole(source, record):
                    continue
                shown = os.path.relpath(run)
                with contextlib.suppress(FileNotFoundError):  # the other run is changing it just now
                    with directory(self.stage(name)) as temporary:
                        _link_tree(source, temporary)
                        write_record(temporary, record.model_copy(update={"reused_from": shown}))
                    return shown
        return None

    def clear(self) -> None:
        """Remove every stage (`--fresh`), those set aside included."""
        for name in self.records():
            shutil.rmtree(self.stage(name))
        shutil.rmtree(self.path / PREVIOUS, ignore_errors=True)

    def verify(self) -> list[Problem]:
        """Compare every file with the hash its stage recorded, and every stage with its inputs."""
        problems = []
        records = self.records()
        for name, record in records.items():
            if record.finished is None:
                problems.append(Problem(name, FILE, "not finished"))
                continue
            if record.key != record.expected_key():
                problems.append(Problem(name, FILE, "its key is not that of its settings"))
            present = hash_files(self.stage(name))
            for file, expected in record.files.items():
                if file not in present:
                    problems.append(Problem(name, file, "missing"))
                elif present[file] != expected:
                    problems.append(Problem(name, file, "changed"))
            for stage, key in record.inputs.items():
                if stage in records and records[stage].key != key:
                    problems.append(Problem(name, FILE, f"made from another {stage}"))
        return problems

    def _aside(self, name: str, key: str) -> Path:
        return self.path / PREVIOUS / f"{name.replace('/', '.')}-{key}"


def _whole(folder: Path, record: Record) -> bool:
    """Whether a stage is finished and no file of it gone; `verify` checks what is in the files."""
    return record.finished is not None and all((folder / file).is_file() for file in record.files)


def _link_tree(source: Path, target: Path) -> None:
    for path in sorted(source.rglob("*")):
        name = path.relative_to(source)
        if any(part.startswith(".") for part in name.parts):
            continue
        if path.is_dir():
            (target / name).mkdir(exist_ok=True)
        elif path.stat().st_size < LINK_FROM_BYTES:
            shutil.copy2(path, target / name)
        else:
            try:
                os.link(path, target / name)
            except OSError:  # another file system, or one without hard links
                shutil.copy2(path, target / name)


def _lock(descriptor: int) -> None:
    try:
        import fcntl
    except ImportError:  # Windows: no advisory locks of this kind
        return
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
