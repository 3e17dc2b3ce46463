"""Stacks of non-terminals as tensors, on which masked decoding walks many examples at a time."""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from expost.errors import UsageError
from expost.grammar.budgets import MOST_ENTRIES, check_budget

#: Longer derivations are not told apart.
_MOST_STEPS = 2**256


@dataclass(frozen=True)
class Tables:
    """A grammar as tensors. The empty stack is one more non-terminal, END, which the padding rewrites to itself.

    Attributes:
        left: Non-terminal of each symbol's left side, shape (V,).
        choices: Symbols that may rewrite each non-terminal, shape (T + 1, P); short rows repeat their last entry.
        barred: 0, or -inf for such a repetition, shape (T + 1, P).
        pushed: Non-terminals of each right side, the last first, shape (V, C); padded with END at the end.
        growth: By how much each symbol changes the height of the stack, shape (V,).
        extra: Steps by which the shortest derivation through each symbol exceeds the shortest of its non-terminal,
            shape (V,); -1 where it never ends.
        start: The start symbol's non-terminal.
        end: The non-terminal END.
        shortest: Steps of the shortest derivation from the start symbol; None where there is none.
    """

    left: Tensor
    choices: Tensor
    barred: Tensor
    pushed: Tensor
    growth: Tensor
    extra: Tensor
    start: int
    end: int
    shortest: int | None


def shortest_derivations(left: Sequence[int], children: Sequence[Sequence[int]]) -> tuple[list[float], list[float]]:
    """Return the number of steps of the shortest complete derivation per production and per non-terminal.

    steps(A -> ... B1 ... Bk ...) = 1 + sum_i steps(Bi); steps(A) = min over the productions of A. Non-terminals are
    settled from the shortest on (Knuth 1977), in O(size log size); numbers above 2^256, which grammars that double
    have, are given as 2^256.

    Args:
        left: Non-terminal of each production's left side.
        children: Non-terminals of each right side, in order.

    Returns:
        The steps through each production, and from each non-terminal; infinite where a derivation never ends.

    Example:
        S -> S S | 'a', and T -> T, which never ends:

        >>> shortest_derivations([0, 0, 1], [[0, 0], [], [1]])
        ([3, 1, inf], [1, inf])
    """
    symbols = max([*left, *(child for right in children for child in right)], default=-1) + 1
    steps: list[float] = [math.inf] * symbols
    through: list[float] = [math.inf] * len(left)
    missing = [len(right) for right in children]
    sums = [1] * len(left)
    users: list[list[int]] = [[] for _ in range(symbols)]
    for i, right in enumerate(children):
        for child in right:
            users[child].append(i)
    heap: list[tuple[int, int]] = []
    for i, right in enumerate(children):
        if not right:
            through[i] = 1
            heap.append((1, left[i]))
    heapq.heapify(heap)
    while heap:
        count, symbol = heapq.heappop(heap)
        if steps[symbol] < math.inf:
            continue
        steps[symbol] = count
        for i in users[symbol]:
            missing[i] -= 1
            sums[i] = min(sums[i] + count, _MOST_STEPS)
            if missing[i] == 0:
                through[i] = sums[i]
                heapq.heappush(heap, (sums[i], left[i]))
    return through, steps


def check_tables(left: Sequence[int], children: Sequence[Sequence[int]]) -> None:
    """Refuse a grammar, of one production or more, for which masked decoding would need too large a table.

    Raises:
        DataError: if a table would have more than `MOST_ENTRIES`.
    """
    breadth, height = max(Counter(left).values()), max(1, *map(len, children))
    symbols = max(left) + 1
    what = f"entries of masked decoding ({symbols:,} non-terminals by {breadth:,} alternatives)"
    check_budget(symbols * breadth, MOST_ENTRIES, what, "the grammar")
    what = f"entries of masked decoding ({len(left):,} productions by {height:,} non-terminals on the right)"
    check_budget(len(left) * height, MOST_ENTRIES, what, "the grammar")


