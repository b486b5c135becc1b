"""The one training loop: an objective in, a trained model and its metrics out.

    out/model/           the final model, written by the caller's `save_model`
    out/state/           environment, identity, newest checkpoint; finished.json at the end
    out/metrics.jsonl    step, tokens, seconds, loss, lr, grad_norm, tokens_per_second, flops, ...

Killed at any moment, the same call continues from the newest checkpoint and ends with the same bits as
an uninterrupted run on the same machine, threads and versions: batches and dropout are functions of the
step (of an `OnPolicy` objective, of the step and the weights), there is no other randomness, and what the
sums depend on is frozen in state/environment.json.
Where part of the model is frozen, checkpoints hold only what is trained.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from glasshouse.core.errors import ConfigError, GlasshouseError, InterruptedRunError
from glasshouse.core.memory import KeptMemory, release_freed_memory
from glasshouse.core.progress import bar
from glasshouse.core.seeds import derive
from glasshouse.core.storage import directory, hash_json, read_json, write_json
from glasshouse.model import Transformer
from glasshouse.training.checkpoint import CheckpointFolder
from glasshouse.training.compilation import choose, compile_blocks, uncompiled
from glasshouse.training.config import TrainingConfig
from glasshouse.training.environment import Environment, applied, settle
from glasshouse.training.metrics import MetricsFile
from glasshouse.training.objective import Objective, OnPolicy, TrainingBatch
from glasshouse.training.optimizers import AdamW, Muon, clip_gradients, split_parameters
from glasshouse.training.schedule import warmup_stable_decay

ADAM_EPS = 1e-10
"""Small against the gradients of rare tokens' embeddings, which a mean over thousands of targets shrinks."""

Evaluate = Callable[[Transformer, int], dict[str, float]]
"""(model, steps done) -> values for the metrics row, such as {"val_loss": 1.9}."""


def train(
    model: Transformer,
    objective: Objective[Any],
    config: TrainingConfig,
    out: str | Path,
    *,
    title: str = "train",
    evaluate: Evaluate | None = None,
    save_model: Callable[[Transformer, Path], None],
) -> dict[str, Any]:
    """Train `model` in place (or finish, or skip, what an earlier call began); returns a summary.

    On a finished run nothing is computed and `model` is left as given: the trained one is in out/model.
    Raises ConfigError when `out` holds a run of other settings, data or starting weights;
    GlasshouseError when the loss is not a finite number; StorageError when the disk is full.
    """
    out = Path(out)
    state = out / "state"
    objective.check(model)
    _check_identity(state / "identity.json", model, objective, config)
    CheckpointFolder(state).sweep()
    if (state / "finished.json").exists():
        CheckpointFolder(state).clear()  # a kill may have come between the two
        return read_json(state / "finished.json")
    environment = settle(out, config)
    with applied(environment):
        run = _Run(model, objective, config, out, environment)
        run.prepare_compilation()
        run.resume()
        try:
            summary = run.steps_to_end(title, evaluate)
        except KeyboardInterrupt:
            raise InterruptedRunError(
                f"stopped at step {run.step} of {run.steps}",
                where=out,
                fix=f"run the same command again to continue from step {run.saved}",
            ) from None
    with directory(out / "model") as folder:
        save_model(model, folder)
    write_json(state / "finished.json", summary)
    run.checkpoints.clear()
    release_freed_memory()  # what comes next, sampling say, takes other blocks
    return summary


def _check_identity(
    path: Path, model: Transformer, objective: Objective[Any], config: TrainingConfig
) -> None:
    """Freeze what the numbers depend on at the first start; refuse to mix two runs in one folder."""
    # The first has no effect on numbers, the others are frozen in environment.json.
    free = {"checkpoint_every_seconds", "device", "dtype", "compile"}
    identity = {
        "settings": config.model_dump(mode="json", exclude=free),
        "data": objective.identity(),
        "weights": _hash_weights(model),
    }
    if not path.exists():
        write_json(path, identity)
        return
    before = read_json(path)
    differing = [key for key in identity if hash_json(identity[key]) != hash_json(before.get(key))]
    if differing:
        raise ConfigError(
            f"this folder holds a run of other {' and '.join(differing)}",
            where=path.parent.parent,
            fix="choose another output folder, or delete this one",
        )


def _hash_weights(model: Transformer) -> str:
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().data)
    return digest.hexdigest()[:16]


