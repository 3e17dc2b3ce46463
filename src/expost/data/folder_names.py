"""What the name of a folder, or of a file, says of the files in it: a part, a class, images, masks."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from expost.data.examples import POOL
from expost.data.splits import PART_WORDS, words_of

_FILLERS = frozenset({"set", "sets", "data", "dataset", "split", "splits", "folder", "files", "all", "part", "the"})
IMAGES = frozenset(
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
SURE_MASKS = frozenset(
    {
        "annotation", "annotations", "annot", "segmentation", "segmentations", "groundtruth", "trimap", "trimaps",
        "segmentationclass", "segmentationobject",
    }
)  # fmt: skip
_PIECES = frozenset({"fold", "batch", "chunk", "shard", "part", "piece", "subset", "split", "data", "dataset"})


@dataclass(frozen=True)
class FolderName:
    """What a folder's name says.

    Attributes:
        part: The part that a word of it stands for; empty if none does, or several do.
        rest: Its words that are no part, no number and say nothing like "set" or "images", joined.
        words: The words beside the part and numbers.
    """

    part: str
    rest: str
    words: frozenset[str]


def read_name(name: str) -> FolderName:
    """Return what a name says."""
    words = [word for word in words_of(name) if not word.isdigit()]
    parts = {PART_WORDS[word] for word in words if word in PART_WORDS}
    if parts == {"train", "validation"}:  # train_val: what both are chosen from
        parts = {"train"}
    others = [word for word in words if word not in PART_WORDS]
    rest = "_".join(word for word in others if word not in _FILLERS and word not in IMAGES)
    return FolderName(parts.pop() if len(parts) == 1 else "", rest, frozenset(others))


@dataclass(frozen=True)
class ListedFile:
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


def own_words(names: Iterable[str]) -> dict[str, str]:
    """Return names without the words that all of them have, those of parts aside: `Input` and `Masks` of ISIC_*."""
    words = {name: name_words(name) for name in names}
    shared = set.intersection(*map(set, words.values())) - set(PART_WORDS) if len(words) > 1 else set()
    own = {name: "_".join(word for word in each if word not in shared) for name, each in words.items()}
    return {name: bare if shared and bare else name for name, bare in own.items()}


def is_mask(name: str) -> bool:
    """Tell whether a folder is called as those of masks or labels are."""
    words = [word for word in name_words(name) if not word.isdigit() and word not in PART_WORDS]
    words = [word for word in words if word not in _FILLERS and word not in IMAGES]
    return bool(words) and (_MASKS.issuperset(words) or "".join(words) in _MASKS)


def name_words(name: str) -> list[str]:
    """Return the words of a name, with "ground truth" as one: each of the two alone may be a class."""
    return "_".join(words_of(name)).replace("ground_truth", "groundtruth").split("_")


def holds_images(name: str, mask: str) -> bool:
    """Tell whether a folder is that of the images that masks are of: `images`, or the part without the masks."""
    said = read_name(name)
    return not said.rest and (bool(said.words & IMAGES) or (said.part != "" and said.part == read_name(mask).part))


def are_counters(stems: set[str]) -> bool:
    """Tell whether names differ in nothing but a number that runs on from 0 or 1, a few left out."""
    found = [re.fullmatch(r"(\D*)([0-9]+)", stem) for stem in stems]
    numbers = [int(match[2]) for match in found if match]
    alike = len({match[1] for match in found if match}) == 1 and len(numbers) == len(stems)
    return alike and max(numbers) <= 2 * len(numbers)


def is_piece(name: str) -> bool:
    """Tell whether a folder is called as one of several pieces that hold the same: by a number and such a word.

    Example:
        >>> is_piece("fold_0"), is_piece("data_batch_1"), is_piece("cat1"), is_piece("3")
        (True, True, False, False)
    """
    words = words_of(name)
    said = {word for word in words if not word.isdigit()} - IMAGES
    return bool(said) and said <= _PIECES and any(word.isdigit() for word in words)


def bare_stem(stem: str) -> str:
    """Return the name of a file without words for masks and images, by which a mask finds its image."""
    return "_".join(word for word in name_words(stem) if word not in _MASKS and word not in IMAGES)
