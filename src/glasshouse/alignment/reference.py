"""The model that a policy is not to leave: a frozen copy, or, under an adapter, the policy's own base."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from glasshouse.alignment.reward_model import fingerprint
from glasshouse.alignment.rollouts import Rows, score_rows
from glasshouse.core.errors import ModelError
from glasshouse.core.storage import hash_folder
from glasshouse.model import Transformer, load
from glasshouse.model.lora import only_adapters
from glasshouse.tokenizer import Tokenizer


@dataclass(frozen=True)
class Reference:
    """Log-probabilities of the policy's replies under a model that does not learn.

    Without a model of its own it is the policy with all adapters switched off, and holds no weights.
    """

    model: Transformer | None = None
    name: str | None = None  # tells it from the model that training begins with

    def score(self, policy: Transformer, rows: Rows, at_once: int | None = None) -> Tensor:
        """(replies, tokens) float32 on the CPU; see `score_rows`."""
        if self.model is None:
            with only_adapters(policy):
                return score_rows(policy, rows, at_once)
        self.model.to(policy.device).compute_dtype = policy.compute_dtype
        return score_rows(self.model, rows, at_once)


def open_reference(folder: str | Path, policy: Transformer, tokenizer: Tokenizer) -> Reference:
    """Another model's folder as the reference of a policy that has no adapter yet.

    Raises ModelError where its tokenizer or the shapes of its weights are not the policy's.
    """
    if fingerprint(Tokenizer.load(folder)) != fingerprint(tokenizer):
        raise ModelError(
            "the reference has another tokenizer than the policy, so their log-probabilities say nothing "
            "about each other",
            where=folder,
            fix="name a model with the policy's tokenizer and chat template",
        )
    model = load(folder).eval()
    theirs = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    ours = {name: list(tensor.shape) for name, tensor in policy.state_dict().items()}
    for name in {**ours, **theirs}:
        if ours.get(name) != theirs.get(name):
            raise ModelError(
                f"the reference has other shapes than the policy: {name} is {theirs.get(name, 'not there')}, "
                f"in the policy {ours.get(name, 'not there')}",
                where=folder,
                fix="name a model that was trained from the same one",
            )
    return Reference(model, hash_folder(folder))
