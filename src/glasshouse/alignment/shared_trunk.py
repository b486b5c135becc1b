"""A reward model on the policy's own trunk: where both are adapters on one base, it is held once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from glasshouse.alignment.reward_model import RewardModel
from glasshouse.core.errors import ModelError
from glasshouse.model import Transformer
from glasshouse.model.lora import active_adapters, only_adapters, places, remove_adapter, use_adapters
from glasshouse.model.peft_folder import load_adapter
from glasshouse.model.scalar_head import ScalarTransformer, load_scalar
from glasshouse.tokenizer import Tokenizer

NAME = "reward"


class AdapterRewardModel(RewardModel):
    """A reward model that is an adapter called "reward" and a head, on the weights of a policy.

    It computes as the policy does, in the number format of its frozen weights.
    """

    def _batch(self, texts: Sequence[Sequence[int]], width: int) -> Tensor:
        self.model.compute_dtype = self.model.model.embed_tokens.weight.dtype
        self.model.score.to(self.model.device)
        with only_adapters(self.model, NAME):
            return super()._batch(texts, width)


def on_trunk(policy: Transformer, folder: str | Path) -> AdapterRewardModel | None:
    """The reward model in `folder` over the policy's frozen weights; None where it is no adapter on them.

    `policy` carries the adapter that it is trained by. The reward model's is beside its folder, as `train
    reward --lora` leaves it, and belongs on these weights if together they are the folder's, to the bit.
    """
    folder = Path(folder)
    if not (folder.parent / "adapter").is_dir():
        return None
    whole = load_scalar(folder)
    active = active_adapters(policy)
    try:
        load_adapter(policy, folder.parent / "adapter", name=NAME)
    except ModelError:  # of a model of other shapes
        return None
    if not _same_trunk(policy, whole):
        remove_adapter(policy, NAME)
        return None
    for place in places(policy):
        if (adapter := place.adapter(NAME)) is not None:
            adapter.requires_grad_(False)
    use_adapters(policy, *active)
    scalar = ScalarTransformer.on_trunk(policy)
    scalar.score.weight.data.copy_(whole.score.weight)
    return AdapterRewardModel(scalar.eval(), Tokenizer.load(folder))


@torch.no_grad()
def _same_trunk(policy: Transformer, whole: ScalarTransformer) -> bool:
    """Whether the policy's weights with the adapter "reward" added are those of the reward model."""
    adapters = {place.parameter: place.adapter(NAME) for place in places(policy)}
    ours = dict(policy.model.named_parameters(prefix="model"))
    for name, theirs in whole.model.named_parameters(prefix="model"):
        if name not in ours or ours[name].shape != theirs.shape:
            return False
        adapter = adapters.get(name)
        weight = ours[name].float() if adapter is None else ours[name].float() + adapter.delta()
        if not torch.equal(weight, theirs):
            return False
    return True
