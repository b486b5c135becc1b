"""Measured, not claimed: probes with known truth, intervals, and baselines scored beside every model."""

from glasshouse.evaluation.experts import expert_shares
from glasshouse.evaluation.intervals import Estimate
from glasshouse.evaluation.suite import LOWER_IS_BETTER, PROBES, run_baselines, run_suite
from glasshouse.evaluation.text import bits_per_byte
from glasshouse.evaluation.windows import bits_per_byte_by_position

__all__ = [
    "LOWER_IS_BETTER",
    "PROBES",
    "Estimate",
    "bits_per_byte",
    "bits_per_byte_by_position",
    "expert_shares",
    "run_baselines",
    "run_suite",
]
