"""Which words of a PDF page a reader sees: asked of a picture of the page, not only of the words' colours."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from glasshouse.files.pdf_words import MIN_SIZE, Box, Word

if TYPE_CHECKING:
    import numpy as np
    import pypdfium2

SCALE = 1.5
"""Pixels of the picture to a point."""
MAX_SIDE = 3_000
"""Pixels: pages larger than a poster are drawn smaller."""
CONTRAST = 16
"""Of 255: colours closer than this look the same."""
SAME = 0.85
"""Share of a word's box in the word's own colour from which the ground has it too: ink alone covers less."""
_SMALL = 4.0  # pixels
_CLEAR = 64  # of 255: ink that differs so much from the mean of its box is seen, without looking closer


def visible(page: pypdfium2.PdfPage, words: Sequence[Word]) -> list[bool]:
    """For each word, whether whoever looks at the page sees it.

    Not seen is what stands off the page, is smaller than a point, has the colour of its ground or is covered.
    Unpainted words count as seen where they lie over the ink of an image: they are a scan's recognized text.
    """
    if not words:
        return []
    picture = _Picture(page)
    images = _images(page) if any(not word.style.painted for word in words) else []
    return [_is_visible(word, picture, images) for word in words]


def _is_visible(word: Word, picture: _Picture, images: list[Box]) -> bool:
    if word.style.size < MIN_SIZE:
        return False
    if not word.style.painted:
        return _is_recognized(word, picture, images)
    region, fill = picture.region(word.box), word.style.fill
    if region is None:
        return False
    if fill is not None and _is_clear(region[:, :, 1], fill[1]):
        return True
    # Of letters of few pixels little ink is left in the picture.
    enough = CONTRAST if word.style.size * picture.scale >= _SMALL else CONTRAST // 8
    return _spread(region) >= enough and (fill is None or _share_near(region, fill) < SAME)


def _is_clear(green: np.ndarray, ink: int) -> bool:
    """Whether letters surely stand out, by one of the colours: most words end here, and it is fast.

    Ink covers less than half of its box, so that the mean is near the ground.
    """
    ground = float(green.mean())
    if abs(ground - ink) < _CLEAR:
        return False
    # Something of about the ink's colour has to be there: the letters may be covered.
    return abs(ground - (float(green.min()) if ink < ground else float(green.max()))) >= _CLEAR


def _is_recognized(word: Word, picture: _Picture, images: list[Box]) -> bool:
    """Whether an unpainted word lies over the ink of an image."""
    left, bottom, right, top = word.box
    x, y = (left + right) / 2, (bottom + top) / 2
    if not any(image[0] <= x <= image[2] and image[1] <= y <= image[3] for image in images):
        return False
    slack = (top - bottom) / 2  # recognized words stand a little beside their ink
    region = picture.region((left - slack, bottom - slack, right + slack, top + slack))
    return region is not None and _spread(region) >= CONTRAST


def _images(page: pypdfium2.PdfPage) -> list[Box]:
    """Where the images of a page lie, and the forms that hold one."""
    import pypdfium2
    import pypdfium2.raw as pdfium

    found: list[Box] = []
    for item in page.get_objects(filter=(pdfium.FPDF_PAGEOBJ_IMAGE, pdfium.FPDF_PAGEOBJ_FORM), max_depth=1):
        is_form = pdfium.FPDFPageObj_GetType(item) == pdfium.FPDF_PAGEOBJ_FORM
        if is_form and not _holds_image(item.raw):
            continue
        try:
            found.append(item.get_bounds())
        except pypdfium2.PdfiumError:
            continue
    return found


def _holds_image(form: Any, depth: int = 4) -> bool:
    import pypdfium2.raw as pdfium

    for place in range(min(pdfium.FPDFFormObj_CountObjects(form), 10_000)):
        item = pdfium.FPDFFormObj_GetObject(form, place)
        kind = pdfium.FPDFPageObj_GetType(item)
        if kind == pdfium.FPDF_PAGEOBJ_IMAGE:
            return True
        if kind == pdfium.FPDF_PAGEOBJ_FORM and depth and _holds_image(item, depth - 1):
            return True
    return False


def _spread(region: np.ndarray) -> int:
    """The widest difference between two pixels in one of the three colours."""
    return int((region.max(axis=(0, 1)).astype(int) - region.min(axis=(0, 1))).max())


def _share_near(region: np.ndarray, colour: tuple[int, int, int]) -> float:
    """The share of pixels that look like a colour."""
    import numpy as np

    distance = np.abs(region.astype(np.int16) - np.array(colour, np.int16)).max(axis=2)
    return float((distance < CONTRAST).mean())


class _Picture:
    """A page as pixels, and where a box of the page lies among them."""

    def __init__(self, page: pypdfium2.PdfPage) -> None:
        import pypdfium2.raw as pdfium

        width, height = page.get_size()
        self.scale = scale = min(SCALE, MAX_SIDE / max(width, height, 1.0))
        bitmap = page.render(scale=scale, rev_byteorder=True)  # type: ignore[arg-type]
        self._pixels = bitmap.to_numpy()[:, :, :3]
        self._rows, self._columns = self._pixels.shape[:2]
        fine = 1_000  # thousandths of a pixel: the call below gives whole numbers

        def device(x: float, y: float) -> tuple[float, float]:
            column, row = ctypes.c_int(), ctypes.c_int()
            size = self._columns * fine, self._rows * fine
            pdfium.FPDF_PageToDevice(page, 0, 0, *size, 0, x, y, ctypes.byref(column), ctypes.byref(row))
            return column.value / fine, row.value / fine

        # Where three points of the page come to lie gives the way for all, whatever its rotation and crop.
        self._origin, right, up = device(0, 0), device(100, 0), device(0, 100)
        self._x = ((right[0] - self._origin[0]) / 100, (right[1] - self._origin[1]) / 100)
        self._y = ((up[0] - self._origin[0]) / 100, (up[1] - self._origin[1]) / 100)

    def region(self, box: Box) -> np.ndarray | None:
        """The pixels of a box, (rows, columns, 3) uint8; None where its middle is off the page."""
        x, y = self._pixel(box[0], box[1])
        u, v = self._pixel(box[2], box[3])
        if not (0 <= (x + u) / 2 < self._columns and 0 <= (y + v) / 2 < self._rows):
            return None
        above, left = max(int(min(y, v)), 0), max(int(min(x, u)), 0)
        return self._pixels[above : int(max(y, v)) + 1, left : int(max(x, u)) + 1]

    def _pixel(self, x: float, y: float) -> tuple[float, float]:
        return (
            self._origin[0] + x * self._x[0] + y * self._y[0],
            self._origin[1] + x * self._x[1] + y * self._y[1],
        )
