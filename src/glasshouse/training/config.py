"""Settings of the training loop."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from glasshouse.core.config import Config


class TrainingConfig(Config):
    """How long, how large, how fast. Exactly one of `tokens` and `epochs` gives the budget."""

    tokens: int | None = Field(None, gt=0)  # budget in row positions (padding, under 1-3%, included)
    epochs: float | None = Field(None, gt=0)  # or in passes over the data
    batch_tokens: int = Field(8192, gt=0)  # row positions a step
    sequence_length: int = Field(256, gt=1)
    recompute: bool = (
        False  # keep only each block's input for the backward pass: less memory, a third more work
    )
    micro_batch_rows: int | None = Field(None, gt=0)  # rows a forward pass; None: the whole batch at once
    muon_lr: float = Field(0.02, gt=0)  # matrices of the blocks
    embed_lr: float = Field(0.02, gt=0)
    head_lr: float = Field(0.008, gt=0)
    scalar_lr: float = Field(0.01, gt=0)  # norms and biases
    adapter_lr: float = Field(0.001, gt=0)  # low-rank adapters
    momentum: float = Field(0.95, ge=0, lt=1)  # of Muon, after its warmup
    momentum_start: float = Field(0.85, ge=0, lt=1)
    momentum_warmup_steps: int = Field(300, ge=0)
    betas: tuple[float, float] = (0.8, 0.95)  # of AdamW
    weight_decay: float = Field(0.0, ge=0)  # decoupled, times the learning rate
    warmup_fraction: float = Field(0.0, ge=0, le=1)
    decay_fraction: float = Field(0.5, ge=0, le=1)
    final_lr_fraction: float = Field(0.0, ge=0, le=1)
    grad_clip: float = Field(0.0, ge=0)  # largest joint norm of all gradients; 0: no clipping
    seed: int = 0
    log_every: int = Field(10, gt=0)  # steps
    eval_every: int = Field(0, ge=0)  # steps; 0: at the end only
    checkpoint_every_seconds: float = Field(30.0, ge=0)  # 0: after every step
    device: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"  # of matrix products; weights stay float32
    compile: Literal["auto", "on", "off"] = "auto"

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if (self.tokens is None) == (self.epochs is None):
            raise ValueError("give either tokens or epochs, and leave the other out (null)")
        if self.batch_tokens < self.sequence_length:
            raise ValueError("batch_tokens must hold at least one row of sequence_length")
        if self.warmup_fraction + self.decay_fraction > 1:
            raise ValueError("warmup_fraction and decay_fraction together exceed 1")
        return self

    @property
    def rows_per_batch(self) -> int:
        return self.batch_tokens // self.sequence_length
