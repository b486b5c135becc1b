"""A constitution: principles in plain words, as a YAML file (Constitutional AI, arXiv:2212.08073).

name: general
principles:
  - name: honesty
    text: Say what is true. Say "I do not know" where you do not know.
    critique: ...      # how a critic is asked what is wrong with a reply; by default made of the text
    revision: ...      # how it is asked for a better one
    comparison: ...    # how it is asked which of two replies is better
    weight: 2          # how often it is drawn beside others
    faults: [falsehood, invention]   # what the invented world's exact critic finds under this principle
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import Field, field_validator, model_validator

from glasshouse.core.config import Config, load_yaml, nearest
from glasshouse.core.errors import ConfigError
from glasshouse.core.storage import hash_json

_FOLDER = resources.files("glasshouse.alignment") / "constitutions"


class Principle(Config):
    name: str = Field(min_length=1)
    text: str = Field(min_length=1)
    critique: str = ""
    revision: str = ""
    comparison: str = ""
    weight: float = Field(1.0, gt=0, allow_inf_nan=False)
    faults: tuple[str, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _requests_from_text(cls, data: Any) -> Any:
        """The three requests to a critic, where the file does not say them in its own words."""
        if not isinstance(data, Mapping) or not isinstance(data.get("text"), str):
            return data
        principle = data["text"].strip()
        made = {
            "text": principle,
            "critique": f"Here is a principle: {principle} "
            "Where does your last reply go against it? Name what is wrong, or say that nothing is.",
            "revision": "Write that reply again so that it keeps the principle, and write nothing else.",
            "comparison": f"Here is a principle: {principle} Which of the two replies keeps it better?",
        }
        return {**made, **{key: value for key, value in data.items() if key != "text" and value != ""}}


class Constitution(Config):
    name: str = Field(min_length=1)
    about: str = ""
    principles: tuple[Principle, ...] = Field(min_length=1)

    @field_validator("principles")
    @classmethod
    def _names_differ(cls, principles: tuple[Principle, ...]) -> tuple[Principle, ...]:
        names = [principle.name for principle in principles]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two principles are called '{name}': give each a name of its own")
        return principles

    @classmethod
    def load(cls, source: str | Path) -> Self:
        """A YAML file, or a shipped one by its name. Raises ConfigError naming the key and the fix."""
        path = Path(source)
        if path.suffix in (".yaml", ".yml") or path.is_file():
            return cls.parse(load_yaml(path), str(path))
        names = shipped_constitutions()
        if str(source) not in names:
            close = nearest(str(source), names)
            hint = f"did you mean '{close}'? " if close else ""
            raise ConfigError(
                f"no constitution is called '{source}'",
                fix=f"{hint}take one of {', '.join(names)}, or a YAML file",
            )
        text = (_FOLDER / f"{source}.yaml").read_text(encoding="utf-8")
        return cls.parse(yaml.safe_load(text), f"constitution {source}")

    @property
    def sha256(self) -> str:
        """16 hexadecimal digits over what it says."""
        return hash_json(self.model_dump(mode="json"))

    def draw(self, rng: random.Random, count: int) -> list[Principle]:
        """`count` principles in random order, none twice, each in proportion to its weight; at most all."""
        left, drawn = list(self.principles), []
        while left and len(drawn) < count:
            drawn.append(rng.choices(left, [principle.weight for principle in left])[0])
            left.remove(drawn[-1])
        return drawn


def shipped_constitutions() -> list[str]:
    """Names of the constitutions in the package."""
    return sorted(
        file.name.removesuffix(".yaml") for file in _FOLDER.iterdir() if file.name.endswith(".yaml")
    )
