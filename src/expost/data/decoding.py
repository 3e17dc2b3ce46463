"""One image: decoding, conversion to grey or RGB, cropping, resizing, padding."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeAlias, TypeVar

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from expost.data.examples import Array, Preprocess
from expost.data.intensities import Extent, check_finite, give, scaled, unit_to_bytes
from expost.data.packing import IMAGE, check_unpacked
from expost.errors import DataError

#: No others: Pillow has some that start programs (EPS).
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF")

_REDUCED, _MASK = 1, 4
"""Bits of a TIFF page's tag 254: a smaller copy of another page, a transparency mask (TIFF 6.0, p. 36)."""

_SUBFILE, _SAMPLES, _EXTRA = 254, 277, 338
"""Tags of a TIFF page: what it is; samples of a pixel; what those beside the colors are, 1 or 2 for opacity."""

_ORIENTATION = 274
"""EXIF tag; from 5 on, the image is stored on its side."""

T = TypeVar("T")


@dataclass(frozen=True)
class Page:
    """A page of a file of several images.

    Attributes:
        source: The file, or its contents.
        number: Which page, from 0.
    """

    source: Path | bytes
    number: int


Source: TypeAlias = Path | bytes | Page
"""An encoded image: a file, its contents, or a page of either."""


@cache
def _formats() -> tuple[str, ...]:
    """Return the formats that are read, as far as this Pillow has them."""
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def decode(where: str, source: Source, prep: Preprocess) -> Array:
    """Decode one image.

    EXIF orientation is applied; of an animation the first frame is taken; transparency is composited onto white;
    16 bits of grey are scaled to 8 (x / 257, rounded); floating-point images must lie in [0, 1]; both go by
    `prep.range` instead where it is given. Black-and-white and grey modes, and palettes of greys alone, give one
    channel, everything else RGB.

    Args:
        where: What errors call it.
        source: The file, or its contents.
        prep: What to do to the image.

    Returns:
        uint8, shape (C, H, W), C in {1, 3}.

    Raises:
        DataError: if it is no image, truncated, unreadable, larger than Pillow's bound against decompression bombs,
            or than `check_unpacked` allows, or smaller than the crop or larger than the padding that is asked for.
    """

    def read(image: Image.Image) -> Image.Image:
        if prep.size and not prep.crop:
            # JPEG can decode at 1/2, 1/4 or 1/8; twice the wanted size is left for the resize to smooth.
            image.draft(None, (2 * prep.size, 2 * prep.size))
        ImageOps.exif_transpose(image, in_place=True)
        return _plain(image, prep.range)

    return preprocess(_opened(where, source, read), where, prep)


def extent(where: str, source: Source) -> Extent:
    """Return the type and the range of the values of one image.

    Raises:
        DataError: as `decode` does.
    """
    return _opened(where, source, _extent)


@dataclass(frozen=True)
class Header:
    """What the head of an image file says, before any pixel is decoded.

    Attributes:
        mode: Its mode, as Pillow names it.
        width: In pixels, as it is to be seen.
        height: In pixels.
    """

    mode: str
    width: int
    height: int


def header(where: str, source: Source) -> Header:
    """Return what the head of one image says.

    Raises:
        DataError: as `decode` does.
    """

    def read(image: Image.Image) -> Header:
        quarter_turn = image.getexif().get(_ORIENTATION, 1) >= 5
        size = image.size[::-1] if quarter_turn else image.size
        return Header(image.mode, *size)

    return _opened(where, source, read)


def pages(source: Path | bytes) -> tuple[list[int], int]:
    """Return the numbers of a TIFF file's pages that are images of their own, and how many others there are.

    Others are smaller copies, masks, and pages of another size than the first. A damaged page is among the numbers, so
    that it is said when it is decoded.
    """
    found: list[int] = []
    number = 0
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=("TIFF",)) as image:
            size = image.size
            while True:
                kind = int(image.tag_v2.get(_SUBFILE, 0))  # type: ignore[attr-defined]
                if image.size == size and not kind & (_REDUCED | _MASK):
                    found.append(number)
                number += 1
                try:
                    image.seek(number)
                except EOFError:
                    return (found, number - len(found)) if found else ([0], number - 1)
    except Exception:  # on a damaged file, Pillow raises nearly anything
        return [*found, number], number - len(found)


def frames(path: Path) -> int:
    """Return how many frames an animation has; 1 for what is damaged or none."""
    try:
        with Image.open(path, formats=("GIF", "WEBP", "PNG")) as image:
            return int(getattr(image, "n_frames", 1))
    except Exception:  # which is said when it is decoded
        return 1


def _opened(where: str, source: Source, read: Callable[[Image.Image], T]) -> T:
    """Open an image and read something of it; any failure becomes one line."""
    number = 0
    if isinstance(source, Page):
        page = source
        source, number = page.source, page.number
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=_formats()) as image:
            if number:
                image.seek(number)
            bound = Image.MAX_IMAGE_PIXELS
            if bound is not None and image.width * image.height > bound:
                raise Image.DecompressionBombError(f"{image.width}x{image.height} pixels")
            check_unpacked(where, 4 * image.width * image.height, _size(source), IMAGE)
            _refuse_bands(image)
            return read(image)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"{where} is too large to be safe to decode ({error}); shrink or remove it") from None
    except DataError as error:
        raise DataError(str(error) if str(error).startswith(where) else f"{where}: {error}") from None
    except MemoryError:
        raise
    except UnidentifiedImageError:
        raise DataError(
            f"cannot read image {where}: damaged, or none of {', '.join(_FORMATS)} with 1, 3 or 4 channels; replace it"
        ) from None
    except Exception as error:  # on a damaged file, Pillow raises nearly anything: SyntaxError, struct.error, ...
        reason = (error.strerror if isinstance(error, OSError) else "") or str(error) or type(error).__name__
        raise DataError(f"cannot read image {where}: {' '.join(reason.split())}; repair or replace it") from None


