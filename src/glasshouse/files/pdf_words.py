"""The words of one PDF page: where each stands, how large and in which font, and whether it is painted."""

from __future__ import annotations

import ctypes
import math
import re
import unicodedata
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pypdfium2

Box = tuple[float, float, float, float]
"""Left, bottom, right, top in points, in the page's own coordinates: y grows upwards."""

MIN_SIZE = 1.0
"""Points. Letters below this height are dots even in print."""

_FILL_MODES = (0, 2, 4, 6)
"""Render modes (ISO 32000-1, table 106) that fill the letters; 1 and 5 draw only their outlines."""
_INVISIBLE_MODES = (3, 7)
_FIXED_PITCH, _FORCE_BOLD = 1 << 0, 1 << 18  # flags of a font, table 123
_BOLD = re.compile("bold|black|heavy|demi|(?:cm|ec|lm|sf)bx")  # the latter: bold fonts of TeX
_FIXED = re.compile("courier|mono|(?:cm|ec|lm|sf)tt")
_LINE_HYPHENS = "\x02\ufffe"
"""What PDFium gives for a hyphen that it takes for the mark of a broken word."""
_DROPPED = dict.fromkeys(map(ord, "\u200b\u2060\ufeff\u200e\u200f"), None)
"""Signs without any width or ink."""
_LIGATURES = {code: unicodedata.normalize("NFKC", chr(code)) for code in range(0xFB00, 0xFB07)}
_BULLETS: dict[int, str] = dict.fromkeys((0xF0B7, 0xF0A7, 0xF0D8, 0xF076, 0xF0FC, 0x25CF, 0x25AA), "•")
"""Signs of the Symbol and Wingdings fonts, which have no other code, as the bullet that is seen."""


@dataclass(frozen=True)
class Style:
    """What all letters of one text object share."""

    size: float  # points on the page
    bold: bool
    fixed_pitch: bool
    turn: int  # quarter turns counter-clockwise of the writing on the page, 0 to 3
    painted: bool  # False: render mode 3 or 7, or wholly transparent
    fill: tuple[int, int, int] | None  # red, green, blue 0 to 255; None where letters are not filled


@dataclass(frozen=True)
class Word:
    """A run of letters without white space between."""

    text: str
    box: Box
    baseline: float  # of its first letter, across the direction of writing
    style: Style
    space_before: bool = True  # False: it follows the word before at once, as after a change of the font
    line_end: bool = False  # the file ends a line of text here
    undecoded: int = 0  # letters for which the file does not say which ones they are


def words_on(page: pypdfium2.PdfPage, limit: int) -> tuple[list[Word], bool]:
    """The words of a page in the order of the file, and whether it has more than `limit` characters."""
    text_page = page.get_textpage()
    try:
        count = text_page.count_chars()
        return _Reader(text_page.raw).words(min(count, limit)), count > limit
    finally:
        text_page.close()


