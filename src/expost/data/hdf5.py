"""HDF5 files: arrays named as in an .npz, and the matrix of cells of AnnData (.h5ad). Needs the extra `hdf5`."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from expost.data.arrays import Vectors, named_arrays, rows_of
from expost.data.examples import FOUND_OUT, POOL, Array, Found, Overrules, Part
from expost.data.mapped import PIECE, scratch
from expost.data.packing import check_unpacked
from expost.data.table_cells import Cells, Field, Rows, reading
from expost.data.table_labels import labels_of_tables
from expost.errors import DataError, UsageError
from expost.utils.extras import require

#: Kinds of columns that are stored as a group.
_GROUPS = ("categorical", "nullable-string-array", "nullable-integer", "nullable-boolean")
#: Seconds that any file may take to be read.
_SECONDS = 5
_NULL = subprocess.DEVNULL
#: How much larger a sparse matrix may be than a dense one of as many bytes, before `check_unpacked`.
_SPARSE = 10


class _Values(Cells):
    """A column of numbers or text in memory."""

    def __init__(self, content: Array) -> None:
        self.content = content

    def missing(self) -> Array:
        empty = np.isnan(self.content) if self.content.dtype.kind == "f" else self.content == ""
        return np.flatnonzero(empty) if self.content.dtype.kind in "fU" else np.zeros(0, np.int64)

    def matrix(self, name: str) -> Array:
        return self.content.reshape(-1, 1).astype(np.float64)

    def values(self) -> Array:
        return self.content


def read_hdf5(_folder: Path, files: Sequence[Path], where: str, overrules: Overrules = FOUND_OUT) -> Found:
    """Read one HDF5 file: its arrays by their names, as those of an .npz, or the matrix `X` of AnnData.

    The matrix has a row a cell, dense or sparse (CSR or CSC); its entries are named by the index of `var`. A column of
    `obs` that is called like labels, or asked for, holds these.

    Raises:
        DataError: for several files, a damaged one, or one without numbers.
        UsageError: if h5py is not installed, or there is no such column.
    """
    h5py = require("h5py", "hdf5", f"reading {files[0]} needs h5py")
    if len(files) > 1:
        raise DataError(f"{where}: {len(files)} files; pass the path of one")
    path = files[0]
    _rehearse(path)
    try:
        with reading(path), h5py.File(path, "r") as file:
            if "X" in file and "obs" in file:
                return _cells(h5py, file, str(path), overrules)
            if overrules.label_column is not None:
                raise UsageError(f"label_column is {overrules.label_column!r}, but {path} has no obs; leave it out")
            arrays: dict[str, tuple[str, Array]] = {}
            file.visititems(lambda name, item: _collect(h5py, arrays, path, name, item))
    except (DataError, UsageError):
        raise
    except (KeyError, RuntimeError, ValueError) as error:
        raise DataError(f"{path} is damaged ({' '.join(str(error).split())[:200]}); restore it") from None
    if not arrays:
        raise DataError(f"{path} holds no arrays; give one with x, or AnnData")
    return named_arrays(arrays, where, overrules)


def _rehearse(path: Path) -> None:
    """Refuse a file that another process cannot read to its end: see `hdf5_rehearsal`.

    Raises:
        DataError: if it takes longer than five seconds and one for each megabyte, or the process dies of it.
    """
    if getattr(sys, "frozen", False):  # `sys.executable` is a program of its own then, and no Python
        return
    seconds = _SECONDS + path.stat().st_size // 2**20
    command = [sys.executable, "-P", str(Path(__file__).with_name("hdf5_rehearsal.py")), str(path), str(seconds)]
    try:
        # a busy machine may need ten times the seconds of the processor
        ended = subprocess.run(command, stdin=_NULL, stdout=_NULL, stderr=_NULL, timeout=10 * seconds, check=False)
    except subprocess.TimeoutExpired:
        code = -1
    except OSError:  # no process can be started here: nothing is known of the file
        return
    else:
        code = ended.returncode
    if code < 0:
        raise DataError(f"{path} is damaged: libhdf5 comes to no end with it within {seconds} s; restore it")


def _collect(h5py: Any, arrays: dict[str, tuple[str, Array]], path: Path, name: str, item: Any) -> None:
    if isinstance(item, h5py.Dataset) and item.dtype.kind in "buif" and item.ndim:
        key = name.replace("/", "_").lower()
        if key in arrays:
            raise DataError(f"{path}: two arrays named {key}; keep one")
        check_unpacked(f"{path}[{name}]", item.nbytes, path.stat().st_size)
        arrays[key] = (f"{path}[{name}]", item[()])


def _cells(h5py: Any, file: Any, name: str, overrules: Overrules) -> Found:
    matrix = file["X"]
    if isinstance(matrix, h5py.Dataset):
        check_unpacked(name, matrix.nbytes, Path(name).stat().st_size)
    rows = rows_of(matrix[()], name) if isinstance(matrix, h5py.Dataset) else _dense(matrix, name)
    columns = _strings(file["var"]) if "var" in file else ()
    count, width = rows.shape
    kinds = [key for key in file["obs"] if key not in ("__categories", file["obs"].attrs.get("_index"))]
    table = Rows(
        name,
        [Field(key, False) for key in kinds],
        count,
        lambda key: _Values(_column(file["obs"], key)),
        partial(iter, []),
    )
    labels = labels_of_tables({POOL: table}, overrules.label_column)
    y = labels.parts[POOL][1] if labels.parts else None
    left_out = [key for key in kinds if not labels.parts or key != labels.parts[POOL][0]]
    remarks = [
        f"{count:,} cells of {width:,} numbers, {'dense' if isinstance(matrix, h5py.Dataset) else 'sparse on disk'}"
    ]
    if left_out:
        more = f" and {len(left_out) - 8} more" if len(left_out) > 8 else ""
        remarks.append(f"left out of obs: {', '.join(left_out[:8])}{more} (--label-column takes one for labels)")
    parts = {POOL: Part(Vectors(rows, name), y)}
    return Found(parts, name, (*remarks, *labels.remarks), columns=columns if len(columns) == width else ())


def _dense(group: Any, name: str) -> Array:
    """Return a sparse matrix as float32 rows, a few at a time."""
    encoding = group.attrs.get("encoding-type", group.attrs.get("h5sparse_format", b""))
    encoding = encoding.decode() if isinstance(encoding, bytes) else str(encoding)
    shape = tuple(int(side) for side in group.attrs.get("shape", group.attrs.get("h5sparse_shape", ())))
    if len(shape) != 2 or not encoding.startswith("cs"):
        raise DataError(f"{name}: X is {encoding or 'of no known kind'}; store it dense, or as CSR")
    ends = group["indptr"][()]
    if ends.ndim != 1 or len(ends) != shape[0 if encoding.startswith("csr") else 1] + 1:
        raise DataError(f"{name}: X is of shape {shape}, but has {len(ends):,} ends of lines; restore it")
    check_unpacked(name, 4 * math.prod(shape), _SPARSE * Path(name).stat().st_size)
    rows = scratch(shape, np.float32)
    rows[:] = 0
    lines = len(ends) - 1
    at_once = max(1, int(PIECE / 12 / max(1.0, ends[-1] / max(1, lines))))
    for begin in range(0, lines, at_once):
        some = ends[begin : min(begin + at_once, lines) + 1]
        line = np.repeat(np.arange(begin, begin + len(some) - 1), np.diff(some))
        other, data = group["indices"][some[0] : some[-1]], group["data"][some[0] : some[-1]]
        if encoding.startswith("csr"):
            rows[line, other] = data
        else:
            rows[other, line] = data
    return rows_of(rows, name)


def _strings(frame: Any) -> tuple[str, ...]:
    """Return the index of a table of AnnData."""
    key = frame.attrs.get("_index", "_index")
    return tuple(_column(frame, key).astype(np.str_).tolist()) if key in frame else ()


def _column(frame: Any, key: str) -> Array:
    """Return a column of a table of AnnData, categories by their names; a missing text is empty."""
    item = frame[key]
    if item.attrs.get("encoding-type", "array") in _GROUPS:  # a group: of categories, or of values that may lack
        if "categories" in item:
            names = np.append(_text(item["categories"][()]), "")
            return names[item["codes"][()]]
        values = item["values"][()]
        content = _text(values) if values.dtype.kind in "OS" else values.astype(np.float64)
        content[item["mask"][()].astype(bool)] = "" if content.dtype.kind == "U" else np.nan
        return content
    content = item[()]
    return _text(content) if content.dtype.kind in "OS" else np.asarray(content)


def _text(content: Array) -> Array:
    return np.array([each.decode() if isinstance(each, bytes) else str(each) for each in content.tolist()], np.str_)
