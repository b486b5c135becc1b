"""What a call costs, in US dollars: by the providers' lists, the user's word, or the time of our machine.

The list is that of `genai-prices`, the copy that comes with the package: nothing is fetched, so it is as old
as the installed version. Unknown is None, never 0. Searches, audio and images that a provider bills apart
from tokens are not in a `Usage`, so they are not in a cost.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from glasshouse.core.config import Config
from glasshouse.llm.interface import Request, Usage

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice

PROVIDERS = ("openai", "anthropic")
"""Names that begin with these and a colon are looked up in the provider's list."""

MESSAGE_TOKENS, PROMPT_TOKENS = 16, 64
"""Room for what chat templates put around a message and a prompt. OpenAI's cookbook counts 4 and 3, ChatML
with a role and line ends 6: an assumption with some air."""

TOOLS_TOKENS = 1024
"""Room for the instructions that a provider adds where tools are given. Anthropic's documentation names up
to 530."""

IMAGE_TOKENS = 50_000
"""Room for an image, however few bytes its address has. The dearest of OpenAI's table, gpt-4o-mini's eight
tiles at 5,667 and a base of 2,833, is 48,169."""


Dollars = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Price(Config):
    """US dollars for a million tokens. None: not told; cached ones then cost what others cost, and so on."""

    input: Dollars | None = None
    output: Dollars | None = None
    cached: Dollars | None = None  # of the prompt, read from a cache
    cache_write: Dollars | None = None  # of the prompt, written to it
    reasoning: Dollars | None = None  # thoughts among the output
    call: Dollars = 0.0  # US dollars for each call, whatever its length


@dataclass(frozen=True)
class Tariff:
    """A price, and the prices that all tokens of a call have instead where its prompt is longer."""

    base: Price
    above: tuple[tuple[int, Price], ...] = ()  # (tokens that the prompt must exceed, price), rising

    def cost(self, usage: Usage) -> float | None:
        """Of a call; None where it used what has no price."""
        price = self.base
        for start, dearer in self.above:
            if usage.prompt_tokens > start:
                price = dearer
        return _cost(price, usage)

    def bound(self, prompt: int, new: int) -> float | None:
        """The most that a call may cost with at most so many tokens: each at its dearest."""
        prices = [self.base, *(dearer for start, dearer in self.above if prompt > start)]
        most = 0.0
        for price in prices:
            if (price.input is None and prompt) or (price.output is None and new):
                return None
            reads = max(price.input or 0.0, price.cached or 0.0, price.cache_write or 0.0)
            writes = max(price.output or 0.0, price.reasoning or 0.0)
            most = max(most, price.call + (prompt * reads + new * writes) / 1e6)
        return most


def _cost(price: Price, usage: Usage) -> float | None:
    plain = max(usage.prompt_tokens - usage.cached_tokens - usage.cache_write_tokens, 0)
    said = max(usage.new_tokens - usage.reasoning_tokens, 0)
    parts = (
        (plain, price.input),
        (usage.cached_tokens, price.input if price.cached is None else price.cached),
        (usage.cache_write_tokens, price.input if price.cache_write is None else price.cache_write),
        (said, price.output),
        (usage.reasoning_tokens, price.output if price.reasoning is None else price.reasoning),
    )
    total = 0.0
    for tokens, dollars in parts:
        if tokens:
            if dollars is None:
                return None
            total += tokens * dollars
    return price.call + total / 1e6


@dataclass
class Machine:
    """A machine of one's own: each moment in which it answers is shared evenly by the calls then open.

    So the calls' costs add up to the price of the time in which it answered any, however many at once. Idle
    time is nobody's. From measured power: dollars_per_hour = watts / 1000 * dollars per kilowatt-hour. Give
    models on the same machine the same object.
    """

    dollars_per_hour: float
    longest: float = 600.0  # seconds after which a Budget stops a call: without an end it could cost anything
    clock: Callable[[], float] = time.perf_counter
    _open: int = field(default=0, init=False, repr=False)
    _since: float = field(default=0.0, init=False, repr=False)
    _shared: float = field(default=0.0, init=False, repr=False)  # seconds of a call open from the start
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    def begin(self) -> float:
        """A call starts; give what it returns to `end`."""
        return self._turn(1)

    def end(self, begun: float) -> float:
        """A call ends; US dollars for its share of the time."""
        return (self._turn(-1) - begun) / 3600 * self.dollars_per_hour

    def bound(self) -> float:
        """The most that a call may cost: all of the longest time, alone."""
        return self.longest / 3600 * self.dollars_per_hour

    def _turn(self, change: int) -> float:
        with self._lock:
            now = self.clock()
            if self._open:
                self._shared += (now - self._since) / self._open
            self._since = now
            self._open += change
            return self._shared


