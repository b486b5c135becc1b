"""Confidence that comes true as often as it says: against fields whose chance of being right is known."""

import json
import math

import numpy as np
import pytest

from glasshouse.core.errors import DataError
from glasshouse.documents.calibrator import LEAST_ROWS, Calibrator, Labelled, Setting
from glasshouse.documents.confidence import overall, rated, raw
from glasshouse.documents.result import FieldResult
from glasshouse.evaluation.confidence import expected_calibration_error

SETTING = Setting(model="m", task="extraction", domain="general", prompt="extraction@1 abc")
PATHS = ("revenue", "name", "lines[].amount")


def drawn(n: int, seed: int, setting: Setting = SETTING) -> tuple[list[Labelled], np.ndarray]:
    """Rows of a model that is too sure of itself, with the probability of being right of each: by its tokens,
    its votes, the quote and the field, some of them unknown."""
    rng = np.random.default_rng(seed)
    rows, chances = [], []
    for i in range(n):
        path = PATHS[rng.integers(3)]
        hard = rng.normal(1.0 - 0.5 * PATHS.index(path), 1.5)  # how easy this one is, in log odds
        token = 1 / (1 + math.exp(-(3 * hard + rng.normal(0, 0.5) + 1)))
        votes = rng.binomial(5, 1 / (1 + math.exp(-hard))) / 5 if i % 3 else None
        quote = float(rng.random() < 0.9)
        chance = 1 / (1 + math.exp(-(hard + (0.5 if quote else -2))))
        chances.append(chance)
        rows.append(
            Labelled(
                setting=setting,
                path=path,
                document=f"d{i // 3}",
                token_probability=token if i % 7 else None,
                vote_share=votes,
                quote_match=quote,
                right=bool(rng.random() < chance),
            )
        )
    return rows, np.array(chances)


def field(row: Labelled) -> FieldResult:
    return FieldResult(
        path=row.path.replace("[]", "[4]"),
        value="x" if row.mentioned else None,
        token_probability=row.token_probability,
        vote_share=row.vote_share,
        quote_match=row.quote_match,
    )


def told(calibrator: Calibrator, rows: list[Labelled]) -> np.ndarray:
    return np.array([calibrator.confidence(field(row), SETTING) for row in rows])


@pytest.mark.parametrize("seed", range(3))
def test_on_fresh_fields_it_comes_true(seed):
    calibrator = Calibrator.fit(drawn(1500, seed)[0])
    fresh, chances = drawn(3000, 100 + seed)
    said = told(calibrator, fresh)
    assert expected_calibration_error(said, chances) <= 0.05
    assert np.corrcoef(said, chances)[0, 1] > 0.7  # it is no constant
    raw_ece = expected_calibration_error(np.array([raw(field(row)) or 0.5 for row in fresh]), chances)
    assert raw_ece > 0.08  # without it the model is too sure
    own = calibrator.fitted[0].ece
    assert own.low <= own.value <= own.high
    assert own.value <= 0.06


@pytest.mark.parametrize("n", [LEAST_ROWS, 300])
def test_with_few_rows_it_is_near(n):
    """The mean over seeds: with n rows the share itself is only known to about 1 / sqrt(n)."""
    errors = []
    for seed in range(6):
        calibrator = Calibrator.fit(drawn(n, seed)[0])
        fresh, chances = drawn(2000, 50 + seed)
        said = told(calibrator, fresh)
        errors.append(expected_calibration_error(said, chances))
    assert np.mean(errors) <= 0.1


def test_the_cross_validated_error_is_that_on_fresh_fields():
    """Its interval holds the error that is measured on rows nobody has seen, most of the time."""
    held = 0
    for seed in range(8):
        calibrator = Calibrator.fit(drawn(600, seed)[0])
        figure = calibrator.fitted[0].brier
        fresh, chances = drawn(1500, 200 + seed)
        said = told(calibrator, fresh)
        true = float(((said - chances) ** 2 + chances * (1 - chances)).mean())
        held += figure.low <= true <= figure.high
    assert held >= 6


@pytest.mark.parametrize("right", [True, False])
def test_it_never_claims_certainty(right):
    rows = [row.model_copy(update={"right": right}) for row in drawn(500, 0)[0]]
    calibrator = Calibrator.fit(rows)
    for p in (0.0, 1.0, None):
        told = calibrator.confidence(FieldResult(path="name", value=1, token_probability=p), SETTING)
        assert told == pytest.approx(501 / 502 if right else 1 / 502)


