"""Loading: from a name or a path to three disjoint parts, in memory or mapped into it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL
import torch
from torch import Tensor

from expost.data import description
from expost.data.examples import POOL, Array, Found, Indices, Overrules, Part, Preprocess, existing, parts_of
from expost.data.files import read_path
from expost.data.hub import on_hub
from expost.data.images import EncodedImages, UnreadableImages
from expost.data.mapped import as_tensor, scratch
from expost.data.named import DATASETS, NamedData
from expost.data.prepared import Preparation, describe
from expost.data.remarks import levels, misread, repetitions, scaling, silence
from expost.data.splits import Plan, plan_official, plan_split, subset
from expost.data.strings import is_strings
from expost.errors import DataError, UsageError
from expost.types import Data, Split


def load_data(
    name_or_path: str | Path,
    *,
    size: int | None = None,
    crop: int | None = None,
    channels: int | None = None,
    range: tuple[float, float] | None = None,
    layout: str | None = None,
    parts: Sequence[str] | Mapping[str, str | Sequence[str]] | None = None,
    limit: int | None = None,
    seed: int = 0,
    label_column: str | None = None,
    rate: int | None = None,
    seconds: float | None = None,
    mels: int | None = None,
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
        range: The values of pixels that become 0 and 255, scaled linearly and clipped; None takes 8-bit values as they
            are, 16-bit ones divided by 257, and floats in [0, 1], and refuses what would leave few levels of grey.
        layout: Axes of an array, a letter each: N examples, H height, W width, C channels, as NCHW, NHWC, HWN; None
            tells it from the shape.
        parts: Folders, files or arrays of each part, as `["train=a", "test=b"]` or `{"train": "a", "test": "b"}`; None
            tells them by their names. `all` is the part that is divided.
        limit: At most this many examples in each part, drawn at random: smaller limits give subsets of larger ones.
        seed: Of the split of data that come without one, and of the draw that `limit` makes; 0..2^32 - 1.
        label_column: Tables only: the column of the labels, in any case, or "none"; None to find it. Of `fsdd`, digit
            or speaker.
        rate: Sound only: samples a second that recordings are brought to; None for the commonest of them.
        seconds: Sound only: the length that they are cut or padded to; None for what holds most of them.
        mels: Sound only: bands of their log-mel frames; None for 64.

    Returns:
        The three parts. Images: uint8, shape (N, C, H, W), 0..255. Sound: log-mel frames, as images (N, 1, mels,
        frames); `Data.sound` says how they were made. Vectors: float32, shape (N, d), unscaled. Labels:
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
    given: object = name_or_path  # whatever the signature says
    if isinstance(given, np.ndarray | Tensor):
        raise UsageError(f"data set is an array of shape {tuple(given.shape)}; save it with numpy.save, give the file")
    if not isinstance(name_or_path, str | Path) or not str(name_or_path).strip():
        raise UsageError(f"data set {name_or_path!r}; give a name ({', '.join(DATASETS)}), a file or a folder")
    asked = Preprocess(crop=crop, size=size, channels=channels, range=range and (float(range[0]), float(range[1])))
    overrules = Overrules(layout and layout.upper(), parts_of(parts), label_column, rate, seconds, mels)
    if isinstance(name_or_path, str) and name_or_path in DATASETS:
        named = DATASETS[name_or_path]
        for option in [*(["range"] if range else []), *overrules.given]:
            if option not in named.takes:
                raise UsageError(f"{option} is for files and folders, and {name_or_path} is a named set; leave it out")
        return load_named(name_or_path, named, asked, limit=limit, seed=seed, overrules=overrules)
    if is_strings(name_or_path):
        raise UsageError(f"{name_or_path} holds strings; read them with expost.data.strings.read_strings")
    return load_path(name_or_path, asked, limit=limit, seed=seed, overrules=overrules)


def load_named(
    name: str,
    named: NamedData,
    prep: Preprocess | None = None,
    *,
    limit: int | None = None,
    seed: int = 0,
    overrules: Overrules | None = None,
) -> Data:
    """Load a set that an entry of `DATASETS` describes; the entry need not be registered.

    Args:
        name: Its name, which is also that of its folder in `$EXPOST_DATA`.
        named: The entry.
        prep: What to do to the images instead of the entry's preprocessing; None for the latter.
        limit: At most this many examples in each part; see `load_data`.
        seed: Of the draw; see `load_data`.
        overrules: What a person says of it, of what the entry takes.

    Raises:
        UsageError, DataError: see `load_data`.
    """
    _check(limit, seed)
    full = named.over(prep or Preprocess())
    found = named.origin.read(name, overrules or Overrules())
    found = replace(found, parts={part: replace(one, names=()) for part, one in found.parts.items()})  # of some origins
    data = _assemble(name, found, plan_official(found, named.counts, shuffled=named.shuffled), full, limit, seed)
    if full == named.prep and overrules in (None, Overrules()) and data.shape != named.shape:
        raise DataError(f"{found.where}: images of shape {data.shape} where {name} has {named.shape}; check the files")
    return data


def load_path(
    path: str | Path,
    prep: Preprocess | None = None,
    *,
    limit: int | None = None,
    seed: int = 0,
    overrules: Overrules | None = None,
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
    found = read_path(place, overrules) if place is not None else _from_hub(path, overrules or Overrules())
    prep = prep or Preprocess()
    data = _assemble(str(path), found, plan_split(found, seed), prep, limit, seed)
    remarks = [*levels(found, data, prep), *misread(data), *repetitions(data)]
    return replace(data, note="; ".join([data.note, *remarks]))


def load_part(path: str | Path, part: str, prep: Preprocess | None = None) -> tuple[torch.Tensor, str]:
    """Load one part of a file or folder, or all of it where it has no parts; also return the part's name, or "".

    Args:
        path: The file or folder.
        part: "train", "validation" or "test".
        prep: What to do to the images; None for nothing.

    Raises:
        UsageError, DataError: see `load_data`; also if the source has parts, but not this one.
    """
    found, name = _part_of(_found(path), part)
    return _all_of(found, prep), name


def shortest_side(path: str | Path, part: str | None = None) -> int | None:
    """Return the shortest side, in pixels, among encoded images of several sizes; None if they have one size.

    Args:
        path: The file or folder.
        part: As `load_part` takes it; None for all parts.

    Raises:
        UsageError, DataError: see `load_part`.
    """
    found = _found(path)
    if part is not None:
        found, _ = _part_of(found, part)
    encoded = [each.examples for each in found.parts.values() if isinstance(each.examples, EncodedImages)]
    sizes = {size for examples in encoded for size in examples.sizes()}
    return min(min(size) for size in sizes) if len(sizes) > 1 else None


def _part_of(found: Found, part: str) -> tuple[Found, str]:
    if set(found.parts) == {POOL}:
        return found, ""
    if part not in found.parts:
        raise UsageError(f"{found.where} has the parts {', '.join(found.parts)}, not {part}; choose one of them")
    return replace(found, parts={part: found.parts[part]}), part


def columns_of(path: str | Path) -> tuple[str, ...]:
    """Return the names of the numbers of a table's rows; empty for images and where there are no names.

    Args:
        path: The file or folder.
    """
    return _found(path).columns


def load_examples(path: str | Path, prep: Preprocess | None = None) -> torch.Tensor:
    """Load all examples of a file or folder, whatever parts it has.

    Args:
        path: The file or folder.
        prep: What to do to the images; None for nothing.

    Returns:
        Images uint8 (N, C, H, W), or vectors float32 (N, d).

    Raises:
        UsageError, DataError: see `load_data`; images of several sizes are a DataError.
    """
    return _all_of(_found(path), prep)


def _found(path: str | Path) -> Found:
    place = Path(path).expanduser()
    if not place.exists():
        raise _unknown(path)
    return read_path(place)


def _all_of(found: Found, prep: Preprocess | None = None) -> torch.Tensor:
    preparation = Preparation(found, sum(len(part) for part in found.parts.values()))
    arrays = [preparation.load(part, np.arange(len(part)), prep or Preprocess()) for part in found.parts.values()]
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
    silent = "" if found.sound is None else silence(arrays, found.where)
    words = _words(chosen)
    names = _names(chosen) if words is None else ()
    labels = [_tensor(part.labels, indices, words) for part, indices in chosen]
    splits = [Split(as_tensor(array), y) for array, y in zip(arrays, labels, strict=True)]
    train, validation, test = splits
    count = sum(map(len, splits))
    shape = arrays[0].shape[1:]
    prepared = [scaling(chosen[0][0]) if prep.range is None else "", prep.describe()]
    note = description.note(
        found.where,
        [len(split) for split in splits],
        plan.how,
        examples=description.of_recordings(count, shape)
        if found.sound is not None
        else description.of_images(count, shape)
        if len(shape) == 3
        else description.of_rows(count, shape[0], found.columns),
        classes=description.of_classes(
            [None if part.labels is None else _named(part.labels[indices], names) for part, indices in chosen]
        ),
        prepared="; ".join(filter(None, prepared)),
        limit=limit,
        seed=seed,
        remarks=(*found.remarks, silent, describe(preparation.kept)),
    )
    classes = names if words is None else tuple(map(str, words))
    pillow = PIL.__version__ if prep.size and arrays[0].ndim == 4 else ""
    return Data(
        name, train, validation, test, note, classes=classes, columns=found.columns, resized_by=pillow,
        sound=found.sound,
    )  # fmt: skip


def _words(chosen: Sequence[tuple[Part, Indices]]) -> Array | None:
    """Return the names of labels that are text: alphabetical, over all parts, whole parts even under a limit."""
    given = [part.labels for part, _ in chosen if part.labels is not None]
    if any(labels.dtype.kind == "U" for labels in given):
        return np.unique(np.concatenate([labels.astype(np.str_) for labels in given]))
    return None


def _names(chosen: Sequence[tuple[Part, Indices]]) -> tuple[str, ...]:
    """Return the names of the labels 0, 1, ... where all parts give the same, and no label is beyond them."""
    labelled = [part for part, _ in chosen if part.labels is not None]
    given = {part.names for part in labelled}
    names = given.pop() if len(given) == 1 else ()
    within = all(
        part.labels.min() >= 0 and part.labels.max() < len(names) for part in labelled if part.labels is not None
    )
    return names if within and len(set(names)) == len(names) else ()


def _named(labels: Array, names: tuple[str, ...]) -> Array:
    return np.array(names, np.str_)[labels] if names else labels


def _tensor(labels: Array | None, indices: Indices, words: Array | None) -> Tensor | None:
    if labels is None:
        return None
    values = labels[indices]
    if words is not None:
        values = np.searchsorted(words, values.astype(np.str_)).astype(np.int64)
    return torch.from_numpy(values)


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
