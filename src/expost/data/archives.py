"""Arrays in .npz archives without loading them: mapped if stored uncompressed, else unpacked to disk."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from expost.data.examples import Array
from expost.data.mapped import PIECE, scratch

_LOCAL_HEADER = 30
"""Bytes of an entry's local header before its name (PKWARE's APPNOTE, section 4.3.7)."""


def unpacked_size(path: Path) -> int:
    """Return the unpacked size of a .npz in bytes; for other or damaged files, the size of the file."""
    try:
        with zipfile.ZipFile(path) as archive:
            return sum(entry.file_size for entry in archive.infolist())
    except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError, EOFError):
        return path.stat().st_size if path.exists() else 0


def map_archive(path: Path) -> Mapping[str, Array]:
    """Map every array of a .npz by name. Checksums are verified, as loading does; nothing is unpickled.

    Raises:
        ValueError, EOFError, zipfile.BadZipFile, OSError: if it is damaged, or holds Python objects.
        DataError: if there is no room on disk for compressed entries.
    """
    with zipfile.ZipFile(path) as archive:
        return {entry.filename.removesuffix(".npy"): _map(archive, entry, path) for entry in archive.infolist()}


def _map(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path) -> Array:
    with archive.open(entry) as file:
        shape, fortran, kind = _header(file)
        if kind.hasobject:
            raise ValueError("Python objects in an array")
        skipped = file.tell()
        size = kind.itemsize * int(np.prod(shape, dtype=np.int64))
        if size != entry.file_size - skipped:
            raise ValueError(f"entry {entry.filename} has {entry.file_size - skipped} bytes of {size}")
        if entry.compress_type == zipfile.ZIP_STORED and size:
            while file.read(PIECE):  # the checksum is compared at the end
                pass
            offset = _begin(path, entry) + skipped
            return np.memmap(path, kind, "r", offset, shape, "F" if fortran else "C")
        flat = scratch((size,), np.uint8)
        for start in range(0, size, PIECE):
            part = file.read(min(PIECE, size - start))
            flat[start : start + len(part)] = np.frombuffer(part, np.uint8)
        file.read(1)  # reads the end, and with it the checksum
    array = flat.view(kind)
    return array.reshape(shape[::-1]).T if fortran else array.reshape(shape)


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(file)
    raise ValueError(f"format {version} of arrays, which holds no plain numbers")


def _begin(path: Path, entry: zipfile.ZipInfo) -> int:
    """Return the offset of an entry's contents; only the local header has the lengths of the fields before them."""
    with path.open("rb") as file:
        file.seek(entry.header_offset + 26)
        lengths = np.frombuffer(file.read(4), "<u2")
    return entry.header_offset + _LOCAL_HEADER + int(lengths.sum())
