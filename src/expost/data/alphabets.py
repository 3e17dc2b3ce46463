"""What strings are made of: their domain, guessed from how they look, and the symbols of a character model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from expost.data.expressions import count_productions
from expost.errors import DataError, UsageError

Domain: TypeAlias = Literal["molecules", "expressions", "text"]
Tokens: TypeAlias = Literal["smiles", "characters"]

_SAMPLE = 500
"""How many strings `guess_domain` looks at."""

_SMILES = re.compile(
    r"(?=[\[*A-Za-z])"  # an atom comes first
    r"(?:\[[^\[\]\s]+\]|Cl|Br|[BCNOPSFIbcnops*]|[-=#$:/\\~.()]|%\d\d|\d)+"
)


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


def guess_domain(strings: Sequence[str]) -> Domain:
    """Tell what strings are by how they look: 500 of them, evenly spread, nine tenths of which must agree.

    Expressions are what the grammar of `expost.data.expressions` derives, spaces between tokens allowed. Molecules look
    like SMILES: only its tokens, an atom first, parentheses in pairs; whether chemistry allows them is not asked.

    Returns:
        "expressions", "molecules", or else "text".

    Example:
        >>> [guess_domain([text]) for text in ("sin(x) + 1", "CC(=O)Oc1ccccc1C(=O)O", "Call me Ishmael.")]
        ['expressions', 'molecules', 'text']
    """
    sample = strings[:: max(1, len(strings) // _SAMPLE)]
    if not sample:
        return "text"
    if sum(count_productions("".join(string.split())) is not None for string in sample) >= 0.9 * len(sample):
        return "expressions"
    return "molecules" if sum(map(looks_like_smiles, sample)) >= 0.9 * len(sample) else "text"


def looks_like_smiles(string: str) -> bool:
    """Tell whether a string has only tokens of SMILES, an atom first, and as many parentheses opened as closed."""
    return _SMILES.fullmatch(string) is not None and string.count("(") == string.count(")")
