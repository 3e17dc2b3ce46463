"""Earley's parser over integer arrays, compiled by numba; it takes any context-free grammar without cycles.

An item (dot, origin) in set j says that the symbols before the dot derive the string's characters origin..j (Earley
1970). Four changes make it fast and complete: a character of look-ahead keeps out items that cannot go on
(`Tables.fits`); a nonterminal that can be empty is also stepped over when it is predicted (Aycock & Horspool 2002); a
terminal is matched whole, so that the positions inside it have no sets; and completed spans are *nodes* (nonterminal,
begin, stop), completed once however many derivations they have, which keeps the time within O(n^3).

Each item keeps one link, to the item with the dot one symbol earlier and to the node of that symbol, and each node one
item, so that a derivation is read off without a search. Which of several is kept is the rule of disambiguation: a node
takes its first production in the grammar's order, and an item the link whose last symbol is shortest.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from expost.grammar.compiled import compiled
from expost.grammar.tables import Flags, Ints, Tables

# what became of a string
PARSED, REJECTED, TOO_LONG, TOO_BIG = 0, 1, 2, 3
NONE = -1
# columns of the table of items; NEXT chains the items that wait for a nonterminal in a set, or that reach a set
DOT, ORIGIN, SET, NEXT, LINK, CHILD, SEVERAL = 0, 1, 2, 3, 4, 5, 6
# columns of the table of nodes
SYMBOL, BEGIN, STOP, ITEM, CHOICES = 0, 1, 2, 3, 4
# places in the array of counters
ITEMS, NODES, FULL = 0, 1, 2

FIRST_ROWS = 4096
MOST_ROWS = 2**24  # 0.8 GB of items and nodes
MOST_CELLS = 2**27  # 0.5 GB
LONGEST = 1_000_000  # productions; an ambiguous grammar can derive even the empty string by exponentially many


@compiled
def _add(
    t: Tables, items: Ints, seen: Ints, used: Ints, cell: int, ahead: int, dot: int, origin: int, at: int, link: int
) -> int:
    """Add an item to set `at`; return its row, or NONE if its child must not be set."""
    if not t.fits[dot, ahead]:
        return NONE
    old = seen[cell]
    # the table of cells is never cleared: an entry counts only if the item that it names is the one asked for
    if 0 <= old < used[ITEMS] and items[old, DOT] == dot and items[old, ORIGIN] == origin and items[old, SET] == at:
        kept = items[old, LINK]
        if kept == link:
            return NONE
        items[old, SEVERAL] = 1
        if items[link, SET] < items[kept, SET]:
            return NONE
        items[old, LINK] = link
        return old
    row = used[ITEMS]
    if row == len(items):
        used[FULL] = 1
        return NONE
    used[ITEMS] = row + 1
    seen[cell] = row
    items[row, DOT] = dot
    items[row, ORIGIN] = origin
    items[row, SET] = at
    items[row, NEXT] = NONE
    items[row, LINK] = link
    items[row, CHILD] = NONE
    items[row, SEVERAL] = 0
    return row


@compiled
def _node(nodes: Ints, spans: Ints, used: Ints, width: int, symbol: int, begin: int, stop: int) -> int:
    """Return the row of a span's node; make it if there is none."""
    cell = symbol * width + begin
    old = spans[cell]
    known = 0 <= old < used[NODES] and nodes[old, SYMBOL] == symbol
    if known and nodes[old, BEGIN] == begin and nodes[old, STOP] == stop:
        return old
    row = used[NODES]
    if row == len(nodes):
        used[FULL] = 1
        return 0
    used[NODES] = row + 1
    spans[cell] = row
    nodes[row, SYMBOL] = symbol
    nodes[row, BEGIN] = begin
    nodes[row, STOP] = stop
    nodes[row, ITEM] = NONE
    nodes[row, CHOICES] = 0
    return row