class _Run:
    """The state of one training run between two steps."""

    def __init__(
        self,
        model: Transformer,
        objective: Objective[Any],
        config: TrainingConfig,
        out: Path,
        environment: Environment,
    ) -> None:
        self.model, self.objective, self.config = model, objective, config
        self.environment, self.kept_memory = environment, KeptMemory()
        model.to(environment.device)
        model.compute_dtype, model.recompute = environment.torch_dtype, config.recompute
        for parameter in model.parameters():
            if not parameter.requires_grad:  # never stepped, so it needs no more digits than products use
                parameter.data = parameter.data.to(environment.torch_dtype)
        self.has_dropout = any(getattr(module, "dropout", 0) for module in model.modules())
        kinds = split_parameters(model)
        self.trained = [p for kind in kinds.values() for p in kind.values()]
        self.muon = Muon(kinds["muon"], dtype=environment.torch_dtype)
        lrs = {
            "embed": config.embed_lr,
            "head": config.head_lr,
            "scalar": config.scalar_lr,
            "adapter": config.adapter_lr,
        }
        self.adamw = AdamW(
            {name: p for kind in lrs for name, p in kinds[kind].items()},
            {name: lr for kind, lr in lrs.items() for name in kinds[kind]},
            betas=config.betas,
            eps=ADAM_EPS,
        )
        self.steps = _planned_steps(config, objective)
        self.flops_per_token = model.config.flops_per_token(config.sequence_length)
        self.checkpoints = CheckpointFolder(out / "state")
        self.out = out
        self.step = self.saved = 0  # steps done, and steps done at the newest checkpoint
        self.tokens = 0  # real tokens trained on, padding apart
        self.seconds = 0.0
        self.since_log = {"loss_sum": 0.0, "count": 0, "tokens": 0}
        self.sums: dict[str, float] = {}  # of the objective's other metrics, since the last row too

    def prepare_compilation(self) -> None:
        """Compile the blocks as the first start chose, or choose now."""
        if self.environment.compile is None:
            chosen = choose(
                self.config.compile, self.model, self.environment.device, self.steps, self.one_pass
            )
            self.environment = self.environment.decided(self.out, *chosen)
        elif self.environment.compile:
            compile_blocks(self.model)

    def one_pass(self) -> None:
        """Forward and backward of the first batch, to be timed; the weights stay."""
        state = self.objective.state() if isinstance(self.objective, OnPolicy) else {}
        self.sample(0)
        batch = self.objective.batch(0).to(self.environment.device)
        self.gradients(batch)
        float(clip_gradients(self.trained, 0.0))  # waits for an asynchronous device
        self.forget_gradients()
        if isinstance(self.objective, OnPolicy):
            self.objective.restore(state)

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {f"model.{name}": p for name, p in self.model.named_parameters() if p.requires_grad}
        for optimizer in (self.muon, self.adamw):
            tensors |= {f"optimizer.{name}": t for name, t in optimizer.state.items()}
        return tensors

    def save(self) -> None:
        self.metrics.sync()
        progress = {
            "step": self.step,
            "tokens": self.tokens,
            "seconds": self.seconds,
            "since_log": self.since_log,
            "sums": self.sums,
        }
        if isinstance(self.objective, OnPolicy):
            progress["objective"] = self.objective.state()
        self.checkpoints.save(self.step, self._tensors(), progress)
        self.saved = self.step

    def resume(self) -> None:
        checkpoint = self.checkpoints.load()
        if checkpoint is not None:
            with torch.no_grad():
                for name, tensor in self._tensors().items():
                    tensor.copy_(checkpoint.tensors[name])
            progress = checkpoint.progress
            self.step = self.saved = checkpoint.step
            self.tokens, self.seconds = progress["tokens"], progress["seconds"]
            self.since_log, self.sums = progress["since_log"], progress.get("sums", {})
            if isinstance(self.objective, OnPolicy):
                self.objective.restore(progress["objective"])
        self.metrics = MetricsFile(self.out / "metrics.jsonl", self.step)

    def steps_to_end(self, title: str, evaluate: Evaluate | None) -> dict[str, Any]:
        config = self.config
        before = self.seconds
        start = last_save = logged = time.perf_counter()
        row: dict[str, Any] = {}
        with bar(title, total=self.steps * config.batch_tokens) as progress:
            progress.update(self.step * config.batch_tokens)
            while self.step < self.steps:
                loss, norm, lr = self.one_step()
                last = self.step == self.steps
                evaluating = evaluate is not None and (
                    last or (config.eval_every > 0 and self.step % config.eval_every == 0)
                )
                if last or evaluating or self.step % config.log_every == 0:
                    now = time.perf_counter()
                    row = {
                        "step": self.step,
                        "tokens": self.tokens,
                        "seconds": round(before + now - start, 3),
                        "loss": self.since_log["loss_sum"] / max(1, self.since_log["count"]),
                        "lr": lr,
                        "grad_norm": norm,
                        "tokens_per_second": round(self.since_log["tokens"] / (now - logged), 1),
                        "flops": self.tokens * self.flops_per_token,
                    }
                    row |= {
                        name: total / max(1, self.since_log["count"]) for name, total in self.sums.items()
                    }
                    if evaluating and evaluate is not None:
                        row |= self.evaluated(evaluate)
                    if isinstance(self.objective, OnPolicy):
                        row |= self.objective.metrics()
                    self.metrics.append(row)
                    self.since_log, self.sums = {"loss_sum": 0.0, "count": 0, "tokens": 0}, {}
                    logged = time.perf_counter()
                progress.update(self.step * config.batch_tokens, loss=f"{loss:.3f}")
                self.seconds = before + time.perf_counter() - start
                due = time.perf_counter() - last_save >= config.checkpoint_every_seconds
                if due and not last and self.begins(self.step):
                    self.save()
                    last_save = time.perf_counter()
        return {
            "steps": self.step,
            "tokens": self.tokens,
            "seconds": round(self.seconds, 3),
            "flops": self.tokens * self.flops_per_token,
            "parameters": self.model.num_parameters(),
            "last": row,
        }

    def evaluated(self, evaluate: Evaluate) -> dict[str, float]:
        self.model.eval()
        with torch.no_grad(), uncompiled(bool(self.environment.compile)):
            values = evaluate(self.model, self.step)
        self.model.train()
        for name, value in values.items():
            self.check_finite(name, value)
        return values

    def check_finite(self, name: str, value: float) -> None:
        if not math.isfinite(value):
            raise GlasshouseError(
                f"{name} became {value} at step {self.step + 1} of {self.steps}",
                where=self.out,
                fix=f"lower the learning rates or set grad_clip; the last good checkpoint: step {self.saved}",
            )

    def begins(self, step: int) -> bool:
        """Whether nothing but the weights decides this step's batch, so that a run can continue here."""
        return not isinstance(self.objective, OnPolicy) or self.objective.begins(step)

    def sample(self, step: int) -> None:
        """Let the model write this step's data, if the objective learns from its own samples."""
        if isinstance(self.objective, OnPolicy) and self.objective.begins(step):
            self.kept_memory.check()  # every sample has replies of other lengths
            self.model.eval()
            with uncompiled(bool(self.environment.compile)):
                self.objective.sample(self.model, step)
            self.model.train()

    def one_step(self) -> tuple[float, float, float]:
        """One optimizer step; returns (mean loss, gradient norm, Muon's learning rate)."""
        config = self.config
        self.sample(self.step)
        batch = self.objective.batch(self.step).to(self.environment.device)
        if self.has_dropout:  # what is left out is a function of the step, as the batch is
            torch.manual_seed(derive(config.seed, "dropout", self.step))
        loss_sum, metrics = self.gradients(batch)
        total = float(loss_sum)
        norm = float(clip_gradients(self.trained, config.grad_clip))
        count = max(1, batch.count)
        self.check_finite("the loss", total / count)
        self.check_finite("the gradient's norm", norm)
        factor = warmup_stable_decay(
            self.step, self.steps, config.warmup_fraction, config.decay_fraction, config.final_lr_fraction
        )
        warm = min(1.0, self.step / config.momentum_warmup_steps) if config.momentum_warmup_steps else 1.0
        momentum = config.momentum_start + (config.momentum - config.momentum_start) * warm
        self.muon.step(config.muon_lr * factor, momentum, config.weight_decay)
        self.adamw.step(factor, config.weight_decay)
        self.forget_gradients()
        self.step += 1
        self.tokens += batch.tokens
        self.since_log["loss_sum"] += total
        self.since_log["count"] += batch.count
        self.since_log["tokens"] += batch.tokens
        for name, value in metrics.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(value)
        return total / count, norm, config.muon_lr * factor

    def gradients(self, batch: TrainingBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Accumulate the gradient of the mean loss over micro-batches; returns summed loss and metrics."""
        loss_sum = torch.zeros((), device=self.environment.device)
        metrics: dict[str, Tensor] = {}
        for micro in batch.split(self.config.micro_batch_rows):
            part = self.objective.loss(self.model, micro)
            (part.loss_sum / max(1, batch.count)).backward()
            loss_sum += part.loss_sum.detach()
            for name, value in part.metrics.items():
                metrics[name] = metrics[name] + value if name in metrics else value
        return loss_sum, metrics

    def forget_gradients(self) -> None:
        for parameter in self.trained:
            parameter.grad = None


def _planned_steps(config: TrainingConfig, objective: Objective[Any]) -> int:
    if config.tokens is not None:
        return max(1, round(config.tokens / (config.rows_per_batch * config.sequence_length)))
    assert config.epochs is not None
    return max(1, math.ceil(config.epochs * objective.steps_per_epoch))
