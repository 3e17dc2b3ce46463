"""The column of strings of Arrow tables: parquet, Feather, what `datasets` saves or loads. Needs the extra `hub`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from expost.data.examples import Found
from expost.data.parquet import TableSource
from expost.data.sheets import PEEK
from expost.data.string_lines import cleaned
from expost.data.string_tables import Head, choose, divided, dividing, strings_in
from expost.errors import DataError

_NO_TEXT = "0"
"""Stands for the cells of columns that hold no text."""


def is_source_of_strings(source: TableSource) -> bool:
    """Tell whether a table has a column of strings, and none of images; see `strings_in`."""
    if source.has_images:
        return False
    head = _head(source)
    return bool(head.rows) and strings_in(head, len(head.names) == 1)


def read_sources(parts: Mapping[str, Sequence[TableSource]], where: str, column: str | None) -> Found:
    """Read the column of strings of some tables; see `choose`.

    Args:
        parts: The tables by part; a column that names parts (see `parts_in_column`) divides those of "all".
        where: What errors call them together.
        column: Name of the column, in any case; None to find it.

    Raises:
        UsageError: if there is no such column.
        DataError: if it holds no text, a table lacks it, or it is unclear which column to read.
    """
    first = next(iter(parts.values()))[0]
    head = _head(first)
    chosen = choose(head, column)
    name = head.names[chosen.index]
    split = dividing(head, chosen.index) if set(parts) == {"all"} else None
    beside = None if split is None else head.names[split]
    found: dict[str, Sequence[str]] = {}
    said: list[str] = []
    for part, sources in parts.items():
        strings: list[str] = []
        words: list[str] = []
        for source in sources:
            for batch in source.read(_usable(source, [name, beside], first)):
                strings += _texts(batch.column(0), source, name)
                words += [] if beside is None else _texts(batch.column(1), source, beside)
        one, remarks = divided(strings, words, beside or "")
        found |= one if part == "all" else {part: strings}
        said += remarks
    kept, more = cleaned(found, where, chosen.domain, "rows")
    besides = [] if beside is None or "all" in found else [beside]
    clauses = dict.fromkeys([*chosen.remarks(head.names, besides), *said, *more])
    return Found(kept, where, tuple(clauses), domain=chosen.domain)


def _usable(source: TableSource, wanted: Sequence[str | None], first: TableSource) -> list[str]:
    """Return the names of the columns to read.

    Raises:
        DataError: if the table lacks one, or has it twice.
    """
    names = [name for name in wanted if name is not None]
    for name in names:
        count = source.schema.names.count(name)
        if not count:
            raise DataError(f"{source.name} lacks the column '{name}' that {first.name} has; give files of one kind")
        if count > 1:
            raise DataError(f"{source.name}: {count} columns are called '{name}'; keep one")
    return names


def _head(source: TableSource) -> Head:
    """Read the first rows of the columns of text; there are none without such a column."""
    names = source.schema.names
    texts = [name for index, name in enumerate(names) if _is_text(source.schema.field(index).type)]
    usable = [name for name in texts if names.count(name) == 1]
    batch = next(iter(source.read(usable)), None) if usable else None
    if batch is None:
        return Head(source.name, names, [])
    size = min(PEEK, len(batch))
    found = {name: _texts(batch.column(at).slice(0, size), source, name) for at, name in enumerate(usable)}
    columns = [found.get(name, [_NO_TEXT] * size) for name in names]
    return Head(source.name, names, list(zip(*columns, strict=True)))


def _is_text(kind: Any) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _texts(column: Any, source: TableSource, name: str) -> list[str]:
    """Return the cells of a column as text without white space around it, empty where there is none."""
    kind = column.type
    if pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        raise DataError(f"{source.name}: column '{name}' holds values of type {kind}, no strings; name another column")
    return ["" if cell is None else str(cell).strip() for cell in column.to_pylist()]