@lru_cache(maxsize=16)
def _tables(left: tuple[int, ...], children: tuple[tuple[int, ...], ...], start: int, pad: int) -> Tables:
    if len(left) != len(children) or pad != len(left) or not left:
        raise UsageError(
            f"a grammar of {len(left)} left and {len(children)} right sides with padding {pad}; give at least one "
            "production, as many left as right sides, and the padding as the index after the last"
        )
    used = {start, *(child for right in children for child in right)}
    for symbol in sorted(used - set(left)):
        raise UsageError(f"non-terminal {symbol} is used but has no production; add one, or make it a terminal")
    check_tables(left, children)
    end = max(left) + 1
    through, steps = shortest_derivations(left, children)
    productions: list[list[int]] = [[] for _ in range(end)]
    for i, symbol in enumerate(left):
        productions[symbol].append(i)
    rows = [row or [pad] for row in productions] + [[pad]]
    breadth = max(map(len, rows))
    # the padding rewrites END to END, so that an empty stack needs no branch
    reversed_children = [list(right)[::-1] for right in children] + [[end]]
    height = max(map(len, reversed_children))
    # what is beyond any length needs no exact number, which might not fit one
    extra = [
        -1 if total == math.inf else min(int(total - steps[symbol]), 2**31)
        for total, symbol in zip(through, left, strict=True)
    ] + [0]
    barred = torch.where(_held(rows, breadth), 0.0, -math.inf)
    choices = torch.tensor([row[-1] for row in rows]).unsqueeze(1).repeat(1, breadth)
    choices[_held(rows, breadth)] = torch.tensor([symbol for row in rows for symbol in row])
    pushed = torch.full((len(reversed_children), height), end)
    pushed[_held(reversed_children, height)] = torch.tensor([child for right in reversed_children for child in right])
    return Tables(
        left=torch.tensor([*left, end]),
        choices=choices,
        barred=barred,
        pushed=pushed,
        growth=torch.tensor([len(right) - 1 for right in reversed_children]),
        extra=torch.tensor(extra),
        start=start,
        end=end,
        shortest=None if steps[start] == math.inf else int(steps[start]),
    )


def _held(rows: Sequence[Sequence[int]], width: int) -> Tensor:
    """Return which places of a table its rows fill, from the left, shape (N, width)."""
    return torch.arange(width) < torch.tensor([len(row) for row in rows]).unsqueeze(1)


def prepare(left: Sequence[int], children: Sequence[Sequence[int]], start: int, pad: int) -> Tables:
    """Return a grammar's tables, made once per grammar.

    Raises:
        UsageError: if the numbers are no grammar.
        DataError: if a table would have more than `MOST_ENTRIES`.
    """
    return _tables(tuple(map(int, left)), tuple(tuple(map(int, right)) for right in children), int(start), int(pad))


class Stacks:
    """One stack of non-terminals per example, all in one tensor, with END at the bottom of each.

    The tensor is a ring: what lies deeper than the steps that are left can never come to the top again, so its place
    may be reused, and memory is linear in the length however fast a grammar's derivations grow.
    """

    def __init__(self, tables: Tables, examples: int, steps: int, device: torch.device) -> None:
        self._pushed = tables.pushed.to(device)
        self._growth = tables.growth.to(device)
        reach = self._pushed.shape[1]
        self._size = steps + 2 * reach + 2
        self._ring = torch.full((examples, self._size), tables.end, device=device)
        self._ring[:, 1] = tables.start
        self._top = torch.ones(examples, dtype=torch.int64, device=device)
        self._offsets = torch.arange(reach, device=device)

    def top(self) -> Tensor:
        """Return the non-terminal on top of each stack, shape (N,)."""
        return self._ring.gather(1, self._top.remainder(self._size).unsqueeze(1)).squeeze(1)

    def keep(self, rows: Tensor) -> None:
        """Keep some of the stacks, by their indices."""
        self._ring, self._top = self._ring.index_select(0, rows), self._top.index_select(0, rows)

    def replace(self, symbols: Tensor) -> None:
        """Pop each stack and push the right side of each of `symbols`, shape (N,).

        The padding of a short right side lands above the new top, where nothing is read before it is written again.
        """
        places = (self._top.unsqueeze(1) + self._offsets).remainder(self._size)
        self._ring.scatter_(1, places, self._pushed.index_select(0, symbols))
        self._top += self._growth.index_select(0, symbols)
