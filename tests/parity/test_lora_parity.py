"""Adapters against PEFT: the same logits from the same folder, both ways, for every family."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from glasshouse.model import Transformer, load, save
from glasshouse.model.lora import LoRAConfig, add_adapter, merge_adapter, places
from glasshouse.model.peft_folder import load_adapter, save_adapter

pytestmark = pytest.mark.parity

os.environ.setdefault("HF_HUB_OFFLINE", "1")
transformers = pytest.importorskip("transformers", reason="the peer is not installed")
peft = pytest.importorskip("peft", reason="the peer is not installed")

Family = dict[str, Any]
Make = Callable[..., Transformer]

TARGETS = {
    "gpt2": ["c_attn", "c_fc"],
    "mixtral": ["q_proj", "o_proj"],
    "qwen3_moe": ["k_proj", "v_proj"],
}


def shake(model: Transformer) -> None:
    """Give every adapter weights of some size."""
    generator = torch.Generator().manual_seed(3)
    for place in places(model):
        for adapter in (place.adapters or {}).values():
            adapter.b.data = 0.3 * torch.randn(adapter.b.shape, generator=generator)


def some_ids() -> torch.Tensor:
    return torch.randint(0, 320, (2, 23), generator=torch.Generator().manual_seed(4))


def opens_in_peft(model: Transformer, config: LoRAConfig, folder: Path) -> None:
    """An adapter made here gives PEFT the same logits, and us again from its folder, hung on or merged."""
    save(model, None, folder / "base")
    add_adapter(model, config)
    shake(model)
    save_adapter(model, config, folder / "adapter")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder / "base")
    theirs = peft.PeftModel.from_pretrained(theirs, folder / "adapter").eval()
    with torch.no_grad():
        expected = model(some_ids())
        assert (expected - load(folder / "base")(some_ids())).abs().max() > 0.1
        assert torch.allclose(theirs(some_ids()).logits, expected, atol=1e-4, rtol=0)
    again = load(folder / "base")
    load_adapter(again, folder / "adapter")
    with torch.no_grad():
        assert torch.allclose(again(some_ids()), expected, atol=1e-5, rtol=0)
        merge_adapter(again, "default")
        assert torch.allclose(again(some_ids()), expected, atol=1e-5, rtol=0)


def opens_here(base: Transformer, config: dict[str, Any], folder: Path) -> None:
    """An adapter made by PEFT gives the same logits here."""
    save(base, None, folder / "base")
    torch.manual_seed(5)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder / "base")
    made = peft.LoraConfig(**config, init_lora_weights=False, task_type="CAUSAL_LM")
    theirs = peft.get_peft_model(theirs, made)
    theirs.save_pretrained(folder / "adapter")
    ours = load(folder / "base")
    with torch.no_grad():
        plain = ours(some_ids())
        load_adapter(ours, folder / "adapter")
        assert torch.allclose(ours(some_ids()), theirs.eval()(some_ids()).logits, atol=1e-4, rtol=0)
        assert not torch.allclose(ours(some_ids()), plain, atol=1e-2)


@pytest.mark.parametrize(
    "targets",
    ["all-linear", ("q_proj", "up_proj"), ("o_proj", "lm_head"), r".*layers\.1\.self_attn\.(q|v)_proj"],
)
def test_ours_opens_in_peft(
    family: Family, targets: str | tuple[str, ...], tmp_path: Path, random_model: Make
) -> None:
    """Of every family; GPT-2's fused map becomes one of three blocks, and the head is a map like others."""
    model = random_model(**family | {"tie_word_embeddings": False})
    opens_in_peft(model, LoRAConfig(r=4, alpha=6, targets=targets), tmp_path)


