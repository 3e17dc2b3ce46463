"""Image files and encoded image bytes: decoding, conversion to grey or RGB, cropping, resizing, padding."""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from expost.data.examples import Array, Examples, Indices, New, Preprocess, in_memory
from expost.data.mapped import PIECE, as_they_lie, gather, pieces, row_bytes
from expost.errors import DataError
from expost.utils.process import cores
from expost.utils.progress import progress

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".pgm", ".ppm"})
"""What counts as an image file, lower case. The contents decide how it is decoded, not the suffix."""

_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")  # no others: Pillow has some that start programs (EPS)
_BLOCK = 512  # encoded images in flight
_CHUNK = 16  # images a task decodes
#: Unreadable images that one message names.
NAMED = 5


class ImageSource(ABC):
    """Encoded images in a fixed order."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of images."""

    @abstractmethod
    def encoded(self, indices: Indices) -> Iterator[tuple[str, Path | bytes]]:
        """Yield (what to call it in an error, file or bytes) for each of `indices`, which ascend."""


class ImageFiles(ImageSource):
    """Image files by path."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = list(paths)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.paths)

    def encoded(self, indices: Indices) -> Iterator[tuple[str, Path | bytes]]:
        """Yield each file's path twice: as its name and as the file."""
        for index in indices:
            path = self.paths[index]
            yield str(path), path


class UnreadableImages(DataError):
    """Images that cannot be used: one message gives the first one's reason, and the names of the others.

    Attributes:
        reasons: Why, by the image's name.
    """

    def __init__(self, reasons: Mapping[str, str]) -> None:
        self.reasons = dict(reasons)
        first, *others = reasons
        listed = ", ".join(others[:NAMED]) + (", ..." if len(others) > NAMED else "")
        super().__init__(f"{reasons[first]}{f' ({len(others)} more cannot be read: {listed})' if others else ''}")

    def __reduce__(self) -> tuple[type[UnreadableImages], tuple[dict[str, str]]]:
        """Travel between processes as the reasons, not as the message."""
        return type(self), (self.reasons,)


class EncodedImages(Examples):
    """Images that are decoded when they are loaded, so that nobody waits for those that `limit` leaves out."""

    def __init__(self, source: ImageSource) -> None:
        self.source = source

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.source)

    def load(self, indices: Indices, prep: Preprocess, new: New = in_memory) -> Array:
        """Decode images into one uint8 array (n, C, H, W); see `Examples.load`."""
        order = np.argsort(indices, kind="stable")  # ascending: a table's row groups are then read once each
        stack = ImageStack(len(indices), "pass a size (size=64, --size 64) to crop and resize them all", new)
        encoded = self.source.encoded(indices[order])
        slots = iter(order)
        decode_chunk = partial(_decode, prep=prep)
        bad: dict[str, str] = {}
        with (
            ThreadPoolExecutor(min(8, cores())) as pool,
            progress("reading images", len(indices)) as bar,
        ):
            while block := list(islice(encoded, stack.fitting(_BLOCK))):
                bar.advance(len(block))
                chunks = [block[start : start + _CHUNK] for start in range(0, len(block), _CHUNK)]
                for chunk, images in zip(chunks, pool.map(decode_chunk, chunks), strict=True):
                    for (where, _), image in zip(chunk, images, strict=True):
                        slot = next(slots)
                        if isinstance(image, DataError):
                            bad[where] = str(image)
                        elif not bad:
                            stack.put(slot, image, where)
        if bad:
            raise UnreadableImages(bad)
        return stack.array


class ImageStack:
    """One array of equally sized images, filled slot by slot; grey becomes RGB once a color image comes along."""

    def __init__(self, n: int, remedy: str, new: New = in_memory) -> None:
        self.n = n
        self.remedy = remedy
        self.new = new
        self.first = ""
        self.array: Array = np.empty((n, 0, 0, 0), np.uint8)

    def put(self, slot: int, image: Array, where: str) -> None:
        """Store `image`, uint8 (C, H, W), which errors call `where`, in slot 0..n-1."""
        if not self.first:
            self.first = where
            self.array = self.new((self.n, *image.shape), np.uint8)
        if image.shape[1:] != self.array.shape[2:]:
            raise DataError(
                f"images differ in size: {self.first} is {_width_height(self.array)}, "
                f"{where} is {_width_height(image)}; {self.remedy}"
            )
        if image.shape[0] > self.array.shape[1]:
            grey, self.array = self.array, self.new((self.n, 3, *image.shape[1:]), np.uint8)
            for piece in pieces(self.n, row_bytes(self.array)):
                self.array[piece] = grey[piece]
        self.array[slot] = image

    def fitting(self, most: int) -> int:
        """Return how many images to hold beside the array at a time: `most`, fewer if they are large or unknown yet."""
        return min(most, max(_CHUNK, PIECE // row_bytes(self.array))) if self.first else _CHUNK


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


def as_they_are(pixels: Array) -> Array:
    """Return pixels that are uint8 already."""
    return pixels


class ArrayImages(Examples):
    """Images that are in memory, or mapped from a file.

    Args:
        images: Shape (N, C, H, W).
        where: What errors call them.
        convert: Turns some of them into uint8 with 1 or 3 channels.
    """

    def __init__(self, images: Array, where: str, convert: Callable[[Array], Array] = as_they_are) -> None:
        self.images = images
        self.where = where
        self.convert = convert

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)

    def load(self, indices: Indices, prep: Preprocess, new: New = in_memory) -> Array:
        """Preprocess some of the images; see `Examples.load`."""
        if prep.size and not prep.crop and self.images.shape[2:] == (prep.size, prep.size):
            prep = replace(prep, size=None)  # done already
        if prep == Preprocess() and self.convert is as_they_are and as_they_lie(indices, self.images):
            return self.images
        array: Array | None = None
        with progress(f"reading {self.where}", len(indices)) as bar:
            for piece in pieces(len(indices), row_bytes(self.images)):
                chosen = self.convert(gather(self.images, indices[piece]))
                if prep == Preprocess(pad=prep.pad):
                    chosen = pad(chosen, prep.pad, self.where)
                else:
                    chosen = np.stack([preprocess(_picture(image), self.where, prep) for image in chosen])
                if array is None:
                    array = new((len(indices), *chosen.shape[1:]), np.uint8)
                array[piece] = chosen
                bar.advance(len(chosen))
        assert array is not None  # there is at least one index
        return array


def _picture(image: Array) -> Image.Image:
    return Image.fromarray(image[0] if len(image) == 1 else np.ascontiguousarray(image.transpose(1, 2, 0)))


def _decode(chunk: Sequence[tuple[str, Path | bytes]], prep: Preprocess) -> list[Array | DataError]:
    """Decode images, or find out why they cannot be: one message is to name all that are bad."""
    found: list[Array | DataError] = []
    for where, source in chunk:
        try:
            found.append(decode(where, source, prep))
        except DataError as error:
            found.append(error)
    return found


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
    """Refuse floats that are not in [0, 1]; arguments are parts of one array, in turn.

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
    """Turn floats in [0, 1], which is not checked, into uint8 0..255, rounded to the nearest."""
    return np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)


def _is_grey(image: Image.Image) -> bool:
    if image.mode in ("1", "L", "LA", "La"):
        return True
    if image.mode not in ("P", "PA"):
        return False
    colors = np.array([color for _, color in image.convert("RGBA").getcolors(256) or ()])[:, :3]
    return bool((colors == colors[:, :1]).all())


def _width_height(image: Array) -> str:
    return f"{image.shape[-1]}x{image.shape[-2]}"
