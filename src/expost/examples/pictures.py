"""Pictures: grids of images, and titled panels of grids."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike
from PIL import Image
from torch import Tensor

from expost.data.intensities import check_unit, round_to_bytes
from expost.errors import DataError, UsageError
from expost.examples import figure_files, figures, lettering
from expost.examples.figure_files import PICTURE_SUFFIXES, SHEET_SUFFIXES
from expost.examples.figures import BACKGROUND, INK, PLAIN, Look, Sheet

__all__ = ["BACKGROUND", "INK", "as_images", "figure", "grid", "pairs", "panel", "save_picture", "to_bytes", "to_pil"]


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


def as_images(images: ArrayLike | Tensor) -> Tensor:
    """Return images in one of the usual layouts as uint8, shape (N, C, H, W).

    (H, W) is a grey image, (H, W, C) or (C, H, W) one with 1, 3 or 4 channels, (N, H, W) grey ones, (N, H, W, C) or
    (N, C, H, W) several. Where the first or the last axis could be channels, a tensor has them first and an array last.

    Args:
        images: uint8 (or other integers in 0..255), floats in [0, 1], or booleans.

    Raises:
        UsageError: for other shapes, types and ranges.

    Example:
        >>> tuple(as_images(np.zeros((9, 8, 3))).shape), tuple(as_images(torch.zeros(3, 9, 8)).shape)
        ((1, 3, 9, 8), (1, 3, 9, 8))
    """
    first = isinstance(images, Tensor)
    try:
        array = images.detach().cpu().numpy() if isinstance(images, Tensor) else np.asarray(images)
    except (TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"no picture can be made of this {type(images).__name__}: {reason}; give an array") from None
    if array.dtype.kind not in "buif":
        raise UsageError(f"values of type {array.dtype} are no pixels; give uint8, or floats in [0, 1]")
    if array.size == 0:
        raise UsageError(f"images of shape {array.shape} are empty; give at least one")
    array = _batch(array, first)
    if array.dtype.kind == "f":
        try:
            check_unit([array])
        except DataError as error:
            raise UsageError(str(error)) from None
        return torch.from_numpy(round_to_bytes(array))
    if array.dtype.kind == "b":
        return torch.from_numpy(array.astype(np.uint8) * np.uint8(255))
    if array.min() < 0 or array.max() > 255:
        raise UsageError(f"integer pixels from {array.min()} to {array.max()}; scale them to 0..255")
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.uint8))


def _batch(array: np.ndarray, channels_first: bool) -> np.ndarray:
    """Return an array as (N, C, H, W)."""
    shape = array.shape
    front, back = (
        array.ndim in (3, 4) and shape[axis] in (1, 3, 4) for axis in (array.ndim - 3 if array.ndim > 2 else 0, -1)
    )
    if array.ndim == 2:
        return array[None, None]
    if array.ndim == 3 and not (front or back):
        return array[:, None]
    if array.ndim not in (3, 4) or not (front or back):
        raise UsageError(
            f"cannot draw an array of shape {shape}; give (H, W), (H, W, C), (C, H, W), (N, H, W, C) or (N, C, H, W) "
            "with 1, 3 or 4 channels"
        )
    if array.ndim == 3 and shape[0] == 4 and not back:
        raise UsageError(
            f"an array of shape {shape} could be one image with opacity or four grey ones; add the missing axis: "
            "(1, 4, H, W) or (4, 1, H, W)"
        )
    if not front or (back and not channels_first):
        array = np.moveaxis(array, -1, -3)
    return array if array.ndim == 4 else array[None]


def usual_scale(images: Tensor) -> int:
    """Return the scale at which images are 64 pixels a side or more, or as they are: a whole number."""
    return max(1, 64 // max(images.shape[2:]))


def _tiles(images: Tensor, scale: int | None) -> list[Image.Image]:
    if images.dim() != 4:
        shape = tuple(images.shape[1:])
        raise UsageError(f"cannot draw examples of shape {shape}; for tables give a FILE.csv")
    scale = scale or usual_scale(images)
    size = images.shape[3] * scale, images.shape[2] * scale
    side = math.ceil(math.sqrt(len(images)))
    figure_files.check_size(size[0] * side, size[1] * side)
    drawn = (figure_files.opaque(to_pil(image)) for image in images)
    return [tile.resize(size, Image.Resampling.NEAREST) if scale > 1 else tile for tile in drawn]


def grid(images: Tensor, columns: int | None = None, gap: int = 2, scale: int | None = None) -> Image.Image:
    """Arrange images in rows.

    Images under 64 pixels a side are doubled or more, by whole pixels.

    Args:
        images: Shape (N, C, H, W), uint8 or floats in [0, 1].
        columns: Images in a row; None makes the grid nearly square.
        gap: Pixels between images.
        scale: Pixels of the grid for each pixel of an image, a side, instead.
    """
    tiles = _tiles(images, scale)
    columns = columns or math.ceil(math.sqrt(len(images)))
    width, height = tiles[0].size
    rows = math.ceil(len(images) / columns)
    sheet = Image.new("RGB", (columns * (width + gap) - gap, rows * (height + gap) - gap), BACKGROUND)
    for index, tile in enumerate(tiles):
        sheet.paste(tile, ((index % columns) * (width + gap), (index // columns) * (height + gap)))
    return sheet


def figure(images: Tensor, look: Look, empty: Collection[int] = ()) -> Sheet:
    """Arrange images in rows, with the look's title and labels; without these it is the plain grid.

    Args:
        images: Shape (N, C, H, W), uint8 or floats in [0, 1].
        look: Title, labels, columns and scale.
        empty: Which images only keep a place free.
    """
    across = min(look.across or math.ceil(math.sqrt(len(images))), len(images))
    if look.plain:
        return _whole(grid(images, across, scale=look.scale))
    return _finished(block(images, replace(look, across=across), empty), look.title)


def block(images: Tensor, look: Look, empty: Collection[int] = ()) -> Sheet:
    """Arrange images in rows, with the look's labels, for a part of a figure."""
    tiles = [None if index in empty else tile for index, tile in enumerate(_tiles(images, look.scale))]
    gap = max(2, (look.scale or usual_scale(images)) // 2)  # so that it does not look like a row of pixels
    return figures.tiled(tiles, look.across or math.ceil(math.sqrt(len(images))), look, gap)


def _whole(picture: Image.Image) -> Sheet:
    return Sheet(*picture.size, (figures.Tile(0, 0, picture),))


def _finished(sheet: Sheet, title: str) -> Sheet:
    """Put a title above a figure, and white space around it."""
    size = lettering.text_size(sheet.width)
    return figures.framed(figures.titled(sheet, title, size), round(0.8 * size))


def panel(sections: Sequence[tuple[str, Image.Image]], columns: int = 2, margin: int = 16) -> Image.Image:
    """Arrange titled pictures in columns.

    Args:
        sections: Titles and pictures.
        columns: Pictures side by side.
        margin: Pixels around each.
    """
    drawn = [figures.titled(_whole(picture), title, 18, 0, gap=0.25) for title, picture in sections]
    return figure_files.rasterized(figures.framed(figures.arranged(drawn, columns, margin), margin))


def save_picture(
    picture: Image.Image | Sheet | Tensor | ArrayLike,
    path: str | Path,
    *,
    title: str = "",
    row_labels: Sequence[str] = (),
    column_labels: Sequence[str] = (),
    columns: int | None = None,
    scale: int | None = None,
) -> None:
    """Write a picture atomically, in the format that the file's suffix names: PNG, JPEG, WebP, SVG or PDF.

    Args:
        picture: A Pillow image, or images as an array or tensor in one of the usual layouts (see `as_images`); several
            become a grid.
        path: FILE.png, .jpg, .webp, .svg or .pdf.
        title: Above it.
        row_labels: At the left of the rows.
        column_labels: Above the columns.
        columns: Images in a row; None makes the grid nearly square.
        scale: Pixels of the picture for each pixel of an image, a side; None makes images 64 pixels or more.

    Raises:
        UsageError: if the suffix is another, or this is no picture.
    """
    file = Path(path)
    if file.suffix.lower() not in PICTURE_SUFFIXES:
        raise UsageError(f"cannot write a picture as '{file.name}'; give one of: {', '.join(PICTURE_SUFFIXES)}")
    if isinstance(row_labels, str) or isinstance(column_labels, str):
        raise UsageError("row_labels and column_labels are lists of texts; give ['a', 'b'], one for each")
    look = Look(title, tuple(row_labels) or None, tuple(column_labels) or None, columns, scale)
    if isinstance(picture, Sheet):
        figure_files.save_sheet(picture, file)
    elif not isinstance(picture, Image.Image):
        figure_files.save_sheet(figure(as_images(picture), look), file)
    elif look == PLAIN and file.suffix.lower() not in SHEET_SUFFIXES:
        figure_files.save_raster(picture, file)
    else:
        figure_files.save_sheet(labelled(picture, look), file)


def labelled(picture: Image.Image, look: Look) -> Sheet:
    """Return a picture with a title and labels."""
    whole = figure_files.opaque(picture)
    if look.scale:
        whole = whole.resize((whole.width * look.scale, whole.height * look.scale), Image.Resampling.NEAREST)
    return _whole(whole) if look.plain else _finished(figures.tiled([whole], 1, look, 0), look.title)


def paired(first: Tensor, second: Tensor, columns: int) -> tuple[Tensor, set[int]]:
    """Return two batches in rows that alternate: a row of `first`, then the matching row of `second`.

    Returns:
        The images, white ones among them where the last two rows are shorter, and the positions of these, in the last
        row but one and in the last.

    Example:
        >>> images, empty = paired(torch.zeros(3, 1, 1, 1), torch.ones(3, 1, 1, 1), 2)
        >>> images.flatten().tolist(), sorted(empty)
        ([0, 0, 255, 255, 0, 255, 255, 255], [5, 7])
    """
    first, second = to_bytes(first), to_bytes(second)
    rows = []
    for start in range(0, len(first), columns):
        rows += [first[start : start + columns], second[start : start + columns]]
    empty = set[int]()
    if len(first) % columns and len(first) > columns:
        short = len(first) % columns
        blank = torch.full((columns - short, *first.shape[1:]), 255, dtype=torch.uint8)
        rows[-2:] = [torch.cat([part, blank]) for part in rows[-2:]]
        end = len(rows) * columns
        empty = {*range(end - columns + short, end), *range(end - 2 * columns + short, end - columns)}
    return torch.cat(rows), empty


def pairs(first: Tensor, second: Tensor, columns: int) -> Image.Image:
    """Arrange two batches in rows that alternate: a row of `first`, below it the matching row of `second`."""
    return grid(paired(first, second, columns)[0], min(columns, len(first)))
