"""Arrays in .npz archives: in memory, or mapped if stored uncompressed, else unpacked to disk."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from expost.data.examples import Array
from expost.data.mapped import PIECE, open_file, scratch
from expost.data.packing import check_unpacked
from expost.errors import DataError

_MAGIC = b"\x93NUMPY"
_LOCAL_HEADER = 30
"""Bytes of an entry's local header before its name (PKWARE's APPNOTE, section 4.3.7)."""


def unpacked_size(path: Path) -> int:
    """Return the unpacked size of a .npz in bytes; for other or damaged files, the size of the file."""
    try:
        with zipfile.ZipFile(path) as archive:
            return sum(entry.file_size for entry in archive.infolist())
    except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError, EOFError):
        return path.stat().st_size if path.exists() else 0


def read_array(path: Path, mapped: bool) -> Array:
    """Read or map the array of a .npy, after comparing the size that it states with the file's.

    Raises:
        ValueError, EOFError, OSError: if it is damaged, or holds Python objects.
    """
    with path.open("rb") as file:
        shape, _, kind = _header(file)
        size, found = kind.itemsize * math.prod(shape), path.stat().st_size - file.tell()
        if kind.hasobject:
            raise ValueError("Python objects in an array")
        if size > found:
            raise EOFError(f"{found} bytes of {size}")
    return open_file(path) if mapped else np.asarray(np.load(path, allow_pickle=False))


def read_archive(path: Path, mapped: bool) -> Mapping[str, Array]:
    """Read or map every array of a .npz by name. Checksums are verified; nothing is unpickled.

    Raises:
        ValueError, EOFError, zipfile.BadZipFile, OSError: if it is damaged, or holds Python objects.
        DataError: if an entry is no array, two have one name, it unpacks to too much, or there is no room on disk.
    """
    arrays: dict[str, Array] = {}
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        packed = sum(entry.compress_size for entry in entries)
        check_unpacked(path, sum(entry.file_size for entry in entries), min(packed, path.stat().st_size))
        for entry in entries:
            name = entry.filename.removesuffix(".npy")
            if name in arrays:
                raise DataError(f"{path} has two entries named {name[:60]!r}; keep one")
            arrays[name] = _read(archive, entry, path, mapped)
    return arrays


def _read(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path, mapped: bool) -> Array:
    with archive.open(entry) as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise DataError(f"{path} has an entry {entry.filename[:60]!r} that is no array; save it without, as .npz")
        file.seek(0)
        shape, fortran, kind = _header(file)
        if kind.hasobject:
            raise ValueError("Python objects in an array")
        skipped = file.tell()
        size = kind.itemsize * math.prod(shape)
        if size != entry.file_size - skipped:
            raise ValueError(f"entry {entry.filename} has {entry.file_size - skipped} bytes of {size}")
        if mapped and entry.compress_type == zipfile.ZIP_STORED and size:
            while file.read(PIECE):  # the checksum is compared at the end
                pass
            offset = _begin(path, entry) + skipped
            return np.memmap(path, kind, "r", offset, shape, "F" if fortran else "C")
        flat = scratch((size,), np.uint8) if mapped else np.empty(size, np.uint8)
        start = 0
        while start < size and (part := file.read(min(PIECE, size - start))):
            flat[start : start + len(part)] = np.frombuffer(part, np.uint8)
            start += len(part)
        file.read(1)  # reads the end, and with it the checksum
        if start < size:
            raise EOFError(f"entry {entry.filename} ends after {start} bytes of {size}")
    array = flat.view(kind) if size else np.zeros(math.prod(shape), kind)
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
