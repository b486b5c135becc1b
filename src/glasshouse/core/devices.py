"""Which device to use, which number format is fast on it, and how fast the machine can possibly be."""

from __future__ import annotations

import os
import platform
import sys
import time
from importlib import metadata
from typing import Any, Literal

from glasshouse.core.errors import UsageError

DTypeName = Literal["bfloat16", "float32"]

_ROUNDS = 8
_SIDE = 512
"""Side of the square matrices timed by `choose_dtype`: large enough to leave launch overhead behind."""


def pick(name: str = "auto") -> str:
    """Resolve "auto" to "cuda", "mps" or "cpu"; raises UsageError when the named device is absent."""
    import torch

    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return next(device for device in ("cuda", "mps", "cpu") if present[device])
    kind = name.split(":")[0]
    if kind not in present:
        raise UsageError(f"unknown device '{name}'", fix="use auto, cpu, cuda or mps")
    if not present[kind]:
        raise UsageError(f"this machine has no {kind} that PyTorch can use", fix="use --device auto")
    return name


def choose_dtype(device: str) -> tuple[DTypeName, str]:
    """Measure whether bfloat16 products are faster than float32 here; returns the choice and the reason.

    CPUs with AVX512-BF16 or AMX multiply bfloat16 several times faster; others emulate it slowly, so
    the processor's name is not asked, the product is timed: in several rounds of both in turn, so that
    a neighbour who takes the processor for a moment does not decide a run of hours.
    """
    if device.startswith("cuda"):
        return "bfloat16", "GPU"
    dtypes: tuple[DTypeName, DTypeName] = ("bfloat16", "float32")
    rounds = [[_matmul_flops(device, dtype, _SIDE, repeats=1) for dtype in dtypes] for _ in range(_ROUNDS)]
    bf16, fp32 = map(max, zip(*rounds, strict=True))
    reason = f"bfloat16 products run at {bf16 / fp32:.1f} times the speed of float32 here"
    return ("bfloat16" if bf16 > 1.5 * fp32 else "float32"), reason


def peak_flops(device: str, dtype: DTypeName) -> float:
    """Measured floating-point operations a second of a large matrix product, the best of several."""
    return _matmul_flops(device, dtype, 8192 if device.startswith("cuda") else 1536, repeats=5)


def _matmul_flops(device: str, dtype: DTypeName, side: int, repeats: int = 4) -> float:
    import torch

    a = torch.ones(side, side, dtype=getattr(torch, dtype), device=device)
    best = float("inf")
    for _ in range(repeats + 1):
        start = time.perf_counter()
        product = a @ a
        product[0, 0].item()  # waits for an asynchronous device
        best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best


def machine() -> dict[str, Any]:
    """What a result needs beside it to be understood later: processor, cores, versions."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": _memory_gib(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": _version("torch"),
        "glasshouse": _version("glasshouse-lm"),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    if sys.platform == "linux":
        try:
            with open("/proc/cpuinfo", encoding="utf-8") as file:
                for line in file:
                    if line.startswith("model name"):
                        return line.split(":", 1)[1].strip()
        except OSError:
            pass
    return platform.processor() or platform.machine()


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError, AttributeError):
        return None
