"""One image: decoding, conversion to grey or RGB, cropping, resizing, padding."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from expost.data.examples import Array, Preprocess
from expost.errors import DataError

_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")  # no others: Pillow has some that start programs (EPS)


def decode(where: str, source: Path | bytes, prep: Preprocess) -> Array:
    """Decode one image.

    EXIF orientation is applied; of an animation the first frame is taken; transparency is composited onto white;
    16 bits of grey are scaled to 8 (x / 257, rounded); floating-point images must lie in [0, 1]. Black-and-white and
    grey modes, and palettes of greys alone, give one channel, everything else RGB.

    Args:
        where: What errors call it.
        source: The file, or its contents.
        prep: What to do to the image after that.

    Returns:
        uint8, shape (C, H, W), C in {1, 3}.

    Raises:
        DataError: if it is no image, truncated, unreadable, larger than Pillow's bound against decompression bombs,
            or smaller than the crop or larger than the padding that is asked for.
    """
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=_FORMATS) as image:
            bound = Image.MAX_IMAGE_PIXELS
            if bound is not None and image.width * image.height > bound:
                raise Image.DecompressionBombError(f"{image.width}x{image.height} pixels")
            if prep.size and not prep.crop:
                # JPEG can decode at 1/2, 1/4 or 1/8; twice the wanted size is left for the resize to smooth.
                image.draft(None, (2 * prep.size, 2 * prep.size))
            plain = _plain(ImageOps.exif_transpose(image))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"{where} is too large to be safe to decode ({error}); shrink or remove it") from None
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
    except MemoryError:
        raise
    except UnidentifiedImageError:
        raise DataError(f"cannot read image {where}: damaged, or none of {', '.join(_FORMATS)}; replace it") from None
    except Exception as error:  # on a damaged file, Pillow raises nearly anything: SyntaxError, struct.error, ...
        reason = (error.strerror if isinstance(error, OSError) else "") or str(error) or type(error).__name__
        raise DataError(f"cannot read image {where}: {' '.join(reason.split())}; repair or replace it") from None
    return preprocess(plain, where, prep)


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


def _plain(image: Image.Image) -> Image.Image:
    """Convert any mode of Pillow to L or RGB."""
    if image.mode in ("L", "RGB") and "transparency" not in image.info:
        image.load()
        return image
    if image.mode.startswith("I"):  # I;16 and its byte orders; plain I is what 16-bit files become in some versions
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise DataError(f"integer pixels from {values.min()} to {values.max()}; convert them to 8 or 16 bits")
        return Image.fromarray(((values * 2 + 257) // 514).astype(np.uint8))
    if image.mode == "F":
        return Image.fromarray(unit_to_bytes(np.asarray(image)))
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        flat = Image.alpha_composite(Image.new("RGBA", layer.size, (255, 255, 255, 255)), layer)
        return flat.convert("L" if _is_grey(image) else "RGB")
    return image.convert("L" if _is_grey(image) else "RGB")


def unit_to_bytes(values: Array) -> Array:
    """Turn floats in [0, 1] into uint8 0..255, rounded to the nearest.

    Raises:
        DataError: for NaN, infinity, or a range that shows other scaling; the message says how to convert it.
    """
    check_unit((values,))
    return round_to_bytes(values)


def check_unit(parts: Iterable[Array]) -> None:
    """Refuse floats outside [0, 1], in the successive parts of an array.

    Raises:
        DataError: as `unit_to_bytes`.
    """
    count = size = 0
    low, high = np.inf, -np.inf
    for values in parts:
        size += values.size
        count += int((~np.isfinite(values)).sum())
        if not count:
            low, high = min(low, float(values.min())), max(high, float(values.max()))
    if count:
        raise DataError(f"{count} of {size} pixels are NaN or infinite; repair or remove them")
    if low < -1e-6 or high > 1 + 1e-6:
        remedy = "scale them to [0, 1]"
        if low >= -1 - 1e-6 and high <= 1 + 1e-6:
            remedy = "map them to [0, 1] with (x + 1) / 2"
        elif low >= 0 and high <= 255:
            remedy = "divide by 255, or store them as uint8"
        raise DataError(f"floating-point pixels from {low:g} to {high:g}; {remedy}")


def round_to_bytes(values: Array) -> Array:
    """Turn floats in [0, 1] into uint8 0..255, rounded to the nearest; the range is not checked."""
    return np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)


def _is_grey(image: Image.Image) -> bool:
    if image.mode in ("1", "L", "LA", "La"):
        return True
    if image.mode not in ("P", "PA"):
        return False
    colors = np.array([color for _, color in image.convert("RGBA").getcolors(256) or ()])[:, :3]
    return bool((colors == colors[:, :1]).all())
