"""Parts shared by all codecs: packed integer types, the record of a refused string, and checks of arguments."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from expost.errors import UsageError

END_OF_STRING = "end of string"


@dataclass(frozen=True)
class Rejection:
    """Why a string could not be encoded.

    Attributes:
        index: Its place among the strings that were given.
        text: The string; for what is not a string, its `repr`.
        position: The character at which it fails, len(text) for its end; None where the reason is another one.
        expected: What could have stood at `position`: terminals or tokens, and "end of string"; nothing where a budget
            was exceeded there.
        reason: What is wrong, in words that are the same for all strings with that fault.
        needed: How many symbols it takes, where that is known and too many.

    Example:
        >>> print(Rejection(4, "x+*1", 2, ("x", "1"), "does not parse"))
        string 4, 'x+*1': does not parse at position 2, '*': expected 'x' or '1'
    """

    index: int
    text: str
    position: int | None
    expected: tuple[str, ...]
    reason: str
    needed: int | None = None

    def __str__(self) -> str:
        """Return one line: which string, what is wrong, where, and what was expected there."""
        return f"string {self.index}, {self.fault()}"

    def fault(self) -> str:
        """Return the line without the string's index."""
        return f"{_clip(self.text)!r}: {self.reason}{self._where()}"

    def example(self) -> str:
        """Return the string and where it fails, without the reason, for a list of those with the same."""
        return f"{_clip(self.text)!r}{self._where()}"

    def _where(self) -> str:
        line = "" if self.needed is None else f": it needs {self.needed}"
        if self.position is None:
            return line
        line += f" at position {self.position}"
        line += f", {self.text[self.position]!r}" if self.position < len(self.text) else ", its end"
        if not self.expected:
            return f"{line}: shorten it, or make the grammar less ambiguous"
        names = [name if name == END_OF_STRING else repr(name) for name in self.expected]
        if len(names) > 12:
            names = [*names[:11], f"{len(names) - 11} others"]
        return f"{line}: expected {' or '.join([', '.join(names[:-1]), names[-1]] if names[1:] else names)}"


def _clip(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}..."


def as_strings(strings: Iterable[Any]) -> list[Any]:
    """Return `strings` as a list; its entries are checked later, one by one.

    Raises:
        UsageError: if it is one string or not a collection.
    """
    if isinstance(strings, str | bytes) or not isinstance(strings, Iterable):
        raise UsageError(f"strings is one {type(strings).__name__}; give a list of strings")
    return list(strings)


def check_length(length: int) -> int:
    """Return `length`, symbols a row.

    Raises:
        UsageError: if it is not a whole number from 1 to a million.
    """
    if isinstance(length, bool) or not isinstance(length, int | np.integer) or not 1 <= length <= 1_000_000:
        raise UsageError(f"length={length!r}; give a whole number from 1 to 1000000, the symbols of the longest string")
    return int(length)


def check_indices(indices: NDArray[Any], size: int) -> None:
    """Refuse an array that is not a table of symbols.

    Raises:
        UsageError: unless `indices` has shape (N, L), L at least 1, and holds integers 0..size - 1.
    """
    if indices.ndim != 2 or indices.dtype.kind not in "iu" or indices.shape[1] == 0:
        raise UsageError(f"indices have shape {indices.shape} and type {indices.dtype}; give integers of shape (N, L)")
    if indices.size and not (indices.min() >= 0 and indices.max() < size):
        raise UsageError(
            f"indices go from {indices.min()} to {indices.max()}; the symbols are 0 to {size - 1}: were they made with "
            "another grammar or alphabet?"
        )


def index_type(size: int) -> type[np.integer[Any]]:
    """Return the smallest integer type for `size` symbols that torch has: uint8, int16 or int32.

    Example:
        >>> index_type(256).__name__, index_type(257).__name__
        ('uint8', 'int16')
    """
    if size <= 256:
        return np.uint8
    return np.int16 if size <= 32768 else np.int32
