"""Rotary positions: a rotation of complex numbers, and only differences of positions matter."""

from __future__ import annotations

import math

import pytest
import torch
from pydantic import ValidationError

from glasshouse.model import ModelConfig
from glasshouse.model.config import RopeScaling
from glasshouse.model.rope import WHOLE_TABLE, Rope, frequencies, rotate

CPU = torch.device("cpu")


def shape(context: int = 64, **scaling: object) -> ModelConfig:
    return ModelConfig(
        vocab_size=2,
        head_dim=8,
        rope_theta=100.0,
        max_position_embeddings=context,
        rope_scaling=RopeScaling(**scaling) if scaling else None,
    )


def tables(length: int) -> tuple[torch.Tensor, torch.Tensor]:
    cos, sin = Rope(shape()).tables(length, CPU)
    return cos[None, :length], sin[None, :length]


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


def rates(length: int = 64, context: int = 64, **scaling: object) -> list[float]:
    return frequencies(shape(context, **scaling), length)[0].tolist()


def test_linear_scaling_divides_positions() -> None:
    """Position p at factor 4 has the angles of position p / 4."""
    assert rates(rope_type="linear", factor=4) == pytest.approx([rate / 4 for rate in rates()])


def test_dynamic_scaling_starts_beyond_the_trained_context() -> None:
    """Up to the context nothing changes; beyond it the fastest pair keeps its pace."""
    assert rates(64, rope_type="dynamic", factor=4) == rates()
    stretched = rates(256, rope_type="dynamic", factor=4)
    assert stretched[0] == rates()[0]  # the fastest pair keeps its pace at any length
    assert stretched[-1] == pytest.approx(rates()[-1] / (4 * 4 - 3))
    assert shape(rope_type="dynamic", factor=4).context == 256


def test_yarn_and_llama3_keep_fast_pairs_and_stretch_slow_ones() -> None:
    """A pair that turns often in the trained context is kept, one that never turns once is divided."""
    plain = rates()
    turns = [64 * rate / (2 * math.pi) for rate in plain]
    assert turns[0] > 8
    assert turns[-1] < 1
    trained = {"factor": 4, "original_max_position_embeddings": 64}
    for scaled in (
        rates(rope_type="yarn", beta_fast=8, **trained),
        rates(rope_type="llama3", high_freq_factor=8, **trained),
    ):
        assert scaled[0] == pytest.approx(plain[0])
        assert scaled[-1] == pytest.approx(plain[-1] / 4)
        assert all(rate / 4 <= new <= rate + 1e-9 for rate, new in zip(plain, scaled, strict=True))


def test_yarn_sharpens_attention() -> None:
    """Queries and keys both grow by 0.1 ln(factor) + 1 (arXiv:2309.00071, equation 22)."""
    trained = {"factor": 4, "original_max_position_embeddings": 64}
    assert frequencies(shape(rope_type="yarn", **trained), 1)[1] == pytest.approx(0.1 * math.log(4) + 1)
    assert frequencies(shape(rope_type="yarn", attention_factor=0.5, **trained), 1)[1] == 0.5


def test_long_tables_grow_as_they_are_used() -> None:
    """A context of a million tokens costs no table of a million rows, and every row is the same as in one."""
    rope = Rope(shape(context=1_000_000))
    short = rope.tables(10, CPU)[0].clone()
    assert len(short) == WHOLE_TABLE
    longer = rope.tables(WHOLE_TABLE + 1, CPU)[0]
    assert len(longer) == 2 * WHOLE_TABLE
    assert torch.equal(longer[:WHOLE_TABLE], short)


@pytest.mark.parametrize(
    "scaling",
    [
        {"rope_type": "yarn", "factor": 4},
        {"rope_type": "linear", "factor": 0.5},
        {"rope_type": "llama3", "factor": 4, "original_max_position_embeddings": 8, "high_freq_factor": 1},
    ],
)
def test_scaling_that_cannot_be_is_refused(scaling: dict[str, object]) -> None:
    """A trained context that is missing, a factor below 1, a ramp that runs backwards."""
    with pytest.raises(ValidationError):
        RopeScaling(**scaling)
