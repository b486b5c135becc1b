"""The next tokens of all texts that a step has read to their ends, chosen together."""

from __future__ import annotations

from collections.abc import Sequence

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
        self, choices: Sequence[Choice], drafts: Sequence[Sequence[int]], logits: Sequence[Tensor]
    ) -> list[list[int]]:
        """New tokens of each choice, at least one; logits[i] (1 + drafts, vocab) stand after its last token
        and after each of its drafts. A draft that is not what would be chosen ends the series, replaced.

        A grammar's state goes on with the tokens.
        """
        tokens: list[list[int]] = [[] for _ in choices]
        free = [not _bound(choice) for choice in choices]
        rows = [
            (index, place)
            for index, states in enumerate(logits)
            for place in range(len(states) if free[index] else 1)
        ]
        while rows:
            chosen = self._choose(choices, drafts, [logits[i][p] for i, p in rows], rows)
            more = []
            for (index, place), token in zip(rows, chosen, strict=True):
                if len(tokens[index]) != place:
                    continue  # after a wrong draft
                if place and tokens[index][place - 1] != drafts[index][place - 1]:
                    continue
                choice = choices[index]
                tokens[index].append(token)
                if free[index]:
                    continue
                if choice.constraint is not None and token not in choice.stop_ids:
                    choice.constraint.accept(token)
                ended = token in choice.stop_ids or (
                    choice.constraint is not None and choice.constraint.ended
                )
                if not ended and place < len(drafts[index]) and drafts[index][place] == token:
                    more.append((index, place + 1))
            rows = more
        return tokens

    def _choose(
        self,
        choices: Sequence[Choice],
        drafts: Sequence[Sequence[int]],
        logits: Sequence[Tensor],
        rows: Sequence[tuple[int, int]],
    ) -> list[int]:
        """One token for each (choice, number of drafts before it)."""
        writers = [choices[index] for index, _ in rows]
        self._prepare([(choices[index], place) for index, place in rows])
        states = None
        if any(map(_bound, writers)):
            states = [
                Row(
                    [*choice.ids[choice.prompt :], *drafts[index][:place]],
                    choice.constraint,
                    choice.remaining - place,
                )
                for choice, (index, place) in zip(writers, rows, strict=True)
            ]
        positions = [len(choice.ids) + place for choice, (_, place) in zip(writers, rows, strict=True)]
        chosen = choose_rows(
            torch.stack(list(logits)), self._settings, self._keys, torch.tensor(positions), states
        )
        return chosen.tolist()

    def _prepare(self, rows: list[tuple[Choice, int]]) -> None:
        if len(rows) == len(self._rows) and all(a[0] is b[0] for a, b in zip(rows, self._rows, strict=True)):
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
