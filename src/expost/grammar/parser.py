"""Strings to derivations and back, many at a time, with a reason for every string that does not parse."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from threading import Event, Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from expost.errors import DataError, UsageError
from expost.grammar.cfg import Grammar
from expost.grammar.packing import (
    END_OF_STRING,
    Rejection,
    as_strings,
    check_indices,
    check_length,
    index_type,
)
from expost.grammar.tables import number_characters, tables_of
from expost.utils.process import cores
from expost.utils.progress import progress

CHUNK = 1024
#: Held for a string that takes more than `FEW_ROWS`: one at a time, which bounds the memory.
_LARGE = Lock()


@dataclass(frozen=True)
class Parses:
    """The derivations of many strings.

    Attributes:
        indices: Productions in the order of the leftmost derivation, then padding, shape (M, L): uint8 for a grammar of
            at most 256 symbols with padding, else int16 (int32 above 32,768).
        kept: Which of the given strings the rows are, ascending, int64, shape (M,).
        ambiguous: Whether the string has other derivations too, shape (M,).
        rejected: The strings without a row, in order.
    """

    indices: NDArray[np.integer[Any]]
    kept: NDArray[np.int64]
    ambiguous: NDArray[np.bool_]
    rejected: list[Rejection]


class Parser:
    r"""Earley's parser for one grammar, compiled on first use.

    Of several derivations it takes, at every node of the tree, the production that comes first in the grammar among
    those that derive the node's characters, and, for this production, the division of the characters in which the last
    symbol has the fewest, then the one before it, and so on. The choice depends on nothing else.

    Args:
        grammar: Any grammar. Time is O(n^3) in a string's characters at worst, O(n) for the usual ones; a string that
            exceeds `MOST_STEPS` or `MOST_ROWS` of `expost.grammar.budgets` is rejected, with the character where it
            does.

    Raises:
        DataError: if the grammar's tables would have more than `MOST_ENTRIES`.

    Example:
        >>> parser = Parser(Grammar.from_text("S -> S '+' T | T\nT -> 'x' | '1'"))
        >>> parser.parse("x+1")
        (0, 1, 2, 3)
        >>> parser.is_ambiguous("x+1"), parser.accepts("x+")
        (False, False)
        >>> parser.parse("x++1")
        Traceback (most recent call last):
        ...
        expost.errors.DataError: 'x++1': does not parse at position 2, '+': expected 'x' or '1'
    """

    def __init__(self, grammar: Grammar) -> None:
        self.grammar = grammar
        self._tables = tables_of(grammar)
        self._names = (*grammar.terminals, END_OF_STRING)
        # a production gives at most this many characters itself, which bounds the strings of a derivation
        self._most = max(sum(len(s.name) for s in p.right if s.terminal) for p in grammar.productions)

    def parse(self, text: str) -> tuple[int, ...]:
        """Return the productions of the leftmost derivation of `text`.

        Raises:
            DataError: if `text` is no string of the language, with the place and what was expected there.
        """
        return tuple(self._single(text)[0])

    def accepts(self, text: str) -> bool:
        """Return whether `text` is in the language."""
        try:
            self._single(text)
        except DataError:
            return False
        return True

    def is_ambiguous(self, text: str) -> bool:
        """Return whether `text` has more than one derivation.

        Raises:
            DataError: if it has none.
        """
        return self._single(text)[1]

    def parse_many(self, strings: Sequence[str], length: int, workers: int | None = None) -> Parses:
        """Parse M strings; those that cannot be parsed are reported, not raised.

        Args:
            strings: The strings. What is not a string, is empty without the language having the empty string, does not
                parse, or takes more than `length` productions, is rejected.
            length: L, productions a row, at least 1.
            workers: Threads, at least 1; None for as many as there are cores. They do not hold the interpreter's lock.

        Raises:
            UsageError: if `strings` is one string, or a number is out of its range.
        """
        texts = as_strings(strings)
        length = check_length(length)
        if workers is not None and workers < 1:
            raise UsageError(f"workers={workers}; give at least 1, or None for as many as there are cores")
        return self._run(texts, length, workers or cores(), length * max(self._most, 1))

    def unparse(self, indices: NDArray[np.integer[Any]]) -> list[str | None]:
        """Return the string of each derivation, or None for a row that is no whole derivation followed by padding.

        Args:
            indices: Productions from the start symbol's, then padding, integers 0..V-1, shape (N, L).

        Raises:
            UsageError: if `indices` is not such a table.
        """
        from expost.grammar.unroll import unroll

        check_indices(indices, self.grammar.size)
        room = max(indices.shape[1] * self._most, 1)
        together = max(1, min(CHUNK, 2**22 // room))
        strings: list[str | None] = []
        for first in range(0, len(indices), together):
            rows = np.ascontiguousarray(indices[first : first + together], dtype=np.int32)
            points = np.empty((len(rows), room), dtype=np.uint32)
            count = np.empty(len(rows), dtype=np.int64)
            unroll(self._tables, rows, points, count)
            for row, end in zip(points, count.tolist(), strict=True):
                strings.append(None if end < 0 else row[:end].tobytes().decode("utf-32-le", "surrogatepass"))
        return strings

    def _single(self, text: str) -> tuple[list[int], bool]:
        if not isinstance(text, str):
            raise UsageError(f"{text!r} is not a string; give one to parse")
        found = self._run([text], 4 * len(text) + 64, 1, 2**31 - 1)
        if found.rejected and found.rejected[0].needed is not None:
            found = self._run([text], found.rejected[0].needed, 1, 2**31 - 1)
        if found.rejected:
            raise DataError(found.rejected[0].fault())
        row = found.indices[0]
        return row[row != self.grammar.pad].tolist(), bool(found.ambiguous[0])

    def _run(self, strings: Sequence[str], length: int, workers: int, most: int) -> Parses:
        indices = np.full((len(strings), length), self.grammar.pad, dtype=index_type(self.grammar.size))
        ambiguous = np.zeros(len(strings), dtype=np.bool_)
        together = max(1, min(CHUNK, 2**22 // length))
        stop = Event()

        def chunk(first: int) -> list[Rejection]:
            part = slice(first, first + together)
            found = self._parse(strings[part], first, most, indices[part], ambiguous[part], stop)
            bar.advance()
            return found

        firsts = range(0, len(strings), together)
        with progress("parsing", len(firsts)) as bar:
            if min(workers, len(firsts)) > 1:
                with ThreadPoolExecutor(min(workers, len(firsts))) as pool:
                    try:
                        rejected = [rejection for found in pool.map(chunk, firsts) for rejection in found]
                    except BaseException:  # an interruption, too, ends the threads at once
                        stop.set()
                        pool.shutdown(wait=False, cancel_futures=True)
                        raise
            else:
                rejected = [rejection for first in firsts for rejection in chunk(first)]
        if not rejected:
            return Parses(indices, np.arange(len(strings)), ambiguous, [])
        keep = np.ones(len(strings), dtype=np.bool_)
        keep[[rejection.index for rejection in rejected]] = False
        return Parses(indices[keep], np.flatnonzero(keep), ambiguous[keep], rejected)

    def _parse(
        self,
        strings: Sequence[str],
        first: int,
        most: int,
        indices: NDArray[np.integer[Any]],
        ambiguous: NDArray[np.bool_],
        stop: Event,
    ) -> list[Rejection]:
        """Parse a chunk that begins at string `first`, into `indices` and `ambiguous`; return what was rejected."""
        from expost.grammar import earley

        texts = [text if isinstance(text, str) else "" for text in strings]
        numbers = number_characters("".join(texts), self._tables.alphabet)
        sizes = [len(text) for text in texts]
        ends = np.cumsum(sizes, dtype=np.int64)
        size, length = indices.shape
        out = np.full((size, length), self.grammar.pad, dtype=np.int32)
        status, count, position = (np.zeros(size, dtype=np.int32) for _ in range(3))
        expected = np.zeros((size, len(self._names)), dtype=np.bool_)
        chart = earley.new_chart(self._tables, max(sizes))
        limits = earley.Limits()
        results = (out, status, count, ambiguous, position, expected, most, limits)
        with ExitStack() as holding:
            while paused := earley.parse_texts(self._tables, numbers, ends, chart, *results):
                if stop.is_set():
                    return []
                if paused == earley.FEWER_ROWS:
                    holding.close()
                elif paused == earley.MORE_ROWS and len(chart.items) <= limits.few < earley.GROWTH * len(chart.items):
                    holding.enter_context(_LARGE)
                if paused != earley.PAUSED:
                    chart = earley.resized(chart, paused)
        indices[:] = out
        no_string = [not isinstance(text, str) for text in strings]
        rejected = []
        sets: dict[bytes, tuple[str, ...]] = {}  # strings that fail alike share what was expected
        for row in np.flatnonzero((status != earley.PARSED) | no_string).tolist():
            index, text = first + row, texts[row]
            if no_string[row]:
                found = Rejection(index, repr(strings[row]), None, (), "is no string")
            elif status[row] == earley.TOO_LONG:
                needed = int(count[row]) if 0 < count[row] < limits.productions else None
                reason = f"takes more than {length} productions"
                found = Rejection(index, text, None, (), reason, needed)
            elif status[row] in (earley.TOO_BIG, earley.TOO_SLOW):
                budget = f"{limits.rows:,} items" if status[row] == earley.TOO_BIG else f"{limits.steps:,} steps"
                reason = f"exceeds the budget of {budget} of the parser"
                found = Rejection(index, text, int(position[row]), (), reason)
            else:
                key = np.packbits(expected[row]).tobytes()
                if (names := sets.get(key)) is None:
                    names = sets[key] = tuple(self._names[place] for place in np.flatnonzero(expected[row]))
                found = Rejection(index, text, int(position[row]), names, "does not parse" if text else "is empty")
            rejected.append(found)
        return rejected
