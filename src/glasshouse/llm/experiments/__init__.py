"""A/B tests between prompt versions or models, which may be looked at after every single outcome."""

from glasshouse.llm.experiments.experiment import Arm, Experiment, validation_success
from glasshouse.llm.experiments.plan import Guard, Metric
from glasshouse.llm.experiments.report import Report, read_report, report_svg

__all__ = [
    "Arm",
    "Experiment",
    "Guard",
    "Metric",
    "Report",
    "read_report",
    "report_svg",
    "validation_success",
]
