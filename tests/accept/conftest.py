"""Whole runs of `pocket`, one for each seed, shared by the tests that read them."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest

SEEDS = os.environ.get("GLASSHOUSE_ACCEPT_SEEDS", "30413 31517").split()
GIB = 2**30


class Grown(NamedTuple):
    path: Path
    seed: int
    seconds: float
    peak_memory_gib: float


def grow(recipe: str, out: Path, *settings: str) -> float:
    """Run a recipe in a process of its own, with all cores as a user has them; returns its seconds."""
    code = "import sys; from glasshouse.cli import main; main(sys.argv[1:])"
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    line = [arg for setting in settings for arg in ("--set", setting)]
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", code, "run", recipe, "--out", str(out), *line], env=environment, check=True
    )
    return round(time.perf_counter() - start, 1)


@pytest.fixture(scope="session", params=SEEDS)
def pocket(request, tmp_path_factory) -> Grown:
    """The whole default run of a seed; runs beside it share its stages."""
    path = tmp_path_factory.mktemp("accept") / "pocket"
    seconds = grow("pocket", path, f"seed={request.param}")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / GIB
    return Grown(path, int(request.param), seconds, round(peak, 2))


@pytest.fixture(scope="session")
def grow_beside(pocket):
    """Run a recipe with the seed of `pocket`, in a folder beside it: grow_beside(recipe, name, *settings)."""

    def beside(recipe: str, name: str, *settings: str) -> Path:
        out = pocket.path.parent / name
        grow(recipe, out, f"seed={pocket.seed}", *settings)
        return out

    return beside
