"""Adapters without a peer: nothing changes at first, merging is exact, several live side by side."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from glasshouse.core.errors import ConfigError, ModelError, UsageError
from glasshouse.model import Transformer, save
from glasshouse.model.lora import (
    LoRAConfig,
    adapter_names,
    add_adapter,
    linear_maps,
    merge_adapter,
    places,
    remove_adapter,
    use_adapters,
)
from glasshouse.model.peft_folder import load_adapter, save_adapter
from glasshouse.model.quantize import SCHEMES, Scheme, quantize_model

Make = Callable[..., Transformer]

LLAMA = {"model_type": "llama", "hidden_size": 32, "intermediate_size": 40, "head_dim": 8}
MOE = {"model_type": "qwen3_moe", "num_experts": 3, "moe_intermediate_size": 32}
EXPERTS = ("experts.gate_up_proj", "experts.down_proj")
CASES: dict[str, tuple[dict[str, object], dict[str, object]]] = {
    "llama": (LLAMA, {}),
    "native": ({"model_type": "qwen3", "head_dim": 32}, {}),
    "gpt2": ({"model_type": "gpt2"}, {}),
    "head": (LLAMA, {"targets": ("v_proj", "lm_head")}),
    "mixtral": (
        {"model_type": "mixtral", "num_experts": 3},
        {"target_parameters": (*EXPERTS, "gate.weight")},
    ),
    "qwen3_moe": (MOE, {"targets": (), "target_parameters": EXPERTS}),
}
"""Name -> what the model is, and where its adapter hangs."""


def shake(model: Transformer, seed: int = 3) -> None:
    generator = torch.Generator().manual_seed(seed)
    for place in places(model):
        for adapter in (place.adapters or {}).values():
            adapter.b.data = 0.3 * torch.randn(adapter.b.shape, generator=generator)


def logits(model: Transformer, *, gradients: bool = False) -> torch.Tensor:
    ids = torch.randint(0, 320, (2, 19), generator=torch.Generator().manual_seed(4))
    with torch.set_grad_enabled(gradients):
        return model(ids).detach()


@pytest.mark.parametrize("name", CASES)
def test_a_new_adapter_changes_nothing_and_is_all_that_learns(name: str, random_model: Make) -> None:
    """B is zero at first; only A and B ask for gradients, and A's gradient comes once B has moved."""
    shape, parts = CASES[name]
    model = random_model(**shape)
    before = logits(model)
    add_adapter(model, LoRAConfig(r=3, **parts))
    assert torch.equal(logits(model), before)
    trained = [key for key, parameter in model.named_parameters() if parameter.requires_grad]
    assert trained
    assert all(".adapters." in key and ".default." in key for key in trained)
    shake(model)
    ids = torch.randint(0, 320, (2, 9))
    model.loss(ids, ids).backward()
    assert all(model.get_parameter(key).grad.abs().sum() > 0 for key in trained)


