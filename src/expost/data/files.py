"""Data sets on disk: which reader takes a file or a folder; and folders of images."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from expost.data import decoding, idx
from expost.data.arrays import read_arrays
from expost.data.examples import Found, Overrules, Part
from expost.data.folder_names import are_counters
from expost.data.folders import Sorted, sort_files
from expost.data.hdf5 import read_hdf5
from expost.data.image_archives import ZipImages
from expost.data.images import SUFFIXES, EncodedImages, ImageFiles, ImageSource
from expost.data.sheets import SUFFIXES as SHEETS
from expost.data.sheets import is_sheet
from expost.data.side_folders import SYSTEM, left_out, without_system
from expost.data.sound import is_sound, read_sound
from expost.data.splits import PART_WORDS, part_named
from expost.data.tables import read_tables
from expost.data.tar_archives import Archive, TarImages, is_tar, stem_of_archive
from expost.data.text import kind_of
from expost.errors import DataError, UsageError
from expost.utils.reading import size_of


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
        takes: The fields of `Overrules` that it heeds.
    """

    name: str
    suffixes: str
    holds: str
    matches: Callable[[Path], bool]
    read: Callable[[Path, Sequence[Path], str, Overrules], Found]
    takes: frozenset[str] = frozenset()


def read_path(path: Path, overrules: Overrules | None = None) -> Found:
    """Read a data set from a file or a folder.

    A folder is searched with its subfolders, symbolic links included. If it holds files of several formats, the first
    of `FORMATS` that is there is read; the others, hidden files aside, are counted in the remarks. So are the files in
    folders of the system and of thumbnails.

    Args:
        path: A file or folder that exists.
        overrules: How to read it, where names and shapes are not to decide.

    Raises:
        UsageError: if what is asked for does not go with the format, or names what is not there.
        DataError: if it cannot be read, or holds nothing that a data set can come in.
    """
    overrules = overrules or Overrules()
    try:
        is_folder = path.is_dir()
        files = _walk(path) if is_folder else [path]
    except OSError as error:
        raise DataError(f"cannot read {error.filename or path}: {error.strerror or error}; make it readable") from None
    remarks = []
    if not is_folder:
        size_of(path)
    if is_folder:
        kept, folders = without_system([file.relative_to(path).parts for file in files])
        files = [files[index] for index in kept]
        if folders:
            remarks.append(left_out(folders, "thumbnails or files of the system", "files"))
        overrules = replace(overrules, parts=tuple((part, _below(place, path)) for part, place in overrules.parts))
    for form in FORMATS:
        chosen = [file for file in files if form.matches(file)]
        if not chosen:
            continue
        for option in overrules.given:
            if option not in form.takes:
                raise UsageError(f"{option} is for {_takers(option)}, and {path} holds {form.name}; leave it out")
        where = f"{form.name} in {path}" if is_folder else str(path)
        found = form.read(path if is_folder else path.parent, chosen, where, overrules)
        others = [file for file in files if not form.matches(file)]
        if others:
            remarks.append(f"ignored {len(others)} other file{'s' * (len(others) > 1)} ({_names(others)})")
        return replace(found, files=tuple(chosen), remarks=(*found.remarks, *remarks), overrules=overrules)
    known = ", ".join(form.suffixes for form in FORMATS)
    if not is_folder:
        raise DataError(f"{path} is in no known format ({known}); {_remedy(path) or 'convert it'}")
    if not files:
        raise DataError(f"folder {path} is empty; put files of a data set there ({known})")
    remedy = next(filter(None, map(_remedy, files)), "")
    raise DataError(
        f"folder {path} holds no data, only {len(files)} other files ({_names(files)}); formats: {known}"
        + (f"; {remedy.replace('convert it to', 'convert them to')}" if remedy else "")
    )


def _remedy(file: Path) -> str:
    """Return what to do with a file in another format; empty if nothing is known of it."""
    return next((remedy for suffixes, remedy in _REMEDIES.items() if file.suffix.lower() in suffixes), "")


