"""What values pixels have: ranges that are refused, and how values become 8 bits."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from expost.data.examples import Array
from expost.data.mapped import pieces, row_bytes
from expost.errors import DataError

_FULL = {"8-bit": 255.0, "16-bit": 65535.0, "32-bit": 65535.0, "floating-point": 1.0}
"""What becomes white, by the kind of pixels; a 32-bit integer is taken for a 16-bit one."""

_FILLED = {"8-bit": 0.125, "16-bit": 0.4, "32-bit": 0.4, "floating-point": 0.125}
"""The share of that which the pixels of a data set should fill: 32 levels, and more than 14 of 16 bits."""


@dataclass(frozen=True)
class Extent:
    """The values of the pixels of some images.

    Attributes:
        kind: Their type.
        low: The lowest.
        high: The highest.
    """

    kind: Literal["8-bit", "16-bit", "32-bit", "floating-point"]
    low: float
    high: float

    def joined(self, other: Extent) -> Extent:
        """Return the extent of both: of the wider kind."""
        kind = max(self.kind, other.kind, key=list(_FULL).index)
        return Extent(kind, min(self.low, other.low), max(self.high, other.high))

    def check(self, where: str) -> str:
        """Refuse pixels of more than one value that fill too little of their type's range; of 8-bit ones, say so.

        Returns:
            What there is to say; empty for nothing.

        Raises:
            DataError: with the range to give.
        """
        filled = (self.high - self.low) / _FULL[self.kind]
        if self.low == self.high or filled >= _FILLED[self.kind]:
            return ""
        most = _FULL[self.kind]
        fill = f"{self.kind} pixels from {self.low:g} to {self.high:g} fill {100 * filled:.2g} % of 0 to {most:g}"
        if self.kind == "8-bit" and self.high > 1:
            return f"{fill}; {give(*self.suggested())} to spread them"
        raise DataError(
            f"{where}: {fill}, and few levels of grey would be left; {give(*self.suggested())}, or "
            f"--range 0 {most:g} to keep them as they are"
        )

    def suggested(self) -> tuple[float, float]:
        """Return the range to read these pixels by: whole bits of integers from 0, the values themselves otherwise."""
        if self.kind != "floating-point" and 0 <= self.low < self.high / 2:
            return 0, float(2 ** int(np.ceil(np.log2(self.high + 1))) - 1)
        return (0 if 0 <= self.low < self.high / 10 else self.low), self.high


def give(low: float | None = None, high: float | None = None) -> str:
    """Return the advice to give a range, in the words of the command line and of Python."""
    if low is None or high is None:
        return "give --range LOW HIGH (load_data: range=(low, high)) with the lowest and highest value of the whole set"
    return f"give --range {low:g} {high:g} (load_data: range=({low:g}, {high:g}))"


def scaled(values: Array, limits: tuple[float, float]) -> Array:
    """Scale values linearly, so that the limits become 0 and 255; round to the nearest, clip what is beyond.

    Args:
        values: Numbers, finite.
        limits: The lower and the higher value.

    Returns:
        uint8, the same shape.

    Example:
        >>> scaled(np.array([-5, 0, 2048, 4095]), (0, 4095)).tolist()
        [0, 0, 128, 255]
    """
    low, high = limits
    return np.rint(np.clip((values.astype(np.float64) - low) * (255 / (high - low)), 0, 255)).astype(np.uint8)


def check_finite(parts: Iterable[Array]) -> None:
    """Refuse NaN and infinity, in the successive parts of an array.

    Raises:
        DataError: with their number.
    """
    count = size = 0
    for values in parts:
        size += values.size
        count += int((~np.isfinite(values)).sum())
    if count:
        raise DataError(f"{count} of {size} pixels are NaN or infinite; repair or remove them")


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
    remedy = unit_remedy(low, high)
    if remedy:
        raise DataError(f"floating-point pixels from {low:g} to {high:g}; {remedy}, or {give(*_whole(low, high))}")


def unit_remedy(low: float, high: float) -> str:
    """Return what maps floats of these limits to [0, 1]; empty if they are within.

    Example:
        >>> unit_remedy(0, 255), unit_remedy(-1, 1), unit_remedy(0, 1)
        ('divide by 255, or store them as uint8', 'map them to [0, 1] with (x + 1) / 2', '')
    """
    if low >= -1e-6 and high <= 1 + 1e-6:
        return ""
    if low >= -1 - 1e-6 and high <= 1 + 1e-6:
        return "map them to [0, 1] with (x + 1) / 2"
    if low >= 0 and high <= 255:
        return "divide by 255, or store them as uint8"
    return "scale them to [0, 1]"


def _whole(low: float, high: float) -> tuple[float, float]:
    if low >= 0:
        return 0, 255 if high <= 255 else high
    return (-1, 1) if low >= -1 and high <= 1 else (low, high)


def unit_to_bytes(values: Array) -> Array:
    """Turn floats in [0, 1] into uint8 0..255, rounded to the nearest.

    Raises:
        DataError: for NaN, infinity, or a range that shows other scaling; the message says how to convert it.
    """
    check_unit((values,))
    return round_to_bytes(values)


def round_to_bytes(values: Array) -> Array:
    """Turn floats in [0, 1] into uint8 0..255, rounded to the nearest; the range is not checked."""
    return np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)


def as_they_are(pixels: Array) -> Array:
    """Return pixels that are uint8 already."""
    return pixels


def _white(images: Array) -> Array:
    """Turn True into 255."""
    return images.astype(np.uint8) * np.uint8(255)


def _narrow(images: Array) -> Array:
    """Turn integers 0..255 into uint8."""
    return images.astype(np.uint8)


def extent_of(images: Array) -> Extent:
    """Return the extent of an array of images (N, ...), piece by piece; booleans are black and white."""
    if images.dtype.kind == "b":
        return Extent("8-bit", 0, 255)
    lows, highs = zip(*((part.min(), part.max()) for part in _parts(images)), strict=True)
    kind: Literal["8-bit", "floating-point"] = "floating-point" if images.dtype.kind == "f" else "8-bit"
    return Extent(kind, float(min(lows)), float(max(highs)))


def conversion(images: Array, where: str, limits: tuple[float, float] | None) -> Callable[[Array], Array]:
    """Return what makes uint8 of the pixels of an array (N, ...).

    Args:
        images: All of them.
        where: What errors call them.
        limits: The values that become 0 and 255; None takes integers 0..255, floats in [0, 1] and booleans.

    Raises:
        DataError: for NaN and infinity, and without limits for values out of range.
    """
    if images.dtype.kind == "b":
        return _white
    try:
        if limits is not None:
            if images.dtype.kind == "f":
                check_finite(_parts(images))
            return lambda pixels: scaled(pixels, limits)
        if images.dtype.kind == "f":
            check_unit(_parts(images))
            return round_to_bytes
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
    if images.dtype == np.uint8 and images.max() > 1:
        return as_they_are
    seen = extent_of(images)
    if seen.low < 0 or seen.high > 255:
        raise DataError(
            f"{where} has integer pixels from {seen.low:g} to {seen.high:g}; scale them to 0..255 and store them as "
            f"uint8, or {give(*seen.suggested())}"
        )
    if seen.high == 1:
        raise DataError(
            f"{where} has no pixels but 0 and 1 of 255, all but black; store booleans, or multiply by 255, or "
            f"{give(0, 1)}"
        )
    return as_they_are if images.dtype == np.uint8 else _narrow


def _parts(images: Array) -> Iterable[Array]:
    return (images[piece] for piece in pieces(len(images), row_bytes(images)))
