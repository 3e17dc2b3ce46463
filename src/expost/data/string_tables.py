"""The column of strings of a table, .csv or .tsv."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path

from expost.data.examples import POOL
from expost.data.notations import NOTATIONS, guess_domain
from expost.data.splits import PART_WORDS
from expost.data.text import kind_of, lines_of, plain
from expost.errors import DataError, UsageError

TABLES = (".csv", ".tsv")
"""Suffixes of tables; either may be followed by .gz."""

SMILES_COLUMNS = ("smiles", "canonical_smiles", "smile")
STRING_COLUMNS = (*SMILES_COLUMNS, "string", "strings", "expression", "expressions", "equation", "sequence", "text")
"""Columns that are taken for the strings, in any case, best first."""

SPLIT_COLUMNS = ("split", "part", "partition")
"""Columns that may say which part a row belongs to, in any case."""

_PEEK = 100
"""Rows that are looked at to find the column."""

_NUMBER = re.compile(r"|[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?|[-+]?inf|nan", re.IGNORECASE)


def read_column(path: Path, column: str | None, *, divide: bool) -> tuple[dict[str, list[str]], list[str]]:
    """Read one column of a table.

    That is `column`, else the first of `STRING_COLUMNS` that is there, else the only one with text in it; the first
    line is then no header if it looks like an expression or a molecule as the others do. Cells may be quoted; where the
    first line has semicolons and no comma, they separate the columns of a .csv.

    Args:
        path: The table.
        column: Name of the column, in any case; None to find it.
        divide: Whether a column of `SPLIT_COLUMNS` that names a training part divides the rows.

    Returns:
        Strings by part ("all" if undivided), blank ones included, and remarks.

    Raises:
        UsageError: if there is no such column.
        DataError: for what is no table, and where it is unclear which column to read.
    """
    header, rows = _open(path)
    peeked = list(islice(rows, _PEEK))
    index, headless = _choose(header, [row for _, row in peeked], column, path)
    split = next((i for i, name in enumerate(header) if plain(name) in SPLIT_COLUMNS), None) if divide else None
    values: dict[str, list[str]] = {}
    for line, row in chain([(1, header)] if headless else [], peeked, rows):
        if len(row) <= max(index, split or 0):
            raise DataError(f"{path}, line {line}: {len(row)} of {len(header)} columns; complete or remove that row")
        string = row[index].strip()
        if "\n" in string:
            raise DataError(f"{path}, line {line}: a string with line breaks; is a quotation mark not closed?")
        values.setdefault("" if split is None else plain(row[split]), []).append(string)
    if not any(PART_WORDS.get(value) == "train" for value in values):
        return {POOL: list(chain.from_iterable(values.values()))}, []
    parts: dict[str, list[str]] = {}
    remarks = []
    for value, strings in values.items():
        if value in PART_WORDS:
            parts.setdefault(PART_WORDS[value], []).extend(strings)
        else:
            remarks.append(f"left out {len(strings):,} rows of part '{value[:40]}'")
    return parts, remarks


def has_strings(path: Path) -> bool:
    """Tell whether a table has a column of `STRING_COLUMNS`, or one column alone, with text in it.

    Raises:
        DataError: for what is no table.
    """
    header, rows = _open(path)
    if any(plain(name) in STRING_COLUMNS for name in header):
        return True
    return len(header) == 1 and not all(_NUMBER.fullmatch(row[0].strip()) for _, row in islice(rows, _PEEK))


def _choose(header: Sequence[str], rows: Sequence[Sequence[str]], column: str | None, path: Path) -> tuple[int, bool]:
    """Return the index of the column of strings, and whether the first line is no header but a row."""
    listing = ", ".join(name.strip() or "(unnamed)" for name in header[:20])
    lower = [plain(name) for name in header]
    if column is not None:
        exact = [i for i, name in enumerate(header) if name.strip() == column.strip()]
        alike = [i for i, name in enumerate(lower) if name == plain(column)]
        if not alike:
            raise UsageError(f"{path} has no column '{column}'; its columns: {listing}")
        return (exact or alike)[0], False
    for name in STRING_COLUMNS:
        if name in lower:
            return lower.index(name), False
    texts = []
    for i in range(len(header)):
        cells = [row[i].strip() for row in rows if len(row) > i] or [header[i].strip()]
        if not all(_NUMBER.fullmatch(cell) for cell in cells):
            texts.append(i)
    if not texts:
        raise DataError(f"{path} has no column of text, only {listing}; give a column named smiles, string or text")
    if len(texts) > 1:
        unclear = ", ".join(header[i].strip() or "(unnamed)" for i in texts[:20])
        raise DataError(f"{path}: the strings could be in any of the columns {unclear}; choose one with column=")
    domain = guess_domain([row[texts[0]].strip() for row in rows if len(row) > texts[0]])
    recognized = NOTATIONS[domain].matches is not None
    return texts[0], recognized and guess_domain([header[texts[0]].strip()]) == domain


def _open(path: Path) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """Return the first row that is not blank, and an iterator of the others, with their line numbers."""
    lines = lines_of(path)
    begin: list[str] = []
    for line in lines:
        begin.append(line)
        if not line.isspace():
            break
    else:
        raise DataError(f"{path} is empty; give a table with a column of strings")
    kind = kind_of(path)
    semicolons = kind == ".csv" and ";" in begin[-1] and "," not in begin[-1]
    delimiter = "\t" if kind == ".tsv" else ";" if semicolons else ","
    rows = _rows(path, chain(begin, lines), delimiter)
    first = next(rows, None)
    if first is None:
        raise DataError(f"{path} is a table of empty cells; give one with a column of strings")
    return first[1], rows


def _rows(path: Path, lines: Iterator[str], delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows that are not blank."""
    reader = csv.reader(lines, delimiter=delimiter)
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                yield reader.line_num, row
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}; is a quotation mark not closed?") from None
