"""Files of samples: pictures, arrays, folders of pictures, tables, lines of strings."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from expost.errors import UsageError
from expost.examples import pictures
from expost.utils.store import replacing, write_text

TEXT_SUFFIXES = (".txt", ".smi")
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
VECTOR_SUFFIXES = (".csv", ".npy")
_NUMBERS_AT_ONCE = 65_536


def check_output(path: Path, suffixes: tuple[str, ...] = (*PICTURE_SUFFIXES, ".npy", "")) -> Path:
    """Refuse an output that could not be written, before the work is done."""
    if path.suffix.lower() not in suffixes:
        listed = ", ".join(suffix or "a folder" for suffix in suffixes)
        raise UsageError(f"cannot write this as '{path.name}'; give one of: {listed}")
    if path.suffix and path.is_dir():
        raise UsageError(f"{path} is a folder; give a file's name")
    if not path.suffix and path.is_dir() and any(path.iterdir()):
        raise UsageError(f"folder {path} is not empty; choose another, so that old and new samples do not mix")
    if not path.suffix and path.is_file():
        raise UsageError(f"{path} is a file; give a folder, or a name ending in .png or .npy")
    return path


def write_strings(strings: Sequence[str | None], path: Path) -> int:
    """Write strings, one a line, without the Nones; return how many were left out."""
    kept = [string for string in strings if string is not None]
    write_text(path, "".join(f"{string}\n" for string in kept))
    return len(strings) - len(kept)


def write_vectors(vectors: Tensor, path: Path, columns: Sequence[str] = ()) -> None:
    """Write vectors (N, d) as an array, or as a CSV with a header: the names of the columns, or x0, x1, ..."""
    if path.suffix.lower() == ".npy":
        write_examples(vectors, path)
        return
    names = list(columns) or [f"x{index}" for index in range(vectors.shape[1])]
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        rows, together = vectors.numpy(), max(1, _NUMBERS_AT_ONCE // max(1, len(names)))
        for first in range(0, len(rows), together):  # text takes 50 times the room of its numbers
            writer.writerows(rows[first : first + together].astype(np.str_).tolist())  # no more digits than they need


def write_examples(examples: Tensor, path: Path) -> None:
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
        pictures.save_picture(pictures.grid(examples), path)
        return
    digits = max(5, len(str(len(examples) - 1)))
    for index, image_tensor in enumerate(examples):
        pictures.save_picture(pictures.to_pil(image_tensor), path / f"{index:0{digits}d}.png")