def _size(source: Path | bytes) -> int:
    return len(source) if isinstance(source, bytes) else source.stat().st_size


def preprocess(image: Image.Image, where: str, prep: Preprocess) -> Array:
    """Crop, resize, recolor and pad an image of mode L or RGB; return it as uint8 (C, H, W).

    Raises:
        DataError: if it is smaller than the crop or larger than the padding.
    """
    if prep.crop:
        if min(image.size) < prep.crop:
            raise DataError(
                f"{where} is {image.width}x{image.height}, smaller than the {prep.crop}x{prep.crop} crop; "
                "choose a smaller crop"
            )
        left, upper = (image.width - prep.crop) // 2, (image.height - prep.crop) // 2
        image = image.crop((left, upper, left + prep.crop, upper + prep.crop))
    if prep.size and image.size != (prep.size, prep.size):
        side = min(image.size)
        left, upper = (image.width - side) // 2, (image.height - side) // 2
        box = (left, upper, left + side, upper + side)
        image = image.resize((prep.size, prep.size), Image.Resampling.BILINEAR, box=box)
    if prep.channels:
        image = image.convert("L" if prep.channels == 1 else "RGB")
    pixels = np.asarray(image, np.uint8).reshape(image.height, image.width, -1).transpose(2, 0, 1)
    return pad(pixels[None], prep.pad, where)[0]


def pad(images: Array, side: int | None, where: str) -> Array:
    """Surround uint8 images (N, C, H, W) with zeros to side x side, evenly; a remainder goes right and below.

    Raises:
        DataError: if they are larger.
    """
    if side is None:
        return images
    height, width = images.shape[2:]
    if max(height, width) > side:
        raise DataError(f"{where} is {width}x{height}, larger than the {side}x{side} padding; pass size instead")
    top, left = (side - height) // 2, (side - width) // 2
    return np.pad(images, ((0, 0), (0, 0), (top, side - height - top), (left, side - width - left)))


def _refuse_bands(image: Image.Image) -> None:
    """Refuse a TIFF file's fourth band that is not marked as opacity, such as near infrared."""
    if image.format == "TIFF" and image.tag_v2.get(_SAMPLES) == 4 and image.mode != "CMYK":  # type: ignore[attr-defined]
        extra = image.tag_v2.get(_EXTRA, ())  # type: ignore[attr-defined]
        if not {1, 2} & set(extra if isinstance(extra, tuple) else (extra,)):
            raise DataError("4 bands, of which the fourth is not marked as opacity; save 1 or 3 of them")


def _plain(image: Image.Image, limits: tuple[float, float] | None) -> Image.Image:
    """Convert any mode of Pillow to L or RGB; with limits, these become 0 and 255."""
    if image.mode.startswith("I") or image.mode == "F":  # I;16 and its byte orders, I, F
        values = np.asarray(image)
        pixels = _to_bytes(values, limits)
        clear = image.info.get("transparency")
        if isinstance(clear, int):
            pixels = np.where(values == clear, np.uint8(255), pixels)
        return Image.fromarray(pixels)
    flat = _flat(image)
    return flat if limits is None else Image.fromarray(scaled(np.asarray(flat), limits))


def _to_bytes(values: Array, limits: tuple[float, float] | None) -> Array:
    if limits is not None:
        check_finite((values,))
        return scaled(values, limits)
    if values.dtype.kind == "f":
        return unit_to_bytes(values)
    if values.dtype.itemsize == 2 and values.dtype.kind == "u":
        return _HIGH[values]
    values = values.astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise DataError(
            f"integer pixels from {values.min()} to {values.max()}; convert them to 8 or 16 bits, or {give()}"
        )
    return ((values * 2 + 257) // 514).astype(np.uint8)


#: The 8 bits that 16 become: x / 257, rounded.
_HIGH = ((np.arange(65536) * 2 + 257) // 514).astype(np.uint8)


def _flat(image: Image.Image) -> Image.Image:
    """Convert a mode of 8 bits or less to L or RGB, on white."""
    if image.mode in ("L", "RGB") and "transparency" not in image.info:
        image.load()
        return image
    if image.has_transparency_data:
        clear = image.info.get("transparency")
        if isinstance(clear, tuple) and max(clear) > 255:  # of a 16-bit PNG, of which Pillow reads the upper 8 bits
            image.info["transparency"] = tuple(value >> 8 for value in clear)
        layer = image.convert("RGBA")
        flat = Image.alpha_composite(Image.new("RGBA", layer.size, (255, 255, 255, 255)), layer)
        return flat.convert("L" if _is_grey(image) else "RGB")
    return image.convert("L" if _is_grey(image) else "RGB")


def _extent(image: Image.Image) -> Extent:
    if image.mode == "F":
        values = np.asarray(image)
        return Extent("floating-point", float(values.min()), float(values.max()))
    if image.mode.startswith("I"):
        values = np.asarray(image)
        return Extent("32-bit" if image.mode == "I" else "16-bit", float(values.min()), float(values.max()))
    flat = np.asarray(_flat(image))
    return Extent("8-bit", float(flat.min()), float(flat.max()))


def _is_grey(image: Image.Image) -> bool:
    if image.mode in ("1", "L", "LA", "La"):
        return True
    if image.mode not in ("P", "PA"):
        return False
    colors = np.array([color for _, color in image.convert("RGBA").getcolors(256) or ()])[:, :3]
    return bool((colors == colors[:, :1]).all())
