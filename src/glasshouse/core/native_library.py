"""Small C libraries, compiled at first use with the machine's own compiler, cached, and called by ctypes.

Sources are plain C, without headers of Python or PyTorch. Without a compiler, or with one that fails,
there is no library: whoever asks is told None, the user gets one notice, and slower ways run instead.
GLASSHOUSE_KERNELS=off switches all of them off.
"""

from __future__ import annotations

import atexit
import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from glasshouse.core.progress import say

_OPTIONS = ("-O3", "-fno-math-errno", "-march=native", "-std=gnu11", "-fPIC", "-shared")


@lru_cache
def native_library(folders: tuple[Path, ...], options: tuple[str, ...], without: str) -> ctypes.CDLL | None:
    """The library of all C files of the first folder; headers may lie in any of them.

    `options` are added to the compiler's; `without` says in the notice what it costs that there is none.
    """
    if os.environ.get("GLASSHOUSE_KERNELS") == "off":
        return None
    compiler = next((found for name in ("cc", "gcc", "clang") if (found := shutil.which(name))), None)
    if compiler is None:
        _notice("no C compiler found", without)
        return None
    problem = ""
    for threading in (("-fopenmp",), ()):  # Apple's compiler has no OpenMP
        try:
            return ctypes.CDLL(str(_compiled(compiler, folders, [*_OPTIONS, *options, *threading])))
        except (OSError, subprocess.SubprocessError) as error:
            output = getattr(error, "stderr", "") or str(error)
            problem = problem or output.strip().splitlines()[0]
    _notice(f"the native kernels did not compile ({problem})", without)
    return None


def _compiled(compiler: str, folders: Sequence[Path], options: list[str]) -> Path:
    """Path of the shared library, compiled now unless the same one lies in the cache.

    The name holds a hash of sources, options, compiler and processor: a cache that travels to another
    machine is not used there.
    """
    sources = sorted(folders[0].glob("*.c"))
    texts = [path.read_text() for folder in folders for path in sorted(folder.glob("*.[ch]"))]
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True, timeout=30)
    key = [*options, version.stdout, _processor(), *texts]
    name = hashlib.sha256("\0".join(key).encode()).hexdigest()[:24] + ".so"
    folder = _cache_folder()
    if not (folder / name).exists():
        with tempfile.TemporaryDirectory(dir=folder) as work:
            headers = [f"-I{path}" for path in folders]
            command = [compiler, *options, *headers, "-o", f"{work}/{name}", *map(str, sources), "-lm"]
            subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
            os.replace(f"{work}/{name}", folder / name)
    return folder / name


def _processor() -> str:
    """Model and instruction sets: code for this processor may be illegal on another."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    kept = ("flags", "Features", "model name")
    return "\n".join(sorted({line for line in lines if line.startswith(kept)}))


@lru_cache
def _cache_folder() -> Path:
    """A folder of the user's own: code is loaded from it, so nobody else may write there.

    Without such a folder, one that lives as long as this process.
    """
    try:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        folder = Path(base) / "glasshouse" / "kernels"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if os.access(folder, os.W_OK) and folder.stat().st_uid == os.getuid():
            return folder
    except (OSError, RuntimeError):  # RuntimeError: this user has no home
        pass
    folder = Path(tempfile.mkdtemp(prefix="glasshouse-kernels-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@lru_cache
def _notice(problem: str, without: str) -> None:
    """Said once, though there are libraries for two dtypes."""
    say(f"notice: {problem}: {without}")