@pytest.mark.parametrize("name", CASES)
def test_merging_gives_the_same_model(name: str, random_model: Make) -> None:
    """Within 1e-5 in float32, on the paths with and without gradients; and nothing is left hanging."""
    shape, parts = CASES[name]
    model = random_model(**shape)
    add_adapter(model, LoRAConfig(r=4, alpha=3, **parts))
    shake(model)
    alone, training = logits(model), logits(model, gradients=True)
    assert torch.allclose(alone, training, atol=1e-4)
    merge_adapter(model, "default")
    assert adapter_names(model) == []
    assert torch.allclose(logits(model), alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_folders_come_back(name: str, tmp_path: Path, random_model: Make) -> None:
    """The same logits from the folder, and the same folder again from what was read."""
    shape, parts = CASES[name]
    model, config = random_model(**shape), LoRAConfig(r=4, alpha=3, **parts)
    add_adapter(model, config)
    shake(model)
    save_adapter(model, config, tmp_path / "one")
    again = random_model(**shape)
    load_adapter(again, tmp_path / "one")
    assert torch.allclose(logits(again), logits(model), atol=1e-5)
    save_adapter(again, config, tmp_path / "two")
    one, two = (load_file(tmp_path / folder / "adapter_model.safetensors") for folder in ("one", "two"))
    if name != "gpt2":  # whose three maps in one share an A once it is read, and become three times as wide
        assert one.keys() == two.keys()
        assert all(torch.equal(one[key], two[key]) for key in one)
    with torch.no_grad():
        assert torch.allclose(logits(again), logits(model), atol=1e-5)


@pytest.mark.parametrize("name", ["llama", "head", "qwen3_moe"])
def test_several_adapters_on_one_base(name: str, random_model: Make) -> None:
    """Each alone, both together (their outputs add), none: and the base is untouched."""
    shape, parts = CASES[name]
    model = random_model(**shape)
    plain = logits(model)
    for seed, adapter in enumerate(("first", "second")):
        add_adapter(model, LoRAConfig(r=2, **parts), name=adapter, seed=seed)
    shake(model)
    use_adapters(model, "first")
    first = logits(model)
    use_adapters(model, "first", "second")
    both = logits(model)
    use_adapters(model)
    assert torch.equal(logits(model), plain)
    use_adapters(model, "first", "second")
    for adapter in ("first", "second"):
        merge_adapter(model, adapter)
    assert torch.allclose(logits(model), both, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(both, first, atol=1e-3)
    with pytest.raises(UsageError, match="no adapter called 'second'"):
        use_adapters(model, "second")


def test_removing_one_leaves_the_other(random_model: Make) -> None:
    """And a name is taken once."""
    model = random_model(**MOE)
    config = LoRAConfig(target_parameters=EXPERTS)
    for name in ("first", "second"):
        add_adapter(model, config, name=name)
    shake(model)
    use_adapters(model, "first")
    first = logits(model)
    remove_adapter(model, "second")
    assert torch.equal(logits(model), first)
    with pytest.raises(UsageError, match="'first' already"):
        add_adapter(model, config, name="first")


@pytest.mark.parametrize("name", ["llama", "qwen3_moe"])
def test_dropout_is_for_training_only(name: str, random_model: Make) -> None:
    """In evaluation mode nothing is left out."""
    shape, parts = CASES[name]
    model = random_model(**shape).eval()
    add_adapter(model, LoRAConfig(r=2, dropout=0.5, **parts))
    shake(model)
    assert torch.equal(logits(model), logits(model))
    model.train()
    assert not torch.equal(logits(model), logits(model))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_adapters_of_experts_in_few_bits(scheme: Scheme, random_model: Make) -> None:
    """Outputs and gradients are those over full-precision experts that hold the unpacked values."""
    few, plain = random_model(**MOE), random_model(**MOE)
    config = LoRAConfig(r=3, targets=(), target_parameters=EXPERTS)
    for model in (few, plain):
        add_adapter(model, config)
        shake(model)
    quantize_model(few, scheme)
    unpacked = {name: linear.weight for name, linear in linear_maps(few)}
    for name, linear in linear_maps(plain):
        linear.weight.data = unpacked[name]
    for mine, theirs in zip(places(few), places(plain), strict=True):
        if mine.kind == "experts":
            theirs.weight.data = torch.stack([mine.weight.unpacked(e, torch.float32) for e in range(3)])
    ids = torch.randint(0, 320, (2, 20), generator=torch.Generator().manual_seed(1))
    losses = [model.loss(ids, ids) for model in (few, plain)]
    assert torch.allclose(losses[0], losses[1], rtol=1e-5)
    for loss in losses:
        loss.backward()
    for mine, theirs in zip(places(few), places(plain), strict=True):
        if (adapter := mine.adapter("default")) is not None:
            for one, other in zip(adapter.parameters(), theirs.adapter("default").parameters(), strict=True):
                assert torch.allclose(one.grad, other.grad, atol=1e-3, rtol=1e-4)
    with pytest.raises(UsageError, match="quantized"):
        merge_adapter(few, "default")


def adapted(model: Transformer, **config: object) -> int:
    """How many places the adapter hangs on."""
    add_adapter(model, LoRAConfig(**config))
    return sum(place.adapter("default") is not None for place in places(model))


def test_targets_follow_the_rules_of_peft(random_model: Make) -> None:
    """Last parts of names, or a regular expression over the whole name; a miss says what there is."""
    for targets, expected in ((("v_proj",), 2), (r".*layers\.0\..*_proj", 7), ("all-linear", 14), (".*", 15)):
        assert adapted(random_model(**LLAMA), targets=targets) == expected
    with pytest.raises(ConfigError, match=r"c_attn.*q_proj"):
        adapted(random_model(**LLAMA), targets=("c_attn",))


def test_experts_and_routers_are_parameters_that_are_named(random_model: Make) -> None:
    """'all-linear' is attention alone here; ends of parameters' names add stacks, routers, single layers."""
    for parameters, expected in (
        ((), 8),
        (EXPERTS, 8 + 4),
        (("gate.weight",), 8 + 2),
        (("layers.1.mlp.experts.down_proj", "gate_up_proj"), 8 + 1 + 2),
    ):
        assert adapted(random_model(**MOE), target_parameters=parameters) == expected
    with pytest.raises(ConfigError, match=r"'w1'.*experts\.down_proj, experts\.gate_up_proj, gate\.weight"):
        adapted(random_model(**MOE), target_parameters=("w1",))
    with pytest.raises(ConfigError, match="this model is dense"):
        adapted(random_model(**LLAMA), target_parameters=EXPERTS)


def test_a_head_that_is_the_embedding_matrix_is_not_adapted(random_model: Make) -> None:
    """An adapter of the head alone would be one of a matrix that is used twice."""
    with pytest.raises(ConfigError, match="tie_word_embeddings"):
        adapted(random_model(**LLAMA, tie_word_embeddings=True), targets=("q_proj", "lm_head"))


def test_what_would_be_lost_is_refused(tmp_path: Path, random_model: Make) -> None:
    """A folder has no place for an adapter, a quantized weight none for its sum."""
    for parts in ({}, {"targets": ("lm_head",)}, {"target_parameters": ("experts.down_proj",)}):
        model = random_model(**MOE)
        add_adapter(model, LoRAConfig(**parts))
        with pytest.raises(UsageError, match="merge"):
            save(model, None, tmp_path / "model")
    model = random_model(**LLAMA)
    add_adapter(model, LoRAConfig())
    quantize_model(model, "int8")
    with pytest.raises(UsageError, match="quantized"):
        merge_adapter(model, "default")
    with pytest.raises(UsageError, match="no adapter called 'other'"):
        save_adapter(model, LoRAConfig(), tmp_path / "adapter", name="other")


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
            f, lambda t: t.update({"base_model.model.embed_tokens.lora_A.weight": t[KEY].clone()})
        ),
        "embed_tokens",
    ),
    "experts of a dense model": (
        lambda f: edit_weights(
            f,
            lambda t: t.update({"base_model.model.model.layers.0.mlp.experts.lora_A.weight": t[KEY].clone()}),
        ),
        "experts",
    ),
    "head of its own": (
        lambda f: edit_weights(
            f, lambda t: t.update({"base_model.model.lm_head.base_layer.weight": torch.zeros(320, 32)})
        ),
        "a head of its own",
    ),
    "parameters a word": (lambda f: edit(f, target_parameters="gate"), "target_parameters"),
    "alpha a word": (lambda f: edit(f, alpha_pattern={"q_proj": "much"}), "alpha_pattern"),
    "alpha of no pattern": (lambda f: edit(f, alpha_pattern={"(": 3}), "not a regular expression"),
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


