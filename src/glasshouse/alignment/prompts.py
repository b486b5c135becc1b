"""The prompts of reinforcement learning: encoded once, each drawn once in a pass."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from glasshouse.core.errors import DataError
from glasshouse.core.progress import say
from glasshouse.core.seeds import numpy_rng
from glasshouse.core.storage import hash_json
from glasshouse.tokenizer import Tokenizer


@dataclass(frozen=True)
class Prompts:
    """Examples {"prompt": [messages], ...} and the ids of their prompts, up to where the reply begins."""

    examples: list[Mapping[str, Any]]
    ids: list[list[int]]
    left_out: int  # too long

    @classmethod
    def encode(cls, examples: Iterable[Mapping[str, Any]], tokenizer: Tokenizer, longest: int) -> Self:
        """Those of at most `longest` tokens. Raises DataError for an empty prompt, or when none is left."""
        kept, prompts, left_out = [], [], 0
        for number, example in enumerate(examples, 1):
            if not example.get("prompt"):
                raise DataError(
                    "the prompt is empty", where=f"example {number}", fix='give {"prompt": [messages]}'
                )
            ids = tokenizer.encode_chat(example["prompt"], add_generation_prompt=True).ids
            if len(ids) > longest:
                left_out += 1
                continue
            kept.append(example)
            prompts.append(list(ids))
        if not kept:
            raise DataError(
                f"no prompt to learn from ({left_out} are longer than {longest} tokens)",
                fix="raise sequence_length, or lower max_new_tokens",
            )
        if left_out:
            say(f"notice: {left_out} prompts are longer than {longest} tokens and are left out")
        return cls(kept, prompts, left_out)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def sha256(self) -> str:
        """16 hexadecimal digits of the ids' hash."""
        return hash_json(self.ids)

    def choose(self, number: int, count: int, seed: int) -> list[int]:
        """The `number`th set of `count`: each prompt comes once in a pass; every pass has its own order."""
        chosen = []
        for place in range(number * count, (number + 1) * count):
            epoch, position = divmod(place, len(self))
            order = numpy_rng(seed, "prompts", epoch).permutation(len(self))
            chosen.append(int(order[position]))
        return chosen
