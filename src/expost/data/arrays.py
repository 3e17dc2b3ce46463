"""Arrays on disk: .npy and .npz, images in any of the usual layouts or rows of numbers. Nothing is ever unpickled."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from expost.data.archives import map_archive, unpacked_size
from expost.data.decoding import check_unit, round_to_bytes
from expost.data.examples import POOL, Array, Examples, Found, Indices, New, Part, Preprocess, in_memory
from expost.data.images import ArrayImages, as_they_are
from expost.data.mapped import VARIABLE, as_they_lie, gather, memory_limit, open_file, pieces, row_bytes, scratch
from expost.data.splits import PART_WORDS
from expost.errors import DataError, UsageError

EXAMPLE_WORDS = ("x", "images", "image", "imgs", "data", "samples", "features", "arr_0", "")
_TOO_LARGE = 2**63  # for int64
LABEL_WORDS = ("y", "labels", "label", "targets", "target", "arr_1")


class Vectors(Examples):
    """Rows of numbers: float32, shape (N, d)."""

    def __init__(self, rows: Array, where: str) -> None:
        self.rows = rows
        self.where = where

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.rows)

    def load(self, indices: Indices, prep: Preprocess, new: New = in_memory) -> Array:
        """Return some rows; see `Examples.load`."""
        if prep != Preprocess():
            raise UsageError(f"{self.where} holds vectors, not images; leave out size, crop and channels")
        if as_they_lie(indices, self.rows):
            return self.rows
        array = new((len(indices), self.rows.shape[1]), np.float32)
        for piece in pieces(len(indices), row_bytes(array)):
            array[piece] = gather(self.rows, indices[piece])
        return array


def read_arrays(_folder: Path, files: Sequence[Path], where: str) -> Found:
    """Read one .npy or .npz file, or several .npy files that are named like the entries of an .npz.

    Entries are recognized by name, upper or lower case: `x_train`, `train_images`, `val_data`, `test` for the parts and
    `x`, `images`, `data`, `samples`, `arr_0` for undivided examples; `y_train`, `train_labels`, `y`, `labels`,
    `targets`, `arr_1` for labels. A single array needs no particular name. Arrays that are larger than `memory_limit`
    together are mapped.

    Raises:
        DataError: if a file is damaged or holds Python objects, no entry can be told to be the examples, or an array
            is none that `examples_of` or `labels_of` takes.
    """
    arrays: dict[str, tuple[str, Array]] = {}
    large = sum(map(unpacked_size, files)) > memory_limit()
    for path in files:
        for name, array in _load(path, large).items():
            key = "_".join(filter(None, [path.stem if len(files) > 1 else "", name])).lower()
            if key in arrays:
                raise DataError(f"{where}: two arrays named {key}; keep one")
            arrays[key] = (f"{path}[{name}]" if name else str(path), array)
    return named_arrays(arrays, where)


def named_arrays(arrays: Mapping[str, tuple[str, Array]], where: str) -> Found:
    """Make a data set of arrays by their names; see `read_arrays`.

    Args:
        arrays: By name, lower case: what errors call the array, and the array.
        where: What errors call them together.
    """
    roles = {key: _role(key) for key in arrays} if len(arrays) > 1 else dict.fromkeys(arrays, (POOL, True))
    divided = any(role is not None and role[1] and role[0] != POOL for role in roles.values())
    parts: dict[str, Part] = {}
    unused = []
    for key, role in roles.items():
        if role is None or (divided and role[0] == POOL):
            unused.append(key)
            continue
        part, is_examples = role
        if not is_examples:
            continue
        name, array = arrays[key]
        if part in parts:
            raise DataError(f"{where}: more than one array could be the examples of part '{part}'; keep one")
        labels = next((arrays[other] for other in roles if roles[other] == (part, False)), None)
        examples = examples_of(array, name, alone=not divided)
        parts[part] = Part(examples, None if labels is None else labels_of(labels[1], labels[0], len(examples)))
    if not parts:
        listed = ", ".join(f"{key} {array.shape}" for key, (_, array) in list(arrays.items())[:8])
        raise DataError(f"{where}: no array is named as examples are ({listed}); name one x, or x_train and x_test")
    ignored = f"ignored {len(unused)} other array{'s' * (len(unused) > 1)} ({', '.join(unused[:3])})"
    return Found(parts, where, (ignored,) if unused else ())


def examples_of(array: Array, name: str, *, alone: bool) -> Examples:
    """Recognize what an array holds.

    Two axes are vectors (N, d). Three are grey images (N, H, W), unless they look like one color image. Four are
    images (N, H, W, C) or (N, C, H, W) with 1, 3 or 4 channels, told apart by which axis can be the channels; a fourth
    channel is opacity, and is composited onto white. Pixels are integers in 0..255, floats in [0, 1], or booleans.

    Args:
        array: The array.
        name: What errors call it.
        alone: Whether it is a whole data set rather than one part of several; then (3, H, W) is one image, not three.

    Raises:
        DataError: for other shapes, layouts that could be either, and values outside those ranges.
    """
    if array.dtype.kind not in "buif":
        kinds = {"c": "complex numbers", "U": "text", "S": "text"}
        kind = kinds.get(array.dtype.kind, f"values of type {array.dtype}")
        raise DataError(f"{name} holds {kind}; store plain integers or floats")
    if array.size == 0:
        raise DataError(f"{name} is empty: its shape is {array.shape}; at least one axis has no entries")
    if array.ndim == 2:
        return Vectors(rows_of(array, name), name)
    if array.ndim not in (3, 4):
        raise DataError(f"{name} has shape {array.shape}; give (N, d), (N, H, W), (N, H, W, C) or (N, C, H, W)")
    images = _channels_first(array, name, alone)
    convert = _conversion(images, name)
    return ArrayImages(images, name, partial(_opaque, convert=convert) if images.shape[1] == 4 else convert)


def rows_of(array: Array, name: str, first_row: int = 0) -> Array:
    """Turn a two-axis array of numbers into float32 rows; errors count them from `first_row`.

    Raises:
        DataError: for NaN, infinity, or values beyond what float32 holds; if they do not fit on disk either.
    """
    ready = array.dtype == np.float32 and array.flags.c_contiguous
    rows = array if ready else scratch(array.shape, np.float32)
    bad, first = 0, ""
    for piece in pieces(len(rows), row_bytes(rows)):
        if not ready:
            with np.errstate(over="ignore"):
                rows[piece] = array[piece]
        finite = np.isfinite(rows[piece])
        if not finite.all() and not first:
            row, column = np.argwhere(~finite)[0]
            row += piece.start
            first = f"{array[row, column]} in row {first_row + row}, column {column}"
        bad += int((~finite).sum())
    if bad:
        raise DataError(f"{name}: {first} ({bad} such values) is no finite float32; repair or remove those rows")
    return rows


def labels_of(array: Array, name: str, n: int) -> Array:
    """Check labels: integers (or floats that are whole) or text, shape (n,) or (n, 1).

    Returns:
        As int64, shape (n,); as text if they are text, or one of them does not fit int64.

    Raises:
        DataError: for other types and shapes, and if their number is not that of the examples.
    """
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise DataError(f"{name} has shape {array.shape}; labels need one integer an example: shape (N,)")
    if len(array) != n:
        raise DataError(f"{name}: {len(array)} labels for {n} examples; give one each")
    whole = array.dtype.kind == "f" and np.isfinite(array).all() and (array == np.rint(array)).all()
    if array.dtype.kind in "bui" or whole:
        fits = n == 0 or (int(array.min()) >= -_TOO_LARGE and int(array.max()) < _TOO_LARGE)
        return array.astype(np.int64 if fits else np.str_)
    if array.dtype.kind in "US":
        return array.astype(np.str_)
    raise DataError(f"{name} holds {array.dtype} labels; store whole numbers or text")


def _role(key: str) -> tuple[str, bool] | None:
    """Return the part that an array's name stands for, and whether it holds examples (else labels); None if unknown."""
    words = [word for word in re.split(r"[^a-z0-9]+", key) if word]
    part = next((PART_WORDS[word] for word in words if word in PART_WORDS), POOL)
    rest = "_".join(word for word in words if word not in PART_WORDS)
    if rest in EXAMPLE_WORDS:
        return part, True
    return (part, False) if rest in LABEL_WORDS else None


