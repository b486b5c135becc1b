"""The one training loop: objective in, checkpoint out."""

from glasshouse.training.config import TrainingConfig
from glasshouse.training.loop import train
from glasshouse.training.objective import LossSum, NextToken, Objective, OnPolicy, TokenBatch
from glasshouse.training.validation import ValidationLoss, expert_load, validation_loss

__all__ = [
    "LossSum",
    "NextToken",
    "Objective",
    "OnPolicy",
    "TokenBatch",
    "TrainingConfig",
    "ValidationLoss",
    "expert_load",
    "train",
    "validation_loss",
]
