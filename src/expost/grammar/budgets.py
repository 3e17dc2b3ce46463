"""Budgets: what reading a grammar, numbering it and parsing with it may cost. What exceeds one is refused, and named.

The figures of time are those of one core of 2.5 GHz.
"""

from __future__ import annotations

from expost.errors import DataError

#: Bytes of a grammar's file, and characters of its text as productions; a megabyte is read within a second.
MOST_TEXT = 8 * 2**20
#: Characters of the name of a nonterminal, and of a terminal.
MOST_NAME = 200
MOST_TERMINAL = 10_000
#: Symbols of all right sides, with one more for each production; groups, ranges and repetitions count as the
#: productions that they become.
MOST_SYMBOLS = 2**17
#: Groups within groups of EBNF.
MOST_NESTED = 100
#: Pairs of names that are compared, to find what an unknown one was meant to be; about 0.2 s.
MOST_COMPARED = 20_000
#: Entries of a table of look-ahead (nonterminals by characters), or of masked decoding (nonterminals by alternatives,
#: productions by nonterminals on the right): 4 or 8 bytes each.
MOST_ENTRIES = 2**25
#: Steps of parsing a string, each the making of one item or the following of one link: one to three seconds.
MOST_STEPS = 2**26
#: Items, or nodes, of the chart of a string: 0.9 GB with all that belongs to them, and only one string at a time has
#: more than `FEW_ROWS` of them.
MOST_ROWS = 2**24
FEW_ROWS = 2**19
#: Productions of a derivation; an ambiguous grammar can derive even the empty string by exponentially many.
MOST_PRODUCTIONS = 1_000_000


def check_budget(value: int, most: int, what: str, where: str, remedy: str = "shorten it") -> None:
    """Refuse what exceeds a budget.

    Args:
        value: What it takes.
        most: The budget.
        what: Its unit, in words.
        where: The file, or the line.
        remedy: What to do.

    Raises:
        DataError: if `value` is more than `most`.
    """
    if value > most:
        raise DataError(f"{where} takes {value:,} {what}, over the budget of {most:,}; {remedy}")
