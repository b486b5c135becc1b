"""The shortest way to make a text whole: a search over bytes, told in tokens.

The search asks llguidance over a vocabulary of 256 bytes and the special tokens, where a question costs about
a microsecond. Three ways, from cheap to thorough:

- the old plan, or an end of it, may still do;
- a greedy walk that prefers what closes JSON;
- a beam search, level by level, in which states with equal masks at equal depth count as one.

Every plan was accepted by the grammar to its end. That none is shorter is sure only for small grammars.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from llguidance import LLMatcher

    from glasshouse.tokenizer import Tokenizer

LONGEST = 4096
"""A way to close may have this many bytes."""

BEAM = 48
"""States of one level that the search goes on with."""

EXPANSIONS = 4000
"""States that one search may visit: about 50 ms."""

SAME = 2
"""States of one level with equal signatures that are followed."""


@dataclass(frozen=True)
class Plan:
    """Tokens that make a text whole."""

    units: tuple[int, ...]  # bytes, and special tokens from 256 on
    tokens: tuple[int, ...]
    ending: int  # 1 where a token must end the text, 0 where nothing may follow

    @property
    def cost(self) -> int:
        """Tokens to choose, the one that ends the text included."""
        return len(self.tokens) + self.ending

    def rest(self, vocabulary: ByteVocabulary) -> Plan:
        """The plan after its first token."""
        gone = len(vocabulary.units_of(self.tokens[0]))
        return Plan(self.units[gone:], self.tokens[1:], self.ending)


class ByteVocabulary:
    """The 256 bytes, the special tokens and one end: what the search is made of."""

    def __init__(self, tokenizer: Tokenizer, end_ids: frozenset[int]) -> None:
        from llguidance import LLTokenizer

        self.end_ids = end_ids
        names = sorted(tokenizer.special, key=tokenizer.special.__getitem__)
        self.special = {name: 256 + place for place, name in enumerate(names)}  # name -> unit
        self._unit_of = {tokenizer.special[name]: unit for name, unit in self.special.items()}
        self._token_of = {unit: token for token, unit in self._unit_of.items()}
        self.end = 256 + len(names)
        self._tokens = [tokenizer.token_bytes(token) for token in range(tokenizer.vocab_size)]
        self._ids: dict[bytes, int] = {}  # bytes -> the first token that stands for them
        for token, spelled in enumerate(self._tokens):
            if spelled and token not in self._unit_of:
                self._ids.setdefault(spelled, token)
        self._longest = max(map(len, self._ids), default=1)
        self.tokenizer = LLTokenizer(_Units(names, self.end), eos_token=self.end)

    def units_of(self, token: int) -> list[int]:
        """A token as bytes, or as the special token that it is."""
        if token in self._unit_of:
            return [self._unit_of[token]]
        return list(self._tokens[token]) if token < len(self._tokens) else []

    def tokens_of(self, units: Sequence[int]) -> tuple[int, ...] | None:
        """The fewest tokens that spell the units; None where the vocabulary lacks a byte."""
        best: list[tuple[int, int, int]] = [
            (0, -1, 0)
        ]  # (tokens, the last of them, its start) up to each place
        text = bytes(unit if unit < 256 else 0 for unit in units)
        last_special = 0
        for end, unit in enumerate(units, 1):
            found: tuple[int, int, int] | None = None
            if unit >= 256:
                last_special = end
                if (before := best[end - 1])[0] >= 0:
                    found = (before[0] + 1, self._token_of[unit], end - 1)
            else:
                for start in range(max(last_special, end - self._longest), end):
                    count = best[start][0]
                    if count < 0 or (found is not None and count + 1 >= found[0]):
                        continue
                    token = self._ids.get(text[start:end])
                    if token is not None:
                        found = (count + 1, token, start)
            best.append(found or (-1, -1, 0))
        if best[-1][0] < 0:
            return None
        tokens: list[int] = []
        place = len(units)
        while place:
            _, token, place = best[place]
            tokens.append(token)
        return tuple(reversed(tokens))


class _Units:
    """What llguidance wants to see of a tokenizer."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, names: Sequence[str], end: int) -> None:
        self.tokens = [bytes([byte]) for byte in range(256)] + [name.encode() for name in names] + [b"<end>"]
        self.special_token_ids = list(range(256, end + 1))
        self.eos_token_id = end

    def __call__(self, text: str) -> list[int]:
        return list(text.encode())


