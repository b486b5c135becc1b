"""What the engine's thread does: requests enter and leave between steps, and a step goes on with all of them.

A step reads some tokens of many texts at once (`scheduler.py` says which); each text that is read to its
end gets its next token, or several if what was guessed to follow is what would have been chosen.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future

import torch
from torch import Tensor

from glasshouse.core.errors import GlasshouseError
from glasshouse.inference.drafter import Drafter
from glasshouse.inference.job import Choice, Job
from glasshouse.inference.request import Finish
from glasshouse.inference.runner import Piece, Runner
from glasshouse.inference.scheduler import Part, Row, Scheduler
from glasshouse.inference.writers import Writers

STEP_TOKENS_WRITTEN = 9
"""Most tokens that the texts of one step write, guesses included. On a CPU (111M parameters, bfloat16) a step
of one token and one of six took the same time, one of eight 1.4 times, one of sixteen twice."""

log = logging.getLogger(__name__)


class Pooled(Row):
    """A text that is read for the mean of its hidden states."""

    def __init__(self, ids: Sequence[int], number: int) -> None:
        super().__init__(list(ids), (number,), shared=False)
        self.total: Tensor | float = 0.0
        self.mean: Future[Tensor] = Future()


class Loop:
    """The requests that are in, and the steps that they share. Belongs to one thread."""

    def __init__(
        self,
        runner: Runner,
        scheduler: Scheduler,
        vocab: int,
        known: int,
        draft_tokens: int,
        left_queue: Callable[[], None],
    ) -> None:
        """Of the model's `vocab` ids the tokenizer knows the first `known`; an embedding is often padded.

        `left_queue` is called once for each request, when its first row runs or it ends before."""
        self.runner, self.scheduler = runner, scheduler
        self._writers, self._vocab = Writers(vocab, known), vocab
        self._draft_tokens, self._left_queue = draft_tokens, left_queue
        self.jobs: list[Job] = []
        self.pooled: list[Pooled] = []
        self.steps = self.prompt_tokens = self.cached_tokens = self.new_tokens = 0

    @property
    def idle(self) -> bool:
        return not (self.jobs or self.pooled)

    def enter(self, new: Job | Pooled) -> None:
        """Take a request in."""
        if isinstance(new, Pooled):
            self.pooled.append(new)
            self.scheduler.add(new)
            return
        self.jobs.append(new)
        for choice in new.choices if new.limit > 0 else new.choices[:1]:
            self.scheduler.add(choice)

    def sweep(self, closed: bool) -> None:
        """End what was cancelled or has run out of time, and everything where the engine is closed."""
        now = time.monotonic()
        for job in list(self.jobs):
            if job.ticket.cancelled or closed:
                self._end(job, Finish("cancelled"))
            elif job.deadline is not None and now >= job.deadline:
                self._end(job, Finish("timeout"))
        if closed:
            for row in list(self.pooled):
                self._fail(row, GlasshouseError("the engine was closed"))

    def step(self) -> None:
        """Go on with what is in. What goes wrong ends the requests that it concerns, and no others."""
        rows: Sequence[Row] = self.scheduler.running
        try:
            self._guess()
            parts = self.scheduler.plan()
            if not parts:
                return
            rows = [part.row for part in parts]
            self.steps += 1
            wanted = [_wanted(part) for part in parts]
            pieces = [
                Piece(part.ids, part.row.read, part.row.pages, count, part.row.adapter)
                for part, count in zip(parts, wanted, strict=True)
            ]
            self._use(parts, self.runner.hidden(pieces).split(wanted))
        except Exception as error:
            log.exception("a step failed")
            for row in list(rows):
                self._fail(row, error)

    def _guess(self) -> None:
        """Propose tokens for the texts that write, if they are few."""
        writing = [row for row in self.scheduler.running if isinstance(row, Choice) and row.left == 1]
        room = STEP_TOKENS_WRITTEN - len(writing) if self._draft_tokens else 0
        for choice in writing:
            if room <= 0:
                return
            if choice.drafter is None:
                choice.drafter = Drafter(choice.ids, self._draft_tokens)
            drafts = choice.drafter.propose(choice.ids, min(room, choice.remaining - 1))
            if drafts and choice.constraint is not None:
                drafts = drafts[: choice.constraint.valid_prefix(drafts)]
            choice.drafts = drafts
            room -= len(drafts)

    def _use(self, parts: Sequence[Part], states: Sequence[Tensor]) -> None:
        """Make something of each part's wanted states."""
        writing: list[tuple[Part, Tensor]] = []
        for part, state in zip(parts, states, strict=True):
            row = part.row
            self._count(part)
            if isinstance(row, Pooled):
                self._pool(part, row, state)
            elif isinstance(row, Choice) and self._read(part, row, state):
                writing.append((part, state[-1 - len(part.drafts) :]))
        if writing:
            self._write(writing)

    def _count(self, part: Part) -> None:
        """Count the tokens, and a request's start."""
        row = part.row
        if isinstance(row, Choice):
            self._start(row.job)
        if not row.opened:
            if row.read == row.cached:
                self.cached_tokens += row.cached
                self.prompt_tokens += row.cached
            self.prompt_tokens += part.count

    def _pool(self, part: Part, row: Pooled, states: Tensor) -> None:
        row.total = row.total + states.float().sum(0).cpu()
        self.scheduler.done(part)
        if row.left == 0:
            self.scheduler.remove(row)
            self.pooled.remove(row)
            row.mean.set_result(row.total / len(row.ids))

    def _read(self, part: Part, choice: Choice, states: Tensor) -> bool:
        """Note what was read; whether the choice gets a token now."""
        job = choice.job
        if _scored(choice):
            job.score_prompt(choice.read, states, self.runner.logits, self._vocab)
        if choice.left > part.count:
            self.scheduler.done(part)
            return False
        if not job.read:
            job.tell_read(choice.cached)
        if job.limit == 0:
            self._end(job, Finish("length"))
            return False
        return True

    def _write(self, writing: Sequence[tuple[Part, Tensor]]) -> None:
        """Choose the next tokens of rows whose states (1 + drafts, hidden) these are."""
        choices = [part.row for part, _ in writing if isinstance(part.row, Choice)]
        drafts = [part.drafts for part, _ in writing]
        counts = [len(states) for _, states in writing]
        adapters = [
            choice.adapter for choice, count in zip(choices, counts, strict=True) for _ in range(count)
        ]
        logits = self.runner.logits(torch.cat([states for _, states in writing]), adapters)
        tokens = self._writers.choose(choices, drafts, logits)
        for (part, _), choice, chosen, rows in zip(
            writing, choices, tokens, logits.split(counts), strict=True
        ):
            try:
                if isinstance(chosen, Exception):
                    raise chosen
                self._say(part, choice, chosen, rows)
            except Exception as error:
                log.exception("a text could not go on")
                self._fail(choice, error)

    def _say(self, part: Part, choice: Choice, tokens: list[int], logits: Tensor) -> None:
        """Tell what was chosen after the part, the last of its own tokens and its right drafts."""
        right = len(tokens) - 1
        if choice.drafter is not None and part.drafts:
            choice.drafter.learn(len(part.drafts), right)
        kept = choice.say(tokens, logits)
        self.new_tokens += kept
        self.scheduler.done(part, min(kept, right))
        if choice.finish is not None:
            self.scheduler.remove(choice)
            self._close(choice.job)

    def _start(self, job: Job) -> None:
        if not job.started:
            job.started = True
            self._left_queue()

    def _close(self, job: Job) -> None:
        """Forget a job whose choices have all ended."""
        if not job.open:
            self.jobs.remove(job)
            self._start(job)

    def _end(self, job: Job, finish: Finish) -> None:
        """End every open choice of a job now; its pages are free at once."""
        for choice in job.choices:
            if choice in self.scheduler.running or choice in self.scheduler.waiting:
                self.scheduler.remove(choice)
        for choice in job.open:
            choice.end(finish)
        self._close(job)

    def _fail(self, row: Row, error: Exception) -> None:
        """A row cannot go on: so its request ends, unless it has ended already."""
        if isinstance(row, Pooled) and row in self.pooled:
            self.pooled.remove(row)
            self.scheduler.remove(row)
            row.mean.set_exception(error)
        elif isinstance(row, Choice) and row.job in self.jobs:
            row.job.ticket.error = error
            self._end(row.job, Finish("error"))


def _scored(row: Row) -> bool:
    return isinstance(row, Choice) and row.job.request.prompt_logprobs is not None and not row.shared


def _wanted(part: Part) -> int:
    """Of how many of a part's tokens the hidden state is needed."""
    row, tokens = part.row, part.count + len(part.drafts)
    if isinstance(row, Pooled) or (_scored(row) and not row.opened):
        return tokens
    return 1 + len(part.drafts) if row.left == part.count else 0
