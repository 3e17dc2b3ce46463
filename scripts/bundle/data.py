"""Write data sets in a form that needs no pyarrow: arrays, packed images, files of strings."""

from __future__ import annotations

import gzip
import hashlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from bundle.wheels import BundleError
from expost.data import DATASETS
from expost.data.examples import POOL, Part, Preprocess
from expost.data.images import EncodedImages
from expost.data.named_strings import STRING_DATASETS

#: Largest file of packed images in bytes: six of them fit into a part of 60 MB.
SHARD = 9_800_000


def pack(name: str, folder: Path) -> dict[str, Any] | None:
    """Write a data set by its name, with its own splits and order, to files in a folder.

    Encoded images (JPEG, PNG, WebP) are packed unchanged, the smallest form; `install.py` decodes them.

    Returns:
        A description for `install.py`; None for a set that is installed with expost.

    Raises:
        BundleError: for an unknown name, or a set that is not on this machine.
    """
    if name not in DATASETS and name not in STRING_DATASETS:
        raise BundleError(f"unknown data set '{name}'; choose one of: {', '.join((*DATASETS, *STRING_DATASETS))}")
    origin = DATASETS[name].origin if name in DATASETS else STRING_DATASETS[name].origin
    if origin.kind == "built in":
        return None
    place = origin.find(name)
    if place is None:
        raise BundleError(f"{name} is not on this machine; put its files into EXPOST_DATA/{name}")
    folder.mkdir(parents=True)
    if name in STRING_DATASETS:
        _copy_strings(Path(place), folder)
        return {"form": "files"}
    parts = origin.read(name).parts
    if any(isinstance(part.examples, EncodedImages) for part in parts.values()):
        return {"form": "packed", "parts": {key: _pack_images(part, key, folder) for key, part in parts.items()}}
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    for key, part in parts.items():
        x = part.examples.load(np.arange(len(part)), Preprocess())
        arrays |= {entry("x", key): x} | ({} if part.labels is None else {entry("y", key): part.labels})
    np.savez_compressed(folder / f"{name}.npz", **arrays)
    return {"form": "files"}


def entry(kind: str, part: str) -> str:
    """Return the name of a part's array in the file.

    Example:
        >>> entry("x", "train"), entry("y", POOL)
        ('x_train', 'y')
    """
    return kind if part == POOL else f"{kind}_{part}"


def _pack_images(part: Part, key: str, folder: Path) -> dict[str, Any]:
    """Write the encoded images of a part; return their number and what they decode to."""
    assert isinstance(part.examples, EncodedImages)
    order = np.arange(len(part))
    shard: list[bytes] = []
    begin = number = 0

    def write() -> None:
        nonlocal shard, begin, number
        lengths = np.array([len(each) for each in shard])
        labels = {} if part.labels is None else {"labels": part.labels[begin : begin + len(shard)]}
        path = folder / f"{key}-{number:03}.npz"
        np.savez(path, encoded=np.frombuffer(b"".join(shard), np.uint8), lengths=lengths, **labels)
        begin, number, shard = begin + len(shard), number + 1, []

    size = 0
    for _, source in part.examples.source.encoded(order):
        image = source if isinstance(source, bytes) else source.read_bytes()
        if shard and size + len(image) > SHARD:
            write()
            size = 0
        shard.append(image)
        size += len(image)
    write()
    pixels = part.examples.load(order, Preprocess())
    return {"count": len(part), "sha256": hashlib.sha256(pixels.tobytes()).hexdigest(), "shards": number}


def _copy_strings(place: Path, folder: Path) -> None:
    """Copy the files of a set of strings, compressed."""
    for path in [place] if place.is_file() else sorted(each for each in place.iterdir() if each.is_file()):
        if path.suffix == ".gz":
            shutil.copyfile(path, folder / path.name)
            continue
        (folder / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes(), mtime=0))
