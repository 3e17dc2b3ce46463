"""Lines of a sheet as cells: comments, quotes, and what separates the cells."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from expost.data.numerals import BOOLEAN, GAPS, is_numeral
from expost.errors import DataError

Row: TypeAlias = tuple[int, list[str]]
"""The number of a row's last line, and its cells."""

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars", " ": "spaces", "~": "tildes", "^": "carets"}
#: Delimiters that stand in text, too: taken only between numbers.
_IN_TEXT = " ~^"
USUAL = {".csv": ",", ".tsv": "\t", ".tab": "\t", ".psv": "|"}
COMMENTS = ("#", "%", "//")
_QUOTED = re.compile(r'"[^"]*"|\S+')
#: How files begin that are no tables, whatever they are called.
OTHERS = {
    "<!doctype html": "a page of HTML; download the file itself",
    "<html": "a page of HTML; download the file itself",
    "@relation": "ARFF; convert it to a table (scipy.io.arff.loadarff reads it)",
    '{"': "JSON; convert it to a table",
    "[{": "JSON; convert it to a table",
    "version https://git-lfs": "a pointer of Git LFS; fetch the file with: git lfs pull",
}
#: The share of rows that must have one width.
ALIKE = 0.8


@dataclass
class Comments:
    """Which lines of a file are comments, and how many were skipped.

    Attributes:
        marks: What such lines begin with; empty where there are none.
        top: How many stand above the table.
        skipped: How many others were skipped.
        line: The number of the line that was read last.
    """

    marks: tuple[str, ...] = ()
    top: int = 0
    skipped: int = 0
    line: int = 0


def are_quoted_whole(lines: Sequence[str]) -> bool:
    """Tell whether all lines stand in quotation marks, and have several cells in them, most of which are numbers."""
    filled = [line.strip() for line in lines if not line.isspace()]
    if len(filled) < 2 or any(len(x) < 2 or x[0] != '"' or x[-1] != '"' or '"' in x[1:-1] for x in filled):
        return False
    inside = [line[1:-1] for line in filled]
    rows = [split_line(line, delimiter_of(inside, ".csv")) for line in inside]
    cells = [cell for row in rows[1:] for cell in row]
    return len({len(row) for row in rows}) == 1 < len(rows[0]) and sum(map(is_numeral, cells)) > 0.5 * len(cells)


def without_quotes(line: str) -> str:
    """Return a line without the quotes around the whole of it."""
    text = line.strip()
    return f"{text[1:-1]}\n" if len(text) > 1 and text[0] == '"' == text[-1] else line


def is_marked(line: str) -> bool:
    """Tell whether a line begins with a number sign."""
    return line.lstrip().startswith("#")


def uncommented(lines: Iterator[str], comments: Comments) -> Iterator[str]:
    """Yield the lines that are no comments, and count the others."""
    for line in lines:
        comments.line += 1
        if comments.marks and line.lstrip().startswith(comments.marks):
            comments.skipped += 1
        else:
            yield line


def cells_of(
    path: Path, lines: Iterator[str], delimiter: str, comments: Comments, whole: bool = False
) -> Iterator[Row]:
    """Yield the rows that are not blank; if `whole`, a row of several cells as one."""
    raw: list[str] = []
    source = _noted(lines, raw) if whole else lines
    try:
        rows = (
            map(_words, source) if delimiter == " " else csv.reader(source, delimiter=delimiter, skipinitialspace=True)
        )
        for row in rows:
            if any(cell and not cell.isspace() for cell in row):
                yield comments.line, ["".join(raw).strip()] if whole and len(row) > 1 else row
            raw.clear()
    except csv.Error as error:
        raise DataError(f"{path}, line {comments.line}: {error}; is a quotation mark not closed?") from None


def _noted(lines: Iterator[str], raw: list[str]) -> Iterator[str]:
    """Yield lines, and add each to a list before."""
    for line in lines:
        raw.append(line)
        yield line


def is_prose(lines: Sequence[str], delimiter: str) -> bool:
    """Tell whether the first line has one cell, and few cells below are numbers."""
    try:
        rows = [row for row in (split_line(line, delimiter) for line in lines) if row]
    except csv.Error:
        return False
    cells = [cell for row in rows[1:] for cell in row]
    return len(rows) > 1 and len(rows[0]) == 1 and sum(map(is_numeral, cells)) < 0.5 * len(cells)


def _words(line: str) -> list[str]:
    """Return what white space separates, with quotes around it taken off."""
    if '"' not in line:
        return line.split()
    return [word[1:-1] if word[0] == '"' == word[-1] and len(word) > 1 else word for word in _QUOTED.findall(line)]


def split_line(line: str, delimiter: str) -> list[str]:
    """Return the cells of one line."""
    if delimiter == " ":
        return _words(line)
    return next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])


def delimiter_of(lines: Sequence[str], kind: str) -> str:
    """Return what separates the cells of most lines; where nothing does, the suffix's usual delimiter."""
    usual = USUAL.get(kind, ",")
    best, found = 0.0, usual
    numeric = 0.0  # the share of numbers by the best one
    for delimiter in dict.fromkeys([usual, *DELIMITERS]):
        try:
            rows = [row for row in (split_line(line, delimiter) for line in lines) if row]
        except csv.Error:
            continue
        if not rows:
            continue
        width, count = Counter(map(len, rows)).most_common(1)[0]
        cells = [cell for row in rows[1:] or rows for cell in row if len(row) == width]
        typed = sum(is_numeral(cell) or cell.strip() in GAPS or cell.strip() in BOOLEAN for cell in cells)
        numbers = typed / max(1, len(cells))
        score = count / len(rows) + numbers
        if width < 2 or count < ALIKE * len(rows):
            continue
        if delimiter in _IN_TEXT and (count < len(rows) - 1 or numbers < (0.9 if numeric else 0.5)):
            continue
        if score > best + 1e-9:
            best, found, numeric = score, delimiter, numbers
    return found


def is_numeric(cells: Sequence[str]) -> bool:
    """Tell whether most of a column's cells, those without a value aside, are numbers."""
    filled = [cell for cell in cells if cell.strip() and cell.strip() not in GAPS]
    return bool(filled) and sum(map(is_numeral, filled)) > 0.5 * len(filled)
