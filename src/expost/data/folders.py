"""What the folders of a data set's files mean: parts, classes, wrappers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from expost.data.examples import POOL
from expost.data.folder_names import (
    IMAGES,
    FolderName,
    ListedFile,
    is_piece,
    read_name,
)
from expost.data.side_folders import without_side
from expost.errors import UsageError

_MOST = 0.75  # of the files: so many must name a part for the others to be strays
_ORDER = {"train": 0, "validation": 1, "test": 2, POOL: 3}


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
    files = [ListedFile(index, path[:-1], path[-1].rpartition(".")[0] or path[-1]) for index, path in enumerate(paths)]
    if parts:
        files = without_side(_parted(files, paths, parts, found, what), found.remarks, what)
    else:
        files = _divided(without_side(files, found.remarks, what), found, what, paths)
    files = _through_wrappers(_without_image_words(files))
    for part in sorted({file.part for file in files}, key=_ORDER.__getitem__):
        members = [file for file in files if file.part == part]
        found.parts[part] = [file.index for file in members]
        found.labels[part] = _labels(members, found, what)
    found.remarks = list(dict.fromkeys(found.remarks))
    return found


def _divided(files: list[ListedFile], found: Sorted, what: str, paths: Sequence[tuple[str, ...]]) -> list[ListedFile]:
    """Give files their parts, and take the folders that say so away; leave out those outside the parts."""
    files, wrapper = _unwrapped(files)
    level = _level(files)
    if level is None:
        for divided in ([replace(file, part=read_name(file.stem).part or POOL) for file in files], _somewhere(files)):
            named = [file for file in divided if file.part != POOL]
            parts = {file.part for file in named}
            if "train" in parts and len(parts) > 1 and len(named) >= _MOST * len(files):
                _say_outside([file for file in divided if file.part == POOL], found, what, paths)
                return named
        part = next((said.part for said in map(read_name, reversed(wrapper)) if said.part and not said.rest), "")
        return [replace(file, part=part if part not in ("", "train") else POOL) for file in files]
    whole = _plain_names(files, level)
    inside: list[ListedFile] = []
    outside: list[ListedFile] = []
    for file in files:
        said = read_name(file.folders[level]) if len(file.folders) > level else FolderName("", "", frozenset())
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


def _without_repeated(files: list[ListedFile], level: int) -> list[ListedFile]:
    """Take away a folder that holds all of a part and names it again, as some archives unpack: train/train/cats."""
    for part in {file.part for file in files}:
        while True:
            names = {file.folders[level] if len(file.folders) > level else "" for file in files if file.part == part}
            if len(names) > 1 or read_name(min(names)).part != part:
                break
            files = [
                replace(file, folders=(*file.folders[:level], *file.folders[level + 1 :]))
                if file.part == part
                else file
                for file in files
            ]
    return files


def _say_outside(outside: Sequence[ListedFile], found: Sorted, what: str, paths: Sequence[tuple[str, ...]]) -> None:
    if outside:
        names = ", ".join(paths[file.index][-1] for file in outside[:3]) + (", ..." if len(outside) > 3 else "")
        found.remarks.append(f"ignored {len(outside):,} {what} outside the parts ({names})")


def _somewhere(files: list[ListedFile]) -> list[ListedFile]:
    """Divide files by some folder named after a part, whatever its level; the test part goes first."""
    done = []
    for file in files:
        said = {level: read_name(name) for level, name in enumerate(file.folders)}
        named = [level for level, name in said.items() if name.part and not name.rest]
        if not named:
            done.append(replace(file, part=POOL))
            continue
        level = max(named, key=lambda level: _ORDER[said[level].part])
        above = tuple(file.folders[each] for each in range(level) if said[each].rest)
        done.append(replace(file, part=said[level].part, folders=(*above, *file.folders[level + 1 :])))
    return done


def _again(files: list[ListedFile]) -> list[ListedFile]:
    """Divide the training part once more, where all of it lies in folders named after parts: training/train, /val."""
    train = [file for file in files if file.part == "train"]
    level = _level(train)
    if level is None or not all(len(file.folders) > level for file in train):
        return files
    said = {file.index: read_name(file.folders[level]) for file in train}
    if not all(each.part and not each.rest for each in said.values()) or len({e.part for e in said.values()}) < 2:
        return files
    return [
        replace(file, part=said[file.index].part, folders=(*file.folders[:level], *file.folders[level + 1 :]))
        if file.index in said
        else file
        for file in files
    ]


def _unwrapped(files: list[ListedFile]) -> tuple[list[ListedFile], list[str]]:
    """Look through folders that hold everything; also return their names."""
    names = []
    while files and all(file.folders for file in files) and len({file.folders[0] for file in files}) == 1:
        names.append(files[0].folders[0])
        files = [replace(file, folders=file.folders[1:]) for file in files]
    return files, names


def _through_wrappers(files: list[ListedFile]) -> list[ListedFile]:
    return _unwrapped(files)[0]


def _level(files: Sequence[ListedFile]) -> int | None:
    """Return the first level of folders that divides files into parts, counted from 0; None if none does."""
    for level in range(max((len(file.folders) for file in files), default=0)):
        names = [read_name(name) for name in {file.folders[level] for file in files if len(file.folders) > level}]
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


def _all_reach(files: Sequence[ListedFile], level: int) -> bool:
    """Tell whether no folder beside those of a level ends above it: of bus and rail/train, bus does."""
    above = {file.folders[:depth] for file in files if len(file.folders) > level for depth in range(level + 1)}
    return all(len(file.folders) > level or file.folders in above for file in files)


def _plain_names(files: Sequence[ListedFile], level: int) -> bool:
    return _is_plain([read_name(name) for name in {file.folders[level] for file in files if len(file.folders) > level}])


def _is_plain(names: Sequence[FolderName]) -> bool:
    """Tell whether folders are parts by names that say no more: train and another part are there, or nothing else."""
    plain = [name for name in names if name.part and not name.rest]
    parts = {name.part for name in plain}
    return "train" in parts and (len(parts) > 1 or len(plain) == len(names))


def _parted(
    files: list[ListedFile],
    paths: Sequence[tuple[str, ...]],
    parts: Mapping[str, Sequence[str]],
    found: Sorted,
    what: str,
) -> list[ListedFile]:
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


def _without_image_words(files: list[ListedFile]) -> list[ListedFile]:
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
            if not ((level or alone[file.part]) and read_name(name).words & IMAGES and not read_name(name).rest)
        ]
        done.append(replace(file, folders=tuple(kept)))
    return done


def _labels(members: Sequence[ListedFile], found: Sorted, what: str) -> list[str] | None:
    if not all(file.folders and file.folders[0] for file in members):
        if any(file.folders for file in members):
            found.remarks.append(f"no labels, since some {what} lie outside the subfolders")
        return None
    labels = [file.folders[0] for file in members]
    if len(names := sorted(set(labels))) > 1 and all(map(is_piece, names)):
        found.remarks.append(f"no labels, since the subfolders count pieces ({', '.join(names[:3])})")
        return None
    if len(members) > 2 and len(set(labels)) == len(labels):
        found.remarks.append("no labels, since each subfolder holds one")
        return None
    return labels
