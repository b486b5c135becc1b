"""The paged runner against the model without any cache: every family, any cut, padding, adapters, windows."""

from __future__ import annotations

from random import Random

import pytest
import torch
from tests.inference.conftest import awake

from glasshouse.inference.native_runner import NativeRunner
from glasshouse.inference.runner import Piece
from glasshouse.inference.torch_runner import TorchRunner
from glasshouse.model import ModelConfig, Transformer
from glasshouse.model.lora import LoRAConfig, add_adapter, linear_maps, places, use_adapters
from glasshouse.model.quantize import quantize_model

SMALL = {
    "vocab_size": 90,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 80,
}
FAMILIES = {
    "qwen3": {"num_key_value_heads": 1},
    "gpt2": {"model_type": "gpt2"},
    "llama": {"model_type": "llama", "tie_word_embeddings": True},
    "window": {"model_type": "mistral", "sliding_window": 9},
    "some windows": {"model_type": "qwen2", "sliding_window": 7, "max_window_layers": 1},
    "experts": {"model_type": "mixtral", "num_experts": 4},
}


def texts(count: int, vocab: int = 90, seed: int = 0, longest: int = 70) -> list[list[int]]:
    random = Random(seed)
    return [[random.randrange(vocab) for _ in range(random.randint(1, longest))] for _ in range(count)]


