"""report: report.html from what the other stages left; see `glasshouse.pipeline.report`."""

from __future__ import annotations

from pathlib import Path

from glasshouse.core.config import Config


class ReportConfig(Config):
    curves: bool = True
    """Draw the loss curves; without them the report needs no plotting library and is ready at once."""


def report(config: ReportConfig, run: Path) -> Path:
    from glasshouse.pipeline.report import write_report

    return write_report(run, curves=config.curves)
