"""How text is split into words before byte pairs are merged: no token crosses the end of a word."""

from __future__ import annotations

from collections.abc import Iterator

QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"  # English contractions
    r"|[^\r\n\p{L}\p{N}]?\p{L}+"  # letters, with at most one sign or space before them
    r"|\p{N}"  # every digit alone
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*"  # signs, with the line ends after them
    r"|\s*[\r\n]+"  # white space that ends in a line end
    r"|\s+(?!\S)"  # white space, but the last of it goes with the next word
    r"|\s+"
)
"""The split pattern of Qwen2's tokenizer. llama.cpp has it built in, so that a GGUF file can be exact."""

LLAMA3 = QWEN2.replace(r"\p{N}|", r"\p{N}{1,3}|")
"""Llama 3's: up to three digits together."""

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""What `ByteLevel` with `use_regex` means in a tokenizer.json: the pattern of GPT-2."""

LONGEST_WHITE_RUN = 100_000
"""Characters. The engine of `tiktoken` and `rustbpe` overflows its stack on a million, so we cut before."""

_LINE_ENDS = "\r\n"
WHITE = (
    "\t\n\v\f\r \x85\xa0\u1680"
    "\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
"""What the pattern's `\\s` means: Unicode's White_Space. (Python's `\\s` also takes U+001C to U+001F.)"""

_WHITE = frozenset(WHITE)


def long_white_runs(text: str, pattern: str) -> Iterator[tuple[int, int]]:
    """Spans [start, end) of very long white space that the pattern would make one word of.

    A run of at least LONGEST_WHITE_RUN covers one of the probed places, so looking costs next to nothing.
    """
    # Patterns with this alternative end a white-space word at a line end; GPT-2's has no such rule.
    line_ends_apart = r"\s*[\r\n]" in pattern
    inside = _WHITE.difference(_LINE_ENDS) if line_ends_apart else _WHITE
    seen = 0
    for probe in range(LONGEST_WHITE_RUN - 1, len(text), LONGEST_WHITE_RUN):
        if probe < seen or text[probe] not in inside:
            continue
        start, seen = probe, probe
        while start > 0 and text[start - 1] in inside:
            start -= 1
        while seen < len(text) and text[seen] in inside:
            seen += 1
        followed_by_word = seen < len(text) and text[seen] not in _WHITE
        end = seen - 1 if followed_by_word else seen
        ends_in_line_end = seen < len(text) and text[seen] in _WHITE
        if end - start >= LONGEST_WHITE_RUN // 2 and not ends_in_line_end:
            yield start, end


def parts_of(text: str, size: int) -> Iterator[str]:
    """Cut a long text into parts of about `size` characters where QWEN2 ends a word in any case.

    That is between a line end and a character that is not white space. Text without such a place stays whole.
    """
    start = 0
    while len(text) - start > size:
        cut = text.find("\n", start + size) + 1
        while 0 < cut < len(text) and text[cut] in _WHITE:
            cut = text.find("\n", cut) + 1
        if cut <= 0 or cut == len(text):
            break
        yield text[start:cut]
        start = cut
    yield text[start:] if start else text


def is_unicode(text: str) -> bool:
    """Whether the text has no lone surrogate: half a character, which no engine takes."""
    if text.isascii():
        return True
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def well_formed(text: str) -> str:
    """The text as tiktoken reads it: lone surrogates are U+FFFD, pairs of them whole characters."""
    return text if is_unicode(text) else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
