"""The whole decoder: causality, segments, initial weights, mixed precision, accumulation."""

from __future__ import annotations

import math

import pytest
import torch

from glasshouse.core.errors import UsageError
from glasshouse.model import ModelConfig, Transformer, initialise

SMALL = ModelConfig(
    vocab_size=64,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    head_dim=32,
    max_position_embeddings=64,
)


def awake(config: ModelConfig = SMALL, seed: int = 0) -> Transformer:
    """A model whose sublayers say something: initial output projections are zero."""
    model = initialise(config, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model


def some_ids(batch: int, seq: int) -> torch.Tensor:
    return torch.randint(0, SMALL.vocab_size, (batch, seq), generator=torch.Generator().manual_seed(3))


def test_later_tokens_change_nothing_before() -> None:
    """Logits at a position do not depend on what follows it."""
    model, ids = awake(), some_ids(1, 30)
    changed = ids.clone()
    changed[0, 20:] = (changed[0, 20:] + 1) % SMALL.vocab_size
    with torch.no_grad():
        before, after = model(ids), model(changed)
    assert torch.allclose(before[:, :20], after[:, :20], atol=1e-6)
    assert not torch.allclose(before[:, 20:], after[:, 20:], atol=1e-2)


def test_forward_is_the_same_with_and_without_gradients() -> None:
    """The kernels used for training and for inference agree."""
    model, ids = awake(), some_ids(3, 50)
    with torch.no_grad():
        without = model(ids)
    assert torch.allclose(model(ids), without, atol=1e-5)


def test_last_only_is_the_last_position() -> None:
    """`last_only` gives (batch, 1, vocab): the last token's logits."""
    model, ids = awake(), some_ids(3, 12)
    with torch.no_grad():
        assert torch.allclose(model(ids, last_only=True), model(ids)[:, -1:], atol=1e-6)


def test_positions_shift_nothing_when_all_move() -> None:
    """RoPE is relative: moving all positions of a row by one constant leaves the logits as they are."""
    model, ids = awake(), some_ids(2, 20)
    positions = torch.arange(20).expand(2, 20)
    with torch.no_grad():
        assert torch.allclose(model(ids, positions=positions + 30), model(ids), atol=1e-4)


@pytest.mark.parametrize("gradients", [True, False])
def test_inputs_that_do_not_fit_are_refused(gradients: bool) -> None:
    """Rows beyond the context, other shapes and targets outside the vocabulary never reach a kernel."""
    model, ids = awake(), some_ids(2, 64)
    with torch.set_grad_enabled(gradients):
        with pytest.raises(UsageError, match="65 tokens, the context holds 64"):
            model(some_ids(1, 65))
        with pytest.raises(UsageError, match="segments"):
            model(ids, segments=torch.zeros(2, 63, dtype=torch.int64))
        with pytest.raises(IndexError):
            model(ids, positions=torch.full((2, 64), 64))
        for target in (SMALL.vocab_size, -1):
            with pytest.raises((IndexError, RuntimeError)):
                model.loss(ids, torch.full_like(ids, target))


@pytest.mark.parametrize("tied", [True, False])
def test_initial_weights_are_a_function_of_config_and_seed(tied: bool) -> None:
    """The same seed gives the same bits, whatever was drawn before; another seed gives others."""
    config = SMALL.model_copy(update={"tie_word_embeddings": tied})
    first = initialise(config, 5).state_dict()
    torch.rand(7)
    second, third = initialise(config, 5).state_dict(), initialise(config, 6).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["model.embed_tokens.weight"], third["model.embed_tokens.weight"])


def test_initialisation_leaves_the_global_generator_alone() -> None:
    """Drawing weights consumes nothing of PyTorch's global randomness."""
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    initialise(SMALL, 5)
    assert torch.equal(torch.rand(3), expected)


def test_first_loss_knows_nothing() -> None:
    """An untied new model is exactly uniform; a tied one starts within reach of it."""
    ids = some_ids(4, 40)
    targets = ids.roll(-1, 1)
    with torch.no_grad():
        for tied, tolerance in ((False, 1e-4), (True, 0.1)):
            model = initialise(SMALL.model_copy(update={"tie_word_embeddings": tied}), 0)
            loss = model.loss(ids, targets) / targets.numel()
            assert abs(float(loss) - math.log(SMALL.vocab_size)) < tolerance


def test_bfloat16_compute_keeps_float32_gradients() -> None:
    """Master weights stay float32; the bfloat16 loss and gradients are close to the float32 ones."""
    model, ids = awake(), some_ids(8, 60)
    targets = ids.roll(-1, 1)
    exact = model.loss(ids, targets)
    exact.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    model.zero_grad()
    model.compute_dtype = torch.bfloat16
    loss = model.loss(ids, targets)
    loss.backward()
    assert loss.dtype == torch.float32
    assert abs(loss.item() / exact.item() - 1) < 1e-2
    for name, parameter in model.named_parameters():
        exactly = gradients[name]
        assert exactly is not None
        assert parameter.grad is not None
        assert parameter.grad.dtype == torch.float32
        error = (parameter.grad - exactly).norm() / exactly.norm()
        assert error < 0.08, f"{name}: {error}"


def test_summed_losses_accumulate_exactly() -> None:
    """Losses of micro-batches add up to the loss of the batch, and so do their gradients."""
    model, ids = awake(), some_ids(6, 40)
    targets = ids.roll(-1, 1)
    targets[1, :30] = -100
    whole = model.loss(ids, targets)
    whole.backward()
    expected = [parameter.grad for parameter in model.parameters()]
    model.zero_grad()
    parts = [model.loss(ids[i : i + 2], targets[i : i + 2]) for i in (0, 2, 4)]
    for part in parts:
        part.backward()
    assert torch.allclose(sum(parts, torch.zeros(())), whole, rtol=1e-5)
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        assert parameter.grad is not None
        assert gradient is not None
        assert torch.allclose(parameter.grad, gradient, atol=1e-3, rtol=1e-4)


def test_a_step_is_the_same_twice() -> None:
    """Forward and backward give the same bits every time: resume depends on it."""
    model, ids = awake(), some_ids(8, 64)
    model.compute_dtype = torch.bfloat16
    segments = (torch.arange(64) // 20).expand(8, 64)
    runs = []
    for _ in range(3):
        model.zero_grad()
        model.loss(ids, ids.roll(-1, 1), segments).backward()
        runs.append([parameter.grad for parameter in model.parameters()])
    for run in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(run, runs[0], strict=True))


@pytest.mark.parametrize(
    "family",
    [
        {},
        {
            "model_type": "qwen3_moe",
            "num_experts": 3,
            "moe_intermediate_size": 16,
            "router_aux_loss_coef": 0.1,
        },
    ],
)
def test_recomputing_gives_the_same_gradients(family: dict[str, object]) -> None:
    """Bit for bit, router losses included, and with fewer numbers kept for the backward pass."""
    results, kept = [], []
    for recompute in (False, True):
        model = initialise(ModelConfig(**(SMALL.model_dump(exclude={"model_type"}) | family)), 3)
        for parameter in model.parameters():
            parameter.data.add_(
                0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
            )
        model.recompute = recompute
        sizes: list[int] = []

        def keep(tensor: torch.Tensor, sizes: list[int] = sizes) -> torch.Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = model.loss(some_ids(2, 40), some_ids(2, 40))
        loss.backward()
        results.append([loss.detach(), *(parameter.grad for parameter in model.parameters())])
        kept.append(sum(sizes))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    assert kept[1] < 0.6 * kept[0]
