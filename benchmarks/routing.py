"""Asking the cheapest model that will do: what it saves, and whether its guarantee holds.

    python benchmarks/routing.py [--resamplings 200] [--samples 900] [--run RUN]

simulation   three tiers that cost 1, 4 and 20. Their probability of being right is known for each request,
             and their confidence tells it, distorted. Over many labelled samples the cascade is calibrated
             anew, and its true error rate among accepted answers is compared with the bound.
world        questions of the invented world, their difficulty by kind and size of numbers, answered by
             simulated tiers; the difficulty classifier reads them, trained on other phrasings and people
run          with --run, and this part alone: questions of the run's world to its fine-tuned model, as they
             are and with "think step by step", sure by the agreement of five replies; the last tier is a
             simulation, the world's own truth. Samples are drawn from the answered questions

The peer is the popular heuristic, long requests and those with certain words to the large model, with its
two cutoffs set on the truth itself: as good as it can be at the same error rate. Writes
results/routing.json and docs/pictures/routing.svg.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import itertools
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from glasshouse.classify import TextClassifier
from glasshouse.classify.calibration import sigmoid
from glasshouse.classify.quality import expected_calibration_error
from glasshouse.core.devices import machine
from glasshouse.core.storage import read_json, write_json
from glasshouse.llm import LLM, Completion, LocalLLM, Request
from glasshouse.llm.confidence import Agreement
from glasshouse.llm.difficulty import likely_right, train_difficulty
from glasshouse.llm.layer import Layer
from glasshouse.llm.routing_policy import prove
from glasshouse.llm.routing_rules import Rule
from glasshouse.llm.routing_samples import Table, collect
from glasshouse.pipeline.recipe import load_recipe
from glasshouse.world import Task, World, WorldConfig, facts, language, places, reports, sums

HERE = Path(__file__).parent
COSTS = np.array([1.0, 4.0, 20.0])
EPSILONS = (0.03, 0.05, 0.1, 0.15, 0.2)
EPSILON, DELTA = 0.1, 0.1

KEYWORDS = (
    *("why", "how", "explain", "prove", "analyze", "compare", "derive", "step", "steps", "reason"),
    *("calculate", "add", "sum", "solve", "code", "write", "translate", "design", "evaluate"),
)
KEYWORD_WORDS = 20
"""Words that a request is taken to be longer for each such word in it."""


def heuristic(text: str) -> float:
    """How hard the popular rule takes a request to be: its length in words, and its keywords."""
    words = text.lower().split()
    return len(words) + KEYWORD_WORDS * sum(word.strip(".,?!") in KEYWORDS for word in words)


@dataclass(frozen=True)
class Population:
    """Requests whose truth is known: (n, tiers) probability of being right; the rest as in a Table."""

    chance: np.ndarray
    sure: np.ndarray | None
    likely: np.ndarray | None
    hard: np.ndarray  # (n,) what the heuristic says

    def labelled(self, rng: np.random.Generator, n: int) -> Table:
        """A sample of n requests, each answered by every tier."""
        rows = rng.integers(0, len(self.chance), n)
        right = rng.random((n, self.chance.shape[1])) < self.chance[rows]
        likely = None if self.likely is None else self.likely[rows]
        return Table(right, np.tile(COSTS, (n, 1)), None if self.sure is None else self.sure[rows], likely)

    def truth(self, answers: np.ndarray, asked: np.ndarray) -> dict[str, float]:
        """Exact figures of a way to route: share accepted, the error rate among them, the share saved."""
        wrong = 1 - self.chance[np.arange(len(answers)), answers]
        taken = answers < self.chance.shape[1] - 1
        return {
            "accepted": float(taken.mean()),
            "error": float(wrong[taken].mean()) if taken.any() else 0.0,
            "all_errors": float(wrong.mean()),
            "saved": float(1 - (asked * COSTS).sum(axis=1).mean() / COSTS[-1]),
        }

    def of(self, rule: Rule) -> dict[str, float]:
        return self.truth(*rule.walk(self.sure, self.likely, len(self.chance)))

    def heuristics(self, cutoffs: int = 40) -> list[dict[str, float]]:
        """All pairs of cutoffs: below the first the cheapest tier, above the second the last."""
        levels = [-np.inf, *np.quantile(self.hard, np.linspace(0, 1, cutoffs))]
        found = []
        for low, high in itertools.combinations_with_replacement(levels, 2):
            answers = (self.hard > low).astype(int) + (self.hard > high)
            found.append(self.truth(answers, np.arange(3) == answers[:, None]))
        return found


def best_heuristic(tried: Sequence[dict[str, float]], error: float) -> dict[str, float]:
    """The one that saves most at no more errors among the answers that it accepts."""
    return max((found for found in tried if found["error"] <= error), key=lambda found: found["saved"])


def simulated(seed: int, n: int = 10_000, *, classifier: bool = True) -> Population:
    """Tiers right with a probability that falls with difficulty, sure in a distorted and noisy way.

    Hard requests are longer and have more keywords, on the whole: the heuristic is worth something.
    """
    rng = np.random.default_rng(seed)
    difficulty = rng.beta(1.3, 1.6, n)
    logits = 12 * (np.array([0.42, 0.65, 1.1]) - difficulty[:, None])
    chance = 0.02 + 0.97 * sigmoid(logits)
    noise = rng.normal(0, 1.0, (n, 2))
    sure = sigmoid(np.array([0.4, 0.25]) * logits[:, :2] + np.array([2.0, 1.2]) + 0.5 * noise)
    likely = sigmoid(0.6 * logits[:, :2] + rng.normal(0, 1.5, n)[:, None]) if classifier else None
    words = np.exp(2.0 + 1.5 * difficulty + rng.normal(0, 0.5, n))
    keywords = rng.binomial(2, 0.1 + 0.5 * difficulty)
    return Population(chance, sure, likely, words + KEYWORD_WORDS * keywords)


@dataclass(frozen=True)
class Question:
    text: str
    chance: tuple[float, float, float]
    kind: str


def world_questions(part: Any, n: int, seed: int) -> list[Question]:
    """Questions of the invented world. What a tier knows of each kind is invented too, and known."""
    world = World(WorldConfig(), seed=7)
    land, rng = world.land, random.Random(seed)
    split = "train" if part == "train" else "heldout"
    kinds: dict[str, tuple[Any, Any]] = {
        "fact": (facts.questions(land, rng, part), (0.96, 0.97, 0.98)),
        "stranger": (facts.stranger_questions(land, rng, part), (0.93, 0.95, 0.97)),
        "two steps": (places.two_steps(land, rng, part, False), (0.15, 0.55, 0.97)),
        "translation": (language.translations(land, rng, split), (0.35, 0.94, 0.97)),
        "extraction": (reports.extractions(land, rng, split), (0.95, 0.97, 0.98)),
        "sum": (sums.questions(land, rng, part), None),
    }
    found = []
    for i in range(n):
        kind = list(kinds)[i % len(kinds)]
        source, chance = kinds[kind]
        text = next(source).messages[-1]["content"]
        if chance is None:  # sums of two larger numbers are hard
            a, b = (int(number) for number in re.findall(r"\d+", text)[:2])
            chance = (0.2, 0.9, 0.98) if min(a, b) >= 30 else (0.93, 0.96, 0.98)
        found.append(Question(text, chance, kind))
    return found


def asked_of_world(questions: Sequence[Question], classifier: TextClassifier, seed: int) -> Population:
    rng = np.random.default_rng(seed)
    chance = np.array([question.chance for question in questions])
    logits = np.log(chance[:, :2] / (1 - chance[:, :2]))
    sure = sigmoid(0.5 * logits + 1.5 + rng.normal(0, 0.7, logits.shape))
    texts = [question.text for question in questions]
    hard = np.array([heuristic(text) for text in texts])
    return Population(chance, sure, likely_right(classifier, texts, 3), hard)


def difficulty_of_world(questions: Sequence[Question], seed: int) -> TextClassifier:
    """Learnt from one answer of each tier to each question."""
    rng = np.random.default_rng(seed)
    chance = np.array([question.chance for question in questions])
    right = rng.random(chance.shape) < chance
    return train_difficulty([question.text for question in questions], right.tolist())


def held_out(population: Population, seed: int) -> dict[str, float]:
    """How good the classifier is on the population: the cheapest right tier, and calibration.

    `best`: the accuracy of one who knows the kind and all chances.
    """
    rng = np.random.default_rng(seed)
    assert population.likely is not None
    right = rng.random(population.chance.shape) < population.chance
    right[:, -1] = True
    cheapest = right.argmax(axis=1)
    enough = population.likely
    each = np.diff(np.concatenate([np.zeros((len(enough), 1)), enough, np.ones((len(enough), 1))], 1))
    known = 1 - np.cumprod(1 - population.chance[:, :-1], axis=1)  # exact, of the same probability
    best = np.diff(np.concatenate([np.zeros((len(known), 1)), known, np.ones((len(known), 1))], 1))
    return {
        "accuracy": float((each.argmax(axis=1) == cheapest).mean()),
        "best": float(best.max(axis=1).mean()),
        "commonest": float(np.bincount(cheapest).max() / len(cheapest)),
        "ece": expected_calibration_error(each.max(axis=1), each.argmax(axis=1) == cheapest),
        "off_the_truth": float(np.abs(enough - known).mean()),
    }


def careless(table: Table, epsilon: float) -> Rule:
    """What one does without a guarantee: the lowest confidence at which the sample's errors look right."""
    tiers = table.right.shape[1] - 1
    assert table.sure is not None
    best = Rule((float("inf"),) * tiers)
    for level in np.quantile(table.sure, np.linspace(1, 0, 50)):
        rule = Rule((float(level),) * tiers)
        answers, _ = rule.walk(table.sure, None, len(table.right))
        taken = answers < tiers
        wrong = ~table.right[np.arange(len(answers)), answers]
        if taken.any() and wrong[taken].mean() <= epsilon:
            best = rule
    return best


