"""What the numbers of a run depend on beside its settings: device, dtype, threads, compiler, versions.

Settled at the first start, written to state/environment.json, and used again at every later start:
another thread count or dtype would sum in another order, and a resumed run would drift.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from glasshouse.core.devices import choose_dtype, machine, pick
from glasshouse.core.memory import keep_freed_memory
from glasshouse.core.progress import say
from glasshouse.core.storage import read_json, write_json
from glasshouse.training.config import TrainingConfig


@dataclass(frozen=True)
class Environment:
    device: str
    dtype: str  # of matrix products
    dtype_reason: str
    threads: int
    compile: bool
    compile_reason: str
    machine: dict[str, Any]

    @property
    def torch_dtype(self) -> torch.dtype:
        return getattr(torch, self.dtype)


def settle(path: Path, config: TrainingConfig) -> Environment:
    """Read the environment frozen at `path`, or choose one for this machine and freeze it."""
    here = machine()
    if path.exists():
        frozen = Environment(**read_json(path))
        changed = [k for k in ("processor", "torch", "glasshouse") if frozen.machine.get(k) != here[k]]
        if changed:
            say(f"notice: {', '.join(changed)} changed since this run began: it goes on, but not bit for bit")
        return frozen
    device = pick(config.device)
    if config.dtype == "auto":
        dtype, dtype_reason = choose_dtype(device)
    else:
        dtype, dtype_reason = config.dtype, "set by the user"
    environment = Environment(
        device=device,
        dtype=dtype,
        dtype_reason=dtype_reason,
        threads=torch.get_num_threads(),
        compile=False,
        compile_reason="",
        machine=here,
    )
    write_json(path, asdict(environment))
    return environment


@contextmanager
def applied(environment: Environment) -> Iterator[None]:
    """Run the block under the environment's global settings, then put the old ones back.

    Deterministic algorithms: compiled code on several threads gave other weights in every process
    without them. Filling fresh memory with NaN, which that switch turns on, only costs time here.
    """
    threads = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    memory: Any = torch.utils.deterministic  # its switch is made at import, unseen by type checkers
    fill = memory.fill_uninitialized_memory
    keep_freed_memory()
    torch.set_num_threads(environment.threads)
    torch.use_deterministic_algorithms(True)
    memory.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)
        memory.fill_uninitialized_memory = fill
