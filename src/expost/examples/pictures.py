"""Pictures: grids of images, and titled panels of grids."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from expost.errors import UsageError
from expost.utils.store import replacing

BACKGROUND, INK = (255, 255, 255), (40, 40, 40)


def to_bytes(images: Tensor) -> Tensor:
    """Turn images in [0, 1] into uint8 by rounding x * 255; leave uint8 images as they are.

    Example:
        >>> to_bytes(torch.tensor([0.0, 0.5, 1.2]))
        tensor([  0, 128, 255], dtype=torch.uint8)
    """
    return images if images.dtype == torch.uint8 else images.mul(255).round_().clamp_(0, 255).to(torch.uint8)


def to_pil(image: Tensor) -> Image.Image:
    """Turn one image (C, H, W) into a Pillow image.

    Raises:
        UsageError: unless it has 1, 3 or 4 channels.
    """
    if image.dim() != 3 or image.shape[0] not in (1, 3, 4):
        raise UsageError(
            f"cannot draw an example of shape {tuple(image.shape)}; pictures need 1, 3 or 4 channels, save .npy"
        )
    array = to_bytes(image).movedim(0, -1).cpu().numpy()
    return Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)


def grid(images: Tensor, columns: int | None = None, gap: int = 2) -> Image.Image:
    """Arrange images in rows.

    Images under 64 pixels a side are doubled or more, by whole pixels.

    Args:
        images: Shape (N, C, H, W), uint8 or floats in [0, 1].
        columns: Images in a row; None makes the grid nearly square.
        gap: Pixels between images.
    """
    if images.dim() != 4:
        shape = tuple(images.shape[1:])
        raise UsageError(f"cannot draw examples of shape {shape}; for tables give a FILE.csv")
    columns = columns or math.ceil(math.sqrt(len(images)))
    scale = max(1, 64 // max(images.shape[2:]))
    width, height = images.shape[3] * scale, images.shape[2] * scale
    rows = math.ceil(len(images) / columns)
    sheet = Image.new("RGB", (columns * (width + gap) - gap, rows * (height + gap) - gap), BACKGROUND)
    for index, image in enumerate(images):
        tile = to_pil(image).convert("RGB").resize((width, height), Image.Resampling.NEAREST)
        sheet.paste(tile, ((index % columns) * (width + gap), (index // columns) * (height + gap)))
    return sheet


def panel(sections: Sequence[tuple[str, Image.Image]], columns: int = 2, margin: int = 16) -> Image.Image:
    """Arrange titled pictures in columns.

    Args:
        sections: Titles and pictures.
        columns: Pictures side by side.
        margin: Pixels around each.
    """
    font = ImageFont.load_default(size=18)
    title_height = 28
    rows = [sections[start : start + columns] for start in range(0, len(sections), columns)]
    widths = [max(row[i][1].width for row in rows if i < len(row)) for i in range(min(columns, len(sections)))]
    heights = [max(picture.height for _, picture in row) + title_height for row in rows]
    total = (sum(widths) + margin * (len(widths) + 1), sum(heights) + margin * (len(heights) + 1))
    sheet = Image.new("RGB", total, BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    top = margin
    for row, height in zip(rows, heights, strict=True):
        left = margin
        for (title, picture), width in zip(row, widths, strict=False):
            draw.text((left, top), title, fill=INK, font=font)
            sheet.paste(picture, (left, top + title_height))
            left += width + margin
        top += height + margin
    return sheet


def save_picture(picture: Image.Image, path: Path) -> None:
    """Write a picture atomically, in the format that the file's suffix names."""
    if picture.mode == "RGB" and len({channel.tobytes() for channel in picture.split()}) == 1:
        picture = picture.convert("L")  # a third of the size
    with replacing(path) as temporary:
        picture.save(temporary, optimize=True)


def pairs(first: Tensor, second: Tensor, columns: int) -> Image.Image:
    """Arrange two batches in rows that alternate: a row of `first`, below it the matching row of `second`."""
    first, second = to_bytes(first), to_bytes(second)
    rows = []
    for start in range(0, len(first), columns):
        rows += [first[start : start + columns], second[start : start + columns]]
    if len(first) % columns and len(first) > columns:
        blank = torch.full((columns - len(first) % columns, *first.shape[1:]), 255, dtype=torch.uint8)
        rows[-2:] = [torch.cat([part, blank]) for part in rows[-2:]]
    return grid(torch.cat(rows), min(columns, len(first)))
