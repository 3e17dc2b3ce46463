"""Images inside the page: tiles, encoded as PNG or WebP and written into its text."""

from __future__ import annotations

import base64
import math
from io import BytesIO

import torch
from PIL import Image, features
from torch import Tensor

from expost.examples.pictures import to_bytes, to_pil
from expost.report.blocks import Picture

#: Largest side of a tile, in pixels.
LARGEST_TILE = 96
#: Up to this side, images are shown pixel by pixel, and compressed without loss.
PIXEL_ART = 32
#: About what a tile measures on the page, in CSS pixels.
TILE = 56


def data_uri(picture: Image.Image, lossless: bool) -> str:
    """Return an image as a data URI: PNG, or WebP where a loss is allowed."""
    buffer = BytesIO()
    if lossless or not features.check("webp"):
        picture.save(buffer, "PNG", optimize=True)
        kind = "png"
    else:
        picture.save(buffer, "WEBP", quality=88, method=4)
        kind = "webp"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def tiles(
    images: Tensor, columns: int, alt: str, caption: str = "", tile: int = TILE, gap: int = 2, scale: int | None = None
) -> Picture:
    """Return images side by side as one picture; the gaps are transparent.

    Args:
        images: Shape (N, C, H, W), uint8, or floats in [0, 1].
        columns: Images in a row.
        alt: What they are.
        caption: Below.
        tile: About how wide a tile is on the page.
        gap: About how far they are apart there.
        scale: Pixels of the page for each of an image, a side; None goes by `tile`.
    """
    side = max(images.shape[2:])
    small = side <= PIXEL_ART
    drawn = [_drawable(image) for image in to_bytes(images)]
    factor = 1
    if side > LARGEST_TILE and scale is None:
        size = tuple(max(1, round(length * LARGEST_TILE / side)) for length in drawn[0].size)
        drawn = [image.resize((size[0], size[1]), Image.Resampling.LANCZOS) for image in drawn]
    elif side <= PIXEL_ART // 2:  # so that a gap is narrow compared with a tile
        factor = PIXEL_ART // side
        drawn = [_enlarged(image, factor) for image in drawn]
    width, height = drawn[0].size
    times = max(1, round(tile / max(width, height))) if small else tile / max(width, height)
    if scale is not None:
        times = scale / factor
    gap = max(1, round(gap / times)) if len(drawn) > 1 else 0
    columns = min(columns, len(drawn))
    rows = math.ceil(len(drawn) / columns)
    mode = "LA" if drawn[0].mode == "L" else "RGBA"
    sheet = Image.new(mode, (columns * (width + gap) - gap, rows * (height + gap) - gap))
    for index, image in enumerate(drawn):
        sheet.paste(image.convert(mode), ((index % columns) * (width + gap), (index // columns) * (height + gap)))
    shown = round(sheet.width * times), round(sheet.height * times)
    return Picture(data_uri(sheet, small), alt, *shown, pixelated=small or scale is not None, caption=caption)


def stack(first: Tensor, second: Tensor, alt: str, caption: str = "", scale: int | None = None) -> Picture:
    """Return one image above another."""
    both = torch.stack([to_bytes(first), to_bytes(second)])
    return tiles(both, 1, alt, caption, gap=4, scale=scale)


def _enlarged(image: Image.Image, factor: int) -> Image.Image:
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def _drawable(image: Tensor) -> Image.Image:
    """Turn an image into a picture; the mean of channels is drawn unless there are 1, 3 or 4."""
    if image.shape[0] not in (1, 3, 4):
        image = image.float().mean(0, keepdim=True).round().to(torch.uint8)
    picture = to_pil(image)
    return picture.convert("RGB") if picture.mode == "RGBA" else picture
