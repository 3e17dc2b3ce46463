"""What lies beside the data: folders of systems, small copies, masks of the images."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from expost.data.folder_names import (
    IMAGES,
    SURE_MASKS,
    ListedFile,
    are_counters,
    bare_stem,
    holds_images,
    is_mask,
    name_words,
    own_words,
    read_name,
)
from expost.data.splits import words_of

SYSTEM = frozenset(
    {
        "@eadir", "__macosx", ".thumbnails", ".thumb", ".thumbs", ".ipynb_checkpoints", "@__thumb", ".@__thumb",
        "#recycle",
        "@recycle", "$recycle.bin", ".trash", ".trashes", "lost+found", "system volume information", ".cache",
        ".appledouble", ".picasaoriginals", ".comments", "@tmp", "#snapshot", "@snapshot", ".dtrash",
    }
)  # fmt: skip
"""Folders, lower case, that systems and programs leave beside people's files."""

THUMBNAILS = frozenset({"thumbnails", "thumbs", "_thumbs", "_thumbnails", "thumbnail", "previews"})
"""Folders, lower case, of small copies, where they lie below or beside those of the images; else they are classes."""
_MAY_BE_CLASSES = frozenset({"thumbs", "previews"})  # of THUMBNAILS
_SMALL = frozenset({"thumb", "thumbs", "thumbnail", "thumbnails", "tn", "small", "preview"})
_FILE_MASKS = frozenset({"mask", "masks", "seg", "segmentation", "gt", "matte", "trimap", "thumb", "thumbnail"})


def without_system(paths: Sequence[tuple[str, ...]]) -> tuple[list[int], list[str]]:
    """Return the indices of files outside the folders of `SYSTEM` and of thumbnails, and the names of the others' ones.

    A folder of `THUMBNAILS` is one if it lies in a folder of about as many files of its kind, or shares the names of
    its files with the folder that it lies in or one beside it. Mere counters say nothing of those beside it, unless
    one is called `images` or the like. Without such images, it is a class.
    """
    side = _thumbnails([path for path in paths if not any(folder.lower() in SYSTEM for folder in path[:-1])])
    kept: list[int] = []
    left: list[str] = []
    for index, path in enumerate(paths):
        inside = next(
            (path[at] for at in range(len(path) - 1) if path[at].lower() in SYSTEM or path[: at + 1] in side), None
        )
        if inside is None:
            kept.append(index)
        else:
            left.append(inside)
    return kept, left


def _thumbnails(paths: Sequence[tuple[str, ...]]) -> set[tuple[str, ...]]:
    """Return the folders of small copies of images in the folder above or in one beside."""
    below: dict[tuple[str, ...], list[str]] = defaultdict(list)  # every folder with the files in and below it
    direct: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for path in paths:
        direct[path[:-1]].append(path[-1])
        for level in range(1, len(path)):
            below[path[:level]].append(path[-1])
    beside: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for folder in below:
        if folder[-1].lower() not in THUMBNAILS:
            beside[folder[:-1]].append(folder[-1])
    return {
        folder
        for folder, names in below.items()
        if folder[-1].lower() in THUMBNAILS
        and _small_copies(
            folder[-1],
            names,
            direct.get(folder[:-1], []),
            {other: below[(*folder[:-1], other)] for other in beside.get(folder[:-1], [])},
        )
    }


def _small_copies(name: str, names: Sequence[str], above: Sequence[str], others: Mapping[str, Sequence[str]]) -> bool:
    kinds = {_suffix(each) for each in names}
    if 2 * sum(_suffix(each) in kinds for each in above) >= len(names):
        return True
    stems = _whole_stems(names)
    if 2 * len(stems & _whole_stems(above)) >= len(stems):
        return True
    if any(holds_images(other, name) for other in others):
        return True
    shared = any(2 * len(stems & _whole_stems(each)) >= len(stems) for each in others.values())
    sure = name.lower() not in _MAY_BE_CLASSES and len(others) == 1
    return shared and (sure or not are_counters(stems))


def _suffix(name: str) -> str:
    return name.rpartition(".")[2].lower()


def _whole_stems(names: Iterable[str]) -> set[str]:
    """Return the names of files without what follows the last dot, and what says that they are small."""
    stems = (name.rpartition(".")[0] or name for name in names)
    return {"_".join(word for word in words_of(stem) if word not in _SMALL) for stem in stems}


def left_out(folders: Iterable[str], why: str, what: str) -> str:
    """Say how many files were left out, in which folders.

    Example:
        >>> left_out(["@eaDir", "@eaDir", "thumbs"], "of the system", "images")
        'left out 3 images in @eaDir, thumbs (of the system)'
    """
    counts = Counter(folders)
    listed = ", ".join(list(counts)[:3]) + (", ..." if len(counts) > 3 else "")
    total = sum(counts.values())
    return f"left out {total:,} {what if total != 1 else what.removesuffix('s')} in {listed} ({why})"


def without_side(files: list[ListedFile], remarks: list[str], what: str) -> list[ListedFile]:
    """Leave out masks: folders beside those of the images, and files named after another one."""
    inside: dict[tuple[str, ...], dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for file in files:
        for level, folder in enumerate(file.folders):
            inside[file.folders[:level]][folder].add(bare_stem(file.stem))
    masks: set[tuple[str, ...]] = set()
    for parent, siblings in inside.items():
        own = own_words(siblings)
        side = {name for name in siblings if is_mask(own[name])}
        others = {own[name]: stems for name, stems in siblings.items() if name not in side}
        for name in side:
            if any(holds_images(other, own[name]) for other in others) or _paired(own[name], siblings[name], others):
                masks.add((*parent, name))
    kept: list[ListedFile] = []
    left = []
    for file in files:
        above = next(
            (file.folders[:level] for level in range(1, len(file.folders) + 1) if file.folders[:level] in masks), ()
        )
        if above:
            left.append(above[-1])
        else:
            kept.append(file)
    if left:
        remarks.append(left_out(left, "masks or labels beside the images", what))
    stems = {(file.folders, file.stem.lower()) for file in kept}
    named = [file for file in kept if _beside(file, stems)]
    if named:
        chosen = {file.index for file in named}
        kept = [file for file in kept if file.index not in chosen]
        remarks.append(f"left out {len(named):,} {what} named after others ({named[0].stem}, ...): masks or thumbnails")
    return kept


def _paired(name: str, stems: set[str], others: Mapping[str, set[str]]) -> bool:
    """Tell whether a folder in the plural (`masks`; a class would be `mask`) has the names of its siblings' files.

    Mere counters say nothing, as classes have them too, unless one folder is beside it that can be that of the images.
    """
    plural = bool(read_name(name).words - {"mask", "label", "target", "seg", "depth"})
    if not plural or len(stems & set().union(*others.values())) < 0.5 * len(stems):
        return False
    if not are_counters(stems):
        return True
    said = [read_name(other) for other in others]
    sure = not SURE_MASKS.isdisjoint(name_words(name))
    return len(said) == 1 and (sure or (not said[0].rest and bool(said[0].part or said[0].words & IMAGES)))


def _beside(file: ListedFile, stems: set[tuple[tuple[str, ...], str]]) -> bool:
    stem = file.stem.lower()
    cut = max(stem.rfind(sign) for sign in "_-. ")
    return cut > 0 and stem[cut + 1 :] in _FILE_MASKS and (file.folders, stem[:cut]) in stems
