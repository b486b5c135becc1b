"""The model of Bradley and Terry (1952): scores say how probable it is that one reply is the better one."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def preference_loss(difference: Tensor, preferred: Tensor, margin: Tensor | float = 0.0) -> Tensor:
    """Cross entropy of the Bradley–Terry model, in nats, of the shape of its arguments.

    `difference` is the chosen reply's score less the rejected one's, and sigmoid(difference) the model's
    probability that the chosen one is better; `preferred` is the true one: 1, less where labels are known to
    be wrong at times, 0.5 for a tie. With `margin` a score has to be better by that much (Llama 2,
    arXiv:2307.09288, section 3.2.2).
    """
    chosen, rejected = -F.logsigmoid(difference - margin), -F.logsigmoid(-difference - margin)
    return preferred * chosen + (1 - preferred) * rejected


def agreement(difference: Tensor, preferred: Tensor) -> Tensor:
    """1 where the better reply has the higher score, 0 where not, 0.5 for equal scores and for ties."""
    return torch.where(preferred == 0.5, 0.5, (difference.sign() + 1) / 2)