@compiled
def _recognize(
    t: Tables, text: Ints, look: bool, items: Ints, nodes: Ints, seen: Ints, spans: Ints, waiting: Ints, used: Ints
) -> int:
    """Fill the tables of items and nodes for a string; return the last position that a prefix of a sentence reaches.

    Without `look` nothing is kept out by what follows, so that this position is exact, and the items there say what is
    expected. `used[FULL]` is set where the tables were too small.
    """
    size, symbols, kinds = len(text), len(t.can_be_empty), t.fits.shape[1]
    width = size + 1
    used[:] = 0
    reach = np.full(width, NONE, np.int32)
    predicted = np.full(symbols, NONE, np.int32)
    last, furthest = 0, 0
    for at in range(width):
        if at > furthest:
            break
        ahead = kinds - 1
        if look:
            ahead = text[at] if at < size else kinds - 2
        row = used[ITEMS]
        item = reach[at]
        while item != NONE:
            dot, origin = items[item, DOT] + 1, items[item, ORIGIN]
            _add(t, items, seen, used, dot * width + origin, ahead, dot, origin, at, item)
            item = items[item, NEXT]
        if at == 0:
            predicted[0] = 0
            for place in range(t.predicted_at[ahead], t.predicted_at[ahead + 1]):
                dot = t.predicted[place]
                _add(t, items, seen, used, dot * width, ahead, dot, 0, 0, NONE)
        if used[ITEMS] > row:
            last = at
            waiting[at * symbols : (at + 1) * symbols] = NONE
        while row < used[ITEMS]:
            dot, origin = items[row, DOT], items[row, ORIGIN]
            symbol = t.symbol[dot]
            if symbol == NONE:
                left = t.left[t.production[dot]]
                node = _node(nodes, spans, used, width, left, origin, at)
                best = nodes[node, ITEM]
                nodes[node, CHOICES] += 1
                if best == NONE or t.production[dot] < t.production[items[best, DOT]]:
                    nodes[node, ITEM] = row
                # what waits in this very set has stepped over the empty nonterminal already
                if best == NONE and origin < at:
                    item = waiting[origin * symbols + left]
                    while item != NONE:
                        dot, begin = items[item, DOT] + 1, items[item, ORIGIN]
                        new = _add(t, items, seen, used, dot * width + begin, ahead, dot, begin, at, item)
                        if new != NONE:
                            items[new, CHILD] = node
                        item = items[item, NEXT]
            elif symbol >= 0:
                cell = at * symbols + symbol
                items[row, NEXT] = waiting[cell]
                waiting[cell] = row
                if predicted[symbol] != at:
                    predicted[symbol] = at
                    table = symbol * kinds + ahead
                    for place in range(t.predicted_at[table], t.predicted_at[table + 1]):
                        first = t.predicted[place]
                        _add(t, items, seen, used, first * width + at, ahead, first, at, at, NONE)
                if t.can_be_empty[symbol] and t.fits[dot + 1, ahead]:
                    node = _node(nodes, spans, used, width, symbol, at, at)
                    new = _add(t, items, seen, used, (dot + 1) * width + origin, ahead, dot + 1, origin, at, row)
                    if new != NONE:
                        items[new, CHILD] = node
            else:
                begin, end = t.characters_at[-2 - symbol], t.characters_at[-1 - symbol]
                stop = at + end - begin
                if stop <= size:
                    same = True
                    for place in range(end - begin):
                        if text[at + place] != t.characters[begin + place]:
                            same = False
                            break
                    if same:
                        items[row, NEXT] = reach[stop]
                        reach[stop] = row
                        furthest = max(furthest, stop)
            row += 1
            if used[FULL]:
                return NONE
        if used[FULL]:
            return NONE
    return last


@compiled
def _root(nodes: Ints, spans: Ints, used: Ints, stop: int) -> int:
    """Return the node of the start symbol over 0..stop, or NONE."""
    node = spans[0]
    known = 0 <= node < used[NODES] and nodes[node, SYMBOL] == 0 and nodes[node, BEGIN] == 0
    if known and nodes[node, STOP] == stop and nodes[node, ITEM] != NONE:
        return node
    return NONE


