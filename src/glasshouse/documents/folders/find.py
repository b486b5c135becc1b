"""Which documents a user's paths mean, and under which names their results stand."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from glasshouse.core.errors import DataError
from glasshouse.core.progress import say


@dataclass(frozen=True)
class Found:
    """A file to analyze."""

    path: Path
    name: str  # its place in the folder that was named, "2024/q3.pdf": what its result is found by


def find_documents(paths: Iterable[str | Path], suffixes: Collection[str]) -> list[Found]:
    """Every document that the paths name, in sorted order, each once.

    Of folders all files with one of the suffixes (".pdf", in lower case), but hidden ones; others are passed
    over with one notice, and so are links that lead out of the folder and what is no plain file: strangers
    fill such folders. Whether a file can be read shows when its turn comes. Raises DataError for a path that
    does not exist and where nothing is left.
    """
    named = [Path(path) for path in paths]
    if not named:
        raise DataError("no document is named", fix="name a file or a folder")
    names = _folder_names([path for path in named if path.is_dir()])
    found: dict[Path, Found] = {}
    for path in named:
        if path.is_dir():
            for file, inside in _walk(path, suffixes):
                name = f"{names[path]}/{inside}" if len(named) > 1 else inside
                found.setdefault(file.resolve(), Found(file, name))
        elif path.is_file():
            found.setdefault(path.resolve(), Found(path, path.as_posix() if len(named) > 1 else path.name))
        else:
            raise DataError("no such file or folder", where=path, fix="check the path")
    if not found:
        raise DataError(
            "there is no document", where=named[0], fix=f"put {', '.join(sorted(suffixes))} files into it"
        )
    return list(found.values())


def _folder_names(folders: list[Path]) -> dict[Path, str]:
    """The last part of each path where that tells them apart, else the whole path."""
    last = Counter(folder.resolve().name for folder in folders)
    return {
        folder: folder.resolve().name if last[folder.resolve().name] == 1 else folder.as_posix()
        for folder in folders
    }


def _walk(folder: Path, suffixes: Collection[str]) -> Iterator[tuple[Path, str]]:
    root = folder.resolve()
    passed_over: Counter[str] = Counter()
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            path = Path(parent, name)
            if name.startswith("."):
                continue
            if path.suffix.lower() not in suffixes:
                passed_over[path.suffix.lower() or name] += 1
            elif not _plain(path):
                passed_over["special files"] += 1
            elif path.is_symlink() and not path.resolve().is_relative_to(root):
                passed_over["links out of the folder"] += 1
            else:
                yield path, path.relative_to(folder).as_posix()
    if passed_over:
        kinds = ", ".join(f"{count} {kind}" for kind, count in passed_over.most_common(8))
        more = f", {len(passed_over) - 8} other kinds" if len(passed_over) > 8 else ""
        say(f"{folder}: passed over {kinds}{more}")


def _plain(path: Path) -> bool:
    """Not a pipe or a device, which would never end."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:  # a link to nothing
        return False
