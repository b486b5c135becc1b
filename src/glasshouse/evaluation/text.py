"""Probes that read: what a model makes of plain text, before anybody asked it to chat."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import islice

import numpy as np

from glasshouse.evaluation.intervals import Estimate, bootstrap, mean, proportion, ratio
from glasshouse.inference import LanguageModel
from glasshouse.world import World, chance, facts, patterns

SHOTS = 4
_INDUCTION_LENGTH = 24
_EARLY, _LATE = slice(8, 28), slice(72, 92)
"""Token positions compared by the in-context-learning score (Olsson et al. 2022 use 50 and 500)."""


def bits_per_byte(model: LanguageModel, texts: list[str]) -> Estimate:
    """Cross entropy of whole documents in bits over their UTF-8 bytes; the end of the text counts too."""
    return ratio(bits(model, texts), [len(text.encode()) for text in texts])


def bits(model: LanguageModel, texts: Sequence[str]) -> list[float]:
    """Cross entropy of each text as a whole document, in bits; its end counts too."""
    return [float(loss.sum()) / math.log(2) for loss in _document_losses(model, list(texts))]


def known_fact_recall(world: World, model: LanguageModel, n: int) -> Estimate:
    """Whether a page's sentence about any person is continued with the true value."""
    land, rng = world.land, world.rng("probe", "recall")
    asked = [(rng.choice(land.people), rng.choice(facts.ATTRIBUTES)) for _ in range(n)]
    sentences = [facts.sentence(person, attribute) for person, attribute in asked]
    values = [person.facts[attribute] for person, attribute in asked]
    starts = [text[: text.rindex(value)].rstrip() for text, value in zip(sentences, values, strict=True)]
    continued = _continue(model, starts, 12)
    return proportion([text.startswith(f" {value}") for text, value in zip(continued, values, strict=True)])


def few_shot_gain(world: World, model: LanguageModel, n: int) -> Estimate:
    """Accuracy with four examples of a rule minus accuracy with none, on inputs never seen in a pattern."""
    items = list(islice(patterns.few_shot(world.land, world.rng("probe", "shots"), "heldout", SHOTS), n))
    solved = []
    for prompts in ([item.prompt for item in items], [item.bare for item in items]):
        lines = [text.split("\n")[0] for text in _continue(model, prompts, 16)]
        solved.append([line == item.answer.rstrip("\n") for line, item in zip(lines, items, strict=True)])
    return mean([float(shown) - float(bare) for shown, bare in zip(*solved, strict=True)])


def induction_score(world: World, model: LanguageModel, n: int) -> Estimate:
    """Random tokens said twice: nats a token saved the second time (Olsson et al. 2022)."""
    rng = np.random.Generator(np.random.PCG64(world.seed))
    first = max(model.tokenizer.special.values()) + 1
    sequences = rng.integers(first, model.tokenizer.vocab_size, (n, _INDUCTION_LENGTH))
    start = [model.tokenizer.bos_id]
    losses = [-x for x in model.score_batch([start] * n, [[*row, *row] for row in sequences.tolist()])]
    return mean([float(x[: len(x) // 2].mean() - x[len(x) // 2 + 1 :].mean()) for x in losses])


def icl_score(world: World, model: LanguageModel, n: int) -> Estimate:
    """Loss early in a pattern text minus loss late in it, nats a token: how much the context helps."""
    texts = patterns.texts(world.land, world.rng("probe", "icl"))
    longest = _LATE.stop
    chosen: list[str] = []
    while len(chosen) < n:
        text = next(texts)
        if len(model.tokenizer.encode(text)) > longest:
            chosen.append(text)
    losses = _document_losses(model, chosen)
    return mean([float(loss[_EARLY].mean() - loss[_LATE].mean()) for loss in losses])


def calibration(world: World, model: LanguageModel) -> dict[str, Estimate]:
    """The model's probabilities of chance events against the exact ones.

    `ece`: expected calibration error over ten bins of the predicted probability; `brier`: the expected
    Brier score under the true probabilities; `brier_skill`: 1 minus its ratio to the score of one who
    always predicts the land's average (1 is unreachable: chance stays chance).
    """
    forecasts = chance.forecasts(world.land)
    prompts, continuations = [], []
    for forecast in forecasts:
        for outcome in forecast.chances:
            prompts.append(_start(model, forecast.prompt))
            continuations.append(model.tokenizer.encode(outcome))
    scores = [float(x.sum()) for x in model.score_batch(prompts, continuations)]
    logits = np.array(scores).reshape(len(forecasts), -1)  # (forecasts, outcomes)
    predicted = np.exp(logits - logits.max(axis=1, keepdims=True))
    predicted /= predicted.sum(axis=1, keepdims=True)
    true = np.array([list(forecast.chances.values()) for forecast in forecasts])

    def ece(rows: np.ndarray) -> float:
        p, q = predicted[rows].ravel(), true[rows].ravel()
        bins = np.minimum((p * 10).astype(int), 9)
        gaps = [abs((p[bins == b] - q[bins == b]).sum()) for b in range(10)]
        return float(sum(gaps) / len(p))

    def brier(rows: np.ndarray, forecast: np.ndarray = predicted) -> float:
        return float(
            (((forecast[rows] - true[rows]) ** 2) + true[rows] * (1 - true[rows])).sum(axis=1).mean()
        )

    average = np.broadcast_to(true.mean(axis=0), true.shape)
    rows = len(forecasts)
    return {
        "ece": bootstrap(ece, rows, world.seed),
        "brier": bootstrap(brier, rows, world.seed),
        "brier_skill": bootstrap(lambda r: 1 - brier(r) / brier(r, average), rows, world.seed),
    }


def _start(model: LanguageModel, text: str) -> list[int]:
    """A document's beginning as pre-training saw it: the boundary token first."""
    return [model.tokenizer.bos_id, *model.tokenizer.encode(text)]


def _continue(model: LanguageModel, texts: list[str], max_new_tokens: int) -> list[str]:
    prompts = [_start(model, text) for text in texts]
    replies = model.generate_batch(prompts, max_new_tokens=max_new_tokens)
    return [model.tokenizer.decode(ids, skip_special=True) for ids in replies]


def _document_losses(model: LanguageModel, texts: list[str]) -> list[np.ndarray]:
    """Nats of every token of every text, the closing boundary included; long texts are cut into windows."""
    window = model.context - 1
    encoded = model.tokenizer.encode_batch(texts)
    begin, end = model.tokenizer.bos_id, model.tokenizer.eos_id  # one token in ours
    prompts: list[list[int]] = []
    pieces: list[list[int]] = []
    owner: list[int] = []
    for index, ids in enumerate(encoded):
        stream = [begin, *ids, end]
        for at in range(1, len(stream), window):
            prompts.append([stream[at - 1]])
            pieces.append(stream[at : at + window])
            owner.append(index)
    losses: list[list[np.ndarray]] = [[] for _ in texts]
    for index, logprobs in zip(owner, model.score_batch(prompts, pieces), strict=True):
        losses[index].append(-logprobs.numpy())
    return [np.concatenate(parts) for parts in losses]