def test_a_clear_cut_model_is_not_certain_either():
    rows = [
        row.model_copy(update={"right": i % 2 == 0, "token_probability": float(i % 2 == 0)})
        for i, row in enumerate(drawn(400, 0)[0])
    ]
    calibrator = Calibrator.fit(rows)
    sure = calibrator.confidence(FieldResult(path="name", value=1, token_probability=1.0), SETTING)
    unsure = calibrator.confidence(FieldResult(path="name", value=1, token_probability=0.0), SETTING)
    assert 0 < unsure < 0.05 < 0.95 < sure < 1


@pytest.mark.parametrize(
    "change", [{"model": "n"}, {"task": "summary"}, {"domain": "legal"}, {"prompt": "p"}]
)
def test_what_was_not_labelled_is_uncalibrated(change):
    calibrator = Calibrator.fit(drawn(200, 0)[0])
    other = SETTING.model_copy(update=change)
    asked = FieldResult(path="name", value="x", token_probability=0.8, vote_share=0.6)
    assert calibrator.confidence(asked, other) is None
    assert calibrator.confidence(asked, SETTING) is not None
    (told,) = rated([asked], calibrator, other)
    assert (told.confidence, told.calibrated) == (0.6, False)
    (known,) = rated([asked], calibrator, SETTING)
    assert known.calibrated


def test_each_setting_learns_alone():
    other = SETTING.model_copy(update={"model": "always right"})
    sure = [row.model_copy(update={"right": True}) for row in drawn(200, 1, other)[0]]
    both = Calibrator.fit([*drawn(200, 0)[0], *sure])
    alone = Calibrator.fit(drawn(200, 0)[0])
    assert both.of(SETTING) == alone.of(SETTING)
    assert both.of(other).right == 1.0


def test_too_few_labels_are_refused():
    with pytest.raises(DataError, match=f"{LEAST_ROWS} labelled fields .* is {LEAST_ROWS - 1}"):
        Calibrator.fit(drawn(LEAST_ROWS - 1, 0)[0])


def test_many_fields_of_few_documents_are_refused():
    """They go right and wrong together, so they say little about other documents."""
    rows = [row.model_copy(update={"document": f"d{i % 9}"}) for i, row in enumerate(drawn(500, 0)[0])]
    with pytest.raises(DataError, match="the most there are is 500 in 9"):
        Calibrator.fit(rows)


def test_saved_and_loaded_it_says_the_same(tmp_path):
    calibrator = Calibrator.fit(drawn(300, 3)[0])
    calibrator.save(tmp_path / "c.json")
    loaded = Calibrator.load(tmp_path / "c.json")
    assert loaded == calibrator
    for row in drawn(50, 9)[0]:
        assert loaded.confidence(field(row), SETTING) == calibrator.confidence(field(row), SETTING)


@pytest.mark.parametrize("content", ["[]", "{", '{"format": 2, "fitted": []}', '{"fitted": 1}'])
def test_a_file_that_is_no_calibration_is_named(tmp_path, content):
    path = tmp_path / "c.json"
    path.write_text(content)
    with pytest.raises(DataError, match=r"c\.json"):
        Calibrator.load(path)


def test_its_file_is_json_of_numbers(tmp_path):
    Calibrator.fit(drawn(300, 3)[0]).save(tmp_path / "c.json")
    assert json.loads((tmp_path / "c.json").read_text())["fitted"][0]["rows"] == 300


def test_without_labels_the_weaker_signal_stands_and_unknown_stays_unknown():
    assert raw(FieldResult(path="a", value=1, token_probability=0.8, vote_share=0.6)) == 0.6
    assert raw(FieldResult(path="a", value=1, token_probability=1.0)) == 0.99
    assert raw(FieldResult(path="a", value=1, token_probability=0.8, quote_match=0.0)) == 0.4
    assert raw(FieldResult(path="a", value=1, quote_match=1.0)) is None


def test_the_whole_is_the_share_that_is_expected_to_be_right():
    def sure(p, calibrated=True):
        return FieldResult(path="a", confidence=p, calibrated=calibrated)

    assert overall([sure(0.9), sure(0.5)]) == (pytest.approx(0.7), True)
    assert overall([sure(0.9), sure(0.5, False)]) == (pytest.approx(0.7), False)
    assert overall([sure(0.9), sure(None)]) == (None, False)
    assert overall([]) == (None, False)
