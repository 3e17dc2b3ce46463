"""Tables on disk: parquet with an image column or numeric columns, and CSV with numeric columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from expost.data.arrays import Vectors, rows_of
from expost.data.examples import POOL, Array, Found, Part
from expost.data.mapped import scratch
from expost.data.splits import part_named
from expost.data.table_cells import Cells, Rows, reading
from expost.data.table_labels import labels_of_tables
from expost.errors import DataError
from expost.utils.extras import require

_INDEX_COLUMNS = ("", "__index_level_0__", "unnamed: 0", "index")
_BEST_FIRST = ("train", "validation", "test", POOL)  # the columns of the first are those of all


#: Reads the files of one part: images, or a table that may hold vectors.
Reader = Callable[[Sequence[Path]], Part | Rows]


def read_tables(folder: Path, files: Sequence[Path], where: str) -> Found:
    """Read parquet or CSV files, whose names (or folders) may say which part they are: `train-00000-of-00003.parquet`.

    A column of images (bytes, or records with a field `bytes`) makes an image data set; otherwise all numeric columns
    make vectors, lists of numbers being spread out. A column called label, target, class, species or y gives the
    labels, unless it holds fractions, or is the y beside an x. Columns of several parts are matched by their names.

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
    found: dict[str, Part | Rows] = {}
    for part, paths in grouped.items():
        with reading(paths[0]):
            found[part] = _reader(paths)(paths)
    tables = {part: table for part in _BEST_FIRST if isinstance(table := found.get(part), Rows)}
    vectors, ignored, columns = _vectors(tables)
    if ignored:
        count = "1 column" if len(ignored) == 1 else f"{len(ignored)} columns"
        more = f" and {len(ignored) - 3} more" if len(ignored) > 3 else ""
        remarks.append(f"ignored {count} without numbers ({', '.join(sorted(ignored)[:3])}{more})")
    parts = {part: vectors[part] if isinstance(one, Rows) else one for part, one in found.items()}
    return Found(parts, where, tuple(remarks), columns=columns)


def _reader(paths: Sequence[Path]) -> Reader:
    if any(path.suffix.lower() != ".parquet" for path in paths):
        from expost.data.csv_tables import read_csv

        return read_csv
    require("pyarrow", "hub", f"reading {paths[0]} needs PyArrow")
    from expost.data.parquet import read_parquet

    return read_parquet


def places(wanted: Sequence[str], given: Sequence[str]) -> list[int] | None:
    """Return the index of each wanted name among the given ones; None unless they are the same names in some order.

    Example:
        >>> places(["a", "b", "c"], ["c", "a", "b"]), places(["a", "b"], ["a", "c"])
        ([1, 2, 0], None)
    """
    if Counter(wanted) != Counter(given):
        return None
    found = dict(zip(_by_name(wanted), _by_name(given), strict=True))
    return [found[index] for index in range(len(wanted))]


def _by_name(names: Sequence[str]) -> list[int]:
    return sorted(range(len(names)), key=names.__getitem__)


def _vectors(tables: Mapping[str, Rows]) -> tuple[dict[str, Part], set[str], tuple[str, ...]]:
    """Turn the numbers of tables into vectors, with the columns of the first table as the entries of all.

    Returns:
        The examples by part, the names of unused columns, and the names of a vector's entries.

    Raises:
        DataError: if a table has no rows or no numbers, the tables have different ones, or a value is missing.
    """
    for table in tables.values():
        if table.count == 0:
            raise DataError(f"{table.name} has no rows; fill or remove it")
    labels = labels_of_tables(tables)
    entries: dict[str, list[int]] = {}
    ignored: set[str] = set()
    for part, table in tables.items():
        entries[part], unused = _entries(table, labels[part][0] if part in labels else None)
        ignored |= set(unused)
    for titled in (True, False):  # a file without names goes by the order of its columns
        alike = [part for part, table in tables.items() if table.titled is titled]
        for part in alike[1:]:
            entries[part] = _matched(tables[alike[0]], entries[alike[0]], tables[part], entries[part])
    parts: dict[str, Part] = {}
    names: set[tuple[str, ...]] = set()
    known: dict[tuple[str, ...], tuple[str, list[int]]] = {}
    for part, table in tables.items():
        with reading(table.name):
            rows, widths = _rows(table, entries[part])
        parts[part] = Part(Vectors(rows, table.name), labels[part][1] if part in labels else None)
        titles = tuple(table.fields[index].name for index in entries[part])
        first, expected = known.setdefault(titles, (table.name, widths))
        if widths != expected:
            raise _unequal(f"{first} and {table.name}", titles, expected, widths)
        names.add(titles if len(titles) == rows.shape[1] else ())  # not where lists are spread out
    return parts, ignored, names.pop() if len(names) == 1 else ()


