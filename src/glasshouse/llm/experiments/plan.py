"""What an experiment was set out to learn, fixed before its first outcome and stored beside the outcomes."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, model_validator

from glasshouse.core.config import Config


class Metric(Config):
    """The one outcome that decides."""

    name: str = Field(min_length=1, description="what its values are, such as 'answer accepted'")
    bounds: tuple[float, float] | None = Field(
        (0.0, 1.0), description="no value can lie outside; None: unbounded, and the test is asymptotic only"
    )
    higher_is_better: bool = True
    smallest: float | None = Field(
        None, gt=0, description="the smallest difference that matters, in the values' unit"
    )

    @model_validator(mode="after")
    def _wide(self) -> Metric:
        if self.bounds is not None and not (
            all(map(math.isfinite, self.bounds)) and self.bounds[0] < self.bounds[1]
        ):
            raise ValueError("bounds are two finite numbers, the lower first")
        return self


class Guard(Config):
    """An outcome that must not become worse by more than a limit, however good the metric."""

    name: Literal["seconds", "cost", "refused", "invalid", "failed"] = Field(
        description="seconds or US dollars a call, or the part of calls that were refused, broke their "
        "schema, or failed"
    )
    limit: float = Field(ge=0, allow_inf_nan=False, description="how much more than the control's, at most")

    @property
    def bounds(self) -> tuple[float, float] | None:
        return None if self.name in ("seconds", "cost") else (0.0, 1.0)


class Plan(Config):
    """`arms`: name and share of all keys; the first is the control that the others are compared with."""

    name: str = Field(min_length=1)
    arms: tuple[tuple[str, float], ...] = Field(min_length=2)
    metric: Metric
    guards: tuple[Guard, ...] = ()
    alpha: float = Field(0.05, gt=0, lt=0.5, description="chance of ever seeing a difference that is none")

    @model_validator(mode="after")
    def _shares(self) -> Plan:
        if len(self.shares) != len(self.arms):
            raise ValueError("two arms have the same name")
        if any(share <= 0 for share in self.shares.values()) or abs(sum(self.shares.values()) - 1) > 1e-9:
            raise ValueError("every arm needs a share above 0, and shares sum to 1")
        if len({guard.name for guard in self.guards}) != len(self.guards):
            raise ValueError("a guard is named twice")
        return self

    @property
    def shares(self) -> dict[str, float]:
        return dict(self.arms)

    @property
    def control(self) -> str:
        return self.arms[0][0]
