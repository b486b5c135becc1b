"""A text in the form in which quotes are compared, with the way back to its own characters.

Every run of white space (Unicode's, line breaks among it) is one space. Characters that nothing shows are
left out: the soft hyphen, the zero-width space, the word joiner and the byte order mark. (Zero-width joiners
stay: in some scripts they change letters.) What is left is in Unicode's form NFD, so that an `é` written as
one character and one written as two are the same.
"""

from __future__ import annotations

import bisect
import re
import unicodedata

_UNSEEN = "\u00ad\u200b\u2060\ufeff"
_BLANK = re.compile(r"[^\S ]")
_SPACES = re.compile("  +")
_SPECIAL = re.compile(f"[ {_UNSEEN}]{{2,}}|[{_UNSEEN}]|[^\\x00-\\x7f{_UNSEEN}]+")


class PlainForm:
    """`text`: the plain form of a text. `span` leads back to the characters of the text itself."""

    def __init__(self, original: str) -> None:
        source = _BLANK.sub(" ", original)  # of the same length
        decomposed = unicodedata.is_normalized("NFD", source)
        parts: list[str] = []
        length = 0
        # Pieces of the plain form: where each begins, and the span of the original that it stands for. A
        # piece as long as its span maps character by character; any other is taken whole.
        self._at: list[int] = []
        self._spans: list[tuple[int, int]] = []

        def piece(text: str, start: int, end: int) -> None:
            nonlocal length
            if text:
                self._at.append(length)
                self._spans.append((start, end))
                parts.append(text)
                length += len(text)

        done = 0
        for found in (_SPACES if source.isascii() else _SPECIAL).finditer(source):
            start, end = found.span()
            run = found.group()
            if run.isspace():
                piece(source[done : start + 1], done, start + 1)  # the first space stands for them all
                done = end
            elif run[0] == " " or run[0] in _UNSEEN:
                piece(source[done:start], done, start)
                piece(" " if " " in run else "", start, end)
                done = end
            elif not decomposed and not unicodedata.is_normalized("NFD", run):
                piece(source[done:start], done, start)
                for first, last in _clusters(run):
                    cluster = unicodedata.normalize("NFD", run[first:last])
                    piece(cluster, start + first, start + last)
                done = end
        piece(source[done:], done, len(source))
        self.text = "".join(parts)

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Where the plain characters [start, end), at least one, stand in the original; half open."""
        return self._original(start)[0], self._original(end - 1)[1]

    def whole(self, place: int) -> bool:
        """Whether `place` lies between two characters of the original, and not inside one."""
        if not 0 < place < len(self.text) or self.text.isascii():
            return True
        following = self.text[place]
        if following > "\x7f" and (unicodedata.combining(following) or "\u1160" <= following <= "\u11ff"):
            return False  # an accent, or the later part of a Korean syllable
        start, end = self._original(place)
        return end - start == 1 or self._original(place - 1) != (start, end)

    def _original(self, place: int) -> tuple[int, int]:
        """The characters of the original that the plain one at `place` stands for."""
        piece = bisect.bisect_right(self._at, place) - 1
        start, end = self._spans[piece]
        following = self._at[piece + 1] if piece + 1 < len(self._at) else len(self.text)
        if following - self._at[piece] != end - start:
            return start, end
        start += place - self._at[piece]
        return start, start + 1


def _clusters(run: str) -> list[tuple[int, int]]:
    """Each character with the accents after it."""
    starts = [place for place, char in enumerate(run) if not place or not unicodedata.combining(char)]
    return list(zip(starts, [*starts[1:], len(run)], strict=True))
