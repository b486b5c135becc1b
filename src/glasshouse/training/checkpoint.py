"""Checkpoints that a kill at any moment cannot harm: each is a new folder that appears by one rename.

    state/step-00000120/tensors.safetensors   weights ("model."), optimizer state ("optimizer.")
    state/step-00000120/progress.json         step, token count, seconds, sums since the last log row

The older folder is deleted only after the newer one stands. There is no random state to keep: batches
and everything random are functions of (seed, step).
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from glasshouse.core.errors import DataError, StorageError
from glasshouse.core.storage import directory, disk_errors, read_json, write_json

_TENSORS, _PROGRESS = "tensors.safetensors", "progress.json"


@dataclass(frozen=True)
class Checkpoint:
    step: int  # steps done
    tensors: dict[str, Tensor]
    progress: dict[str, Any]


class CheckpointFolder:
    """The checkpoints under `state`; only the newest is kept."""

    def __init__(self, state: Path) -> None:
        self.state = state

    def newest(self) -> int | None:
        """The step of the newest checkpoint, or None."""
        steps = [int(path.name.removeprefix("step-")) for path in self._folders()]
        return max(steps, default=None)

    def _folders(self) -> list[Path]:
        return sorted(self.state.glob("step-[0-9]*"))

    def _folder(self, step: int) -> Path:
        return self.state / f"step-{step:08d}"

    def save(self, step: int, tensors: dict[str, Tensor], progress: dict[str, Any]) -> None:
        """Write a checkpoint, then delete older ones. Raises StorageError; the older one then stays valid."""
        older = [path for path in self._folders() if path != self._folder(step)]
        with directory(self._folder(step)) as folder:
            with safetensors_errors(folder / _TENSORS):
                whole = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
                save_file(whole, folder / _TENSORS)
            write_json(folder / _PROGRESS, progress)
        for path in older:
            shutil.rmtree(path, ignore_errors=True)

    def load(self) -> Checkpoint | None:
        """The newest checkpoint, or None; raises DataError when it was damaged from outside."""
        step = self.newest()
        if step is None:
            return None
        folder = self._folder(step)
        try:
            tensors = load_file(folder / _TENSORS)
        except (OSError, SafetensorError) as error:
            raise DataError(
                f"the checkpoint is damaged: {error}",
                where=folder,
                fix="delete the run's folder and start again",
            ) from None
        return Checkpoint(step, tensors, read_json(folder / _PROGRESS))

    def sweep(self) -> None:
        """Remove what killed processes left behind."""
        for leftover in self.state.glob(".*.tmp"):
            if leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)

    def clear(self) -> None:
        """Remove every checkpoint (the work is finished)."""
        for path in self._folders():
            shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def safetensors_errors(path: Path) -> Iterator[None]:
    """safetensors reports a full disk in a class of its own; make it the operating system's error again."""
    with disk_errors(path):
        try:
            yield
        except SafetensorError as error:
            text = str(error)
            for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                if f"(os error {code})" in text:
                    raise OSError(code, os.strerror(code), str(path)) from error
            raise StorageError(f"cannot write: {text}", where=path) from error
