"""A reply that is an object: asked for by a pydantic type or a JSON Schema, checked, asked for again.

Where the backend keeps replies to a schema, the schema goes with the request. Elsewhere it stands in words at
the end of the prompt, and the JSON is found in what comes, be it in a code fence or among prose. Either way
the reply is checked against the whole schema; what is wrong with it is told to the model, which is asked
again. No JSON is mended: it parses, or it is asked for anew. What stood around it is told in `cut_away`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, overload

from glasshouse.core.errors import ConfigError, UsageError
from glasshouse.llm.blocking import wait
from glasshouse.llm.errors import InvalidOutputError
from glasshouse.llm.interface import LLM, Completion, Message, Request, Usage
from glasshouse.llm.output_schema import NotStrictError, Shape, for_provider

T = TypeVar("T")

_PLACES = 200
"""Brackets at which JSON among prose may begin; a reply with more of them is something else."""

_FENCE = re.compile(r"^[ \t]*```[^\n`]*\n(.*?)^[ \t]*```[ \t]*$", re.DOTALL | re.MULTILINE)
_THOUGHTS = re.compile(r"\s*<think(?:ing)?>.*?</think(?:ing)?>", re.DOTALL)


class RefusedOutputError(InvalidOutputError):
    """The model or its provider refused; asking the same again would be refused again."""


class CutOutputError(InvalidOutputError):
    """The reply ended at its limit of tokens before the object did."""


@dataclass(frozen=True)
class Structured(Generic[T]):
    """An object, and how it came about."""

    value: T
    completions: tuple[Completion, ...]  # one a try; the last one is where the value is from
    problems: tuple[str, ...] = ()  # what was wrong with each of the others, as the model was told
    cut_away: tuple[str, ...] = ()  # what stood before and after the JSON of the last reply
    native: bool = False  # the backend was given the schema; otherwise it stood in words in the prompt
    why_not_native: str | None = None
    checked_here: tuple[str, ...] = field(default=())  # keywords of the schema that the backend was not given

    @property
    def tries(self) -> int:
        return len(self.completions)

    @property
    def completion(self) -> Completion:
        return self.completions[-1]

    @property
    def usage(self) -> Usage:
        """Tokens of all tries."""
        return sum((completion.usage for completion in self.completions), Usage())

    @property
    def cost(self) -> float | None:
        """US dollars of all tries; None where that of one is not known."""
        return _cost(self.completions)


@overload
async def structured(llm: LLM, request: Request, kind: type[T], tries: int = 3) -> Structured[T]: ...
@overload
async def structured(llm: LLM, request: Request, kind: Any = None, tries: int = 3) -> Structured[Any]: ...
async def structured(llm: LLM, request: Request, kind: Any = None, tries: int = 3) -> Structured[Any]:
    """The reply to `request` as an object of `kind`: a pydantic model, another type that pydantic reads (a
    dataclass, list[int]), or a JSON Schema, whose objects are plain JSON. By default the request's schema.

    `tries`: calls at most; each after the first is told what was wrong with the one before.
    Raises RefusedOutputError and CutOutputError at once, InvalidOutputError after the last try (all with
    `usage` and `cost` of all tries), ConfigError for a schema that is none, and what the model raises.
    """
    if tries < 1:
        raise UsageError("at least one try is needed", where="structured", fix="set tries to 1 or more")
    if request.tools:
        raise UsageError(
            "an object and calls of tools cannot be asked for at once",
            where="structured",
            fix="leave the tools out of the request",
        )
    shape = Shape.of(_kind(request, kind))
    asking = _Asking.of(llm, request, shape)
    completions: list[Completion] = []
    problems: list[str] = []
    request = asking.request
    while True:
        completion = await llm.complete(request)
        completions.append(completion)
        _raise_unfinished(llm, completion, completions, request)
        try:
            value, around = asking.read(completion.text)
            return Structured(
                value,
                tuple(completions),
                tuple(problems),
                around,
                asking.native,
                asking.why_not,
                asking.removed,
            )
        except ValueError as error:
            problems.append(str(error))
        if len(completions) == tries:
            raise InvalidOutputError(
                f"no reply follows the schema in {tries} tries; the last one: {problems[-1]}",
                where=llm.name,
                fix="ask a larger model, loosen the schema or allow more tries",
                text=completion.text,
                problem=problems[-1],
                usage=_usage(completions),
                cost=_cost(completions),
            )
        request = _again(asking.request, completion, problems[-1], len(completions))


@overload
def structured_blocking(llm: LLM, request: Request, kind: type[T], tries: int = 3) -> Structured[T]: ...
@overload
def structured_blocking(llm: LLM, request: Request, kind: Any = None, tries: int = 3) -> Structured[Any]: ...
def structured_blocking(llm: LLM, request: Request, kind: Any = None, tries: int = 3) -> Structured[Any]:
    """`structured` for code without an event loop."""
    return wait(structured(llm, request, kind, tries))


def _kind(request: Request, kind: Any) -> Any:
    if kind is not None:
        if request.output_schema is not None and request.output_schema != kind:
            # pydantic's own schema in the request and its model here are the same wish
            own = None if isinstance(kind, dict) else Shape.of(kind).schema
            if own != request.output_schema:
                raise ConfigError(
                    "the request has an output schema, and another one is asked for",
                    where="structured",
                    fix="leave one of them out",
                )
        return kind
    if request.output_schema is None:
        raise UsageError(
            "nothing says what the object is to look like",
            where="structured",
            fix="give a pydantic model or a JSON Schema",
        )
    return request.output_schema


@dataclass(frozen=True)
class _Asking(Generic[T]):
    """One way to ask for an object and to read what comes."""

    request: Request
    shape: Shape[T]
    native: bool
    wrapped: bool = False
    removed: tuple[str, ...] = ()
    why_not: str | None = None

    @classmethod
    def of(cls, llm: LLM, request: Request, shape: Shape[T]) -> _Asking[T]:
        if not llm.can.output_schema:
            return cls._in_words(request, shape, "the backend cannot keep a reply to a schema")
        try:
            schema, removed, wrapped = for_provider(shape.schema)
        except NotStrictError as error:
            return cls._in_words(request, shape, f"the schema has {error}, which no provider keeps to")
        changed = request.model_copy(update={"output_schema": schema})
        return cls(changed, shape, True, wrapped, removed)

    @classmethod
    def _in_words(cls, request: Request, shape: Shape[T], why: str) -> _Asking[T]:
        told = (
            "Reply with one JSON value and nothing else: no explanation, no code fence. "
            f"It must follow this JSON Schema:\n{json.dumps(shape.schema, ensure_ascii=False)}"
        )
        messages = _with_words(request.messages, told)
        changed = request.model_copy(update={"messages": messages, "output_schema": None})
        return cls(changed, shape, False, why_not=why)

    def read(self, text: str) -> tuple[T, tuple[str, ...]]:
        """The object and what stood around it. Raises ValueError that says what is wrong."""
        if not self.native:
            value, around = find_json(text, lambda value: self.shape.problem(value) is None)
            return self.shape.read(value), around
        return self.shape.read(self.shape.from_provider(_parsed(text), self.wrapped)), ()


def _with_words(messages: tuple[Message, ...], told: str) -> tuple[Message, ...]:
    """The schema at the end of the user's last message: what is said last is followed best."""
    for place in range(len(messages) - 1, -1, -1):
        message = messages[place]
        if message["role"] != "user":
            continue
        content = message.get("content") or ""
        longer = (
            f"{content}\n\n{told}" if isinstance(content, str) else [*content, {"type": "text", "text": told}]
        )
        return (*messages[:place], {**message, "content": longer}, *messages[place + 1 :])
    return (*messages, {"role": "user", "content": told})


