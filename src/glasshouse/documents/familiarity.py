"""Whether a document is of the kind a model was trained on, told by how much its text surprises the model.

The measure is bits per byte of the raw text, against those of texts held out when the model was trained. A
model from elsewhere, whose texts nobody has, is not judged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from glasshouse.documents.result import Notice

if TYPE_CHECKING:
    from glasshouse.files.document import Document
    from glasshouse.inference import LanguageModel

TEXTS = 300
"""Held-out texts that say what is usual."""

STRETCH = 600
"""Characters of a document that are read in one go, at its beginning, in its middle and at its end."""

USUAL = 0.995
"""Share of held-out texts that surprise the model less than what is called unfamiliar."""

SHORTEST = 40
"""Characters below which a text says too little to be judged."""


@dataclass(frozen=True)
class Familiar:
    """A model and how far the texts of its own kind surprise it, in bits per byte."""

    model: LanguageModel
    median: float
    limit: float

    @classmethod
    def measured(cls, model: LanguageModel, texts: Sequence[str]) -> Self:
        """`texts`: of the kind that the model was trained on, and held out."""
        bits = _bits_per_byte(model, [text[:STRETCH] for text in texts if len(text) >= SHORTEST])
        return cls(model, float(np.median(bits)), float(np.quantile(bits, USUAL)))

    @classmethod
    def of_run(cls, model: LanguageModel, run: Path) -> Self | None:
        """By the texts that a run held out; None where it kept none."""
        from glasshouse.files import read_documents

        held_out = run / "corpus" / "validation.jsonl.zst"
        if not held_out.is_file():
            return None
        texts = [row["text"] for row in islice(read_documents(held_out), 4 * TEXTS)]
        texts = [text for text in texts if len(text) >= SHORTEST][:TEXTS]
        return cls.measured(model, texts) if texts else None

    def notice(self, document: Document) -> Notice | None:
        """One line for a document that is not of the model's kind."""
        text = document.text
        if len(text) < SHORTEST:
            return None
        starts = sorted({0, max(0, len(text) // 2 - STRETCH // 2), max(0, len(text) - STRETCH)})
        bits = float(np.median(_bits_per_byte(self.model, [text[at : at + STRETCH] for at in starts])))
        if bits <= self.limit:
            return None
        return Notice(
            kind="unfamiliar",
            what=f"The model was trained on other kinds of text ({bits:.1f} bits per byte here, "
            f"{self.median:.1f} and at most {self.limit:.1f} there): do not rely on this answer. Name a "
            "larger model: --model http://localhost:11434/v1#NAME, openai:NAME or anthropic:NAME.",
        )


def _bits_per_byte(model: LanguageModel, texts: Sequence[str]) -> list[float]:
    from glasshouse.evaluation.text import bits

    return [found / len(text.encode()) for found, text in zip(bits(model, texts), texts, strict=True)]
