"""Temperature scaling (Guo et al. 2017, arXiv:1706.04599): the baseline that any taught confidence must beat.

A reply's confidence is the probability of its tokens with all logits divided by one temperature. The
temperature is the one under which it is likeliest that just those replies are right that are. One parameter
can make all confidences larger or smaller, and leaves their order nearly as it is.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from glasshouse.inference import LanguageModel
from glasshouse.inference.scoring import text_logprobs
from glasshouse.world.task import Message

TEMPERATURES = tuple(1.1**i for i in range(-15, 32))
"""From 0.24 to 19, each ten percent above the one before; 1 is among them."""


def reply_probabilities(
    model: LanguageModel,
    conversations: Sequence[Sequence[Message]],
    replies: Sequence[str],
    temperatures: Sequence[float] = TEMPERATURES,
) -> np.ndarray:
    """(replies, temperatures) probability of each whole reply after its conversation, its end included."""
    tokenizer = model.tokenizer
    prompts = [tokenizer.encode_chat(m, add_generation_prompt=True).ids for m in conversations]
    ends = [tokenizer.end_of_turn_id]
    return (
        text_logprobs(
            model.model, prompts, [[*tokenizer.encode(reply), *ends] for reply in replies], temperatures
        )
        .double()
        .exp()
        .numpy()
    )


def fit_temperature(probabilities: np.ndarray, right: np.ndarray) -> int:
    """Which column of (replies, temperatures) makes `right`, (replies,) in 0 to 1, the likeliest."""
    sure = np.clip(probabilities, 1e-6, 1 - 1e-6)
    likelihood = right[:, None] * np.log(sure) + (1 - right[:, None]) * np.log1p(-sure)
    return int(likelihood.sum(0).argmax())