def resample(
    population: Population, times: int, samples: int, epsilon: float, delta: float = DELTA, seed: int = 0
) -> dict[str, Any]:
    """Calibrate on so many labelled samples, and look each time what the policy truly does.

    `broken`: the share whose true error rate among accepted answers is above epsilon.
    """
    found, proved, naive = [], 0, 0
    for i in range(times):
        table = population.labelled(np.random.default_rng((seed, i)), samples)
        rule, evidence = prove(table, epsilon, delta, seed=i)
        proved += evidence.proved
        found.append(population.of(rule))
        naive += population.of(careless(table, epsilon))["error"] > epsilon
    mean = {key: float(np.mean([one[key] for one in found])) for key in found[0]}
    return {
        "epsilon": epsilon,
        "delta": delta,
        "samples": samples,
        "resamplings": times,
        "broken": float(np.mean([one["error"] > epsilon for one in found])),
        "broken_without": naive / times,
        "proved": proved / times,
        "worst_error": max(one["error"] for one in found),
        **mean,
    }


def compare(population: Population, times: int, samples: int) -> list[dict[str, Any]]:
    """The cascade at several bounds, each with the best heuristic at the same true error rate."""
    tried = population.heuristics()
    rows = []
    for epsilon in EPSILONS:
        row = resample(population, times, samples, epsilon)
        best = best_heuristic(tried, row["error"])
        rows.append({**row, "heuristic": best, "heuristic_at_bound": best_heuristic(tried, epsilon)})
    return rows


