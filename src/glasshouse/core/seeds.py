"""One seed in the recipe, any number of independent random streams by name.

Python's `hash` differs between processes and streams drawn one after the other depend on each other;
a stream derived by name stays the same whatever else is added beside it.
"""

from __future__ import annotations

import hashlib
import random

import numpy as np


def derive(seed: int, *names: str | int) -> int:
    """A 63-bit seed for the stream called `names`, from SHA-256."""
    text = "/".join([str(seed), *(str(name) for name in names)])
    return int.from_bytes(hashlib.sha256(text.encode("utf-8")).digest()[:8], "big") >> 1


def python_rng(seed: int, *names: str | int) -> random.Random:
    return random.Random(derive(seed, *names))


def numpy_rng(seed: int, *names: str | int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(derive(seed, *names)))
