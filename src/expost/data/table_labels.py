"""The labels in a table: which column they are in, whether they are numbers or text, and what is said of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from expost.data.arrays import labels_of
from expost.data.columns import EXACT
from expost.data.examples import Array
from expost.data.table_cells import Cells, Rows, reading
from expost.errors import DataError, UsageError

CLASS_COLUMNS = ("label", "labels", "class", "classes", "species")
TARGET_COLUMNS = ("target", "y")
"""Columns that are taken for the labels, in any case; what is to be predicted only if it has few values."""
LABEL_COLUMNS = ("label", "labels", "target", "class", "classes", "species", "y")
"""Both, best first."""

NO_LABELS = "none"
"""In place of a column's name: no column holds labels."""

#: A target with at most this many values, or a value in this many rows, is one of classes.
_FEW_VALUES, _ROWS_A_VALUE = 10, 10


@dataclass(frozen=True)
class Labels:
    """The labels of some tables.

    Attributes:
        parts: By table: the column's name, and what it holds.
        remarks: Which column that is, and which that could be are not; one short clause each.
    """

    parts: dict[str, tuple[str, Array]] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()


def labels_of_tables(tables: Mapping[str, Rows], asked: str | None = None) -> Labels:
    """Return the labels of the tables that have them.

    They are in the column `asked` for, else in the first of `LABEL_COLUMNS` that holds classes: whole numbers or text,
    not every row with its own; a `target` or `y` only if it has few values. A table without names has them in its only
    column of text, if that has few values.

    Args:
        tables: By part, the training part first.
        asked: A column's name, in any case, or `NO_LABELS`; None to find it.

    Raises:
        UsageError: if no column has the name that was asked for.
        DataError: if labels are missing, a column stands twice, or two tables have them in columns of different names.
    """
    if not tables or (asked is not None and asked.strip().lower() == NO_LABELS):
        return Labels()
    titles = {part: [entry.name for entry in table.fields] for part, table in tables.items()}
    first = next(iter(tables))
    if asked is not None:
        return _labels(tables, titles, first, named(asked, titles[first], tables[first].name), asked)
    if tables[first].classes:
        return _labels(tables, titles, first, titles[first][-1], None)
    own = {part: name for part, names in titles.items() if (name := label_column(names)) and not _is_point(name, names)}
    if not own:
        sole = _category(tables[first])
        return Labels() if sole is None else _labels(tables, titles, first, sole, None)
    first = next(iter(own))
    for part, table in tables.items():
        if part in own and own[part].lower() not in map(str.lower, titles[first]):
            raise DataError(
                f"{table.name} has labels in column '{own[part]}', but {tables[first].name} in '{own[first]}'; "
                "give both columns one name"
            )
    kept: tuple[str, ...] = ()
    for name in _candidates(titles[first]):
        found = _labels(tables, titles, first, name, None)
        kept += found.remarks
        if found.parts:
            return Labels(found.parts, kept)
    return Labels({}, kept)


def named(asked: str, names: Sequence[str], table: str) -> str:
    """Return the column that was asked for by name: written like that, or else in another case.

    Raises:
        UsageError: if there is none.
    """
    wanted = asked.strip()
    alike = [name for name in names if name == wanted] or [name for name in names if name.lower() == wanted.lower()]
    if not alike:
        listed = ", ".join(name or "(unnamed)" for name in names[:20])
        raise UsageError(f"{table} has no column '{asked}'; its columns: {listed}")
    return alike[0]


