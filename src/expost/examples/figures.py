"""Figures: pictures, text and bars laid out on a sheet, written as PNG, JPEG, WebP, SVG or PDF."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from io import BytesIO
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from expost.errors import UsageError
from expost.utils.progress import say
from expost.utils.store import replacing, write_text

BACKGROUND, INK, FAINT = (255, 255, 255), (40, 40, 40), (110, 110, 110)
#: Suffixes that a picture is written to.
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".svg", ".pdf")
#: Suffixes whose files keep text and bars apart from the pictures, or hold more dots than the sheet has pixels.
SHEET_SUFFIXES = (".svg", ".pdf")
#: Dots of a PDF for each pixel of its sheet, a side.
PDF_DOTS = 2
#: Most pixels of a picture; and the longest side that a format takes.
LARGEST, LONGEST = 250_000_000, {".webp": 16_383, ".jpg": 65_500, ".jpeg": 65_500}
#: Tried for text that the font which Pillow brings along has no glyphs for: it has those of ASCII.
FONTS = ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "arial.ttf", "Arial Unicode.ttf", "NotoSansCJK-Regular.ttc")

#: Pictures whose edge is brighter, of 255, would not stand out from the sheet.
LIGHT = 200

Color = tuple[int, int, int]
Font = ImageFont.FreeTypeFont


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


@cache
def font_for(text: str, size: int) -> Font:
    """Return the font of this size that has most of the text's letters: Pillow's own, or one of the machine's."""
    best = ImageFont.load_default(size)
    assert isinstance(best, Font)
    lacks = lacking(best, text)
    for name in FONTS if lacks else ():
        with suppress(OSError):  # it is not on this machine
            other = ImageFont.truetype(name, size)
            if len(missing := lacking(other, text)) < len(lacks):
                best, lacks = other, missing
    return best


def lacking(font: Font, text: str) -> str:
    """Return the letters of a text that a font has no glyphs for."""
    if text.isascii():
        return ""
    box = bytes(font.getmask("\uffff"))
    return "".join(
        letter for letter in dict.fromkeys(text) if not letter.isspace() and bytes(font.getmask(letter)) == box
    )


def text_width(text: str, size: int) -> float:
    """Return how wide a line of text is, in pixels."""
    return font_for(text, size).getlength(text)


def line_height(size: int) -> int:
    """Return the distance between lines of text, in pixels."""
    return math.ceil(1.3 * size)


