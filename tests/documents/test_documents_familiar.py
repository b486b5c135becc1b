"""A document of another kind than a model was trained on is told, and its confidence is uncalibrated."""

import json
import math
import random

import pytest
import torch
from torch.nn import functional

from glasshouse.documents.analyzer import Analyzer
from glasshouse.documents.calibrator import Calibrator, Labelled, Setting
from glasshouse.documents.familiarity import Familiar
from glasshouse.inference import LanguageModel
from glasshouse.llm import Completion, Usage
from glasshouse.llm.interface import TokenLogprob
from glasshouse.tokenizer import Tokenizer

OWN = "The {} of Karbury keeps a {} and loves {}."
STRANGE = "Net revenue for Q3/2024 rose 4.7% to $48.6m (Q2: $46.4m); EBIT margin 14.2%, guidance unchanged."


def own_text(rng: random.Random) -> str:
    words = ("baker", "pilot", "scribe"), ("goat", "lamb", "swan"), ("plum cake", "nut roll", "mint jelly")
    return " ".join(OWN.format(*map(rng.choice, words)) for _ in range(3))


@pytest.fixture(scope="module")
def familiar(random_model) -> Familiar:
    """Of a small model that has read a few thousand sentences of one kind."""
    torch.manual_seed(1)
    tokenizer = Tokenizer.train([], 265)
    model = random_model(vocab_size=tokenizer.vocab_size, max_position_embeddings=256)
    steps = torch.optim.Adam(model.parameters(), 3e-3)
    rng = random.Random(1)
    for _ in range(60):
        ids = torch.tensor([tokenizer.encode(own_text(rng))[:96] for _ in range(16)])
        loss = functional.cross_entropy(model(ids[:, :-1]).flatten(0, 1).float(), ids[:, 1:].flatten())
        steps.zero_grad()
        loss.backward()
        steps.step()
    return Familiar.measured(LanguageModel(model, tokenizer), [own_text(rng) for _ in range(100)])


def test_only_other_kinds_of_text_are_told(familiar, document):
    rng = random.Random(2)
    told = [familiar.notice(document(own_text(rng))) for _ in range(50)]
    assert sum(notice is not None for notice in told) <= 3  # of texts of its own kind, half a percent
    notice = familiar.notice(document(STRANGE))
    assert notice is not None
    assert notice.kind == "unfamiliar"
    assert "do not rely on this answer" in notice.what
    assert "--model" in notice.what
    assert familiar.notice(document("Yes.")) is None  # too short to be judged


SCHEMA = {"type": "object", "properties": {"animal": {"type": "string"}}}
REPLY = json.dumps({"animal": {"quote": None, "value": "goat"}})


def sure(request) -> Completion:
    """The reply of a model that gives the whole of it a probability of 0.95."""
    return Completion(REPLY, "stop", Usage(9, 9), logprobs=(TokenLogprob(REPLY, math.log(0.95)),))


def calibrator(prompt: str) -> Calibrator:
    """Labelled examples say that such an answer is right three times in five."""
    setting = Setting(model="scripted", task="extraction", domain="general", prompt=prompt)
    rows = [
        Labelled(
            setting=setting,
            path="animal",
            document=f"d{i // 3}",
            token_probability=0.95,
            vote_share=None,
            quote_match=None,
            right=i % 5 < 3,
        )
        for i in range(300)
    ]
    return Calibrator.fit(rows)


@pytest.mark.parametrize(
    ("labelled", "text", "calibrated"),
    [("own", "", True), ("own", STRANGE, False), ("corrections", STRANGE, True), ("neither", "", False)],
    ids=["own kind", "another kind", "corrected", "no labels"],
)
def test_a_runs_own_calibration_holds_for_its_own_kind_only(
    familiar, scripted, document, labelled, text, calibrated
):
    """What people corrected, they corrected on documents like these, whatever the model was trained on."""
    report = document(text or own_text(random.Random(3)))
    prompt = Analyzer(scripted([sure])).analyze(report, "extraction", schema=SCHEMA).prompt
    own = calibrator(prompt) if labelled == "own" else None
    corrected = calibrator(prompt) if labelled == "corrections" else None
    analyzer = Analyzer(scripted([sure]), familiar=familiar, own_calibration=own, calibration=corrected)
    result = analyzer.analyze(report, "extraction", schema=SCHEMA)
    assert result.value == {"animal": "goat"}
    assert result.calibrated is calibrated
    raw = 0.95 / 2  # its quote stands nowhere
    assert result.confidence == pytest.approx(0.6 if calibrated else raw, abs=0.02)
    told = {notice.kind: notice.what for notice in result.notices}
    assert ("unfamiliar" in told) == (text == STRANGE)
    assert ("uncalibrated" in told) == (not calibrated)
    if labelled == "own" and not calibrated:
        assert "of the kind that it was trained on" in told["uncalibrated"]