def plain(model: Transformer, text: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        return model.hidden(torch.tensor([text]))[0]


def read(
    runner: TorchRunner, all_texts: list[list[int]], seed: int, adapters: list[str | None] | None = None
) -> list[torch.Tensor]:
    """Every text read in random pieces beside the others, its pages scattered: all hidden states."""
    random, size = Random(seed), runner.page_tokens
    needed = [-(-len(text) // size) for text in all_texts]
    pages = random.sample(range(sum(needed)), sum(needed))
    tables = [[pages.pop() for _ in range(count)] for count in needed]
    states: list[list[torch.Tensor]] = [[] for _ in all_texts]
    starts = [0] * len(all_texts)
    while True:
        going = [i for i, text in enumerate(all_texts) if starts[i] < len(text) and random.random() < 0.8]
        pieces = []
        for i in going:
            count = random.choice([1, 1, random.randint(1, 30)])
            ids = all_texts[i][starts[i] : starts[i] + count]
            adapter = adapters[i] if adapters else None
            pieces.append(Piece(ids, starts[i], tables[i], len(ids), adapter))
        if pieces:
            found = runner.hidden(pieces).split([piece.wanted for piece in pieces])
            for i, piece, state in zip(going, pieces, found, strict=True):
                states[i].append(state)
                starts[i] += len(piece.ids)
        if all(start == len(text) for start, text in zip(starts, all_texts, strict=True)):
            return [torch.cat(parts) for parts in states]


def runner_of(model: Transformer, deterministic: bool = False) -> TorchRunner:
    runner = TorchRunner(model, deterministic=deterministic)
    runner.allocate(60)
    return runner


@pytest.mark.parametrize("family", FAMILIES)
def test_pages_and_pieces_change_nothing(family: str) -> None:
    """Any cut, any company and scattered pages give the states of the text read at once."""
    model = awake(ModelConfig(**{**SMALL, **FAMILIES[family]})).eval()
    given = texts(7)
    for text, states in zip(given, read(runner_of(model), given, 1), strict=True):
        assert torch.allclose(states, plain(model, text), atol=2e-4)


@pytest.mark.parametrize("family", ["qwen3", "window", "experts"])
def test_deterministic_states_are_equal_to_the_bit(family: str) -> None:
    """In this mode neither cuts nor company change a single bit."""
    model = awake(ModelConfig(**{**SMALL, **FAMILIES[family]})).eval()
    given = texts(4, longest=40)
    together = read(runner_of(model, deterministic=True), given, 2)
    for text, states in zip(given, together, strict=True):
        (alone,) = read(runner_of(model, deterministic=True), [text], 3)
        assert torch.equal(states, alone)
        assert torch.allclose(states, plain(model, text), atol=2e-4)


def test_each_piece_has_its_own_adapter() -> None:
    """Rows with different adapters, or none, share a step."""
    model = awake(ModelConfig(**{**SMALL, **FAMILIES["qwen3"]})).eval()
    for name in ("one", "two"):
        add_adapter(model, LoRAConfig(r=2), name=name)
    for path, linear in linear_maps(model):
        for adapter in (linear.adapters or {}).values():
            torch.nn.init.normal_(adapter.b, std=0.3, generator=torch.Generator().manual_seed(len(path)))
    given = texts(6)
    adapters = [None, "one", "two", "one", None, "two"]
    found = read(runner_of(model), given, 4, adapters)
    for text, adapter, states in zip(given, adapters, found, strict=True):
        use_adapters(model, *([adapter] if adapter else []))
        assert torch.allclose(states, plain(model, text), atol=5e-4)


def test_each_piece_has_its_own_adapter_on_experts_and_head_too() -> None:
    """The head is asked row by row, after the step: it takes each row's adapter as well."""
    model = awake(ModelConfig(**SMALL, **FAMILIES["experts"]))
    targets = LoRAConfig(r=2, targets=("q_proj", "lm_head"), target_parameters=("experts.down_proj",))
    for name in ("one", "two"):
        add_adapter(model, targets, name=name)
    for number, place in enumerate(places(model)):
        for adapter in (place.adapters or {}).values():
            torch.nn.init.normal_(adapter.b, std=0.3, generator=torch.Generator().manual_seed(number))
    given = texts(4, seed=6)
    adapters = [None, "one", "two", "one"]
    runner = runner_of(model)
    found = read(runner, given, 4, adapters)
    logits = runner.logits(torch.stack([states[-1] for states in found]), adapters)
    for text, adapter, states, row in zip(given, adapters, found, logits, strict=True):
        use_adapters(model, *([adapter] if adapter else []))
        assert torch.allclose(states, plain(model, text), atol=1e-5)
        with torch.inference_mode():
            assert torch.allclose(row, model(torch.tensor([text]))[0, -1], atol=1e-5)
    assert NativeRunner.supports(model) == "adapters hang on its experts and head"


def test_few_bits() -> None:
    """Quantized weights run as they do elsewhere."""
    model = awake(ModelConfig(**{**SMALL, **FAMILIES["qwen3"]})).eval()
    quantize_model(model, "int4")
    given = texts(4)
    for text, states in zip(given, read(runner_of(model), given, 5), strict=True):
        assert torch.allclose(states, plain(model, text), atol=2e-4)


def test_dynamic_rope_turns_each_text_by_its_own_length() -> None:
    """A text beyond the trained context does not change the angles of a shorter one beside it."""
    scaling = {"rope_type": "dynamic", "factor": 2.0}
    model = awake(ModelConfig(**{**SMALL, "max_position_embeddings": 30, "rope_scaling": scaling})).eval()
    given = [list(range(50)), list(range(20)), list(range(3, 60)), list(range(7, 37))]
    runner = runner_of(model)
    pieces = [Piece(text, 0, range(4 * i, 4 * i + 4), len(text)) for i, text in enumerate(given)]
    found = runner.hidden(pieces).split([len(text) for text in given])
    for text, states in zip(given, found, strict=True):
        assert torch.allclose(states, plain(model, text), atol=2e-4)


def test_only_the_wanted_states_come_back() -> None:
    """In the order of the pieces, whatever went through the model together."""
    model = awake(ModelConfig(**{**SMALL, **FAMILIES["qwen3"]})).eval()
    given = [list(range(20)), [5], list(range(9)), list(range(40, 60))]
    pieces = [
        Piece(t, 0, [2 * i, 2 * i + 1], w) for i, (t, w) in enumerate(zip(given, (2, 1, 0, 20), strict=True))
    ]
    found = runner_of(model).hidden(pieces).split([2, 1, 0, 20])
    for text, states in zip(given, found, strict=True):
        assert torch.allclose(states, plain(model, text)[len(text) - len(states) :], atol=2e-4)