def _load(path: Path, mapped: bool) -> Mapping[str, Array]:
    """Load, or map, every array of a .npz by name, or the one of a .npy under the empty name."""
    try:
        with path.open("rb") as file:
            magic = file.read(6)
            file.seek(0)
            zipped = magic.startswith(b"PK")
            if not zipped and magic != b"\x93NUMPY":
                raise DataError(f"{path} is no NumPy file, or truncated or damaged; save it again with numpy.savez")
            if mapped:
                return map_archive(path) if zipped else {"": open_file(path)}
            content = np.load(file, allow_pickle=False)
            return {name: content[name] for name in content.files} if zipped else {"": content}
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}; restore it") from None
    except MemoryError:
        raise DataError(
            f"{path} does not fit in memory; store uint8 pixels or float32 rows, or set {VARIABLE} below their size"
        ) from None
    except Exception as error:
        # NumPy reads headers with Python's parser, archives with zipfile and zlib: damage shows as any error of theirs.
        if "allow_pickle" in str(error) or "Python objects" in str(error):
            raise DataError(f"{path} holds Python objects, which are never unpickled; store plain numbers") from None
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(f"{path} is truncated or damaged ({reason}); restore it") from None


def _channels_first(array: Array, name: str, alone: bool) -> Array:
    if array.ndim == 3:
        n, middle, last = array.shape
        if (last in (1, 3, 4) and middle != last) or (alone and n in (1, 3, 4)):
            raise DataError(
                f"{name} has shape {array.shape}, which could be one image or several grey ones; "
                f"add the missing axis: (N, H, W, C) or (N, 1, H, W)"
            )
        return array[:, None]
    first, last = array.shape[1] in (1, 3, 4), array.shape[3] in (1, 3, 4)
    if first and last and array.shape[1] * array.shape[3] != 1:
        raise DataError(f"{name}: in shape {array.shape}, axis 1 or 3 could be the channels; make images larger")
    if first:
        return array
    if last:
        return array.transpose(0, 3, 1, 2)
    raise DataError(
        f"{name}: in shape {array.shape}, neither axis 1 nor axis 3 is 1, 3 or 4 channels; choose among them"
    )


