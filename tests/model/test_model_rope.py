"""Rotary positions: a rotation of complex numbers, and only differences of positions matter."""

from __future__ import annotations

import torch

from glasshouse.model.rope import rope_tables, rotate


def tables(length: int, head_dim: int = 8, theta: float = 100.0) -> tuple[torch.Tensor, torch.Tensor]:
    cos, sin = rope_tables(head_dim, theta, length)
    return cos[None], sin[None]


def test_pairs_turn_as_complex_numbers() -> None:
    """Channels (i, i + half) are one complex number, multiplied by exp(1j · position · theta^(-2i/d))."""
    x = torch.randn(1, 11, 3, 8, dtype=torch.float64)
    turned = rotate(x, *(table.double() for table in tables(11)))
    for i in range(4):
        angle = torch.arange(11)[:, None] * 100.0 ** (-2 * i / 8)
        number = torch.complex(x[0, ..., i], x[0, ..., i + 4]) * torch.polar(torch.ones(11, 1), angle)
        assert torch.allclose(turned[0, ..., i], number.real, atol=1e-5)
        assert torch.allclose(turned[0, ..., i + 4], number.imag, atol=1e-5)


def test_scores_depend_on_distance_only() -> None:
    """The product of a turned query and a turned key is the same wherever both are moved together."""
    cos, sin = tables(50)
    query, key = torch.randn(1, 1, 1, 8), torch.randn(1, 1, 1, 8)

    def score(query_at: int, key_at: int) -> float:
        q = rotate(query, cos[:, query_at : query_at + 1], sin[:, query_at : query_at + 1])
        k = rotate(key, cos[:, key_at : key_at + 1], sin[:, key_at : key_at + 1])
        return float((q * k).sum())

    for shift in (1, 17, 40):
        assert abs(score(7, 2) - score(7 + shift, 2 + shift)) < 1e-4
