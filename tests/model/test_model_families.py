"""Every family without a peer: folders round-trip, caches agree, parameters are counted."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from glasshouse.core.errors import ModelError
from glasshouse.inference.runner import Piece
from glasshouse.inference.torch_runner import TorchRunner
from glasshouse.model import ModelConfig, Transformer, initialise, load, save
from glasshouse.model.families import FAMILIES
from glasshouse.model.layout import layout

SMALL = {
    "vocab_size": 50,
    "hidden_size": 24,
    "intermediate_size": 20,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
SHAPES: dict[str, dict[str, object]] = {
    "gpt2": {"model_type": "gpt2", "head_dim": 6, "tie_word_embeddings": True},
    "gpt2, sinusoidal": {"model_type": "gpt2", "head_dim": 6, "positions": "sinusoidal"},
    "gpt2, no positions": {"model_type": "gpt2", "head_dim": 6, "positions": "none"},
    "llama": {"model_type": "llama", "head_dim": 6, "mlp_bias": True, "attention_bias": True},
    "mistral": {"model_type": "mistral", "head_dim": 6, "sliding_window": 5},
    "qwen2": {"model_type": "qwen2", "head_dim": 6, "sliding_window": 5, "max_window_layers": 2},
    "qwen3": {"model_type": "qwen3", "head_dim": 8},
    "mixtral": {"model_type": "mixtral", "head_dim": 6, "num_experts": 3},
    "qwen3_moe": {
        "model_type": "qwen3_moe",
        "head_dim": 8,
        "num_experts": 4,
        "moe_intermediate_size": 10,
        "mlp_only_layers": (1,),
        "sliding_window": 4,
    },
}


def random_model(name: str) -> Transformer:
    model = initialise(ModelConfig(**(SMALL | SHAPES[name])), 1)
    generator = torch.Generator().manual_seed(2)
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model


def some_ids(batch: int, seq: int) -> torch.Tensor:
    return torch.randint(0, 50, (batch, seq), generator=torch.Generator().manual_seed(seq))


def test_every_family_is_tried() -> None:
    """The table below misses none."""
    assert {shape["model_type"] for shape in SHAPES.values()} == set(FAMILIES)


@pytest.mark.parametrize("name", SHAPES)
def test_folders_round_trip(name: str, tmp_path: Path) -> None:
    """Config and weights come back bit for bit, and the file holds what `layout` says and nothing else."""
    model = random_model(name)
    save(model, None, tmp_path / "a")
    again = load(tmp_path / "a")
    assert again.config == model.config
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in model.state_dict().items())
    names = [stored.name for stored in layout(model.config)]
    assert sorted(names) == sorted(load_file(tmp_path / "a" / "model.safetensors"))
    with torch.no_grad():
        assert torch.equal(model(some_ids(2, 20)), again(some_ids(2, 20)))


@pytest.mark.parametrize("name", SHAPES)
def test_parameters_are_counted(name: str) -> None:
    """The closed form equals the sum over tensors."""
    model = random_model(name)
    assert model.num_parameters() == model.config.num_parameters()


@pytest.mark.parametrize("name", SHAPES)
def test_reading_in_pieces_through_the_cache(name: str) -> None:
    """Chunks, single tokens and rows of different lengths see what reading at once sees, past any window."""
    model = random_model(name)
    ids = some_ids(2, 30)
    runner = TorchRunner(model)
    runner.allocate(8)
    tables = ([5, 2], [0, 7])  # pages of 16 positions
    whole = model.hidden(ids).detach()
    cuts = (((0, 9), (0, 7)), ((9, 10), (7, 8)), ((10, 11), (8, 25)), ((11, 30), (25, 30)))
    for both in cuts:
        pieces = [Piece(ids[row, a:b].tolist(), a, tables[row], b - a) for row, (a, b) in enumerate(both)]
        expected = torch.cat([whole[row, a:b] for row, (a, b) in enumerate(both)])
        assert torch.allclose(runner.hidden(pieces), expected, atol=1e-4)


@pytest.mark.parametrize("name", SHAPES)
def test_documents_in_a_row_do_not_see_each_other(name: str) -> None:
    """With and without gradients, a document in a packed row computes what it computes alone."""
    model = random_model(name)
    ids, lengths = some_ids(1, 31), (9, 1, 14, 7)
    segments = torch.repeat_interleave(torch.arange(4), torch.tensor(lengths))[None]
    positions = torch.cat([torch.arange(n) for n in lengths])[None]
    with torch.no_grad():
        alone = torch.cat([model(piece) for piece in ids.split(lengths, 1)], 1)
        assert torch.allclose(model(ids, positions=positions, segments=segments), alone, atol=1e-4)
    assert torch.allclose(model(ids, positions=positions, segments=segments), alone, atol=1e-4)


def test_weights_in_several_files(tmp_path: Path) -> None:
    """An index and its files load as one file does; a missing one is named, and none lies outside."""
    model = random_model("llama")
    save(model, None, tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    names = sorted(tensors)
    parts = {"a.safetensors": names[:7], "b.safetensors": names[7:]}
    for file, members in parts.items():
        save_file({name: tensors[name] for name in members}, tmp_path / file)
    index = {"weight_map": {name: file for file, members in parts.items() for name in members}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    again = load(tmp_path)
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in model.state_dict().items())
    (tmp_path / "b.safetensors").rename(tmp_path.parent / "b.safetensors")
    with pytest.raises(ModelError, match=r"missing \(.*b\.safetensors"):
        load(tmp_path)
    index["weight_map"][names[-1]] = "../b.safetensors"
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match="missing"):
        load(tmp_path)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damaged_folders_of_any_family(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Any setting replaced by any JSON value, any byte of a file by another: a model, or a ModelError."""
    folder = tmp_path_factory.mktemp("fuzz") / "model"
    save(random_model(data.draw(st.sampled_from(sorted(SHAPES)))), None, folder)
    if data.draw(st.booleans()):
        config = json.loads((folder / "config.json").read_text())
        keys = [*config, "rope_scaling", "layer_types", "sliding_window", "n_inner", "quantization_config"]
        scalars = st.none() | st.booleans() | st.integers(-3, 70) | st.floats(-1, 9) | st.text(max_size=5)
        values = (
            scalars
            | st.lists(scalars, max_size=3)
            | st.dictionaries(st.text(max_size=5), scalars, max_size=2)
        )
        config[data.draw(st.sampled_from(keys))] = data.draw(values)
        (folder / "config.json").write_text(json.dumps(config))
    else:
        path = folder / data.draw(st.sampled_from(["model.safetensors", "config.json"]))
        raw = bytearray(path.read_bytes())
        raw[data.draw(st.integers(0, min(len(raw), 4000) - 1))] = data.draw(st.integers(0, 255))
        path.write_bytes(raw)
    with contextlib.suppress(ModelError):
        load(folder)


