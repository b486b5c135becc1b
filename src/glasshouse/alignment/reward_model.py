"""A reward model from preference pairs: the policy's own trunk with a scalar head (arXiv:2203.02155).

    loss = -log sigmoid(r(chosen) - r(rejected) - margin)      Bradley and Terry 1952; r reads the whole
                                                               conversation, prompt and reply
A tie counts half for each side; `label_smoothing` is the share of labels that are wrong.

    out/pairs/, out/held_out/                  the encoded pairs, and those not learnt from
    out/model/ state/ metrics.jsonl            what the training loop leaves: a Hugging Face folder
                                               ...ForSequenceClassification with one label
    out/held_out.json                          how good it is on pairs it has not seen; see `judge`
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from glasshouse.alignment.bradley_terry import agreement, preference_loss
from glasshouse.alignment.pair_batches import PairBatch, Pairs, last_token
from glasshouse.alignment.preference_pairs import PreferenceConfig, encode_pairs, fitting
from glasshouse.alignment.reward_quality import judge
from glasshouse.core.errors import DataError, ModelError
from glasshouse.core.storage import write_json
from glasshouse.model import Transformer, load
from glasshouse.model.lora import add_adapter, merge_adapter
from glasshouse.model.peft_folder import load_adapter, save_adapter
from glasshouse.model.scalar_head import ScalarTransformer, load_scalar, save_scalar
from glasshouse.tokenizer import Tokenizer
from glasshouse.training import LossSum, train

HELD_OUT = "held_out.json"


class RewardConfig(PreferenceConfig):
    """The loop's settings with the step sizes of fine-tuning, a larger one for the new head."""

    muon_lr: float = 0.006
    embed_lr: float = 0.006
    head_lr: float = 0.004
    scalar_lr: float = 0.003
    label_smoothing: float = Field(0.0, ge=0, lt=0.5)  # share of the labels that are wrong


