"""Which axis of an array is what: examples, height, width, channels."""

from __future__ import annotations

from expost.data.examples import Array
from expost.errors import DataError

_CHANNELS = (1, 3, 4)
_LONGEST = 4.0
"""Sides of an image differ by no more than this factor, where a layout is to be told from another."""

_USUAL = {3: ("NHW",), 4: ("NCHW", "NHWC")}
_OTHERS = {3: ("HWN",), 4: ("HWCN", "CHWN", "HWNC")}


def arrange(array: Array, name: str, layout: str | None = None, *, alone: bool) -> Array:
    """Bring the axes of an array into their order: rows (N, d), or images (N, C, H, W).

    Two axes are rows, unless the layout says otherwise. Three are grey images (N, H, W), four have channels, 1, 3 or 4
    of them, at axis 1 or 3. Where the shape speaks for another order, as (28, 28, 5000) for images along the last axis,
    or for several, the layout has to be given.

    Args:
        array: The array.
        name: What errors call it.
        layout: A letter an axis, as `Overrules.layout`; None to tell it from the shape.
        alone: Whether it is a whole data set rather than one part of several; then (3, H, W) is one image, not three.

    Raises:
        DataError: for other shapes, layouts that could be several, and one that does not fit.

    Example:
        >>> import numpy as np
        >>> arrange(np.zeros((28, 28, 40)), "x", "HWN", alone=True).shape
        (40, 1, 28, 28)
    """
    if layout:
        return _as_asked(array, name, layout)
    if array.ndim == 2:
        return array
    if array.ndim not in (3, 4):
        more = " (videos and volumes are not read: give each frame or slice as an image)" if array.ndim == 5 else ""
        raise DataError(f"{name} has shape {array.shape}; give (N, d), (N, H, W), (N, H, W, C) or (N, C, H, W){more}")
    chosen = _told(array.shape, name, alone)
    return _ordered(array, chosen)


def per_file(array: Array, name: str, layout: str | None = None) -> Array:
    """Return the one example of a file with an axis N in front: (1, d), or (1, C, H, W).

    One axis is a row of numbers, two are a grey image, three an image with channels first or last.

    Raises:
        DataError: for other shapes, and where both axes could be the channels.
    """
    if layout:
        one = layout if "N" in layout else f"N{layout}"
        return _as_asked(array[None] if "N" not in layout else array, name, one)
    if array.ndim == 1:
        return array[None]
    if array.ndim == 2:
        return array[None, None]
    if array.ndim == 3:
        first, last = array.shape[0] in _CHANNELS, array.shape[2] in _CHANNELS
        if first != last:
            return _ordered(array[None], "NCHW" if first else "NHWC")
        if first:
            raise DataError(
                f"{name}: in shape {array.shape}, axis 0 or 2 could be the channels; give --layout CHW or HWC"
            )
    raise DataError(
        f"{name} has shape {array.shape}; give one image a file, (H, W), (H, W, C) or (C, H, W), or one row"
    )


def _as_asked(array: Array, name: str, layout: str) -> Array:
    if "N" not in layout:
        array, layout = array[None], f"N{layout}"
    if array.ndim != len(layout):
        raise DataError(
            f"{name} has shape {array.shape}, and layout {layout} names {len(layout)} axes; "
            f"give one of {array.ndim} letters"
        )
    if "D" in layout:
        return array if layout == "ND" else array.T
    arranged = _ordered(array, layout)
    if arranged.shape[1] not in _CHANNELS:
        raise DataError(
            f"{name} has {arranged.shape[1]} channels by layout {layout}, its shape is {array.shape}; "
            f"{_fewer(layout.index('C'), array.shape)}, or give another --layout"
        )
    return arranged


def _ordered(array: Array, layout: str) -> Array:
    moved = array.transpose([layout.index(axis) for axis in "NCHW" if axis in layout])
    return moved if "C" in layout else moved[:, None]


def _fewer(axis: int, shape: tuple[int, ...]) -> str:
    """Say how to keep three of many channels, or one of two."""
    kept = "[0, 1, 2]" if shape[axis] > 2 else "[0]"
    places = ", ".join(kept if index == axis else ":" for index in range(len(shape)))
    return f"pictures have 1 or 3 channels: keep some, as x[{places}]"


def _told(shape: tuple[int, ...], name: str, alone: bool) -> str:
    """Return the layout that a shape of three or four axes has."""
    usual = [layout for layout in _USUAL[len(shape)] if _fits(shape, layout)]
    others = [layout for layout in _OTHERS[len(shape)] if _fits(shape, layout) and _even(shape, layout)]
    if len(shape) == 3:
        n, middle, last = shape
        if (last in _CHANNELS and middle != last) or (alone and n in _CHANNELS):
            raise DataError(
                f"{name} has shape {shape}, which could be one image or several grey ones; "
                f"add the missing axis: (N, H, W, C) or (N, 1, H, W), or give --layout NHW or HWC"
            )
        if others and (not _even(shape, "NHW") or (shape[0] == shape[1] != shape[2])):
            raise DataError(
                f"{name} has shape {shape}: {last} images of {n}x{middle} along the last axis, or {n} of "
                f"{middle}x{last}; give --layout HWN (in NumPy: x.transpose(2, 0, 1)), or --layout NHW"
            )
        return "NHW"
    if len(usual) == 2 and shape[1] * shape[3] != 1:
        raise DataError(
            f"{name}: in shape {shape}, axis 1 or 3 could be the channels; make images larger, or give --layout "
            "NCHW or NHWC"
        )
    if usual == ["NHWC"] and shape[0] == shape[1] != shape[2]:
        n, height, width, _ = shape
        raise DataError(
            f"{name} has shape {shape}: {width} images of {height}x{n} along axis 2, or {n} of {width}x{height}; "
            f"give --layout HWNC (in NumPy: x.transpose(2, 3, 0, 1)), or --layout NHWC"
        )
    if usual and (_even(shape, usual[0]) or not others):
        return usual[0]
    if others:
        order = ", ".join(str(others[0].index(axis)) for axis in "NCHW")
        raise DataError(
            f"{name}: shape {shape} looks like images along axis {others[0].index('N')}, not the first; "
            f"give --layout {others[0]} (in NumPy: x.transpose({order}))"
        )
    few = min((1, 3), key=lambda axis: shape[axis])
    raise DataError(
        f"{name}: in shape {shape}, neither axis 1 nor axis 3 is 1, 3 or 4 channels; choose among them: "
        f"{_fewer(few, shape)}"
    )


def _fits(shape: tuple[int, ...], layout: str) -> bool:
    return "C" not in layout or shape[layout.index("C")] in _CHANNELS


def _even(shape: tuple[int, ...], layout: str) -> bool:
    sides = shape[layout.index("H")], shape[layout.index("W")]
    return max(sides) <= _LONGEST * min(sides)
