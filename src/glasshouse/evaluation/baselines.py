"""Two simple repliers scored beside every model: the nearest training question, and an n-gram model.

If one of them did well on a probe, the probe would be easy and a good score of the model would mean little.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable

import numpy as np

from glasshouse.tokenizer import Tokenizer
from glasshouse.world.task import Message

_WORD = re.compile(r"\w+|[^\w\s]")


class NearestNeighbour:
    """Answers with the reply to the training question that shares the most telling words (TF-IDF cosine)."""

    def __init__(self, conversations: Iterable[dict]) -> None:
        self._replies: list[str] = []
        documents: list[Counter[str]] = []
        for conversation in conversations:
            messages = conversation["messages"]
            for question, answer in zip(messages[::2], messages[1::2], strict=False):
                documents.append(_words(question["content"]))
                self._replies.append(answer["content"])
        frequency = Counter(word for document in documents for word in document)
        self._idf = {word: math.log(len(documents) / count) for word, count in frequency.items()}
        postings: dict[str, list[tuple[int, float]]] = defaultdict(list)
        for number, document in enumerate(documents):
            for word, weight in self._vector(document).items():
                postings[word].append((number, weight))
        # word -> (numbers of the questions it stands in, its weight in each)
        self._index = {
            word: (np.array([n for n, _ in entries]), np.array([w for _, w in entries]))
            for word, entries in postings.items()
        }

    def _vector(self, words: Counter[str]) -> dict[str, float]:
        raw = {word: count * self._idf.get(word, 0.0) for word, count in words.items()}
        norm = math.sqrt(sum(weight**2 for weight in raw.values())) or 1.0
        return {word: weight / norm for word, weight in raw.items() if weight}

    def __call__(self, conversations: list[list[Message]], max_new_tokens: int) -> list[str]:
        return [self._reply(messages[-1]["content"]) for messages in conversations]

    def _reply(self, question: str) -> str:
        scores = np.zeros(len(self._replies))
        for word, weight in self._vector(_words(question)).items():
            if word in self._index:
                numbers, weights = self._index[word]
                scores[numbers] += weight * weights
        return self._replies[int(scores.argmax())] if scores.any() else ""


def _words(text: str) -> Counter[str]:
    return Counter(word.lower() for word in _WORD.findall(text))


class NGram:
    """Greedy n-gram model over tokens, backing off to shorter contexts (Brants et al. 2007).

    Trained on the same tokens as the model: documents and conversations in the chat template.
    """

    def __init__(self, tokenizer: Tokenizer, streams: Iterable[list[int]], order: int = 6) -> None:
        self._tokenizer, self._order = tokenizer, order
        tokens = np.fromiter((i for stream in streams for i in stream), dtype=np.int64)
        self._tables = [_most_frequent(tokens, length) for length in range(order)]

    def __call__(self, conversations: list[list[Message]], max_new_tokens: int) -> list[str]:
        tokenizer, length = self._tokenizer, self._order - 1
        prompts = [
            tokenizer.encode_chat(messages, add_generation_prompt=True).ids for messages in conversations
        ]
        # (conversations, order - 1): the last tokens of each, all conversations going on together
        context = np.array([[-1] * max(0, length - len(ids)) + list(ids[-length:]) for ids in prompts])
        written = []
        for _ in range(max_new_tokens):
            following = self._next(context)
            written.append(following)
            context = np.concatenate([context[:, 1:], following[:, None]], axis=1)
        replies = np.stack(written, axis=1)  # (conversations, max_new_tokens)
        ends = [np.flatnonzero(row == tokenizer.end_of_turn_id) for row in replies]
        return [
            tokenizer.decode(row[: end[0] if len(end) else None].tolist(), skip_special=True)
            for row, end in zip(replies, ends, strict=True)
        ]

    def _next(self, context: np.ndarray) -> np.ndarray:
        """(rows, order - 1) tokens -> (rows,) the follower of the longest known end of each."""
        following = np.full(len(context), -1)
        for length in range(self._order - 1, -1, -1):
            contexts, best = self._tables[length]
            keys = _hash(context[:, context.shape[1] - length :])
            at = np.minimum(np.searchsorted(contexts, keys), len(contexts) - 1)
            known = (contexts[at] == keys) & (following < 0)
            following[known] = best[at[known]]
        return following


def _hash(contexts: np.ndarray) -> np.ndarray:
    """(rows, length) token ids -> (rows,) 64-bit keys; a polynomial in an odd base modulo 2**64."""
    keys = np.full(len(contexts), 1469598103934665603, dtype=np.uint64)
    for column in contexts.T:
        keys = (keys ^ (column.astype(np.uint64) + np.uint64(1))) * np.uint64(1099511628211)
    return keys


def _most_frequent(tokens: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """For every context of `length` tokens: its key (sorted) and the token that follows it most often."""
    windows = np.lib.stride_tricks.sliding_window_view(tokens, length + 1)  # (positions, length + 1)
    keys, following = _hash(windows[:, :length]), windows[:, length]
    order = np.lexsort((following, keys))
    keys, following = keys[order], following[order]
    edge = np.flatnonzero(np.r_[True, (keys[1:] != keys[:-1]) | (following[1:] != following[:-1])])
    counts = np.diff(np.r_[edge, len(keys)])
    pair_keys, pair_following = keys[edge], following[edge]
    best = np.lexsort((-counts, pair_keys))
    unique, first = np.unique(pair_keys[best], return_index=True)
    return unique, pair_following[best][first]