def test_old_gpt2_folders(tmp_path: Path) -> None:
    """The first GPT-2 folders lack `transformer.` and hold each layer's causal mask besides."""
    model = random_model("gpt2")
    save(model, None, tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    old = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    old["h.0.attn.bias"] = torch.ones(1, 1, 4, 4)
    save_file(old, tmp_path / "model.safetensors")
    again = load(tmp_path)
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in model.state_dict().items())


def test_positions_that_are_not_what_the_config_says(tmp_path: Path) -> None:
    """A folder that calls learned positions sinusoidal is refused, not computed differently."""
    save(random_model("gpt2"), None, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text()) | {"positions": "sinusoidal"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="sinusoidal"):
        load(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"model_type": "llama", "positions": "none"},
        {"model_type": "gpt2", "positions": "rope"},
        {"model_type": "llama", "sliding_window": 8},
        {"model_type": "mistral", "sliding_window": 8, "max_window_layers": 1},
        {"model_type": "qwen2", "attention_bias": True},
        {"model_type": "qwen3", "mlp_bias": True},
        {"model_type": "gpt2", "head_dim": 5},
        {"model_type": "gpt2", "head_dim": 6, "num_key_value_heads": 2},
    ],
)
def test_what_no_folder_of_the_family_could_say_is_refused(changes: dict[str, object]) -> None:
    """An option without a twin in transformers fails when it is asked for, not when it is saved."""
    with pytest.raises(ValidationError):
        ModelConfig(**(SMALL | {"head_dim": 6} | changes))
