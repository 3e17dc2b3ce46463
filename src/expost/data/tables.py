"""Tables on disk: parquet with an image column or numeric columns, and CSV with numeric columns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from expost.data.arrays import Vectors, labels_of, rows_of
from expost.data.examples import POOL, Array, Found, Indices, Part
from expost.data.mapped import scratch
from expost.data.splits import part_named
from expost.errors import DataError
from expost.utils.extras import require

LABEL_COLUMNS = ("label", "labels", "target", "class", "species", "y")
_INDEX_COLUMNS = ("", "__index_level_0__", "unnamed: 0", "index")

#: What reads the files of one part: the examples, the columns that were of no use, the names of a vector's entries.
Reader = Callable[[Sequence[Path]], tuple[Part, list[str], tuple[str, ...]]]


class Cells(ABC):
    """A column of a table, or a piece of one."""

    @abstractmethod
    def missing(self) -> Indices:
        """Return the rows that have no value."""

    @abstractmethod
    def matrix(self, name: str) -> Array:
        """Return the numbers as float64, shape (N, d); `name` is what errors call the column."""

    @abstractmethod
    def values(self) -> Array:
        """Return the values of a column of numbers or text."""


@dataclass(frozen=True)
class Field:
    """What a column is.

    Attributes:
        name: Its name.
        numeric: Whether it holds numbers, or lists of them.
    """

    name: str
    numeric: bool


@dataclass(frozen=True)
class Piece:
    """Some rows of a table.

    Attributes:
        count: How many rows.
        cells: Its columns.
    """

    count: int
    cells: Sequence[Cells]


@dataclass(frozen=True)
class Rows:
    """A table, read in pieces.

    Attributes:
        fields: Of its columns.
        count: How many rows.
        column: Reads the whole of one column, by name.
        pieces: Reads all columns, a few rows at a time.
    """

    fields: Sequence[Field]
    count: int
    column: Callable[[str], Cells]
    pieces: Callable[[], Iterator[Piece]]


def read_tables(folder: Path, files: Sequence[Path], where: str) -> Found:
    """Read parquet or CSV files, whose names (or folders) may say which part they are: `train-00000-of-00003.parquet`.

    A column of images (bytes, or records with a field `bytes`) makes an image data set; otherwise all numeric columns
    make vectors, lists of numbers being spread out. A column called label, target, class, species or y gives the
    labels, unless it holds fractions, or is the y beside an x.

    Raises:
        DataError: if a file is damaged, the files do not fit together, a value is missing, or there is nothing to use.
    """
    grouped: dict[str, list[Path]] = {}
    for path in files:
        name = part_named(path.stem) or part_named(" ".join(path.relative_to(folder).parts[:-1]))
        grouped.setdefault(POOL if name is None or len(files) == 1 else name, []).append(path)
    remarks = []
    if len(grouped) > 1 and POOL in grouped:
        others = grouped.pop(POOL)
        remarks.append(f"ignored {len(others)} files that name no part ({others[0].name})")
    parts = {}
    ignored: set[str] = set()
    named: list[tuple[str, ...]] = []
    for part, paths in grouped.items():
        try:
            parts[part], unused, own = _reader(paths)(paths)
            named.append(own)
        except MemoryError:
            raise DataError(
                f"{paths[0]} does not fit in memory; convert it to .npy or parquet, which are read in pieces"
            ) from None
        except OSError as error:
            reason = " ".join(str(error.strerror or error).split())[:200]
            raise DataError(f"cannot read {paths[0]}: {reason}; restore it") from None
        except UnicodeDecodeError:
            raise DataError(f"cannot read {paths[0]}: its text is not UTF-8; save it in that encoding") from None
        ignored |= set(unused)
    if ignored:
        count = "1 column" if len(ignored) == 1 else f"{len(ignored)} columns"
        remarks.append(f"ignored {count} without numbers ({', '.join(sorted(ignored)[:3])})")
    columns = named[0] if len(set(named)) == 1 else ()  # not where the parts differ
    return Found(parts, where, tuple(remarks), columns=columns)


def _reader(paths: Sequence[Path]) -> Reader:
    if any(path.suffix.lower() != ".parquet" for path in paths):
        from expost.data.csv_tables import read_csv

        return read_csv
    require("pyarrow", "hub", f"reading {paths[0]} needs PyArrow")
    from expost.data.parquet import read_parquet

    return read_parquet


def vectors(table: Rows, name: str) -> tuple[Part, list[str], tuple[str, ...]]:
    """Make vectors of a table's numbers.

    Returns:
        The examples, the columns that were of no use, and the names of a vector's entries.

    Raises:
        DataError: if there are none, or a value is missing.
    """
    titles = [field.name for field in table.fields]
    labels = label_column(titles)
    if labels is not None:
        is_coordinate = labels.lower() == "y" and "x" in titles
        if is_coordinate or not _is_classes(table.column(labels)):
            labels = None  # a measured quantity: one more number of the vector
    used, unused = [], []
    for index, field in enumerate(table.fields):
        if field.name == labels:
            continue
        if field.name.lower() in _INDEX_COLUMNS or not field.numeric:
            unused.append(field.name or "(unnamed)")
            continue
        used.append((index, field.name))
    if not used:
        raise DataError(f"{name} has neither images nor numbers, only {', '.join(titles)}; add such a column")
    if table.count == 0:
        raise DataError(f"{name} has no rows; fill or remove it")
    rows: Array | None = None
    begin = 0
    for part in table.pieces():
        _refuse_gaps({column: part.cells[index] for index, column in used}, name, begin)
        columns = [part.cells[index].matrix(f"{name}, column '{column}'") for index, column in used]
        numbers = rows_of(np.concatenate(columns, axis=1), name, begin)
        if rows is None:
            rows = numbers if part.count == table.count else scratch((table.count, numbers.shape[1]), np.float32)
        if numbers.shape[1] != rows.shape[1]:
            raise DataError(
                f"{name}: rows of {rows.shape[1]} and of {numbers.shape[1]} numbers; vectors need one length"
            )
        rows[begin : begin + part.count] = numbers
        begin += part.count
    if rows is None or begin != table.count:
        raise DataError(f"{name} is damaged: {begin} rows where it says {table.count}; restore it")
    y = None if labels is None else labels_in(table.column(labels), name)
    names = tuple(column for _, column in used) if len(used) == rows.shape[1] else ()  # not where lists are spread out
    return Part(Vectors(rows, name), y), unused, names


def _refuse_gaps(columns: Mapping[str, Cells], name: str, begin: int) -> None:
    """Refuse missing values, naming every column that has some; row 0 is called `begin`."""
    gaps = []
    for title, column in columns.items():
        missing = column.missing()
        if len(missing):
            first = begin + int(missing[0])
            gaps.append(f"{len(missing)} in column '{title}' (the first in row {first}, counted from 0)")
    if gaps:
        raise DataError(f"{name} lacks values: {', '.join(gaps[:5])}; fill them in or drop those rows")


def labels_in(column: Cells, name: str) -> Array:
    """Return the labels that a column holds.

    Raises:
        DataError: if some are missing, or they are no labels.
    """
    missing = len(column.missing())
    if missing:
        raise DataError(f"{name}: {missing} labels are missing; fill them in or drop those rows")
    values = column.values()
    return labels_of(values, name, len(values))


def label_column(names: Sequence[str]) -> str | None:
    """Return the column that is taken for the labels, if there is one."""
    lower = {name.lower(): name for name in names}
    return next((lower[name] for name in LABEL_COLUMNS if name in lower), None)


def _is_classes(column: Cells) -> bool:
    values = column.values()
    return values.dtype.kind != "f" or bool(((values == np.rint(values)) | np.isnan(values)).all())
