"""A grammar as integer arrays, for the compiled parser."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from expost.errors import UsageError
from expost.grammar.analysis import END, first, first_of, follow, nullable
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
        fits: Whether what comes after each dot can begin with a character, shape (D, C).
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
    fits: Flags
    predicted: Ints
    predicted_at: Ints
    characters: Ints
    characters_at: Ints


def tables_of(grammar: Grammar) -> Tables:
    """Number a grammar.

    Raises:
        UsageError: if the tables of the grammar would take gigabytes.
    """
    productions = grammar.productions
    names = {name: index for index, name in enumerate(grammar.nonterminals)}
    terminals = {name: index for index, name in enumerate(grammar.terminals)}
    alphabet = sorted(set("".join(terminals)))
    number = {character: index for index, character in enumerate(alphabet)} | {END: len(alphabet) + 1}
    classes = len(alphabet) + 3
    places = sum(len(production.right) + 1 for production in productions)
    if places * classes > 2**30:
        raise UsageError(f"the grammar is too large: {places} symbols by {len(alphabet)} characters; split it")
    empty, begins, after = nullable(productions), first(productions), follow(productions, grammar.start)

    symbol: list[int] = []
    production_of: list[int] = []
    dots: list[int] = []
    fits = np.zeros((places, classes), dtype=np.bool_)
    fits[:, -1] = True
    for index, production in enumerate(productions):
        dots.append(len(symbol))
        for place in range(len(production.right) + 1):
            rest = production.right[place:]
            ahead = first_of(rest, begins, empty)
            if all(not s.terminal and s.name in empty for s in rest):
                ahead |= after[production.left]
            fits[len(symbol), [number[character] for character in ahead]] = True
            symbol.append(-1 if not rest else -2 - terminals[rest[0].name] if rest[0].terminal else names[rest[0].name])
            production_of.append(index)

    predicted: list[int] = []
    predicted_at = [0]
    own: list[list[int]] = [[] for _ in names]
    for dot, left in zip(dots, grammar.left, strict=True):
        own[left].append(dot)
    for rows in own:
        for character in range(classes):
            predicted += [dot for dot in rows if fits[dot, character]]
            predicted_at.append(len(predicted))
    return Tables(
        alphabet=np.array([ord(character) for character in alphabet], dtype=np.uint32),
        symbol=np.array(symbol, dtype=np.int32),
        production=np.array(production_of, dtype=np.int32),
        dots=np.array(dots, dtype=np.int32),
        left=np.array(grammar.left, dtype=np.int32),
        can_be_empty=np.array([name in empty for name in names], dtype=np.bool_),
        fits=fits,
        predicted=np.array(predicted, dtype=np.int32),
        predicted_at=np.array(predicted_at, dtype=np.int32),
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
