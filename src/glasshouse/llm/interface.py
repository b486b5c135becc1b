"""What every language model is asked, and what it answers, whoever runs it.

`complete` and `stream` are asynchronous: whoever has many conversations asks them all at once, and the model
decides how many it reads together. `blocking.py` is the way there for code without an event loop.

A layer (layer.py) is an LLM too, around another one: it asks again, remembers, counts or chooses.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from pydantic import Field

from glasshouse.core.config import Config

Message = dict[str, Any]
"""{"role": "system" | "user" | "assistant" | "tool", "content": text}, with OpenAI's "tool_calls" and
"tool_call_id" where tools are used."""


class Request(Config):
    """One conversation to be continued, and how. None leaves a choice to whoever serves the model."""

    messages: tuple[Message, ...] = Field(min_length=1)
    max_new_tokens: int = Field(256, ge=1)
    temperature: float | None = Field(None, ge=0, allow_inf_nan=False)  # our engine's own is 0: greedy
    top_p: float | None = Field(None, gt=0, le=1)
    seed: int | None = None
    stop: tuple[str, ...] = ()  # texts before which a reply ends
    tools: tuple[dict[str, Any], ...] = ()  # OpenAI's shape: {"type": "function", "function": {...}}
    tool_choice: str | None = None  # "auto", "none", "required", or the name of a tool
    output_schema: dict[str, Any] | None = None  # a JSON Schema; the reply is to be JSON that follows it
    logprobs: int | None = Field(None, ge=0, le=20)  # alternatives told for each new token; 0: its own alone
    labels: dict[str, str] = Field(default_factory=dict)
    """For those who watch: prompt, version, arm of an experiment. They change no reply and stay here."""


@dataclass(frozen=True)
class Usage:
    """Tokens, as the backend counted them."""

    prompt_tokens: int = 0  # all of the prompt, cached ones too
    new_tokens: int = 0  # all that was generated, reasoning too
    cached_tokens: int = 0  # of the prompt, read from the provider's cache at a lower price
    cache_write_tokens: int = 0  # of the prompt, written to it at a higher one
    reasoning_tokens: int = 0  # of the new ones, thoughts that are not in the text

    def __add__(self, other: Usage) -> Usage:
        return Usage(*(mine + theirs for mine, theirs in zip(_counts(self), _counts(other), strict=True)))


def _counts(usage: Usage) -> tuple[int, ...]:
    return (
        usage.prompt_tokens,
        usage.new_tokens,
        usage.cached_tokens,
        usage.cache_write_tokens,
        usage.reasoning_tokens,
    )


@dataclass(frozen=True)
class TokenLogprob:
    """A token of the reply with its log-probability in nats, and the likeliest in its place."""

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Note:
    """What a layer did to a call: its name, one sentence, and the numbers in it."""

    layer: str
    what: str
    details: Mapping[str, Any] = field(default_factory=dict)


Finish = Literal["stop", "length", "tool_calls", "refusal"]
"""The model ended by itself or at a stop text; was cut; wants tools; or the provider withheld the reply."""


@dataclass(frozen=True)
class Completion:
    """A reply. Numbers that nobody told are None, never 0."""

    text: str
    finish: Finish
    usage: Usage = Usage()
    model: str = ""  # as the backend calls it
    id: str | None = None  # the provider's, to ask its support about
    tool_calls: tuple[dict[str, Any], ...] = ()  # OpenAI's shape
    refusal: str | None = None  # the provider's words, where it gave any
    reasoning: str | None = None  # thoughts, where they are told
    logprobs: tuple[TokenLogprob, ...] | None = None
    seconds: float | None = None  # from asking to the end, of the try that succeeded
    first_token_seconds: float | None = None  # only when streamed
    cost: float | None = None  # US dollars, all tries together; None: no layer counted, or no price known
    ignored: tuple[str, ...] = ()  # settings of the request that this backend cannot follow, by name
    notes: tuple[Note, ...] = ()  # what layers did, the innermost first


@dataclass(frozen=True)
class Chunk:
    """A piece of a streamed reply; the last one holds the whole completion."""

    text: str = ""
    reasoning: str = ""
    completion: Completion | None = None


@dataclass(frozen=True)
class Capabilities:
    """What a backend can do. What it cannot is left out of the call and told in `Completion.ignored`,
    except for what would change what a reply means: tools and images are then an error."""

    temperature: bool = True
    top_p: bool = True
    seed: bool = True
    stop: bool = True
    logprobs: bool = True
    output_schema: bool = True  # the provider itself keeps a reply to a schema
    any_schema: bool = False  # ... of any size, enumerations of long texts too
    tools: bool = True
    embeddings: bool = False
    counts_tokens: bool = False  # `count_tokens` is exact


class LLM(Protocol):
    """A language model. Raises the errors of errors.py, which tell whether asking again may help."""

    @property
    def name(self) -> str:
        """Tells it from others, as the user would write it: "openai:NAME"."""
        ...

    @property
    def can(self) -> Capabilities: ...

    @property
    def context(self) -> int | None:
        """Tokens of prompt and reply together; None where nobody said."""
        ...

    async def complete(self, request: Request) -> Completion:
        """The assistant's next message."""
        ...

    def stream(self, request: Request) -> AsyncIterator[Chunk]:
        """The same, piece by piece."""
        ...

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """A vector for each text. Raises NotAbleError."""
        ...

    async def count_tokens(self, request: Request) -> int:
        """Tokens of the prompt as the model will read it, tools and all. Raises NotAbleError."""
        ...

    async def close(self) -> None:
        """Let go of connections and memory."""
        ...
