"""Figures as files: pixels, SVG, PDF."""

from __future__ import annotations

import base64
import math
from io import BytesIO
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

from PIL import Image, ImageDraw

from expost.errors import UsageError
from expost.examples.figures import BACKGROUND, Bar, Color, Sheet, Tile
from expost.examples.lettering import (
    baseline,
    font_for,
    lacking,
    text_width,
)
from expost.utils.progress import say
from expost.utils.store import replacing, write_text

#: Suffixes that a picture is written to.
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".svg", ".pdf")
#: Suffixes whose files keep text and bars apart from the pictures, or hold more dots than the sheet has pixels.
SHEET_SUFFIXES = (".svg", ".pdf")
#: Dots of a PDF for each pixel of its sheet, a side.
PDF_DOTS = 2
#: Most pixels of a picture.
LARGEST = 250_000_000
#: The longest side that a format takes.
LONGEST = {".webp": 16_383, ".jpg": 65_500, ".jpeg": 65_500}


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
            pen.text((left, top + baseline(mark.size) * dots), mark.text, mark.ink, font, f"{mark.anchor}s")
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
                f'<text x="{mark.left:g}" y="{mark.top + baseline(mark.size):g}" font-size="{mark.size}" '
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


def _hex(color: Color) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)
