"""The symbols of a character model: those that occur in the strings."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from expost.errors import DataError, UsageError

Tokens: TypeAlias = Literal["smiles", "characters"]


@dataclass(frozen=True)
class Alphabet:
    """The symbols of a character model, without padding.

    Attributes:
        symbols: Each once, sorted by code point.
        length: Of the longest string, in symbols.
    """

    symbols: tuple[str, ...]
    length: int


def alphabet_of(strings: Iterable[str], tokens: Tokens = "characters") -> Alphabet:
    """List the symbols that some strings consist of.

    Args:
        strings: At least one that is not empty.
        tokens: "characters" takes every character for itself, as the Grammar VAE's character model does; "smiles" takes
            the two-letter atoms Cl and Br for one symbol each.

    Raises:
        DataError: if there is no character at all.
        UsageError: for other `tokens`.

    Example:
        >>> alphabet_of(["CCl", "BrCC"])
        Alphabet(symbols=('B', 'C', 'l', 'r'), length=4)
        >>> alphabet_of(["CCl", "BrCC"], tokens="smiles")
        Alphabet(symbols=('Br', 'C', 'Cl'), length=3)
    """
    if tokens not in get_args(Tokens):
        raise UsageError(f"tokens is {tokens!r}; choose one of: {', '.join(get_args(Tokens))}")
    pairs = ("Cl", "Br") if tokens == "smiles" else ()
    found: set[str] = set()
    length = 0
    for string in strings:
        rest, symbols = string, len(string)
        for pair in pairs:
            if pair in rest:
                found.add(pair)
                symbols -= rest.count(pair)
                rest = rest.replace(pair, "\0")  # not "", which would join what stands on either side
        found.update(rest)
        length = max(length, symbols)
    found -= {"\0"} if pairs else set()
    if not found:
        raise DataError("there are no strings, or only empty ones; give some")
    return Alphabet(tuple(sorted(found)), length)