@pytest.mark.parametrize(
    ("targets", "parameters"),
    [
        ((), ("experts.gate_up_proj", "experts.down_proj")),
        ((), ("gate_up_proj",)),
        (("q_proj",), ("experts.down_proj", "gate.weight")),
        ("all-linear", ("gate_up_proj", "down_proj", "gate.weight")),
        ((), ("layers.0.mlp.experts.down_proj", "layers.1.mlp.experts.gate_up_proj")),
    ],
)
def test_our_experts_open_in_peft(
    sparse_family: Family,
    targets: str | tuple[str, ...],
    parameters: tuple[str, ...],
    tmp_path: Path,
    random_model: Make,
) -> None:
    """Both stacks of experts, one of them, with routers, with linear maps, and one in each layer."""
    config = LoRAConfig(r=4, alpha=6, targets=targets, target_parameters=parameters)
    opens_in_peft(random_model(**sparse_family), config, tmp_path)


@pytest.mark.parametrize("targets", ["all-linear", ("q_proj", "up_proj")])
def test_dense_layers_among_sparse_ones_open_in_peft(
    targets: str | tuple[str, ...], tmp_path: Path, random_model: Make
) -> None:
    """PEFT takes the module names of their maps for those of experts, but not the parameters' names."""
    shape = {
        "model_type": "qwen3_moe",
        "num_experts": 3,
        "moe_intermediate_size": 32,
        "mlp_only_layers": (0,),
    }
    config = LoRAConfig(r=4, targets=targets, dropout=0.1)
    opens_in_peft(random_model(**shape).eval(), config, tmp_path)


def test_theirs_opens_here(family: Family, tmp_path: Path, random_model: Make) -> None:
    """With ranks and alphas of its own for some maps."""
    name = family["model_type"]
    targets = TARGETS.get(name, ["q_proj", "k_proj", "o_proj", "gate_proj", "down_proj"])
    patterns = {"rank_pattern": {targets[0]: 5}, "alpha_pattern": {targets[1]: 2}}
    config = {"r": 3, "lora_alpha": 7, "target_modules": targets, "fan_in_fan_out": name == "gpt2"}
    opens_here(random_model(**family), config | patterns, tmp_path)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_their_head_opens_here(name: str, tmp_path: Path, random_model: Make) -> None:
    """PEFT keeps the frozen head beside its adapter."""
    config = {"r": 3, "target_modules": ["lm_head", TARGETS.get(name, ["q_proj"])[0]]}
    opens_here(random_model(model_type=name), config | {"fan_in_fan_out": name == "gpt2"}, tmp_path)


