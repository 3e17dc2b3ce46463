"""Columns of text: whether they hold numbers, however written, and if not, what; a nearly numeric one is a fault."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from expost.data.examples import Array, Indices
from expost.data.numerals import (
    BOOLEAN,
    GAPS,
    MISSING,
    Comma,
    Numeral,
    are_measures,
    comma_of,
    is_plain,
    is_point_group,
    numeral,
    plain_numbers,
)
from expost.data.table_cells import Cells, Field
from expost.errors import DataError

#: Up to it float64 holds every whole number.
EXACT = 2.0**53
#: Cells of whole numbers with leading zeros and at least this many digits are codes, as 01234 is.
_CODE = re.compile(r"0\d{3,}")
_DATE = re.compile(
    r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}([ T]\d{1,2}:\d{2}.*)?|\d{1,2}[-/.]\d{1,2}[-/.](\d{4}|\d{2})([ T]\d{1,2}:\d{2}.*)?"
    r"|\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?|\d{1,2}[- ][A-Za-z]{3,9}\.?[- ,]+\d{2,4}|[A-Za-z]{3,9}\.? \d{1,2},? \d{4}"
)


@dataclass(frozen=True)
class Numbers(Cells):
    """A column of numbers, with NaN for missing values; a column that may be labels also keeps its text."""

    numbers: Array
    texts: Sequence[str] = ()

    def missing(self) -> Indices:
        """Return the rows that are NaN."""
        return np.flatnonzero(np.isnan(self.numbers))

    def matrix(self, name: str) -> Array:
        """Return the numbers as one column."""
        return self.numbers.reshape(-1, 1)

    def values(self) -> Array:
        """Return the numbers; of whole ones that float64 does not hold, int64."""
        if self.texts and (np.abs(self.numbers) > EXACT).any():
            with contextlib.suppress(ValueError, OverflowError):
                return np.array(self.texts, np.int64)
        return self.numbers

    def written(self) -> Cells:
        """Return the numbers as text, if it was kept."""
        return Texts(self.texts) if self.texts else self

    def between(self, begin: int, end: int) -> Cells:
        """Return some of the rows."""
        return Numbers(self.numbers[begin:end])


@dataclass(frozen=True)
class Texts(Cells):
    """A column of text; as labels, empty cells are missing (see `labels_in`)."""

    texts: Sequence[str]

    def missing(self) -> Indices:
        """Return none."""
        return np.zeros(0, np.int64)

    def matrix(self, name: str) -> Array:
        """Refuse."""
        raise DataError(f"{name} holds text; leave it out")

    def values(self) -> Array:
        """Return the text without white space around it."""
        return np.array([text.strip() for text in self.texts], np.str_)


@dataclass
class Column:
    """A column while it is read.

    Attributes:
        name: Its name.
        keep: Whether its text is kept even if it is all numbers, since it may hold labels.
    """

    name: str
    keep: bool = False
    count: int = 0
    pieces: list[Array | list[str]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    points: bool = False  # whether a plain number has a point
    grouped: bool = True  # whether all of these could be points between groups of digits
    coded: bool = False
    shared: dict[str, str] = field(default_factory=dict)

    def add(self, cells: Sequence[str]) -> None:
        """Take the next cells."""
        if not self.count:
            filled = [cell.strip() for cell in cells if cell.strip() not in GAPS]
            self.coded = len(set(map(len, filled))) == 1 and any(_CODE.fullmatch(cell) for cell in filled)
        self.count += len(cells)
        if self.keep:
            self.texts += cells
        numbers = None if self.coded else plain_numbers(cells)
        if numbers is None:
            self.pieces.append([self.shared.setdefault(cell, cell) for cell in cells])
            return
        pointed = "." in "".join(cells)
        self.points |= pointed
        self.grouped = self.grouped and all(is_point_group(cell) for cell in cells if "." in cell)
        self.pieces.append(numbers)

    def said(self) -> Iterator[tuple[int, str]]:
        """Yield the cells that are kept as text, with their rows."""
        row = 0
        for piece in self.pieces:
            if isinstance(piece, list):
                yield from enumerate(piece, start=row)
            row += len(piece)

    def comma(self) -> Comma | None:
        """Return what commas in its numbers are; None where there are none, or they contradict each other."""
        with contextlib.suppress(ValueError):
            return comma_of(each for _, cell in self.said() if (each := numeral(cell)) is not None)
        return None

    def read(self, comma: Comma | None) -> tuple[Field, Cells, str]:
        """Return what the column is, its cells, and a remark on how its numbers were written, if not plainly.

        Args:
            comma: What a comma is that could separate groups of digits or decimals, as the table's others settle it.
        """
        words = [(row, cell.strip()) for row, cell in self.said()]
        plain = self.count - len(words)
        if not words and plain:
            return self._numbers(np.concatenate(self.pieces), comma)
        filled = [(row, word) for row, word in words if word not in MISSING]
        if filled and all(word in BOOLEAN for _, word in filled) and not self._has_numbers():
            booleans = {**dict.fromkeys(MISSING, np.nan), **BOOLEAN}
            return self._numbers(self._converted(booleans.__getitem__), comma)
        read = {word: None if self.coded or word in GAPS else numeral(word) for _, word in words}
        good = [word for _, word in words if read[word] is not None]
        bad = [(row, word) for row, word in filled if read[word] is None]
        numbers = len(good) + sum(int((~np.isnan(p)).sum()) for p in self.pieces if isinstance(p, np.ndarray))
        wrong = [(row, word) for row, word in bad if word not in GAPS]
        if wrong and not numbers and not self.coded and are_measures(word for _, word in wrong):
            return self._faulty(_count(wrong, self.count, self.name)), Texts(self._all()), ""
        if not numbers or self.coded or (len(wrong) > numbers and len({word for _, word in wrong}) > 1):
            return self._text([word for _, word in words]), Texts(self._all()), ""
        if bad:
            return self._faulty(_count(bad, self.count, self.name)), Texts(self._all()), ""
        numerals = [each for each in read.values() if each is not None]
        fault, how = self._how(numerals, comma)
        fault = fault or self._thousands(numerals, comma)
        if fault:
            return self._faulty(fault), Texts(self._all()), ""
        values = {**dict.fromkeys(MISSING, np.nan)}
        values |= {word: each.value(how) for word, each in read.items() if each is not None}
        dressed = next((word for word in good if not is_plain(word)), "")
        remark = f"read {dressed!r} in '{self.name}' as {values[dressed]:g}" if dressed else ""
        found, cells, _ = self._numbers(self._converted(values.__getitem__), None)
        return found, cells, remark

    def _has_numbers(self) -> bool:
        return any(isinstance(piece, np.ndarray) and not np.isnan(piece).all() for piece in self.pieces)

    def _how(self, numerals: Sequence[Numeral], comma: Comma | None) -> tuple[str, Comma | None]:
        """Return why the numbers cannot be read, or an empty text; and what a comma is that could be either."""
        dresses = sorted({each.dress for each in numerals} - {""})
        if len(dresses) > 1:
            return f"'{self.name}' holds amounts in {' and '.join(dresses)}; convert them to one", None
        try:
            own = comma_of(numerals)
        except ValueError:
            first, last = (next(n.body for n in numerals if n.comma == kind) for kind in ("groups", "decimals"))
            return (
                f"'{self.name}' holds {first!r} and {last!r}, with commas of two kinds; write decimals with a point",
                None,
            )
        how = comma if own == "either" else own
        if how == "either":
            body = next(each.body for each in numerals if each.comma == "either")
            return (
                f"{body!r} in '{self.name}' could be {body.replace(',', '')} or {body.replace(',', '.')}; "
                "write it without a comma",
                None,
            )
        if how == "decimals" and (
            self.points
            or any(each.comma is None and "." in each.body and each.body.count(".") == 1 for each in numerals)
        ):
            return f"'{self.name}' has decimals with a point and with a comma; write all with a point", None
        return "", how

    def _numbers(self, numbers: Array, comma: Comma | None) -> tuple[Field, Cells, str]:
        cells = Numbers(numbers, self.texts)
        if comma == "decimals" and self.points and self.grouped:
            word = next((text for text in self.texts if "." in text), f"{np.nanmax(numbers):g}")
            return self._faulty(self._grouped_by_points(word, "decimal commas in other columns")), cells, ""
        if np.isnan(numbers).all():
            return Field(self.name, False, "empty"), cells, ""
        return Field(self.name, True, "dates" if _are_dates(numbers) else ""), cells, ""

    def _thousands(self, numerals: Sequence[Numeral], comma: Comma | None) -> str:
        """Return why points could stand between thousands, or an empty text: 1.234 € beside 0,5 or 1.234.567 €."""
        bodies = [each.body for each in numerals if each.comma is None]
        single = [body for body in bodies if body.count(".") == 1]
        several = next((body for body in bodies if body.count(".") > 1), None)
        if not (single or self.points) or not (self.grouped and all(map(is_point_group, single))):
            return ""
        if comma != "decimals" and several is None:
            return ""
        numbers = [piece for piece in self.pieces if isinstance(piece, np.ndarray)]
        word = single[0] if single else f"{np.nanmax(np.concatenate(numbers)):g}"
        return self._grouped_by_points(word, several or "decimal commas in other columns")

    def _grouped_by_points(self, word: str, beside: str) -> str:
        return f"'{self.name}' has {word} beside {beside}: a point could stand between thousands; write it without one"

    def _text(self, words: Sequence[str]) -> Field:
        filled = [word for word in words if word not in GAPS]
        if not filled:
            return Field(self.name, False, "empty")
        kinds, example = Counter(filled), filled[0][:20]
        if self.coded:
            kind = "codes"
        elif all(_DATE.fullmatch(word) for word in filled[:1000]):
            kind = "dates"
        else:
            kind = "text, all different" if len(kinds) == len(filled) > 1 else f"text, {_values(len(kinds))}"
        return Field(self.name, False, f"{kind}, e.g. {example!r}", "", len(kinds))

    def _faulty(self, fault: str) -> Field:
        return Field(self.name, False, "numbers that cannot be read", fault)

    def _converted(self, convert: Callable[[str], float]) -> Array:
        pieces = [
            np.array([convert(cell.strip()) for cell in piece], np.float64) if isinstance(piece, list) else piece
            for piece in self.pieces
        ]
        return np.concatenate([np.zeros(0), *pieces])

    def _all(self) -> Sequence[str]:
        if self.texts:
            return self.texts
        return [cell for piece in self.pieces for cell in (piece if isinstance(piece, list) else map(_written, piece))]


def settled(columns: Sequence[Column], delimiter: str) -> Comma | None:
    """Return what a comma in a number is that could stand between thousands or before decimals: as in other columns."""
    commas = {column.comma() for column in columns}
    if "decimals" in commas and "groups" not in commas:
        return "decimals"
    if "groups" in commas or delimiter == "," or any(column.points for column in columns):
        return "groups"
    return "either"


def _count(bad: Sequence[tuple[int, str]], count: int, name: str) -> str:
    row, word = bad[0]
    what = "is no number" if len(bad) == 1 else "are no numbers"
    return f"{len(bad):,} of {count:,} values of '{name}' {what} ({word[:40]!r} in row {row}, counted from 0)"


def _are_dates(numbers: Array) -> bool:
    """Tell whether numbers are dates of eight digits, as 20240131."""
    filled = numbers[~np.isnan(numbers)]
    if not ((filled >= 19_000_101) & (filled <= 21_001_231)).all() or (filled != np.rint(filled)).any():
        return False
    months, days = filled // 100 % 100, filled % 100
    return bool(((months >= 1) & (months <= 12) & (days >= 1) & (days <= 31)).all())


def _values(count: int) -> str:
    return "1 value" if count == 1 else f"{count:,} values"


def _written(number: float) -> str:
    return "" if np.isnan(number) else f"{number:.17g}"
