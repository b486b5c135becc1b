"""The fused head and cross entropy against the textbook formula."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from glasshouse.model.loss import CHUNK_TOKENS, head_loss


def plain(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy((hidden @ weight.T).float(), targets, ignore_index=-100, reduction="sum")


@pytest.mark.parametrize("tokens", [1, 50, CHUNK_TOKENS, CHUNK_TOKENS + 1, 2 * CHUNK_TOKENS + 7])
@pytest.mark.parametrize("counted", [1.0, 0.1])
def test_value_and_gradients(tokens: int, counted: float) -> None:
    """Loss and both gradients equal cross_entropy's, over chunk borders and with ignored targets."""
    generator = torch.Generator().manual_seed(tokens)
    hidden = torch.randn(tokens, 16, generator=generator, requires_grad=True)
    weight = torch.randn(33, 16, generator=generator, requires_grad=True)
    targets = torch.randint(0, 33, (tokens,), generator=generator)
    targets[torch.rand(tokens, generator=generator) > counted] = -100
    ours, expected = head_loss(hidden, weight, targets), plain(hidden, weight, targets)
    assert torch.allclose(ours, expected, rtol=1e-5)
    for mine, theirs in zip(
        torch.autograd.grad(3 * ours, (hidden, weight)),
        torch.autograd.grad(3 * expected, (hidden, weight)),
        strict=True,
    ):
        assert torch.allclose(mine, theirs, atol=1e-4)
    with torch.no_grad():
        assert torch.equal(head_loss(hidden, weight, targets), ours)


@pytest.mark.parametrize("frozen", [True, False])
def test_a_product_of_low_rank_is_added_to_the_logits(frozen: bool) -> None:
    """Loss and gradients by both of its factors, over a frozen head and one that learns, in chunks."""
    generator = torch.Generator().manual_seed(1)
    sizes = ((CHUNK_TOKENS + 9, 16), (33, 16), (CHUNK_TOKENS + 9, 3), (33, 3))
    hidden, weight, inner, outer = (torch.randn(*size, generator=generator) for size in sizes)
    learnt = [hidden, inner, outer] if frozen else [hidden, weight, inner, outer]
    for tensor in learnt:
        tensor.requires_grad_()
    targets = torch.randint(0, 33, (len(hidden),), generator=generator)
    targets[::5] = -100
    ours = head_loss(hidden, weight, targets, (inner, outer))
    expected = plain(torch.cat([hidden, inner], 1), torch.cat([weight, outer], 1), targets)
    assert torch.allclose(ours, expected, rtol=1e-5)
    for mine, theirs in zip(
        torch.autograd.grad(ours, learnt), torch.autograd.grad(expected, learnt), strict=True
    ):
        assert torch.allclose(mine, theirs, atol=1e-4)


def test_no_counted_target() -> None:
    """A batch in which nothing counts has loss 0 and zero gradients, not NaN."""
    hidden = torch.randn(5, 4, requires_grad=True)
    weight = torch.randn(7, 4, requires_grad=True)
    loss = head_loss(hidden, weight, torch.full((5,), -100))
    loss.backward()
    assert loss == 0
    assert hidden.grad is not None
    assert torch.equal(hidden.grad, torch.zeros(5, 4))


def test_bfloat16_hidden_with_float32_weights() -> None:
    """Master weights keep a float32 gradient while the products run in bfloat16."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(60, 16, generator=generator).bfloat16().requires_grad_()
    weight = torch.randn(33, 16, generator=generator, requires_grad=True)
    targets = torch.randint(0, 33, (60,), generator=generator)
    loss = head_loss(hidden, weight, targets)
    loss.backward()
    exact = plain(hidden.detach().float(), weight.detach(), targets)
    assert loss.dtype == torch.float32
    assert weight.grad is not None
    assert weight.grad.dtype == torch.float32
    assert abs(loss.item() / exact.item() - 1) < 5e-3