@compiled
def _derive(t: Tables, items: Ints, nodes: Ints, root: int, out: NDArray[Any]) -> tuple[int, bool]:
    """Write the leftmost derivation to `out` as far as it fits; return its length and whether there are others.

    A string has several derivations just if, in the tree of any one, a node has several productions or an item several
    links.
    """
    stack = np.empty(1024, np.int32)
    stack[0] = root
    top, count, several = 1, 0, False
    while top > 0:
        top -= 1
        node = stack[top]
        several |= nodes[node, CHOICES] > 1
        item = nodes[node, ITEM]
        if count < len(out):
            out[count] = t.production[items[item, DOT]]
        count += 1
        if count == LONGEST:
            break
        while item != NONE:  # children are met from the last to the first, so that the first ends on top
            several |= items[item, SEVERAL] > 0
            if items[item, CHILD] != NONE:
                if top == len(stack):
                    larger = np.empty(2 * top, np.int32)
                    larger[:top] = stack
                    stack = larger
                stack[top] = items[item, CHILD]
                top += 1
            item = items[item, LINK]
    return count, several


@compiled
def _expect(t: Tables, items: Ints, used: Ints, at: int, expected: Flags) -> None:
    """Mark the terminals that could come next in set `at`."""
    row = used[ITEMS] - 1
    while row >= 0 and items[row, SET] == at:
        symbol = t.symbol[items[row, DOT]]
        if symbol < NONE:
            expected[-2 - symbol] = True
        row -= 1


@compiled
def parse_texts(
    t: Tables,
    texts: Ints,
    ends: NDArray[np.int64],
    out: NDArray[Any],
    status: Ints,
    count: Ints,
    several: Flags,
    position: Ints,
    expected: Flags,
    most: int,
) -> None:
    """Parse M strings.

    Args:
        t: The grammar.
        texts: The numbers of all characters, one string after the other.
        ends: Where each string ends in `texts`, shape (M,).
        out: Receives the derivations, shape (M, L), integer; what is beyond a derivation is left as it was.
        status: Receives PARSED; REJECTED; TOO_LONG, for derivations of more than L productions; or TOO_BIG, for strings
            that would need gigabytes. Shape (M,).
        count: Receives the length of the derivation, 0 where it was not looked for, shape (M,).
        several: Receives whether there are other derivations, shape (M,).
        position: Receives where a rejected string fails, in characters, shape (M,).
        expected: Receives the terminals that could have come there, and in the last column whether the string could
            have ended; shape (M, terminals + 1), all False before.
        most: Longer strings are TOO_LONG, unseen.
    """
    items = np.empty((FIRST_ROWS, 7), np.int32)
    nodes = np.empty((FIRST_ROWS, 5), np.int32)
    seen, spans, waiting = np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.int32)
    used = np.zeros(3, np.int32)
    symbols, dots = len(t.can_be_empty), len(t.symbol)
    begin = 0
    for index in range(len(ends)):
        text = texts[begin : ends[index]]
        begin = ends[index]
        if len(text) > most:
            status[index] = TOO_LONG
            continue
        width = len(text) + 1
        if width * dots > MOST_CELLS:
            status[index] = TOO_BIG
            continue
        if width * dots > len(seen):
            seen = np.zeros(width * dots, np.int32)
            spans = np.zeros(width * symbols, np.int32)
            waiting = np.zeros(width * symbols, np.int32)
        look = True
        while True:
            last = _recognize(t, text, look, items, nodes, seen, spans, waiting, used)
            if used[FULL]:
                if 2 * len(items) > MOST_ROWS:
                    status[index] = TOO_BIG
                    break
                items = np.empty((2 * len(items), 7), np.int32)
                nodes = np.empty((len(items), 5), np.int32)
                continue
            root = _root(nodes, spans, used, last)
            if look and last == len(text) and root != NONE:
                count[index], several[index] = _derive(t, items, nodes, root, out[index])
                status[index] = PARSED if count[index] <= out.shape[1] else TOO_LONG
                break
            if look:
                look = False
                continue
            status[index] = REJECTED
            position[index] = last
            expected[index, -1] = root != NONE
            _expect(t, items, used, last, expected[index])
            break
