"""Few-bit weights: the error has a bound, products and gradients are those of the unpacked weight."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch

from glasshouse.core.errors import ConfigError, ModelError
from glasshouse.model import ModelConfig, Transformer, initialise, load, save
from glasshouse.model.layers import Linear
from glasshouse.model.lora import LoRAConfig, add_adapter, linear_maps
from glasshouse.model.quantize import (
    GROUP,
    NF4,
    SCHEMES,
    QuantizedLinear,
    dequantize,
    quantization,
    quantize,
    quantize_model,
    size_in_bytes,
)


def weight(rows: int = 7, columns: int = 200, seed: int = 1) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def back(matrix: torch.Tensor, scheme: str) -> torch.Tensor:
    return dequantize(*quantize(matrix, scheme), scheme, matrix.shape[1], torch.float32)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_rounding_is_to_the_nearest_level(scheme: str) -> None:
    """No weight is further from its value than half the widest step around it, and a little for the scale."""
    w = weight()
    for start in range(0, w.shape[1], GROUP):
        group, found = w[:, start : start + GROUP], back(w, scheme)[:, start : start + GROUP]
        largest = group.abs().amax(1, keepdim=True)
        if scheme == "nf4":
            step = max(b - a for a, b in pairwise(NF4)) / 2
        else:
            step = {"int8": 0.5 / 127, "int4": 1 / 8}[scheme]  # int4 lacks +8: up to one whole step there
        assert ((found - group).abs() <= largest * (step + 2**-7)).all()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_what_the_levels_can_say_comes_back_exactly(scheme: str) -> None:
    """Weights that are levels times a scale that bfloat16 holds; zeros; rows that do not fill a group."""
    levels = {"int8": torch.arange(-127.0, 128), "int4": torch.arange(-8.0, 8), "nf4": torch.tensor(NF4)}[
        scheme
    ]
    row = levels.repeat(20)[: 3 * GROUP].clone()
    row[0::GROUP] = levels[0]  # every group holds its largest
    scale = {"int8": 127.0, "int4": 8.0, "nf4": 1.0}[scheme]
    assert torch.equal(back((row / scale)[None] * scale, scheme), (row / scale)[None] * scale)
    assert torch.equal(back(torch.zeros(2, 70), scheme), torch.zeros(2, 70))
    assert back(weight(3, 65), scheme).shape == (3, 65)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_products_and_gradients(scheme: str, bias: bool) -> None:
    """The same as a plain linear map with the unpacked weight; only the input gets a gradient."""
    linear = Linear(100, 24, bias=bias)
    linear.weight.data = weight(24, 100)
    if bias:
        linear.bias.data = weight(1, 24)[0]
    few = QuantizedLinear.of(linear, scheme)
    x = weight(5, 100, seed=2).requires_grad_()
    y = few(x)
    expected = torch.nn.functional.linear(x, few.weight, linear.bias)
    assert torch.allclose(y, expected, atol=1e-5)
    slope = torch.autograd.grad(y.square().sum(), x)[0]
    assert torch.allclose(slope, torch.autograd.grad(expected.square().sum(), x)[0], atol=1e-3)
    assert not any(parameter.requires_grad for parameter in few.parameters())


CONFIG = ModelConfig(
    model_type="llama", vocab_size=50, hidden_size=128, intermediate_size=192, num_hidden_layers=2
)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_whole_models(scheme: str, tmp_path: Path) -> None:
    """Every map in the blocks is replaced, the size falls, and a folder gives the same bits."""
    model = initialise(CONFIG, 1)
    for _, linear in linear_maps(model):
        linear.weight.data = 0.1 * weight(*linear.weight.shape)
    before, ids = size_in_bytes(model), torch.arange(20)[None]
    quantize_model(model, scheme)
    assert all(isinstance(linear, QuantizedLinear) for _, linear in linear_maps(model))
    weights = sum(linear.in_features * linear.out_features for _, linear in linear_maps(model))
    bits = {"int8": 8.25, "int4": 4.25, "nf4": 4.25}[scheme]
    assert size_in_bytes(model) == before - weights * (32 - bits) / 8
    save(model, None, tmp_path / "few")
    again = load(tmp_path / "few")
    with torch.no_grad():
        assert torch.equal(again(ids), model(ids))
    add_adapter(again, LoRAConfig(r=2))
    again.loss(ids, ids).backward()
    assert all(p.grad is not None for p in again.parameters() if p.requires_grad)


MOE = {
    "model_type": "qwen3_moe",
    "vocab_size": 50,
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 96,
}


def sparse(family: str = "qwen3_moe") -> Transformer:
    """A mixture of experts with all weights drawn."""
    changes = {"model_type": family}
    if family == "mixtral":
        changes = {"model_type": family, "intermediate_size": 96}
    model = initialise(ModelConfig.parse(MOE | changes), 1)
    for name, parameter in model.named_parameters():
        if "layers." in name and parameter.ndim > 1:
            flat = weight(parameter.numel() // parameter.shape[-1], parameter.shape[-1], seed=len(name))
            parameter.data = 0.1 * flat.view_as(parameter)
    torch.nn.init.normal_(model.lm_head.weight, generator=torch.Generator().manual_seed(4))
    return model


@pytest.mark.parametrize("scheme", SCHEMES)
def test_experts_compute_with_their_unpacked_matrices(scheme: str) -> None:
    """Outputs, and the input's gradient, are those of full-precision experts that hold the same values."""
    few, plain = sparse(), sparse()
    quantize_model(few, scheme)
    mine, theirs = few.model.layers[1].mlp, plain.model.layers[1].mlp
    for name in ("gate_up_proj", "down_proj"):
        stack = getattr(mine.experts, name)
        matrices = torch.stack([stack.unpacked(e, torch.float32) for e in range(4)])
        assert torch.equal(matrices[2], back(getattr(theirs.experts, name)[2].detach(), scheme))
        getattr(theirs.experts, name).data = matrices
    x = weight(60, 128, seed=5).view(2, 30, 128).requires_grad_()
    assert torch.allclose(mine(x), theirs(x), atol=1e-5)
    mine_slope, slope = (torch.autograd.grad(mlp(x).sin().sum(), x)[0] for mlp in (mine, theirs))
    assert torch.allclose(mine_slope, slope, atol=1e-4)


