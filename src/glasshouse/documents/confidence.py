"""How sure an answer is, field by field and as a whole.

With a calibrator that was fitted for the very same model, task, domain and prompt, a field's confidence is
the probability that it is right. Elsewhere it is uncalibrated: the weaker of what the model's tokens and its
votes say, which orders fields but promises nothing; unknown where neither is told.

The confidence of the whole is the mean of its fields': the share of them that is right, as expected. That
holds however much fields are wrong together; the chance that all are right would need to know that.
"""

from __future__ import annotations

from collections.abc import Sequence

from glasshouse.documents.calibrator import Calibrator, Setting
from glasshouse.documents.result import FieldResult

MOST = 0.99
"""The most that an uncalibrated confidence says: nothing is certain because a model is."""


def rated(
    fields: Sequence[FieldResult], calibrator: Calibrator | None, setting: Setting
) -> tuple[FieldResult, ...]:
    """The fields with `confidence` and `calibrated` filled in."""

    def one(field: FieldResult) -> FieldResult:
        sure = None if calibrator is None else calibrator.confidence(field, setting)
        found = {"confidence": raw(field) if sure is None else sure, "calibrated": sure is not None}
        return field.model_copy(update=found)

    return tuple(map(one, fields))


def raw(field: FieldResult) -> float | None:
    """The weaker of token probability and vote share; at most half of it where the quote stands nowhere."""
    told = [share for share in (field.token_probability, field.vote_share) if share is not None]
    if not told:
        return None
    missing = field.quote_match is not None and field.quote_match <= 0
    return min(*told, MOST) / (2 if missing else 1)


def overall(fields: Sequence[FieldResult]) -> tuple[float | None, bool]:
    """(confidence of the whole, whether it is calibrated). None where there is no field, or one whose
    confidence is unknown: the mean of the others would be a guess about it."""
    sure = [field.confidence for field in fields]
    known = [confidence for confidence in sure if confidence is not None]
    if not fields or len(known) < len(fields):
        return None, False
    return sum(known) / len(known), all(field.calibrated for field in fields)
