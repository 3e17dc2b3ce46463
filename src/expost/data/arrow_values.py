"""Columns of Arrow tables as arrays, and what kinds of columns there are."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from expost.data.examples import Array, Indices
from expost.data.table_cells import Cells
from expost.errors import DataError

IMAGE_COLUMNS = ("image", "img", "images", "imgs", "jpg", "png", "webp")


def class_names(schema: Any) -> dict[str, tuple[str, ...]]:
    """Return the names of the classes 0, 1, ... by column, as `datasets` keeps them beside a table."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        found = {name: feature["names"] for name, feature in features.items() if feature.get("_type") == "ClassLabel"}
        return {name: tuple(map(str, names)) for name, names in found.items() if isinstance(names, list)}
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError):
        return {}


@dataclass(frozen=True)
class ArrowCells(Cells):
    """A column of an Arrow table.

    Attributes:
        column: The column.
    """

    column: Any

    def missing(self) -> Indices:
        """Return the rows that have no value."""
        if not self.column.null_count:
            return np.zeros(0, np.int64)
        return np.flatnonzero(self.column.is_null().to_numpy(zero_copy_only=False))

    def matrix(self, name: str) -> Array:
        """Return the numbers, or equally long lists of numbers."""
        return _matrix(self.column, name)

    def values(self) -> Array:
        """Return numbers or texts."""
        if _is_numeric(self.column.type):
            return _numpy(self.column)
        return np.array([str(each) for each in self.column.to_pylist()], np.str_)


def _matrix(column: Any, name: str) -> Array:
    """Turn a column of numbers, or of equally long lists of numbers, into a matrix (N, d)."""
    if column.null_count:  # inside of lists
        raise DataError(f"{name}: {column.null_count} values are missing; fill them in or drop those rows")
    if _is_numeric(column.type):
        return _numpy(column).reshape(-1, 1).astype(np.float64)
    lengths = pc.unique(pc.list_value_length(column)).to_pylist()
    if len(lengths) != 1:
        raise DataError(f"{name}: lists of {min(lengths)} to {max(lengths)} numbers; vectors need one length")
    return _matrix(pc.list_flatten(column), name).reshape(len(column), -1)


def _numpy(column: Any) -> Array:
    """Return numbers as NumPy has them; decimals as float64."""
    if pa.types.is_decimal(column.type):
        column = column.cast(pa.float64())
    return np.asarray(column.to_numpy(zero_copy_only=False) if isinstance(column, pa.Array) else column.to_numpy())


def kind_of(kind: Any) -> str:
    """Return in words what a column of an Arrow type holds."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
        return "categories" if _is_numeric(kind) else kind_of(kind)
    if _is_numeric(kind):
        return "numbers"
    if _is_numeric_list(kind):
        return "lists of numbers"
    if pa.types.is_null(kind):
        return "empty"
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return "text"
    if pa.types.is_temporal(kind):
        return "dates"
    return f"values of type {kind}"[:40]


def image_column(schema: Any) -> str | None:
    """Return the column of images: one that is named so, or the only one that can be; None if there is none."""
    usable = [field.name for field in schema if _is_image(field.type)]
    named = [name for name in IMAGE_COLUMNS if name in usable]
    return next(iter(named or usable), None)


def _is_image(kind: Any) -> bool:
    if pa.types.is_struct(kind):
        index = kind.get_field_index("bytes")
        return index >= 0 and _is_image(kind.field(index).type)
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _is_numeric(kind: Any) -> bool:
    plain = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
    return plain or pa.types.is_decimal(kind)


def _is_numeric_list(kind: Any) -> bool:
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return is_list and _is_numeric(kind.value_type)