def _below(place: str, folder: Path) -> str:
    """Return a path below a folder, which may be given as it is seen from outside: photos/a for a in photos."""
    given, whole = Path(place).expanduser(), folder.resolve()
    if given.is_absolute():
        return given.relative_to(whole).as_posix() if given.is_relative_to(whole) else place
    if not (folder / given).exists():
        for length in range(len(given.parts), 0, -1):
            if given.parts[:length] == whole.parts[-length:]:
                return Path(*given.parts[length:]).as_posix()
    return given.as_posix()


def _takers(option: str) -> str:
    return " and ".join(form.name for form in FORMATS if option in form.takes)


def read_images(folder: Path, files: Sequence[Path], where: str, overrules: Overrules) -> Found:
    """Read a folder of images, whose folders `sort_files` understands. Every page of a TIFF file is an example.

    Args:
        folder: The folder.
        files: The images in it, sorted.
        where: What errors call them together.
        overrules: The folders of the parts, if they are given.

    Raises:
        UsageError: if a given folder holds no images.
        DataError: if the folder of a part holds no images.
    """
    pages: list[tuple[Path, int | None]] = []
    stacks = animations = others = 0
    for file in files:
        numbers, besides = decoding.pages(file) if file.suffix.lower() in _STACKS else ([0], 0)
        others += besides
        stacks += len(numbers) > 1
        animations += file.suffix.lower() in _ANIMATIONS and decoding.frames(file) > 1
        pages += [(file, None if numbers == [0] else number) for number in numbers]
    sorted_files = sort_files([file.relative_to(folder).parts for file, _ in pages], parts=overrules.places())
    if not overrules.parts:
        _refuse_empty_parts(folder, files)

    def pick(chosen: Sequence[int]) -> ImageSource:
        return ImageFiles([pages[index][0] for index in chosen], [pages[index][1] for index in chosen])

    remarks = []
    if stacks:
        remarks.append(f"{len(pages):,} pages of {len(files):,} file{'s' * (len(files) > 1)}, an example each")
    if others:
        remarks.append(f"left out {others:,} other page{'s' * (others > 1)}: smaller copies, masks, or of another size")
    if animations:
        remarks.append(f"of {animations:,} animation{'s' * (animations > 1)} the first frame")
    return _found(sorted_files, pick, where, remarks)


def read_image_archive(folder: Path, files: Sequence[Path], where: str, overrules: Overrules) -> Found:
    """Read the images of a zip archive, as those of the folder that it unpacks to; nothing is unpacked.

    Raises:
        UsageError: as `read_images` does.
        DataError: if the archive is damaged or holds no images, or there are several.
    """
    if len(files) > 1:
        raise DataError(
            f"{where} holds {len(files)} zip archives ({_names(files)}); give the path of one, or unpack them"
        )
    archive = ZipImages.open(files[0])
    paths = [tuple(name.split("/")) for name in archive.names]
    kept, folders = without_system(paths)
    sorted_files = sort_files([paths[index] for index in kept], parts=overrules.places())

    def pick(chosen: Sequence[int]) -> ImageSource:
        return archive.only([kept[index] for index in chosen])

    remarks = [left_out(folders, "thumbnails or files of the system", "files")] if folders else []
    if archive.others:
        remarks.append(f"ignored {archive.others} other file{'s' * (archive.others > 1)} in the archive")
    return _found(sorted_files, pick, where, remarks)


def read_tar_archives(folder: Path, files: Sequence[Path], where: str, overrules: Overrules) -> Found:
    """Read the images of tar archives, as those of the folders that they unpack to; nothing is unpacked to files.

    Several archives are parts if their names say so (`train-000000.tar`), else classes, unless they are numbered in a
    row: then they are shards of one set. Files `.cls` beside all images hold their classes, as in WebDataset.

    Raises:
        UsageError: as `read_images` does.
        DataError: if an archive is damaged, or there are no images.
    """
    archives = [Archive.open(file) for file in files]
    members = [(archive, member) for archive in archives for member in archive.members]
    others = sum(archive.others for archive in archives)
    if not members:
        raise DataError(f"{where} holds no images, only {others} other files; unpack it and pass its folder")
    heads = _heads(folder, files) if len(files) > 1 else {files[0]: ()}
    paths = [(*heads[archive.path], *member.name.split("/")) for archive, member in members]
    kept, folders = without_system(paths)
    sorted_files = sort_files([paths[index] for index in kept], parts=overrules.places())
    if all(members[index][1].label for index in kept):
        sorted_files.labels = {
            part: [members[kept[index]][1].label for index in chosen] for part, chosen in sorted_files.parts.items()
        }
        sorted_files.remarks.append("classes of the .cls files")

    def pick(chosen: Sequence[int]) -> ImageSource:
        return TarImages([members[kept[index]] for index in chosen])

    remarks = [left_out(folders, "thumbnails or files of the system", "files")] if folders else []
    if others:
        remarks.append(f"ignored {others} other file{'s' * (others > 1)} in the archive{'s' * (len(files) > 1)}")
    return _found(sorted_files, pick, where, remarks)


