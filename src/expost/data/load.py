"""Loading: from a name or a path to three disjoint parts, in memory or mapped into it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL
import torch
from torch import Tensor

from expost.data.examples import FOUND_OUT, POOL, Array, Found, Indices, Overrules, Part, Preprocess, existing
from expost.data.files import read_path
from expost.data.hub import on_hub
from expost.data.images import UnreadableImages
from expost.data.mapped import as_tensor, scratch
from expost.data.named import DATASETS, NamedData
from expost.data.named_strings import STRING_DATASETS
from expost.data.prepared import Preparation, describe
from expost.data.splits import Plan, plan_official, plan_split, subset
from expost.data.string_files import holds_strings
from expost.errors import DataError, UsageError
from expost.types import Data, Split


def load_data(
    name_or_path: str | Path,
    *,
    size: int | None = None,
    crop: int | None = None,
    channels: int | None = None,
    limit: int | None = None,
    seed: int = 0,
    label_column: str | None = None,
) -> Data:
    """Load a data set by its name in `DATASETS`, or from a file or folder.

    A `Path`, and a text with a path separator, or beginning with `.` or `~`, is a path. Any other text is a name
    if there is a set of that name, even where a file is called the same (`./mnist` is the file); failing that, a path;
    failing that, a data set on the Hugging Face Hub: `owner/name` or `owner/name:configuration`.

    Named sets are looked for in `$EXPOST_DATA/<name>/`, then in the cache of `datasets`, then downloaded. Their images
    get the paper's preprocessing and their splits are fixed. For what is read from disk see `load_path`.

    Args:
        name_or_path: The name or the path.
        size: Cut the largest central square out of each image and resize it to this side, in pixels; replaces the
            padding or resizing that a named set has.
        crop: Before that, cut out the central square of this side, in pixels; replaces a named set's crop.
        channels: 1 makes images grey, 3 makes them RGB; None keeps them.
        limit: At most this many examples in each part, drawn at random: smaller limits give subsets of larger ones.
        seed: Of the split of data that come without one, and of the draw that `limit` makes; 0..2^32 - 1.
        label_column: Tables only: the column of the labels, in any case, or "none"; None to find it.

    Returns:
        The three parts. Images: uint8, shape (N, C, H, W), 0..255. Vectors: float32, shape (N, d), unscaled. Labels:
        int64; text labels and names of class folders are numbered in alphabetical order. Examples that take more than
        `$EXPOST_MEMORY` (512M unless set) are mapped from files in `$XDG_CACHE_HOME/expost/prepared`, where they are
        kept for the next time, or from the source itself; these tensors must not be written to.

    Raises:
        UsageError: for a name that is neither a set nor a path, or an option out of range.
        DataError: for data that cannot be used; the message names the file, the value and the remedy.

    Example:
        >>> data = load_data("digits", limit=100)
        >>> data.shape, len(data.train), len(data.validation), len(data.test), data.train.x.dtype
        ((1, 8, 8), 100, 100, 100, torch.uint8)
    """
    if not isinstance(name_or_path, str | Path) or not str(name_or_path).strip():
        raise UsageError(f"data set {name_or_path!r}; give a name ({', '.join(DATASETS)}), a file or a folder")
    asked = Preprocess(crop=crop, size=size, channels=channels)
    if isinstance(name_or_path, str) and name_or_path in DATASETS:
        if label_column is not None:
            raise UsageError(f"label_column is {label_column!r}, but '{name_or_path}' is no table; leave it out")
        return load_named(name_or_path, DATASETS[name_or_path], asked, limit=limit, seed=seed)
    if name_or_path in STRING_DATASETS or holds_strings(Path(name_or_path)):
        raise UsageError(f"{name_or_path} holds strings; read them with expost.data.strings.read_strings")
    return load_path(name_or_path, asked, limit=limit, seed=seed, overrules=Overrules(label_column))


def load_named(
    name: str, named: NamedData, prep: Preprocess | None = None, *, limit: int | None = None, seed: int = 0
) -> Data:
    """Load a set that an entry of `DATASETS` describes; the entry need not be registered.

    Args:
        name: Its name, which is also that of its folder in `$EXPOST_DATA`.
        named: The entry.
        prep: What to do to the images instead of the entry's preprocessing; None for the latter.
        limit: At most this many examples in each part; see `load_data`.
        seed: Of the draw; see `load_data`.

    Raises:
        UsageError, DataError: see `load_data`.
    """
    _check(limit, seed)
    asked = prep or Preprocess()
    full = replace(named.prep, channels=asked.channels or named.prep.channels)
    if asked.crop:
        full = replace(full, crop=asked.crop)
    if asked.size:
        full = replace(full, size=asked.size, pad=None)
    found = named.origin.read(name)
    data = _assemble(name, found, plan_official(found, named.counts, shuffled=named.shuffled), full, limit, seed)
    if full == named.prep and data.shape != named.shape:
        raise DataError(f"{found.where}: images of shape {data.shape} where {name} has {named.shape}; check the files")
    return data


def load_path(
    path: str | Path,
    prep: Preprocess | None = None,
    *,
    limit: int | None = None,
    seed: int = 0,
    overrules: Overrules = FOUND_OUT,
) -> Data:
    """Load a data set from a file or folder in one of `FORMATS`.

    The parts are those of the source where files, folders or arrays are named after them (train, val, test, and so
    on); a missing validation or test part is a tenth of the training part, and undivided data become 80/10/10,
    stratified by the labels where there are any. The draw depends on the seed and the sorted names alone. `Data.note`
    counts exact copies across the parts, but none is removed: data may have them for good reason.

    Args:
        path: The file or folder.
        prep: What to do to the images; None for nothing.
        limit: At most this many examples in each part; see `load_data`.
        seed: Of the draw; see `load_data`.
        overrules: What a person says where the reader would have to find out.

    Raises:
        UsageError, DataError: see `load_data`.
    """
    _check(limit, seed)
    place = existing(path)
    found = read_path(place, overrules) if place is not None else _from_hub(path, overrules)
    data = _assemble(str(path), found, plan_split(found, seed), prep or Preprocess(), limit, seed)
    remarks = _repetitions(data)
    return replace(data, note="; ".join([data.note, *remarks]))


def load_part(path: str | Path, part: str) -> tuple[torch.Tensor, str]:
    """Load one part of a file or folder, or all of it where it has no parts; also return the part's name, or "".

    Raises:
        UsageError, DataError: see `load_data`; also if the source has parts, but not this one.
    """
    found = _found(path)
    if set(found.parts) == {POOL}:
        return _all_of(found), ""
    if part not in found.parts:
        raise UsageError(f"{found.where} has the parts {', '.join(found.parts)}, not {part}; choose one of them")
    return _all_of(replace(found, parts={part: found.parts[part]})), part


def load_examples(path: str | Path) -> torch.Tensor:
    """Load all examples of a file or folder, whatever parts it has.

    Returns:
        Images uint8 (N, C, H, W), or vectors float32 (N, d).

    Raises:
        UsageError, DataError: see `load_data`; images of several sizes are a DataError.
    """
    return _all_of(_found(path))


def _found(path: str | Path) -> Found:
    place = Path(path).expanduser()
    if not place.exists():
        raise _unknown(path)
    return read_path(place)


def _all_of(found: Found) -> torch.Tensor:
    preparation = Preparation(found, sum(len(part) for part in found.parts.values()))
    arrays = [preparation.load(part, np.arange(len(part)), Preprocess()) for part in found.parts.values()]
    if len({array.shape[1:] for array in arrays}) > 1:
        shapes = ", ".join(sorted({str(array.shape[1:]) for array in arrays}))
        raise DataError(f"{found.where}: examples of several shapes, {shapes}; make them equal")
    if len(arrays) == 1:
        return as_tensor(arrays[0])
    joined = scratch((preparation.total, *arrays[0].shape[1:]), arrays[0].dtype.type)
    return as_tensor(np.concatenate(arrays, out=joined))


def _from_hub(path: str | Path, overrules: Overrules) -> Found:
    """Read the data set on the Hugging Face Hub that what is no path stands for."""
    repository = on_hub(path)
    if repository is None:
        raise _unknown(path)
    try:
        return repository.read(str(path), overrules)
    except DataError as error:
        raise DataError(f"no file or folder {path}; taken for a data set on the Hugging Face Hub: {error}") from None


def _assemble(name: str, found: Found, plan: Plan, prep: Preprocess, limit: int | None, seed: int) -> Data:
    """Load the planned examples and make one `Data` of them."""
    chosen = [(part, subset(indices, limit, seed)) for part, indices in (plan.train, plan.validation, plan.test)]
    preparation = Preparation(found, sum(len(indices) for _, indices in chosen))
    arrays: list[Array] = []
    unreadable: dict[str, str] = {}
    for part, indices in chosen:
        try:
            arrays.append(preparation.load(part, indices, prep))
        except UnreadableImages as error:
            unreadable |= error.reasons
    if unreadable:
        raise UnreadableImages(unreadable)
    if len({array.ndim for array in arrays}) > 1:
        raise DataError(f"{found.where}: some parts hold images and some vectors; give parts of one kind")
    if arrays[0].ndim == 4 and len({array.shape[1] for array in arrays}) > 1:
        arrays = [
            preparation.load(part, indices, replace(prep, channels=3)) if array.shape[1] == 1 else array
            for (part, indices), array in zip(chosen, arrays, strict=True)
        ]
    shapes = [array.shape[1:] for array in arrays]
    if len(set(shapes)) > 1:
        raise DataError(
            f"{found.where}: examples have shape {shapes[0]} in training, {shapes[1]} in validation, "
            f"{shapes[2]} in test; make them equal (for images, pass a size)"
        )
    words = _words(chosen)
    labels = [_tensor(part.labels, indices, words) for part, indices in chosen]
    splits = [Split(as_tensor(array), y) for array, y in zip(arrays, labels, strict=True)]
    clauses = [
        f"from {found.where}",
        prep.describe(),
        "/".join(f"{len(split):,}" for split in splits) + " for training/validation/test",
        plan.how,
        "" if limit is None else f"at most {limit:,} of each, drawn with seed {seed}",
        *found.remarks,
        describe(preparation.kept),
    ]
    train, validation, test = splits
    note = "; ".join(filter(None, clauses))
    classes = () if words is None else tuple(map(str, words))
    pillow = PIL.__version__ if prep.size and arrays[0].ndim == 4 else ""
    return Data(name, train, validation, test, note, classes=classes, columns=found.columns, resized_by=pillow)


def _words(chosen: Sequence[tuple[Part, Indices]]) -> Array | None:
    """Return the names of labels that are text: alphabetical, over all parts, whole parts even under a limit."""
    given = [part.labels for part, _ in chosen if part.labels is not None]
    if any(labels.dtype.kind == "U" for labels in given):
        return np.unique(np.concatenate([labels.astype(np.str_) for labels in given]))
    return None


def _tensor(labels: Array | None, indices: Indices, words: Array | None) -> Tensor | None:
    if labels is None:
        return None
    values = labels[indices]
    if words is not None:
        values = np.searchsorted(words, values.astype(np.str_)).astype(np.int64)
    return torch.from_numpy(values)


def _repetitions(data: Data) -> list[str]:
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


def _check(limit: int | None, seed: int) -> None:
    if limit is not None and (type(limit) is not int or limit < 1):
        raise UsageError(f"limit is {limit!r}; give a whole number of examples, at least 1")
    if type(seed) is not int or not 0 <= seed < 2**32:
        raise UsageError(f"seed is {seed!r}; give a whole number from 0 to {2**32 - 1}")


def _unknown(path: str | Path) -> UsageError:
    text = str(path)
    if isinstance(path, Path) or os.sep in text or "/" in text or text[0] in ".~":
        return UsageError(f"no file or folder {text}; check the path, or choose a named set: {', '.join(DATASETS)}")
    try:
        DATASETS[text]
    except UsageError as error:
        return UsageError(f"{error}; nor is there a file or folder of that name")
    return UsageError(f"no file or folder {text}")
