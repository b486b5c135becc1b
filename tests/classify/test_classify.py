"""Text classifiers: beside scikit-learn's own, and with probabilities that hold."""

import json
import random
import subprocess
import sys

import numpy as np
import pytest

from glasshouse.classify import TextClassifier, calibration, features
from glasshouse.classify.quality import expected_calibration_error, quality
from glasshouse.classify.training import INVERSE_REGULARIZATION
from glasshouse.core.errors import DataError

WORDS = {
    "sum": ["add", "plus", "how much", "total", "27", "5 + 8"],
    "person": ["who is", "born", "Tordo", "her trade", "live", "pet"],
    "place": ["town", "region", "lies in", "river", "Where", "harbour"],
}
COMMON = ["please", "tell me", "the", "old", "about", "of", "in", "and", "what"]


def corpus(n, labels=("person", "place", "sum"), noise=0.15, seed=0):
    """Texts of which some lie: the words of another label."""
    rng = random.Random(seed)
    rows = []
    for i in range(n):
        label = rng.choice(labels)
        shown = rng.choice(labels) if rng.random() < noise else label
        words = rng.choices(WORDS[shown], k=2) + rng.choices(COMMON, k=3) + [f"n{i}"]
        rng.shuffle(words)
        rows.append((" ".join(words), label))
    return [list(column) for column in zip(*rows, strict=True)]


@pytest.fixture(scope="module", params=[2, 3])
def trained(request):
    labels = ("person", "place", "sum")[: request.param]
    texts, right = corpus(400, labels)
    return texts, right, TextClassifier.train(texts, right)


def reference(texts, right):
    """scikit-learn's own pipeline, which shares no code with ours after the split into words."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import FeatureUnion, Pipeline

    union = FeatureUnion(
        [
            ("w", TfidfVectorizer(token_pattern=r"\w+|[^\w\s]", ngram_range=(1, 2), sublinear_tf=True)),
            ("c", TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True)),
        ]
    )
    model = LogisticRegression(C=INVERSE_REGULARIZATION, max_iter=1000)
    return Pipeline([("features", union), ("model", model)]).fit(texts, right)


ODD = ["", "zzz", "Who IS  Tordo?\n\tplease!", "ÄÖ 5 + 8 = ?", "town " * 50, "a"]


def test_predictions_of_the_saved_form_are_scikit_learns(trained, tmp_path):
    texts, right, clf = trained
    clf.save(tmp_path / "clf")
    loaded = TextClassifier.load(tmp_path / "clf")
    asked = [*corpus(50, seed=9)[0], *ODD]
    expected = reference(texts, right)
    found = expected.decision_function(asked)
    scores = np.stack([0 * found, found], 1) if found.ndim == 1 else found
    assert expected.classes_.tolist() == list(clf.labels)
    wanted = clf._trained.calibration.apply(scores)
    np.testing.assert_allclose(loaded.predict_proba(asked), wanted, atol=1e-6)
    np.testing.assert_array_equal(loaded.predict_proba(asked), clf.predict_proba(asked))
    assert loaded.labels == clf.labels
    assert loaded.measured == clf.measured


def test_the_calibrations_are_scikit_learns():
    """Temperature and the logistic curve against scikit-learn's maximum likelihood, isotonic too."""
    from sklearn.isotonic import IsotonicRegression
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    odds = rng.normal(0, 3, 4000)
    hits = rng.random(4000) < 1 / (1 + np.exp(-(0.5 * odds - 1)))
    scores = np.stack([0 * odds, odds], 1)
    peer = LogisticRegression(C=np.inf, tol=1e-8).fit(odds[:, None], hits)
    found = calibration.fit_platt(scores, hits.astype(int)).apply(scores)[:, 1]
    np.testing.assert_allclose(found, peer.predict_proba(odds[:, None])[:, 1], atol=2e-3)  # Platt's targets
    steps = IsotonicRegression(out_of_bounds="clip").fit(odds, hits).predict(odds)
    found = calibration.fit_isotonic(scores, hits.astype(int)).apply(scores)[:, 1]
    np.testing.assert_allclose(found, np.clip(steps, 1 / 4002, 1 - 1 / 4002), atol=1e-9)
    grid = np.exp(np.linspace(-2, 2, 4001))
    losses = [calibration.log_loss(calibration.softmax(scores / t), hits.astype(int)) for t in grid]
    found = calibration.fit_temperature(scores, hits.astype(int)).numbers["temperature"][0]
    assert found == pytest.approx(grid[int(np.argmin(losses))], rel=2e-3)


@pytest.mark.parametrize(
    ("kind", "truth"),
    [
        ("temperature", lambda z: 1 / (1 + np.exp(-z / 3))),
        ("platt", lambda z: 1 / (1 + np.exp(-(z / 2 - 1.5)))),
        ("isotonic", lambda z: np.select([z < -2, z < 0, z < 2], [0.02, 0.45, 0.55], 0.98)),
    ],
)
def test_the_calibration_that_fits_the_errors_is_chosen(kind, truth):
    rng = np.random.default_rng(1)
    z = rng.normal(0, 3, 6000)
    right = (rng.random(6000) < truth(z)).astype(int)
    scores = np.stack([0 * z, z], 1)
    chosen = calibration.choose(scores, right, np.arange(6000) % 5)
    assert chosen.kind == kind
    assert np.abs(chosen.apply(scores)[:, 1] - truth(z)).mean() < 0.02


