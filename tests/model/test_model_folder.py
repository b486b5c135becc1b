"""Hugging Face folders: exact round trips, and one clear error for every way to be broken."""

from __future__ import annotations

import contextlib
import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from glasshouse.core.errors import ModelError
from glasshouse.model import ModelConfig, initialise, load, read_config, save

SMALL = ModelConfig(
    vocab_size=40,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    head_dim=8,
    max_position_embeddings=32,
    tie_word_embeddings=True,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save(initialise(SMALL, 1), None, tmp_path / "model")
    return tmp_path / "model"


def edit_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in config.items() if value != "(remove)"}))


def edit_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tied", [True, False])
def test_round_trip_is_exact(tmp_path: Path, tied: bool, dtype: torch.dtype) -> None:
    """What is loaded is what was saved, bit for bit, and saving it again writes the same bytes."""
    model = initialise(SMALL.model_copy(update={"tie_word_embeddings": tied}), 1).to(dtype)
    save(model, None, tmp_path / "a")
    again = load(tmp_path / "a", dtype=dtype)
    assert again.config == model.config
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
    save(again, None, tmp_path / "b")
    for name in ("config.json", "model.safetensors", "generation_config.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_tied_head_is_not_stored(folder: Path) -> None:
    """A tied head has no tensor of its own; the metadata says format=pt."""
    raw = (folder / "model.safetensors").read_bytes()
    header = json.loads(raw[8 : 8 + struct.unpack("<Q", raw[:8])[0]])
    assert header["__metadata__"] == {"format": "pt"}
    assert "lm_head.weight" not in header


def test_weights_are_aligned_copies(folder: Path) -> None:
    """Every weight starts at a multiple of 64 bytes and does not point into the file."""
    model = load(folder)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert all(parameter.data_ptr() % 64 == 0 for parameter in model.parameters())
    size = (folder / "model.safetensors").stat().st_size
    with open(folder / "model.safetensors", "r+b") as file:
        file.seek(size // 2)
        file.write(b"\0" * (size - size // 2))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_older_folders_name_rope_theta_alone(folder: Path) -> None:
    """`rope_theta` at the top, as before transformers 5, and `rope_parameters` both count."""
    edit_config(folder, rope_parameters="(remove)", rope_theta=555.0)
    assert read_config(folder).rope_theta == 555.0
    edit_config(folder, rope_parameters={"rope_type": "default", "rope_theta": 777.0}, rope_theta="(remove)")
    assert read_config(folder).rope_theta == 777.0


def test_a_stored_copy_of_the_tied_head_is_allowed(folder: Path) -> None:
    """Some folders store the tied head once more; it is not a second set of weights."""
    edit_weights(folder, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"].clone()}))
    load(folder)


WEIGHT = "model.layers.1.mlp.up_proj.weight"

BROKEN: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "no config": (lambda f: (f / "config.json").unlink(), ["config.json", "Fix:"]),
    "config not JSON": (lambda f: (f / "config.json").write_text("{"), ["config.json", "JSON", "Fix:"]),
    "config a list": (lambda f: (f / "config.json").write_text("[]"), ["config.json", "mapping", "Fix:"]),
    "unknown family": (lambda f: edit_config(f, model_type="mamba"), ["'mamba'", "qwen3", "Fix:"]),
    "no family": (lambda f: edit_config(f, model_type="(remove)"), ["model_type", "qwen3", "Fix:"]),
    "no width": (lambda f: edit_config(f, hidden_size="(remove)"), ["hidden_size", "config.json", "Fix:"]),
    "width a word": (lambda f: edit_config(f, hidden_size="wide"), ["hidden_size", "config.json", "Fix:"]),
    "odd heads": (lambda f: edit_config(f, num_key_value_heads=3), ["num_key_value_heads", "Fix:"]),
    "yarn without its factor": (
        lambda f: edit_config(f, rope_parameters={"rope_type": "yarn", "factor": "four"}),
        ["factor", "config.json", "Fix:"],
    ),
    "longrope": (
        lambda f: edit_config(f, rope_parameters={"rope_type": "longrope", "rope_theta": 1e4}),
        ["longrope", "yarn", "config.json", "Fix:"],
    ),
    "layers sliding in turn": (
        lambda f: edit_config(
            f,
            use_sliding_window=True,
            sliding_window=4,
            layer_types=["sliding_attention", "full_attention"],
        ),
        ["layer_types", "config.json", "Fix:"],
    ),
    "quantized": (lambda f: edit_config(f, quantization_config={"bits": 4}), ["quantization_config", "Fix:"]),
    "other activation": (lambda f: edit_config(f, hidden_act="mish"), ["hidden_act", "config.json", "Fix:"]),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), ["model.safetensors", "missing", "Fix:"]),
    "pickle": (
        lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"),
        ["pytorch_model.bin", "pickle", "safetensors", "Fix:"],
    ),
    "shards": (
        lambda f: (f / "model.safetensors").rename(f / "model.safetensors.index.json"),
        ["index", "Fix:"],
    ),
    "truncated": (
        lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:-100]),
        ["model.safetensors", "whole", "Fix:"],
    ),
    "empty": (lambda f: (f / "model.safetensors").write_bytes(b""), ["model.safetensors", "whole", "Fix:"]),
    "tensor missing": (
        lambda f: edit_weights(f, lambda t: t.pop(WEIGHT)),
        [f"'{WEIGHT}' is missing", "model.safetensors", "Fix:"],
    ),
    "tensor too many": (
        lambda f: edit_weights(
            f, lambda t: t.update({"model.layers.2.mlp.up_proj.weight": t[WEIGHT].clone()})
        ),
        ["model.layers.2.mlp.up_proj.weight", "no place", "Fix:"],
    ),
    "wrong shape": (
        lambda f: edit_weights(f, lambda t: t.update({WEIGHT: torch.zeros(24, 17)})),
        [WEIGHT, "[24, 17]", "[24, 16]", "Fix:"],
    ),
    "integers": (
        lambda f: edit_weights(f, lambda t: t.update({WEIGHT: torch.zeros(24, 16, dtype=torch.int8)})),
        [WEIGHT, "int8", "Fix:"],
    ),
    "other vocabulary": (
        lambda f: edit_config(f, vocab_size=41),
        ["model.embed_tokens.weight", "[40, 16]", "[41, 16]", "Fix:"],
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_folders_say_what_where_and_fix(folder: Path, name: str) -> None:
    """One line naming the file, the tensor or key, and what to do; never a traceback of a library."""
    damage, words = BROKEN[name]
    damage(folder)
    with pytest.raises(ModelError) as caught:
        load(folder)
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_folder(tmp_path: Path) -> None:
    """A path that does not exist is a ModelError too."""
    with pytest.raises(ModelError, match="no such model folder"):
        load(tmp_path / "nowhere")


def test_a_failed_save_leaves_the_old_folder(folder: Path) -> None:
    """If writing fails, the folder that was there is still there, whole, and nothing lies beside it."""

    class BrokenTokenizer:
        eos_id = end_of_turn_id = pad_id = 0

        def save(self, folder: Path) -> None:
            raise RuntimeError("power cut")

    before = (folder / "model.safetensors").read_bytes()
    with pytest.raises(RuntimeError, match="power cut"):
        save(initialise(SMALL, 2), BrokenTokenizer(), folder)
    assert (folder / "model.safetensors").read_bytes() == before
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damaged_bytes_never_crash(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Any byte of header or config.json changed: a model, or a ModelError, and nothing else."""
    folder = tmp_path_factory.mktemp("fuzz") / "model"
    save(initialise(SMALL, 1), None, folder)
    path = folder / data.draw(st.sampled_from(["model.safetensors", "config.json"]))
    raw = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, min(len(raw), 2500) - 1))
    raw[place] = data.draw(st.integers(0, 255))
    path.write_bytes(raw)
    with contextlib.suppress(ModelError):
        load(folder)
