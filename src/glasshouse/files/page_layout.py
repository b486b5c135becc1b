"""The words of a page as lines in reading order: columns one after the other, rows of tables from the left.

The words' places decide, not their order in the file: words that follow each other on one line make a piece;
a strip of white that pieces keep clear of, with running text on both sides, parts two columns; what goes
across it (a title, a table) parts what stands above from what stands below.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from glasshouse.files.pdf_words import Box, Word

CELL_GAP = 1.5
"""Widths of an em that surely part two cells of a row; the widest space of justified text is about 1."""
_NARROW_GAP = 0.8  # ems that part two cells where the lines around show that this is a table
_PIECE_GAP = 1.0
_BIN = 2.0  # points: the grain at which white strips are looked for
_MIN_COLUMN_LINES = 3
_MIN_COLUMN_WORDS = 3.5  # a line: below, it is a column of a table
_MIN_COLUMN_WIDTH = 9.0  # ems
_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Cell:
    """A part of a line that white space keeps apart from the next."""

    text: str
    left: float
    right: float


@dataclass(frozen=True)
class Line:
    """A line of writing. Sides are those of its own direction: of text that runs upwards, left is below."""

    cells: tuple[Cell, ...]  # apart by 0.8 em or more
    left: float
    right: float
    bottom: float
    top: float
    baseline: float
    size: float  # points, of most of its letters
    bold: bool  # wholly
    fixed_pitch: bool  # wholly
    first_word: float  # its width in points
    region: int  # lines of one column, or of one stretch across the page, share it
    turn: int
    box: Box  # on the page

    @property
    def text(self) -> str:
        return " ".join(cell.text for cell in self.cells)

    def wide_cells(self) -> tuple[Cell, ...]:
        """The cells that stand apart by more than a space of justified text could."""
        found: list[Cell] = []
        for cell in self.cells:
            if found and cell.left - found[-1].right <= CELL_GAP * self.size:
                found[-1] = Cell(f"{found[-1].text} {cell.text}", found[-1].left, cell.right)
            else:
                found.append(cell)
        return tuple(found)


def lines_of(words: Sequence[Word]) -> list[Line]:
    """The lines of a page in reading order; writing in another direction than most comes after it."""
    turns: defaultdict[int, list[Word]] = defaultdict(list)
    for word in words:
        turns[word.style.turn].append(word)
    by_length = sorted(turns, key=lambda turn: -sum(len(word.text) for word in turns[turn]))
    lines: list[Line] = []
    regions = 0
    for turn in by_length:
        for region in _regions(_pieces(turns[turn])):
            lines += [_line(row, regions) for row in _rows(region)]
            regions += 1
    return lines


class _Piece:
    """Words that follow each other on one line, in the frame in which their writing runs to the right."""

    __slots__ = ("bottom", "left", "right", "size", "top", "words")

    def __init__(self, word: Word) -> None:
        self.words = [word]
        self.left, self.bottom, self.right, self.top = turned(word.box, word.style.turn)
        self.size = word.style.size

    def takes(self, word: Word) -> bool:
        """Whether the word goes on where the piece ends."""
        left, bottom, _, top = turned(word.box, word.style.turn)
        em = max(self.size, word.style.size)
        overlap = min(self.top, top) - max(self.bottom, bottom)
        return -0.5 * em <= left - self.right <= _PIECE_GAP * em and overlap >= 0.5 * min(
            self.top - self.bottom, top - bottom
        )

    def add(self, word: Word) -> None:
        left, bottom, right, top = turned(word.box, word.style.turn)
        self.words.append(word)
        self.left, self.right = min(self.left, left), max(self.right, right)
        self.bottom, self.top = min(self.bottom, bottom), max(self.top, top)
        self.size = max(self.size, word.style.size)

    @property
    def middle(self) -> float:
        return (self.bottom + self.top) / 2


def turned(box: Box, turn: int) -> Box:
    """A box of the page as it lies after `turn` quarter turns clockwise."""
    left, bottom, right, top = box
    if turn == 1:
        return bottom, -right, top, -left
    if turn == 2:
        return -right, -top, -left, -bottom
    if turn == 3:
        return -top, left, -bottom, right
    return box


def _pieces(words: Sequence[Word]) -> list[_Piece]:
    pieces: list[_Piece] = []
    for word in words:
        if pieces and pieces[-1].takes(word):
            pieces[-1].add(word)
        else:
            pieces.append(_Piece(word))
    return pieces


# Columns


def _regions(pieces: list[_Piece], depth: int = 0) -> list[list[_Piece]]:
    """The pieces in stretches that are read one after the other."""
    gutter = _gutter(pieces) if depth < 6 else None
    if gutter is None:
        return [pieces] if pieces else []
    start, end = gutter
    across = sorted((piece for piece in pieces if piece.left < end and piece.right > start), key=_from_top)
    beside = sorted(
        (piece for piece in pieces if not (piece.left < end and piece.right > start)), key=_from_top
    )
    found: list[list[_Piece]] = []
    plain: list[_Piece] = []  # what is read row by row
    position = 0
    for bound in [*across, None]:
        band: list[_Piece] = []
        while position < len(beside) and (bound is None or beside[position].middle > bound.middle):
            band.append(beside[position])
            position += 1
        sides = (
            [piece for piece in band if piece.right <= start],
            [piece for piece in band if piece.left >= end],
        )
        if all(map(_is_prose, sides)):
            if plain:
                found.append(plain)
                plain = []
            for side in sides:
                found += _regions(side, depth + 1)
        else:
            plain += band
        if bound is not None:
            plain.append(bound)
    return [*found, plain] if plain else found


def _from_top(piece: _Piece) -> float:
    return -piece.middle


def _gutter(pieces: list[_Piece]) -> tuple[float, float] | None:
    """The strip that the fewest pieces cross, at least an em wide and not at the edge."""
    if len(pieces) < 2 * _MIN_COLUMN_LINES:
        return None
    left, right = min(piece.left for piece in pieces), max(piece.right for piece in pieces)
    em = median(piece.size for piece in pieces)
    bins = int((right - left) / _BIN) + 1
    if right - left < 2 * _MIN_COLUMN_WIDTH * em or bins > 20_000:
        return None
    steps = [0] * (bins + 1)
    for piece in pieces:
        steps[int((piece.left - left) / _BIN)] += 1
        steps[min(int((piece.right - left) / _BIN) + 1, bins)] -= 1
    crossed, running = [], 0
    for step in steps[:bins]:
        running += step
        crossed.append(running)
    inner = range(int(bins * 0.15), int(bins * 0.85))
    fewest = min((crossed[place] for place in inner), default=0)
    best: tuple[int, int] | None = None
    place = inner.start
    while place < inner.stop:
        end = place
        while end < inner.stop and crossed[end] <= fewest:
            end += 1
        if end > place and (best is None or end - place > best[1] - best[0]):
            best = place, end
        place = max(end, place + 1)
    if best is None or (best[1] - best[0] + 1) * _BIN < 0.8 * em:
        return None
    return left + best[0] * _BIN, left + best[1] * _BIN


def _is_prose(pieces: list[_Piece]) -> bool:
    """Whether pieces are lines of running text, and not labels or figures of a table."""
    if len(pieces) < _MIN_COLUMN_LINES:
        return False
    rows = _rows(pieces)
    if len(rows) < _MIN_COLUMN_LINES:
        return False
    width = max(piece.right for piece in pieces) - min(piece.left for piece in pieces)
    words = sum(len(piece.words) for piece in pieces) / len(rows)
    return words >= _MIN_COLUMN_WORDS and width >= _MIN_COLUMN_WIDTH * median(piece.size for piece in pieces)


# Rows


def _rows(pieces: list[_Piece]) -> list[list[_Piece]]:
    """The pieces that stand on one line, from the top, each row from the left."""
    rows: list[list[_Piece]] = []
    bottom = top = 0.0
    for piece in sorted(pieces, key=_from_top):
        height = min(piece.top - piece.bottom, top - bottom)
        if rows and min(top, piece.top) - max(bottom, piece.bottom) > 0.5 * height:
            rows[-1].append(piece)
            if piece.top - piece.bottom > top - bottom:
                bottom, top = piece.bottom, piece.top
        else:
            rows.append([piece])
            bottom, top = piece.bottom, piece.top
    for row in rows:
        row.sort(key=lambda piece: piece.left)
    return rows


def _line(row: list[_Piece], region: int) -> Line:
    words = [word for piece in row for word in piece.words]
    weights: defaultdict[float, int] = defaultdict(int)
    for word in words:
        weights[round(word.style.size, 1)] += len(word.text)
    size = max(weights, key=lambda size: weights[size])
    main = max(row, key=lambda piece: piece.right - piece.left)
    first = turned(words[0].box, words[0].style.turn)
    boxes = [word.box for word in words]
    return Line(
        cells=_cells(row, size),
        left=row[0].left,
        right=max(piece.right for piece in row),
        bottom=min(piece.bottom for piece in row),
        top=max(piece.top for piece in row),
        baseline=next(
            (word.baseline for word in main.words if round(word.style.size, 1) == size),
            main.words[0].baseline,
        ),
        size=size,
        bold=all(word.style.bold for word in words if _counts(word)),
        fixed_pitch=all(word.style.fixed_pitch for word in words),
        first_word=first[2] - first[0],
        region=region,
        turn=words[0].style.turn,
        box=(
            min(box[0] for box in boxes),
            min(box[1] for box in boxes),
            max(box[2] for box in boxes),
            max(box[3] for box in boxes),
        ),
    )


def _counts(word: Word) -> bool:
    return any(letter.isalnum() for letter in word.text)


def _cells(row: list[_Piece], size: float) -> tuple[Cell, ...]:
    cells: list[Cell] = []
    text, left, right = "", 0.0, 0.0
    before: Word | None = None
    for word in (word for piece in row for word in piece.words):
        start, _, end, _ = turned(word.box, word.style.turn)
        gap = start - right
        if before is None or gap > _NARROW_GAP * size:
            if text:
                cells.append(Cell(text, left, right))
            text, left = word.text, start
        elif _is_raised_figure(word, before) and gap < 0.15 * size:
            text += word.text.translate(_SUPERSCRIPTS)
        else:
            text += word.text if not word.space_before and gap < 0.25 * size else f" {word.text}"
        right, before = max(right, end), word
    cells.append(Cell(text, left, right))
    return tuple(cells)


def _is_raised_figure(word: Word, before: Word) -> bool:
    """Whether a word is the number of a note or a power after another."""
    rise = (word.baseline - before.baseline) / max(before.style.size, 1e-3)
    small = word.style.size < 0.85 * before.style.size
    return word.text.isascii() and word.text.isdecimal() and small and 0.15 < rise < 0.8
