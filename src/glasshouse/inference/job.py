"""A request inside the engine: its choices, what each has said, and when it ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from torch import Tensor

from glasshouse.inference.choice import RowSettings
from glasshouse.inference.drafter import Drafter
from glasshouse.inference.request import Constraint, Delta, Event, Finish, PromptRead, Request, TokenScore
from glasshouse.inference.sampling import row_key
from glasshouse.inference.scheduler import Row
from glasshouse.inference.text_stream import TextStream
from glasshouse.inference.token_scores import token_scores

SCORED = 2**23
"""Log-probabilities in memory at a time: 32 MiB, whatever the vocabulary."""


class Ticket:
    """A submitted request."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.cancelled = False
        self.error: Exception | None = None  # why its choices finished with "error"

    def cancel(self) -> None:
        """Stop as soon as the current step ends; every open choice finishes with "cancelled"."""
        self.cancelled = True


class Choice(Row):
    """One text of a request."""

    def __init__(
        self,
        job: Job,
        index: int,
        text: TextStream,
        constraint: Constraint | None = None,
        end_ids: frozenset[int] = frozenset(),
    ) -> None:
        """`end_ids` end a text under a constraint, whether or not the request names them."""
        request = job.request
        whole = request.prompt_logprobs is not None and index == 0
        super().__init__(list(request.prompt), (job.number, index), request.adapter, shared=not whole)
        self.job, self.index, self.text, self.constraint = job, index, text, constraint
        self.stop_ids = request.stop_ids if constraint is None else request.stop_ids | end_ids
        self.key = row_key(request.sampling.seed, index, request.prompt)
        self.drafter: Drafter | None = None
        self.settings: RowSettings | None = None  # where it is chosen for by itself
        self.finish: Finish | None = None

    @property
    def made(self) -> int:
        """Tokens chosen so far."""
        return len(self.ids) - self.prompt

    @property
    def remaining(self) -> int:
        """Tokens that may still be chosen."""
        return self.job.limit - self.made

    def say(self, tokens: Sequence[int], logits: Tensor) -> int:
        """Tell what these tokens add, up to the text's end if they hold it; logits (tokens, vocab) are what
        they were chosen from. Returns how many became part of the text."""
        request = self.job.request
        kept: list[int] = []
        piece, finish = "", None
        for token in tokens:
            if token in self.stop_ids:
                finish = Finish("stop", token)
                break
            kept.append(token)
            self.ids.append(token)
            piece += self.text.feed(token)
            if self.text.met is not None:
                finish = Finish("stop", self.text.met)
            elif self.constraint is not None and self.constraint.ended and len(kept) == len(tokens):
                finish = Finish("stop")
            elif self.remaining == 0:
                finish = Finish("length")
            if finish:
                break
        scores: tuple[TokenScore, ...] = ()
        if request.logprobs is not None:
            scores = tuple(token_scores(logits[: len(kept)], kept, [request.logprobs] * len(kept)))
        if finish and self.text.met is None:
            piece += self.text.finish()
            if self.text.met is not None:  # an incomplete character may complete a stop string
                finish = Finish("stop", self.text.met)
        self.finish = finish
        self.job.tell(Delta(self.index, piece, tuple(kept), scores, finish))
        return len(kept)

    def end(self, reason: Finish) -> None:
        """The text ends here, whatever it was about to say."""
        self.finish = reason
        rest = "" if self.text.met is not None else self.text.finish()
        self.job.tell(Delta(self.index, rest, (), (), reason))


class Job:
    """One request, from its submission to its last event."""

    def __init__(
        self, request: Request, ticket: Ticket, deliver: Callable[[Event], None], number: int, limit: int
    ) -> None:
        self.request, self.ticket, self.number, self.limit = request, ticket, number, limit
        self._deliver = deliver
        self.submitted = time.monotonic()
        self.deadline = None if request.timeout is None else self.submitted + request.timeout
        self.started = False  # one of its rows has run
        self.read = False  # the prompt is in the cache, and its event told
        self.choices: list[Choice] = []
        self._scores: list[TokenScore | None] = [None]

    @property
    def open(self) -> list[Choice]:
        return [choice for choice in self.choices if choice.finish is None]

    def tell(self, event: Event) -> None:
        """Hand an event over. A receiver that fails has gone: the request is cancelled."""
        if self.ticket.cancelled and not (isinstance(event, Delta) and event.finish):
            return
        try:
            self._deliver(event)
        except Exception:  # whatever it is, it is the receiver's, and other requests go on
            self.ticket.cancel()

    def score_prompt(self, start: int, states: Tensor, logits: Callable[..., Tensor], vocab: int) -> None:
        """Score the tokens after the positions start, start + 1, ... whose hidden states these are.

        Positions scored before are left out: a prompt may be read twice.
        """
        step = max(SCORED // vocab, 1)
        alternatives, prompt = self.request.prompt_logprobs, self.request.prompt
        assert alternatives is not None
        states = states[max(len(self._scores) - 1 - start, 0) :]
        count = min(len(states), len(prompt) - len(self._scores))
        for first in range(0, count, step):
            rows = states[first : min(first + step, count)]
            rows = logits(rows, [self.request.adapter] * len(rows))  # (rows, vocab)
            targets = prompt[len(self._scores) : len(self._scores) + len(rows)]
            self._scores += token_scores(rows, targets, [alternatives] * len(rows))

    def tell_read(self, cached: int) -> None:
        """The prompt is read."""
        self.read = True
        scored = self.request.prompt_logprobs is not None
        self.tell(PromptRead(cached, tuple(self._scores) if scored else None))