class _Reader:
    def __init__(self, text_page: Any) -> None:
        import pypdfium2.raw as pdfium

        self._pdfium, self._page = pdfium, text_page
        self._styles: dict[int, Style] = {}

    def words(self, count: int) -> list[Word]:
        pdfium, page = self._pdfium, self._page
        unicode_at, box_of, object_of = (
            pdfium.FPDFText_GetUnicode,
            pdfium.FPDFText_GetLooseCharBox,
            pdfium.FPDFText_GetTextObject,
        )
        rectangle = pdfium.FS_RECTF()
        pointer = ctypes.byref(rectangle)
        found: list[Word] = []
        letters: list[str] = []
        box: list[float] = []
        style: Style | None = None
        first, address, undecoded = 0, 0, 0
        space = True

        def finish(line_end: bool = False) -> None:
            nonlocal letters, undecoded, space
            text = _clean(letters)
            if text and style is not None:
                left, bottom, right, top = box
                word = Word(
                    text,
                    (left, bottom, right, top),
                    self._baseline(first, style),
                    style,
                    space,
                    line_end,
                    undecoded,
                )
                found.append(word)
                space = False
            elif line_end and found:
                found[-1] = replace(found[-1], line_end=True)
            letters, undecoded = [], 0

        for index in range(count):
            code = unicode_at(page, index)
            letter = chr(code) if code < 0x110000 else "\ufffd"
            if letter.isspace() or letter == "\x00":
                finish(line_end=letter in "\r\n")
                space = True
                continue
            handle = object_of(page, index)
            here = ctypes.cast(handle, ctypes.c_void_p).value or 0
            if not box_of(page, index, pointer):
                continue
            left, bottom, right, top = rectangle.left, rectangle.bottom, rectangle.right, rectangle.top
            if here != address or style is None:
                new = self._style(index, here, handle, (left, bottom, right, top))
                if letters and new != style:
                    finish()
                style, address = new, here
            if letters:
                jump = _jump(box, (left, bottom, right, top), style)
                if jump:
                    finish()
                    space = True
            if not letters:
                first = index
                box = [left, bottom, right, top]
            else:
                box = [min(box[0], left), min(box[1], bottom), max(box[2], right), max(box[3], top)]
            letters.append("-" if letter in _LINE_HYPHENS else letter)
            undecoded += (
                code == 0xFFFD
                or (0xE000 <= code < 0xF900 and code not in _BULLETS)
                or (code < 0x20 and code != 2)
            )
        finish(line_end=True)
        return found

    def _baseline(self, index: int, style: Style) -> float:
        x, y = ctypes.c_double(), ctypes.c_double()
        self._pdfium.FPDFText_GetCharOrigin(self._page, index, ctypes.byref(x), ctypes.byref(y))
        return (y.value, -x.value, -y.value, x.value)[style.turn]

    def _style(self, index: int, address: int, handle: Any, box: Box) -> Style:
        known = self._styles.get(address)
        if known is None or not address:
            known = self._styles[address] = self._read_style(index, handle, box)
        return known

    def _read_style(self, index: int, handle: Any, box: Box) -> Style:
        pdfium, page = self._pdfium, self._page
        matrix = pdfium.FS_MATRIX()
        size, turn = pdfium.FPDFText_GetFontSize(page, index), 0
        if pdfium.FPDFText_GetMatrix(page, index, ctypes.byref(matrix)):
            size *= math.hypot(matrix.c, matrix.d)
            turn = round(math.atan2(matrix.b, matrix.a) / (math.pi / 2)) % 4
        # Letters that are drawings of their own (Type 3) may have any nominal size: their boxes tell.
        size = max(abs(size), 0.6 * (box[3] - box[1] if turn % 2 == 0 else box[2] - box[0]))
        mode = pdfium.FPDFTextObj_GetTextRenderMode(handle) if handle else 0
        colours = [ctypes.c_uint() for _ in range(4)]
        pointers = [ctypes.byref(colour) for colour in colours]
        read = pdfium.FPDFText_GetFillColor if mode in _FILL_MODES else pdfium.FPDFText_GetStrokeColor
        known = bool(read(page, index, *pointers))
        red, green, blue, alpha = (colour.value for colour in colours)
        name, flags = self._font(index)
        return Style(
            size=size,
            bold=bool(flags & _FORCE_BOLD) or _BOLD.search(name) is not None,
            fixed_pitch=bool(flags & _FIXED_PITCH) or _FIXED.search(name) is not None,
            turn=turn,
            painted=mode not in _INVISIBLE_MODES and not (known and alpha < 16),
            fill=(red, green, blue) if known and mode in _FILL_MODES and mode != 2 else None,
        )

    def _font(self, index: int) -> tuple[str, int]:
        buffer, flags = ctypes.create_string_buffer(128), ctypes.c_int()
        self._pdfium.FPDFText_GetFontInfo(self._page, index, buffer, len(buffer), ctypes.byref(flags))
        return buffer.value.decode("utf-8", "replace").lower(), flags.value


def _jump(box: list[float], letter: Box, style: Style) -> bool:
    """Whether a letter stands too far from the word so far to belong to it."""
    along, across = (0, 1) if style.turn % 2 == 0 else (1, 0)
    em = max(style.size, 1e-3)
    gap = max(letter[along] - box[along + 2], box[along] - letter[along + 2])
    overlap = min(box[across + 2], letter[across + 2]) - max(box[across], letter[across])
    height = min(box[across + 2] - box[across], letter[across + 2] - letter[across])
    return gap > 0.8 * em or overlap < 0.3 * height


def _clean(letters: list[str]) -> str:
    """Ligatures as their letters, composed accents, halves of a character put together, nothing invisible."""
    text = "".join(letters)
    if text.isascii() and text.isprintable():
        return text
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    text = text.translate(_LIGATURES).translate(_BULLETS).translate(_DROPPED)
    text = "".join(
        letter
        for letter in text
        if unicodedata.category(letter) not in ("Cc", "Cs", "Cn") or letter == "\ufffd"
    )
    return unicodedata.normalize("NFC", text)