class Prices:
    """Prices by model: the user's own first, by the whole name or by what follows its provider or address.

    `own`: {"name": {"input": US dollars for a million tokens, "output": ..., "cached": ...}}, or a `Machine`.
    Raises ConfigError for a key that no price has.
    """

    def __init__(
        self,
        own: Mapping[str, Mapping[str, float] | Machine] | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.now = now
        self._own: dict[str, Tariff | Machine] = {
            name: price if isinstance(price, Machine) else Tariff(Price.parse(price, f"the price of {name}"))
            for name, price in (own or {}).items()
        }

    def find(self, name: str) -> Tariff | Machine | None:
        """The price today of "openai:NAME", "http://host/v1#NAME" or a folder; None: nobody knows one."""
        own = self._own.get(name) or self._own.get(_bare(name))
        if own is not None:
            return own
        info = _listed(name)
        return None if info is None else _tariff(info.get_prices(self.now()))

    def cost(self, name: str, usage: Usage) -> float | None:
        """US dollars of a call that a list has a price for."""
        found = self.find(name)
        return found.cost(usage) if isinstance(found, Tariff) else None


def prompt_bound(request: Request) -> int:
    """Tokens that the prompt has at most, without the model's tokenizer.

    A token of a byte-level vocabulary stands for a byte of UTF-8 or more; so a text has at most as many
    tokens as bytes. In English it has about a quarter of that.
    """
    tokens = PROMPT_TOKENS + (TOOLS_TOKENS if request.tools else 0) + schema_bound(request)
    for message in request.messages:
        tokens += MESSAGE_TOKENS
        for key, value in message.items():
            if isinstance(value, str):
                tokens += text_bound(value)
            elif key == "content" and isinstance(value, list):
                tokens += sum(_part_bound(part) for part in value)
            elif value is not None:
                tokens += text_bound(_json(value))
    return tokens + sum(text_bound(_json(tool)) for tool in request.tools)


def schema_bound(request: Request) -> int:
    """Tokens that its output schema has at most."""
    return 0 if request.output_schema is None else text_bound(_json(request.output_schema))


def text_bound(text: str) -> int:
    """Tokens that a text has at most: its bytes of UTF-8."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _part_bound(part: Any) -> int:
    if isinstance(part, Mapping) and "image" in str(part.get("type", "")):
        return IMAGE_TOKENS
    return text_bound(_json(part))


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _bare(name: str) -> str:
    """openai:NAME and http://host/v1#NAME -> NAME"""
    if name.startswith(("http://", "https://")):
        return name.rpartition("#")[2]
    provider, colon, rest = name.partition(":")
    return rest if colon and provider in PROVIDERS else name


@cache
def _listed(name: str) -> ModelInfo | None:
    """The model in the bundled list. A server of one's own is in no list, whatever its model is called."""
    from genai_prices.data_snapshot import get_snapshot

    provider, colon, _ = name.partition(":")
    address = None
    if name.startswith(("http://", "https://")):
        provider, (address, _, _) = None, name.partition("#")
    elif not colon or provider not in PROVIDERS:
        return None
    try:
        return get_snapshot().find_provider_model(_bare(name), None, provider, address)[1]
    except LookupError:
        return None


_KINDS = {
    "input": "input_mtok",
    "output": "output_mtok",
    "cached": "cache_read_mtok",
    "cache_write": "cache_write_mtok",
    "reasoning": "output_reasoning_mtok",
}
_tariffs: dict[int, Tariff | None] = {}  # by identity of the list's objects, which live as long as we do


def _tariff(listed: ModelPrice) -> Tariff | None:
    """A list's entry as ours: adding up with it takes microseconds, with theirs a tenth of a millisecond."""
    if id(listed) not in _tariffs:
        _tariffs[id(listed)] = _read(listed)
    return _tariffs[id(listed)]


def _read(listed: ModelPrice) -> Tariff | None:
    from genai_prices.types import TieredPrices

    stored = {kind: getattr(listed, key) for kind, key in _KINDS.items()}
    if all(value is None for value in stored.values()):
        return None
    calls = listed.requests_kcount
    call = 0.0 if calls is None else float(calls.base if isinstance(calls, TieredPrices) else calls) / 1000
    tiered = [value for value in stored.values() if isinstance(value, TieredPrices)]
    starts = sorted({tier.start for value in tiered for tier in value.tiers})

    def price(prompt: int) -> Price:
        found: dict[str, float] = {"call": call}
        for kind, value in stored.items():
            if isinstance(value, TieredPrices):
                reached = [tier.price for tier in value.tiers if prompt > tier.start]
                value = reached[-1] if reached else value.base
            if value is not None:
                found[kind] = float(value)
        return Price.parse(found)

    return Tariff(price(0), tuple((start, price(start + 1)) for start in starts))
