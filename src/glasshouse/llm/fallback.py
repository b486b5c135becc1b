"""Another way to an answer where the first gives none: other models, other sampling, other prompts, in
order."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from glasshouse.core.errors import ConfigError
from glasshouse.llm.errors import (
    BadRequestError,
    BudgetExceededError,
    ContextTooLongError,
    LLMError,
    NotAllowedError,
)
from glasshouse.llm.interface import LLM, Capabilities, Chunk, Completion, Note, Request
from glasshouse.llm.layer import Layer, noted
from glasshouse.llm.reading import reading
from glasshouse.llm.spent import Spent

Change = Callable[[Request], Request]


@dataclass(frozen=True)
class Alternative:
    """A model (None: the first one), a change of the request (None: none), and how notes call the two."""

    llm: LLM | None = None
    change: Change | None = None
    name: str = ""


def changed(**settings: Any) -> Change:
    """The request with other settings: `changed(temperature=1.0, seed=3)`. Raises ConfigError for unknown
    ones."""
    probe = Request.parse({"messages": [{"role": "user", "content": ""}], **settings}, "changed()")
    update = {name: getattr(probe, name) for name in settings}
    return lambda request: request.model_copy(update=update)


class Fallback(Layer):
    """Asks the first alternative, and the next one where it fails: after what retries could not mend, a reply
    against its schema, a prompt too long, something that the model cannot do, and with `refusals` a refusal.

    What the request itself did wrong, or the key, is not asked of the same model again (BadRequestError,
    NotAllowedError: its other alternatives are left out). A budget that is used up ends the search. A change
    is made to the request as it came, not to what another alternative made of it.

    Where none answers, the error is the first that asking again may help, else the last, and lists what each
    said. Where all that answered refused, the first refusal is the reply. Usage and cost are those of all.
    A stream moves on only before its first piece went out.

    `can` is what all models can, `context` the smallest that is known: any of them may be asked. Vectors and
    counts of tokens are the first model's alone, as those of different models do not mix.
    """

    def __init__(self, alternatives: Sequence[LLM | Alternative], *, refusals: bool = False) -> None:
        ways = [each if isinstance(each, Alternative) else Alternative(each) for each in alternatives]
        if not ways or ways[0].llm is None:
            raise ConfigError("the first alternative must be a model", where="Fallback")
        super().__init__(ways[0].llm)
        self.refusals = refusals
        self._ways = [(way.llm or self.inner, way.change, _named(way, self.inner)) for way in ways]
        self.models = list({id(llm): llm for llm, _, _ in self._ways}.values())

    @property
    def name(self) -> str:
        return " or ".join(llm.name for llm in self.models)

    @property
    def can(self) -> Capabilities:
        all_can = [llm.can for llm in self.models]
        shared = {
            field.name: all(getattr(can, field.name) for can in all_can) for field in fields(Capabilities)
        }
        first = all_can[0]
        return Capabilities(**shared | {"embeddings": first.embeddings, "counts_tokens": first.counts_tokens})

    @property
    def context(self) -> int | None:
        return min((llm.context for llm in self.models if llm.context is not None), default=None)

    async def complete(self, request: Request) -> Completion:
        search = _Search(self)
        for llm, change, name in self._ways:
            if search.rules_out(llm):
                continue
            try:
                completion = await llm.complete(change(request) if change else request)
            except LLMError as error:
                search.failed(llm, name, error)
                continue
            if self.refusals and completion.finish == "refusal":
                search.refused(name, completion)
                continue
            return search.done(name, completion)
        return search.nothing()

    async def stream(self, request: Request) -> AsyncIterator[Chunk]:
        search = _Search(self)
        for llm, change, name in self._ways:
            if search.rules_out(llm):
                continue
            begun = False
            try:
                async with reading(llm, change(request) if change else request) as chunks:
                    async for chunk in chunks:
                        completion = chunk.completion
                        begun = begun or bool(chunk.text or chunk.reasoning)
                        if completion is None:
                            yield chunk
                            continue
                        if self.refusals and completion.finish == "refusal" and not begun:
                            search.refused(name, completion)
                            break
                        yield Chunk(chunk.text, chunk.reasoning, search.done(name, completion))
                        return
            except LLMError as error:
                if begun:
                    raise search.cut(error) from error
                search.failed(llm, name, error)
        last = search.nothing()
        yield Chunk(last.text, last.reasoning or "", last)

    async def close(self) -> None:
        for llm in self.models:
            await llm.close()


class _Search:
    """One call: who was asked and what they said."""

    def __init__(self, rules: Fallback) -> None:
        self.rules = rules
        self.spent = Spent()
        self.said: list[tuple[str, str]] = []
        self.errors: list[LLMError] = []
        self.refusal: Completion | None = None
        self.out: set[int] = set()

    def rules_out(self, llm: LLM) -> bool:
        return id(llm) in self.out

    def failed(self, llm: LLM, name: str, error: LLMError) -> None:
        """Remembers it, or raises it where nobody else is to be asked."""
        if isinstance(error, BudgetExceededError):
            raise (self.cut(error) if self.said else error) from None
        self.spent.add(error)
        self.said.append((name, str(error)))
        self.errors.append(error)
        plain = isinstance(error, BadRequestError) and not isinstance(error, ContextTooLongError)
        if plain or isinstance(error, NotAllowedError):
            self.out.add(id(llm))

    def refused(self, name: str, completion: Completion) -> None:
        self.spent.add(completion)
        self.said.append((name, f"refused: {completion.refusal or completion.text or 'no reason given'}"))
        self.refusal = self.refusal or completion

    def done(self, name: str, completion: Completion) -> Completion:
        if not self.said:
            return completion
        self.spent.add(completion)
        return self._noted(completion, f"{name} answered", name)

    def nothing(self) -> Completion:
        """The first refusal; raises where nobody even refused."""
        if self.refusal is not None:
            return self._noted(self.refusal, "all that answered refused", None)
        if len(self.said) == 1:
            raise self.errors[0]
        error = next((error for error in self.errors if error.retryable), self.errors[-1])
        told = self.spent.error(error, f"no alternative answered: {self._listed()}")
        told.where = told.fix = None  # of one alternative; each says its own in the list
        told.args = (told.what,)
        raise told from error

    def cut(self, error: LLMError) -> LLMError:
        """One that ends the search, with what was used before it."""
        if not self.said:
            return error
        self.spent.add(error)
        return self.spent.error(error, f"{error.what.rstrip('.')}; before: {self._listed()}")

    def _noted(self, completion: Completion, what: str, name: str | None) -> Completion:
        said = tuple({"alternative": each, "said": words} for each, words in self.said)
        note = Note("fallback", f"{what}; before: {self._listed()}", {"answered": name, "said": said})
        return noted(self.spent.reply(completion), note)

    def _listed(self) -> str:
        return "; ".join(f"{name}: {words.rstrip('.')}" for name, words in self.said)


def _named(way: Alternative, first: LLM) -> str:
    if way.name:
        return way.name
    return (way.llm or first).name + (", changed" if way.change else "")
