"""Adapters against PEFT: the same logits from the same folder, both ways, for every family."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from glasshouse.model import ModelConfig, Transformer, initialise, load, save
from glasshouse.model.lora import LoRAConfig, add_adapter, linear_maps, merge_adapter
from glasshouse.model.peft_folder import load_adapter, save_adapter

pytestmark = pytest.mark.parity

os.environ.setdefault("HF_HUB_OFFLINE", "1")
transformers = pytest.importorskip("transformers", reason="the peer is not installed")
peft = pytest.importorskip("peft", reason="the peer is not installed")

SMALL = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
}
FAMILIES = {
    "gpt2": {"model_type": "gpt2"},
    "llama": {"model_type": "llama"},
    "mistral": {"model_type": "mistral"},
    "qwen2": {"model_type": "qwen2"},
    "qwen3": {"model_type": "qwen3"},
    "mixtral": {"model_type": "mixtral", "num_experts": 3},
    "qwen3_moe": {"model_type": "qwen3_moe", "num_experts": 3, "moe_intermediate_size": 16},
}
TARGETS = {
    "gpt2": ["c_attn", "c_fc"],
    "mixtral": ["q_proj", "o_proj"],
    "qwen3_moe": ["k_proj", "v_proj"],
}


def base(name: str, folder: Path) -> Transformer:
    """A random model, saved so that PEFT can open it too."""
    model = initialise(ModelConfig(**(SMALL | FAMILIES[name])), 1)
    generator = torch.Generator().manual_seed(2)
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn(parameter.shape, generator=generator)
    save(model, None, folder)
    return model


def shake(model: Transformer) -> None:
    """Give every adapter weights of some size."""
    generator = torch.Generator().manual_seed(3)
    for _, linear in linear_maps(model):
        for adapter in (linear.adapters or {}).values():
            adapter.b.data = 0.3 * torch.randn(adapter.b.shape, generator=generator)


def some_ids() -> torch.Tensor:
    return torch.randint(0, 61, (2, 23), generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(
    "targets", ["all-linear", ("q_proj", "up_proj"), r".*layers\.1\.self_attn\.(q|v)_proj"]
)
def test_ours_opens_in_peft(name: str, targets: str | tuple[str, ...], tmp_path: Path) -> None:
    """An adapter made here gives PEFT the same logits; GPT-2's fused map becomes one of three blocks."""
    if name in ("mixtral", "qwen3_moe") and targets == ("q_proj", "up_proj"):
        targets = ("q_proj",)
    model = base(name, tmp_path / "base")
    config = LoRAConfig(r=4, alpha=6, targets=targets)
    add_adapter(model, config)
    shake(model)
    save_adapter(model, config, tmp_path / "adapter")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    theirs = peft.PeftModel.from_pretrained(theirs, tmp_path / "adapter").eval()
    with torch.no_grad():
        expected = model(some_ids())
        assert torch.allclose(theirs(some_ids()).logits, expected, atol=1e-4, rtol=0)
    again = load(tmp_path / "base")
    load_adapter(again, tmp_path / "adapter")
    with torch.no_grad():
        assert torch.allclose(again(some_ids()), expected, atol=1e-5, rtol=0)
        merge_adapter(again, "default")
        assert torch.allclose(again(some_ids()), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", FAMILIES)
def test_theirs_opens_here(name: str, tmp_path: Path) -> None:
    """An adapter made by PEFT, with ranks and alphas of its own for some maps, gives the same logits here."""
    base(name, tmp_path / "base")
    torch.manual_seed(5)
    targets = TARGETS.get(name, ["q_proj", "k_proj", "o_proj", "gate_proj", "down_proj"])
    config = peft.LoraConfig(
        r=3,
        lora_alpha=7,
        target_modules=targets,
        rank_pattern={targets[0]: 5},
        alpha_pattern={targets[1]: 2},
        init_lora_weights=False,
        fan_in_fan_out=name == "gpt2",
        task_type="CAUSAL_LM",
    )
    theirs = peft.get_peft_model(transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base"), config)
    theirs.save_pretrained(tmp_path / "adapter")
    ours = load(tmp_path / "base")
    load_adapter(ours, tmp_path / "adapter")
    with torch.no_grad():
        assert torch.allclose(ours(some_ids()), theirs.eval()(some_ids()).logits, atol=1e-4, rtol=0)


def test_a_step_of_training_is_the_same(tmp_path: Path) -> None:
    """From the same adapter, the gradients by A and B are those of PEFT."""
    model = base("llama", tmp_path / "base")
    config = LoRAConfig(r=4, alpha=8)
    add_adapter(model, config)
    shake(model)
    save_adapter(model, config, tmp_path / "adapter")
    ids = some_ids()
    targets = torch.cat([ids[:, 1:], torch.full((2, 1), -100)], 1)
    (model.loss(ids, targets) / (2 * 22)).backward()
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    theirs = peft.PeftModel.from_pretrained(theirs, tmp_path / "adapter", is_trainable=True)
    theirs(ids, labels=ids).loss.backward()
    gradients = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    for path, linear in linear_maps(model):
        assert linear.weight.grad is None
        for part, letter in (("a", "A"), ("b", "B")):
            expected = gradients[f"base_model.model.{path}.lora_{letter}.default.weight"]
            assert torch.allclose(getattr(linear.adapters["default"], part).grad, expected, atol=1e-4, rtol=0)


def test_the_config_is_one_that_peft_would_write(tmp_path: Path) -> None:
    """Every key of ours is a key of peft.LoraConfig."""
    model = base("llama", tmp_path / "base")
    config = LoRAConfig()
    add_adapter(model, config)
    save_adapter(model, config, tmp_path / "adapter", base="some/model")
    written = json.loads((tmp_path / "adapter/adapter_config.json").read_text())
    assert set(written) <= set(peft.LoraConfig().to_dict())
    assert written["base_model_name_or_path"] == "some/model"