def _again(request: Request, completion: Completion, problem: str, tries: int) -> Request:
    """The question, the last reply alone, and what was wrong with it; with another seed, if there is one."""
    reply = [{"role": "assistant", "content": completion.text}] if completion.text.strip() else []
    wrong = {
        "role": "user",
        "content": f"That reply cannot be used: {problem}. Reply again with correct JSON and nothing else.",
    }
    seed = None if request.seed is None else request.seed + tries
    return request.model_copy(update={"messages": (*request.messages, *reply, wrong), "seed": seed})


def _raise_unfinished(llm: LLM, last: Completion, all_: list[Completion], request: Request) -> None:
    known: dict[str, Any] = {"text": last.text, "usage": _usage(all_), "cost": _cost(all_), "where": llm.name}
    if last.finish == "refusal" or (last.refusal and not last.text.strip()):
        words = f": {last.refusal}" if last.refusal else ""
        raise RefusedOutputError(
            f"the model refused to reply{words}",
            problem="the reply is a refusal",
            fix="ask for something else, or ask another model",
            **known,
        )
    if last.finish == "length":
        raise CutOutputError(
            f"the reply was cut after {last.usage.new_tokens or request.max_new_tokens} tokens, "
            "before its JSON was whole",
            problem="the reply was cut at its limit of tokens",
            fix=f"set max_new_tokens above {request.max_new_tokens}, or ask for a smaller object",
            **known,
        )


