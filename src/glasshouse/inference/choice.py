"""One token for each row of a batch in which every row has settings of its own.

The order of a row's steps, each on what the one before left:

1. the grammar forbids tokens;
2. logit bias, repetition, frequency and presence penalties (`penalties.py`);
3. temperature 0: the largest logit is chosen. Otherwise logits are divided by the temperature,
4. top-k, top-p and min-p take tokens out (`sampling.truncate`),
5. Gumbel noise of (key, position, token) is added and the largest sum is chosen;
6. a choice after which the grammar could not be closed within the budget is taken back, and 3 or 5 repeated
   without it.

No row's token depends on the other rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from glasshouse.inference.penalties import Penalties
from glasshouse.inference.sampling import Sampling, gumbel, gumbel_of, likeliest, thresholds

if TYPE_CHECKING:
    from glasshouse.inference.request import Constraint

TAKEN_BACK = 5
"""Choices of one step that may be taken back; after them the shortest way to close is begun."""


class Row(NamedTuple):
    """What one row's choice depends on beside its settings, its key and its position."""

    text: Sequence[int] = ()  # generated so far: what the penalties count
    constraint: Constraint | None = None
    remaining: int = 0  # tokens that may still be chosen, this one included; read only with a constraint


class RowSettings:
    """The settings of a batch's rows as tensors: made once, used for as many steps as the batch lasts."""

    def __init__(
        self,
        samplings: Sequence[Sampling],
        prompts: Sequence[Sequence[int]],
        vocab: int,
        device: torch.device | None = None,
    ) -> None:
        """`prompts[row]` are that row's prompt ids, for the repetition penalty.

        Raises UsageError for a bias on a token outside the vocabulary.
        """
        self.penalties = {
            row: Penalties(sampling, prompt, vocab)
            for row, (sampling, prompt) in enumerate(zip(samplings, prompts, strict=True))
            if Penalties.needed(sampling)
        }
        self._samplings, self._vocab, self._device = samplings, vocab, device
        places = [row for row, sampling in enumerate(samplings) if sampling.temperature]
        self.greedy = len(places) < len(samplings)  # whether any row is
        self.drawn = torch.tensor(places, dtype=torch.int64, device=device)  # the rows that are sampled
        chosen = [samplings[row] for row in places]
        self.temperature = self._column([s.temperature for s in chosen])
        self.top_k = self.top_p = self.min_p = None
        if any(s.top_k is not None for s in chosen):
            self.top_k = self._column([min(s.top_k or vocab, vocab) for s in chosen], torch.int64)
        if any(s.top_p is not None for s in chosen):
            self.top_p = self._column([s.top_p or 1.0 for s in chosen])
        if any(s.min_p is not None for s in chosen):
            self.min_p = self._column([s.min_p or 0.0 for s in chosen])

    def _column(self, values: list[float] | list[int], kind: torch.dtype = torch.float32) -> Tensor:
        return torch.tensor(values, dtype=kind, device=self._device)[:, None]  # (rows, 1)

    def alone(self, row: int) -> RowSettings:
        """The settings of one row, without its penalties."""
        bare = self._samplings[row].model_copy(
            update={
                "logit_bias": {},
                "repetition_penalty": 1.0,
                "frequency_penalty": 0.0,
                "presence_penalty": 0.0,
            }
        )
        return RowSettings([bare], [()], self._vocab, self._device)


def choose_rows(
    logits: Tensor,
    settings: RowSettings,
    keys: Tensor,
    positions: Tensor,
    rows: Sequence[Row] | None = None,
) -> Tensor:
    """The token of each row: logits (rows, vocab) float32, keys and positions (rows,) int64 -> (rows,) int64.

    `rows` may be left out where no row has penalties or a grammar. `logits` stay as they are.
    """
    if rows is None or not (settings.penalties or any(row.constraint for row in rows)):
        assert not settings.penalties, "penalties need to know the text so far"
        return _choose(logits, settings, keys, positions)
    logits = logits.clone()
    constrained = [(place, row, row.constraint) for place, row in enumerate(rows) if row.constraint]
    for place, row, constraint in constrained:
        logits[place] = constraint.mask(logits[place], row.remaining)
    for place, penalties in settings.penalties.items():
        penalties.apply(logits[place], rows[place].text)
    tokens = _choose(logits, settings, keys, positions)
    for place, row, constraint in constrained:
        token = int(tokens[place])
        if constraint.closes(token, row.remaining):
            continue
        alone, one = settings.alone(place), slice(place, place + 1)
        for _ in range(TAKEN_BACK):
            logits[place, token] = -torch.inf
            if bool(logits[place].isneginf().all()):
                break
            token = int(_choose(logits[one], alone, keys[one], positions[one]))
            if constraint.closes(token, row.remaining):
                break
        else:
            token = -1
        if token < 0 or bool(logits[place, token].isneginf()):
            token = constraint.shortest()
        tokens[place] = token
    return tokens


def _choose(logits: Tensor, settings: RowSettings, keys: Tensor, positions: Tensor) -> Tensor:
    """Steps 3 to 5 for all rows."""
    if settings.greedy:
        tokens = logits.argmax(-1)
        if not len(settings.drawn):
            return tokens
    else:
        tokens = keys.new_empty(len(logits))
    drawn = settings.drawn
    scores = logits[drawn] / settings.temperature  # (drawn, vocab)
    keys, positions = keys[drawn], positions[drawn]
    if settings.top_k is None and settings.top_p is None and settings.min_p is None:
        chosen = (scores + gumbel(keys, positions, scores.shape[-1])).argmax(-1)
    else:  # few tokens stay: noise is made for these alone
        values, ids = likeliest(scores)  # (drawn, candidates)
        least = thresholds(scores, values, settings.top_k, settings.top_p, settings.min_p)
        values = values.masked_fill(values < least, -torch.inf)
        best = (values + gumbel_of(keys, positions, ids)).argmax(-1, keepdim=True)
        chosen = ids.gather(-1, best)[:, 0]
        wide = (values[:, -1].isfinite() & (values.shape[-1] < scores.shape[-1])).nonzero()[:, 0]
        if len(wide):
            kept = scores[wide].masked_fill(scores[wide] < least[wide], -torch.inf)
            noise = gumbel(keys[wide], positions[wide], scores.shape[-1])
            chosen[wide] = (kept + noise).argmax(-1)
    tokens[drawn] = chosen
    return tokens
