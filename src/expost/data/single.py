"""One image that comes alone, brought to the form of a data set's: the same range, crop, size and channels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageOps

from expost.data.arrays import examples_of
from expost.data.decoding import decode, extent, header, preprocess
from expost.data.examples import Array, Preprocess
from expost.data.intensities import Extent
from expost.data.named import DATASETS
from expost.errors import DataError

#: An image at least this part of the set's size, on both sides, is surrounded with black rather than enlarged.
NEARLY = 0.8
_FULL = {"I;16": "16-bit", "I;16B": "16-bit", "I;16L": "16-bit", "I;16N": "16-bit", "I": "32-bit", "F": "float"}
_GREYS = ("1", "L", "LA", "La", *_FULL)


@dataclass(frozen=True)
class Single:
    """An image as it was understood.

    Attributes:
        pixels: uint8, shape (C, H, W).
        said: What it was, and what was done to it, in words.
    """

    pixels: Array
    said: str


@dataclass(frozen=True)
class Form:
    """What the images of a data set are, and what was done to each.

    Attributes:
        shape: (C, H, W) after that.
        prep: What was done.
        layout: Axes of its arrays, a letter each; None if nobody said.
    """

    shape: tuple[int, int, int]
    prep: Preprocess
    layout: str | None = None

    @classmethod
    def of(
        cls,
        name: str,
        shape: tuple[int, int, int],
        size: int | None = None,
        range: tuple[float, float] | None = None,
        layout: str | None = None,
    ) -> Form:
        """Return the form of a data set's images.

        Args:
            name: Name or path of the set, as `load_data` takes it.
            shape: (C, H, W) of its images.
            size: As it was given to `load_data`, like what follows.
            range: Values of pixels that became 0 and 255.
            layout: Axes of an array.
        """
        asked = Preprocess(size=size, range=range)
        return cls(shape, DATASETS[name].over(asked) if name in DATASETS else asked, layout)

    def read(self, where: str, body: bytes) -> Single:
        """Read an encoded image.

        Raises:
            DataError: if it is damaged or no image.
        """
        head = header(where, body)
        limits = self.prep.range
        values = [f"{_FULL.get(head.mode, '8-bit')} {'grey' if head.mode in _GREYS else 'color'}"]
        values += [_by_range(extent(where, body), limits)] if limits is not None else [_scaling(head.mode)]
        return self._brought((head.height, head.width), values, lambda prep: decode(where, body, prep))

    def read_array(self, where: str, array: Array) -> Single:
        """Read an array: (H, W), (H, W, C) or (C, H, W), or by the set's layout; the first of several images.

        Raises:
            DataError: for other shapes and types, and values out of range.
        """
        array, more = self._alone(array, where)
        images = examples_of(array, where, "NCHW", alone=True)
        limits = self.prep.range
        pixels = images.load(np.zeros(1, np.int64), Preprocess(range=limits))[0]
        kind = {"f": "floating-point", "b": "black-and-white"}.get(array.dtype.kind, "integer")
        values = [f"{more}{kind} {'grey' if len(pixels) == 1 else 'color'}"]
        if limits is not None:
            values.append(_by_range(Extent("8-bit", float(array.min()), float(array.max())), limits))
        picture = Image.fromarray(pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0)))
        height, width = pixels.shape[1:]
        return self._brought(
            (height, width), values, lambda prep: preprocess(picture, where, replace(prep, range=None))
        )

    def _alone(self, array: Array, where: str) -> tuple[Array, str]:
        """Return one image of an array as (1, C, H, W), and what to say of the others."""
        layout = self.layout
        if layout is None:
            if array.ndim == 2:
                return array[None, None], ""
            channels = self.shape[0]
            ends = [axis for axis in (0, 2) if array.ndim == 3 and array.shape[axis] in {channels, 1, 3, 4}]
            if len(ends) != 1:
                raise DataError(f"{where} has shape {array.shape}; give one image: (H, W), (H, W, C) or (C, H, W)")
            return (array if ends == [0] else array.transpose(2, 0, 1))[None], ""
        letters = layout if array.ndim == len(layout) else layout.replace("N", "")
        if array.ndim != len(letters):
            raise DataError(f"{where} has shape {array.shape}, and the run's layout is {layout}; give one image of it")
        count = array.shape[letters.index("N")] if "N" in letters else 1
        if "N" in letters:
            array = array.take(0, axis=letters.index("N"))
            letters = letters.replace("N", "")
        array = array.transpose([letters.index(axis) for axis in "CHW" if axis in letters])
        return (array if "C" in letters else array[None])[None], f"the first of {count:,} images, " if count > 1 else ""

    def _brought(self, seen: tuple[int, int], values: list[str], read: Callable[[Preprocess], Array]) -> Single:
        """Bring an image of some height and width to the set's, and say how."""
        channels, height, width = self.shape
        steps = [f"{seen[1]} x {seen[0]} pixels", *values]
        prep = replace(self.prep, channels=channels if channels in (1, 3) else None)
        if seen == (height, width):
            prep = replace(prep, crop=None, size=None, pad=None)
        elif prep.crop and min(seen) < prep.crop:
            prep = replace(prep, crop=None, size=prep.size or height)
        elif not (prep.crop or prep.size):
            if all(part * NEARLY <= side <= part for part, side in zip((height, width), seen, strict=True)):
                return self._padded(read(replace(prep, pad=None)), steps)
            if height != width:
                return self._fitted(read(replace(prep, pad=None)), steps)
            prep = replace(prep, size=height, pad=None)
        if prep.size and prep.size != min(seen) and not prep.crop and seen[0] != seen[1]:
            steps.append(f"central {min(seen)} x {min(seen)} square")
        if (channels == 1) == steps[1].endswith("grey"):  # it has them already
            done = replace(prep, range=None, channels=None).describe(every=True)
        else:
            done = replace(prep, range=None).describe(every=True)
        return self._checked(read(prep), [*steps, done])

    def _padded(self, pixels: Array, steps: list[str]) -> Single:
        _, height, width = self.shape
        up, across = height - pixels.shape[1], width - pixels.shape[2]
        around = ((0, 0), (up // 2, up - up // 2), (across // 2, across - across // 2))
        return self._checked(np.pad(pixels, around), [*steps, f"black around it, to {width} x {height}"])

    def _fitted(self, pixels: Array, steps: list[str]) -> Single:
        _, height, width = self.shape
        picture = Image.fromarray(pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0)))
        fitted = np.array(ImageOps.fit(picture, (width, height), Image.Resampling.BILINEAR))
        words = f"central part resized to {width} x {height}"
        return self._checked(fitted.reshape(height, width, -1).transpose(2, 0, 1).copy(), [*steps, words])

    def _checked(self, pixels: Array, steps: list[str]) -> Single:
        if pixels.shape != self.shape:
            raise DataError(
                f"the image has shape {pixels.shape}, and those of the data set {self.shape}; give one like them"
            )
        return Single(pixels, ", ".join(filter(None, steps)))


def _scaling(mode: str) -> str:
    if mode == "F":
        return "values times 255"
    return "values divided by 257" if mode in _FULL else ""


def _by_range(found: Extent, limits: tuple[float, float]) -> str:
    low, high = limits
    words = f"values {found.low:g} to {found.high:g} scaled by the run's range, {low:,g} to {high:,g}"
    inside = min(found.high, high) - max(found.low, low)
    if inside < 0.125 * (high - low) and found.low < found.high:
        words += f" (of which they fill {max(0.0, 100 * inside / (high - low)):.2g} %)"
    return words
