"""Tables on disk: parquet with an image column or numeric columns, and delimited text with numeric columns."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from expost.data.arrays import Vectors, rows_of
from expost.data.description import listing
from expost.data.examples import FOUND_OUT, POOL, Array, Found, Overrules, Part
from expost.data.mapped import scratch
from expost.data.splits import part_named, parts_in_column
from expost.data.table_cells import Cells, Field, Images, Rows, reading
from expost.data.table_labels import labels_of_tables
from expost.errors import DataError
from expost.utils.extras import require

#: A column with more different values does not divide the rows.
_MOST_PARTS = 20
_UNNAMED = ("", "__index_level_0__", "unnamed: 0")
_COUNTERS = (
    "index",
    "idx",
    "row",
    "rows",
    "row_number",
    "rownumber",
    "rownames",
    "row.names",
    "no",
    "no.",
    "nr",
    "#",
    "sno",
)
_NUMBERED = re.compile(r"(.*[ _.-])?(no|nr|num|number|n°|nº|level_0)\.?|.*[a-z](No|Nr)", re.IGNORECASE)
_IDENTITY = re.compile(
    r"(?i:(.*[ _.-])?(id|ids|uuid|guid|key)|(row|record|sample|case|patient|customer)id)|.*[a-z](Id|ID)"
)
_BEST_FIRST = ("train", "validation", "test", POOL)  # the columns of the first are those of all
#: Reads the files of one part, given the column of labels that was asked for: images, or a table of numbers.
Reader = Callable[[Sequence[Path], str | None], Images | Rows]


def read_tables(folder: Path, files: Sequence[Path], where: str, overrules: Overrules = FOUND_OUT) -> Found:
    """Read parquet or CSV files, whose names (or folders) may say which part they are: `train-00000-of-00003.parquet`.

    A column of images (bytes, or records with a field `bytes`) makes an image data set; otherwise all numeric columns
    make vectors, lists of numbers being spread out. Which columns are kept, which are left out and why, and which holds
    the labels (see `labels_of_tables`) is said in the remarks. Left out are columns of text and dates, empty ones, and
    those that only count or name the rows. A column with numbers in most of its cells is never left out: it is read or
    refused. Columns of several parts are matched by their names.
    A column that names parts (see `parts_in_column`) divides undivided rows.

    Args:
        folder: The folder.
        files: The files, sorted.
        where: What errors call them together.
        overrules: The column of labels, where it is not to be found.

    Raises:
        DataError: if a file is damaged, the files do not fit together, a value is missing, or there is nothing to use.
    """
    grouped, remarks = by_part(folder, files)
    found: dict[str, Images | Rows] = {}
    for part, paths in grouped.items():
        with reading(paths[0]):
            found[part] = _reader(paths)(paths, overrules.label_column)
    return assembled(found, where, overrules, remarks)


def by_part(folder: Path, files: Sequence[Path]) -> tuple[dict[str, list[Path]], list[str]]:
    """Group files by the part that their names or folders say, "all" where none does; also return what is ignored."""
    grouped: dict[str, list[Path]] = {}
    for path in files:
        name = part_named(path.stem) or part_named(" ".join(path.relative_to(folder).parts[:-1]))
        grouped.setdefault(POOL if name is None or len(files) == 1 else name, []).append(path)
    if len(grouped) == 1 or POOL not in grouped:
        return grouped, []
    others = grouped.pop(POOL)
    return grouped, [f"ignored {len(others)} files that name no part ({others[0].name})"]


def assembled(
    found: Mapping[str, Images | Rows], where: str, overrules: Overrules, remarks: Sequence[str] = ()
) -> Found:
    """Make a data set of the parts that were read, images or tables of numbers; see `read_tables`."""
    asked = overrules.label_column
    tables = {part: table for part in _BEST_FIRST if isinstance(table := found.get(part), Rows)}
    dividing = _dividing(tables[POOL], asked) if set(tables) == {POOL} == set(found) else None
    vectors, said, columns = vectors_of(tables, asked, {} if dividing is None else {dividing[0]: "it names the parts"})
    parts = {part: vectors[part] if isinstance(one, Rows) else one.part for part, one in found.items()}
    pictures = [remark for one in found.values() if isinstance(one, Images) for remark in one.remarks]
    said = (*said, *dict.fromkeys(pictures))
    if dividing is not None:
        parts, more = _divided(tables[POOL], *dividing, parts[POOL])
        said = (*said, *more)
    return Found(parts, where, (*remarks, *said), columns=columns)


def _reader(paths: Sequence[Path]) -> Reader:
    suffixes = {path.suffix.lower() for path in paths}
    if not suffixes <= {".parquet", ".pq", ".arrow", ".feather"}:
        from expost.data.csv_tables import read_csv

        return read_csv
    require("pyarrow", "hub", f"reading {paths[0]} needs PyArrow")
    from expost.data.parquet import read_arrow, read_parquet

    return read_arrow if suffixes <= {".arrow", ".feather"} else read_parquet


def _dividing(table: Rows, labels: str | None) -> tuple[str, dict[str, str | None]] | None:
    """Return the column that says which part each row is of, and the part that each of its values stands for."""
    for field in table.fields:
        if field.name.lower() == (labels or "").strip().lower() or field.fault:
            continue
        if not (0 < field.kinds <= _MOST_PARTS or (field.numeric and part_named(field.name))):
            continue
        words = np.unique(_words(table, field.name)).tolist()
        if len(words) <= _MOST_PARTS and (parts := parts_in_column(field.name, words)) is not None:
            return field.name, parts
    return None


def _words(table: Rows, name: str) -> Array:
    """Return what a column holds as text, whole numbers without a point."""
    values = table.column(name).values()
    return np.array(
        [f"{each:g}" if isinstance(each, float) else str(each).strip() for each in values.tolist()], np.str_
    )


def _divided(table: Rows, name: str, kinds: Mapping[str, str | None], part: Part) -> tuple[dict[str, Part], list[str]]:
    """Divide the rows of a table by the column that says which part each is of; also return what to say of it."""
    assert isinstance(part.examples, Vectors)
    words = _words(table, name)
    parts, remarks = {}, [f"parts by column '{name}'"]
    for each in ("train", "validation", "test"):
        chosen = np.flatnonzero(np.isin(words, [word for word, kind in kinds.items() if kind == each]))
        if len(chosen):
            rows = Vectors(part.examples.rows[chosen], part.examples.where)
            parts[each] = Part(rows, None if part.labels is None else part.labels[chosen], part.names)
    for word in (word for word, kind in kinds.items() if kind is None):
        remarks.append(f"left out {int((words == word).sum()):,} rows of part '{word[:40]}'")
    return parts, remarks


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


def differences(wanted: Sequence[str], given: Sequence[str]) -> str:
    """Say in which names a list differs from the wanted one.

    Example:
        >>> differences(["a", "b"], ["b", "c"])
        "lacks 'a' and has 'c' besides"
    """
    lacking, more = Counter(wanted) - Counter(given), Counter(given) - Counter(wanted)
    said = [f"lacks {_quoted(lacking)}"] * bool(lacking) + [f"has {_quoted(more)} besides"] * bool(more)
    return " and ".join(said)


def vectors_of(
    tables: Mapping[str, Rows], asked: str | None, known_unused: Mapping[str, str]
) -> tuple[dict[str, Part], tuple[str, ...], tuple[str, ...]]:
    """Turn the numbers of tables into vectors, with the columns of the first table as the entries of all.

    Args:
        tables: By part, the training part first.
        asked: The column of labels, or "none"; None to find it.
        known_unused: Columns that are no entries, with the reason.

    Returns:
        The examples by part, what was recognized and left out, and the names of a vector's entries.

    Raises:
        DataError: if a table has no rows or no numbers, the tables have different ones, or a value is missing.
    """
    for table in tables.values():
        if table.count == 0:
            raise DataError(f"{table.name} has no rows; fill or remove it")
    labels = labels_of_tables(tables, asked)
    entries: dict[str, list[int]] = {}
    unused, known = dict(known_unused), dict(known_unused)
    ours: set[str] = set()
    for part, table in tables.items():
        column = labels.parts[part][0] if part in labels.parts else None
        entries[part], others = _entries(table, column, known, ours)
        ours |= {table.fields[index].name for index in entries[part]}
        known |= {field.name: others[field.name] for field in table.fields if field.numeric and field.name in others}
        unused |= {name: why for name, why in others.items() if name not in unused}
    for titled in (True, False):  # a file without names goes by the order of its columns
        alike = [part for part, table in tables.items() if table.titled is titled]
        for part in alike[1:]:
            entries[part] = _matched(tables[alike[0]], entries[alike[0]], tables[part], entries[part])
    parts: dict[str, Part] = {}
    names: set[tuple[str, ...]] = set()
    shapes: dict[tuple[str, ...], tuple[str, list[int]]] = {}
    for part, table in tables.items():
        with reading(table.name):
            rows, widths = _rows(table, entries[part])
        column, values = labels.parts.get(part, ("", None))
        parts[part] = Part(Vectors(rows, table.name), values, table.class_names.get(column, ()))
        titles = tuple(table.fields[index].name for index in entries[part])
        first, expected = shapes.setdefault(titles, (table.name, widths))
        if widths != expected:
            raise _unequal(f"{first} and {table.name}", titles, expected, widths)
        names.add(titles if len(titles) == rows.shape[1] else ())  # not where lists are spread out
    remarks = dict.fromkeys(remark for table in tables.values() for remark in table.remarks)
    unnamed = [table.name for table in tables.values() if not table.titled]
    if 0 < len(unnamed) < len(tables):
        remarks[f"{' and '.join(unnamed)} names no columns: taken to be in the order of the others"] = None
    if unused:
        listed = [f"{name or '(unnamed)'} ({why})" for name, why in sorted(unused.items())]
        remarks[f"left out {listing(listed, 'column')}"] = None
    if () in names:  # else the rows are said to have these numbers
        kept = next(iter(shapes))
        counted = "1 column" if len(kept) == 1 else f"{len(kept):,} columns"
        remarks[f"{counted} of numbers: {listing(kept)}"] = None
    remarks |= dict.fromkeys(labels.remarks)
    return parts, tuple(remarks), names.pop() if len(names) == 1 else ()


def _entries(
    table: Rows, labels: str | None, known: Mapping[str, str], kept: Collection[str]
) -> tuple[list[int], dict[str, str]]:
    """Return the indices of the columns that hold entries of vectors, and why others do not, by their names.

    Numbers of the rows in the tables before are `known`, and no entries of this one either; what was `kept` as entries
    of those is kept here, even where it happens to count.

    Raises:
        DataError: if a column of numbers cannot be read, or none is left.
    """
    used, unused = [], {}
    fields = [(index, field) for index, field in enumerate(table.fields) if field.name != labels]
    if faults := [field.fault for _, field in fields if field.fault]:
        more = f", and {len(faults) - 3} more columns" if len(faults) > 3 else ""
        raise DataError(
            f"{table.name}: {', '.join(faults[:3])}{more}; correct or fill in those cells, or remove the rows "
            "or columns"
        )
    for index, field in fields:
        why = known.get(field.name) or field.what
        if not why and field.name not in kept:
            why = _counts_rows(table, index, field)
        if why:
            unused[field.name] = why
        else:
            used.append(index)
    if not used:
        listed = ", ".join(f"{field.name} ({field.what or 'numbers'})" for field in table.fields[:20])
        raise DataError(f"{table.name} has neither images nor numbers, only {listed}; add such a column")
    return used, unused


def _counts_rows(table: Rows, index: int, field: Field) -> str:
    """Tell why a column of numbers says nothing of an example but which it is; empty if it says something."""
    name = field.name.lower()
    sure = name in _UNNAMED or name in _COUNTERS or _IDENTITY.fullmatch(field.name) is not None
    numbered = _NUMBERED.fullmatch(field.name) is not None
    first = not sure and table.count >= 10 and (numbered or (index == 0 and not table.titled))
    if not (first or sure):
        return ""
    values = table.column(field.name).values()
    if values.dtype.kind not in "iuf" or len(values) < 2 or not np.isfinite(values).all():
        return ""
    low, high, count = int(values.min()), int(values.max()), len(values)
    if (values != np.rint(values)).any() or len(np.unique(values)) < count:
        return ""
    counting = high - low == count - 1
    if first:
        return "row numbers" if low in (0, 1) and counting and (np.diff(values) == 1).all() else ""
    if name in _UNNAMED or counting or (name in _COUNTERS and 0 <= low <= count and high <= 20 * count):
        return f"row numbers, {low} to {high}"
    return "" if name in _COUNTERS else f"numbers of the rows, all different, {low} to {high}"


def _matched(first: Rows, wanted: Sequence[int], other: Rows, given: Sequence[int]) -> list[int]:
    """Return the columns of the other table in the order of the first one's.

    Raises:
        DataError: if they have other names.
    """
    ours, theirs = [first.fields[index].name for index in wanted], [other.fields[index].name for index in given]
    order = places(ours, theirs)
    if order is not None:
        return [given[index] for index in order]
    said = []
    for name in dict.fromkeys(ours + theirs):
        if ours.count(name) == theirs.count(name):
            continue
        holder, lacks = (first, other) if name in ours else (other, first)
        there = next((field for field in lacks.fields if field.name == name), None)
        if there is None:
            said.append(f"{lacks.name} lacks the column '{name}' of {holder.name}")
        else:
            said.append(f"'{name}' holds {there.what or 'labels'} in {lacks.name}, and numbers in {holder.name}")
    more = f", and {len(said) - 3} more" if len(said) > 3 else ""
    raise DataError(
        f"{', '.join(said[:3])}{more}; give all parts the same columns of numbers, or name the classes by "
        "--label-column"
    )


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
        _refuse_infinite(dict(zip(titles, columns, strict=True)), name, begin)
        numbers = rows_of(np.concatenate(columns, axis=1), name, begin)
        widths = [column.shape[1] for column in columns]
        if rows is None:
            rows = numbers if part.count == table.count else scratch((table.count, numbers.shape[1]), np.float32)
            expected = widths
        if widths != expected:
            raise _unequal(name, titles, expected, widths)
        if len(numbers) != part.count or begin + part.count > table.count:
            raise DataError(f"{name} is damaged: it has other rows than it says, {table.count}; restore it")
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


def _refuse_infinite(columns: Mapping[str, Array], name: str, begin: int) -> None:
    """Refuse numbers that float32 does not hold, by the name of their column; row 0 is called `begin`."""
    for title, column in columns.items():
        bad = ~(np.abs(column) <= np.finfo(np.float32).max)
        if bad.any():
            row, index = np.argwhere(bad)[0]
            raise DataError(
                f"{name}: {column[row, index]:g} in row {begin + row}, counted from 0, of column '{title}' "
                f"({int(bad.sum())} such values) is no finite float32; repair or remove those rows"
            )
