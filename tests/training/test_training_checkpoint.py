"""Checkpoints: whole or absent, only the newest kept, a full disk harms nothing."""

import os
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from glasshouse.core.errors import DataError, StorageError
from glasshouse.training.checkpoint import CheckpointFolder, safetensors_errors

TENSORS = {"model.w": torch.arange(6.0).view(2, 3), "optimizer.m": torch.ones(2, dtype=torch.bfloat16)}


def test_what_is_saved_is_loaded(tmp_path):
    """Tensors bit for bit, in their own types, and the progress as it was, floats exact."""
    folder = CheckpointFolder(tmp_path)
    assert folder.load() is None
    folder.save(3, TENSORS, {"loss_sum": 0.1 + 0.2})
    loaded = folder.load()
    assert loaded is not None
    assert loaded.step == 3
    assert loaded.progress == {"loss_sum": 0.1 + 0.2}
    for name, tensor in TENSORS.items():
        assert loaded.tensors[name].dtype == tensor.dtype
        assert torch.equal(loaded.tensors[name], tensor)


def test_only_the_newest_is_kept(tmp_path):
    """An older one goes when the newer stands."""
    folder = CheckpointFolder(tmp_path)
    for step in (3, 10, 200):
        folder.save(step, TENSORS, {})
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000200"]
    assert folder.newest() == 200


def test_the_newest_of_two_is_taken(tmp_path):
    """A kill between writing the new and deleting the old leaves both."""
    folder = CheckpointFolder(tmp_path)
    folder.save(9, TENSORS, {})
    os.rename(tmp_path / "step-00000009", tmp_path / "aside")
    folder.save(10, TENSORS, {})
    os.rename(tmp_path / "aside", tmp_path / "step-00000009")
    loaded = folder.load()
    assert loaded is not None
    assert loaded.step == 10
    folder.save(11, TENSORS, {})
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000011"]


def test_leftovers_of_killed_processes_are_swept(tmp_path):
    """Half-written folders and files are never read, and go at the next start."""
    folder = CheckpointFolder(tmp_path)
    folder.save(1, TENSORS, {})
    (tmp_path / ".step-00000002.abc.tmp").mkdir()
    (tmp_path / ".step-00000002.abc.tmp" / "tensors.safetensors").write_bytes(b"half")
    (tmp_path / ".environment.json.77.tmp").write_text("{")
    folder.sweep()
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


class FullDisk:
    """While full, no file of this process may grow past 4 KiB: a write fails as on a full disk.

    It must be free again before the test ends: pytest itself may be writing to a file.
    """

    def __init__(self):
        self.resource = pytest.importorskip("resource", reason="limits of file size are POSIX")
        self.before = self.resource.getrlimit(self.resource.RLIMIT_FSIZE)

    def fill(self):
        self.resource.setrlimit(self.resource.RLIMIT_FSIZE, (4096, self.before[1]))

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.resource.setrlimit(self.resource.RLIMIT_FSIZE, self.before)


def test_a_write_that_fails_is_a_storage_error_and_keeps_the_last_checkpoint(tmp_path):
    """Nothing half-written remains, and the checkpoint before loads as ever."""
    folder = CheckpointFolder(tmp_path)
    folder.save(1, TENSORS, {})
    with FullDisk() as disk:
        disk.fill()
        with pytest.raises(StorageError, match="cannot write: File too large"):
            folder.save(2, {"model.w": torch.zeros(10_000)}, {})
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    loaded = folder.load()
    assert loaded is not None
    assert loaded.step == 1


def test_training_on_a_full_disk_stops_and_continues_later(tiny):
    """The run ends in one clear line; with room again the same call goes on from the last checkpoint."""
    objective = tiny.objective()
    with FullDisk() as disk:

        class FillsTheDisk(type(objective)):
            def batch(self, step):
                if step == 5:
                    disk.fill()
                return super().batch(step)

        with pytest.raises(StorageError, match=r"free some space|larger files"):
            tiny.train(objective=FillsTheDisk(objective.batches), checkpoint_every_seconds=0)
    assert CheckpointFolder(tiny.folder / "out" / "state").newest() == 5


@pytest.mark.parametrize(
    ("text", "fix"),
    [
        ("Error while serializing: I/O error: No space left on device (os error 28)", "free some space"),
        ("Error while serializing: I/O error: Disk quota exceeded (os error 122)", "raise the quota"),
    ],
)
def test_safetensors_own_error_is_understood(text, fix):
    """The library tells the system's error number in its text only."""
    with pytest.raises(StorageError, match=fix), safetensors_errors(Path("x")):
        raise SafetensorError(text)


def test_a_damaged_checkpoint_is_named(tmp_path):
    """Damage from outside is not continued from."""
    folder = CheckpointFolder(tmp_path)
    folder.save(1, TENSORS, {})
    path = tmp_path / "step-00000001" / "tensors.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(DataError, match="step-00000001"):
        folder.load()
