"""One call as those who watch see it: numbers and names; what was said only where somebody asked for it."""

from __future__ import annotations

import itertools
import random
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from glasshouse.llm.errors import LLMError
from glasshouse.llm.interface import Completion, Note, Request, Usage

if TYPE_CHECKING:
    from glasshouse.llm.monitoring.judge import Verdict

_numbers = itertools.count(random.SystemRandom().getrandbits(62))
"""Ids of calls: several processes may write one file, so each begins somewhere else."""

CANCELLED = "Cancelled"
"""The kind of error where whoever asked went away: nobody's failure."""


@dataclass(slots=True)
class Call:
    """What happened. None is "nobody told", never 0; an error is its kind alone, without its message."""

    id: int
    began: float  # seconds since 1970
    asked: str  # the name of the LLM that was asked
    operation: str  # genai.CHAT or genai.EMBEDDINGS
    streamed: bool = False
    prompt: str = ""  # this and the next three: labels of the request
    version: str = ""
    experiment: str = ""
    arm: str = ""
    model: str = ""  # that answered, as the backend calls it
    seconds: float = 0.0  # from asking to the end, waiting and all tries included
    first_token_seconds: float | None = None
    usage: Usage | None = None
    cost: float | None = None  # US dollars, all tries
    finish: str | None = None
    refused: bool = False
    error: str | None = None  # the kind: "RateLimited", "TimedOut", ...; CANCELLED
    status: int | None = None  # HTTP's, of the error
    tries: int = 1
    validation_failures: int = 0  # replies that did not follow their schema, repaired ones too
    cache_hit: bool = False
    ignored: tuple[str, ...] = ()
    request: Request | None = None  # only where content is recorded
    reply: str | None = None  # the same

    @property
    def failed(self) -> bool:
        return self.error is not None and self.error != CANCELLED

    def completed(self, completion: Completion) -> None:
        """Take in a reply, and what layers noted about it."""
        self.model = without_credentials(completion.model) or self.asked
        self.cost, self.finish, self.ignored = completion.cost, completion.finish, completion.ignored
        self.refused = completion.finish == "refusal" or completion.refusal is not None
        for note in completion.notes:
            self._noted(note)
        told = completion.usage.prompt_tokens or completion.usage.new_tokens or self.cache_hit
        self.usage = completion.usage if told else None

    def _noted(self, note: Note) -> None:
        details = note.details
        match note.layer:
            case "retry":
                self.tries = details["tries"]
                self.validation_failures += details["validation_failures"]
            case "cache":
                self.cache_hit = bool(details.get("hit"))
                if self.cache_hit:  # what was noted until now happened when the reply was made
                    self.tries, self.validation_failures = 1, 0
            case "experiment":
                self.experiment = details.get("experiment", self.experiment)
                self.arm = details.get("arm", self.arm)
            case _:
                pass

    def broke(self, error: BaseException) -> None:
        """Take in a failure. Its message stays out: nobody knows what foreign errors put into theirs."""
        self.model = self.model or self.asked
        if isinstance(error, Exception):
            self.error = type(error).__name__.removesuffix("Error")
        else:  # asyncio.CancelledError, GeneratorExit, KeyboardInterrupt
            self.error = CANCELLED
        if isinstance(error, LLMError):
            self.status, self.usage, self.cost = error.status, error.usage, error.cost
            self.tries = error.tries
        if self.error == "InvalidOutput":
            self.validation_failures += 1


def next_id() -> int:
    return next(_numbers)


def without_credentials(name: str) -> str:
    """A name that is an address may have been given with a password in it.

    >>> without_credentials("https://me:secret@host/v1#m")
    'https://host/v1#m'
    """
    return re.sub(r"//[^/#]*@", "//", name) if "@" in name else name


class Watcher(Protocol):
    """Who is told of every call, in the thread and loop of the call: be quick."""

    def record(self, call: Call) -> None:
        """A call has ended."""
        ...

    def judged(self, call: Call, verdict: Verdict) -> None:
        """A judge has read the reply, some time after the call."""
        ...

    def flush(self) -> None:
        """Write down what is not written yet."""
        ...
