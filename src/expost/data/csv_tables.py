"""CSV and TSV files with numeric columns, read a few thousand rows at a time."""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

from expost.data.examples import Array, Indices
from expost.data.table_cells import Cells, Field, Piece, Rows
from expost.data.table_labels import EXACT, LABEL_COLUMNS
from expost.data.tables import places
from expost.errors import DataError

_AT_ONCE = 8_192
#: Cells that mean a missing value.
_MISSING = {"", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN"}
_MISSING |= {"N/A", "NA", "NULL", "NaN", "n/a", "nan", "null"}
_BOOLEAN = {"true": 1.0, "True": 1.0, "TRUE": 1.0, "false": 0.0, "False": 0.0, "FALSE": 0.0}


@dataclass(frozen=True)
class _Numbers(Cells):
    """A column of numbers, with NaN for missing values; a column that may be labels also keeps its text."""

    numbers: Array
    texts: Sequence[str]

    def missing(self) -> Indices:
        return np.flatnonzero(np.isnan(self.numbers))

    def matrix(self, name: str) -> Array:
        return self.numbers.reshape(-1, 1)

    def values(self) -> Array:
        if self.texts and (np.abs(self.numbers) > EXACT).any():
            with contextlib.suppress(ValueError, OverflowError):
                return np.array(self.texts, np.int64)
        return self.numbers

    def written(self) -> Cells:
        return _Texts(self.texts)


@dataclass(frozen=True)
class _Texts(Cells):
    """A column of text, where an empty cell is an ordinary value."""

    texts: Sequence[str]

    def missing(self) -> Indices:
        return np.zeros(0, np.int64)

    def matrix(self, name: str) -> Array:
        raise DataError(f"{name} holds text; leave it out")

    def values(self) -> Array:
        return np.array(self.texts, np.str_)


@dataclass
class _Column:
    """A column while it is read: numeric as long as all its cells are; the text is kept only if it may be labels."""

    name: str
    numeric: bool = True
    words: bool | None = None  # whether its numbers are written true and false; None while all are missing
    numbers: list[Array] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)

    def add(self, cells: Sequence[str]) -> None:
        if self.name.lower() in LABEL_COLUMNS:
            self.texts += cells
        if self.numeric:
            words, numbers = _numbers(cells)
            known = self.words if np.isnan(numbers).all() else words
            self.numeric = len(numbers) == len(cells) and self.words in (None, known)
            self.words = known
            self.numbers = [*self.numbers, numbers] if self.numeric else []

    def cells(self) -> Cells:
        if not self.numeric:
            return _Texts(self.texts)
        return _Numbers(np.concatenate([np.zeros(0), *self.numbers]), self.texts)

    def is_used(self) -> bool:
        """Tell whether the column holds numbers, not only missing values."""
        return self.numeric and any(not np.isnan(each).all() for each in self.numbers)


def read_csv(paths: Sequence[Path]) -> Rows:
    """Read the files of one part.

    Raises:
        DataError: if a file is damaged or empty, or the files have different columns.
    """
    columns: list[_Column] = []
    titled = True
    count = 0
    for path in paths:
        try:
            names, titled, pieces = _open(path)
            columns = columns or [_Column(name) for name in names]
            order = places([column.name for column in columns], names)
            if order is None:
                raise DataError(f"{path} has other columns than {paths[0]}; give files of one kind")
            for rows in pieces:
                count += len(rows)
                texts = list(zip(*rows, strict=True))
                for column, index in zip(columns, order, strict=True):
                    column.add(texts[index])
        except csv.Error as error:
            raise DataError(f"cannot read {path}: {error}; restore it") from None
    cells = [column.cells() for column in columns]
    found = dict(zip([column.name for column in columns], cells, strict=True))
    fields = [Field(column.name, column.is_used()) for column in columns]
    return Rows(str(paths[0]), fields, count, found.__getitem__, partial(iter, [Piece(count, cells)]), titled)


def _open(path: Path) -> tuple[list[str], bool, Iterator[list[list[str]]]]:
    """Return the names of a file's columns, whether they are in the file, and its rows.

    A first line of nothing but numbers is data, not a header.
    """
    lines = _lines(path)
    first = next(lines, None)
    if first is None:
        raise DataError(f"cannot read {path}: Empty CSV file; restore it")
    words, numbers = _numbers(first)
    headless = len(numbers) > 0 and not words and "" not in first
    names = [f"f{index}" for index in range(len(first))] if headless else first
    return names, not headless, _pieces(lines, [first] if headless else [])


def _pieces(lines: Iterator[list[str]], rows: list[list[str]]) -> Iterator[list[list[str]]]:
    while rows or (rows := list(islice(lines, _AT_ONCE))):
        yield rows
        rows = []


def _lines(path: Path) -> Iterator[list[str]]:
    """Yield the rows of a file, as long as the first; blank lines are none."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
        width = 0
        for row in reader:
            if not row:
                continue
            width = width or len(row)
            if len(row) != width:
                raise DataError(
                    f"{path}, line {reader.line_num}: {len(row)} of {width} columns; complete or remove that row"
                )
            yield row


def _numbers(cells: Sequence[str]) -> tuple[bool, Array]:
    """Return whether cells are the words true and false, and what they stand for as float64, a missing one as NaN.

    Returns:
        As many numbers as cells, or none if one holds something else.
    """
    if not any("_" in cell for cell in cells):  # which Python would take for a part of a number
        for words in (False, True):
            with contextlib.suppress(ValueError, KeyError):
                return words, _converted(cells, _BOOLEAN.__getitem__ if words else float)
    return False, np.zeros(0)


def _converted(cells: Sequence[str], convert: Callable[[str], float]) -> Array:
    if convert is float:
        with contextlib.suppress(ValueError):
            return np.array(cells, np.float64)  # 3 times as fast
    words = (cell.strip() for cell in cells)
    return np.array([np.nan if word in _MISSING else convert(word) for word in words], np.float64)
