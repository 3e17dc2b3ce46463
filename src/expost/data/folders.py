"""What the folders of a data set's files mean: parts, classes, wrappers, and what is not the data themselves."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from expost.data.examples import POOL
from expost.data.splits import PART_WORDS, words_of
from expost.errors import UsageError

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

_FILLERS = frozenset({"set", "sets", "data", "dataset", "split", "splits", "folder", "files", "all", "part", "the"})
_IMAGES = frozenset(
    {
        "image", "images", "img", "imgs", "photo", "photos", "picture", "pictures", "pic", "pics", "jpg", "jpeg", "png",
        "jpegimages", "frames", "raw", "rgb", "original", "originals", "input", "inputs",
    }
)  # fmt: skip
_MASKS = frozenset(
    {
        "mask", "masks", "label", "labels", "annotation", "annotations", "annot", "segmentation", "segmentations",
        "seg",
        "segs", "gt", "groundtruth", "matte", "mattes", "trimap", "trimaps", "depth", "depths",
        "target",
        "targets", "segmentationclass", "segmentationobject",
    }
)  # fmt: skip
_SURE_MASKS = frozenset(
    {
        "annotation", "annotations", "annot", "segmentation", "segmentations", "groundtruth", "trimap", "trimaps",
        "segmentationclass", "segmentationobject",
    }
)  # fmt: skip
_MAY_BE_CLASSES = frozenset({"thumbs", "previews"})  # of THUMBNAILS
_SMALL = frozenset({"thumb", "thumbs", "thumbnail", "thumbnails", "tn", "small", "preview"})
_FILE_MASKS = frozenset({"mask", "masks", "seg", "segmentation", "gt", "matte", "trimap", "thumb", "thumbnail"})
_MOST = 0.75  # of the files: so many must name a part for the others to be strays
_ORDER = {"train": 0, "validation": 1, "test": 2, POOL: 3}


@dataclass(frozen=True)
class _Name:
    """What a folder's name says.

    Attributes:
        part: The part that a word of it stands for; empty if none does, or several do.
        rest: Its words that are no part, no number and say nothing like "set" or "images", joined.
        words: The words beside the part and numbers.
    """

    part: str
    rest: str
    words: frozenset[str]


def _said(name: str) -> _Name:
    words = [word for word in words_of(name) if not word.isdigit()]
    parts = {PART_WORDS[word] for word in words if word in PART_WORDS}
    if parts == {"train", "validation"}:  # train_val: what both are chosen from
        parts = {"train"}
    others = [word for word in words if word not in PART_WORDS]
    rest = "_".join(word for word in others if word not in _FILLERS and word not in _IMAGES)
    return _Name(parts.pop() if len(parts) == 1 else "", rest, frozenset(others))


@dataclass(frozen=True)
class _File:
    """A file of a data set.

    Attributes:
        index: Its place among the files.
        folders: The folders that it lies in, from the top, as far as nothing is known of them yet.
        stem: Its name, without what follows the last dot.
        part: The part that it belongs to.
        word: What the folder's name says beside the part: `cats` of `train_cats`.
    """

    index: int
    folders: tuple[str, ...]
    stem: str
    part: str = POOL
    word: str = ""


@dataclass
class Sorted:
    """The files of a data set by part.

    Attributes:
        parts: Of each part, the indices of its files.
        labels: Of each part, the class of each of its files; None where it has none.
        remarks: What was left out, and why.
    """

    parts: dict[str, list[int]] = field(default_factory=dict)
    labels: dict[str, list[str] | None] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)


def sort_files(
    paths: Sequence[tuple[str, ...]], what: str = "images", parts: Mapping[str, Sequence[str]] | None = None
) -> Sorted:
    """Tell the part and the class of files by the folders that they lie in.

    - Folders of systems, thumbnails, and masks beside images are left out.
    - A folder that holds all the rest is looked through.
    - The first level of folders that is named after parts, as a whole (`train2017`, `test_set`) or together with a
      class (`train_cats`), divides the files, at the top (`train/cats`) or below the classes (`cats/train`). A level
      is if the training part is there, and another part or nothing else: beside `car` and `bus`, `train` is a class.
      Without such a level, files are divided that are named so (`train_001.png`), but for a few strays.
    - What is left of the folders, `images` aside, is the class: the first of them.

    Args:
        paths: The folders and the name of each file, below one folder.
        what: What files are called.
        parts: The folders, or files, of each part, where these are given; "all" is the key of the undivided.

    Raises:
        UsageError: if a given folder holds no file, or one file belongs to two parts.

    Example:
        >>> paths = ["set/cat/train/1.png", "set/cat/test/2.png", "set/dog/train/1.png"]
        >>> found = sort_files([tuple(path.split("/")) for path in paths])
        >>> found.parts, found.labels
        ({'train': [0, 2], 'test': [1]}, {'train': ['cat', 'dog'], 'test': ['cat']})
    """
    found = Sorted()
    files = [_File(index, path[:-1], path[-1].rpartition(".")[0] or path[-1]) for index, path in enumerate(paths)]
    if parts:
        files = _without_side(_parted(files, paths, parts, found, what), found, what)
    else:
        files = _divided(_without_side(files, found, what), found, what, paths)
    files = _through_wrappers(_without_image_words(files))
    for part in sorted({file.part for file in files}, key=_ORDER.__getitem__):
        members = [file for file in files if file.part == part]
        found.parts[part] = [file.index for file in members]
        found.labels[part] = _labels(members, found)
    found.remarks = list(dict.fromkeys(found.remarks))
    return found


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
    if any(_holds_images(other, name) for other in others):
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


def _without_side(files: list[_File], found: Sorted, what: str) -> list[_File]:
    """Leave out masks: folders beside those of the images, and files named after another one."""
    inside: dict[tuple[str, ...], dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for file in files:
        for level, folder in enumerate(file.folders):
            inside[file.folders[:level]][folder].add(_plain(file.stem))
    masks: set[tuple[str, ...]] = set()
    for parent, siblings in inside.items():
        own = _own_words(siblings)
        side = {name for name in siblings if _is_mask(own[name])}
        others = {own[name]: stems for name, stems in siblings.items() if name not in side}
        for name in side:
            if any(_holds_images(other, own[name]) for other in others) or _paired(own[name], siblings[name], others):
                masks.add((*parent, name))
    kept: list[_File] = []
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
        found.remarks.append(left_out(left, "masks or labels beside the images", what))
    stems = {(file.folders, file.stem.lower()) for file in kept}
    named = [file for file in kept if _beside(file, stems)]
    if named:
        chosen = {file.index for file in named}
        kept = [file for file in kept if file.index not in chosen]
        found.remarks.append(
            f"left out {len(named):,} {what} named after others ({named[0].stem}, ...): masks or thumbnails"
        )
    return kept


def _own_words(names: Iterable[str]) -> dict[str, str]:
    """Return names without the words that all of them have, those of parts aside: `Input` and `Masks` of ISIC_*."""
    words = {name: _joined(name) for name in names}
    shared = set.intersection(*map(set, words.values())) - set(PART_WORDS) if len(words) > 1 else set()
    own = {name: "_".join(word for word in each if word not in shared) for name, each in words.items()}
    return {name: bare if shared and bare else name for name, bare in own.items()}


def _is_mask(name: str) -> bool:
    words = [word for word in _joined(name) if not word.isdigit() and word not in PART_WORDS]
    words = [word for word in words if word not in _FILLERS and word not in _IMAGES]
    return bool(words) and (_MASKS.issuperset(words) or "".join(words) in _MASKS)


def _joined(name: str) -> list[str]:
    """Return the words of a name, with "ground truth" as one: each of the two alone may be a class."""
    return "_".join(words_of(name)).replace("ground_truth", "groundtruth").split("_")


def _holds_images(name: str, mask: str) -> bool:
    """Tell whether a folder is that of the images that masks are of: `images`, or the part without the masks."""
    said = _said(name)
    return not said.rest and (bool(said.words & _IMAGES) or (said.part != "" and said.part == _said(mask).part))


def _paired(name: str, stems: set[str], others: Mapping[str, set[str]]) -> bool:
    """Tell whether a folder in the plural (`masks`; a class would be `mask`) has the names of its siblings' files.

    Mere counters say nothing, as classes have them too, unless one folder is beside it that can be that of the images.
    """
    plural = bool(_said(name).words - {"mask", "label", "target", "seg", "depth"})
    if not plural or len(stems & set().union(*others.values())) < 0.5 * len(stems):
        return False
    if not are_counters(stems):
        return True
    said = [_said(other) for other in others]
    sure = not _SURE_MASKS.isdisjoint(_joined(name))
    return len(said) == 1 and (sure or (not said[0].rest and bool(said[0].part or said[0].words & _IMAGES)))


def are_counters(stems: set[str]) -> bool:
    """Tell whether names differ in nothing but a number that runs on from 0 or 1, a few left out."""
    found = [re.fullmatch(r"(\D*)([0-9]+)", stem) for stem in stems]
    numbers = [int(match[2]) for match in found if match]
    alike = len({match[1] for match in found if match}) == 1 and len(numbers) == len(stems)
    return alike and max(numbers) <= 2 * len(numbers)


def _plain(stem: str) -> str:
    return "_".join(word for word in _joined(stem) if word not in _MASKS and word not in _IMAGES)


def _beside(file: _File, stems: set[tuple[tuple[str, ...], str]]) -> bool:
    stem = file.stem.lower()
    cut = max(stem.rfind(sign) for sign in "_-. ")
    return cut > 0 and stem[cut + 1 :] in _FILE_MASKS and (file.folders, stem[:cut]) in stems


def _divided(files: list[_File], found: Sorted, what: str, paths: Sequence[tuple[str, ...]]) -> list[_File]:
    """Give files their parts, and take the folders that say so away; leave out those outside the parts."""
    files, wrapper = _unwrapped(files)
    level = _level(files)
    if level is None:
        for divided in ([replace(file, part=_said(file.stem).part or POOL) for file in files], _somewhere(files)):
            named = [file for file in divided if file.part != POOL]
            parts = {file.part for file in named}
            if "train" in parts and len(parts) > 1 and len(named) >= _MOST * len(files):
                _say_outside([file for file in divided if file.part == POOL], found, what, paths)
                return named
        part = next((said.part for said in map(_said, reversed(wrapper)) if said.part and not said.rest), "")
        return [replace(file, part=part if part not in ("", "train") else POOL) for file in files]
    whole = _plain_names(files, level)
    inside: list[_File] = []
    outside: list[_File] = []
    for file in files:
        said = _said(file.folders[level]) if len(file.folders) > level else _Name("", "", frozenset())
        if not said.part or (whole and said.rest):
            outside.append(file)
            continue
        rest = (*file.folders[:level], *file.folders[level + 1 :])
        inside.append(replace(file, folders=rest, part=said.part, word="" if whole else said.rest))
    inside = _again(_without_repeated(inside, level))
    if len({file.word for file in inside}) > 1:  # a class in the name of the part
        inside = [replace(file, folders=(file.word or "", *file.folders)) for file in inside]
    _say_outside(outside, found, what, paths)
    return inside


def _without_repeated(files: list[_File], level: int) -> list[_File]:
    """Take away a folder that holds all of a part and names it again, as some archives unpack: train/train/cats."""
    for part in {file.part for file in files}:
        while True:
            names = {file.folders[level] if len(file.folders) > level else "" for file in files if file.part == part}
            if len(names) > 1 or _said(min(names)).part != part:
                break
            files = [
                replace(file, folders=(*file.folders[:level], *file.folders[level + 1 :]))
                if file.part == part
                else file
                for file in files
            ]
    return files


def _say_outside(outside: Sequence[_File], found: Sorted, what: str, paths: Sequence[tuple[str, ...]]) -> None:
    if outside:
        names = ", ".join(paths[file.index][-1] for file in outside[:3]) + (", ..." if len(outside) > 3 else "")
        found.remarks.append(f"ignored {len(outside):,} {what} outside the parts ({names})")


def _somewhere(files: list[_File]) -> list[_File]:
    """Divide files by some folder named after a part, whatever its level; the test part goes first."""
    done = []
    for file in files:
        said = {level: _said(name) for level, name in enumerate(file.folders)}
        named = [level for level, name in said.items() if name.part and not name.rest]
        if not named:
            done.append(replace(file, part=POOL))
            continue
        level = max(named, key=lambda level: _ORDER[said[level].part])
        above = tuple(file.folders[each] for each in range(level) if said[each].rest)
        done.append(replace(file, part=said[level].part, folders=(*above, *file.folders[level + 1 :])))
    return done


def _again(files: list[_File]) -> list[_File]:
    """Divide the training part once more, where all of it lies in folders named after parts: training/train, /val."""
    train = [file for file in files if file.part == "train"]
    level = _level(train)
    if level is None or not all(len(file.folders) > level for file in train):
        return files
    said = {file.index: _said(file.folders[level]) for file in train}
    if not all(each.part and not each.rest for each in said.values()) or len({e.part for e in said.values()}) < 2:
        return files
    return [
        replace(file, part=said[file.index].part, folders=(*file.folders[:level], *file.folders[level + 1 :]))
        if file.index in said
        else file
        for file in files
    ]


def _unwrapped(files: list[_File]) -> tuple[list[_File], list[str]]:
    """Look through folders that hold everything; also return their names."""
    names = []
    while files and all(file.folders for file in files) and len({file.folders[0] for file in files}) == 1:
        names.append(files[0].folders[0])
        files = [replace(file, folders=file.folders[1:]) for file in files]
    return files, names


def _through_wrappers(files: list[_File]) -> list[_File]:
    return _unwrapped(files)[0]


def _level(files: Sequence[_File]) -> int | None:
    """Return the first level of folders that divides files into parts, counted from 0; None if none does."""
    for level in range(max((len(file.folders) for file in files), default=0)):
        names = [_said(name) for name in {file.folders[level] for file in files if len(file.folders) > level}]
        if _is_plain(names) and (len({name.part for name in names if name.part}) > 1 or _all_reach(files, level)):
            return level
        rests: dict[str, set[str]] = defaultdict(set)
        for name in names:
            if name.part:
                rests[name.part].add(name.rest)
        others = [part for part in rests if part != "train"]
        if "train" in rests and any(rests["train"] & rests[part] for part in others):
            return level
        if "train" in rests and others and all(name.part for name in names):
            return level
    return None


def _all_reach(files: Sequence[_File], level: int) -> bool:
    """Tell whether no folder beside those of a level ends above it: of bus and rail/train, bus does."""
    above = {file.folders[:depth] for file in files if len(file.folders) > level for depth in range(level + 1)}
    return all(len(file.folders) > level or file.folders in above for file in files)


def _plain_names(files: Sequence[_File], level: int) -> bool:
    return _is_plain([_said(name) for name in {file.folders[level] for file in files if len(file.folders) > level}])


def _is_plain(names: Sequence[_Name]) -> bool:
    """Tell whether folders are parts by names that say no more: train and another part are there, or nothing else."""
    plain = [name for name in names if name.part and not name.rest]
    parts = {name.part for name in plain}
    return "train" in parts and (len(parts) > 1 or len(plain) == len(names))


def _parted(
    files: list[_File],
    paths: Sequence[tuple[str, ...]],
    parts: Mapping[str, Sequence[str]],
    found: Sorted,
    what: str,
) -> list[_File]:
    """Give files the parts that are asked for; leave out the others."""
    _, wrapper = _unwrapped(files)
    chosen: dict[int, str] = {}
    cut: dict[int, int] = {}
    for part, places in parts.items():
        for place in places:
            words = tuple(word for word in place.replace("\\", "/").split("/") if word not in ("", "."))
            inside = [file for file in files if paths[file.index][: len(words)] == words]
            if not inside:  # below the folder that holds everything
                words = (*wrapper, *words)
                inside = [file for file in files if paths[file.index][: len(words)] == words]
            if not inside:
                folders = sorted({"/".join(file.folders[: len(wrapper) + 1]) for file in files if file.folders})
                listed = ", ".join(folders[:8]) or "none"
                raise UsageError(
                    f"parts has {part}={place}, where no {what} are (folders: {listed}); name another folder"
                )
            for file in inside:
                if chosen.get(file.index, part) != part:
                    raise UsageError(f"parts puts {'/'.join(paths[file.index])} into two; give each file one part")
                chosen[file.index], cut[file.index] = part, min(len(words), len(file.folders))
    outside = [file for file in files if file.index not in chosen]
    _say_outside(outside, found, what, paths)
    return [
        replace(file, part=chosen[file.index], folders=file.folders[cut[file.index] :])
        for file in files
        if file.index in chosen
    ]


def _without_image_words(files: list[_File]) -> list[_File]:
    """Take folders called `images` and the like away: below a class, and where they hold all of a part.

    One that stands beside others in some part is a class in all of them.
    """
    firsts: dict[str, set[str]] = defaultdict(set)
    for file in files:
        firsts[file.part].add(file.folders[0] if file.folders else "")
    classes = {name for names in firsts.values() if len(names - {""}) > 1 for name in names}
    alone = {part: len(names) == 1 and not names & classes for part, names in firsts.items()}
    done = []
    for file in files:
        kept = [
            name
            for level, name in enumerate(file.folders)
            if not ((level or alone[file.part]) and _said(name).words & _IMAGES and not _said(name).rest)
        ]
        done.append(replace(file, folders=tuple(kept)))
    return done


def _labels(members: Sequence[_File], found: Sorted) -> list[str] | None:
    if not all(file.folders and file.folders[0] for file in members):
        if any(file.folders for file in members):
            found.remarks.append("no labels, since some images lie outside the subfolders")
        return None
    labels = [file.folders[0] for file in members]
    if len(members) > 2 and len(set(labels)) == len(labels):
        found.remarks.append("no labels, since each subfolder holds one")
        return None
    return labels
