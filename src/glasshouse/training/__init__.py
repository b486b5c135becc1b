"""The one training loop: objective in, checkpoint out."""

from glasshouse.training.config import TrainingConfig
from glasshouse.training.loop import train
from glasshouse.training.objective import LossSum, NextToken, Objective, TokenBatch
from glasshouse.training.validation import ValidationLoss, validation_loss

__all__ = [
    "LossSum",
    "NextToken",
    "Objective",
    "TokenBatch",
    "TrainingConfig",
    "ValidationLoss",
    "train",
    "validation_loss",
]
