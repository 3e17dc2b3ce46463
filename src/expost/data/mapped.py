"""Arrays too large for memory: memory-mapped files, whose pages the system loads and drops as needed.

A mapping of a file takes no memory of the process's own: what is read stays in the system's page cache for as long as
nobody needs the room. Mappings are shared and, once written, read-only; private ones would count as the process's own.
"""

from __future__ import annotations

import errno
import mmap
import os
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from expost.data.examples import Array, Indices, in_memory
from expost.errors import DataError, UsageError
from expost.utils.downloads import cache_folder

if TYPE_CHECKING:
    from torch import Tensor

VARIABLE = "EXPOST_MEMORY"
"""The environment variable that says how large a data set may be to be kept in memory: bytes, or 512M, 1.5G."""

DEFAULT_LIMIT = 2**29
"""The default: 512 MiB."""

PIECE = 2**25
"""Bytes that are read, converted or compared at once: 32 MiB."""

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def memory_limit() -> int:
    """Return how many bytes of examples are kept in memory; data sets with more are mapped from files.

    Raises:
        UsageError: if `$EXPOST_MEMORY` is no number of bytes.
    """
    text = os.environ.get(VARIABLE, "").strip()
    if not text:
        return DEFAULT_LIMIT
    plain = text.upper().removesuffix("B").removesuffix("I")
    unit = plain[-1:] if plain[-1:] in _UNITS else ""
    try:
        size = float(plain.removesuffix(unit)) * _UNITS[unit]
        return int(size) if size >= 0 else int("negative")
    except (ValueError, OverflowError):
        raise UsageError(f"{VARIABLE} is {text!r}; give a number of bytes, as 512M or 1.5G") from None


def scratch(shape: tuple[int, ...], kind: type[np.generic]) -> Array:
    """Make an array in memory or, if larger than `memory_limit`, in a file that is deleted with it; a `New`.

    Raises:
        DataError: if there is no room on disk.
    """
    if _bytes(shape, kind) <= memory_limit():
        return in_memory(shape, kind)
    folder = prepared_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=folder, prefix=".scratch.")
        os.close(handle)
        try:
            return new_file(Path(name), shape, kind)
        finally:
            os.unlink(name)  # the mapping keeps the contents until it is gone itself
    except OSError as error:
        raise no_room(folder, _bytes(shape, kind), error) from None


def new_file(path: Path, shape: tuple[int, ...], kind: type[np.generic]) -> Array:
    """Make a .npy file of zeros and map it, to be written to.

    Its blocks are reserved: on a full disk a write into a mapping would end the process, without an error to catch.

    Raises:
        OSError: if there is no room.
    """
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": np.dtype(kind).str, "fortran_order": False, "shape": shape}
        )
        offset = file.tell()
        size = offset + _bytes(shape, kind)
        file.truncate(size)
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except AttributeError:  # macOS has no such call
            pass
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # which some file systems answer
                raise
    return np.memmap(path, dtype=kind, mode="r+", offset=offset, shape=shape)


def open_file(path: Path) -> Array:
    """Map a .npy file, to be read.

    Raises:
        OSError, ValueError: if it is missing, truncated, no .npy file, or holds Python objects.
    """
    return np.load(path, mmap_mode="r", allow_pickle=False)


def is_mapped(array: Any) -> bool:
    """Tell whether an array is a view of a mapped file.

    Example:
        >>> is_mapped(np.zeros(3))
        False
    """
    while isinstance(array, np.ndarray):
        array = array.base
    return isinstance(array, mmap.mmap)


def as_they_lie(indices: Indices, rows: Array) -> bool:
    """Tell whether all rows of a mapped file are asked for in their order, so that no copy is needed."""
    in_order = len(indices) == len(rows) and bool((indices == np.arange(len(rows))).all())
    return in_order and is_mapped(rows) and rows.flags.c_contiguous and rows.flags.aligned


def gather(rows: Array, indices: Indices) -> Array:
    """Return some rows; those of a mapped file are read in the order in which they lie there."""
    if not is_mapped(rows):
        return rows[indices]
    order = np.argsort(indices, kind="stable")
    found = np.empty((len(indices), *rows.shape[1:]), rows.dtype)
    found[order] = rows[indices[order]]
    return found


def as_tensor(array: Array) -> Tensor:
    """Return a tensor that shares an array's memory; one of a read-only mapping must not be written to."""
    import torch  # here, since listing the data sets needs none of it

    if array.flags.writeable:
        return torch.from_numpy(array)
    if not is_mapped(array):
        return torch.from_numpy(array.copy())
    with warnings.catch_warnings():
        # torch has no read-only tensors, and says so; `Split.x` says it to those who get one
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable", category=UserWarning)
        return torch.from_numpy(array)


def pieces(count: int, row_bytes: int, budget: int = PIECE) -> Iterator[slice]:
    """Yield slices that cover 0..count, of rows that take at most `budget` bytes together, and at least one row.

    Example:
        >>> list(pieces(5, row_bytes=10, budget=25))
        [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    rows = max(1, budget // max(1, row_bytes))
    for start in range(0, count, rows):
        yield slice(start, min(start + rows, count))


def row_bytes(array: Array) -> int:
    """Return the bytes of one row of an array with at least one axis."""
    return int(array.itemsize * np.prod(array.shape[1:], dtype=np.int64))


def prepared_folder() -> Path:
    """Return the folder of mapped files: `$XDG_CACHE_HOME/expost/prepared`, by default under `~/.cache`."""
    return cache_folder() / "prepared"


def no_room(folder: Path, size: int, error: OSError) -> DataError:
    """Return the error to raise when mapped files cannot be written."""
    return DataError(
        f"cannot keep {size / 1e9:.2g} GB of examples in {folder}: {error.strerror or error}; free space, or set "
        f"XDG_CACHE_HOME to a folder with more, or {VARIABLE} to more than that to load them into memory"
    )


def _bytes(shape: tuple[int, ...], kind: type[np.generic]) -> int:
    return int(np.prod(shape, dtype=np.int64)) * np.dtype(kind).itemsize
