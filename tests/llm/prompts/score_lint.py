"""How much of what is planted the linter finds, rule by rule.

python tests/llm/prompts/score_lint.py [development|held_out|fresh] [--misses]
"""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass, field

from fresh_wordings import FRESH
from generated_prompts import RULES, clean, faulty
from prompt_wordings import DEVELOPMENT, HELD_OUT, Wordings
from unseen_wordings import UNSEEN

from glasshouse.llm.prompts.lint import lint
from glasshouse.llm.prompts.template import Template


@dataclass
class Score:
    planted: Counter = field(default_factory=Counter)
    found: Counter = field(default_factory=Counter)
    flagged: list = field(default_factory=list)  # clean prompts with a finding
    missed: list = field(default_factory=list)
    clean: int = 0

    @property
    def recall(self) -> float:
        return self.found.total() / self.planted.total()

    def table(self) -> str:
        rows = [
            f"{rule:28} {found:4} of {planted:4}  {found / planted:6.1%}"
            for rule in RULES
            for found, planted in [(self.found[rule], self.planted[rule])]
        ]
        total = f"{'all':28} {self.found.total():4} of {self.planted.total():4}  {self.recall:6.1%}"
        return "\n".join([*rows, total, f"clean prompts flagged: {len(self.flagged)} of {self.clean}"])


def score(words: Wordings, first: int, prompts: int = 200, clean_prompts: int = 100) -> Score:
    """Generated from the seeds `first`, first + 1, ... A planted mistake is found where a finding of its own
    rule stands at its own line."""
    result = Score(clean=clean_prompts)
    for seed in range(first, first + prompts):
        made = faulty(seed, words)
        findings = lint(Template.parse(made.text))
        for planted in made.planted:
            result.planted[planted.rule] += 1
            if any(
                one.rule == planted.rule and (not planted.lines or one.line in planted.lines)
                for one in findings
            ):
                result.found[planted.rule] += 1
            else:
                result.missed.append((planted.rule, planted.texts, seed))
    for seed in range(first, first + clean_prompts):
        if findings := lint(Template.parse(clean(seed, words).text)):
            result.flagged.append((seed, findings))
    return result


SETS = {
    "development": (DEVELOPMENT, 0),
    "held_out": (HELD_OUT, 10_000),
    "fresh": (FRESH, 20_000),
    "unseen": (UNSEEN, 30_000),
}
"""Wordings, and the first of the seeds that are theirs."""

if __name__ == "__main__":
    got = score(*SETS[sys.argv[1] if len(sys.argv) > 1 else "development"])
    print(got.table())
    if "--misses" in sys.argv:
        for miss in got.missed:
            print("missed", *miss)
        for seed, findings in got.flagged:
            print("flagged", seed, *(f"{one.rule}: {one.why}" for one in findings))