@pytest.mark.parametrize(
    "config",
    [
        {"target_modules": "all-linear"},
        {"target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]},
        {"target_parameters": ["gate_up_proj"], "target_modules": ["v_proj"]},
        {"target_parameters": ["experts.down_proj", "gate.weight"]},
        {
            "target_parameters": ["experts.down_proj", "experts.gate_up_proj"],
            "rank_pattern": {"experts.down_proj": 6},
            "alpha_pattern": {r".*\.gate_up_proj": 3},
        },
    ],
    ids=["all-linear", "both", "one", "router", "patterns"],
)
def test_their_experts_open_here(
    sparse_family: Family, config: dict[str, Any], tmp_path: Path, random_model: Make
) -> None:
    """Stacked experts in all shapes; PEFT's own 'all-linear' adds experts and routers to the linear maps."""
    opens_here(random_model(**sparse_family), {"r": 3, "lora_alpha": 7} | config, tmp_path)


OLD_NAMES = {
    "mixtral": ("block_sparse_moe", {"w1": "up", "w3": "up", "w2": "down"}),
    "qwen3_moe": ("mlp", {"gate_proj": "up", "up_proj": "up", "down_proj": "down"}),
}
"""Where experts lay in transformers 4, and which way each of their linear modules goes."""


def test_adapters_of_experts_before_they_were_stacked(
    sparse_family: Family, tmp_path: Path, random_model: Make
) -> None:
    """Every expert with linear modules of its own, as PEFT wrote them over transformers 4, and the router."""
    model = random_model(**sparse_family)
    save(model, None, tmp_path / "base")
    folder, modules = OLD_NAMES[model.config.model_type]
    width, generator = model.config.moe_intermediate_size, torch.Generator().manual_seed(6)
    sizes = {"gate": (64, 3)}
    for expert in range(3):
        for module, way in modules.items():
            sizes[f"experts.{expert}.{module}"] = (64, width) if way == "up" else (width, 64)
    tensors = {}
    for layer in range(2):
        for module, (inputs, outputs) in sizes.items():
            stem = f"base_model.model.model.layers.{layer}.{folder}.{module}"
            tensors[f"{stem}.lora_A.weight"] = 0.2 * torch.randn(4, inputs, generator=generator)
            tensors[f"{stem}.lora_B.weight"] = 0.2 * torch.randn(outputs, 4, generator=generator)
    (tmp_path / "adapter").mkdir()
    save_file(tensors, tmp_path / "adapter/adapter_model.safetensors", metadata={"format": "pt"})
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 6}
    config["target_modules"] = ["gate", *modules]
    (tmp_path / "adapter/adapter_config.json").write_text(json.dumps(config))
    load_adapter(model, tmp_path / "adapter")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    theirs = peft.PeftModel.from_pretrained(theirs, tmp_path / "adapter").eval()
    with torch.no_grad():
        plain, expected = load(tmp_path / "base")(some_ids()), model(some_ids())
        assert torch.allclose(theirs(some_ids()).logits, expected, atol=1e-4, rtol=0)
        assert (expected - plain).abs().max() > 0.1
    save_adapter(model, LoRAConfig(r=4, alpha=6), tmp_path / "new")
    again = load(tmp_path / "base")
    load_adapter(again, tmp_path / "new")
    with torch.no_grad():
        assert torch.allclose(again(some_ids()), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "parts",
    [
        {},
        {"targets": ("v_proj", "lm_head")},
        {"target_parameters": ("gate_up_proj", "down_proj", "gate.weight"), "targets": ("v_proj",)},
    ],
    ids=["linear maps", "head", "experts"],
)
def test_a_step_of_training_is_the_same(
    sparse_family: Family, parts: dict[str, Any], tmp_path: Path, random_model: Make
) -> None:
    """From the same adapter, the gradients by A and B are those of PEFT; the base gets none."""
    model, config = random_model(**sparse_family), LoRAConfig(r=4, alpha=8, **parts)
    save(model, None, tmp_path / "base")
    # transformers adds the routers' loss only when asked for their logits
    model.config = model.config.model_copy(update={"router_aux_loss_coef": 0.0})
    add_adapter(model, config)
    shake(model)
    save_adapter(model, config, tmp_path / "adapter")
    ids = some_ids()
    targets = torch.cat([ids[:, 1:], torch.full((2, 1), -100)], 1)
    (model.loss(ids, targets) / (2 * 22)).backward()
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    theirs = peft.PeftModel.from_pretrained(theirs, tmp_path / "adapter", is_trainable=True)
    theirs(ids, labels=ids).loss.backward()
    gradients = {n: p.grad for n, p in theirs.named_parameters() if p.grad is not None}
    for place in places(model):
        if (adapter := place.adapter("default")) is None:
            continue
        assert place.weight.grad is None
        stem = place.name if place.kind != "experts" else place.name.rsplit(".", 1)[0]
        stem += ".base_layer" * place.name.endswith("gate_up_proj")
        for part, letter in (("a", "A"), ("b", "B")):
            found = getattr(adapter, part).grad
            if place.kind == "experts":
                found = found.flatten(0, 1) if part == "a" else found.permute(1, 2, 0).flatten(1)
            expected = gradients.pop(f"base_model.model.{stem}.lora_{letter}.default.weight")
            assert torch.allclose(found, expected, atol=1e-4, rtol=0)
    assert gradients == {}


def test_the_config_is_one_that_peft_would_write(tmp_path: Path, random_model: Make) -> None:
    """Every key of ours is a key of peft.LoraConfig."""
    model, config = random_model(model_type="llama"), LoRAConfig()
    add_adapter(model, config)
    save_adapter(model, config, tmp_path / "adapter", base="some/model")
    written = json.loads((tmp_path / "adapter/adapter_config.json").read_text())
    assert set(written) <= set(peft.LoraConfig().to_dict())
    assert written["base_model_name_or_path"] == "some/model"
