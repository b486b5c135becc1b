"""Open files that may be compressed with gzip (`.gz`) or Zstandard (`.zst`), as a stream of bytes."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import zstandard

from glasshouse.core.errors import DataError

SUFFIXES = (".gz", ".zst")


@contextmanager
def open_bytes(path: Path) -> Iterator[BinaryIO]:
    """The uncompressed bytes of a file. Every failure to read is a DataError that names the file."""
    try:
        with open(path, "rb") as file:
            if path.suffix.lower() == ".gz":
                with gzip.open(file, "rb") as unzipped:
                    yield unzipped  # type: ignore[misc]
            elif path.suffix.lower() == ".zst":
                yield io.BufferedReader(_Zstandard(file), 1 << 17)
            else:
                yield file
    except FileNotFoundError:
        raise DataError("no such file", where=path, fix="check the path") from None
    except IsADirectoryError:
        raise DataError("this is a folder, not a file", where=path, fix="name a file in it") from None
    except PermissionError:
        raise DataError("the file may not be read", where=path, fix="change its permissions") from None
    except (EOFError, zlib.error, gzip.BadGzipFile, zstandard.ZstdError) as error:
        raise DataError(
            f"broken or cut off {path.suffix} file ({error})",
            where=path,
            fix="copy or download the file again",
        ) from None
    except OSError as error:
        raise DataError(f"cannot be read: {error}", where=path, fix="check the disk and the path") from None


class _Zstandard(io.RawIOBase):
    """Decompresses frame after frame; unlike zstandard's own reader it notices a file that was cut off."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._decompressor = zstandard.ZstdDecompressor()
        self._frame: zstandard.ZstdDecompressionObj | None = None
        self._input = b""
        self._output = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:  # type: ignore[override]
        while not self._output:
            if not self._input:
                self._input = self._file.read(1 << 16)
            if not self._input:
                if self._frame is not None:
                    raise EOFError("the last frame is not complete")
                return 0
            if self._frame is None:
                self._frame = self._decompressor.decompressobj()
            self._output = memoryview(self._frame.decompress(self._input))
            self._input = b""
            if self._frame.eof:
                self._input, self._frame = self._frame.unused_data, None
        count = min(len(buffer), len(self._output))
        buffer[:count] = self._output[:count]
        self._output = self._output[count:]
        return count
