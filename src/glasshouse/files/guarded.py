"""Read files of strangers in child processes with a ceiling of memory and of time.

A broken or hostile file can make a reader loop, fill memory or crash. Here that ends one child, which is
replaced; whoever asked gets a DataError. Children are reused for many files. Each line of a child's input is
a JSON object {"path"}; each answer is a length and a JSON object: no code travels either way.

    with GuardedReader(workers=2) as reader:
        document = reader.read("inbox/annual-report.pdf")
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import select
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from glasshouse.core.errors import DataError
from glasshouse.files.document import Block, Document, Flag

MEMORY = 2 << 30
"""Bytes of address space of a child; Python with the readers takes about a quarter of it."""
SECONDS = 300.0
"""For one file: 5,000 full pages of a PDF take about 200."""
MAX_ANSWER = 512 << 20
"""Bytes of one document as JSON."""
MAX_FILES = 200
"""Read by one child before it is replaced, so that memory it lost does not add up."""

_LENGTH = struct.Struct(">Q")


class GuardedReader:
    """Reads files in `workers` children; several threads may call `read` at once."""

    def __init__(self, workers: int = 1, *, memory: int = MEMORY, seconds: float = SECONDS) -> None:
        self._memory, self._seconds = memory, seconds
        self._idle: queue.LifoQueue[_Child | None] = queue.LifoQueue()
        self._workers = workers
        for _ in range(workers):
            self._idle.put(None)  # started when first needed

    def read(self, path: str | Path) -> Document:
        """The document, as `open_document` gives it; waits while all children are busy.

        Raises DataError as that does, and for a file that takes more than the memory or the time allowed.
        """
        child = self._idle.get()
        try:
            if child is None or child.files >= MAX_FILES or not child.alive():
                if child is not None:
                    child.end()
                child = None
                child = _Child(self._memory, self._seconds)
            return child.read(Path(path))
        except BaseException:
            if child is not None and not child.sound:
                child.end()
                child = None
            raise
        finally:
            self._idle.put(child)

    def close(self) -> None:
        """End the children; waits for files that are being read."""
        for _ in range(self._workers):
            child = self._idle.get()
            if child is not None:
                child.end()
        for _ in range(self._workers):
            self._idle.put(None)

    def __enter__(self) -> GuardedReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Child:
    """One process that reads files."""

    def __init__(self, memory: int, seconds: float) -> None:
        self.files = 0
        self.sound = True  # False: it may not be asked again
        self._seconds = seconds
        self._memory = memory
        package = Path(__file__).resolve().parents[2]  # so that the child finds this very package
        paths = [str(package), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            # -P: a file in the working folder must not pass for a module
            [sys.executable, "-P", "-m", "glasshouse.files.guarded", str(memory), str(seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            bufsize=0,
            start_new_session=True,  # Ctrl-C in the terminal is for the parent alone
        )

    def alive(self) -> bool:
        return self._process.poll() is None

    def read(self, path: Path) -> Document:
        self.files += 1
        self.sound = False
        deadline = time.monotonic() + self._seconds
        try:
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps({"path": os.path.abspath(path)}).encode() + b"\n")
            length = _LENGTH.unpack(self._take(_LENGTH.size, deadline))[0]
            if length > MAX_ANSWER:
                raise DataError(
                    f"its text has more than {MAX_ANSWER >> 20} MiB", where=path, fix="split the file"
                )
            answer = json.loads(self._take(length, deadline))
        except TimeoutError:
            raise DataError(
                f"reading this file took more than {self._seconds:g} seconds",
                where=path,
                fix="leave it out, split it, or allow more time",
            ) from None
        except (EOFError, OSError, ValueError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(
                f"the process that read this file died ({self._ending()}): the file is broken, made to do "
                f"harm, or needs more than {self._memory >> 20} MiB of memory",
                where=path,
                fix="leave it out, or save it again with the program that made it",
            ) from None
        self.sound = not answer.get("last", False)
        if "error" in answer:
            raise DataError(answer["error"]["what"], where=path, fix=answer["error"]["fix"])
        return document_from(answer["document"])

    def _take(self, count: int, deadline: float) -> bytes:
        """So many bytes of the child's output; raises TimeoutError and EOFError."""
        assert self._process.stdout is not None
        pipe = self._process.stdout.fileno()
        parts: list[bytes] = []
        while count:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([pipe], [], [], left)[0]:
                raise TimeoutError
            part = os.read(pipe, min(count, 1 << 20))
            if not part:
                raise EOFError
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    def _ending(self) -> str:
        try:
            code = self._process.wait(5)
        except subprocess.TimeoutExpired:
            return "it no longer answers"
        return f"signal {-code}" if code < 0 else f"exit code {code}"

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


# A document as JSON


def document_to(document: Document) -> dict[str, Any]:
    """A document as plain JSON values; `document_from` is the way back."""
    return {
        "name": document.name,
        "text": document.text,
        "blocks": [[b.kind, b.start, b.end, b.page, b.level, b.place, b.box] for b in document.blocks],
        "format": document.format,
        "pages": document.pages,
        "metadata": dict(document.metadata),
        "flags": [[flag.kind, flag.what, flag.pages, flag.text] for flag in document.flags],
    }


def document_from(value: dict[str, Any]) -> Document:
    blocks = tuple(
        Block(kind, start, end, page, level, place, None if box is None else (box[0], box[1], box[2], box[3]))
        for kind, start, end, page, level, place, box in value["blocks"]
    )
    flags = tuple(Flag(kind, what, tuple(pages), text) for kind, what, pages, text in value["flags"])
    return Document(
        value["name"], value["text"], blocks, value["format"], value["pages"], value["metadata"], flags
    )


# The child


def _serve(memory: int, seconds: float) -> None:
    """Answer what comes in until the input ends."""
    # The answers have a pipe of their own: what a library prints goes nowhere.
    answers = os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    _limit_memory(memory)
    for line in sys.stdin.buffer:
        _limit_processor(seconds)
        answer = _answer(json.loads(line)["path"])
        data = json.dumps(answer, ensure_ascii=True).encode()
        answers.write(_LENGTH.pack(len(data)) + data)
        answers.flush()
        if answer.get("last"):
            return


def _answer(path: str) -> dict[str, Any]:
    from glasshouse.files.open_document import open_document

    try:
        return {"document": document_to(open_document(path))}
    except DataError as error:
        return {"error": {"what": error.what, "fix": error.fix}}
    except (MemoryError, RecursionError) as error:
        what = "reading this file needs more memory than is allowed"
        if isinstance(error, RecursionError):
            what = "the parts of this file stand in each other too deeply"
        return {"error": {"what": what, "fix": "leave it out, or split it"}, "last": True}
    except Exception as error:  # a defect of a reader: this file fails, the others go on
        what = f"a reader failed on this file: {type(error).__name__}: {error}"[:500]
        return {"error": {"what": what, "fix": "report it with the file"}, "last": True}


def _limit_memory(memory: int) -> None:
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    with contextlib.suppress(ValueError, OSError):  # refused where the hard limit is lower still
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _limit_processor(seconds: float) -> None:
    """A child whose parent is gone ends too: after so much more processor time the system kills it."""
    try:
        import resource
    except ImportError:
        return
    used = resource.getrusage(resource.RUSAGE_SELF)
    with contextlib.suppress(ValueError, OSError):
        most = int(used.ru_utime + used.ru_stime + seconds) + 2
        resource.setrlimit(resource.RLIMIT_CPU, (most, resource.getrlimit(resource.RLIMIT_CPU)[1]))


if __name__ == "__main__":
    _serve(int(sys.argv[1]), float(sys.argv[2]))
