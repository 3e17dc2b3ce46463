"""Numbers as people and programs write them: 1,234 or 1.234,5 or 12% or $3.00 or −0.5 or (7)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from expost.data.examples import Array

MISSING = frozenset((
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN",
    "N/A", "NA", "NULL", "NaN", "n/a", "nan", "null",
))  # fmt: skip
"""Cells that mean a missing value in any column."""

GAPS = MISSING | frozenset((
    "?", ".", "-", "--", "*", "<NA>", "None", "none", "NONE", "NaT", "N.A.", "n.a.", "na", "missing", "Missing",
    "unknown", "Unknown", "#DIV/0!", "#VALUE!", "#REF!", "#NUM!", "#NAME?", "#NULL!",
))  # fmt: skip
"""Cells that mean a missing value among numbers."""

BOOLEAN = {"true": 1.0, "True": 1.0, "TRUE": 1.0, "false": 0.0, "False": 0.0, "FALSE": 0.0}

Comma: TypeAlias = Literal["groups", "decimals", "either"]
"""What the commas in a number are: between groups of digits, before decimals, or possibly either."""

_MONEY = "$€£¥₹₽₩₺₴₪฿"
_GAP = " \u00a0\u202f\u2009'’"  # between groups of three digits
_MINUS = str.maketrans(dict.fromkeys("\u2212\u2013\uff0d\ufe63", "-"))
# each takes a time that is linear in the cell's length: no two parts could take the same digits
_PLAIN = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)(e[-+]?\d+)?", re.IGNORECASE)
_FORTRAN = re.compile(r"[-+]?(\d+\.\d*|\.\d+)D[-+]?\d+", re.IGNORECASE)
_MEASURE = re.compile(
    r"(?:(?:USD|EUR|GBP|CHF|JPY|CAD|AUD|US|Rs\.?|[<>~≈]=?)\s*)?([-+]?\d[\d.,]*)\s*([^\W\d_][^\s\d]*[²³]?|[°µ\"\u2032\u2033]\S{0,2})?"
)
_ORDINALS = frozenset(("st", "nd", "rd", "th"))
_SPECIAL = re.compile(r"[-+]?(inf|infinity)", re.IGNORECASE)
_COMMAS = re.compile(r"[-+]?[1-9]\d{0,2}(,\d{2,3})*,\d{3}(\.\d*)?")
_DECIMALS = re.compile(r"[-+]?\d*,\d+(e[-+]?\d+)?", re.IGNORECASE)
_POINTS = re.compile(r"[-+]?[1-9]\d{0,2}((\.\d{3})+,\d*|(\.\d{3}){2,})")
_SPACED = re.compile(rf"[-+]?[1-9]\d{{0,2}}([{_GAP}]\d{{3}})+([.,]\d*)?")
_POINT_GROUP = re.compile(r"[-+]?[1-9]\d{0,2}\.\d{3}")


@dataclass(frozen=True)
class Numeral:
    """A number as it was written.

    Attributes:
        body: Its digits, sign and separators, without what stands around them.
        dress: What stands around: a currency or %; empty for nothing.
        comma: What its commas are; None where it has none.
    """

    body: str
    dress: str = ""
    comma: Comma | None = None

    def value(self, comma: Comma | None) -> float:
        """Return the number, with commas that could be `either` taken as `comma`."""
        digits = re.sub(rf"(?<=\d)[{_GAP}](?=\d)", "", self.body)
        if (self.comma if self.comma != "either" else comma) == "decimals":
            return float(digits.replace(".", "").replace(",", "."))
        if self.comma is None and digits.count(".") > 1:
            return float(digits.replace(".", ""))
        return float(digits.replace(",", ""))


def numeral(cell: str) -> Numeral | None:
    """Recognize a number; None if a cell holds something else.

    Example:
        >>> numeral("$1,234.50"), numeral("12,5%").value("decimals"), numeral("(7)").value(None), numeral("7 cm")
        (Numeral(body='1,234.50', dress='$', comma='groups'), 12.5, -7.0, None)
    """
    text = cell.strip().translate(_MINUS)
    if _PLAIN.fullmatch(text) or _SPECIAL.fullmatch(text):
        return Numeral(text)
    if _FORTRAN.fullmatch(text):
        return Numeral(text.upper().replace("D", "e"))
    sign = ""
    if text.startswith("(") and text.endswith(")"):
        sign, text = "-", text[1:-1].strip()
    elif text[:1] in "+-" and text[1:2] in _MONEY and text[1:]:
        sign, text = text[0], text[1:]
    dress = ""
    if text and text[0] in _MONEY:
        dress, text = text[0], text[1:].strip()
    elif text and text[-1] in _MONEY + "%":
        dress, text = text[-1], text[:-1].strip()
    if sign and text[:1] in ("+", "-"):
        return None
    text = sign + text
    if _PLAIN.fullmatch(text):
        return Numeral(text, dress)
    commas, decimals = _COMMAS.fullmatch(text), _DECIMALS.fullmatch(text)
    if commas or decimals:
        return Numeral(text, dress, "either" if commas and decimals else "groups" if commas else "decimals")
    if _POINTS.fullmatch(text):
        return Numeral(text, dress, "decimals" if "," in text else None)
    if _SPACED.fullmatch(text):
        return Numeral(text, dress, "decimals" if "," in text else None)
    return None


def is_numeral(cell: str) -> bool:
    """Tell whether a cell holds a number, however it is written."""
    return numeral(cell) is not None


def is_plain(cell: str) -> bool:
    """Tell whether a cell holds a number as Python writes it."""
    return _PLAIN.fullmatch(cell) is not None


def are_measures(cells: Iterable[str]) -> bool:
    """Tell whether all cells hold a number with a unit beside it, the same few units throughout.

    Example:
        >>> are_measures(f"{size} cm" for size in range(9)), are_measures(["1st", "2nd"]), are_measures(["A1", "A2"])
        (True, False, False)
    """
    units, numbers = set(), set()
    for cell in cells:
        match = _MEASURE.fullmatch(cell)
        if match is None or is_numeral(cell):
            return False
        numbers.add(match.group(1))
        units.add(match.group(2) or "")
        if len(units) > 3:
            return False
    return len(numbers) > 5 and not units & _ORDINALS


def is_point_group(cell: str) -> bool:
    """Tell whether a plain number could be a whole one with a point between its groups of digits: 1.234."""
    return _POINT_GROUP.fullmatch(cell.strip()) is not None


def plain_numbers(cells: Sequence[str]) -> Array | None:
    """Return plain numbers as float64, a missing one as NaN; None if a cell holds something else."""
    joined = "".join(cells)
    if "_" in joined:  # which Python would take for a part of a number
        return None
    try:
        return np.array(cells, np.float64)  # 3 times as fast
    except ValueError:
        pass
    words = (cell.strip() for cell in cells)
    try:
        return np.array([np.nan if word in MISSING else float(word) for word in words], np.float64)
    except ValueError:
        return None


def comma_of(numerals: Iterable[Numeral]) -> Comma | None:
    """Return what the commas of numbers in one column are: settled by those that leave no choice.

    Raises:
        ValueError: if they contradict each other.
    """
    kinds = {each.comma for each in numerals if each.comma is not None}
    if {"groups", "decimals"} <= kinds:
        raise ValueError("commas between groups and before decimals")
    settled = kinds - {"either"}
    return settled.pop() if settled else "either" if kinds else None
