"""Tokens in, readable text out: never half a character, never a part of a stop string."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Sequence


class TextStream:
    """Turns token ids into text as they come.

    Bytes are held back until they complete a UTF-8 character, and text is held back while it may
    still be the beginning of a stop string. The stop string itself is not given out.
    """

    def __init__(self, token_bytes: Callable[[int], bytes], stop: Sequence[str] = ()) -> None:
        self.met: str | None = None  # the stop string that was met
        self._token_bytes = token_bytes
        self._stop = [text for text in stop if text]
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""

    @property
    def stopped(self) -> bool:
        """Whether a stop string was met: nothing more will be given out."""
        return self.met is not None

    def feed(self, token: int) -> str:
        """The text that became certain with this token; often empty."""
        return self._release(self._decoder.decode(self._token_bytes(token)))

    def finish(self) -> str:
        """What was held back; an incomplete character becomes U+FFFD, as in `Tokenizer.decode`."""
        piece = self._release(self._decoder.decode(b"", final=True))
        if self.stopped:
            return piece
        held, self._held = self._held, ""
        return piece + held

    def _release(self, text: str) -> str:
        if self.stopped:
            return ""
        self._held += text
        found = [(place, stop) for stop in self._stop if (place := self._held.find(stop)) >= 0]
        if found:
            place, self.met = min(found)
            return self._held[:place]
        keep = max((self._overlap(stop) for stop in self._stop), default=0)
        certain = len(self._held) - keep
        piece, self._held = self._held[:certain], self._held[certain:]
        return piece

    def _overlap(self, stop: str) -> int:
        """Length of the longest end of the held text that begins `stop`."""
        for length in range(min(len(stop) - 1, len(self._held)), 0, -1):
            if stop.startswith(self._held[-length:]):
                return length
        return 0
