"""Strings in memory, cleaned of what is none: blank lines, marks of missing molecules, spaces that mean nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from expost.data.examples import POOL, Array, Examples, Indices, New, Part, Preprocess, in_memory
from expost.data.notations import NOTATIONS, Domain, guess_domain
from expost.data.numerals import GAPS
from expost.errors import DataError, UsageError

#: Marks of a missing value, of which one alone is a SMILES.
_NO_SMILES = GAPS - {"*"}


class Lines(Examples):
    """Strings in memory."""

    def __init__(self, strings: Sequence[str], where: str) -> None:
        self.strings = strings
        self.where = where

    def __len__(self) -> int:
        """Return the number of strings."""
        return len(self.strings)

    def load(self, indices: Indices, prep: Preprocess, _new: New = in_memory) -> Array:
        """Return some strings as an array of objects, shape (n,); see `Examples.load`."""
        if prep != Preprocess():
            raise UsageError(f"{self.where} holds strings, not images; leave out size, crop and channels")
        chosen = np.empty(len(indices), dtype=object)
        chosen[:] = [self.strings[i] for i in indices.tolist()]
        return chosen


def cleaned(
    parts: Mapping[str, Sequence[str]], where: str, domain: Domain | None, what: str
) -> tuple[dict[str, Part], list[str]]:
    """Return the strings of each part without those that are none; also return what to say of it.

    Args:
        parts: Strings by part, without white space around them.
        where: What errors call them together.
        domain: What they are; None to guess it.
        what: What holds a string each, to count those without one: "rows"; empty where blank ones need no word.

    Raises:
        DataError: if a part is left with nothing.
    """
    kept: dict[str, Part] = {}
    remarks: list[str] = []
    for part, strings in parts.items():
        filled = [string for string in strings if string and not (domain == "molecules" and string in _NO_SMILES)]
        if not filled:
            raise DataError(f"{where} holds no strings{'' if part == POOL else f' in its part {part}'}; fill it")
        guessed = domain or guess_domain(filled)
        if NOTATIONS[guessed].spaced and any(len(string.split()) > 1 for string in filled):
            filled = ["".join(string.split()) for string in filled]
            remarks.append(f"spaces within {guessed} taken out")
        kept[part] = Part(Lines(filled, where))
    total = sum(map(len, parts.values()))
    if what and (empty := total - sum(map(len, kept.values()))):
        remarks.append(f"left out {empty:,} of {total:,} {what}, without a string")
    return kept, list(dict.fromkeys(remarks))
