"""Which files a user's paths mean: named files as they are, folders walked in sorted order."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from glasshouse.core.errors import DataError
from glasshouse.core.progress import say
from glasshouse.files import compression


def format_suffix(path: Path) -> str:
    """The suffix that tells the format, in lower case: ".jsonl" of "a.JSONL.gz"."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in compression.SUFFIXES:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


@dataclass(frozen=True)
class Found:
    """A file to read."""

    path: Path
    name: str
    """Tells the file from the others: its place in the folder that was named, without suffixes."""
    source: str
    """What the user named: that folder, or the file itself."""


def find_files(paths: str | Path | Iterable[str | Path], suffixes: Collection[str]) -> list[Found]:
    """Every file that the paths name, checked before any work starts.

    A folder is walked in sorted order; hidden files and other suffixes in it are passed over, the latter with
    one notice. Raises DataError for a path that does not exist, a named file of another suffix, a file that
    is empty or may not be read, and a folder without any file to read.
    """
    named = [paths] if isinstance(paths, (str, Path)) else list(paths)
    if not named:
        raise DataError("no file is named", fix="name a file or a folder")
    files: list[Found] = []
    for path in map(Path, named):
        if path.is_dir():
            files += _walk(path, suffixes)
        elif not path.exists():
            raise DataError("no such file or folder", where=path, fix="check the path")
        elif format_suffix(path) not in suffixes:
            raise DataError(
                f"files of this kind ({path.suffix or 'no suffix'}) cannot be read here",
                where=path,
                fix=f"use one of {_listed(suffixes)}",
            )
        else:
            files.append(Found(path, _stem(path), _stem(path)))
    for file in files:
        _check_readable(file.path)
    return files


def _walk(folder: Path, suffixes: Collection[str]) -> list[Found]:
    found: list[Found] = []
    passed_over: Counter[str] = Counter()
    for parent, folders, names in os.walk(folder, onerror=_refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(parent, name)
            if name.startswith("."):
                continue
            if format_suffix(path) in suffixes:
                relative = path.parent.relative_to(folder) / _stem(path)
                found.append(Found(path, relative.as_posix(), folder.resolve().name))
            else:
                passed_over[path.suffix or name] += 1
    if passed_over:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(passed_over.items()))
        say(f"{folder}: passed over files that are not {_listed(suffixes)}: {kinds}")
    if not found:
        raise DataError(
            "the folder holds no file to read", where=folder, fix=f"put {_listed(suffixes)} files into it"
        )
    return found


def _refuse(error: OSError) -> None:
    raise DataError(
        "the folder may not be read", where=error.filename, fix="change its permissions"
    ) from None


def _check_readable(path: Path) -> None:
    try:
        with open(path, "rb") as file:
            if not file.read(1):
                raise DataError("the file is empty", where=path, fix="put data into it or leave it out")
    except OSError as error:
        raise DataError(
            f"cannot be read: {error.strerror}", where=path, fix="change its permissions"
        ) from None


def _stem(path: Path) -> str:
    """The file's name without the suffixes of its format: "books" of "data/books.jsonl.gz"."""
    return (Path(path.stem) if path.suffix.lower() in compression.SUFFIXES else path).stem


def _listed(suffixes: Collection[str]) -> str:
    return ", ".join(suffixes)
