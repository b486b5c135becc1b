"""Blocks on several devices, or fetched in turn: here all devices are the CPU, by other names."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.inference.conftest import awake

from glasshouse.core.errors import UsageError
from glasshouse.inference.placement import assign, place
from glasshouse.inference.runner import Piece
from glasshouse.inference.torch_runner import TorchRunner
from glasshouse.model import ModelConfig, Transformer
from glasshouse.model.quantize import quantize_model, size_in_bytes

SHAPE = {"vocab_size": 60, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 5, "head_dim": 16}
KINDS = [{}, {"model_type": "gpt2", "head_dim": 8}, {"model_type": "mixtral", "num_experts": 3}]


@given(st.lists(st.integers(1, 9)), st.lists(st.integers(0, 20), min_size=1))
def test_no_device_holds_more_than_its_room(sizes: list[int], rooms: list[int]) -> None:
    """Blocks go to devices in order; one is left out only where no later device could hold it."""
    places = assign(sizes, rooms)
    for device, room in enumerate(rooms):
        held = [size for size, found in zip(sizes, places, strict=True) if found == device]
        assert sum(held) <= room
    found = [len(rooms) if place is None else place for place in places]
    assert found == sorted(found)
    if sizes and sum(sizes) <= rooms[0]:
        assert set(places) == {0}


def block_bytes(model: Transformer) -> int:
    return sum(t.numel() * t.element_size() for t in model.model.layers[0].parameters())


@pytest.mark.parametrize("kind", KINDS, ids=["qwen3", "gpt2", "mixtral"])
@pytest.mark.parametrize("held", [0, 2, 5])
def test_fetched_blocks_compute_the_same(kind: dict, held: int) -> None:
    """However many blocks find room, states are those of the whole model; nothing fetched stays behind."""
    model = awake(ModelConfig.parse({**SHAPE, **kind})).eval()
    text = list(range(40))
    with torch.inference_mode():
        expected = model.hidden(torch.tensor([text]))[0]
    before = {name: tensor.data_ptr() for name, tensor in model.named_parameters()}
    ends = size_in_bytes(model) - 5 * block_bytes(model)
    fetches = []
    placement = place(model, ["cpu"], [ends + held * block_bytes(model)])
    for layer, block in enumerate(model.model.layers):
        name, weight = f"model.layers.{layer}.self_attn.q_proj.weight", block.self_attn.q_proj.weight
        block.self_attn.register_forward_pre_hook(
            lambda *_, name=name, weight=weight: fetches.append(weight.data_ptr() != before[name])
        )
    runner = TorchRunner(model, placement=placement)
    runner.allocate(4)
    states = [
        runner.hidden([Piece(text[a:b], a, [3, 0, 1], b - a)]) for a, b in ((0, 17), (17, 18), (18, 40))
    ]
    assert torch.allclose(torch.cat(states), expected, atol=1e-4)
    assert fetches == ([False] * held + [True] * (5 - held)) * 3
    assert before == {name: tensor.data_ptr() for name, tensor in model.named_parameters()}


def test_few_bits_are_fetched_too() -> None:
    """Codes and scales are buffers."""
    model = awake(ModelConfig.parse(SHAPE)).eval()
    quantize_model(model, "int8")
    with torch.inference_mode():
        expected = model.hidden(torch.tensor([[1, 2, 3]]))[0]
    runner = TorchRunner(model, placement=place(model, ["cpu", "cpu"], [30_000, 20_000]))
    runner.allocate(1)
    assert torch.allclose(runner.hidden([Piece([1, 2, 3], 0, [0], 3)]), expected, atol=1e-5)


def test_the_ends_must_fit() -> None:
    """A device without room for the embedding is refused, with both sizes."""
    with pytest.raises(UsageError, match="has room for 10"):
        place(awake(ModelConfig.parse(SHAPE)), ["cpu"], [10])
