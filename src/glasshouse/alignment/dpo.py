"""Direct preference optimisation (DPO, arXiv:2305.18290): a policy from pairs, without a reward model.

The reward that a policy stands for is beta · (log pi(reply) - log pi_ref(reply)), up to a term of the
prompt alone. Its difference over a pair is trained as the reward model of a Bradley-Terry fit:

    h = (log pi(chosen) - log pi_ref(chosen)) - (log pi(rejected) - log pi_ref(rejected))
    sigmoid:  -(1 - e) log sigmoid(beta h) - e log sigmoid(-beta h)
    ipo:      (h - 1 / (2 beta))²                                          (arXiv:2310.12036, equation 17)

e is the share of labels that are wrong (`label_smoothing`: "conservative" DPO, ericmitchell.ai/cdpo.pdf);
of a tie both halves count alike. With `length_normalised` each log-probability is the mean over the reply's
tokens, so that long replies weigh no more than short ones (TRL takes IPO so).

The reference is the model before training, frozen, or another of its shape; what it says of the pairs is
computed once:

    out/pairs/                                 the encoded pairs; out/held_out/: those not learnt from
    out/reference.safetensors                  its log-probabilities, (n, 2)
    out/model/ state/ metrics.jsonl            what the training loop leaves; with lora also adapter/
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from glasshouse.alignment.bradley_terry import agreement, preference_loss
from glasshouse.alignment.pair_batches import PairBatch, Pairs
from glasshouse.alignment.preference_pairs import PreferenceConfig, encode_pairs, fitting
from glasshouse.alignment.reference import open_reference
from glasshouse.alignment.sft import merged
from glasshouse.core.errors import ConfigError
from glasshouse.core.storage import hash_file, hash_folder, replaced
from glasshouse.model import Transformer, load, save
from glasshouse.model.lora import add_adapter
from glasshouse.model.peft_folder import save_adapter
from glasshouse.tokenizer import Tokenizer
from glasshouse.training import LossSum, train
from glasshouse.training.environment import Environment, applied, settle

MADE_FROM = "made_from"
"""The one key of metadata: of several, safetensors changes the order from file to file."""


class DPOConfig(PreferenceConfig):
    """The loop's settings with steps a tenth of fine-tuning's: the policy is to stay near the reference."""

    muon_lr: float = 0.0006
    embed_lr: float = 0.0006
    head_lr: float = 0.00024
    scalar_lr: float = 0.0003
    adapter_lr: float = 0.0002
    warmup_fraction: float = 0.1
    beta: float = Field(0.1, gt=0)  # how dear it is to leave the reference
    loss: Literal["sigmoid", "ipo"] = "sigmoid"
    label_smoothing: float = Field(0.0, ge=0, lt=0.5)  # share of the labels that are wrong
    reference: str | None = None  # a model's folder; None: the model that training begins with
    length_normalised: bool = False  # mean log-probabilities instead of sums; wants a larger beta, about 2


def dpo_loss(
    policy: Tensor,
    reference: Tensor,
    preferred: Tensor,
    *,
    beta: float,
    loss: Literal["sigmoid", "ipo"] = "sigmoid",
    margin: Tensor | float = 0.0,
) -> Tensor:
    """The loss of each pair, (n,), from log-probabilities (n, 2) of the chosen and the rejected reply.

    `preferred` (n,): the probability that the chosen one is better, so 1 - e, or 0.5 for a tie. `margin`: of
    the rewards, for "sigmoid" alone (DPO with an offset, arXiv:2402.10571).
    """
    chosen, rejected = (policy - reference).unbind(-1)
    difference = chosen - rejected
    if loss == "sigmoid":
        return preference_loss(beta * difference, preferred, margin)
    target = 1 / (2 * beta)
    return preferred * (difference - target) ** 2 + (1 - preferred) * (difference + target) ** 2


class DPO:
    """The objective of the training loop: the mean loss of the pairs."""

    def __init__(self, pairs: Pairs, reference: Tensor, config: DPOConfig, reference_hash: str = "") -> None:
        """`reference` (n, 2): summed log-probabilities of every pair under the frozen model."""
        self.pairs, self.reference, self.config = pairs, reference, config
        self._reference_hash = reference_hash

    @property
    def steps_per_epoch(self) -> float:
        return self.pairs.steps_per_epoch

    def check(self, model: Transformer) -> None:
        self.pairs.check(model)
        if self.config.loss == "ipo" and bool(self.pairs.margin.any()):
            raise ConfigError(
                "the pairs have margins, which ipo has no place for",
                fix="set loss=sigmoid, or leave the margins out",
            )

    def batch(self, step: int) -> PairBatch:
        return self.pairs.batch(step)

    def loss(self, model: Transformer, batch: PairBatch) -> LossSum:
        config = self.config
        policy = batch.sequence_logprobs(model)
        reference = self.reference[batch.pairs].to(policy.device)
        if config.length_normalised:
            lengths = batch.lengths.view(-1, 2)
            policy, reference = policy / lengths, reference / lengths
        preferred = batch.preferred.clamp(max=1 - config.label_smoothing)
        losses = dpo_loss(
            policy, reference, preferred, beta=config.beta, loss=config.loss, margin=batch.margin
        )
        chosen, rejected = (config.beta * (policy - reference).detach()).unbind(-1)
        metrics = {
            "accuracy": agreement(chosen - rejected, batch.preferred),
            "chosen_reward": chosen,
            "rejected_reward": rejected,
            "reward_margin": chosen - rejected,
        }
        return LossSum(losses.sum(), batch.count, {name: values.sum() for name, values in metrics.items()})

    def identity(self) -> dict[str, Any]:
        return {"objective": "dpo", **self.pairs.identity(), "reference": self._reference_hash}

    def evaluate(self, model: Transformer) -> dict[str, float]:
        """Means over all pairs: val_loss, val_accuracy, ..."""
        totals: dict[str, float] = {}
        for batch in self.pairs.in_order():
            found = self.loss(model, batch.to(str(model.device)))
            for name, value in {"loss": found.loss_sum, **found.metrics}.items():
                totals[name] = totals.get(name, 0.0) + float(value)
        return {f"val_{name}": total / len(self.pairs) for name, total in totals.items()}


def dpo(
    model_folder: str | Path,
    pairs: Iterable[Mapping[str, Any]],
    out: str | Path,
    config: DPOConfig,
    held_out: Iterable[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Train the Hugging Face folder `model_folder` on pairs; returns the loop's summary and the counts.

    Every `eval_every` steps and at the end the metrics are also measured on the pairs `held_out`. Raises
    DataError when no pair fits, ConfigError when the rows are longer than the model's context, ModelError for
    a reference of other shapes or another tokenizer.
    """
    out = Path(out)
    tokenizer = Tokenizer.load(model_folder)
    counts = encode_pairs(pairs, tokenizer, out / "pairs", config.sequence_length)
    parts = {"pairs": Pairs(out / "pairs", config.sequence_length, config.batch_tokens, config.seed)}
    held_out = fitting(held_out, tokenizer, config.sequence_length)
    if held_out:
        encode_pairs(held_out, tokenizer, out / "held_out", config.sequence_length)
        parts["held_out"] = Pairs(out / "held_out", config.sequence_length, config.batch_tokens, config.seed)
    model = frozen = load(model_folder)
    if config.reference is not None:
        frozen = open_reference(config.reference, model, tokenizer).model
        assert frozen is not None
    environment = settle(out, config)
    # What training begins with decides for the reference too: else it would start at a distance from itself.
    config = config.model_copy(update={"device": environment.device, "dtype": environment.dtype})
    objectives: dict[str, DPO] = {}
    weights = hash_folder(config.reference or model_folder)
    for name, part in parts.items():
        part.check(model)
        path = out / ("reference.safetensors" if name == "pairs" else f"reference_{name}.safetensors")
        made_from = f"model {weights}, pairs {part.shards.sha256}"
        reference = reference_logprobs(frozen, part, path, environment, made_from)
        objectives[name] = DPO(part, reference, config, hash_file(path))
    del frozen  # has said all that it is asked
    if config.lora is not None:
        add_adapter(model, config.lora, seed=config.seed)

    def save_model(trained: Transformer, folder: Path) -> None:
        if config.lora is not None:
            save_adapter(trained, config.lora, out / "adapter", base=str(model_folder))
            trained = merged(model_folder, out / "adapter")
        save(trained, tokenizer, folder)

    measured = objectives.get("held_out")
    summary = train(
        model,
        objectives["pairs"],
        config,
        out,
        title="dpo",
        evaluate=None if measured is None else lambda trained, step: measured.evaluate(trained),
        save_model=save_model,
    )
    return {**summary, **vars(counts), "held_out": len(held_out)}


def reference_logprobs(
    model: Transformer, pairs: Pairs, path: Path, environment: Environment, made_from: str
) -> Tensor:
    """(n, 2) float32: what `model` says of both replies of every pair; computed once, then read from `path`.

    Computed as training will compute it, on its device and in its number format. `made_from` tells model and
    pairs apart from others, for which the file is made anew.
    """
    if path.exists():
        with safe_open(path, framework="pt") as file:
            if file.metadata() == {MADE_FROM: made_from}:
                return file.get_tensor("logprobs")
    model.to(environment.device)
    model.compute_dtype = environment.torch_dtype
    logprobs = torch.zeros(len(pairs), 2)
    with applied(environment), torch.no_grad():
        for batch in pairs.in_order():
            logprobs[batch.pairs] = batch.to(environment.device).sequence_logprobs(model).cpu()
    with replaced(path) as temporary:
        save_file({"logprobs": logprobs}, temporary, metadata={MADE_FROM: made_from})
    return logprobs