def _heads(folder: Path, files: Sequence[Path]) -> dict[Path, tuple[str, ...]]:
    """Return the folders that stand for each of several archives: its part or class; none for a shard of one set."""
    above = {file: file.relative_to(folder).parts[:-1] for file in files}
    stems = {file: stem_of_archive(file) for file in files}
    parts = {file: part_named(stem) for file, stem in stems.items()}
    if "train" in parts.values():
        return {file: (*above[file], parts[file] or stems[file]) for file in files}
    if are_counters({stem.lower() for stem in stems.values()}):
        return above
    return {file: (*above[file], stems[file]) for file in files}


def _found(
    sorted_files: Sorted, pick: Callable[[Sequence[int]], ImageSource], where: str, remarks: Sequence[str]
) -> Found:
    parts = {}
    for part, chosen in sorted_files.parts.items():
        labels = sorted_files.labels[part]
        parts[part] = Part(EncodedImages(pick(chosen)), None if labels is None else np.array(labels, np.str_))
    return Found(parts, where, (*remarks, *sorted_files.remarks))


def arrow_files(path: Path) -> list[Path]:
    """Return the files of the kind that `read_path` reads with PyArrow, sorted: parquet, else Arrow's own."""
    if not path.is_dir():
        return [path] if _is_parquet(path) or _is_arrow(path) else []
    tables = _walk(path, lambda file: _is_parquet(file) or _is_arrow(file))
    return [file for file in tables if _is_parquet(file)] or tables


def _walk(folder: Path, wanted: Callable[[Path], bool] = lambda _: True) -> list[Path]:
    """List the files in a folder and its subfolders, sorted by path, without hidden ones; every real folder once."""
    files: list[Path] = []
    seen: set[str] = set()
    for name, folders, names in os.walk(folder, followlinks=True, onerror=_raise):
        real = os.path.realpath(name)
        if real in seen:  # a link back to a folder above, or a second link to one folder
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(entry for entry in folders if not _hidden(entry) or entry.lower() in SYSTEM)
        paths = [path for entry in names if not _hidden(entry) and wanted(path := Path(name, entry))]
        files += [path for path in paths if path.is_file()]  # not a broken link, a socket, a pipe
    return sorted(files, key=lambda file: file.relative_to(folder).parts)


def _raise(error: OSError) -> None:
    raise error


def _hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in ("thumbs.db", "desktop.ini")


def _refuse_empty_parts(folder: Path, files: Sequence[Path]) -> None:
    """Refuse a part's folder without images beside that of training, which is more likely a mistake than intended."""
    inside = [entry for entry in folder.iterdir() if not _hidden(entry.name)]
    while len(inside) == 1 and inside[0].is_dir():
        folder = inside[0]
        inside = [entry for entry in folder.iterdir() if not _hidden(entry.name)]
    parts = {entry: PART_WORDS.get(entry.name.lower()) for entry in inside if entry.is_dir()}
    filled = {folder / file.relative_to(folder).parts[0] for file in files}
    for entry in sorted(parts):
        if "train" in parts.values() and parts[entry] is not None and entry not in filled:
            raise DataError(f"folder {entry} holds no images; fill it or remove it")


def _names(files: Sequence[Path]) -> str:
    return ", ".join(file.name for file in files[:3]) + (", ..." if len(files) > 3 else "")


def _suffix(*suffixes: str) -> Callable[[Path], bool]:
    return lambda path: path.suffix.lower() in suffixes


_is_parquet = _suffix(".parquet", ".pq")


def _is_arrow(path: Path) -> bool:
    """Tell whether a file is one of a data set's, not of what `datasets` computed from it."""
    return path.suffix.lower() in (".arrow", ".feather") and not path.name.startswith(("cache-", "tmp", "indices"))


