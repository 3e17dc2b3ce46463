"""Files of samples: pictures, arrays, folders of pictures, tables, lines of strings."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from itertools import chain, count
from pathlib import Path

import numpy as np
from torch import Tensor

from expost.errors import UsageError
from expost.examples import pictures
from expost.examples.figure_files import PICTURE_SUFFIXES
from expost.examples.figures import PLAIN, Look
from expost.examples.kind import Labels
from expost.utils.store import filling, leftovers, replacing, require_writable, write_text

LINE_SUFFIXES = (".txt", ".smi")
TEXT_SUFFIXES = (*LINE_SUFFIXES, ".csv")
VECTOR_SUFFIXES = (".csv", ".npy")
_NUMBERS_AT_ONCE = 65_536


def check_output(path: Path, suffixes: tuple[str, ...] = (*PICTURE_SUFFIXES, ".npy", "")) -> Path:
    """Refuse an output that could not be written, before the work is done."""
    if path.suffix.lower() not in suffixes:
        listed = ", ".join(suffix or "a folder" for suffix in suffixes)
        raise UsageError(f"cannot write this as '{path.name}'; give one of: {listed}")
    if path.suffix and path.is_dir():
        raise UsageError(f"{path} is a folder; give a file's name")
    if not path.suffix and path.is_dir() and set(path.iterdir()) - set(leftovers(path)):
        raise UsageError(f"folder {path} is not empty; choose another, so that old and new samples do not mix")
    if not path.suffix and path.is_file():
        raise UsageError(f"{path} is a file; give a folder, or a name ending in .png or .npy")
    require_writable(path)
    return path


def write_strings(strings: Sequence[str], path: Path) -> None:
    """Write strings, one a line."""
    write_text(path, "".join(f"{string}\n" for string in strings))


def label_column(columns: Sequence[str]) -> str:
    """Return what the column of labels is called beside others: label, or the next name that is free.

    Example:
        >>> label_column(["height"]), label_column(["label", "class"])
        ('label', 'label_1')
    """
    free = (name for name in chain(("label", "class"), (f"label_{n}" for n in count(1))) if name not in columns)
    return next(free)


def write_table(rows: Sequence[Sequence[str]], columns: Sequence[str], path: Path, labels: Labels = None) -> None:
    """Write text in columns as a CSV with a header, with the labels of the rows as its last column."""
    names = [*columns, *([] if labels is None else [label_column(columns)])]
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        ends = [[]] * len(rows) if labels is None else [[str(label)] for label in labels]
        writer.writerows([*row, *end] for row, end in zip(rows, ends, strict=True))


def write_vectors(vectors: Tensor, path: Path, columns: Sequence[str] = (), labels: Labels = None) -> None:
    """Write vectors (N, d) as an array, or as a CSV with a header: the names of the columns, or x0, x1, ...

    Args:
        vectors: The rows.
        path: FILE.csv or .npy.
        columns: Their names.
        labels: The label of each row, which a CSV gets as its last column.
    """
    if path.suffix.lower() == ".npy":
        write_examples(vectors, path)
        return
    names = list(columns) or [f"x{index}" for index in range(vectors.shape[1])]
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*names, *([] if labels is None else [label_column(names)])])
        rows, together = vectors.numpy(), max(1, _NUMBERS_AT_ONCE // max(1, len(names)))
        for first in range(0, len(rows), together):  # text takes 50 times the room of its numbers
            text = rows[first : first + together].astype(np.str_).tolist()  # no more digits than they need
            if labels is not None:
                text = [[*row, str(label)] for row, label in zip(text, labels[first : first + together], strict=True)]
            writer.writerows(text)


def write_examples(examples: Tensor, path: Path, look: Look = PLAIN) -> None:
    """Write examples (N, ...) as a grid, an array or a folder, as the path's suffix says.

    Raises:
        UsageError: for vectors that are to be pictures.
    """
    image = examples.dim() == 4
    if path.suffix.lower() == ".npy":
        array = (pictures.to_bytes(examples) if image else examples).numpy()
        with replacing(path) as temporary:
            np.save(temporary, array, allow_pickle=False)
        return
    if not image:
        raise UsageError(f"examples of shape {tuple(examples.shape[1:])} are no images; save them as .npy")
    if path.suffix:
        pictures.save_picture(pictures.figure(examples, look), path)
        return
    digits = max(5, len(str(len(examples) - 1)))
    with filling(path) as temporary:  # a folder that holds some of them would pass for whole
        for index, image_tensor in enumerate(examples):
            pictures.save_picture(pictures.to_pil(image_tensor), temporary / f"{index:0{digits}d}.png")
