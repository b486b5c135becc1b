"""What a classifier sees of a text: its words and pairs of words, and the pieces of its words, weighted.

Training and prediction read texts through these same functions. Counting is plain Python: for one short
text that is faster than a sparse matrix.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

SIZES = (2, 3, 4)
"""Characters in a piece of a word. The blanks around a word count: " to" begins one."""

_WORD = re.compile(r"\w+|[^\w\s]")


def word_grams(text: str) -> list[str]:
    """Words, signs, and neighbours.

    >>> word_grams("What is 2?")
    ['what', 'is', '2', '?', 'what is', 'is 2', '2 ?']
    """
    words = _WORD.findall(text.lower())
    return words + [f"{first} {second}" for first, second in pairwise(words)]


def character_grams(text: str) -> list[str]:
    """Pieces within words (scikit-learn's `char_wb`).

    >>> character_grams("To")
    [' t', 'to', 'o ', ' to', 'to ', ' to ']
    """
    grams: list[str] = []
    for word in text.lower().split():
        padded = f" {word} "
        for size in SIZES:
            if size >= len(padded):
                grams.append(padded)
                break
            grams += [padded[i : i + size] for i in range(len(padded) - size + 1)]
    return grams


ANALYZERS: dict[str, Callable[[str], list[str]]] = {"words": word_grams, "characters": character_grams}
"""Each gives a block of features, and each block has length 1."""


class Block:
    """The terms of one analyzer that a classifier knows, with their inverse document frequencies."""

    def __init__(self, analyzer: str, terms: Sequence[str], idf: np.ndarray) -> None:
        self.analyzer, self.terms, self.idf = analyzer, tuple(terms), idf
        self._grams = ANALYZERS[analyzer]
        self._index = {term: i for i, term in enumerate(terms)}

    def weigh(self, text: str) -> tuple[list[int], np.ndarray]:
        """(which terms, their weights): (1 + ln count) * idf, made one long.

        Sublinear TF-IDF as in Manning, Raghavan and Schütze 2008, section 6.4.1. A text of unknown terms
        gives two empty lists.
        """
        index = self._index
        counts = Counter([index[gram] for gram in self._grams(text) if gram in index])
        ids = list(counts)
        weights = np.array([1.0 + math.log(count) for count in counts.values()])
        if ids:
            weights *= self.idf[ids]
            weights /= math.sqrt(float(weights @ weights))
        return ids, weights
