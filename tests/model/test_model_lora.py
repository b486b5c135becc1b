"""Adapters without a peer: nothing changes at first, merging is exact, several live side by side."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from glasshouse.core.errors import ConfigError, ModelError, UsageError
from glasshouse.model import ModelConfig, Transformer, initialise, save
from glasshouse.model.lora import (
    LoRAConfig,
    adapter_names,
    add_adapter,
    linear_maps,
    merge_adapter,
    remove_adapter,
    use_adapters,
)
from glasshouse.model.peft_folder import load_adapter, save_adapter
from glasshouse.model.quantize import quantize_model

SHAPES = {
    "llama": {"model_type": "llama"},
    "native": {"model_type": "qwen3", "hidden_size": 64, "intermediate_size": 96, "head_dim": 32},
    "gpt2": {"model_type": "gpt2"},
}


def model_of(name: str) -> Transformer:
    small = {
        "vocab_size": 50,
        "hidden_size": 32,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "head_dim": 8,
    }
    model = initialise(ModelConfig(**(small | SHAPES[name])), 1)
    generator = torch.Generator().manual_seed(2)
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model


def shake(model: Transformer, seed: int = 3) -> None:
    generator = torch.Generator().manual_seed(seed)
    for _, linear in linear_maps(model):
        for adapter in (linear.adapters or {}).values():
            adapter.b.data = 0.3 * torch.randn(adapter.b.shape, generator=generator)


def logits(model: Transformer, *, gradients: bool = False) -> torch.Tensor:
    ids = torch.randint(0, 50, (2, 19), generator=torch.Generator().manual_seed(4))
    with torch.set_grad_enabled(gradients):
        return model(ids).detach()


@pytest.mark.parametrize("name", SHAPES)
def test_a_new_adapter_changes_nothing_and_is_all_that_learns(name: str) -> None:
    """B is zero at first; only A and B ask for gradients, and A's gradient comes once B has moved."""
    model = model_of(name)
    before = logits(model)
    add_adapter(model, LoRAConfig(r=3))
    assert torch.equal(logits(model), before)
    trained = [key for key, parameter in model.named_parameters() if parameter.requires_grad]
    assert trained
    assert all(".adapters.default." in key for key in trained)
    shake(model)
    ids = torch.randint(0, 50, (2, 9))
    model.loss(ids, ids).backward()
    assert all(model.get_parameter(key).grad.abs().sum() > 0 for key in trained)


@pytest.mark.parametrize("name", SHAPES)
def test_merging_gives_the_same_model(name: str) -> None:
    """Within 1e-5 in float32, on the paths with and without gradients; and nothing is left hanging."""
    model = model_of(name)
    add_adapter(model, LoRAConfig(r=4, alpha=3))
    shake(model)
    alone, training = logits(model), logits(model, gradients=True)
    assert torch.allclose(alone, training, atol=1e-4)
    merge_adapter(model, "default")
    assert adapter_names(model) == []
    assert torch.allclose(logits(model), alone, atol=1e-5, rtol=1e-5)


def test_several_adapters_on_one_base() -> None:
    """Each alone, both together (their outputs add), none: and the base is untouched."""
    model = model_of("llama")
    plain = logits(model)
    for seed, name in enumerate(("first", "second")):
        add_adapter(model, LoRAConfig(r=2, targets=("q_proj", "down_proj")), name=name, seed=seed)
    shake(model)
    use_adapters(model, "first")
    first = logits(model)
    use_adapters(model, "first", "second")
    both = logits(model)
    use_adapters(model)
    assert torch.equal(logits(model), plain)
    remove_adapter(model, "second")
    use_adapters(model, "first")
    assert torch.equal(logits(model), first)
    assert not torch.allclose(both, first, atol=1e-3)
    with pytest.raises(UsageError, match="no adapter called 'second'"):
        use_adapters(model, "second")
    with pytest.raises(UsageError, match="'first' already"):
        add_adapter(model, LoRAConfig(), name="first")


def test_dropout_is_for_training_only() -> None:
    """In evaluation mode nothing is left out."""
    model = model_of("llama")
    add_adapter(model, LoRAConfig(r=2, dropout=0.5))
    shake(model)
    assert torch.equal(logits(model.eval()), logits(model))
    model.train()
    assert not torch.equal(logits(model), logits(model))


def test_targets_follow_the_rules_of_peft() -> None:
    """Last parts of names, or a regular expression over the whole name; a miss says what there is."""
    for targets, expected in ((("v_proj",), 2), (r".*layers\.0\..*_proj", 7), ("all-linear", 14)):
        model = model_of("llama")
        add_adapter(model, LoRAConfig(targets=targets))
        assert sum(linear.adapters is not None for _, linear in linear_maps(model)) == expected
    with pytest.raises(ConfigError, match=r"c_attn.*q_proj"):
        add_adapter(model_of("llama"), LoRAConfig(targets=("c_attn",)))


def test_what_would_be_lost_is_refused(tmp_path: Path) -> None:
    """A folder has no place for an adapter, a quantized weight none for its sum."""
    model = model_of("llama")
    add_adapter(model, LoRAConfig())
    with pytest.raises(UsageError, match="merge"):
        save(model, None, tmp_path / "model")
    quantize_model(model, "int8")
    with pytest.raises(UsageError, match="quantized"):
        merge_adapter(model, "default")


def edit(folder: Path, **changes: object) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / "adapter_model.safetensors")
    change(tensors)
    save_file(tensors, folder / "adapter_model.safetensors")


KEY = "base_model.model.model.layers.1.mlp.up_proj.lora_A.weight"
BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (lambda f: (f / "adapter_config.json").unlink(), "not an adapter folder"),
    "config a list": (lambda f: (f / "adapter_config.json").write_text("[]"), "not a mapping"),
    "other method": (lambda f: edit(f, peft_type="IA3"), "peft_type"),
    "dora": (lambda f: edit(f, use_dora=True), "use_dora"),
    "rank a word": (lambda f: edit(f, r="four"), "'r'"),
    "other base": (lambda f: edit_weights(f, lambda t: t.update({KEY: torch.zeros(8, 33)})), r"\[8, 33\]"),
    "half missing": (lambda f: edit_weights(f, lambda t: t.pop(KEY)), "only one of"),
    "unknown map": (
        lambda f: edit_weights(
            f, lambda t: t.update({"base_model.model.lm_head.lora_A.weight": t[KEY].clone()})
        ),
        "lm_head",
    ),
    "truncated": (
        lambda f: (f / "adapter_model.safetensors").write_bytes(b"abc"),
        "not a whole safetensors file",
    ),
    "pickle": (
        lambda f: (f / "adapter_model.safetensors").rename(f / "adapter_model.bin"),
        "pickle",
    ),
    "nothing": (lambda f: (f / "adapter_model.safetensors").unlink(), "missing"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_adapters_say_what_and_where(name: str, tmp_path: Path) -> None:
    """One line, and the model is as it was."""
    model = model_of("llama")
    add_adapter(model, LoRAConfig(), name="other")
    save_adapter(model, LoRAConfig(), tmp_path / "adapter", name="other")
    remove_adapter(model, "other")
    damage, words = BROKEN[name]
    damage(tmp_path / "adapter")
    with pytest.raises(ModelError, match=words) as caught:
        load_adapter(model, tmp_path / "adapter")
    assert "\n" not in str(caught.value)
    assert adapter_names(model) == []
