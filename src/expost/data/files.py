"""Data sets on disk: which reader takes a file or a folder; and folders of images."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from expost.data import idx
from expost.data.arrays import read_arrays
from expost.data.examples import FOUND_OUT, POOL, Found, Overrules, Part
from expost.data.hdf5 import read_hdf5
from expost.data.images import SUFFIXES, EncodedImages, ImageFiles
from expost.data.sheets import SUFFIXES as SHEETS
from expost.data.sheets import is_sheet
from expost.data.splits import PART_WORDS
from expost.data.tables import read_tables
from expost.data.text import kind_of
from expost.errors import DataError, UsageError


@dataclass(frozen=True)
class Format:
    """A kind of file that data sets come in.

    Attributes:
        name: What it is called.
        suffixes: How its files' names end, for people.
        holds: What it may hold, for people.
        matches: Whether a file's name is one of these.
        read: Reads the files of one data set; gets the folder, its files, sorted, what errors call them together, and
            what a person overrules.
    """

    name: str
    suffixes: str
    holds: str
    matches: Callable[[Path], bool]
    read: Callable[[Path, Sequence[Path], str, Overrules], Found]


def read_path(path: Path, overrules: Overrules = FOUND_OUT) -> Found:
    """Read a data set from a file or a folder.

    A folder is searched with its subfolders, symbolic links included. If it holds files of several formats, the first
    of `FORMATS` that is there is read; the others, hidden files aside, are counted in the remarks.

    Args:
        path: A file or folder that exists.
        overrules: What a person says where a reader would have to find out.

    Raises:
        DataError: if it cannot be read, or holds nothing that a data set can come in.
    """
    try:
        is_folder = path.is_dir()
        files = _walk(path) if is_folder else [path]
    except OSError as error:
        raise DataError(f"cannot read {error.filename or path}: {error.strerror or error}; make it readable") from None
    for form in FORMATS:
        chosen = [file for file in files if form.matches(file)]
        if not chosen:
            continue
        if is_folder:
            found = form.read(path, chosen, f"{form.name} in {path}", overrules)
        else:
            found = form.read(path.parent, chosen, str(path), overrules)
        found = replace(found, files=tuple(chosen))
        others = [file for file in files if not form.matches(file)]
        if not others:
            return found
        remark = f"ignored {len(others)} other file{'s' * (len(others) > 1)} ({_names(others)})"
        return replace(found, remarks=(*found.remarks, remark))
    known = ", ".join(form.suffixes for form in FORMATS)
    if not is_folder:
        packed = path.suffix.lower() in (".zip", ".tar", ".tgz", ".gz")
        remedy = "unpack it and pass its folder" if packed else "convert it"
        raise DataError(f"{path} is in no known format ({known}); {remedy}")
    if not files:
        raise DataError(f"folder {path} is empty; put files of a data set there ({known})")
    raise DataError(f"folder {path} holds no data, only {len(files)} other files ({_names(files)}); formats: {known}")


def read_images(folder: Path, files: Sequence[Path], where: str) -> Found:
    """Read a folder of images: flat, a subfolder per class, or subfolders train, val, test with either inside.

    Subfolders are parts, by the names of `PART_WORDS` in any case, if one of them is the training part and there is
    another part or nothing else (beside `car` and `bus`, `train` is a class). Images are labeled by their subfolder if
    all of them lie in one.

    Args:
        folder: The folder.
        files: The images in it, sorted.
        where: What errors call them together.

    Raises:
        DataError: if the folder of a part holds no images.
    """
    folder = _descend(folder, files)
    relative = [file.relative_to(folder).parts for file in files]
    divided = _is_divided(relative)
    grouped: dict[str, list[tuple[Path, tuple[str, ...]]]] = {}
    outside = []
    for file, parts in zip(files, relative, strict=True):
        part = PART_WORDS.get(parts[0].lower()) if divided and len(parts) > 1 else None
        if divided and part is None:
            outside.append(file)
        else:
            grouped.setdefault(part or POOL, []).append((file, parts[1:] if divided else parts))
    remarks = []
    if outside:
        remarks.append(f"ignored {len(outside)} images outside the parts ({_names(outside)})")
    result = {}
    for part, members in grouped.items():
        labeled = all(len(parts) > 1 for _, parts in members)
        if not labeled and any(len(parts) > 1 for _, parts in members):
            remarks.append("no labels, since some images lie outside the subfolders")
        labels = np.array([parts[0] for _, parts in members], np.str_) if labeled else None
        result[part] = Part(EncodedImages(ImageFiles([file for file, _ in members])), labels)
    if divided:
        _refuse_empty_parts(folder, set(result))
    return Found(result, where, tuple(remarks))


def _descend(folder: Path, files: Sequence[Path]) -> Path:
    """Descend into a single subfolder that is itself divided into parts, as in unpacked archives."""
    relative = [file.relative_to(folder).parts for file in files]
    top = relative[0][0]
    together = all(len(parts) > 1 and parts[0] == top for parts in relative)
    if together and not _is_divided(relative) and _is_divided([parts[1:] for parts in relative]):
        return folder / top
    return folder


def _is_divided(relative: Sequence[tuple[str, ...]]) -> bool:
    """Tell whether the first folders of these paths are parts rather than classes."""
    folders = {parts[0].lower() for parts in relative if len(parts) > 1}
    named = {PART_WORDS[folder] for folder in folders if folder in PART_WORDS}
    return "train" in named and (len(named) > 1 or folders <= set(PART_WORDS))


def _walk(folder: Path) -> list[Path]:
    """List the files in a folder and its subfolders, sorted by path, without hidden ones; every real folder once."""
    files: list[Path] = []
    seen: set[str] = set()
    for name, folders, names in os.walk(folder, followlinks=True, onerror=_raise):
        real = os.path.realpath(name)
        if real in seen:  # a link back to a folder above, or a second link to one folder
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(entry for entry in folders if not _hidden(entry))
        paths = [Path(name, entry) for entry in names if not _hidden(entry)]
        files += [path for path in paths if path.is_file()]  # not a broken link, a socket, a pipe
    return sorted(files, key=lambda file: file.relative_to(folder).parts)


def _raise(error: OSError) -> None:
    raise error


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _refuse_empty_parts(folder: Path, filled: set[str]) -> None:
    """Refuse a part's folder without images, which is more likely a mistake than intended."""
    for entry in sorted(folder.iterdir()):
        part = PART_WORDS.get(entry.name.lower())
        if part is not None and part not in filled and entry.is_dir():
            raise DataError(f"folder {entry} holds no images; fill it or remove it")


