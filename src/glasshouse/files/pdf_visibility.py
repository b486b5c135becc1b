"""Which words of a PDF page a reader sees: asked of a picture of the page, not only of the words' colours."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import TYPE_CHECKING

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
"""Share of a word's box that has the word's own colour where the ground has it too: ink alone covers less."""


def visible(page: pypdfium2.PdfPage, words: Sequence[Word]) -> list[bool]:
    """For each word, whether whoever looks at the page sees it.

    Not seen is what stands off the page, is smaller than a point, has the colour of its ground, or is covered.
    Unpainted words count as seen where they lie over the ink of an image: they are a scan's recognized text.
    """
    if not words:
        return []
    picture = _Picture(page)
    images = [box for box in _images(page)] if any(not word.style.painted for word in words) else []
    return [_is_visible(word, picture, images) for word in words]


def _is_visible(word: Word, picture: _Picture, images: list[Box]) -> bool:
    if word.style.size < MIN_SIZE:
        return False
    left, bottom, right, top = word.box
    if not word.style.painted:
        if not any(_inside(word.box, image) for image in images):
            return False
        slack = (top - bottom) / 2  # recognized words stand a little beside their ink
        return picture.contrast((left - slack, bottom - slack, right + slack, top + slack)) >= CONTRAST
    region = picture.region(word.box)
    if region is None or _spread(region) < CONTRAST:
        return False
    return word.style.fill is None or _share_near(region, word.style.fill) < SAME


def _inside(box: Box, image: Box) -> bool:
    """Whether the middle of a box lies in an image."""
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return image[0] <= x <= image[2] and image[1] <= y <= image[3]


def _images(page: pypdfium2.PdfPage) -> list[Box]:
    import pypdfium2.raw as pdfium

    found = []
    for image in page.get_objects(filter=(pdfium.FPDF_PAGEOBJ_IMAGE,), max_depth=5):
        found.append(image.get_bounds())
    return found


def _spread(region: np.ndarray) -> int:
    """The widest difference between two pixels in one of the three colours."""
    return int((region.max(axis=(0, 1)).astype(int) - region.min(axis=(0, 1))).max())


def _share_near(region: np.ndarray, colour: tuple[int, int, int]) -> float:
    import numpy as np

    distance = np.abs(region.astype(np.int16) - np.array(colour, np.int16)).max(axis=2)
    return float((distance < CONTRAST).mean())


class _Picture:
    """A page as pixels, and where a box of the page stands among them."""

    def __init__(self, page: pypdfium2.PdfPage) -> None:
        import pypdfium2.raw as pdfium

        width, height = page.get_size()
        scale = min(SCALE, MAX_SIDE / max(width, height, 1.0))
        bitmap = page.render(scale=scale, rev_byteorder=True, optimize_mode=None)
        self._pixels = bitmap.to_numpy()[:, :, :3]
        # Where three points of the page come to lie gives the way for all, whatever its rotation and crop.
        x, y = ctypes.c_double(), ctypes.c_double()
        fine = 1_000

        def device(px: float, py: float) -> tuple[float, float]:
            rows, columns = self._pixels.shape[:2]
            dx, dy = ctypes.c_int(), ctypes.c_int()
            pdfium.FPDF_PageToDevice(
                page.raw, 0, 0, columns * fine, rows * fine, 0, px, py, ctypes.byref(dx), ctypes.byref(dy)
            )
            return dx.value / fine, dy.value / fine

        del x, y
        origin, right, up = device(0, 0), device(100, 0), device(0, 100)
        self._origin = origin
        self._x = ((right[0] - origin[0]) / 100, (right[1] - origin[1]) / 100)
        self._y = ((up[0] - origin[0]) / 100, (up[1] - origin[1]) / 100)

    def region(self, box: Box) -> np.ndarray | None:
        """The pixels of a box, (rows, columns, 3) uint8; None where its middle is off the page."""
        corners = [self._pixel(x, y) for x in (box[0], box[2]) for y in (box[1], box[3])]
        rows, columns = self._pixels.shape[:2]
        left, right = min(x for x, _ in corners), max(x for x, _ in corners)
        above, below = min(y for _, y in corners), max(y for _, y in corners)
        if not (0 <= (left + right) / 2 < columns and 0 <= (above + below) / 2 < rows):
            return None
        first_row, first_column = max(int(above), 0), max(int(left), 0)
        return self._pixels[
            first_row : max(int(below), first_row) + 1, first_column : max(int(right), first_column) + 1
        ]

    def contrast(self, box: Box) -> int:
        region = self.region(box)
        return 0 if region is None else _spread(region)

    def _pixel(self, x: float, y: float) -> tuple[float, float]:
        return (
            self._origin[0] + x * self._x[0] + y * self._y[0],
            self._origin[1] + x * self._x[1] + y * self._y[1],
        )
