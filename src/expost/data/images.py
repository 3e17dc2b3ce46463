"""Images as examples: from files, from encoded bytes, and from arrays."""

from __future__ import annotations

import contextlib
import io
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from expost.data.decoding import Page, Source, decode, extent, pad, preprocess
from expost.data.examples import Array, Examples, Indices, New, Preprocess, in_memory
from expost.data.intensities import Extent, as_they_are, conversion, extent_of
from expost.data.mapped import PIECE, as_they_lie, gather, pieces, row_bytes
from expost.errors import DataError
from expost.utils.process import cores
from expost.utils.progress import progress

SUFFIXES = frozenset(
    {
        ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff",
        ".pbm", ".pgm", ".ppm", ".pnm",
        ".avif",
        ".jp2", ".j2k", ".jpx", ".jpf",
    }
)  # fmt: skip
"""What counts as an image file, lower case. The contents decide how it is decoded, not the suffix."""

_BLOCK = 512  # encoded images in flight
_CHUNK = 16  # images a task decodes
#: Most unreadable images that one message names.
NAMED = 5


class ImageSource(ABC):
    """Encoded images in a fixed order."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of images."""

    @abstractmethod
    def encoded(self, indices: Indices) -> Iterator[tuple[str, Source]]:
        """Yield (name for errors, file or bytes) for each of the ascending `indices`."""


class ImageFiles(ImageSource):
    """Image files by path, or pages of them.

    Args:
        paths: The files.
        pages: The page of each, from 0; None takes the first of all.
    """

    def __init__(self, paths: Sequence[Path], pages: Sequence[int | None] | None = None) -> None:
        self.paths = list(paths)
        self.pages = list(pages) if pages is not None else [None] * len(self.paths)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.paths)

    def encoded(self, indices: Indices) -> Iterator[tuple[str, Source]]:
        """Yield each file's path twice: as its name and as the file; a page with its number, from 1, in the name."""
        for index in indices:
            path, page = self.paths[index], self.pages[index]
            yield (str(path), path) if page is None else (f"{path} (page {page + 1})", Page(path, page))


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
        """Pickle the reasons, not the message."""
        return type(self), (self.reasons,)


class Pixels(Examples):
    """Examples that are images."""

    @abstractmethod
    def extent(self) -> Extent:
        """Return the type and the range of the values of all of them, before they become 8 bits.

        Raises:
            DataError: if one cannot be read.
        """

    @abstractmethod
    def kind(self) -> str:
        """Return the type of the values of the first of them, as `Extent.kind`; empty if it cannot be read."""


class EncodedImages(Pixels):
    """Images that are decoded only when they are loaded, so that those beyond `limit` cost nothing."""

    def __init__(self, source: ImageSource) -> None:
        self.source = source

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.source)

    def load(self, indices: Indices, prep: Preprocess, new: New = in_memory) -> Array:
        """Decode images into one uint8 array (n, C, H, W); see `Examples.load`."""
        order = np.argsort(indices, kind="stable")  # ascending: a table's row groups are then read once each
        stack = ImageStack(
            len(indices), "pass a size (size=64, --size 64) where it is offered, or crop and resize them all", new
        )
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

    def extent(self) -> Extent:
        """Read all images once more; see `Pixels.extent`."""
        encoded = self.source.encoded(np.arange(len(self), dtype=np.int64))
        found: Extent | None = None
        with ThreadPoolExecutor(min(8, cores())) as pool, progress("looking at the values", len(self)) as bar:
            while block := list(islice(encoded, _CHUNK)):
                for each in pool.map(lambda one: extent(*one), block):
                    found = each if found is None else found.joined(each)
                bar.advance(len(block))
        assert found is not None  # no part is empty
        return found

    def kind(self) -> str:
        """Look at the first image; see `Pixels.kind`."""
        try:
            return extent(*next(self.source.encoded(np.zeros(1, np.int64)))).kind
        except DataError:
            return ""

    def sizes(self) -> set[tuple[int, int]]:
        """Return the widths and heights that occur, by the images' headers; of files that cannot be read none."""
        found = set()
        for _, source in self.source.encoded(np.arange(len(self.source))):
            page = source if isinstance(source, Page) else Page(source, 0)
            opened = io.BytesIO(page.source) if isinstance(page.source, bytes) else page.source
            with (
                contextlib.suppress(OSError, ValueError, SyntaxError, Image.DecompressionBombError),
                Image.open(opened) as image,
            ):
                image.seek(page.number)
                found.add(image.size)
        return found


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
        """Return how many images to hold beside the array: `most`, or fewer while they are large or of unknown size."""
        return min(most, max(_CHUNK, PIECE // row_bytes(self.array))) if self.first else _CHUNK


class ArrayImages(Pixels):
    """Images that are in memory, or mapped from a file.

    Args:
        images: Shape (N, C, H, W), C in {1, 3, 4}: a fourth channel is opacity. Integers, floats or booleans, as
            `conversion` takes them.
        where: What errors call them.
    """

    def __init__(self, images: Array, where: str) -> None:
        self.images = images
        self.where = where
        self._plain: Callable[[Array], Array] | None = None

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)

    def load(self, indices: Indices, prep: Preprocess, new: New = in_memory) -> Array:
        """Preprocess some of the images; see `Examples.load`."""
        convert = self._conversion(prep.range)
        prep = replace(prep, range=None)  # done by that
        if prep.size and not prep.crop and self.images.shape[2:] == (prep.size, prep.size):
            prep = replace(prep, size=None)  # done already
        if prep == Preprocess() and convert is as_they_are and as_they_lie(indices, self.images):
            return self.images
        array: Array | None = None
        with progress(f"reading {self.where}", len(indices)) as bar:
            for piece in pieces(len(indices), row_bytes(self.images)):
                chosen = convert(gather(self.images, indices[piece]))
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

    def extent(self) -> Extent:
        """Return the range of the array; see `Pixels.extent`."""
        return extent_of(self.images)

    def kind(self) -> str:
        """Return whether the array holds floats; see `Pixels.kind`."""
        return "floating-point" if self.images.dtype.kind == "f" else "8-bit"

    def _conversion(self, limits: tuple[float, float] | None) -> Callable[[Array], Array]:
        """Return what makes uint8 with 1 or 3 channels of some of the images; the whole array is checked once."""
        if limits is None and self._plain is not None:
            return self._plain
        convert = conversion(self.images, self.where, limits)
        if self.images.shape[1] == 4:
            convert = partial(_opaque, convert=convert)
        if limits is None:
            self._plain = convert
        return convert


def _opaque(images: Array, convert: Callable[[Array], Array]) -> Array:
    """Convert RGBA and composite it onto white, rounded to the nearest."""
    images = convert(images)
    color, opacity = images[:, :3].astype(np.uint16), images[:, 3:].astype(np.uint16)
    return ((color * opacity + 255 * (255 - opacity) + 127) // 255).astype(np.uint8)


def _picture(image: Array) -> Image.Image:
    return Image.fromarray(image[0] if len(image) == 1 else np.ascontiguousarray(image.transpose(1, 2, 0)))


def _decode(chunk: Sequence[tuple[str, Source]], prep: Preprocess) -> list[Array | DataError]:
    """Decode images; return the error of each that cannot be decoded, so that one message can name them all."""
    found: list[Array | DataError] = []
    for where, source in chunk:
        try:
            found.append(decode(where, source, prep))
        except DataError as error:
            found.append(error)
    return found


def _width_height(image: Array) -> str:
    return f"{image.shape[-1]}x{image.shape[-2]}"
