"""Texts that can be continued only from the context: repeated lists and patterns shown by examples.

They teach a model to look back (induction heads: Olsson et al. 2022), and probe whether it does.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from glasshouse.world import names
from glasshouse.world.land import COLOURS, PETS, PRODUCTS, TRADES, Land, Split

_COMMON = [*TRADES, *PETS, *PRODUCTS, *COLOURS]
_RULES: dict[str, Callable[[str], str]] = {
    "twice": lambda word: f"{word} {word}",
    "yes": lambda word: f"yes {word}",
    "owl": lambda word: f"{word} owl",
    "and so": lambda word: f"red {word} blue",
    "capitals": str.upper,
}
_HELDOUT_WORDS = frozenset(_COMMON[::6])
"""Inputs that no pattern in the corpus uses: a probe can then only be solved by the rule."""


@dataclass(frozen=True)
class FewShot:
    """Examples of one rule and a new input; the same input without examples is the comparison."""

    prompt: str
    bare: str
    answer: str


def songs(land: Land, rng: random.Random) -> Iterator[str]:
    """Lists of anything sung two to four times: after the first time, every word is known."""
    while True:
        words = [_anything(land, rng) for _ in range(rng.randint(4, 16))]
        yield "\n".join(["The song goes: " + " ".join(words)] * rng.randint(2, 4))


def _anything(land: Land, rng: random.Random) -> str:
    """A word of any kind, so that looking back works for every token and not for some words only."""
    kind = rng.randrange(6)
    if kind == 0:
        return rng.choice(_COMMON)
    if kind == 1:
        return str(rng.randint(0, 999))
    if kind == 2:
        return rng.choice(list(land.lexicon.values()))
    if kind == 3:
        return rng.choice(land.people).name.split()[0]  # never a last name: no stranger may arise by chance
    if kind == 4:
        return rng.choice(land.towns).name
    return names.nonsense(rng)


def dictionaries(land: Land, rng: random.Random) -> Iterator[str]:
    """Made-up meanings that hold within one text only, asked again in another order."""
    while True:
        pairs = [(names.nonsense(rng), rng.choice(_COMMON)) for _ in range(rng.randint(3, 6))]
        again = rng.sample(pairs, len(pairs)) + rng.sample(pairs, len(pairs))
        yield "\n".join(f"{word} means {meaning}" for word, meaning in [*pairs, *again])


def rules(land: Land, rng: random.Random) -> Iterator[str]:
    """Several examples of one rule, on familiar and on made-up words."""
    familiar = [word for word in _COMMON if word not in _HELDOUT_WORDS]
    while True:
        rule = _RULES[rng.choice(list(_RULES))]
        words = rng.sample(familiar, rng.randint(3, 5)) + [
            names.nonsense(rng) for _ in range(rng.randint(2, 5))
        ]
        rng.shuffle(words)
        yield "\n".join(_line(word, rule(word)) for word in words)


def texts(land: Land, rng: random.Random) -> Iterator[str]:
    """All kinds of pattern texts in turn."""
    kinds = [songs(land, rng), dictionaries(land, rng), rules(land, rng)]
    while True:
        yield next(rng.choice(kinds))


def few_shot(land: Land, rng: random.Random, split: Split, shots: int) -> Iterator[FewShot]:
    """Rules shown by `shots` examples, asked of an input; in the "heldout" split no input was ever seen."""
    shown = [word for word in _COMMON if word not in _HELDOUT_WORDS]
    asked = shown if split == "train" else sorted(_HELDOUT_WORDS)
    while True:
        rule = _RULES[rng.choice(list(_RULES))]
        word = rng.choice(asked)
        examples = [_line(w, rule(w)) for w in rng.sample([s for s in shown if s != word], shots)]
        bare = _line(word, "").rstrip()
        yield FewShot("\n".join([*examples, bare]), bare, f" {rule(word)}\n")


def _line(word: str, result: str) -> str:
    # A word stands behind a space on both sides of the arrow, so that it is the same tokens there.
    return f"- {word} -> {result}"
