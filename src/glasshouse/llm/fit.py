"""Makes a conversation fit in the model's context, and always says what it did to it.

System messages and the last turn stay. The oldest turns go first, a question with its answers and its
tools; then the oldest rounds of tools within the last turn, a call with its results; then the longest
messages of what must stay, except for system messages, lose their middle. A summary, written by any model,
may stand for the turns that went.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace

from glasshouse.core.errors import ConfigError
from glasshouse.llm.errors import ContextTooLongError, LLMError
from glasshouse.llm.interface import LLM, Chunk, Completion, Message, Note, Request
from glasshouse.llm.layer import Layer, noted
from glasshouse.llm.prices import MESSAGE_TOKENS, prompt_bound
from glasshouse.llm.reading import reading
from glasshouse.llm.shorten import shorten
from glasshouse.llm.spent import Spent
from glasshouse.llm.turns import as_talk, droppable, longest_text, with_summary, with_text, without

MIN_CHARACTERS = 64
"""Of a message that loses its middle. Less tells a model nothing, and an error tells the user more."""

FINE = 64
"""A cut is looked for up to one part in so many of the message: that many counts fewer, that little less
kept."""

SUMMARY = (
    "Summarise the following part of a conversation for someone who has to continue it. Keep names, numbers, "
    "decisions and open questions. Write only the summary, in {words} words or fewer."
)


class Fit(Layer):
    """Cuts what the context (the model's own, or `context` tokens) cannot hold; nothing where neither is
    known.

    Room for the reply, `max_new_tokens`, is kept free, but never more than half of the context; where that
    is less than was asked for, the reply's limit is lowered. Tokens are counted by the model where it
    counts exactly; else they are estimated from above by bytes, `bytes_per_token` at least to each (1 is
    certain for every text; 3 holds for English and large vocabularies), and the note says so. Nothing is
    counted where even one token a byte would fit.

    `summariser` writes what replaces turns that went, in at most `summary_tokens`: put a Cache around it
    where conversations grow, as every call summarises anew. Its usage and cost are added to the reply's.
    Where it fails, the turns go without a summary, and the note says so.

    Raises ContextTooLongError where even the last turn's shortest form cannot fit.
    """

    def __init__(
        self,
        inner: LLM,
        *,
        context: int | None = None,
        bytes_per_token: float = 1.0,
        summariser: LLM | None = None,
        summary_tokens: int = 256,
    ) -> None:
        if bytes_per_token < 1:
            raise ConfigError(
                f"a token has one byte or more, got bytes_per_token={bytes_per_token}", where="Fit"
            )
        super().__init__(inner)
        self._context, self.bytes_per_token = context, bytes_per_token
        self.summariser, self.summary_tokens = summariser, summary_tokens

    @property
    def context(self) -> int | None:
        return self._context if self._context is not None else self.inner.context

    async def complete(self, request: Request) -> Completion:
        fitted = await self._fit(request)
        if fitted is None:
            return await self.inner.complete(request)
        try:
            return fitted.note(await self.inner.complete(fitted.request))
        except LLMError as error:
            raise fitted.error(error) from error

    async def stream(self, request: Request) -> AsyncIterator[Chunk]:
        fitted = await self._fit(request)
        try:
            async with reading(self.inner, fitted.request if fitted else request) as chunks:
                async for chunk in chunks:
                    if fitted is not None and chunk.completion is not None:
                        chunk = replace(chunk, completion=fitted.note(chunk.completion))
                    yield chunk
        except LLMError as error:
            if fitted is None:
                raise
            raise fitted.error(error) from error

    async def _fit(self, request: Request) -> _Fitted | None:
        """The request that fits; None where it fits as it is."""
        context = self.context
        if context is None or prompt_bound(request) + request.max_new_tokens <= context:
            return None
        exact = self.inner.can.counts_tokens
        count = self.inner.count_tokens if exact else self._estimate
        before = await count(request)
        if before + request.max_new_tokens <= context:
            return None
        fitted = _Fitted(request, context, exact, before)
        limit = context - min(request.max_new_tokens, context // 2)
        if before > limit:
            await self._cut(fitted, limit, count)
        left = max(context - fitted.after, 1)
        if left < request.max_new_tokens:
            fitted.request = fitted.request.model_copy(update={"max_new_tokens": left})
        return fitted

    async def _estimate(self, request: Request) -> int:
        return math.ceil(prompt_bound(request) / self.bytes_per_token)

    async def _cut(self, fitted: _Fitted, limit: int, count: _Count) -> None:
        """Leaves out as little as bisection finds, and sets what is left, and its tokens, in `fitted`."""
        messages = fitted.request.messages
        units = droppable(messages)
        most = limit - self._summary_room(limit) if self.summariser and units else limit

        async def tokens(gone: int) -> int:
            return await count(fitted.with_messages(without(messages, units[:gone])))

        few, many = 0, len(units)  # few is too little to drop; many is enough, or all there is
        after = await tokens(many) if units else fitted.before
        while after <= most and many - few > 1:
            middle = (few + many) // 2
            middle_tokens = await tokens(middle)
            if middle_tokens <= most:
                many, after = middle, middle_tokens
            else:
                few = middle
        dropped = [place for unit in units[:many] for place in unit]
        fitted.dropped = tuple(dropped)
        gone = set(dropped)
        kept = [(place, message) for place, message in enumerate(messages) if place not in gone]
        if after > limit:
            after, kept = await self._shorten(fitted, kept, limit, after, count)
        fitted.request, fitted.after = fitted.with_messages([message for _, message in kept]), after
        if self.summariser is not None and dropped:
            await self._summarise(
                self.summariser, fitted, [messages[place] for place in dropped], limit, count
            )

    async def _shorten(
        self, fitted: _Fitted, kept: list[_Placed], limit: int, after: int, count: _Count
    ) -> tuple[int, list[_Placed]]:
        """The longest messages lose as much of their middle as they must."""
        order = sorted(range(len(kept)), key=lambda at: -len(longest_text(kept[at][1])))
        for at in order:
            place, message = kept[at]
            text = longest_text(message)
            if message["role"] in ("system", "developer") or len(text) <= MIN_CHARACTERS:
                continue

            async def tokens(
                characters: int, kept: list[_Placed] = kept, at: int = at, text: str = text
            ) -> tuple[int, list[_Placed], int]:
                place, message = kept[at]
                changed = [*kept]
                short, missing = shorten(text, characters)
                changed[at] = (place, with_text(message, short))
                after = await count(fitted.with_messages([message for _, message in changed]))
                return after, changed, missing

            best, enough = await tokens(MIN_CHARACTERS), MIN_CHARACTERS
            too_many = len(text)
            while best[0] <= limit and too_many - enough > max(1, len(text) // FINE):
                middle = (enough + too_many) // 2
                tried = await tokens(middle)
                if tried[0] <= limit:
                    best, enough = tried, middle
                else:
                    too_many = middle
            if best[0] >= after:  # its marker is as long as what it stands for
                continue
            after, kept, fitted.shortened[place] = best
            if after <= limit:
                return after, kept
        raise ContextTooLongError(
            f"the system messages and the last turn need {after} tokens even when shortened, the context "
            f"holds {fitted.context} with {fitted.context - limit} kept for the reply",
            where=self.name,
            fix="shorten the messages, leave out tools, or ask a model with a longer context",
        )

    def _summary_room(self, limit: int) -> int:
        """Tokens kept for the summary with its frame, at most a quarter of all that may be read."""
        return min(self.summary_tokens + 2 * MESSAGE_TOKENS, limit // 4)

    async def _summarise(
        self, summariser: LLM, fitted: _Fitted, gone: Sequence[Message], limit: int, count: _Count
    ) -> None:
        """Puts a summary before the first message that stayed, in its author's turn: roles keep alternating,
        and words of users never become the system's."""
        tokens = max(self._summary_room(limit) - 2 * MESSAGE_TOKENS, 1)
        talk = "\n\n".join(f"{message['role']}: {as_talk(message)}" for message in gone)
        words = max(tokens * 3 // 5, 1)  # of English: an assumption, and the limit cuts what is longer
        asked = Request.parse(
            {
                "messages": (
                    {"role": "system", "content": SUMMARY.format(words=words)},
                    {"role": "user", "content": talk},
                ),
                "max_new_tokens": tokens,
                "temperature": 0.0,
                "labels": fitted.request.labels,
            }
        )
        try:  # what was too long here may be too long there
            written = await Fit(summariser, bytes_per_token=self.bytes_per_token).complete(asked)
        except LLMError as error:
            fitted.spent.add(error)
            fitted.failure = str(error)
            return
        fitted.spent.add(written)
        text = written.text.strip()
        length = len(text)
        while text:  # its tokens are another model's: counted again, and halved until they fit
            request = fitted.with_messages(with_summary(fitted.request.messages, len(gone), text))
            after = await count(request)
            if after <= limit:
                fitted.request, fitted.after, fitted.summary = request, after, text
                return
            length //= 2
            text = shorten(text, length)[0] if length >= MIN_CHARACTERS else ""
        fitted.failure = "the summary did not fit"


_Count = Callable[[Request], Awaitable[int]]
_Placed = tuple[int, Message]  # a message with its place in the request as it came


@dataclass
class _Fitted:
    """A request on its way to fit, and what was done to it."""

    request: Request
    context: int
    exact: bool
    before: int
    came: Request = field(init=False)
    after: int = field(init=False)
    dropped: tuple[int, ...] = ()
    shortened: dict[int, int] = field(default_factory=dict)
    summary: str | None = None
    failure: str | None = None
    spent: Spent = field(default_factory=Spent)

    def __post_init__(self) -> None:
        self.came, self.after = self.request, self.before

    def with_messages(self, messages: Sequence[Message]) -> Request:
        return self.request.model_copy(update={"messages": tuple(messages)})

    def note(self, completion: Completion) -> Completion:
        if self.spent.usage is not None or self.spent.untold:
            self.spent.add(completion)
            completion = self.spent.reply(completion)
        return noted(completion, self._note())

    def error(self, error: LLMError) -> LLMError:
        """With what a summary cost."""
        if self.spent.usage is None and not self.spent.untold:
            return error
        self.spent.add(error)
        return self.spent.error(error, error.what)

    def _note(self) -> Note:
        about = "" if self.exact else "by an estimate from above, "
        done = [f"{about}{self.before} tokens became {self.after}, for a context of {self.context}"]
        if self.dropped:
            done.append(
                f"{len(self.dropped)} of {len(self.came.messages)} messages, the oldest, were left out"
            )
        for place, characters in self.shortened.items():
            done.append(f"message {place + 1} lost {characters:,} characters of its middle")
        if self.summary is not None:
            done.append("a summary stands for what was left out")
        if self.failure is not None:
            done.append(f"no summary was written: {self.failure}")
        room = self.request.max_new_tokens
        if room < self.came.max_new_tokens:
            done.append(f"the reply has room for {room} of {self.came.max_new_tokens} tokens")
        details = {
            "tokens_before": self.before,
            "tokens_after": self.after,
            "exact": self.exact,
            "context": self.context,
            "max_new_tokens": room,
            "dropped": self.dropped,  # places in the request as it came, from 0
            "shortened": dict(self.shortened),  # place -> characters
            "summary": self.summary,
        }
        return Note("fit", "; ".join(done), details)