def _names(files: Sequence[Path]) -> str:
    return ", ".join(file.name for file in files[:3]) + (", ..." if len(files) > 3 else "")


def _suffix(*suffixes: str) -> Callable[[Path], bool]:
    return lambda path: path.suffix.lower() in suffixes


def _regardless(read: Callable[[Path, Sequence[Path], str], Found]) -> Callable[..., Found]:
    """Return a reader of what has no columns, which refuses to be told one."""

    def checked(folder: Path, files: Sequence[Path], where: str, overrules: Overrules) -> Found:
        if overrules.label_column is not None:
            raise UsageError(f"label_column is {overrules.label_column!r}, but {where} is no table; leave it out")
        return read(folder, files, where)

    return checked


def _is_arrow(path: Path) -> bool:
    """Tell whether a file is one of a data set's, not of what `datasets` computed from it."""
    return path.suffix.lower() == ".arrow" and not path.name.startswith(("cache-", "tmp", "indices"))


def _is_table(path: Path) -> bool:
    """Tell whether a file is a table of numbers, by its suffix or, of a .txt, by its rows."""
    kind = kind_of(path)
    if kind != ".txt":
        return kind in SHEETS
    try:
        return is_sheet(path)
    except (DataError, OSError):
        return False


IMAGES = Format(
    "images", ".png .jpg .webp .bmp .gif .tif .pgm .ppm", "images", _suffix(*SUFFIXES), _regardless(read_images)
)

FORMATS: tuple[Format, ...] = (
    Format(
        "IDX files",
        "-ubyte -ubyte.gz",
        "grey images and labels",
        lambda path: idx.NAME.fullmatch(path.name) is not None,
        _regardless(idx.read_idx_files),
    ),
    Format("parquet", ".parquet", "images or numbers", _suffix(".parquet"), read_tables),
    Format("Arrow files", ".arrow", "images or numbers, as datasets saves them", _is_arrow, read_tables),
    IMAGES,
    Format("NumPy arrays", ".npz .npy", "images or vectors", _suffix(".npz", ".npy"), _regardless(read_arrays)),
    Format(
        "HDF5", ".h5 .hdf5 .h5ad", "images or vectors, cells of AnnData", _suffix(".h5", ".hdf5", ".h5ad"), read_hdf5
    ),
    Format("CSV", ".csv .tsv .tab .psv .data .dat", "numbers; also .gz, and .txt of numbers", _is_table, read_tables),
)
"""In order of precedence. One more format is one more entry."""
