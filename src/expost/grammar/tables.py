"""A grammar as integer arrays, for the compiled parser."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from expost.grammar.analysis import END, first_bits, follow_bits, nullable
from expost.grammar.budgets import MOST_ENTRIES, check_budget
from expost.grammar.cfg import Grammar

Ints = NDArray[np.int32]
Flags = NDArray[np.bool_]


class Tables(NamedTuple):
    """A grammar in numbers. A *dot* is a place in a production's right side: of k symbols there are k + 1 dots.

    Characters are numbered in `alphabet`'s order; three more numbers follow: OTHER, for one that is in no terminal;
    END, for the end of the string; and ANY, the look-ahead that excludes nothing. C is how many numbers there are.

    Attributes:
        alphabet: Code points of the characters in terminals, ascending, uint32, shape (K,).
        symbol: What follows each dot, shape (D,): a nonterminal >= 0, a terminal t as -2 - t, or -1 at the end.
        production: The production of each dot, shape (D,).
        dots: The first dot of each production, shape (P,).
        left: The nonterminal on each production's left side, shape (P,).
        can_be_empty: Whether each nonterminal derives the empty string, shape (T,).
        lead: The character with which what comes after each dot begins; where there are several, -1 - r for row r of
            `fits`. Shape (D,).
        fits: Whether a set of characters holds a character, shape (R, C); any set holds ANY.
        predicted: First dots of the productions by which a nonterminal may go on before a character, in order ...
        predicted_at: ... from `predicted_at[nonterminal * C + character]` to the next entry, shape (T * C + 1,).
        characters: Numbers of the terminals' characters ...
        characters_at: ... from `characters_at[terminal]` to the next entry.
    """

    alphabet: NDArray[np.uint32]
    symbol: Ints
    production: Ints
    dots: Ints
    left: Ints
    can_be_empty: Flags
    lead: Ints
    fits: Flags
    predicted: Ints
    predicted_at: Ints
    characters: Ints
    characters_at: Ints


def tables_of(grammar: Grammar) -> Tables:
    """Number a grammar.

    Raises:
        DataError: if a table of look-ahead would have more than `MOST_ENTRIES`.
    """
    productions = grammar.productions
    names = {name: index for index, name in enumerate(grammar.nonterminals)}
    terminals = {name: index for index, name in enumerate(grammar.terminals)}
    alphabet = sorted(set("".join(terminals)))
    number = {character: index for index, character in enumerate(alphabet)} | {END: len(alphabet) + 1}
    classes = len(alphabet) + 3
    what = f"entries of look-ahead ({len(names):,} nonterminals by {classes:,} characters)"
    check_budget(len(names) * classes, MOST_ENTRIES, what, "the grammar")
    empty = nullable(productions)
    begins = first_bits(productions, empty, number)
    after = follow_bits(productions, grammar.start, empty, begins, number)

    symbol: list[int] = []
    lead: list[int] = []
    production_of: list[int] = []
    dots: list[int] = []
    rows: dict[int, int] = {}  # sets of characters, as bits, by their row in `fits`
    for index, production in enumerate(productions):
        dots.append(len(symbol))
        ahead = after[production.left]
        symbols, leads = [-1], [-1 - rows.setdefault(ahead, len(rows))]
        for each in reversed(production.right):
            if each.terminal:
                letter = number[each.name[0]]
                ahead = 1 << letter
                symbols.append(-2 - terminals[each.name])
                leads.append(letter)
            else:
                ahead = begins[each.name] | (ahead if each.name in empty else 0)
                symbols.append(names[each.name])
                leads.append(-1 - rows.setdefault(ahead, len(rows)))
        symbol += reversed(symbols)
        lead += reversed(leads)
        production_of += [index] * len(symbols)
    check_budget(len(rows) * classes, MOST_ENTRIES * 4, "entries of look-ahead (sets of characters)", "the grammar")
    fits = np.zeros((len(rows), classes), dtype=np.bool_)
    for bits, row in rows.items():
        packed = np.frombuffer(bits.to_bytes(classes // 8 + 1, "little"), dtype=np.uint8)
        fits[row] = np.unpackbits(packed, count=classes, bitorder="little")
    fits[:, -1] = True

    # pairs of a production and a character before which its left side may become its right side
    leads_of = np.array(lead, dtype=np.int64)[dots]
    lettered = np.flatnonzero(leads_of >= 0)
    others = np.flatnonzero(leads_of < 0)
    pairs = fits.sum(axis=1)[-1 - leads_of[others]].sum() + 2 * len(lettered)
    check_budget(int(pairs), MOST_ENTRIES, "entries of look-ahead (productions by characters)", "the grammar")
    which = [np.repeat(lettered, 2)]
    letters = [np.stack([leads_of[lettered], np.full(len(lettered), classes - 1)], axis=1).ravel()]
    for index in others.tolist():
        found = np.flatnonzero(fits[-1 - leads_of[index]])
        which.append(np.full(len(found), index))
        letters.append(found)
    chosen = np.concatenate(which)
    cells = np.array(grammar.left, dtype=np.int64)[chosen] * classes + np.concatenate(letters)
    counts = np.bincount(cells, minlength=len(names) * classes)
    ordered = np.sort(cells * len(productions) + chosen) % len(productions)
    return Tables(
        alphabet=np.array([ord(character) for character in alphabet], dtype=np.uint32),
        symbol=np.array(symbol, dtype=np.int32),
        production=np.array(production_of, dtype=np.int32),
        dots=np.array(dots, dtype=np.int32),
        left=np.array(grammar.left, dtype=np.int32),
        can_be_empty=np.array([name in empty for name in names], dtype=np.bool_),
        lead=np.array(lead, dtype=np.int32),
        fits=fits,
        predicted=np.array(dots, dtype=np.int32)[ordered],
        predicted_at=np.concatenate([[0], np.cumsum(counts)]).astype(np.int32),
        characters=np.array([number[c] for name in terminals for c in name], dtype=np.int32),
        characters_at=np.cumsum([0, *map(len, terminals)], dtype=np.int32),
    )


def number_characters(text: str, alphabet: NDArray[np.uint32]) -> Ints:
    """Return the number of each character of `text`, len(alphabet) for one that is in no terminal."""
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    if not len(alphabet):
        return np.zeros(len(points), dtype=np.int32)
    found = np.searchsorted(alphabet, points)
    found[found == len(alphabet)] = 0
    return np.where(alphabet[found] == points, found, len(alphabet)).astype(np.int32)
