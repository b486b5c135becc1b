"""Mixture of experts: token by token brute force, the two router losses, and every family's config."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from glasshouse.model import ModelConfig, initialise
from glasshouse.model.experts import ROUNDING, SparseMLP, _sorted_by_expert, balance_loss, z_loss

SHAPE = {
    "model_type": "qwen3_moe",
    "vocab_size": 50,
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "head_dim": 8,
    "num_experts": 5,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 7,
}


def layer(**changes: object) -> SparseMLP:
    """One sparse layer with random weights."""
    mlp = SparseMLP(ModelConfig(**(SHAPE | changes)))
    generator = torch.Generator().manual_seed(3)
    for parameter in mlp.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    return mlp


def brute_force(mlp: SparseMLP, x: torch.Tensor) -> torch.Tensor:
    """Every token alone: its best experts by probability, one after the other."""
    out = torch.zeros_like(x)
    for token in torch.cartesian_prod(torch.arange(x.shape[0]), torch.arange(x.shape[1])).tolist():
        vector = x[tuple(token)]
        probabilities = (mlp.gate.weight @ vector).softmax(0)
        best = sorted(range(len(probabilities)), key=lambda e: -probabilities[e].item())[: mlp.top_k]
        whole = sum(probabilities[e] for e in best) if mlp.normed else 1.0
        for e in best:
            gate, up = (mlp.experts.gate_up_proj[e] @ vector).chunk(2)
            out[tuple(token)] += probabilities[e] / whole * (mlp.experts.down_proj[e] @ (F.silu(gate) * up))
    return out


@pytest.mark.parametrize("normed", [True, False])
@pytest.mark.parametrize("top_k", [1, 2, 5])
def test_every_token_gets_its_experts(top_k: int, normed: bool) -> None:
    """Output and gradients are those of computing token by token: nothing is dropped."""
    mlp = layer(num_experts_per_tok=top_k, norm_topk_prob=normed)
    x = torch.randn(3, 4, 12, generator=torch.Generator().manual_seed(1), requires_grad=True)
    mine, exact = mlp(x), brute_force(mlp, x)
    assert torch.allclose(mine, exact, atol=1e-4)
    wanted = [x, *mlp.parameters()]
    for a, b in zip(
        torch.autograd.grad(mine.square().sum(), wanted),
        torch.autograd.grad(exact.square().sum(), wanted),
        strict=True,
    ):
        assert torch.allclose(a, b, atol=1e-3, rtol=1e-4)


def test_many_tokens_deterministically() -> None:
    """With so many tokens that experts' rows are rounded up: still exact, in training's strict mode."""
    mlp = layer()
    x = torch.randn(5, 40, 12, generator=torch.Generator().manual_seed(1), requires_grad=True)
    wanted = [x, *mlp.parameters()]
    mode = torch.get_deterministic_debug_mode()
    torch.set_deterministic_debug_mode("error")
    try:
        mine = mlp(x)
        gradients = torch.autograd.grad(mine.sin().sum(), wanted)
    finally:
        torch.set_deterministic_debug_mode(mode)
    exact = brute_force(mlp, x)
    assert torch.allclose(mine, exact, atol=1e-4)
    for a, b in zip(gradients, torch.autograd.grad(exact.sin().sum(), wanted), strict=True):
        assert torch.allclose(a, b, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("tokens", [1, 7, 200])
def test_every_assignment_has_a_row_of_its_own(tokens: int) -> None:
    """Inside its expert's rows; spare rows stand at the end of an expert's, and are few."""
    chosen = torch.rand(tokens, 5, generator=torch.Generator().manual_seed(2)).topk(2).indices
    row_tokens, places, rooms = _sorted_by_expert(chosen, 5)
    assert len(set(places.flatten().tolist())) == 2 * tokens
    assert torch.equal(row_tokens[places], torch.arange(tokens)[:, None].expand(-1, 2))
    owner = torch.arange(5).repeat_interleave(torch.tensor(rooms))
    assert torch.equal(owner[places], chosen)
    assert len(row_tokens) == sum(rooms) <= 2 * tokens * (1 + 1 / ROUNDING)


def test_one_busy_expert_takes_all_tokens() -> None:
    """An expert has no limit: when the router sends everything to one, everything arrives."""
    mlp = layer(num_experts_per_tok=1)
    mlp.gate.weight.data[:] = 0
    mlp.gate.weight.data[3] = 100
    x = torch.rand(2, 50, 12)
    assert torch.allclose(mlp(x), brute_force(mlp, x), atol=1e-4)


def test_balance_loss_is_least_where_experts_are_used_alike() -> None:
    """top_k where the load is even; `experts` times as much per choice where one takes everything."""
    even = torch.eye(4).repeat(10, 1) * 50
    assert balance_loss(even, 1).item() == pytest.approx(1.0)
    one = torch.tensor([[50.0, 0, 0, 0]]).repeat(40, 1)
    assert balance_loss(one, 1).item() == pytest.approx(4.0)


def test_z_loss_is_the_squared_log_denominator() -> None:
    """For n equal logits c: (c + ln n) squared."""
    assert z_loss(torch.full((6, 8), 2.0)).item() == pytest.approx((2 + math.log(8)) ** 2)


def test_router_losses_enter_training_and_not_evaluation() -> None:
    """With gradients the summed loss holds the layers' mean of both, times the count of targets."""
    config = ModelConfig(**(SHAPE | {"router_aux_loss_coef": 0.5, "router_z_loss_coef": 0.25}))
    model = initialise(config, 1)
    ids = torch.randint(0, 50, (2, 9), generator=torch.Generator().manual_seed(2))
    targets = ids.roll(-1, 1)
    targets[:, -1] = -100
    segments = torch.zeros(2, 9, dtype=torch.int64)
    segments[1, 4:] = -1  # padding, which no loss counts
    targets[1, 3:] = -100
    with torch.no_grad():
        plain = model.loss(ids, targets, segments)
    routing: list[torch.Tensor] = []
    model.hidden(ids, segments=segments, routing=routing)
    real = (segments >= 0).flatten()
    added = sum(0.5 * balance_loss(logits[real], 2) + 0.25 * z_loss(logits[real]) for logits in routing) / 2
    count = (targets != -100).sum()
    assert model.loss(ids, targets, segments).item() == pytest.approx(
        (plain + added * count).item(), rel=1e-5
    )


def test_counts_of_parameters_and_active_work() -> None:
    """All experts are parameters; only a token's own count as work."""
    config = ModelConfig(**SHAPE)
    assert initialise(config, 0).num_parameters() == config.num_parameters()
    one = ModelConfig(**(SHAPE | {"num_experts_per_tok": 1}))
    difference = config.flops_per_token(8) - one.flops_per_token(8)
    assert difference == 6 * 2 * 3 * 12 * 7  # one more expert in each of two layers


@pytest.mark.parametrize(
    "changes",
    [
        {"num_experts_per_tok": 6},
        {"moe_intermediate_size": 0},
        {"num_experts": 0},
        {"model_type": "qwen3"},
        {"model_type": "mixtral", "moe_intermediate_size": 7},
    ],
)
def test_experts_that_no_folder_could_say_are_refused(changes: dict[str, object]) -> None:
    """More choices than experts, experts in a dense family, Mixtral with two widths."""
    with pytest.raises(ValidationError):
        ModelConfig(**(SHAPE | changes))
