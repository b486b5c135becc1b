"""The next tokens of all texts that a step has read to their ends."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from glasshouse.inference.choice import Row, RowSettings, choose_rows
from glasshouse.inference.job import Choice
from glasshouse.inference.penalties import Penalties


class Writers:
    """Chooses for all texts together whose tokens depend on the logits alone, for each other text by itself.

    Settings' tensors are kept while the same texts write with the same number of guesses.
    """

    def __init__(self, vocab: int, known: int) -> None:
        """Ids from `known` to `vocab` stand for no token, and are never chosen."""
        self._vocab, self._known = vocab, known
        self._free: list[Choice] = []  # one for each row of the settings
        self._settings = RowSettings([], [], vocab)
        self._keys = torch.empty(0, dtype=torch.int64)

    def choose(
        self, choices: Sequence[Choice], drafts: Sequence[Sequence[int]], logits: Tensor
    ) -> list[list[int] | Exception]:
        """New tokens of each choice, at least one, or what went wrong with it. Of the logits (rows, vocab)
        each choice has 1 + drafts rows, after its last token and after each of its drafts. A draft that is
        not what would be chosen ends the series, replaced. A grammar's state goes on with the tokens.
        """
        if self._known < self._vocab:
            logits = logits.clone()
            logits[:, self._known :] = -torch.inf
        counts = [1 + len(guess) for guess in drafts]
        bound = [_bound(choice) for choice in choices]
        each = logits.split(counts)
        free = logits
        if any(bound):
            kept = [rows for rows, alone in zip(each, bound, strict=True) if not alone]
            free = torch.cat([logits[:0], *kept])
        chosen = iter(self._together(choices, counts, bound, free))
        tokens: list[list[int] | Exception] = []
        for choice, guess, rows, alone in zip(choices, drafts, each, bound, strict=True):
            if alone:
                try:
                    tokens.append(self._alone(choice, guess, rows))
                except Exception as error:  # one text's grammar is no matter of the others
                    tokens.append(error)
            else:
                tokens.append(_accepted(guess, [next(chosen) for _ in rows]))
        return tokens

    def _together(
        self, choices: Sequence[Choice], counts: Sequence[int], bound: Sequence[bool], logits: Tensor
    ) -> list[int]:
        """A token after every row of the logits, those of the choices that are not bound."""
        free: list[Choice] = []
        positions: list[int] = []
        for choice, count, alone in zip(choices, counts, bound, strict=True):
            if not alone:
                free += [choice] * count
                positions += range(len(choice.ids), len(choice.ids) + count)
        if not free:
            return []
        if free != self._free:
            requests = [choice.job.request for choice in free]
            prompts = [request.prompt for request in requests]
            self._settings = RowSettings([request.sampling for request in requests], prompts, self._vocab)
            self._keys = torch.tensor([choice.key for choice in free], dtype=torch.int64)
            self._free = free
        return choose_rows(logits, self._settings, self._keys, torch.tensor(positions)).tolist()

    def _alone(self, choice: Choice, guess: Sequence[int], logits: Tensor) -> list[int]:
        """The tokens of a choice in which each depends on those before by penalties or a grammar."""
        request, constraint = choice.job.request, choice.constraint
        if choice.settings is None:
            choice.settings = RowSettings([request.sampling], [request.prompt], self._vocab)
        key, text, tokens = torch.tensor([choice.key]), choice.ids[choice.prompt :], []
        for place, row in enumerate(logits):
            state = Row([*text, *tokens], constraint, choice.remaining - place)
            position = torch.tensor([len(choice.ids) + place])
            token = int(choose_rows(row[None], choice.settings, key, position, [state]))
            tokens.append(token)
            if token in choice.stop_ids:
                break
            if constraint is not None:
                constraint.accept(token)
                if constraint.ended:
                    break
            if place < len(guess) and guess[place] != token:
                break
        return tokens


def _accepted(guess: Sequence[int], tokens: list[int]) -> list[int]:
    """The tokens up to the first that was not guessed; tokens[i] was chosen after guess[:i]."""
    for place, token in enumerate(guess):
        if tokens[place] != token:
            return tokens[: place + 1]
    return tokens


def _bound(choice: Choice) -> bool:
    """Whether a token depends on those before it by more than the model's logits."""
    return choice.constraint is not None or Penalties.needed(choice.job.request.sampling)
