"""Files that are either whole or absent: atomic writes, folders that appear at once, content hashes."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from glasshouse.core.errors import DataError, StorageError


@contextlib.contextmanager
def disk_errors(path: str | Path) -> Iterator[None]:
    """Turn the operating system's errors about `path` into a StorageError that tells the fix."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        fixes = {
            errno.ENOSPC: "free some space and run the same command again; finished work is kept",
            errno.EDQUOT: "raise the quota or free some space, then run the same command again",
            errno.EFBIG: "write to a file system that takes larger files",
            errno.EACCES: "choose a folder that you may write to",
            errno.EROFS: "choose a folder on a disk that is not read-only",
        }
        if error.errno not in fixes:
            raise
        raise StorageError(f"cannot write: {error.strerror}", where=path, fix=fixes[error.errno]) from error


@contextlib.contextmanager
def replaced(path: str | Path) -> Iterator[Path]:
    """A temporary path to write; it becomes `path` when the block ends well, and is deleted otherwise.

    After a crash the file holds either all of the new or what it held before.
    """
    path = Path(path)
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            yield temporary
            _sync(temporary)
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write `data` whole or not at all, as `replaced` does."""
    with replaced(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: str | Path, text: str) -> None:
    write_bytes(path, text.encode("utf-8"))


def write_json(path: str | Path, value: Any) -> None:
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Read one JSON value; raises DataError naming the file."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError("no such file", where=path) from None
    except (OSError, ValueError) as error:
        raise DataError(f"not readable as JSON: {error}", where=path) from None


@contextlib.contextmanager
def directory(path: str | Path) -> Iterator[Path]:
    """Fill a temporary sibling folder that takes the place of `path` only when the block succeeds.

    An older folder at `path` is replaced. Leftovers of killed processes are swept at the next use.
    """
    path = Path(path)
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        for leftover in path.parent.glob(f".{path.name}.*.tmp"):
            shutil.rmtree(leftover, ignore_errors=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
        try:
            temporary.chmod(0o755)
            yield temporary
            for file in temporary.rglob("*"):
                if file.is_file():
                    _sync(file)
            if path.exists():
                aside = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
                os.replace(path, aside / "old")
                os.replace(temporary, path)
                shutil.rmtree(aside, ignore_errors=True)
            else:
                os.replace(temporary, path)
            _sync(path.parent)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def hash_json(value: Any) -> str:
    """16 hexadecimal digits of SHA-256 over the canonical JSON of `value`."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(canonical.encode("utf-8")).hexdigest()[:16]


def hash_file(path: str | Path) -> str:
    """16 hexadecimal digits of SHA-256 over the bytes of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def hash_folder(path: str | Path) -> str:
    """Hash of every file's relative name and content, in sorted order; hidden files are left out."""
    root = Path(path)
    files = sorted(p for p in root.rglob("*") if p.is_file() and not p.name.startswith("."))
    return hash_json([[str(p.relative_to(root)), hash_file(p)] for p in files])