class Steps(Layer):
    """The model, asked to show its steps."""

    name = "with steps"

    async def complete(self, request: Request) -> Completion:
        (message,) = request.messages
        asked = {**message, "content": f"{message['content']} Think step by step."}
        return await self.inner.complete(request.model_copy(update={"messages": (asked,)}))


class Truth(Layer):
    """Stands for a model that is always right: the replies of the tasks themselves."""

    name = "truth"

    def __init__(self, inner: LLM, tasks: Sequence[Task]) -> None:
        super().__init__(inner)
        self.replies = {task.messages[-1]["content"]: task.reply for task in tasks}

    async def complete(self, request: Request) -> Completion:
        return Completion(self.replies[request.messages[-1]["content"]], "stop")


def run_tasks(world: World, n: int) -> list[Task]:
    """Questions in phrasings that the model never read."""
    land, rng = world.land, world.rng("routing")
    sources = (
        facts.questions(land, rng, "heldout"),
        facts.stranger_questions(land, rng, "heldout"),
        places.two_steps(land, rng, "heldout", False),
        language.translations(land, rng, "heldout"),
        reports.extractions(land, rng, "heldout"),
        sums.questions(land, rng, "heldout"),
    )
    return [next(sources[i % len(sources)]) for i in range(n)]


def of_run(run: Path, times: int, samples: int, questions: int = 480) -> dict[str, Any]:
    """Real replies and confidences: half of the questions teach the classifier, half are the population."""
    recipe = load_recipe(run / "recipe.yaml")
    assert recipe.world is not None
    tasks = run_tasks(World(recipe.world, recipe.seed), questions)
    agreement = Agreement(5, same=lambda completion: completion.text.rsplit(". ", 1)[-1])
    with LocalLLM.load(run / "sft" / "model", "cpu") as model:
        tiers = [model, Steps(model), Truth(model, tasks)]
        asked = [
            (Request.parse({"messages": task.messages, "max_new_tokens": 64}), task.check) for task in tasks
        ]
        answered = asyncio.run(collect(tiers, asked, agreement, at_once=12))
    taught, kept = answered[: questions // 2], answered[questions // 2 :]
    classifier = train_difficulty([x.text for x in taught], [x.right for x in taught])
    texts = [x.text for x in kept]
    population = Population(
        np.array([x.right for x in kept], dtype=float),
        np.array([x.sure for x in kept], dtype=float),
        likely_right(classifier, texts, 3),
        np.array([heuristic(text) for text in texts]),
    )
    rows = compare(population, times, samples)
    right = population.chance.mean(axis=0).tolist()
    print(f"right: {right[0]:.1%} as asked, {right[1]:.1%} with steps")
    show("a run's own model", rows)
    return {"questions": len(kept), "right": right, "classifier": classifier.measured, "cascade": rows}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--resamplings", type=int, default=200)
    parser.add_argument("--samples", type=int, default=900)
    parser.add_argument("--run", type=Path, help="a run folder of the recipe pocket")
    options = parser.parse_args()
    if options.run is not None:
        record(run=of_run(options.run, options.resamplings, options.samples))
        return
    result: dict[str, Any] = {}
    population = simulated(1)
    result["simulation"] = compare(population, options.resamplings, options.samples)
    show("simulated tiers", result["simulation"])
    classifier = difficulty_of_world(world_questions("train", 1200, 1), 1)
    asked = asked_of_world(world_questions("heldout", 3000, 2), classifier, 3)
    quality = held_out(asked, 4)
    result["world"] = {
        "classifier": {**quality, "calibration": classifier.calibration, "measured": classifier.measured},
        "cascade": compare(asked, options.resamplings, options.samples),
    }
    show("questions of the invented world", result["world"]["cascade"])
    print(
        f"difficulty classifier on other phrasings and people: {quality['accuracy']:.1%} right (at best "
        f"{quality['best']:.1%}, always the commonest tier {quality['commonest']:.1%}), "
        f"ECE {quality['ece']:.3f}"
    )
    record(**result)
    draw(
        {
            "simulated tiers": (population, result["simulation"]),
            "questions of the invented world": (asked, result["world"]["cascade"]),
        },
        HERE.parent / "docs" / "pictures" / "routing.svg",
    )


def record(**parts: Any) -> None:
    """Write the parts into the results, beside those that are there."""
    path = HERE / "results" / "routing.json"
    result: dict[str, Any] = read_json(path) if path.is_file() else {}
    write_json(path, {**result, "date": datetime.date.today().isoformat(), "machine": machine(), **parts})


def show(title: str, rows: Sequence[dict[str, Any]]) -> None:
    first = rows[0]
    print(f"{title}: {first['resamplings']} samples of {first['samples']} labelled requests, delta {DELTA:g}")
    heads = ("error", "broken", "without", "accepted", "saved", "heuristic")
    print(f"{'bound':>6} " + " ".join(f"{head:>9}" for head in heads))
    for row in rows:
        print(
            f"{row['epsilon']:6.0%} {row['error']:9.1%} {row['broken']:9.1%} {row['broken_without']:9.1%} "
            f"{row['accepted']:9.1%} {row['saved']:9.1%} {row['heuristic']['saved']:9.1%}"
        )


def draw(panels: dict[str, tuple[Population, list[dict[str, Any]]]], path: Path) -> None:
    """Error among accepted answers against the share accepted: every threshold, and where the bounds led."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "routing", "font.size": 9}):
        figure = Figure(figsize=(8, 3.4), layout="constrained")
        for axes, (title, (population, rows)) in zip(figure.subplots(1, 2), panels.items(), strict=True):
            tried = sorted(population.heuristics(), key=lambda found: found["accepted"])
            edge = [
                min((o["error"] for o in tried if o["accepted"] >= found["accepted"]), default=0)
                for found in tried
            ]
            axes.plot([o["accepted"] for o in tried], edge, label="length and keywords, at best", color="C1")
            assert population.sure is not None
            levels = np.quantile(population.sure, np.linspace(1, 0, 100))
            walked = [population.of(Rule((float(level),) * 2)) for level in levels]
            axes.plot(
                [o["accepted"] for o in walked],
                [o["error"] for o in walked],
                label="raw confidence",
                color="C0",
                linewidth=1,
            )
            axes.plot(
                [o["accepted"] for o in rows],
                [o["error"] for o in rows],
                "o",
                color="C2",
                label="calibrated (mean)",
            )
            for row in rows:
                axes.plot([row["accepted"]] * 2, [row["error"], row["epsilon"]], color="C2", linewidth=1)
                axes.plot(row["accepted"], row["epsilon"], "_", color="C2", markersize=9)
            axes.set_title(title, fontsize=9)
            axes.set_xlabel("share of requests that a cheap tier answers")
            axes.set_ylabel("errors among them")
            axes.set_ylim(0, None)
            axes.grid(alpha=0.3)
            axes.legend(frameon=False)
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})


if __name__ == "__main__":
    main()
