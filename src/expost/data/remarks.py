"""What is worth saying of examples that were read: levels, silence, repetitions, and what rows may stand for."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import reduce
from math import isqrt

import numpy as np
from torch import Tensor

from expost.data.examples import Array, Found, Part, Preprocess
from expost.data.images import Pixels
from expost.data.intensities import Extent
from expost.data.mapped import pieces, row_bytes
from expost.errors import DataError
from expost.types import Data

_LEVELS = 128
"""With so many levels of grey from the darkest to the lightest, what images were scaled by is not looked at."""
_LOOKED_AT = 2**22  # numbers of the first rows that are searched for what they may stand for
_MARKS = (-999, -9999, -99, -99999, -1, 999, 9999, 99999)  # what stands for a missing value in many tables
_NAMED = 5


def silence(arrays: Sequence[Array], where: str) -> str:
    """Say how many recordings are silent; refuse a training part where all are."""
    counts = [
        sum(int((~array[piece].any(axis=(1, 2, 3))).sum()) for piece in pieces(len(array), row_bytes(array)))
        for array in arrays
    ]
    if counts[0] == len(arrays[0]):
        raise DataError(f"{where}: all recordings of the training part are silent; check how they were made")
    return f"{sum(counts):,} of {sum(map(len, arrays)):,} silent" if sum(counts) else ""


def scaling(part: Part) -> str:
    """Say how the values of a part's images became 8 bits; empty where they had them, or there are no images."""
    if not isinstance(part.examples, Pixels):
        return ""
    kind = part.examples.kind()
    if kind == "floating-point":
        return "floating-point pixels times 255"
    return f"{kind} pixels divided by 257" if kind in ("16-bit", "32-bit") else ""


def levels(found: Found, data: Data, prep: Preprocess) -> list[str]:
    """Refuse images whose values fill little of their type's range, or say so; see `Extent.check`."""
    if data.train.x.dim() != 4 or prep.range is not None:
        return []
    low, high = 255, 0
    for split in (data.train, data.validation, data.test):
        for piece in pieces(len(split), row_bytes(split.x.numpy())):
            low, high = min(low, int(split.x[piece].min())), max(high, int(split.x[piece].max()))
        if high - low >= _LEVELS:
            return []
    extents = [part.examples.extent() for part in found.parts.values() if isinstance(part.examples, Pixels)]
    said = reduce(Extent.joined, extents).check(found.where) if extents else ""
    return [said] if said else []


def misread(data: Data) -> list[str]:
    """Say what rows of numbers may stand for: images that were flattened, and marks of missing values."""
    x = data.train.x
    if x.dim() != 2 or not len(x):
        return []
    x = x[: max(2, _LOOKED_AT // x.shape[1])]
    return [*_flattened(x), *_marks(x, data.columns)]


def _flattened(x: Tensor) -> list[str]:
    """Say how whole numbers from 0 to 255 become images, where a row is as long as a square one."""
    width = x.shape[1]
    found = [
        (channels, side)
        for channels in (1, 3)
        if (side := isqrt(width // channels)) ** 2 * channels == width and side > 7
    ]
    if not found or x.min() < 0 or not _LEVELS < x.max() <= 255 or (x != x.round()).any():
        return []
    channels, side = found[0]
    shape = ", ".join(map(str, (*([channels] * (channels > 1)), side, side)))
    return [
        f"rows may be images of {side}x{side} pixels; to train on them as such, save x.reshape(-1, {shape}) as uint8 "
        "in an .npy or .npz file"
    ]


def _marks(x: Tensor, columns: Sequence[str]) -> list[str]:
    """Say which columns hold a number that often marks a missing value, more than once and far from all others."""
    said = []
    for mark in _MARKS:
        marked = x == mark
        for index in (marked.sum(0) > 1).nonzero()[:, 0].tolist():
            rest = x[~marked[:, index], index]
            if not len(rest):
                continue
            low, high = float(rest.min()), float(rest.max())
            if 0 < high - low < max(low - mark, mark - high):
                said.append(f"{mark} in '{columns[index] if columns else f'x{index}'}'")
    if not said:
        return []
    shown = ", ".join(said[:_NAMED]) + (f" and {len(said) - _NAMED} more" if len(said) > _NAMED else "")
    return [f"far from all other values: {shown}; if that stands for a missing value, fill it in or remove the rows"]


def repetitions(data: Data) -> list[str]:
    """Say what repetition there is among the examples, since it decides what scores on held-out data mean."""
    train, validation, test = (_fingerprints(split.x) for split in (data.train, data.validation, data.test))
    seen = np.unique(train)
    if len(seen) == 1 and (validation == seen).all() and (test == seen).all():
        return ["all examples are identical"]
    copies = int(np.isin(validation, seen).sum()) + int(np.isin(test, np.union1d(seen, validation)).sum())
    if not copies:
        return []
    return [f"{copies} of {len(validation) + len(test)} validation and test examples are exact copies of earlier ones"]


def _fingerprints(x: Tensor) -> Array:
    """Return 64 bits a row: of a million different rows, none agree but with a probability of 3e-8."""
    digests = (hashlib.blake2b(row, digest_size=8).digest() for row in x.numpy())
    return np.fromiter((int.from_bytes(digest, "little") for digest in digests), np.uint64, len(x))