def test_probabilities_hold_on_texts_never_seen(trained):
    _, right, clf = trained
    texts, truth = corpus(1500, clf.labels, seed=5)
    found = quality(clf.predict_proba(texts), np.array([clf.labels.index(label) for label in truth]))
    assert found["accuracy"] > 0.8
    assert found["ece"] < 0.06
    assert clf.measured["rows"] == len(right)
    assert clf.measured["ece"] < 0.08
    assert abs(clf.measured["accuracy"] - found["accuracy"]) < 0.06  # what was told is what is seen


def test_what_nobody_can_know_is_told_as_such():
    """Labels by the toss of a coin: about half, however the model over-fits; and copies of a text, with one
    label each, do not make it look better."""
    rng = random.Random(3)
    texts = [f"word{rng.randrange(9000)} word{rng.randrange(9000)} word{i}" for i in range(150)]
    right = [rng.choice(["heads", "tails"]) for _ in texts]
    clf = TextClassifier.train(texts * 3, right * 3)
    assert clf.measured["accuracy"] < 0.65
    assert np.abs(clf.predict_proba([f"word{i} word{i + 1}" for i in range(300)])[:, 0] - 0.5).mean() < 0.12


def test_expected_calibration_error_is_the_binned_gap():
    sure = np.array([0.95, 0.95, 0.55, 0.55])
    hit = np.array([True, True, True, False])
    assert expected_calibration_error(sure, hit) == pytest.approx(0.5 * 0.05 + 0.5 * 0.05)


def test_words_and_pieces_are_scikit_learns():
    from sklearn.feature_extraction.text import CountVectorizer

    peer = CountVectorizer(analyzer="char_wb", ngram_range=(2, 4)).build_analyzer()
    for text in ODD:
        assert sorted(features.character_grams(text)) == sorted(peer(text))
    peer = CountVectorizer(token_pattern=r"\w+|[^\w\s]", ngram_range=(1, 2)).build_analyzer()
    assert features.word_grams(ODD[2]) == peer(ODD[2])


@pytest.mark.parametrize(
    ("texts", "labels", "message"),
    [
        ([], [], "no rows"),
        (["a"] * 3, ["x"] * 3, "only the label 'x'"),
        (["a"], ["x", "y"], "1 texts and 2 labels"),
        (["a", " \n"], ["x", "y"], "an empty text (row 2)"),
        (["a", "b"], ["x", 1], "the label 1 is no text (row 2)"),
        ([f"t{i}" for i in range(19)], ["x"] * 10 + ["y"] * 9, "the label 'y' has 9 different texts"),
        ([f"t{i}" for i in range(15)] * 2, ["x"] * 10 + ["y"] * 5 + ["x"] * 10 + ["y"] * 5, "needs 10"),
    ],
)
def test_what_cannot_be_learnt_from_is_refused(texts, labels, message):
    with pytest.raises(DataError, match=message.replace("(", r"\(").replace(")", r"\)")):
        TextClassifier.train(texts, labels)


def test_the_least_that_is_taken_works():
    texts = [f"{word} {i}" for word in ("hen", "owl") for i in range(10)]
    clf = TextClassifier.train(texts, ["a"] * 10 + ["b"] * 10)
    assert clf.predict_proba(["hen", "owl"]).argmax(1).tolist() == [0, 1]
    assert clf.predict_proba([]).shape == (0, 2)


def test_a_broken_folder_is_told(trained, tmp_path):
    clf = trained[2]
    with pytest.raises(DataError, match="no such file"):
        TextClassifier.load(tmp_path / "none")
    clf.save(tmp_path / "clf")
    told = json.loads((tmp_path / "clf/classifier.json").read_text())
    told["terms"]["words"].pop()
    (tmp_path / "clf/classifier.json").write_text(json.dumps(told))
    with pytest.raises(DataError, match="do not fit"):
        TextClassifier.load(tmp_path / "clf")
    (tmp_path / "clf/classifier.safetensors").write_bytes(b"what")
    with pytest.raises(DataError, match="broken"):
        TextClassifier.load(tmp_path / "clf")
    (tmp_path / "clf/classifier.json").write_text("[]")
    with pytest.raises(DataError, match="not a text classifier"):
        TextClassifier.load(tmp_path / "clf")


def test_prediction_needs_no_scikit_learn(trained, tmp_path):
    trained[2].save(tmp_path / "clf")
    code = (
        "import sys; from glasshouse.classify import TextClassifier as T;"
        "print(T.load(sys.argv[1]).predict_proba(['who is she?']).shape);"
        "print(sorted({'sklearn', 'scipy', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "clf")], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [f"(1, {len(trained[2].labels)})", "[]"]
