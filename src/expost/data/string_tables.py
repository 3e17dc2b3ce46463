"""The column of strings of a table: found by its name, or by what it holds."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from expost.data.examples import POOL
from expost.data.notations import NOTATIONS, Domain, guess_domain, looks_like_smiles
from expost.data.numerals import GAPS, is_numeral
from expost.data.sheets import SUFFIXES, Sheet, open_sheet, refuse_ragged
from expost.data.splits import PART_WORDS
from expost.data.table_labels import named
from expost.data.tables import SPLIT_COLUMNS
from expost.data.text import LONGEST, plain
from expost.errors import DataError

TABLES = SUFFIXES
"""Suffixes of tables; each may be followed by .gz."""

STRING_COLUMNS = ("string", "strings", "expression", "expressions", "equation", "sequence", "text")
"""Columns that are taken for the strings if they hold text and none is of SMILES, in any case, best first."""

#: The share of a column's cells that look like SMILES, and of those with a bond, a branch, a ring or brackets in them.
_MOST, _STRUCTURED = 0.5, 0.3
_STRUCTURE = re.compile(r"[=#()\[\]]|(\d)[A-Za-z].*\1")
_BRACKETS = re.compile(r"\[[^\]]*\]|%\d\d|%\(\d+\)")


def is_smiles_name(name: str) -> bool:
    """Tell whether a column is called SMILES, with whatever words beside it.

    Example:
        >>> [is_smiles_name(name) for name in ("SMILES", "Canonical Smiles", "isomericSMILES", "smile", "smiling")]
        [True, True, True, True, False]
    """
    return re.search(r"smiles?$|(^|[^a-z])smiles?([^a-z]|$)", plain(name)) is not None


def share_of_smiles(cells: Sequence[str]) -> float:
    """Return the share of the cells that look like SMILES; 0 where too few have more to them than a chain of letters.

    Example:
        >>> share_of_smiles(["CCO", "c1ccccc1", "N->[Pt]"]) > 0.6, share_of_smiles(["CHEMBL25", "CHEMBL26"])
        (True, 0.0)
    """
    filled = [cell.strip() for cell in cells if cell.strip()]
    alike = [cell for cell in filled if looks_like_smiles(cell) and _rings_close(cell)]
    structured = sum(_STRUCTURE.search(cell) is not None for cell in alike)
    return len(alike) / len(filled) if alike and structured >= _STRUCTURED * len(alike) else 0.0


def _rings_close(smiles: str) -> bool:
    digits = Counter(each for each in _BRACKETS.sub("", smiles) if each.isdigit())
    return all(count % 2 == 0 for count in digits.values())


def read_column(
    path: Path, column: str | None, *, divide: bool
) -> tuple[dict[str, list[str]], list[str], Domain | None]:
    """Read one column of a table.

    That is `column`, else one called SMILES, else the first of `STRING_COLUMNS` that is there and holds text, else the
    one whose cells look most like SMILES, if half of them do, else the only one with text in it. The first line is no
    header if it looks like an expression or a molecule as the others do. No row may have more cells than the first,
    empty ones aside; below a single name, each line is a string. For delimiters and comments see `open_sheet`.

    Args:
        path: The table.
        column: Name of the column, in any case; None to find it.
        divide: Whether a column of `SPLIT_COLUMNS` that names a training part divides the rows.

    Returns:
        Strings by part ("all" if undivided), blank ones included; remarks; and what the column says the strings are.

    Raises:
        UsageError: if there is no such column.
        DataError: for what is no table, and where it is unclear which column to read.
    """
    sheet = open_sheet(path, LONGEST, strings=True)
    header = [cell.strip() for cell in sheet.head[0][1]]
    _refuse_title(sheet, header)
    index, headless, domain = _choose(sheet, header, column)
    split = next((i for i, name in enumerate(header) if plain(name) in SPLIT_COLUMNS), None) if divide else None
    values: dict[str, list[str]] = {}
    for line, row in chain(sheet.head if headless else sheet.head[1:], sheet.rest):
        if len(row) <= max(index, split or 0) or any(map(str.strip, row[len(header) :])):
            refuse_ragged(sheet, [(line, row)], len(header))
        string = row[index].strip()
        if "\n" in string:
            raise DataError(f"{path}, line {line}: a string with line breaks; is a quotation mark not closed?")
        values.setdefault("" if split is None else plain(row[split]), []).append(string)
    title = f"column {index + 1}" if headless else f"column '{header[index]}'"
    remarks = [*sheet.remarks, *([f"strings of {title}"] if len(header) > 1 else [])]
    if not any(PART_WORDS.get(value) == "train" for value in values):
        return {POOL: list(chain.from_iterable(values.values()))}, remarks, domain
    parts: dict[str, list[str]] = {}
    for value, strings in values.items():
        if value in PART_WORDS:
            parts.setdefault(PART_WORDS[value], []).extend(strings)
        else:
            remarks.append(f"left out {len(strings):,} rows of part '{value[:40]}'")
    return parts, remarks, domain


def _refuse_title(sheet: Sheet, header: Sequence[str]) -> None:
    """Refuse a line of one cell above one that names a column of strings among others: each line would be a string."""
    if len(header) > 1 or len(sheet.head) < 2:
        return
    line, row = sheet.head[1]
    cells = next(csv.reader(row[:1], delimiter=sheet.delimiter, skipinitialspace=True))
    if len(cells) > 1 and any(plain(cell) in ("smiles", *STRING_COLUMNS) for cell in cells):
        raise DataError(
            f"{sheet.path}, line {line}: {len(cells)} names of columns below '{header[0][:40]}'; remove the lines above"
        )


def has_strings(path: Path) -> bool:
    """Tell whether a table has a column of SMILES or of `STRING_COLUMNS`, or one column alone, with text in it.

    Raises:
        DataError: for what is no table.
    """
    sheet = open_sheet(path, LONGEST, strings=True)
    header = [cell.strip() for cell in sheet.head[0][1]]
    texts = _texts(sheet, header)
    if _called(sheet, header) or any(plain(header[i]) in STRING_COLUMNS for i in texts):
        return True
    if any(share_of_smiles(_cells(sheet, i)) > _MOST for i in texts):
        return True
    return len(header) == 1 and bool(texts) and all(len(row) == 1 for _, row in sheet.head)


def _cells(sheet: Sheet, index: int) -> list[str]:
    return [row[index].strip() for _, row in sheet.head[1:] if len(row) > index]


def _texts(sheet: Sheet, header: Sequence[str]) -> list[int]:
    """Return the columns with text in them: cells that are neither numbers nor marks of missing values."""
    found = []
    for index in range(len(header)):
        cells = _cells(sheet, index) or [header[index]]
        if any(cell not in GAPS and not is_numeral(cell) for cell in cells):
            found.append(index)
    return found


def _called(sheet: Sheet, header: Sequence[str]) -> list[int]:
    """Return the columns called SMILES that do not hold numbers."""
    filled = {index: [cell for cell in _cells(sheet, index) if cell not in GAPS] for index in range(len(header))}
    return [
        i for i, cells in filled.items() if is_smiles_name(header[i]) and not (cells and all(map(is_numeral, cells)))
    ]


def _choose(sheet: Sheet, header: Sequence[str], column: str | None) -> tuple[int, bool, Domain | None]:
    """Return the index of the column of strings, whether the first line is a row, and what the strings are."""
    if column is not None:
        index = header.index(named(column, header, str(sheet.path)))
        smiles = is_smiles_name(header[index]) or share_of_smiles(_cells(sheet, index)) > _MOST
        return index, False, "molecules" if smiles else None
    texts = _texts(sheet, header)
    rated = {index: share_of_smiles(_cells(sheet, index)) for index in texts}
    if called := _called(sheet, header):
        rate = {index: rated.get(index, 0.0) for index in called}
        best = max(called, key=lambda index: (rate[index] > _MOST, plain(header[index]) == "smiles", -index))
        return best, False, "molecules" if rate[best] > _MOST else None
    for name in STRING_COLUMNS:
        for index in texts:
            if plain(header[index]) == name:
                return index, False, None
    alike = [index for index in texts if rated[index] > _MOST]
    if alike:
        texts = [max(alike, key=lambda index: rated[index])]
    if not texts:
        listing = ", ".join(name or "(unnamed)" for name in header[:20])
        raise DataError(
            f"{sheet.path} has no column of text, only {listing}; give a column named smiles, string or text"
        )
    if len(texts) > 1:
        unclear = ", ".join(header[i] or "(unnamed)" for i in texts[:20])
        raise DataError(
            f"{sheet.path}: the strings could be in any of the columns {unclear}; choose one by --column (column=)"
        )
    domain = "molecules" if alike else guess_domain(_cells(sheet, texts[0]))
    recognized = NOTATIONS[domain].matches is not None
    headless = recognized and guess_domain([header[texts[0]]]) == domain
    return texts[0], headless, domain if alike else None
