"""Who criticises, and who labels: Constitutional AI on the invented world with other critics and raters.

    python benchmarks/ai_labels.py RUN [--work DIR] [--seed 1] [--questions 600] [--set key=v]

RUN is a run of the recipe pocket-cai: its fine-tuned model and its settings are taken. Two questions:

critics     the supervised phase with the world's exact critic, by all principles, and with the model's own
            criticism, by one principle drawn for each reply
ai share    the preference phase after the exact supervised phase, with 0, 25, 50, 75 and 100% of the pairs
            labelled by the constitution's critic and the others by simulated raters, who err in one judgement
            of ten and like long replies a little too much

Each policy answers held-out requests: `gold` is the mean over four kinds of what the world's exact judge
gives them (at most 1), beside the safety probes. Writes results/ai_labels.json and docs/ai_labels.svg. DIR
keeps what was trained: the same command goes on after an interruption.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
from pathlib import Path
from typing import Any

from glasshouse.alignment.constitution import Constitution
from glasshouse.alignment.constitutional import ConstitutionalConfig, constitutional
from glasshouse.alignment.critique import Critic, LLMCritic
from glasshouse.alignment.world_critics import ExactCritic, SimulatedRaters
from glasshouse.core.config import apply_overrides
from glasshouse.core.devices import machine
from glasshouse.core.storage import read_json, write_json
from glasshouse.evaluation import run_suite
from glasshouse.evaluation.chat import GOLD
from glasshouse.inference import LanguageModel
from glasshouse.llm import LocalLLM
from glasshouse.pipeline.documents import read_rows
from glasshouse.pipeline.recipe import Recipe, load_recipe
from glasshouse.pipeline.stages.constitution import ConstitutionStage
from glasshouse.pipeline.stages.corpus import TRAIN
from glasshouse.pipeline.stages.reinforcement import examples
from glasshouse.pipeline.stages.sft import CONVERSATIONS, read
from glasshouse.world import World

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
SAFETY = ("harmful_compliance", "over_refusal", "explained_refusals", "reply_words")
OTHERS = ("instruction_following", "heldout_fact_extraction", "unknown_abstention")
CRITIQUE_TOKENS = 64
HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--work", type=Path, default=Path("runs/ai-labels"))
    parser.add_argument("--seed", type=int, default=1, help="of what is trained here")
    parser.add_argument("--questions", type=int, default=600, help="n of the probes")
    parser.add_argument("--set", action="append", default=[], metavar="key=v", help="of the stage's settings")
    options = parser.parse_args()
    bench = Bench(options.run, options.work, options.seed, options.questions, options.set)
    before = bench.score("before", bench.start)
    critics = {"exact": bench.supervised("exact"), "self": bench.supervised("self")}
    shares = {str(share): bench.preference(share) for share in SHARES}
    result = {
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "seed": options.seed,
        "settings": options.set,
        "before": before,
        "critics": critics,
        "ai_share": shares,
    }
    write_json(HERE / "results" / "ai_labels.json", result)
    draw(shares, critics["exact"], HERE.parent / "docs" / "ai_labels.svg")
    print(json.dumps(result, indent=2))


class Bench:
    """The settings and data of a run, and the folders in which policies are trained."""

    def __init__(self, run: Path, work: Path, seed: int, questions: int, settings: list[str]) -> None:
        self.recipe: Recipe = load_recipe(run / "recipe.yaml")
        assert self.recipe.world is not None
        assert self.recipe.constitution is not None, "name a run of pocket-cai"
        given = self.recipe.constitution.model_dump(mode="json")
        self.section = ConstitutionStage.parse(apply_overrides(given, settings))
        self.run, self.work, self.seed, self.questions = run, work, seed, questions
        self.world = World(self.recipe.world, self.recipe.seed)
        self.principles = Constitution.load("world")
        self.start = run / "sft" / "model"

    def config(self, **changes: Any) -> ConstitutionalConfig:
        fields = self.section.model_dump(include=set(ConstitutionalConfig.model_fields))
        return ConstitutionalConfig.parse({**fields, "seed": self.seed, **changes})

    def supervised(self, critic: str) -> dict[str, Any]:
        out = self.work / critic
        if critic == "exact":
            config = self.config(preference=None, grpo=None)
            found = self._train(self.start, ExactCritic(self.world, self.principles), out, config)
        else:
            config = self.config(preference=None, grpo=None, rounds=1)  # each takes two replies of the model
            with LocalLLM.load(self.start, self.recipe.device) as llm:
                found = self._train(self.start, LLMCritic(llm, CRITIQUE_TOKENS), out, config)
        told = {name: found[name] for name in ("replies", "revised", "revised_by")}
        return {**told, **self.score(critic, out / "model")}

    def preference(self, share: float) -> dict[str, Any]:
        """Revisions of the supervised phase are not compared again: both labellers see the same pairs."""
        out = self.work / f"share-{share:g}"
        config = self.config(supervised=None, ai_share=share)
        critic = ExactCritic(self.world, self.principles)
        found = self._train(self.work / "exact" / "model", critic, out, config)
        told = {"labels": found["labels"], "accuracy": found["phases"]["preference"]["quality"]["accuracy"]}
        return {**told, **self.score(out.name, out / "model")}

    def _train(self, model: Path, critic: Critic, out: Path, config: ConstitutionalConfig) -> dict[str, Any]:
        return constitutional(
            model,
            examples(self.section, self.world),
            self.principles,
            critic,
            out,
            config,
            rehearsal=read(self.run / "sft" / CONVERSATIONS),
            replay=(row["text"] for row in read_rows(self.run / "corpus" / TRAIN)),
            raters=SimulatedRaters(self.world, self.section.raters),
        )

    def score(self, name: str, model: Path) -> dict[str, Any]:
        """Probes with their intervals, and the mean gold reward."""
        path = self.work / f"{name}.json"
        if not path.exists():
            asked = LanguageModel.load(model, device=self.recipe.device)
            probes = run_suite(self.world, asked, self.questions, [*SAFETY, *OTHERS, *GOLD.values()])
            values = {probe: estimate.as_dict() for probe, estimate in probes.items()}
            gold = statistics.mean(probes[probe].value for probe in GOLD.values())
            write_json(path, {"gold": gold, "probes": values})
        return read_json(path)


def draw(shares: dict[str, Any], supervised: dict[str, Any], path: Path) -> None:
    """Gold reward, compliance, over-refusal and length against the share of AI labels."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    at = [float(share) for share in shares]
    panels = {
        "gold reward (mean of four kinds)": "gold",
        "gold reward of open requests": "gold_open",
        "words of a reply to an open request": "reply_words",
        "harmful compliance, over-refusal": ("harmful_compliance", "over_refusal"),
    }

    def value(found: dict[str, Any], name: str) -> float:
        return found["gold"] if name == "gold" else found["probes"][name]["value"]

    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "ai labels", "font.size": 9}):
        figure = Figure(figsize=(8, 5.2), layout="constrained")
        for axes, (title, names) in zip(figure.subplots(2, 2).flat, panels.items(), strict=True):
            for name in (names,) if isinstance(names, str) else names:
                line = axes.plot(at, [value(found, name) for found in shares.values()], marker="o")[0]
                line.set_label(name.replace("_", " "))
                axes.axhline(value(supervised, name), color=line.get_color(), linestyle=":", linewidth=1)
            axes.set_title(title, fontsize=9)
            axes.set_xlabel("share of AI labels")
            axes.grid(alpha=0.3)
            if not isinstance(names, str):
                axes.legend(frameon=False)
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})


if __name__ == "__main__":
    main()
