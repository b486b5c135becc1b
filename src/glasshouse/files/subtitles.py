"""Subtitles: WebVTT and SubRip."""

from __future__ import annotations

import html
import re
from typing import NamedTuple

from glasshouse.core.errors import DataError
from glasshouse.files.builder import Builder
from glasshouse.files.document import Document
from glasshouse.files.plain import plain_text

_TIME = r"(?:\d{1,4}:)?\d{1,2}:\d{2}[.,]\d{1,3}"
_TIMES = re.compile(rf"\s*({_TIME})[ \t]*-->[ \t]*({_TIME})(?=\s|\Z)")
_VOICE = re.compile(r"<v(?:\.[^\s>]*)?[ \t]+([^>]*)>")
_TAG = re.compile(r"</?[a-zA-Z][^<>]*>|<[\d:.]+>|</>")
_EFFECT = re.compile(r"\{\\[^{}]*\}")  # of SubRip: {\an8}


class _Cue(NamedTuple):
    times: str
    text: str


def read_vtt(data: bytes, name: str) -> Document:
    """A .vtt or .srt file: each cue is a paragraph, its place the times it is shown between.

    A voice tag begins its line as "Name: "; other tags, styles, cue numbers and times are not text. Notes
    (comments of WebVTT) go into `metadata["note"]`. Raises DataError for a file without a single cue.
    """
    text, flags = plain_text(data, name)
    is_vtt = text.startswith("WEBVTT")
    builder = Builder()
    notes = []
    for lines in _paragraphs(text):
        if is_vtt and re.match(r"NOTE(?:\s|\Z)", lines[0]):
            notes.append(" ".join(" ".join(lines).split()[1:]))
            continue
        cue = _cue(lines)
        if cue is not None:
            builder.add(cue.text, place=cue.times)
    if not builder.characters:
        raise DataError("no subtitles in this file", where=name, fix="check that it is WebVTT or SubRip")
    metadata = {"note": "\n".join(filter(None, notes))} if any(notes) else {}
    return builder.document(name, "vtt" if is_vtt else "srt", metadata=metadata, flags=flags)


def _paragraphs(text: str) -> list[list[str]]:
    paragraphs: list[list[str]] = [[]]
    for line in text.split("\n"):
        if line.strip():
            paragraphs[-1].append(line)
        elif paragraphs[-1]:
            paragraphs.append([])
    return [lines for lines in paragraphs if lines]


def _cue(lines: list[str]) -> _Cue | None:
    """The times stand in the first line, or in the second after the cue's name."""
    for at, line in enumerate(lines[:2]):
        if found := _TIMES.match(line):
            words = "\n".join(filter(None, (_line(text) for text in lines[at + 1 :])))
            return _Cue(f"{found[1]} --> {found[2]}", words)
    return None


def _line(text: str) -> str:
    text = _VOICE.sub(lambda found: f"\n{found[1].strip()}: ", text)
    text = _TAG.sub("", _EFFECT.sub("", text))
    return html.unescape(text).replace("\xa0", " ").strip()
