"""The next tokens of all texts that a step has read to their ends, chosen together."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

from glasshouse.inference.choice import Row, RowSettings, choose_rows
from glasshouse.inference.job import Choice
from glasshouse.inference.penalties import Penalties


class Writers:
    """Chooses, and keeps the settings' tensors while the same texts write with the same number of guesses."""

    def __init__(self, vocab: int) -> None:
        self._vocab = vocab
        self._rows: list[tuple[Choice, int]] = []
        self._settings = RowSettings([], [], vocab)
        self._keys = torch.empty(0, dtype=torch.int64)

    def choose(
        self, choices: Sequence[Choice], drafts: Sequence[Sequence[int]], logits: Tensor
    ) -> list[list[int]]:
        """New tokens of each choice, at least one. Of the logits (rows, vocab) each choice has 1 + drafts
        rows, after its last token and after each of its drafts. A draft that is not what would be chosen
        ends the series, replaced. A grammar's state goes on with the tokens.
        """
        tokens: list[list[int]] = [[] for _ in choices]
        free = [not _bound(choice) for choice in choices]
        first = list(accumulate((1 + len(guess) for guess in drafts), initial=0))
        rows = [
            (index, place)
            for index, guess in enumerate(drafts)
            for place in range(1 + len(guess) if free[index] else 1)
        ]
        while rows:
            states = logits
            if len(rows) < len(logits):
                states = logits[[first[index] + place for index, place in rows]]
            more = []
            for (index, place), token in zip(rows, self._choose(choices, drafts, states, rows), strict=True):
                mine, guess, choice = tokens[index], drafts[index], choices[index]
                if len(mine) != place or (place and mine[-1] != guess[place - 1]):
                    continue  # after a wrong draft
                mine.append(token)
                if free[index]:
                    continue
                ended = token in choice.stop_ids
                if choice.constraint is not None and not ended:
                    choice.constraint.accept(token)
                    ended = choice.constraint.ended
                if not ended and place < len(guess) and guess[place] == token:
                    more.append((index, place + 1))
            rows = more
        return tokens

    def _choose(
        self,
        choices: Sequence[Choice],
        drafts: Sequence[Sequence[int]],
        logits: Tensor,
        rows: Sequence[tuple[int, int]],
    ) -> list[int]:
        """One token for each (choice, number of drafts before it), whose logits are a row each."""
        self._prepare([(choices[index], place) for index, place in rows])
        states = None
        if any(_bound(choices[index]) for index, _ in rows):
            states = [
                Row(
                    [*choices[index].ids[choices[index].prompt :], *drafts[index][:place]],
                    choices[index].constraint,
                    choices[index].remaining - place,
                )
                for index, place in rows
            ]
        positions = torch.tensor([len(choices[index].ids) + place for index, place in rows])
        return choose_rows(logits, self._settings, self._keys, positions, states).tolist()

    def _prepare(self, rows: list[tuple[Choice, int]]) -> None:
        if len(rows) == len(self._rows) and all(
            a is b for (a, _), (b, _) in zip(rows, self._rows, strict=True)
        ):
            return
        self._rows = rows
        samplings = [choice.job.request.sampling for choice, _ in rows]
        self._settings = RowSettings(
            samplings, [choice.job.request.prompt for choice, _ in rows], self._vocab
        )
        self._keys = torch.tensor([choice.key for choice, _ in rows], dtype=torch.int64)


def _bound(choice: Choice) -> bool:
    """Whether a token depends on those before it by more than the model's logits."""
    return choice.constraint is not None or Penalties.needed(choice.job.request.sampling)
