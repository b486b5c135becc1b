"""The shortest way to make a text whole: a search over bytes, told in tokens.

The search asks llguidance over a vocabulary of 256 bytes and the special tokens, where a question costs about
a microsecond. Four ways, from cheap to thorough:

- the old plan, or an end of it, may still do;
- a greedy walk that prefers what closes JSON;
- a beam search, level by level, in which states that look alike count as one;
- at the beginning of a text, the best of these with other turns.

Where almost anything may follow, texts that the grammar spells out are tried as a whole. Every plan was
accepted by the grammar to its end. That none is shorter is sure only for small grammars.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from llguidance import LLMatcher

    from glasshouse.inference.byte_vocabulary import ByteVocabulary

LONGEST = 4096
"""A way to close may have this many bytes."""

BEAM = 48
"""States of one level that the search goes on with."""

WALKED, WALKED_AGAIN = 10_000, 256
"""Bytes that the greedy walk may try: from the beginning of a text (40 ms), and after a token, where four
times the old plan's bytes are added."""

SEARCHED = 12_000
"""States that the search from the beginning of a text may visit: about 100 ms, once for each grammar. A third
where another plan is known."""

SEARCHED_AGAIN = 400
"""States that it may visit after a token."""

TRIED = 32
"""Ends of the old plan that are tried."""

STUCK = 8
"""After as many equal steps the greedy walk tries what the grammar spells out."""

PATIENCE = 64
"""Equal steps after which a walk behind a leap is given up: a string may have to be as long."""

LEAPS = 4
"""Pieces of free text that one way to close may cross."""

MANY = 64
"""Where more bytes than these may follow, few of them are tried."""

FREE, FREE_AGAIN = 6, 3
"""States of one level, beside the beam, in which almost anything may follow."""

SAME_LENGTH = 32
"""Whole texts of one length among which the cheapest is taken."""

ALIKE = 3
"""Two states of one level count as one if the same may follow and their last so many units are equal."""


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