def test_experts_may_be_named_one_by_one(tmp_path: Path, random_model: Make) -> None:
    """As before transformers 5; one that is not named has nothing beside it."""
    model, config = random_model(**MOE), LoRAConfig(r=2, targets=(), target_parameters=("down_proj",))
    add_adapter(model, config)
    shake(model)
    for place in places(model):
        if (adapter := place.adapter("default")) is not None:
            adapter.b.data[1] = 0
    save_adapter(model, config, tmp_path / "adapter")

    def one_by_one(tensors: dict[str, torch.Tensor]) -> None:
        for key in list(tensors):
            whole, (stem, letter) = tensors.pop(key), key.removesuffix(".weight").split(".lora_")
            apart = whole.unflatten(0, (3, 2)) if letter == "A" else whole.view(-1, 2, 3).permute(2, 0, 1)
            for expert in (0, 2):
                tensors[f"{stem}.{expert}.down_proj.lora_{letter}.weight"] = apart[expert].contiguous()

    edit_weights(tmp_path / "adapter", one_by_one)
    edit(tmp_path / "adapter", target_parameters=None, target_modules=["down_proj"])
    again = random_model(**MOE)
    load_adapter(again, tmp_path / "adapter")
    assert torch.allclose(logits(again), logits(model), atol=1e-5)
    edit_weights(tmp_path / "adapter", lambda tensors: tensors.pop(next(iter(tensors))))
    with pytest.raises(ModelError, match=r"experts\.\d\.down_proj' has only one of"):
        load_adapter(random_model(**MOE), tmp_path / "adapter")


@pytest.mark.parametrize("name", BROKEN)
def test_broken_adapters_say_what_and_where(name: str, tmp_path: Path, random_model: Make) -> None:
    """One line, and the model is as it was."""
    model = random_model(**LLAMA)
    add_adapter(model, LoRAConfig(), name="other")
    save_adapter(model, LoRAConfig(), tmp_path / "adapter", name="other")
    remove_adapter(model, "other")
    damage, words = BROKEN[name]
    damage(tmp_path / "adapter")
    with pytest.raises(ModelError, match=words) as caught:
        load_adapter(model, tmp_path / "adapter")
    assert "\n" not in str(caught.value)
    assert adapter_names(model) == []


@pytest.mark.parametrize(
    ("trained_on", "opened_on", "parts", "words"),
    [
        (MOE, MOE | {"num_experts": 5}, {"target_parameters": EXPERTS}, "a multiple of 5 experts"),
        (LLAMA, LLAMA | {"tie_word_embeddings": True}, {"targets": ("lm_head",)}, "tie_word_embeddings"),
    ],
    ids=["more experts", "tied head"],
)
def test_adapters_of_another_base_are_refused(
    trained_on: dict, opened_on: dict, parts: dict, words: str, tmp_path: Path, random_model: Make
) -> None:
    """Rather than opened wrongly."""
    model, config = random_model(**trained_on), LoRAConfig(**parts)
    add_adapter(model, config)
    save_adapter(model, config, tmp_path / "adapter")
    with pytest.raises(ModelError, match=words):
        load_adapter(random_model(**opened_on), tmp_path / "adapter")
