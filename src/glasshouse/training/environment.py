"""What the numbers of a run depend on beside its settings: device, dtype, threads, compiler, versions.

Settled at the first start, written to state/environment.json, and used again at every later start:
another thread count or dtype would sum in another order, and a resumed run would drift.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from glasshouse.core.devices import choose_dtype, machine, pick
from glasshouse.core.errors import DataError
from glasshouse.core.memory import keep_freed_memory
from glasshouse.core.progress import say
from glasshouse.core.storage import read_json, write_json
from glasshouse.model import kernels
from glasshouse.training.config import TrainingConfig

STATE = Path("state") / "environment.json"
"""Its place in the folder of a training."""


@dataclass(frozen=True)
class Environment:
    device: str
    dtype: str  # of matrix products
    dtype_reason: str
    threads: int
    native_kernels: bool  # compiled C between the matrix products (CPU)
    compile: bool | None  # torch.compile; None: not decided yet
    compile_reason: str
    machine: dict[str, Any]

    @property
    def torch_dtype(self) -> torch.dtype:
        return getattr(torch, self.dtype)

    def decided(self, out: Path, compiled: bool, reason: str) -> Environment:
        """The same with the choice about torch.compile, frozen in `out`."""
        environment = replace(self, compile=compiled, compile_reason=reason)
        write_json(out / STATE, asdict(environment))
        return environment


def settle(out: Path, config: TrainingConfig) -> Environment:
    """The environment frozen in the training folder `out`, or one chosen for this machine by measurement,
    which is frozen there."""
    path = out / STATE
    here = machine()
    if path.exists():
        try:
            frozen = Environment(**read_json(path))
        except TypeError:
            raise DataError(
                "this run was begun by another version of Glasshouse",
                where=path,
                fix="delete its folder and start again",
            ) from None
        pick(frozen.device)  # raises where it is gone
        for setting, began in (("device", frozen.device), ("dtype", frozen.dtype)):
            if getattr(config, setting) not in ("auto", began):
                say(f"notice: this run goes on with {setting} {began}, as it began")
        changed = [k for k in ("processor", "torch", "glasshouse") if frozen.machine.get(k) != here[k]]
        if frozen.native_kernels != _native_kernels(frozen.device, frozen.torch_dtype):
            changed.append("the native kernels")
        if changed:
            names = ", ".join(changed)
            say(f"notice: changed since this run began: {names}. It goes on, but not bit for bit")
        return frozen
    device = pick(config.device)
    if config.dtype == "auto":
        dtype, dtype_reason = choose_dtype(device)
    else:
        dtype, dtype_reason = config.dtype, "set by the user"
    chosen = Environment(
        device=device,
        dtype=dtype,
        dtype_reason=dtype_reason,
        threads=torch.get_num_threads(),
        native_kernels=_native_kernels(device, getattr(torch, dtype)),
        compile=None,
        compile_reason="",
        machine=here,
    )
    write_json(path, asdict(chosen))
    return chosen


def _native_kernels(device: str, dtype: torch.dtype) -> bool:
    return kernels.ready(torch.empty(0, dtype=dtype, device=device), 1)


@contextmanager
def applied(environment: Environment) -> Iterator[None]:
    """Run the block under the environment's global settings, then put the old ones back.

    Filling fresh memory with NaN, which deterministic mode turns on, only costs time here.
    """
    threads = torch.get_num_threads()
    mode = torch.get_deterministic_debug_mode()
    memory: Any = torch.utils.deterministic  # its switch is made at import, unseen by type checkers
    fill = memory.fill_uninitialized_memory
    keep_freed_memory()
    torch.set_num_threads(environment.threads)
    # The same switch as use_deterministic_algorithms, which would load the compiler (a second) to tell
    # it too; `compile_blocks` does that where there is one.
    torch.set_deterministic_debug_mode("error")
    memory.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_deterministic_debug_mode(mode)
        memory.fill_uninitialized_memory = fill
