"""Muon and AdamW against closed forms and PyTorch's own, and which parameter goes where."""

import pytest
import torch
from torch import nn

from glasshouse.training.optimizers import AdamW, Muon, clip_gradients, orthogonalise, split_parameters

SHAPES = [(8, 8), (4, 12), (12, 4), (4, 12), (6, 5)]


def parameters(shapes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for i, shape in enumerate(shapes):
        made[f"p{i}"] = nn.Parameter(torch.randn(shape, generator=generator))
        made[f"p{i}"].grad = torch.randn(shape, generator=generator)
    return made


@pytest.mark.parametrize(("dtype", "rounding"), [(torch.float32, 1e-4), (torch.bfloat16, 0.03)])
@pytest.mark.parametrize("shape", [(16, 16), (16, 64), (1, 8), (96, 128)])
def test_orthogonalise_brings_singular_values_near_one(shape, dtype, rounding):
    """Directions stay, lengths become 1 ± 0.13 (the paper's bound for five steps from 0.001)."""
    matrices = torch.randn(3, *shape, generator=torch.Generator().manual_seed(1))
    u, s, v = torch.linalg.svd(matrices, full_matrices=False)
    result = orthogonalise(matrices.to(dtype)).float()
    kept = u.mT @ result @ v.mT  # diagonal where the directions are the same
    reached = s / torch.linalg.matrix_norm(matrices)[:, None] > 1.1e-3
    diagonal = torch.diagonal(kept, dim1=-2, dim2=-1)
    assert (diagonal[reached] - 1).abs().max() < 0.13 + rounding
    assert (kept - torch.diag_embed(diagonal)).abs().max() < rounding


def test_orthogonalise_keeps_zero_zero():
    """A matrix without gradient (a silent sublayer at the first step) must not become noise or NaN."""
    assert orthogonalise(torch.zeros(2, 3, 5)).abs().max() == 0


def test_muon_equals_its_formula_one_matrix_at_a_time():
    """Stacking equal and transposed shapes changes nothing but the speed."""
    made = parameters(SHAPES)
    weights = {name: p.detach().clone() for name, p in made.items()}
    velocity = {name: torch.zeros_like(p) for name, p in made.items()}
    muon = Muon(made, dtype=torch.float32)
    for step in range(3):
        for name, p in made.items():
            gradient = torch.randn(p.shape, generator=torch.Generator().manual_seed(step))
            p.grad = gradient.clone()
            velocity[name] = 0.9 * velocity[name] + 0.1 * gradient
            nesterov = 0.1 * gradient + 0.9 * velocity[name]
            wide = nesterov if p.shape[0] <= p.shape[1] else nesterov.T
            update = orthogonalise(wide[None])[0]
            update = update if p.shape[0] <= p.shape[1] else update.T
            scale = max(1.0, p.shape[0] / p.shape[1]) ** 0.5
            weights[name] = weights[name] * (1 - 0.02 * 0.1) - 0.02 * scale * update
        muon.step(0.02, momentum=0.9, weight_decay=0.1)
    for name, p in made.items():
        torch.testing.assert_close(p.detach(), weights[name], rtol=1e-5, atol=1e-6)


def test_muon_stacks_shapes_with_their_transposes():
    """The state is one tensor for each unordered shape."""
    state = Muon(parameters(SHAPES), dtype=torch.float32).state
    assert {name: tuple(t.shape) for name, t in state.items()} == {
        "muon.8x8": (1, 8, 8),
        "muon.4x12": (3, 4, 12),
        "muon.5x6": (1, 5, 6),
    }


def test_muon_is_blind_to_the_scale_of_the_gradient():
    """Ten times the gradient gives the same first step."""
    small, large = parameters(SHAPES), parameters(SHAPES)
    for p in large.values():
        assert p.grad is not None
        p.grad *= 10
    for made in (small, large):
        Muon(made, dtype=torch.float32).step(0.1, momentum=0.9, weight_decay=0.0)
    for name in small:
        torch.testing.assert_close(small[name], large[name], rtol=1e-4, atol=1e-5)


def test_adamw_equals_pytorchs():
    """Several steps, two learning rates, a changing factor; vectors are never decayed."""
    ours, theirs = parameters([(5, 3), (7,), (2, 2)]), parameters([(5, 3), (7,), (2, 2)])
    lrs = {"p0": 0.1, "p1": 0.01, "p2": 0.1}
    adamw = AdamW(ours, lrs, betas=(0.8, 0.95), eps=1e-10)
    reference = torch.optim.AdamW(
        [
            {"params": [p], "lr": lrs[name], "weight_decay": 0.3 if p.ndim == 2 else 0.0}
            for name, p in theirs.items()
        ],
        betas=(0.8, 0.95),
        eps=1e-10,
    )
    for step, factor in enumerate((1.0, 0.5, 0.25)):
        for name in ours:
            gradient = torch.randn(ours[name].shape, generator=torch.Generator().manual_seed(step))
            ours[name].grad, theirs[name].grad = gradient.clone(), gradient.clone()
        for group, lr in zip(reference.param_groups, lrs.values(), strict=True):
            group["lr"] = lr * factor
        adamw.step(factor, weight_decay=0.3)
        reference.step()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-5, atol=1e-6)


def test_clipping_scales_all_gradients_together():
    """The norm before is returned; directions stay; a norm below the limit changes nothing."""
    made = list(parameters([(3, 4), (5,)]).values())
    before = [p.grad.clone() for p in made if p.grad is not None]
    norm = torch.cat([g.flatten() for g in before]).norm()
    assert float(clip_gradients(made, float(norm) * 2)) == pytest.approx(float(norm))
    assert all(torch.equal(p.grad, g) for p, g in zip(made, before, strict=True))
    assert float(clip_gradients(made, 0.5)) == pytest.approx(float(norm))
    after = torch.cat([p.grad.flatten() for p in made])
    assert float(after.norm()) == pytest.approx(0.5, rel=1e-4)
    torch.testing.assert_close(
        after, torch.cat([g.flatten() for g in before]) * 0.5 / norm, rtol=1e-4, atol=0
    )


def test_clipping_is_off_at_zero():
    """The norm is still measured."""
    made = list(parameters([(3, 4)]).values())
    gradient = made[0].grad.clone()
    assert float(clip_gradients(made, 0.0)) == pytest.approx(float(gradient.norm()))
    assert torch.equal(made[0].grad, gradient)


@pytest.mark.parametrize("tied", [True, False])
def test_every_parameter_has_one_optimizer(tiny, tied):
    """Block matrices to Muon, the embedding, the head and the norms each to their own learning rate."""
    model = tiny.model(tie_word_embeddings=tied)
    kinds = split_parameters(model)
    names = [name for kind in kinds.values() for name in kind]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())
    assert list(kinds["embed"]) == ["model.embed_tokens.weight"]
    assert list(kinds["head"]) == ([] if tied else ["lm_head.weight"])
    assert all(name.endswith("_proj.weight") for name in kinds["muon"])
    assert all("norm" in name for name in kinds["scalar"])


def test_frozen_parameters_are_left_alone(tiny):
    """What needs no gradient (a frozen base under adapters) belongs to no optimizer."""
    model = tiny.model()
    model.model.embed_tokens.weight.requires_grad_(False)
    assert split_parameters(model)["embed"] == {}