class Closer:
    """Looks for ways to close texts of one grammar."""

    def __init__(self, vocabulary: ByteVocabulary, spelled: Sequence[bytes] = ()) -> None:
        """`spelled` are texts that the grammar spells out, as the tag that ends free text."""
        self.vocabulary = vocabulary
        self._spelled = [list(text) for text in spelled]

    def plan(self, matcher: LLMatcher, old: Plan | None = None, budget: int | None = 0) -> Plan | None:
        """A short way to make the text whole from the matcher's state, which stays; None where none is found.

        `old` is the plan of the state one token earlier. Plans that fit the `budget` end the search; None is
        satisfied by any.
        """
        best: Plan | None = None
        for way in (self._again, self._greedy, self._search, self._improved):
            units = way(matcher, old, best)
            plan = None if units is None else self._told(matcher, units)
            if plan is None:
                continue
            if best is None or plan.cost < best.cost:
                best = plan
            if budget is None or best.cost <= budget:
                break
        return best

    def _told(self, matcher: LLMatcher, units: list[int]) -> Plan | None:
        """The units as tokens; None where the vocabulary cannot spell them."""
        if (tokens := self.vocabulary.tokens_of(units)) is None:
            return None
        end = matcher.deep_copy()
        end.consume_tokens(units)
        return Plan(tuple(units), tokens, int(not end.is_stopped()))

    def _again(self, matcher: LLMatcher, old: Plan | None, best: Plan | None) -> list[int] | None:
        """The old plan, or an end of it, as it stands."""
        if old is None:
            return None
        units = [*old.units, self.vocabulary.end]
        found: list[int] | None = None
        for start in range(min(len(units), TRIED)):
            rest = units[start:]
            if matcher.validate_tokens(rest) == len(rest):
                found = rest[:-1]
            elif found is not None:
                break
        return found

    def _greedy(self, matcher: LLMatcher, old: Plan | None, best: Plan | None) -> list[int] | None:
        """The walk that takes, at each byte, what most likely closes; with as few leaps as will do."""
        if old is None:
            steps, leaps, patience = WALKED, LEAPS, LONGEST
        else:
            steps, leaps, patience = 4 * len(old.units) + WALKED_AGAIN, 1, PATIENCE
        for most_leaps in range(leaps + 1 if self._spelled else 1):
            found = self._walk(
                matcher, most_leaps, _Steps(steps), patience=PATIENCE if most_leaps else patience
            )
            if found is not None:
                return found
        return None

    def _walk(
        self, matcher: LLMatcher, leaps: int, steps: _Steps, *, most: int = LONGEST, patience: int = PATIENCE
    ) -> list[int] | None:
        """At most `most` units; given up after `patience` steps that changed nothing."""
        walk = matcher.deep_copy()
        path: list[int] = []
        again, before, last = 0, walk, (-1, -1)  # steps that changed nothing, and the state before them
        while len(path) < most and steps.left:
            steps.left -= 1
            if walk.is_accepting():
                return path
            bits = _bits(walk)
            unit = _preferred(bits, self.vocabulary.end)
            if unit is None:
                return None
            if unit == 34 and bits & (_N | _LETTERS) == _N and walk.validate_tokens(_NULL) == len(_NULL):
                unit = _NULL[0]  # a string may have to be a long one, as a sentence of a document
            if (bits, unit) != last:
                again, before, last = 0, walk.deep_copy(), (bits, unit)
            again += 1
            if again == STUCK and unit == 34:  # quotation marks in a row: free text, no string of JSON
                return self._leap(before, path[: 1 - STUCK], leaps, steps)
            if again == STUCK and (found := self._leap(walk, path, leaps, steps)) is not None:
                return found
            if again > patience:
                return None
            if not walk.consume_token(unit):
                return None
            path.append(unit)
        return None

    def _leap(self, matcher: LLMatcher, path: list[int], leaps: int, steps: _Steps) -> list[int] | None:
        """Out of free text by one of the texts that the grammar spells out, and on from there."""
        found: list[int] | None = None
        for text in reversed(self._spelled) if leaps else ():  # what ends a pattern stands last
            after = matcher.deep_copy()
            if not after.consume_tokens(text) or (rest := self._walk(after, leaps - 1, steps)) is None:
                continue
            if found is None or len(path) + len(text) + len(rest) < len(found):
                found = [*path, *text, *rest]
        return found

    def _search(self, matcher: LLMatcher, old: Plan | None, best: Plan | None) -> list[int] | None:
        """Level by level, one unit deeper each: the first whole text is among the shortest."""
        start = matcher.deep_copy()
        if start.is_accepting():
            return []

        def cost(units: list[int]) -> int:
            plan = self._told(matcher, units)
            return LONGEST if plan is None else plan.cost

        visits, most_free = (SEARCHED, FREE) if old is None else (SEARCHED_AGAIN, FREE_AGAIN)
        if best is not None:
            visits //= 3
        level = [_State(start, (), _bits(start), 0, 0)]
        for _ in range(LONGEST if best is None else len(best.units) - 1 + 2 * best.ending):
            whole: list[list[int]] = []
            following: list[_State] = []
            seen: set[tuple[int, int, int, tuple[int, ...]]] = set()
            for state in level:
                for units in self._branches(state.bits):
                    visits -= 1
                    after = state.matcher.deep_copy()
                    if not after.consume_tokens(units):
                        continue
                    if after.is_accepting():
                        whole.append([*state.path, *units])
                        continue
                    opened = sum((unit in _OPEN) - (unit in _CLOSE) for unit in units)
                    depth = max(state.depth + opened, 0)
                    quotes = state.quotes ^ (units.count(34) & 1)
                    bits = _bits(after)
                    path = (*state.path, *units)
                    signature = (bits, depth, quotes, path[-ALIKE:])
                    if signature not in seen:
                        seen.add(signature)
                        following.append(_State(after, path, bits, depth, quotes))
            if whole:
                return min(whole[:SAME_LENGTH], key=cost)
            if not following or visits < 0:
                return None
            following.sort(key=lambda state: state.depth * 2 + state.quotes)
            free = [state for state in following if state.bits.bit_count() > MANY]
            level = [state for state in following if state.bits.bit_count() <= MANY][:BEAM] + free[:most_free]
        return None

    def _improved(self, matcher: LLMatcher, old: Plan | None, best: Plan | None) -> list[int] | None:
        """The best way so far with another turn somewhere, and greedily on from there.

        Only from the beginning of a text: it costs up to 40 ms.
        """
        if old is not None or best is None:
            return None
        units, steps, place = list(best.units), _Steps(WALKED), 0
        walk = matcher.deep_copy()
        while place < len(units) and steps.left:
            for turn in self._branches(_bits(walk)):
                after = walk.deep_copy()
                if turn == units[place : place + len(turn)] or not after.consume_tokens(turn):
                    continue
                rest = self._walk(after, 0, steps, most=len(units) - place - len(turn))
                if rest is not None:
                    units[place:] = [*turn, *rest]
            walk.consume_token(units[place])
            place += 1
        return units

    def _branches(self, bits: int) -> list[list[int]]:
        """What is worth trying next: every sign, few of many letters, white space if there is no other."""
        units = [[unit] for unit in range(256, self.vocabulary.end) if bits >> unit & 1]
        everything = allowed = [byte for byte in _ORDER if bits >> byte & 1]
        if len(allowed) > MANY:  # almost anything may follow: one of each kind stands for all
            allowed = [byte for byte in _KINDS if bits >> byte & 1]
        else:
            for kind in _CLASSES:  # as in a number, a UUID, a word: a few stand for all
                if bits & kind == kind:
                    allowed = [byte for byte in allowed if not kind >> byte & 1 or byte in b"019anzANZ"]
        if len(allowed) < len(everything):
            units += self._spelled
        dark = [byte for byte in allowed if byte not in _WHITE]
        return units + [[byte] for byte in dark or allowed]