def _usage(completions: list[Completion]) -> Usage:
    return sum((completion.usage for completion in completions), Usage())


def _cost(completions: list[Completion] | tuple[Completion, ...]) -> float | None:
    costs = [completion.cost for completion in completions]
    return None if None in costs else sum(cost for cost in costs if cost is not None)


# --- JSON in a text ---------------------------------------------------------------------------------------


def find_json(text: str, fits: Callable[[Any], bool]) -> tuple[Any, tuple[str, ...]]:
    """The one JSON value in a text, and the pieces of text around it that are no part of it.

    The whole text, else what is in a code fence, else an object or array among prose. Of several values the
    one that `fits`; several that do are refused, for nobody can tell which is meant. Raises ValueError.
    """
    try:
        return _parsed(text), ()
    except ValueError as error:
        whole = error
    thoughts = _THOUGHTS.match(text)
    begin = thoughts.end() if thoughts else 0
    for found in (list(_fenced(text, begin)), list(_among_prose(text, begin))):
        distinct = {json.dumps(value, sort_keys=True): (value, span) for value, span in reversed(found)}
        fitting = [one for one in distinct.values() if fits(one[0])]
        if len(fitting) > 1:
            raise ValueError(f"there are {len(fitting)} different JSON values in the reply; give one")
        for value, (start, end) in fitting or list(distinct.values())[:1]:
            return value, tuple(part for part in (text[:start].strip(), text[end:].strip()) if part)
    raise whole


def _fenced(text: str, begin: int) -> Iterator[tuple[Any, tuple[int, int]]]:
    for fence in _FENCE.finditer(text, begin):
        try:
            yield _parsed(fence[1]), fence.span()
        except ValueError:
            continue


def _among_prose(text: str, begin: int) -> Iterator[tuple[Any, tuple[int, int]]]:
    decoder = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_no_constant)
    places = 0
    while (found := re.compile(r"[{\[]").search(text, begin)) and places < _PLACES:
        places += 1
        try:
            value, end = decoder.raw_decode(text, found.start())
            yield value, (found.start(), end)
            begin = end
        except (ValueError, RecursionError):
            begin = found.end()


def _parsed(text: str) -> Any:
    """JSON as its standard has it: no key twice, no NaN. Raises ValueError for the model to read."""
    try:
        return json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        if not text.strip():
            raise ValueError("the reply is empty") from None
        raise ValueError(
            f"it is not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        ) from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} stands twice")
    return result


def _no_constant(name: str) -> Any:
    raise ValueError(f"it is not JSON: {name} is no number there")
