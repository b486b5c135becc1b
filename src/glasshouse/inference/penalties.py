"""What is added to logits because of the tokens that came before, and because the request says so.

    logit_bias          bias[t] is added to the logit of t
    repetition_penalty  of every token that the prompt or the text holds, the logit is divided by it where it
                        is positive and multiplied where it is not (Keskar et al., arXiv:1909.05858)
    frequency_penalty   is subtracted once for each time the token came in the text
    presence_penalty    is subtracted once from every token that came in the text at all

The last two are defined as in OpenAI's API: they look at the generated text alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from glasshouse.core.errors import UsageError
from glasshouse.inference.sampling import Sampling


class Penalties:
    """The penalties of one row; it keeps what it needs to know of the prompt."""

    def __init__(self, sampling: Sampling, prompt: Sequence[int], vocab: int) -> None:
        """Raises UsageError for a bias on a token outside the vocabulary."""
        self._sampling = sampling
        self._biased = torch.tensor(list(sampling.logit_bias), dtype=torch.int64)
        self._bias = torch.tensor(list(sampling.logit_bias.values()), dtype=torch.float32)
        if len(self._biased) and not 0 <= int(self._biased.min()) <= int(self._biased.max()) < vocab:
            wrong = next(token for token in sampling.logit_bias if not 0 <= token < vocab)
            raise UsageError(
                f"logit_bias names token {wrong}, the vocabulary has {vocab}",
                fix="use ids of this model's tokenizer",
            )
        self._prompt = torch.tensor(prompt, dtype=torch.int64).unique()

    @staticmethod
    def needed(sampling: Sampling) -> bool:
        """Whether these settings change any logit."""
        return bool(
            sampling.logit_bias
            or sampling.repetition_penalty != 1
            or sampling.frequency_penalty
            or sampling.presence_penalty
        )

    def apply(self, logits: Tensor, text: Sequence[int]) -> None:
        """Change one row's logits (vocab,) in place; `text` are the tokens generated so far."""
        settings = self._sampling
        if len(self._biased):
            logits.index_add_(0, self._biased.to(logits.device), self._bias.to(logits.device))
        came, times = torch.tensor(text, dtype=torch.int64).unique(return_counts=True)
        if settings.repetition_penalty != 1:
            seen = torch.cat([self._prompt, came]).unique().to(logits.device)
            values = logits[seen]
            factor = settings.repetition_penalty
            logits[seen] = torch.where(values > 0, values / factor, values * factor)
        if len(came) and (settings.frequency_penalty or settings.presence_penalty):
            less = times * settings.frequency_penalty + settings.presence_penalty
            logits.index_add_(0, came.to(logits.device), -less.to(logits))