def _labels(
    tables: Mapping[str, Rows], titles: Mapping[str, Sequence[str]], first: str, column: str, asked: str | None
) -> Labels:
    """Return the labels in one column of all tables that have it; none if it holds no classes."""
    cells: dict[str, tuple[str, Cells]] = {}
    for part, table in tables.items():
        same = [name for name in titles[part] if name.lower() == column.lower()]
        if len(same) > 1:
            raise DataError(f"{table.name}: {len(same)} columns are called '{column}'; keep one")
        if same:
            with reading(table.name):
                cells[part] = (same[0], table.column(same[0]))
    typed, fractions = _typed([content for _, content in cells.values()])
    if fractions:
        if asked is not None:
            raise DataError(
                f"{tables[first].name}: column '{column}' holds {fractions}, no classes; name another column"
            )
        return Labels({}, (f"'{column}' kept as numbers: it holds {fractions}",))
    result = {}
    for (part, (name, _)), content in zip(cells.items(), typed, strict=True):
        with reading(tables[part].name):
            result[part] = (name, labels_in(content, tables[part].name))
    text = any(labels.dtype.kind == "U" for _, labels in result.values())
    joined = np.concatenate([labels.astype(np.str_) if text else labels for _, labels in result.values()])
    many = None if asked is not None else _too_many(column, joined)
    if many is not None:
        return Labels({}, (many,))
    classes = tables[first].classes
    if classes and joined.dtype.kind == "i" and joined.min() >= 0 and joined.max() < len(classes):
        result = {part: (name, np.array(classes, np.str_)[labels]) for part, (name, labels) in result.items()}
    count = len(np.unique(joined))
    return Labels(result, (f"labels: column '{column}', {count:,} class{'es' * (count != 1)}",))


def _too_many(column: str, labels: Array) -> str | None:
    """Return what to say of a column with too many values to be classes; None if it has few enough."""
    values, rows = len(np.unique(labels)), len(labels)
    strict = column.lower() in TARGET_COLUMNS and labels.dtype.kind != "U"
    if values <= max(_FEW_VALUES, rows // (_ROWS_A_VALUE if strict else 2)):
        return None
    kept = "left out" if labels.dtype.kind == "U" else "kept as numbers"
    return f"'{column}' {kept}, not as labels: {values:,} values in {rows:,} rows (--label-column overrules)"


def _category(table: Rows) -> str | None:
    """Return the only column of text of a table without names, if it repeats few values."""
    texts = [entry for entry in table.fields if entry.kinds]
    if table.titled or len(texts) != 1:
        return None
    few = 2 <= texts[0].kinds <= max(_FEW_VALUES, table.count // _ROWS_A_VALUE) and texts[0].kinds < table.count
    return texts[0].name if few else None


def _is_point(name: str, names: Sequence[str]) -> bool:
    """Tell whether what could be labels is a coordinate."""
    return name.lower() == "y" and "x" in map(str.lower, names)


def _typed(columns: Sequence[Cells]) -> tuple[Sequence[Cells], str]:
    """Make a column of labels numbers in all tables, or text in all.

    Returns:
        The columns, and what they hold if it is no classes: a measured quantity.
    """
    values = [column.values() for column in columns]
    filled = [each for each in values if each.dtype.kind != "f" or not np.isnan(each).all()]
    if not filled or any(each.dtype.kind not in "buif" for each in filled):
        return [column.written() for column in columns], ""
    floats = [each[~np.isnan(each)] for each in filled if each.dtype.kind == "f"]
    for each in floats:
        if (each != np.rint(each)).any():
            return columns, f"fractions, as {each[each != np.rint(each)][0]:g}"
    if any((np.abs(each[np.isfinite(each)]) > EXACT).any() for each in floats):  # neighbours would be one class
        return [column.written() for column in columns], ""
    return columns, ""


def labels_in(column: Cells, name: str) -> Array:
    """Return the labels that a column holds.

    Raises:
        DataError: if some are missing, or they are no labels.
    """
    values = column.values()
    missing = int((values == "").sum()) if values.dtype.kind == "U" else len(column.missing())
    if missing:
        raise DataError(f"{name}: {missing} labels are missing; fill them in or drop those rows")
    return labels_of(values, name, len(values))


def label_names(asked: str | None) -> set[str]:
    """Return the names of columns, lower case, that may hold labels, with the one that was asked for."""
    return {*LABEL_COLUMNS, *([asked.strip().lower()] if asked is not None else [])}


def label_column(names: Sequence[str]) -> str | None:
    """Return the column that is taken for the labels by its name, if there is one."""
    return next(iter(_candidates(names)), None)


def _candidates(names: Sequence[str]) -> list[str]:
    lower = {name.lower(): name for name in names}
    found = [lower[name] for name in LABEL_COLUMNS if name in lower]
    return [name for name in found if not _is_point(name, names)]
