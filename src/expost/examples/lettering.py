"""Text in figures: fonts, widths, lines."""

from __future__ import annotations

import math
from contextlib import suppress
from functools import cache

from PIL import ImageFont

#: Tried for text that the font which Pillow brings along has no glyphs for: it has those of ASCII.
FONTS = ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "arial.ttf", "Arial Unicode.ttf", "NotoSansCJK-Regular.ttc")
Font = ImageFont.FreeTypeFont


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


def baseline(size: int) -> float:
    """Return how far the letters' feet are below the top of their line."""
    return 0.98 * size
