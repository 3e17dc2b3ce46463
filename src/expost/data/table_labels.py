"""The labels in a table: which column they are in, and whether they are numbers or text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from expost.data.arrays import labels_of
from expost.data.examples import Array
from expost.data.table_cells import Cells, Rows, reading
from expost.errors import DataError

LABEL_COLUMNS = ("label", "labels", "target", "class", "species", "y")
#: Up to it float64 holds every whole number.
EXACT = 2.0**53


def labels_of_tables(tables: Mapping[str, Rows]) -> dict[str, tuple[str, Array]]:
    """Return the column of the labels, and what it holds, for each table that has it.

    Raises:
        DataError: if some are missing, or two tables have them in columns of different names.
    """
    titles = {part: [field.name for field in table.fields] for part, table in tables.items()}
    own = {part: name for part, names in titles.items() if (name := label_column(names)) and not _is_point(name, names)}
    if not own:
        return {}
    first = next(iter(own))
    cells: dict[str, tuple[str, Cells]] = {}
    for part, table in tables.items():
        name = next((name for name in titles[part] if name.lower() == own[first].lower()), None)
        if name is not None:
            with reading(table.name):
                cells[part] = (name, table.column(name))
        elif part in own and own[part] not in titles[first]:
            raise DataError(
                f"{table.name} has labels in column '{own[part]}', but {tables[first].name} in '{own[first]}'; "
                "give both columns one name"
            )
    typed = _typed([column for _, column in cells.values()])
    if typed is None:
        return {}
    result = {}
    for (part, (name, _)), column in zip(cells.items(), typed, strict=True):
        with reading(tables[part].name):
            result[part] = (name, labels_in(column, tables[part].name))
    return result


def _is_point(name: str, names: Sequence[str]) -> bool:
    """Tell whether what could be labels is a coordinate."""
    return name.lower() == "y" and "x" in names


def _typed(columns: Sequence[Cells]) -> Sequence[Cells] | None:
    """Make a column of labels numbers in all tables, or text in all; None if it holds a measured quantity."""
    values = [column.values() for column in columns]
    filled = [each for each in values if each.dtype.kind != "f" or not np.isnan(each).all()]
    if not filled or any(each.dtype.kind not in "buif" for each in filled):
        return [column.written() for column in columns]
    floats = [each[~np.isnan(each)] for each in filled if each.dtype.kind == "f"]
    if any((each != np.rint(each)).any() for each in floats):
        return None
    if any((np.abs(each[np.isfinite(each)]) > EXACT).any() for each in floats):  # neighbours would be one class
        return [column.written() for column in columns]
    return columns


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