def _conversion(images: Array, name: str) -> Callable[[Array], Array]:
    """Return what makes uint8 of such pixels.

    Raises:
        DataError: if their values are out of range.
    """
    if images.dtype.kind == "b":
        return _white
    parts = (images[piece] for piece in pieces(len(images), row_bytes(images)))
    if images.dtype.kind == "f":
        try:
            check_unit(parts)
        except DataError as error:
            raise DataError(f"{name}: {error}") from None
        return round_to_bytes
    lows, highs = zip(*((part.min(), part.max()) for part in parts), strict=True)
    low, high = min(lows), max(highs)
    if low < 0 or high > 255:
        raise DataError(f"{name} has integer pixels from {low} to {high}; scale them to 0..255 and store them as uint8")
    if high == 1:
        raise DataError(f"{name} has no pixels but 0 and 1 of 255, all but black; store booleans, or multiply by 255")
    return as_they_are if images.dtype == np.uint8 else _narrow


def _white(images: Array) -> Array:
    """Turn True into 255."""
    return images.astype(np.uint8) * np.uint8(255)


def _narrow(images: Array) -> Array:
    """Turn integers 0..255 into uint8."""
    return images.astype(np.uint8)


def _opaque(images: Array, convert: Callable[[Array], Array]) -> Array:
    """Convert RGBA and composite it onto white, rounded to the nearest."""
    images = convert(images)
    color, opacity = images[:, :3].astype(np.uint16), images[:, 3:].astype(np.uint16)
    return ((color * opacity + 255 * (255 - opacity) + 127) // 255).astype(np.uint8)