@pytest.mark.parametrize("family", ["qwen3_moe", "mixtral"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_whole_mixtures(scheme: str, family: str, tmp_path: Path) -> None:
    """Experts shrink as linear maps do, routers stay; a folder gives the same bits and takes adapters."""
    model = sparse(family)
    before, ids = size_in_bytes(model), torch.arange(20)[None]
    maps = sum(linear.in_features * linear.out_features for _, linear in linear_maps(model))
    experts = 2 * 4 * (2 * 96 * 128)  # gate and up: whole groups
    down = 2 * 4 * 128  # rows of 96: a group and a half, padded to two
    quantize_model(model, scheme)
    bits = {"int8": 8, "int4": 4, "nf4": 4}[scheme]
    kept = maps * (bits + 0.25) / 8 + experts * (bits + 0.25) / 8 + down * (128 * bits / 8 + 2 * 2)
    assert size_in_bytes(model) == before - 4 * (maps + experts + down * 96) + kept
    assert model.model.layers[0].mlp.gate.weight.dtype == torch.float32
    save(model, None, tmp_path / "few")
    again = load(tmp_path / "few")
    assert quantization(again) == scheme
    with torch.no_grad():
        assert torch.equal(again(ids), model(ids))
    add_adapter(again, LoRAConfig(r=2))
    again.loss(ids, ids).backward()
    assert all(p.grad is not None for p in again.parameters() if p.requires_grad)


def test_unknown_schemes_and_folders(tmp_path: Path) -> None:
    """A scheme that does not exist, and a folder quantized by somebody else."""
    with pytest.raises(ConfigError, match="int8, int4, nf4"):
        quantize_model(initialise(CONFIG, 1), "int3")  # type: ignore[arg-type]
    model = initialise(CONFIG, 1)
    quantize_model(model, "int8")
    save(model, None, tmp_path / "few")
    path = tmp_path / "few/config.json"
    path.write_text(path.read_text().replace('"glasshouse"', '"gptq"'))
    with pytest.raises(ModelError, match="gptq"):
        load(tmp_path / "few")