class RewardModel:
    """Gives conversations a reward: the higher, the better the raters would like the last reply.

    Only differences between replies to one prompt mean something.
    """

    def __init__(self, model: ScalarTransformer, tokenizer: Tokenizer) -> None:
        self.model, self.tokenizer = model, tokenizer

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
        products: torch.dtype | None = None,
    ) -> RewardModel:
        """Open the folder that `reward_model` left, or one of transformers' classifiers with one label.

        Weights are held in `dtype`, and multiplied in `products`, by default the same.
        """
        model = load_scalar(folder, device, dtype).eval()
        model.compute_dtype = products or dtype
        return cls(model, Tokenizer.load(folder))

    def check_policy(self, tokenizer: Tokenizer) -> None:
        """Raise ModelError unless a policy with this tokenizer writes what this model reads."""
        ours, theirs = self.tokenizer, tokenizer
        if fingerprint(ours) != fingerprint(theirs):
            raise ModelError(
                f"the reward model has another tokenizer ({ours.vocab_size:,} tokens) than the policy "
                f"({theirs.vocab_size:,})",
                fix="train a reward model on a model with the policy's tokenizer and chat template",
            )

    @torch.no_grad()
    def score(self, conversations: Sequence[Mapping[str, Any]], batch_tokens: int = 8192) -> Tensor:
        """(n,) float32 rewards of conversations {"messages", "tools"?}, read to their last token.

        Raises DataError for a conversation that is longer than the model's context.
        """
        encode = self.tokenizer.encode_chat
        texts = [encode(each["messages"], tools=each.get("tools")).ids for each in conversations]
        return self.score_ids(texts, batch_tokens)

    @torch.no_grad()
    def score_ids(self, texts: Sequence[Sequence[int]], batch_tokens: int = 8192) -> Tensor:
        """(n,) float32 rewards of conversations as ids, of one batch after the other by length."""
        context = self.model.config.context
        for number, ids in enumerate(texts):
            if not 0 < len(ids) <= context:
                raise DataError(
                    f"conversation {number} has {len(ids)} tokens, the reward model reads 1 to {context}",
                    fix="shorten it, or leave it out",
                )
        rewards = torch.zeros(len(texts))
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        while order:
            width = len(texts[order[-1]])
            chosen = order[-max(1, batch_tokens // width) :]
            order = order[: -len(chosen)]
            rewards[chosen] = self._batch([texts[i] for i in chosen], width)
        return rewards

    def _batch(self, texts: Sequence[Sequence[int]], width: int) -> Tensor:
        device, pad = self.model.device, self.tokenizer.pad_id
        ids = torch.full((len(texts), width), pad)
        last = torch.zeros(len(texts), dtype=torch.int64)
        for row, text in enumerate(texts):
            ids[row, : len(text)] = torch.tensor(list(text))
            last[row] = row * width + last_token(text, pad)
        # What pads stands after every text and is seen by none of its tokens.
        return self.model.scalars(ids.to(device), last.to(device)).cpu()


def fingerprint(tokenizer: Tokenizer) -> tuple[Any, ...]:
    """Equal where two tokenizers give the same ids to the same conversations, as far as their tables tell."""
    tokens = tuple(tokenizer.token_bytes(i) for i in range(tokenizer.vocab_size))
    return tokens, tuple(sorted(tokenizer.special.items())), tokenizer.pattern, tokenizer.chat_template


class PreferenceFit:
    """The objective of the training loop: the mean Bradley–Terry loss of the pairs."""

    def __init__(self, pairs: Pairs, label_smoothing: float = 0.0) -> None:
        self.pairs, self.label_smoothing = pairs, label_smoothing

    @property
    def steps_per_epoch(self) -> float:
        return self.pairs.steps_per_epoch

    def check(self, model: Transformer) -> None:
        self.pairs.check(model)

    def batch(self, step: int) -> PairBatch:
        return self.pairs.batch(step)

    def rewards(self, model: Transformer, batch: PairBatch) -> Tensor:
        """(n, 2) float32: of the chosen and of the rejected conversation."""
        assert isinstance(model, ScalarTransformer)
        return model.scalars(batch.inputs, batch.last, batch.segments, batch.positions).view(-1, 2)

    def loss(self, model: Transformer, batch: PairBatch) -> LossSum:
        chosen, rejected = self.rewards(model, batch).unbind(-1)
        preferred = batch.preferred.clamp(max=1 - self.label_smoothing)
        losses = preference_loss(chosen - rejected, preferred, batch.margin)
        difference = (chosen - rejected).detach()
        metrics = {
            "accuracy": agreement(difference, batch.preferred),
            "chosen_reward": chosen.detach(),
            "rejected_reward": rejected.detach(),
            "reward_margin": difference,
        }
        return LossSum(losses.sum(), batch.count, {name: values.sum() for name, values in metrics.items()})

    def identity(self) -> dict[str, Any]:
        return {"objective": "reward", **self.pairs.identity()}

    @torch.no_grad()
    def judged(self, model: Transformer) -> dict[str, Any]:
        """What `judge` says of all pairs."""
        rewards, lengths = torch.zeros(len(self.pairs), 2), torch.zeros(len(self.pairs), 2)
        for batch in self.pairs.in_order():
            rewards[batch.pairs] = self.rewards(model, batch.to(str(model.device))).float().cpu()
            lengths[batch.pairs] = batch.lengths.view(-1, 2).float()
        return judge(rewards, lengths, self.pairs.preferred == 0.5)


def reward_model(
    model_folder: str | Path,
    pairs: Iterable[Mapping[str, Any]],
    out: str | Path,
    config: RewardConfig,
    held_out: Iterable[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Train a reward model on the trunk of the folder `model_folder`; returns summary, counts and quality.

    Raises DataError when no pair fits, ConfigError when the rows are longer than the model's context.
    """
    out = Path(out)
    tokenizer = Tokenizer.load(model_folder)
    counts = encode_pairs(pairs, tokenizer, out / "pairs", config.sequence_length)
    sizes = config.sequence_length, config.batch_tokens, config.seed
    pad = tokenizer.pad_id
    objective = PreferenceFit(Pairs(out / "pairs", *sizes, pad=pad), config.label_smoothing)
    measured = None
    held_out = fitting(held_out, tokenizer, config.sequence_length)
    if held_out:
        encode_pairs(held_out, tokenizer, out / "held_out", config.sequence_length)
        measured = PreferenceFit(Pairs(out / "held_out", *sizes, pad=pad))
    model = ScalarTransformer.on_trunk(load(model_folder))
    if config.lora is not None:
        add_adapter(model, config.lora, seed=config.seed)
        model.score.requires_grad_(True)

    def evaluate(trained: Transformer, step: int) -> dict[str, float]:
        assert measured is not None
        found = measured.judged(trained)
        values = {"val_loss": found["loss"]}
        return values | ({"val_accuracy": found["accuracy"]["value"]} if found["accuracy"] else {})

    def save_model(trained: Transformer, folder: Path) -> None:
        assert isinstance(trained, ScalarTransformer)
        if config.lora is not None:  # on the trunk in full precision, which training held in fewer digits
            save_adapter(trained, config.lora, out / "adapter", base=str(model_folder))
            whole = ScalarTransformer.on_trunk(load(model_folder))
            load_adapter(whole, out / "adapter")
            merge_adapter(whole, "default")
            whole.score.weight.data.copy_(trained.score.weight)
            trained = whole
        save_scalar(trained, tokenizer, folder)

    summary = train(
        model,
        objective,
        config,
        out,
        title="reward",
        evaluate=None if measured is None else evaluate,
        save_model=save_model,
    )
    result = {**summary, **vars(counts), "held_out": len(held_out)}
    if measured is not None:
        quality = measured.judged(load_scalar(out / "model").eval())
        write_json(out / HELD_OUT, quality)
        result["quality"] = quality
    return result
