"""A value head on the policy's own trunk: one number a position, the reward still to come."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glasshouse.alignment.packed_rows import pack_rows
from glasshouse.data import IGNORE
from glasshouse.model import Transformer

_NAME = "value_head"

SPEED = 10.0
"""Factor on the head's output. Adam moves every weight by the learning rate, which suits the policy: so the
value follows its returns ten times as fast. On the tests' tiny task rewards rise sooner (0.88 instead of 0.65
after 60 steps)."""


def add_value_head(model: Transformer) -> None:
    """Hang a head of zeros on the model: it is trained and kept in checkpoints with the model's weights."""
    head = nn.Linear(model.config.hidden_size, 1)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    model.add_module(_NAME, head)


def remove_value_head(model: Transformer) -> None:
    """The model is a plain one again, which every folder format can hold; one without a head stays so."""
    if hasattr(model, _NAME):
        delattr(model, _NAME)


def values_of(model: Transformer, hidden: Tensor) -> Tensor:
    """Values float32 (...) of hidden states (..., hidden)."""
    head = model.get_submodule(_NAME)
    assert isinstance(head, nn.Linear)
    return SPEED * F.linear(hidden.float(), head.weight, head.bias)[..., 0]


@torch.no_grad()
def score_values(
    model: Transformer, inputs: Tensor, targets: Tensor, segments: Tensor, at_once: int | None = None
) -> Tensor:
    """Values where a reply's tokens are predicted, 0 elsewhere, of rows (replies, tokens), `at_once` rows a
    pass, float32 on the CPU."""
    found = torch.zeros(targets.shape)
    step = at_once or len(inputs)
    for start in range(0, len(inputs), step):
        ids, aims, seen = (
            each[start : start + step].to(model.device) for each in (inputs, targets, segments)
        )
        where = (aims != IGNORE).nonzero(as_tuple=True)
        packed = pack_rows(ids, aims, seen, model.config.context)
        values = values_of(model, packed.states(model).index_select(0, packed.places[where]))
        found[start : start + step].index_put_([each.cpu() for each in where], values.cpu())
    return found
