"""Arrays on disk: .npy and .npz, images in any of the usual layouts or rows of numbers. Nothing is ever unpickled."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from expost.data.archives import read_archive, read_array, unpacked_size
from expost.data.examples import POOL, Array, Examples, Found, Indices, New, Overrules, Part, Preprocess, in_memory
from expost.data.folders import sort_files
from expost.data.images import ArrayImages
from expost.data.layouts import arrange, per_file
from expost.data.mapped import VARIABLE, as_they_lie, gather, memory_limit, pieces, row_bytes, scratch
from expost.data.splits import PART_WORDS
from expost.errors import DataError, UsageError

EXAMPLE_WORDS = ("x", "images", "image", "imgs", "data", "samples", "features", "arr_0", "")
_NEARLY = 0.97  # of full opacity, which some pixel has where a channel is opacity
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
            raise UsageError(f"{self.where} holds vectors, not images; leave out size, crop, channels and range")
        if as_they_lie(indices, self.rows):
            return self.rows
        array = new((len(indices), self.rows.shape[1]), np.float32)
        for piece in pieces(len(indices), row_bytes(array)):
            array[piece] = gather(self.rows, indices[piece])
        return array


def read_arrays(folder: Path, files: Sequence[Path], where: str, overrules: Overrules) -> Found:
    """Read one .npy or .npz file, several .npy files that are named like the entries of an .npz, or an example a file.

    Entries are recognized by name, upper or lower case: `x_train`, `train_images`, `val_data`, `test` for the parts and
    `x`, `images`, `data`, `samples`, `arr_0` for undivided examples; `y_train`, `train_labels`, `y`, `labels`,
    `targets`, `arr_1` for labels. A single array needs no particular name. Arrays that are larger than `memory_limit`
    together are mapped. Files of one array each, none of which is named so, are an example each; their folders are
    parts and classes, as those of images.

    Raises:
        DataError: if a file is damaged or holds Python objects, no entry can be told to be the examples, or an array
            is none that `examples_of` or `labels_of` takes.
    """
    stems = {path.stem.lower() for path in files}
    if len(files) > 1 and not any(map(_role, stems)) and not stems & {_key(place) for _, place in overrules.parts}:
        return _read_files(folder, files, where, overrules)
    arrays: dict[str, tuple[str, Array]] = {}
    large = sum(map(unpacked_size, files)) > memory_limit()
    for path in files:
        for name, array in _load(path, large).items():
            key = "_".join(filter(None, [path.stem if len(files) > 1 else "", name])).lower()
            if key in arrays:
                raise DataError(f"{where}: two arrays named {key}; keep one")
            arrays[key] = (f"{path}[{name}]" if name else str(path), array)
    return named_arrays(arrays, where, overrules)


def named_arrays(arrays: Mapping[str, tuple[str, Array]], where: str, overrules: Overrules) -> Found:
    """Make a data set of arrays by their names; see `read_arrays`.

    Args:
        arrays: By name, lower case: what errors call the array, and the array.
        where: What errors call them together.
        overrules: What a person says of layout and parts.
    """
    roles = _roles(arrays, overrules)
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
        examples = examples_of(array, name, overrules.layout, alone=not divided)
        parts[part] = Part(examples, None if labels is None else labels_of(labels[1], labels[0], len(examples)))
    if not parts:
        listed = ", ".join(f"{key} {array.shape}" for key, (_, array) in list(arrays.items())[:8])
        raise DataError(f"{where}: no array is named as examples are ({listed}); name one x, or x_train and x_test")
    remarks = _on_opacity([part.examples for part in parts.values()])
    if unused:
        remarks.append(f"ignored {len(unused)} other array{'s' * (len(unused) > 1)} ({', '.join(unused[:3])})")
    return Found(parts, where, tuple(remarks))


def _on_opacity(examples: Sequence[Examples]) -> list[str]:
    if any(isinstance(each, ArrayImages) and each.images.shape[1] == 4 for each in examples):
        return ["the fourth channel is taken for opacity, and put on white"]
    return []


def _roles(arrays: Mapping[str, tuple[str, Array]], overrules: Overrules) -> dict[str, tuple[str, bool] | None]:
    """Return the part of each array and whether it holds examples (else labels); None for one that is not used."""
    if not overrules.parts:
        return {key: _role(key) for key in arrays} if len(arrays) > 1 else dict.fromkeys(arrays, (POOL, True))
    named = {_key(place): part for part, place in overrules.parts}
    for place in named:
        if place not in arrays:
            raise UsageError(f"parts names '{place}', and there are the arrays {', '.join(list(arrays)[:8])}; name one")
    roles: dict[str, tuple[str, bool] | None] = {}
    for key in arrays:
        role = _role(key)
        roles[key] = (named[key], True) if key in named else role if role is not None and not role[1] else None
    return roles


def _key(place: str) -> str:
    """Return the key of an array that is named as a file or an entry."""
    return place.lower().removesuffix(".npy")


def _read_files(folder: Path, files: Sequence[Path], where: str, overrules: Overrules) -> Found:
    """Read files of one array each, an example a file, into one array a part."""
    sorted_files = sort_files([file.relative_to(folder).parts for file in files], "arrays", overrules.places())
    first: tuple[str, Array] | None = None
    parts: dict[str, Part] = {}
    for part, chosen in sorted_files.parts.items():
        joined: Array | None = None
        for slot, index in enumerate(chosen):
            name = str(files[index])
            given = _load(files[index], mapped=False)
            if len(given) != 1:
                raise DataError(f"{name} holds {len(given)} arrays, and one a file makes an example; save one in each")
            array = next(iter(given.values()))
            _refuse_foreign(array, name)
            if first is None:
                first = name, array
            if (array.shape, array.dtype) != (first[1].shape, first[1].dtype):
                raise DataError(
                    f"{where}: no array is named as examples are, and as an example a file they differ: "
                    f"{Path(first[0]).name} has shape {first[1].shape} of {first[1].dtype}, {Path(name).name} "
                    f"{array.shape} of {array.dtype}; name one x, or x_train and x_test, or give all files one "
                    "shape and type"
                )
            one = per_file(array, name, overrules.layout)
            if joined is None:
                joined = scratch((len(chosen), *one.shape[1:]), one.dtype.type)
            joined[slot] = one[0]
        assert joined is not None  # no part is without files
        labels = sorted_files.labels[part]
        parts[part] = Part(_examples(joined, where), None if labels is None else np.array(labels, np.str_))
    remarks = ["an example a file", *_on_opacity([part.examples for part in parts.values()]), *sorted_files.remarks]
    return Found(parts, where, tuple(remarks))


def examples_of(array: Array, name: str, layout: str | None = None, *, alone: bool) -> Examples:
    """Recognize what an array holds: rows (N, d), or images, whose axes `arrange` tells.

    A fourth channel is opacity, and is composited onto white. Pixels are integers in 0..255, floats in [0, 1], or
    booleans, unless a range is given when they are loaded.

    Args:
        array: The array.
        name: What errors call it.
        layout: A letter an axis; None to tell it from the shape.
        alone: Whether it is a whole data set rather than one part of several; then (3, H, W) is one image, not three.

    Raises:
        DataError: for other shapes, layouts that could be several, and a fourth channel that is no opacity.
    """
    _refuse_foreign(array, name)
    arranged = arrange(array, name, layout, alone=alone)
    return _examples(arranged, name)


def _refuse_foreign(array: Array, name: str) -> None:
    """Refuse what holds no numbers."""
    if array.dtype.kind not in "buif":
        kinds = {"c": "complex numbers", "U": "text", "S": "text"}
        kind = kinds.get(array.dtype.kind, f"values of type {array.dtype}")
        raise DataError(f"{name} holds {kind}; store plain integers or floats")
    if array.size == 0:
        raise DataError(f"{name} is empty: its shape is {array.shape}; at least one axis has no entries")


def _examples(arranged: Array, name: str) -> Examples:
    if arranged.ndim == 2:
        return Vectors(rows_of(arranged, name), name)
    if arranged.shape[1] == 4:
        _refuse_other_bands(arranged, name)
    return ArrayImages(arranged, name)


def _refuse_other_bands(images: Array, name: str) -> None:
    """Refuse a fourth channel that is opaque nowhere: a band of another kind, such as near infrared."""
    opaque = 1.0 if images.dtype.kind in "bf" else 255.0
    lows, highs = zip(*((part.min(), part.max()) for part in _fourth(images)), strict=True)
    low, high = min(lows), max(highs)
    if high < _NEARLY * opaque:
        raise DataError(
            f"{name} has 4 channels, and the fourth, from {low:g} to {high:g}, is no opacity, which would be "
            f"{opaque:g} where an image is seen; keep 1 or 3 channels, as x[:, :3] where they are at axis 1, "
            "x[..., :3] where they are last"
        )


def _fourth(images: Array) -> Iterator[Array]:
    for piece in pieces(len(images), row_bytes(images)):
        yield images[piece, 3]


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
        zipped = magic.startswith(b"PK")
        if not zipped and magic != b"\x93NUMPY":
            raise DataError(f"{path} is no NumPy file, or truncated or damaged; save it again with numpy.savez")
        return read_archive(path, mapped) if zipped else {"": read_array(path, mapped)}
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