def _entries(table: Rows, labels: str | None) -> tuple[list[int], list[str]]:
    """Return the indices of the columns that hold entries of vectors, and the names of unused columns."""
    used, unused = [], []
    for index, field in enumerate(table.fields):
        if field.name == labels:
            continue
        if field.name.lower() in _INDEX_COLUMNS or not field.numeric:
            unused.append(field.name or "(unnamed)")
        else:
            used.append(index)
    if not used:
        titles = ", ".join(field.name for field in table.fields)
        raise DataError(f"{table.name} has neither images nor numbers, only {titles}; add such a column")
    return used, unused


def _matched(first: Rows, wanted: Sequence[int], other: Rows, given: Sequence[int]) -> list[int]:
    """Return the columns of the other table in the order of the first one's.

    Raises:
        DataError: if they have other names.
    """
    ours, theirs = [first.fields[index].name for index in wanted], [other.fields[index].name for index in given]
    order = places(ours, theirs)
    if order is None:
        more, lacking = Counter(theirs) - Counter(ours), Counter(ours) - Counter(theirs)
        differences = [f"only the first has {_quoted(more)}"] * bool(more)
        differences += [f"only the second has {_quoted(lacking)}"] * bool(lacking)
        raise DataError(
            f"{other.name} and {first.name} have different columns of numbers: {', '.join(differences)}; "
            "give all parts the same ones"
        )
    return [given[index] for index in order]


def _quoted(names: Counter[str]) -> str:
    listed = [f"'{name[:40]}'" for name in names]
    return ", ".join(listed[:3]) + (f" and {len(listed) - 3} more" if len(listed) > 3 else "")


def _unequal(name: str, titles: Sequence[str], some: Sequence[int], others: Sequence[int]) -> DataError:
    title, one, other = next(each for each in zip(titles, some, others, strict=True) if each[1] != each[2])
    return DataError(f"{name}: {one} and {other} numbers a row in column '{title}'; vectors need one length")


def _rows(table: Rows, used: Sequence[int]) -> tuple[Array, list[int]]:
    """Return the numbers of some columns as float32, shape (N, d), and how many of the d each column has.

    Raises:
        DataError: if a value is missing or no float32, or the rows differ in length.
    """
    name, titles = table.name, [table.fields[index].name for index in used]
    rows: Array | None = None
    expected: list[int] = []
    begin = 0
    for part in table.pieces():
        _refuse_gaps({title: part.cells[index] for title, index in zip(titles, used, strict=True)}, name, begin)
        columns = [
            part.cells[index].matrix(f"{name}, column '{title}'") for title, index in zip(titles, used, strict=True)
        ]
        numbers = rows_of(np.concatenate(columns, axis=1), name, begin)
        widths = [column.shape[1] for column in columns]
        if rows is None:
            rows = numbers if part.count == table.count else scratch((table.count, numbers.shape[1]), np.float32)
            expected = widths
        if widths != expected:
            raise _unequal(name, titles, expected, widths)
        rows[begin : begin + part.count] = numbers
        begin += part.count
    if rows is None or begin != table.count:
        raise DataError(f"{name} is damaged: {begin} rows where it says {table.count}; restore it")
    return rows, expected


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