@dataclass
class _Steps:
    """How far a walk with all its leaps may still go."""

    left: int


def in_string(matcher: LLMatcher) -> bool:
    """Whether almost any letter may follow, as in a string or in free text, but in no number of JSON."""
    return bool(_bits(matcher) & _LETTERS)


class _State(NamedTuple):
    matcher: LLMatcher
    path: tuple[int, ...]
    bits: int  # what may follow
    depth: int  # brackets opened less closed
    quotes: int  # quotation marks so far, modulo 2


def _bits(matcher: LLMatcher) -> int:
    """The allowed units as the bits of a number; none where the grammar has become too complex."""
    return 0 if matcher.is_error() else int.from_bytes(matcher.compute_bitmask(), "little")


_OPEN, _CLOSE, _WHITE = frozenset(b"{["), frozenset(b"}]"), frozenset(b" \n\r\t")


def _ordered() -> list[int]:
    first, late = b'}],:0123456789"ntf[{-', b"\\.eE+"
    rest = [byte for byte in range(256) if byte not in first + late and byte not in _WHITE]
    rest.sort(key=lambda byte: (byte >= 128, not chr(byte).isalpha(), byte))
    return [*first, *rest, *late, *sorted(_WHITE, reverse=True)]


_ORDER = _ordered()
"""All bytes, what most likely closes first."""

_KINDS = b'}],:"0a{[<@.-/'
"""One of each kind of byte."""

_LETTERS = sum(1 << byte for byte in b"bBjJqQzZxX")
"""Letters with which no value of JSON begins: where they are allowed, a string is open."""

_CLASSES = [
    sum(1 << byte for byte in kind)
    for kind in (b"0123456789", b"abcdef", b"ABCDEF", b"ghijklmnopqrstuvwxyz", b"GHIJKLMNOPQRSTUVWXYZ")
]
"""Where all of a class are allowed, it hardly matters which is taken."""

_QUOTE = 1 << ord('"')
_NULL = list(b"null")
_N = 1 << _NULL[0]


def _preferred(bits: int, end: int) -> int | None:
    """What most likely closes, among the allowed units."""
    if special := (bits & ((1 << end) - 1)) >> 256:
        return 256 + special.bit_length() - 1
    if bits & _QUOTE and bits & _LETTERS:
        return ord('"')
    return next((byte for byte in _ORDER if bits >> byte & 1), None)