def _is_table(path: Path) -> bool:
    """Tell whether a file is a table of numbers, by its suffix or, of a .txt, by its rows."""
    kind = kind_of(path)
    if kind != ".txt":
        return kind in SHEETS
    try:
        return is_sheet(path)
    except (DataError, OSError):
        return False


def _regardless(
    read: Callable[[Path, Sequence[Path], str], Found],
) -> Callable[[Path, Sequence[Path], str, Overrules], Found]:
    return lambda folder, files, where, _overrules: read(folder, files, where)


_REMEDIES = {
    (".gz", ".7z", ".rar", ".bz2", ".xz", ".zst"): "unpack it and pass its folder",
    (".xlsx", ".xls", ".ods", ".xlsm"): "save its sheet as CSV",
    (".json", ".jsonl", ".ndjson"): "convert it to CSV or parquet",
    (".sav", ".dta", ".sas7bdat", ".rds", ".rdata"): "export it as CSV",
    (".arff",): "convert it to CSV (scipy.io.arff.loadarff reads it)",
    (".mat",): "save its arrays as .npz (scipy.io.loadmat reads it)",
    (".pkl", ".pickle", ".pt", ".pth", ".joblib"): "save its arrays as .npz: pickles can run code, and are never read",
    (".sdf", ".mol", ".mol2", ".pdb"): "write its molecules as SMILES, one a line, in a .smi file",
    (".heic", ".heif", ".dcm", ".nii", ".svg", ".tga", ".ico", ".psd", ".raw"): "convert its images to PNG",
    (".mp4", ".avi", ".mov", ".mkv"): "save its frames as images",
    (".mp3", ".m4a", ".aac", ".wma", ".opus", ".amr", ".ape", ".mka"): "convert it to WAV: ffmpeg -i FILE FILE.wav",
    (".svm", ".libsvm", ".svmlight"): "convert it to CSV or .npz (sklearn.datasets.load_svmlight_file reads it)",
    (".tfrecord", ".record", ".lmdb"): "convert it to images in folders, or to parquet",
}
_STACKS = (".tif", ".tiff")
_ANIMATIONS = (".gif", ".webp")
_LABELLED = frozenset({"label_column"})

IMAGES = Format(
    "images",
    ".png .jpg .webp .bmp .gif .tif .pgm .ppm .avif .jp2",
    "images",
    _suffix(*SUFFIXES),
    read_images,
    frozenset({"parts"}),
)

FORMATS: tuple[Format, ...] = (
    Format(
        "IDX files",
        "-ubyte -ubyte.gz",
        "grey images and labels",
        lambda path: idx.NAME.fullmatch(path.name) is not None,
        _regardless(idx.read_idx_files),
    ),
    Format("parquet", ".parquet", "images or numbers", _is_parquet, read_tables, _LABELLED),
    Format("Arrow files", ".arrow .feather", "images or numbers", _is_arrow, read_tables, _LABELLED),
    IMAGES,
    Format(
        "NumPy arrays",
        ".npz .npy",
        "images or vectors",
        _suffix(".npz", ".npy"),
        read_arrays,
        frozenset({"layout", "parts"}),
    ),
    Format(
        "HDF5",
        ".h5 .hdf5 .h5ad",
        "images or vectors, cells of AnnData",
        _suffix(".h5", ".hdf5", ".h5ad"),
        read_hdf5,
        frozenset({"layout", "parts", "label_column"}),
    ),
    Format(
        "CSV",
        ".csv .tsv .tab .psv .data .dat",
        "numbers; also .gz, and .txt of numbers",
        _is_table,
        read_tables,
        _LABELLED,
    ),
    Format(
        "sound",
        ".wav .flac .ogg .aiff",
        "recordings, also in a .zip",
        is_sound,
        read_sound,
        frozenset({"parts", "rate", "seconds", "mels"}),
    ),
    Format("archives of images", ".zip", "images", _suffix(".zip"), read_image_archive, frozenset({"parts"})),
    Format("tar archives", ".tar .tar.gz .tgz", "images", is_tar, read_tar_archives, frozenset({"parts"})),
)
"""In order of precedence. One more format is one more entry."""