def printable(text: str) -> str:
    """Return text in one line, without characters that cannot be drawn."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def shortened(text: str, size: int, width: float) -> str:
    """Return text, cut so that it fits a width in pixels; three dots say that it was cut."""
    text = printable(text)
    if text_width(text, size) <= width:
        return text
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if text_width(text[:middle] + "...", size) <= width else (low, middle - 1)
    return text[:low] + "..."


def wrapped(text: str, size: int, width: float) -> list[str]:
    """Return text in lines that fit a width in pixels; a single word may be wider."""
    lines: list[str] = []
    for word in printable(text).split():
        if lines and text_width(f"{lines[-1]} {word}", size) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def text_size(width: float) -> int:
    """Return a size of text that reads well on a sheet of this width, in pixels."""
    return round(min(max(width / 36, 13), 80))


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


def rasterized(sheet: Sheet, dots: int = 1) -> Image.Image:
    """Draw a sheet with `dots` dots for each of its pixels, a side."""
    check_size(sheet.width * dots, sheet.height * dots)
    drawn = Image.new("RGB", (sheet.width * dots, sheet.height * dots), BACKGROUND)
    pen = ImageDraw.Draw(drawn)
    boxes = ""
    for mark in sheet.marks:
        left, top = mark.left * dots, mark.top * dots
        if isinstance(mark, Tile):
            size = mark.picture.width * dots, mark.picture.height * dots
            tile = mark.picture.resize(size, Image.Resampling.NEAREST) if dots > 1 else mark.picture
            drawn.paste(tile, (round(left), round(top)))
        elif isinstance(mark, Bar):
            right, bottom = round(left + mark.width * dots), round(top + mark.height * dots)
            if right > round(left) and bottom > round(top):
                pen.rectangle((round(left), round(top), right - 1, bottom - 1), fill=mark.ink)
        else:
            font = font_for(mark.text, mark.size * dots)
            boxes += lacking(font, mark.text)
            pen.text((left, top + _baseline(mark.size) * dots), mark.text, mark.ink, font, f"{mark.anchor}s")
    if boxes:
        letters = "".join(dict.fromkeys(boxes))
        say(f"no font here has {letters}, which are drawn as boxes; write FILE.svg, whose viewer has its own fonts")
    return drawn


def as_svg(sheet: Sheet) -> str:
    """Return a sheet as SVG: text is text, pictures are embedded PNGs."""
    anchors = {"l": "start", "m": "middle", "r": "end"}
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{sheet.width}" height="{sheet.height}" '
        f'viewBox="0 0 {sheet.width} {sheet.height}" font-family="Aileron, Helvetica, Arial, sans-serif">',
        f"<title>{escape(sheet.title)}</title>" if sheet.title else "",
        f'<rect width="{sheet.width}" height="{sheet.height}" fill="{_hex(BACKGROUND)}"/>',
    ]
    for mark in sheet.marks:
        if isinstance(mark, Tile):
            buffer = BytesIO()
            without_color(mark.picture).save(buffer, "PNG", optimize=True)
            data = base64.b64encode(buffer.getvalue()).decode()
            lines.append(
                f'<image x="{mark.left:g}" y="{mark.top:g}" width="{mark.picture.width}" '
                f'height="{mark.picture.height}" image-rendering="pixelated" href="data:image/png;base64,{data}"/>'
            )
        elif isinstance(mark, Bar):
            lines.append(
                f'<rect x="{mark.left:g}" y="{mark.top:g}" width="{mark.width:g}" height="{mark.height:g}" '
                f'fill="{_hex(mark.ink)}"/>'
            )
        else:  # as wide as was planned for, whichever font the viewer has
            width = text_width(mark.text, mark.size)
            lines.append(
                f'<text x="{mark.left:g}" y="{mark.top + _baseline(mark.size):g}" font-size="{mark.size}" '
                f'text-anchor="{anchors[mark.anchor]}" fill="{_hex(mark.ink)}" textLength="{width:.1f}" '
                f'lengthAdjust="spacingAndGlyphs" xml:space="preserve" aria-label={quoteattr(mark.text)}>'
                f"{escape(mark.text)}</text>"
            )
    return "\n".join([line for line in lines if line]) + "\n</svg>\n"


def save_sheet(sheet: Sheet, path: Path) -> None:
    """Write a sheet atomically, in the format that the file's suffix names."""
    suffix = path.suffix.lower()
    if suffix == ".svg":
        write_text(path, as_svg(sheet))
    elif suffix == ".pdf":
        longest = max(1, math.isqrt(LARGEST // max(1, sheet.width * sheet.height)))
        dots = min(PDF_DOTS, longest)
        drawn = without_color(rasterized(sheet, dots))
        with replacing(path) as temporary:
            drawn.save(temporary, "PDF", resolution=72.0 * dots, title=sheet.title, quality=95, subsampling=0)
    else:
        save_raster(rasterized(sheet), path)


def save_raster(picture: Image.Image, path: Path) -> None:
    """Write a picture as it is, in a format of pixels."""
    check_size(*picture.size, path.suffix.lower())
    picture = without_color(picture)
    if picture.mode in ("RGBA", "LA", "P") and path.suffix.lower() in (".jpg", ".jpeg"):
        picture = opaque(picture)
    with replacing(path) as temporary:
        picture.save(temporary, optimize=True)


def check_size(width: int, height: int, suffix: str = "") -> None:
    """Refuse a picture that is too large to draw, or for its format.

    Raises:
        UsageError: which says its size.
    """
    if width * height > LARGEST or max(width, height) > LONGEST.get(suffix, max(width, height)):
        raise UsageError(
            f"the picture would have {width:,} x {height:,} pixels, too many{f' for {suffix}' if suffix else ''}; "
            "give fewer examples or a smaller --scale"
        )


def opaque(picture: Image.Image) -> Image.Image:
    """Return a picture in RGB; what is transparent shows the white sheet."""
    if picture.mode not in ("RGBA", "LA", "P"):
        return picture.convert("RGB")
    layer = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, (*BACKGROUND, 255)), layer).convert("RGB")


def without_color(picture: Image.Image) -> Image.Image:
    """Return a picture in shades of grey where it has no other colors: that is a third of the size."""
    if picture.mode == "RGB" and len({channel.tobytes() for channel in picture.split()}) == 1:
        return picture.convert("L")
    return picture


def _baseline(size: int) -> float:
    """Return how far the letters' feet are below the top of their line."""
    return 0.98 * size


def _hex(color: Color) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)
