"""The column of strings of a table: found by its name, or by what it holds."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from expost.data.description import listing
from expost.data.examples import POOL
from expost.data.notations import NOTATIONS, Domain, guess_domain, looks_like_smiles
from expost.data.numerals import GAPS, is_numeral
from expost.data.sheets import SUFFIXES, Sheet, open_sheet, refuse_ragged
from expost.data.splits import SPLIT_WORDS, parts_in_column, words_of
from expost.data.table_labels import named
from expost.data.text import LONGEST, plain
from expost.errors import DataError

TABLES = SUFFIXES
"""Suffixes of tables; each may be followed by .gz."""

STRING_COLUMNS = ("string", "strings", "expression", "expressions", "equation", "sequence", "text")
"""Columns that are taken for the strings if they hold text and none is of SMILES, in any case, best first."""

#: A column with more different values among its first ones does not divide the rows.
_MOST_PARTS = 20
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


@dataclass(frozen=True)
class Head:
    """The first rows of a table, as text.

    Attributes:
        name: What errors call the table.
        names: The names of its columns.
        rows: Its first rows; cells of columns that cannot hold strings are numbers.
    """

    name: str
    names: Sequence[str]
    rows: Sequence[Sequence[str]]

    def cells(self, index: int) -> list[str]:
        """Return the cells of a column, without those of rows that are too short."""
        return [row[index].strip() for row in self.rows if len(row) > index]


@dataclass(frozen=True)
class Chosen:
    """The column of strings of a table.

    Attributes:
        index: Which one.
        headless: Whether what should be its name is a string like the others.
        domain: What the strings are, where the column says it.
    """

    index: int
    headless: bool = False
    domain: Domain | None = None

    def remarks(self, names: Sequence[str], besides: Collection[str] = ()) -> list[str]:
        """Say which column is taken, and which others are left out; nothing of a column alone.

        Args:
            names: The names of the columns.
            besides: Columns that are of use otherwise.
        """
        if len(names) == 1:
            return []
        title = f"column {self.index + 1}" if self.headless else f"column '{names[self.index]}'"
        others = [name for index, name in enumerate(names) if index != self.index and name not in besides]
        if self.headless:
            return [f"strings of {title} of {len(names)}"]
        return [f"strings of {title}", *([f"left out {listing(others, 'column')}"] if others else [])]


def read_column(
    path: Path, column: str | None, *, divide: bool
) -> tuple[dict[str, Sequence[str]], list[str], Domain | None]:
    """Read one column of a table of delimited text; see `choose`.

    No row may have more cells than the first, empty ones aside; below a single name, each line is a string. For
    delimiters and comments see `open_sheet`.

    Args:
        path: The table.
        column: Name of the column, in any case; None to find it.
        divide: Whether a column that names parts (see `parts_in_column`) divides the rows.

    Returns:
        Strings by part ("all" if undivided), blank ones included; remarks; and what the column says the strings are.

    Raises:
        UsageError: if there is no such column.
        DataError: for what is no table, and where it is unclear which column to read.
    """
    sheet = open_sheet(path, LONGEST, strings=True)
    header = [cell.strip() for cell in sheet.head[0][1]]
    _refuse_title(sheet, header)
    head = _head(sheet)
    chosen = choose(head, column)
    index, split = chosen.index, dividing(head, chosen.index) if divide and not chosen.headless else None
    strings: list[str] = []
    words: list[str] = []
    for line, row in chain(sheet.head if chosen.headless else sheet.head[1:], sheet.rest):
        if len(row) <= max(index, split or 0) or any(map(str.strip, row[len(header) :])):
            refuse_ragged(sheet, [(line, row)], len(header))
        string = row[index].strip()
        if "\n" in string:
            raise DataError(f"{path}, line {line}: a string with line breaks; is a quotation mark not closed?")
        strings.append(string)
        words += [] if split is None else [row[split].strip()]
    parts, said = divided(strings, words, "" if split is None else header[split])
    besides = [] if split is None or POOL in parts else [header[split]]
    return parts, [*sheet.remarks, *chosen.remarks(header, besides), *said], chosen.domain


def dividing(head: Head, strings: int) -> int | None:
    """Return the column that says which part each row is of, if there is one.

    Args:
        head: The table.
        strings: The column of strings, which is another.
    """
    for index, name in enumerate(head.names):
        words = sorted(set(head.cells(index)))
        named = not SPLIT_WORDS.isdisjoint(words_of(name))  # its first rows may all be of one part, of any name
        if index != strings and len(words) <= _MOST_PARTS and (named or parts_in_column(name, words) is not None):
            return index
    return None


def divided(strings: Sequence[str], words: Sequence[str], column: str) -> tuple[dict[str, Sequence[str]], list[str]]:
    """Divide strings by what stands beside them; also return what is left out.

    Args:
        strings: The strings.
        words: What the column that divides them holds; empty where there is none.
        column: The name of this column.

    Returns:
        Strings by part: all in one, "all", where nothing says which is for training.
    """
    kinds = parts_in_column(column, dict.fromkeys(words))
    if kinds is None:
        return {POOL: strings}, []
    parts: dict[str, list[str]] = {}
    left: Counter[str] = Counter()
    for string, word in zip(strings, words, strict=True):
        part = kinds[word]
        if part is None:
            left[word] += 1
        else:
            parts.setdefault(part, []).append(string)
    remarks = [f"left out {count:,} rows of part '{word[:40]}'" for word, count in left.items()]
    return dict(parts), [f"parts by column '{column}'", *remarks]


def _head(sheet: Sheet) -> Head:
    names = [cell.strip() for cell in sheet.head[0][1]]
    return Head(str(sheet.path), names, [row for _, row in sheet.head[1:]])


def _refuse_title(sheet: Sheet, header: Sequence[str]) -> None:
    """Refuse a line of one cell above one that names a column of strings among others: each line would be a string."""
    if len(header) > 1 or len(sheet.head) < 2:
        return
    line, row = sheet.head[1]
    cells = next(csv.reader(row[0].splitlines()[:1], delimiter=sheet.delimiter, skipinitialspace=True), [])
    if len(cells) > 1 and any(plain(cell) in ("smiles", *STRING_COLUMNS) for cell in cells):
        raise DataError(
            f"{sheet.path}, line {line}: {len(cells)} names of columns below '{header[0][:40]}'; remove the lines above"
        )


def has_strings(path: Path) -> bool:
    """Tell whether a table of delimited text has a column of strings; see `strings_in`.

    Raises:
        DataError: for what is no table.
    """
    sheet = open_sheet(path, LONGEST, strings=True)
    return strings_in(_head(sheet), all(len(row) == 1 for _, row in sheet.head))


def strings_in(head: Head, alone: bool) -> bool:
    """Tell whether a table has a column of SMILES or of `STRING_COLUMNS`, or one column alone, with text in it.

    Args:
        head: The table.
        alone: Whether no row has more than one cell.
    """
    texts = _texts(head)
    if _called(head) or any(plain(head.names[i]) in STRING_COLUMNS for i in texts):
        return True
    if any(share_of_smiles(head.cells(i)) > _MOST for i in texts):
        return True
    return len(head.names) == 1 and bool(texts) and alone


def _texts(head: Head) -> list[int]:
    """Return the columns with text in them: cells that are neither numbers nor marks of missing values."""
    found = []
    for index, name in enumerate(head.names):
        cells = head.cells(index) or [name]
        if any(cell not in GAPS and not is_numeral(cell) for cell in cells):
            found.append(index)
    return found


def _called(head: Head) -> list[int]:
    """Return the columns called SMILES that do not hold numbers."""
    filled = {index: [cell for cell in head.cells(index) if cell not in GAPS] for index in range(len(head.names))}
    return [
        i
        for i, cells in filled.items()
        if is_smiles_name(head.names[i]) and not (cells and all(map(is_numeral, cells)))
    ]


def choose(head: Head, column: str | None) -> Chosen:
    """Return the column of strings of a table.

    That is `column`, else one called SMILES, else the first of `STRING_COLUMNS` that is there and holds text, else the
    one whose cells look most like SMILES, if half of them do, else the only one with text in it. The first line is no
    header if it looks like an expression or a molecule as the others do.

    Args:
        head: The table.
        column: Name of the column, in any case; None to find it.

    Raises:
        UsageError: if there is no such column.
        DataError: where it is unclear which column to read.
    """
    if column is not None:
        index = head.names.index(named(column, head.names, head.name))
        smiles = is_smiles_name(head.names[index]) or share_of_smiles(head.cells(index)) > _MOST
        return Chosen(index, domain="molecules" if smiles else None)
    texts = _texts(head)
    rated = {index: share_of_smiles(head.cells(index)) for index in texts}
    if called := _called(head):
        rate = {index: rated.get(index, 0.0) for index in called}
        best = max(called, key=lambda index: (rate[index] > _MOST, plain(head.names[index]) == "smiles", -index))
        return Chosen(best, domain="molecules" if rate[best] > _MOST else None)
    for name in STRING_COLUMNS:
        for index in texts:
            if plain(head.names[index]) == name:
                return Chosen(index)
    alike = [index for index in texts if rated[index] > _MOST]
    if alike:
        texts = [max(alike, key=lambda index: rated[index])]
    if not texts:
        listed = ", ".join(name or "(unnamed)" for name in head.names[:20])
        raise DataError(f"{head.name} has no column of text, only {listed}; give a column named smiles, string or text")
    if len(texts) > 1:
        unclear = ", ".join(head.names[i] or "(unnamed)" for i in texts[:20])
        raise DataError(
            f"{head.name}: the strings could be in any of the columns {unclear}; choose one by --column (column=)"
        )
    domain = "molecules" if alike else guess_domain(head.cells(texts[0]))
    recognized = NOTATIONS[domain].matches is not None
    headless = recognized and guess_domain([head.names[texts[0]]]) == domain
    return Chosen(texts[0], headless, domain if alike else None)