def plan_from(
    matcher: LLMatcher, vocabulary: ByteVocabulary, old: Plan | None = None, budget: int | None = 0
) -> Plan | None:
    """A short way to make the text whole from the matcher's state, which stays; None where none is found.

    `old` is the plan of the state one token earlier. Plans that fit the `budget` end the search; None is
    satisfied by any.
    """
    best: Plan | None = None
    for way in (_again, _greedy, _search):
        units = way(matcher, vocabulary, old, best)
        if units is None:
            continue
        tokens = vocabulary.tokens_of(units)
        if tokens is None:
            continue
        end = matcher.deep_copy()
        end.consume_tokens(units)
        plan = Plan(tuple(units), tokens, int(not end.is_stopped()))
        if best is None or plan.cost < best.cost:
            best = plan
        if budget is None or best.cost <= budget:
            break
    return best


def _again(
    matcher: LLMatcher, vocabulary: ByteVocabulary, old: Plan | None, best: Plan | None
) -> list[int] | None:
    """The old plan, or an end of it, as it stands."""
    if old is None:
        return None
    units = [*old.units, vocabulary.end]
    for start in range(min(len(units), 32)):
        rest = units[start:]
        if matcher.validate_tokens(rest) == len(rest):
            return rest[:-1]
    return None


def _greedy(
    matcher: LLMatcher, vocabulary: ByteVocabulary, old: Plan | None, best: Plan | None
) -> list[int] | None:
    """The walk that takes, at each byte, what most likely closes."""
    walk = matcher.deep_copy()
    path: list[int] = []
    limit = LONGEST
    while len(path) < limit:
        if walk.is_accepting():
            return path
        bits = int.from_bytes(walk.compute_bitmask(), "little")
        unit = _preferred(bits, vocabulary.end)
        if unit is None or not walk.consume_token(unit):
            return None
        path.append(unit)
    return None


def _ordered() -> list[int]:
    first = b'}],:0123456789"ntf[{-'
    white = b" \n\r\t"
    late = b"\\.eE+"
    rest = [byte for byte in range(256) if byte not in first + white + late]
    rest.sort(key=lambda byte: (byte >= 128, not chr(byte).isalpha(), byte))
    return [*first, *rest, *late, *white]


_ORDER = _ordered()
_LETTERS = sum(1 << byte for byte in b"bBjJqQzZxX")
"""Letters with which no value of JSON begins: where they are allowed, a string is open."""

_QUOTE = 1 << ord('"')


def _preferred(bits: int, end: int) -> int | None:
    """What most likely closes, among the allowed units."""
    if special := (bits & ((1 << end) - 1)) >> 256:
        return 256 + special.bit_length() - 1
    if bits & _QUOTE and bits & _LETTERS:
        return ord('"')
    return next((byte for byte in _ORDER if bits >> byte & 1), None)


class _State(NamedTuple):
    matcher: LLMatcher
    path: tuple[int, ...]
    bits: int
    depth: int  # brackets opened less closed
    quotes: int  # quotation marks so far, modulo 2


def _search(
    matcher: LLMatcher, vocabulary: ByteVocabulary, old: Plan | None, best: Plan | None
) -> list[int] | None:
    """Level by level, one unit deeper each: the first whole text is among the shortest."""
    start = matcher.deep_copy()
    if start.is_accepting():
        return []
    level = [_State(start, (), int.from_bytes(start.compute_bitmask(), "little"), 0, 0)]
    longest = min(LONGEST, len(best.units) - 1 if best else LONGEST)
    left = EXPANSIONS
    for _ in range(longest):
        following: list[_State] = []
        seen: dict[tuple[int, int, int], int] = {}
        for state in level:
            for unit in _branches(state.bits, vocabulary.end):
                left -= 1
                after = state.matcher.deep_copy()
                if not after.consume_token(unit):
                    continue
                path = (*state.path, unit)
                if after.is_accepting():
                    return list(path)
                bits = int.from_bytes(after.compute_bitmask(), "little")
                depth = state.depth + (unit in b"{[") - (unit in b"}]") if unit < 256 else state.depth
                quotes = state.quotes ^ (unit == 34)
                signature = (bits, depth, quotes)
                if seen.get(signature, 0) < SAME:
                    seen[signature] = seen.get(signature, 0) + 1
                    following.append(_State(after, path, bits, depth, quotes))
        if not following or left < 0:
            return None
        following.sort(key=lambda state: state.depth * 2 + state.quotes)
        level = following[:BEAM]
    return None


def _branches(bits: int, end: int) -> list[int]:
    """Units worth trying: all special tokens and signs, few of many letters, white space if nothing else."""
    units = [unit for unit in range(256, end) if bits >> unit & 1]
    allowed = [byte for byte in _ORDER if bits >> byte & 1]
    if len(allowed) > 64:  # almost anything may follow: one of each kind stands for all
        kinds = b'}],:"0a{[</'
        return units + [byte for byte in kinds if bits >> byte & 1]
    dark = [byte for byte in allowed if byte not in b" \n\r\t"]
    return units + (dark or allowed)
