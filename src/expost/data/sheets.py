"""Delimited text (.csv, .tsv and the like): its encoding, delimiter, comments and header, told from its first rows."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice, pairwise
from pathlib import Path

import numpy as np

from expost.data.numerals import GAPS, is_numeral, is_plain
from expost.data.sheet_lines import (
    ALIKE,
    COMMENTS,
    DELIMITERS,
    OTHERS,
    USUAL,
    Comments,
    Row,
    are_quoted_whole,
    cells_of,
    delimiter_of,
    is_marked,
    is_numeric,
    is_prose,
    split_line,
    uncommented,
    without_quotes,
)
from expost.data.text import encoding_of, kind_of, lines_of
from expost.errors import DataError

PEEK = 200
"""Rows that are looked at before the others are read."""

SUFFIXES = (".csv", ".tsv", ".tab", ".psv", ".data", ".dat")
"""Suffixes of files of delimited text; each may be followed by .gz."""
_DECLARED = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)  # Excel's own first line
#: Lines of other widths that may stand above a table, as titles do.
_MOST_TITLES = 20
#: Most digits of a number that may name a column.
_DIGITS = 18


@dataclass(frozen=True)
class Sheet:
    """Rows of cells, as in a file; nothing is known yet of a header.

    Attributes:
        path: The file.
        delimiter: What separates cells; a space stands for any white space.
        head: The first rows, at most `PEEK`.
        rest: The others, to be read once.
        above: Cells of a comment right above the rows that names as many columns; None if there is none.
        remarks: What was recognized beyond the usual, one short clause each.
        comments: Counts the comments that were skipped, while the rows are read.
    """

    path: Path
    delimiter: str
    head: Sequence[Row]
    rest: Iterator[Row]
    above: list[str] | None = None
    remarks: tuple[str, ...] = ()
    comments: Comments = field(default_factory=Comments)

    def rows(self) -> Iterator[Row]:
        """Yield all rows, once."""
        return chain(self.head, self.rest)


def open_sheet(path: Path, longest: int | None = None, *, strings: bool = False) -> Sheet:
    """Recognize a table of text, and begin to read it; blank rows are none.

    The delimiter is the one of comma, semicolon, tab, bar and white space by which the rows have one width, of at least
    two, and most cells are numbers. Lines that begin with # (at the top also % or //) are comments, unless half of the
    lines do. Titles above the table, lines of another width than nearly all others, are skipped; but no line that could
    be a header of another width, as where decimal commas are not quoted.

    Args:
        path: The file.
        longest: Characters of the longest line; None for any.
        strings: Whether a column of strings is wanted: no line is a title then, and below a single name a line of words
            is one cell, whatever delimiters it has.

    Raises:
        DataError: if the file is empty, or no text.
        OSError: if it cannot be read.
    """
    lines = lines_of(path, longest)
    peeked = list(islice(lines, PEEK))
    unquoted = are_quoted_whole(peeked)
    if unquoted:
        lines, peeked = map(without_quotes, lines), list(map(without_quotes, peeked))
    text = [line for line in peeked if not line.isspace()]
    if not text:
        raise DataError(f"{path} is empty; give a table")
    begun = next((line for line in text if not line.startswith("%")), text[0]).lstrip().lower()
    for beginning, what in OTHERS.items():
        if begun.startswith(beginning):
            raise DataError(f"{path} is {what}")
    remarks = [f"read as {encoding}" for encoding in [encoding_of(path)] if encoding]
    remarks += ["quotation marks around whole lines taken off"] if unquoted else []
    declared = _DECLARED.fullmatch(text[0])
    top, begin = _top(peeked, declared is not None)
    body = [line for line in peeked[begin:] if not line.isspace()]
    marked = sum(map(is_marked, body))
    comments = Comments(("#",) if marked < 0.5 * len(body) else ())
    body = [line for line in body if not (comments.marks and is_marked(line))]
    delimiter = declared.group(1) if declared else delimiter_of(body, kind_of(path))
    comments.line = begin
    comments.top = len(top)
    whole = strings and not declared and is_prose(body, delimiter)
    rows = cells_of(path, uncommented(chain(peeked[begin:], lines), comments), delimiter, comments, whole)
    head = list(islice(rows, PEEK))
    if not head:
        raise DataError(f"{path} is a table of empty cells; fill it")
    width, count = Counter(len(row) for _, row in head).most_common(1)[0]
    titles = 0
    while titles < min(len(head), _MOST_TITLES) and len(head[titles][1]) != width and count >= ALIKE * len(head):
        titles += 1
    if 0 < titles < len(head) and width > 1 and not strings and not _counted(head):
        quoted = all(line.lstrip().startswith('"') for line in body[titles:])
        head, dropped = _without_titles(head, titles, width, delimiter, quoted)
        if dropped:
            remarks.append(f"skipped {_lines(len(dropped))} above the table ({_short(dropped[0])})")
    above = None
    if top:
        words = split_line(top[-1].lstrip().lstrip("#%/").strip(), delimiter)
        above = words if len(words) == width and width > 1 else None
        remarks.append(f"skipped {_lines(len(top))} of comments at the top ({top[0].strip()[:40]})")
    if delimiter != USUAL.get(kind_of(path), delimiter):
        remarks.append(f"separated by {DELIMITERS.get(delimiter, repr(delimiter))}")
    return Sheet(path, delimiter, head, rows, above, tuple(remarks), comments)


def is_sheet(path: Path) -> bool:
    """Tell whether a file of text without a telling suffix has rows of one width, most of whose cells are numbers.

    Most are two thirds where spaces separate them, as these stand in text, too; signs alone are no cells: 3 + 4 = 7.

    Raises:
        DataError: if it is no text.
        OSError: if it cannot be read.
    """
    sheet = open_sheet(path)
    widths = {len(row) for _, row in sheet.head}
    cells = [cell for _, row in sheet.head[1:] or sheet.head for cell in row]
    share = sum(is_numeral(cell) or cell.strip() in GAPS for cell in cells) / len(cells) if cells else 0.0
    if len(widths) > 1 or min(widths) < 2:
        return False
    if sheet.delimiter == " ":
        return share > 0.66 and all(cell == "?" or any(map(str.isalnum, cell)) for cell in cells)
    return share > 0.5


def _top(lines: Sequence[str], declared: bool) -> tuple[list[str], int]:
    """Return the comments at the top of a file, and the index of the first line that is none."""
    top: list[str] = []
    begin = 1 if declared else 0
    while begin < len(lines) and (lines[begin].isspace() or lines[begin].lstrip().startswith(COMMENTS)):
        top += [lines[begin]] if not lines[begin].isspace() else []
        begin += 1
    return (top, begin) if begin < len(lines) else ([], 0)


def _without_titles(
    head: Sequence[Row], titles: int, width: int, delimiter: str, quoted: bool
) -> tuple[list[Row], list[list[str]]]:
    """Return the rows without what stands above the table, and that; a header that is a cell short stays.

    A first line with a cell less than the rows names all columns but that of the rows' names, as R writes it; rows
    may instead end in a delimiter, so that their last cell is empty. A row of numbers is no title, and neither is what
    could be a header of another width: it stays, so that the rows below are refused.

    Args:
        head: The rows.
        titles: How many of the first have another width than the others.
        width: Cells of the others.
        delimiter: What separates them.
        quoted: Whether all of these rows begin with a quotation mark.
    """
    last = head[titles - 1][1]
    body = head[titles:]
    above = [row for _, row in head[:titles]]
    data = body[0][1]
    if any(len(row) > 1 and all(is_numeral(cell) for cell in row) for row in above):
        return list(head), []
    if any(is_numeral(cell) for cell in data):
        if len(last) == width - 1 and not any(is_numeral(cell) for cell in last):
            rows = [row for _, row in body if len(row) == width]
            if all(not row[-1].strip() for row in rows):
                return [(head[titles - 1][0], [*last, ""]), *body], above[:-1]
            if quoted or _are_names([row[0].strip() for row in rows], delimiter):
                return [(head[titles - 1][0], ["", *last]), *body], above[:-1]
        if _is_header(last, body, delimiter):
            return list(head[titles - 1 :]), above[:-1]
    return list(body), above


def _are_names(cells: Sequence[str], delimiter: str) -> bool:
    """Tell whether a first column without a title can name the rows: by words, or by different whole numbers.

    Between commas numbers do not: the first one may be the whole part of a number with a decimal comma.
    """
    if not any(is_numeral(cell) for cell in cells):
        return True
    return delimiter != "," and all(map(_is_whole, cells)) and len(set(cells)) == len(cells)


def _is_header(last: Sequence[str], body: Sequence[Row], delimiter: str) -> bool:
    """Tell whether a line right above rows of numbers could be a header of another width, not a title."""
    filled = [cell for cell in last if cell.strip()]
    if len(filled) > 1:
        return not any(map(is_numeral, filled))
    return delimiter == "," and all(len(row) == 2 and is_numeral(",".join(row)) for _, row in body)


def refuse_ragged(sheet: Sheet, rows: Sequence[Row], width: int) -> None:
    """Refuse rows of another width than the first one of their sheet.

    Raises:
        DataError: naming the first such row, and what may be the cause.
    """
    for line, row in rows:
        if len(row) != width:
            advice = "complete or remove that row"
            if len(row) > width:
                held = DELIMITERS.get(sheet.delimiter, repr(sheet.delimiter))
                decimals = ", decimal commas too," if sheet.delimiter == "," else ""
                advice = f"line {sheet.head[0][0]} has {width}; quote cells with {held} in them{decimals} or {advice}"
            raise DataError(f"{sheet.path}, line {line}: {len(row)} of {width} columns; {advice}")


@dataclass(frozen=True)
class Header:
    """The columns of a sheet.

    Attributes:
        names: Their names; f0, f1, ... where the file has none.
        titled: Whether the file names them.
        skip: How many of the first rows are no data.
        classes: Names of the classes 0, 1, ... in the last column, where the first line counts rows and columns.
        remarks: What was decided beyond the usual, one short clause each.
    """

    names: Sequence[str]
    titled: bool
    skip: int
    classes: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


def header_of(sheet: Sheet) -> Header:
    """Tell whether the first row of a table names its columns.

    It does if a word in it stands above numbers, and no number does. It is data if its numbers stand above numbers and
    its words, if any, above words, or are marks of a missing value. Numbers that count or ascend in whole steps, as 0,
    1, 2 or 2019, 2020, may be names, as may a scale in equal steps above fractions.

    Raises:
        DataError: if it mixes names and numbers in another way.
    """
    first = [cell.strip() for cell in sheet.head[0][1]]
    if classes := _counted(sheet.head):
        said = f"line 1 counts {first[0]} rows and {first[1]} columns, and names {len(classes)} classes"
        return Header([f"f{index}" for index in range(len(sheet.head[1][1]))], False, 1, classes, (said,))
    body = [row for _, row in sheet.head[1:] if len(row) == len(first)]
    numbered = [f"f{index}" for index in range(len(first))]
    numeric = [is_numeric([row[index] for row in body]) for index in range(len(first))]
    words = [index for index, cell in enumerate(first) if cell and not is_numeral(cell)]
    gaps = [index for index in words if first[index] in GAPS]
    names = [index for index in words if index not in gaps and numeric[index]]
    numbers = [index for index, cell in enumerate(first) if cell and is_numeral(cell) and cell not in GAPS]
    values = [first[index] for index in numbers]
    if sheet.above is not None and not names and numbers:
        return Header([word.strip() for word in sheet.above], True, 0, (), ("columns named by the comment above",))
    if not numbers:
        return Header(first, True, 1)
    years = all(len(value) == 4 for value in values)
    if not words and "" not in first:
        fractions = [any(not _is_whole(row[index]) for row in body) for index in numbers]
        counts = (
            _ascend(values, least=4) or _is_scale(values) or (years and all(fractions) and _ascend(values, least=2))
        )
        if counts and any(fractions):
            return Header(first, True, 1, (), (f"line 1 ({values[0]}, {values[1]}, ...) taken for names",))
        return Header(numbered, False, 0)
    if names and not _ascend(values, least=1):
        raise DataError(
            f"{sheet.path}, line {sheet.head[0][0]} is neither names nor numbers: {first[numbers[0]]!r} is a number, "
            f"{first[names[0]]!r} stands above numbers; correct or remove that line"
        )
    if names or (not gaps and _ascend(values, least=2 if years else 3) and not _recurs(first, words, body)):
        return Header(first, True, 1, (), (f"line 1 ({', '.join(first)[:40]}) taken for names",) if numbers else ())
    if "" in first and not words and first[0] == "" and "" not in first[1:]:
        return Header(first, True, 1)  # as pandas writes a table of numbered columns
    return Header(numbered, False, 0, (), ("line 1 holds no names: columns are called f0, f1, ...",))


def _counted(head: Sequence[Row]) -> tuple[str, ...]:
    """Return the names of classes in a first line that counts rows and columns: 150,4,setosa,versicolor,virginica."""
    first = [cell.strip() for cell in head[0][1]]
    width = Counter(len(row) for _, row in head[1:]).most_common(1)
    if not width or len(first) < 3 or not all(cell.isdecimal() for cell in first[:2]):
        return ()
    known = len(head) - 1
    counts = int(first[0]) == known or (known == PEEK - 1 and int(first[0]) > known)
    named = [cell for cell in first[2:] if cell]
    fits = counts and int(first[1]) == width[0][0] - 1
    return tuple(named) if fits and named and not any(map(is_numeral, named)) else ()


def _ascend(values: Sequence[str], least: int) -> bool:
    """Tell whether some numbers are whole, and each is one more than the one before."""
    if len(values) < least or not all(value.isdecimal() and len(value) <= _DIGITS for value in values):
        return False
    return all(int(after) == int(before) + 1 for before, after in pairwise(values))


def _is_scale(values: Sequence[str]) -> bool:
    """Tell whether some numbers, at least five, go up or down in equal steps, as wavelengths and times do."""
    steps = np.diff(np.array(values, np.float64)) if len(values) > 4 and all(map(is_plain, values)) else np.zeros(1)
    return bool(steps[0] and np.isfinite(steps).all() and np.allclose(steps, steps[0], rtol=1e-6, atol=0))


def _recurs(first: Sequence[str], words: Sequence[int], body: Sequence[Sequence[str]]) -> bool:
    return any(row[index].strip() == first[index] for index in words for row in body)


def _is_whole(cell: str) -> bool:
    return cell.strip().lstrip("+-").isdecimal()


def _lines(count: int) -> str:
    return "1 line" if count == 1 else f"{count} lines"


def _short(row: Sequence[str]) -> str:
    return " ".join(cell for cell in row if cell)[:40]
