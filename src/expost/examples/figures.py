"""Figures: pictures, text and bars laid out on a sheet, written as PNG, JPEG, WebP, SVG or PDF."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageDraw

from expost.errors import UsageError
from expost.examples.lettering import (
    line_height,
    shortened,
    text_size,
    text_width,
    wrapped,
)

BACKGROUND = (255, 255, 255)
INK = (40, 40, 40)
FAINT = (110, 110, 110)

#: Pictures whose edge is brighter, of 255, would not stand out from the sheet.
LIGHT = 200

Color = tuple[int, int, int]


@dataclass(frozen=True)
class Tile:
    """A picture on a sheet, in its own pixels."""

    left: float
    top: float
    picture: Image.Image


@dataclass(frozen=True)
class Text:
    """A line of text; `top` is that of the line, `left` the end that the anchor names ("l", "m" or "r")."""

    left: float
    top: float
    text: str
    size: int
    anchor: str = "l"
    ink: Color = INK


@dataclass(frozen=True)
class Bar:
    """A filled rectangle."""

    left: float
    top: float
    width: float
    height: float
    ink: Color


Mark = Tile | Text | Bar


@dataclass(frozen=True)
class Sheet:
    """A figure: marks on a white sheet, later ones above earlier ones.

    Attributes:
        width: In pixels.
        height: In pixels.
        marks: What is drawn.
        title: What the figure is, for the file's own record of it.
        indent: Pixels at the left that labels take; sheets in one column are aligned behind them.
        head: Pixels at the top that titles and labels take; sheets in one row are aligned below them.
    """

    width: int
    height: int
    marks: tuple[Mark, ...]
    title: str = ""
    indent: int = 0
    head: int = 0

    def placed(self, left: float, top: float) -> tuple[Mark, ...]:
        """Return the marks, moved."""
        return tuple(replace(mark, left=mark.left + left, top=mark.top + top) for mark in self.marks)


@dataclass(frozen=True)
class Look:
    """How a figure of examples looks.

    Attributes:
        title: Above it; empty for none.
        rows: Labels at the left of the rows, from the first on; empty for none, None for those of the kind of figure.
        columns: Labels above the columns, likewise.
        across: Images in a row; None leaves it to the kind of figure.
        scale: Pixels of the figure for each pixel of an image, a side; None makes images 64 pixels or more.
        own: Whether the title is a person's own, to which nothing is added.
    """

    title: str = ""
    rows: tuple[str, ...] | None = None
    columns: tuple[str, ...] | None = None
    across: int | None = None
    scale: int | None = None
    own: bool = True

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name, value in (("columns", self.across), ("scale", self.scale)):
            if value is not None and value < 1:
                raise UsageError(f"{name} is {value}; give a whole number of at least 1")

    @property
    def plain(self) -> bool:
        """Whether nothing is written beside the images."""
        return not (self.title or any(self.rows or ()) or any(self.columns or ()))


#: Nothing written, everything else as it comes.
PLAIN = Look()


def titled(sheet: Sheet, title: str, size: int, least: int = 420, behind: int = 0, gap: float = 0.5) -> Sheet:
    """Put a title above a sheet.

    Args:
        sheet: What is below.
        title: Empty for none; takes several lines if it is wider than the sheet and than `least`.
        size: Of the letters.
        least: In pixels, at the smallest size of letters.
        behind: Where it begins, from the left.
        gap: Space below it, for each pixel of its size.
    """
    if not title:
        return sheet
    lines = wrapped(title, size, max(sheet.width - behind, least * size / 13))
    widest = behind + math.ceil(max(text_width(line, size) for line in lines))
    step = line_height(size)
    marks = tuple(Text(behind, step * number, line, size) for number, line in enumerate(lines))
    top = step * len(lines) + round(gap * size)
    return Sheet(
        max(sheet.width, widest),
        sheet.height + top,
        (*marks, *sheet.placed(0, top)),
        title,
        sheet.indent,
        sheet.head + top,
    )


def framed(sheet: Sheet, margin: int) -> Sheet:
    """Put white space around a sheet."""
    size = sheet.width + 2 * margin, sheet.height + 2 * margin
    return Sheet(*size, sheet.placed(margin, margin), sheet.title)


def sections(parts: Sequence[tuple[str, Sheet]], across: int, size: int) -> Sheet:
    """Arrange sheets in rows, each below its title of this size; titles, and what is below them, are aligned."""
    sheets: list[Sheet] = []
    for start in range(0, len(parts), across):
        row = parts[start : start + across]
        head = max(sheet.head for _, sheet in row)
        for title, sheet in row:
            lower = head - sheet.head
            marks = sheet.placed(0, lower)
            moved = Sheet(sheet.width, sheet.height + lower, marks, "", sheet.indent, head)
            sheets.append(titled(moved, title, size, 300, sheet.indent))
    return arranged(sheets, across, round(2.5 * size))


def arranged(sheets: Sequence[Sheet], across: int, gap: int) -> Sheet:
    """Arrange sheets in rows, aligned behind and below their labels; columns are as wide as the widest in them."""
    across = min(across, len(sheets))
    rows = [sheets[start : start + across] for start in range(0, len(sheets), across)]
    columns = [sheets[start::across] for start in range(across)]
    indents = [max(sheet.indent for sheet in column) for column in columns]
    widths = [
        max(indent - sheet.indent + sheet.width for sheet in column)
        for indent, column in zip(indents, columns, strict=True)
    ]
    marks: list[Mark] = []
    top = 0
    for row in rows:
        head = max(sheet.head for sheet in row)
        for number, sheet in enumerate(row):
            left = sum(widths[:number]) + gap * number + indents[number] - sheet.indent
            marks += sheet.placed(left, top + head - sheet.head)
        top += max(head - sheet.head + sheet.height for sheet in row) + gap
    return Sheet(sum(widths) + gap * (across - 1), top - gap, tuple(marks))


def tiled(tiles: Sequence[Image.Image | None], across: int, look: Look, gap: int = 2) -> Sheet:
    """Arrange pictures of one size in rows, with the look's labels beside them; its title is left out.

    None, which the first is not, leaves a place empty. Pictures whose edge is nearly white get a thin frame. Rows and
    columns move apart where their labels need room.
    """
    across = max(1, min(across, len(tiles)))
    assert tiles[0] is not None
    width, height = tiles[0].size
    rows, columns = look.rows or (), look.columns or ()
    _fitting("row labels", rows, math.ceil(len(tiles) / across))
    _fitting("column labels", columns, across)
    size = max(12, round(0.85 * text_size(across * (width + gap))))
    step, space = line_height(size), round(0.6 * size)
    above = [wrapped(label, size, max(width, 3 * size)) for label in columns]
    beside = [wrapped(label, size, 14 * size) for label in rows]
    widest = max((text_width(line, size) + space for lines in above for line in lines), default=0)
    pitch_x = max(width + gap, math.ceil(widest))
    pitch_y = max(height + gap, step * max(map(len, beside), default=0))
    indent = math.ceil(max((text_width(line, size) + space for lines in beside for line in lines), default=0))
    head = step * max(map(len, above), default=0) + (space // 2 if above else 0)
    marks: list[Mark] = []
    for column, lines in enumerate(above):
        middle = indent + pitch_x * column + (pitch_x - gap) / 2
        below = head - space // 2 - step * len(lines)
        marks += [Text(middle, below + step * n, line, size, "m", FAINT) for n, line in enumerate(lines)]
    for row, lines in enumerate(beside):
        top = head + pitch_y * row + (pitch_y - gap - step * len(lines)) / 2
        marks += [Text(indent - space, top + step * n, line, size, "r", FAINT) for n, line in enumerate(lines)]
    sheet = _pasted(tiles, (width, height), across, (pitch_x, pitch_y), gap)
    marks.append(Tile(indent, head, sheet))
    return Sheet(indent + sheet.width, head + sheet.height, tuple(marks), "", indent, head)


def _pasted(
    tiles: Sequence[Image.Image | None], size: tuple[int, int], across: int, pitch: tuple[int, int], gap: int
) -> Image.Image:
    """Return all tiles in one picture, each in the middle of its cell."""
    light = gap >= 2 and np.mean([_edge(tile) for tile in tiles if tile is not None]) > LIGHT
    down = math.ceil(len(tiles) / across)
    sheet = Image.new("RGB", (across * pitch[0] - gap, down * pitch[1] - gap), BACKGROUND)
    pen = ImageDraw.Draw(sheet)
    for index, tile in enumerate(tiles):
        if tile is None:
            continue
        left = index % across * pitch[0] + (pitch[0] - gap - size[0]) // 2
        top = index // across * pitch[1] + (pitch[1] - gap - size[1]) // 2
        sheet.paste(tile, (left, top))
        if light:
            pen.rectangle((left, top, left + size[0] - 1, top + size[1] - 1), outline=(205, 205, 205))
    return sheet


def _edge(tile: Image.Image) -> float:
    """Return the mean brightness of a picture's outermost pixels."""
    grey = np.asarray(tile.convert("L"))
    return float(np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]]).mean())


def _fitting(what: str, labels: Sequence[str], places: int) -> None:
    if len(labels) > places:
        raise UsageError(f"{len(labels)} {what} are given for {places}; leave out {len(labels) - places}")


def lines_of_text(rows: Sequence[Sequence[str]], heads: Sequence[str], size: int, width: int) -> Sheet:
    """Return a table of text; a cell that is wider than `width` pixels is cut, and ends in three dots."""
    cells = [[shortened(cell, size, width) for cell in row] for row in rows]
    every = [[*heads], *cells] if heads else cells
    widths = [math.ceil(max(text_width(row[column], size) for row in every)) for column in range(len(every[0]))]
    step, space = line_height(size), 2 * size
    marks = [
        Text(
            sum(widths[:column]) + space * column,
            step * number,
            cell,
            size,
            "l",
            FAINT if heads and not number else INK,
        )
        for number, row in enumerate(every)
        for column, cell in enumerate(row)
        if cell
    ]
    return Sheet(sum(widths) + space * (len(widths) - 1), step * len(every), tuple(marks), "", 0, step if heads else 0)
