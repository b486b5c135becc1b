"""Keep freed memory in the process while it is used again and again, and hand it back between two works.

A training step frees and takes the same tensors again and again. glibc returns blocks over 128 KiB to
the kernel at once, so each step pays for its pages anew: measured 100,000 page faults and 20–30% of a
step on a small model (2 cores, 8,192 tokens). With these settings it is none.
"""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from pathlib import Path

# Parameters of mallopt(3), from malloc.h.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_NEVER_TRIM, _GROW_BY = 2**31 - 1, 64 << 20


def keep_freed_memory() -> bool:
    """Tell glibc's allocator to reuse freed blocks; returns whether this system took the settings.

    Affects speed only. Calling it twice is harmless; other C libraries are left alone.
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # absent from musl
    if mallopt is None:
        return False
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _NEVER_TRIM), (_M_TOP_PAD, _GROW_BY))
    return all(mallopt(parameter, value) == 1 for parameter, value in settings)


def release_freed_memory() -> None:
    """Hand what is free at the moment back to the system: between two works that take different blocks.

    Without it a process holds the most that any of them took, in pieces that the next one may not fit.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


class KeptMemory:
    """Freed memory that is kept, up to a limit: for a work whose blocks have ever new sizes.

    They leave gaps that fit nothing else, so that a process would grow by what it frees. Looking takes
    microseconds, and handing back is rare.
    """

    def __init__(self, limit: int = 1 << 30) -> None:
        self._limit, self._ceiling = limit, resident_bytes() + limit

    def check(self) -> None:
        """Hand back what is free, if the process has grown by `limit` bytes since the last time."""
        if resident_bytes() > self._ceiling:
            release_freed_memory()
            self._ceiling = resident_bytes() + self._limit


def resident_bytes() -> int:
    """Memory of this process that is in the machine's; 0 where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
