"""Earley's parser over integer arrays, compiled by numba; it takes any context-free grammar without cycles.

An item (dot, origin) in set j says that the symbols before the dot derive the string's characters origin..j (Earley
1970). Four changes make it fast and complete: a character of look-ahead keeps out items that cannot go on
(`Tables.lead`); a nonterminal that can be empty is also stepped over when it is predicted (Aycock & Horspool 2002); a
terminal is matched whole, so that the positions inside it have no sets; and completed spans are *nodes* (nonterminal,
begin, stop), completed once however many derivations they have, which keeps the time within O(n^3).

A nonterminal that is predicted in a set is a *call*: its items know it in place of their origin, and it knows who waits
for it and its latest node. So time and memory are linear in the items, and the items linear in the characters for an
unambiguous grammar whose next production a character settles, however many symbols it has.

Each item keeps one link, to the item with the dot one symbol earlier and to the node of that symbol, and each node one
item, so that a derivation is read off without a search. Which of several is kept is the rule of disambiguation: a node
takes its first production in the grammar's order, and an item the link whose last symbol is shortest.

Nothing here runs for long: `parse_texts` comes back every `QUANTUM` steps, to be called again, so that Ctrl-C acts.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from expost.grammar.budgets import FEW_ROWS, MOST_PRODUCTIONS, MOST_ROWS, MOST_STEPS
from expost.grammar.compiled import compiled
from expost.grammar.tables import Flags, Ints, Tables

Longs = NDArray[np.int64]

# what became of a string
PARSED, REJECTED, TOO_LONG, TOO_BIG, TOO_SLOW = 0, 1, 2, 3, 4
# why `parse_texts` came back
DONE, PAUSED, MORE_ROWS, MORE_CELLS, FEWER_ROWS = 0, 1, 2, 3, 4
NONE = -1
# columns of the table of items; NEXT chains the items that wait for a call, or that reach a set
DOT, CALL, SET, NEXT, LINK, CHILD, SEVERAL = 0, 1, 2, 3, 4, 5, 6
# columns of the table of nodes
STOP, ITEM, CHOICES = 0, 1, 2
# columns of the table of calls
AT, WAITING, NODE = 0, 1, 2
# places in the array of counters: rows in use; FULL says of what there is too little; BASE is added to the rows in
# `seen`, so that those of strings before are told from ours; the others say where to go on
ITEMS, NODES, CALLS, FULL, BASE, INDEX, HERE, ROW, FIRST_ITEM, FIRST_CALL, LAST, FURTHEST, STEPS, BLIND = range(14)
COUNTERS = 14

FIRST_ROWS = 4096
GROWTH = 4
QUANTUM = 2**22  # steps, about a tenth of a second


class Limits(NamedTuple):
    """Budgets of a string, handed over because compiled code keeps the constants that it was compiled with.

    Attributes:
        steps: Most steps.
        rows: Most items.
        few: With more items than this the chart is given back after the string.
        productions: Where counting the productions of a derivation ends.
    """

    steps: int = MOST_STEPS
    rows: int = MOST_ROWS
    few: int = FEW_ROWS
    productions: int = MOST_PRODUCTIONS


class Chart(NamedTuple):
    """What a string is parsed in.

    Attributes:
        items: Items, shape (R, 7).
        nodes: Completed spans, shape (R + 1, 3).
        calls: Predicted nonterminals, shape (R + 1, 3).
        seen: A hash table of the items in the present set, shape (a power of 2,).
        reach: The first item that reaches each set, shape (most characters + 1,).
        predicted: The call of each nonterminal, if it is of the present set, shape (T,).
        counters: Where parsing is, shape (COUNTERS,).
    """

    items: Ints
    nodes: Ints
    calls: Ints
    seen: Ints
    reach: Ints
    predicted: Ints
    counters: Longs


def new_chart(t: Tables, longest: int) -> Chart:
    """Return a chart for strings of at most so many characters."""
    counters = np.zeros(COUNTERS, np.int64)
    counters[HERE] = NONE
    return Chart(
        *_rows(FIRST_ROWS),
        np.full(2 * FIRST_ROWS, NONE, np.int32),
        np.empty(longest + 1, np.int32),
        np.empty(len(t.can_be_empty), np.int32),
        counters,
    )


def resized(chart: Chart, reason: int) -> Chart:
    """Return a chart with more, or again few, rows, or more cells, in which the present string starts anew.

    Args:
        chart: The chart.
        reason: What `parse_texts` returned.
    """
    chart.counters[HERE] = NONE
    chart.counters[BASE] = 0
    size = len(chart.seen)
    if reason == MORE_CELLS:
        return chart._replace(seen=np.full(GROWTH * size, NONE, np.int32))
    rows = FIRST_ROWS if reason == FEWER_ROWS else GROWTH * len(chart.items)
    items, nodes, calls = _rows(rows)
    cells = 2 * FIRST_ROWS if reason == FEWER_ROWS else size
    return chart._replace(items=items, nodes=nodes, calls=calls, seen=np.full(cells, NONE, np.int32))


def _rows(count: int) -> tuple[Ints, Ints, Ints]:
    # each item makes at most one node and one call; the start symbol's call comes before any
    return np.empty((count, 7), np.int32), np.empty((count + 1, 3), np.int32), np.empty((count + 1, 3), np.int32)


@compiled
def _fits(leads: Ints, fits: Flags, ahead: int, dot: int) -> bool:
    """Tell whether what comes after a dot can begin with a character."""
    lead = leads[dot]
    if lead >= 0:
        return lead == ahead or ahead == fits.shape[1] - 1
    return fits[-1 - lead, ahead]


@compiled
def _add(items: Ints, seen: Ints, counters: Longs, dot: int, call: int, at: int, link: int) -> int:
    """Add an item to set `at`; return its row, or NONE if its child must not be set."""
    first, base, mask = counters[FIRST_ITEM], counters[BASE], len(seen) - 1
    mixed = np.int64(dot) * 40503 + np.int64(call) * 10368889
    cell = (mixed ^ (mixed >> 13)) & mask
    while True:
        old = seen[cell] - base
        if old < first:  # of a set or a string before: the cell is free
            break
        if items[old, DOT] == dot and items[old, CALL] == call:
            kept = items[old, LINK]
            if kept == link:
                return NONE
            items[old, SEVERAL] = 1
            if items[link, SET] < items[kept, SET]:
                return NONE
            items[old, LINK] = link
            return old
        cell = (cell + 1) & mask
    row = counters[ITEMS]
    if row == len(items):
        counters[FULL] = MORE_ROWS
        return NONE
    if 2 * (row - first) > mask:
        counters[FULL] = MORE_CELLS
        return NONE
    counters[ITEMS] = row + 1
    seen[cell] = row + base
    items[row, DOT] = dot
    items[row, CALL] = call
    items[row, SET] = at
    items[row, NEXT] = NONE
    items[row, LINK] = link
    items[row, CHILD] = NONE
    items[row, SEVERAL] = 0
    return row


@compiled
def _node(nodes: Ints, calls: Ints, counters: Longs, call: int, stop: int) -> int:
    """Return the row of the node of a call's span to `stop`; make it if there is none."""
    old = calls[call, NODE]
    if old != NONE and nodes[old, STOP] == stop:
        return old
    row = counters[NODES]
    counters[NODES] = row + 1
    calls[call, NODE] = row
    nodes[row, STOP] = stop
    nodes[row, ITEM] = NONE
    nodes[row, CHOICES] = 0
    return row


@compiled
def _called(calls: Ints, predicted: Ints, counters: Longs, symbol: int, at: int) -> int:
    """Make a call of a nonterminal in set `at`, and return its row."""
    row = counters[CALLS]
    counters[CALLS] = row + 1
    predicted[symbol] = row
    calls[row, AT] = at
    calls[row, WAITING] = NONE
    calls[row, NODE] = NONE
    return row


@compiled
def _begin(chart: Chart, width: int, blind: int) -> None:
    """Make a chart ready for a string."""
    counters = chart.counters
    counters[BASE] += counters[ITEMS]
    if counters[BASE] > 2**31 - 1 - len(chart.items):
        counters[BASE] = 0
        chart.seen[:] = NONE
    for place in (ITEMS, NODES, CALLS, FULL, HERE, ROW, FIRST_ITEM, FIRST_CALL, LAST, FURTHEST, STEPS):
        counters[place] = 0
    counters[BLIND] = blind
    chart.reach[:width] = NONE
    chart.predicted[:] = NONE


@compiled
def _recognize(
    t: Tables,
    text: Ints,
    items: Ints,
    nodes: Ints,
    calls: Ints,
    seen: Ints,
    reach: Ints,
    predicted: Ints,
    counters: Longs,
) -> int:
    """Fill the chart for a string from where it is; return DONE, PAUSED, or of what there is too little.

    Then `counters[LAST]` is the last set that is not empty, and `counters[FURTHEST]` the last position that a prefix of
    a sentence reaches. In set `counters[BLIND]` nothing is kept out by what follows, so that its items say what is
    expected there.
    """
    lead, fits = t.lead, t.fits
    size, kinds = len(text), fits.shape[1]
    at, row, last, furthest = counters[HERE], counters[ROW], counters[LAST], counters[FURTHEST]
    steps, limit, blind = counters[STEPS], counters[STEPS] + QUANTUM, counters[BLIND]
    resumed = row > 0
    while at <= furthest:
        ahead = kinds - 1
        if at != blind:
            ahead = text[at] if at < size else kinds - 2
        if not resumed:
            row = counters[ITEMS]
            counters[FIRST_ITEM] = row
            counters[FIRST_CALL] = counters[CALLS]
            item = reach[at]
            while item != NONE:
                if _fits(lead, fits, ahead, items[item, DOT] + 1):
                    _add(items, seen, counters, items[item, DOT] + 1, items[item, CALL], at, item)
                item = items[item, NEXT]
                steps += 1
            if at == 0:
                call = _called(calls, predicted, counters, 0, 0)
                for place in range(t.predicted_at[ahead], t.predicted_at[ahead + 1]):
                    _add(items, seen, counters, t.predicted[place], call, 0, NONE)
            if counters[ITEMS] > row:
                last = at
        resumed = False
        first_call = counters[FIRST_CALL]
        while row < counters[ITEMS]:
            dot, call = items[row, DOT], items[row, CALL]
            symbol = t.symbol[dot]
            steps += 1
            if symbol == NONE:
                node = _node(nodes, calls, counters, call, at)
                best = nodes[node, ITEM]
                nodes[node, CHOICES] += 1
                if best == NONE or t.production[dot] < t.production[items[best, DOT]]:
                    nodes[node, ITEM] = row
                # what waits in this very set has stepped over the empty nonterminal already
                if best == NONE and calls[call, AT] < at:
                    item = calls[call, WAITING]
                    while item != NONE:
                        if _fits(lead, fits, ahead, items[item, DOT] + 1):
                            new = _add(items, seen, counters, items[item, DOT] + 1, items[item, CALL], at, item)
                            if new != NONE:
                                items[new, CHILD] = node
                        item = items[item, NEXT]
                        steps += 1
            elif symbol >= 0:
                inner = int(predicted[symbol])
                if inner < first_call:
                    inner = _called(calls, predicted, counters, symbol, at)
                    table = symbol * kinds + ahead
                    begin, end = t.predicted_at[table], t.predicted_at[table + 1]
                    for place in range(begin, end):
                        _add(items, seen, counters, t.predicted[place], inner, at, NONE)
                    steps += end - begin
                items[row, NEXT] = calls[inner, WAITING]
                calls[inner, WAITING] = row
                if t.can_be_empty[symbol] and _fits(lead, fits, ahead, dot + 1):
                    node = _node(nodes, calls, counters, inner, at)
                    new = _add(items, seen, counters, dot + 1, call, at, row)
                    if new != NONE:
                        items[new, CHILD] = node
            else:
                begin, end = t.characters_at[-2 - symbol], t.characters_at[-1 - symbol]
                stop = at + end - begin
                if stop <= size:
                    place = 0
                    while place < end - begin and text[at + place] == t.characters[begin + place]:
                        place += 1
                    steps += place
                    if place == end - begin:
                        items[row, NEXT] = reach[stop]
                        reach[stop] = row
                        furthest = max(furthest, stop)
            row += 1
            if counters[FULL] != 0 or steps > limit:
                break
        full = counters[FULL]
        if full != 0 or steps > limit:
            counters[HERE], counters[ROW], counters[LAST], counters[FURTHEST] = at, row, last, furthest
            counters[STEPS] = steps
            return full if full != 0 else PAUSED
        at += 1
    counters[HERE], counters[LAST], counters[FURTHEST] = at, last, furthest
    return DONE


@compiled
def _root(chart: Chart, stop: int) -> int:
    """Return the node of the start symbol over 0..stop, or NONE."""
    if chart.counters[CALLS] > 0:
        node = chart.calls[0, NODE]
        if node != NONE and chart.nodes[node, STOP] == stop and chart.nodes[node, ITEM] != NONE:
            return node
    return NONE


@compiled
def _derive(t: Tables, items: Ints, nodes: Ints, root: int, out: NDArray[Any], most: int) -> tuple[int, bool]:
    """Write the leftmost derivation to `out` as far as it fits; return its length and whether there are others.

    Counting ends at `most`.

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
        if count == most:
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
def _expect(t: Tables, items: Ints, counters: Longs, at: int, expected: Flags) -> None:
    """Mark the terminals that could come next in set `at`."""
    row = counters[ITEMS] - 1
    while row >= 0 and items[row, SET] == at:
        symbol = t.symbol[items[row, DOT]]
        if symbol < NONE:
            expected[-2 - symbol] = True
        row -= 1


@compiled
def parse_texts(
    t: Tables,
    texts: Ints,
    ends: Longs,
    chart: Chart,
    out: NDArray[Any],
    status: Ints,
    count: Ints,
    several: Flags,
    position: Ints,
    expected: Flags,
    most: int,
    limits: Limits,
) -> int:
    """Parse M strings, or some of them; go on where the call before stopped.

    Args:
        t: The grammar.
        texts: The numbers of all characters, one string after the other.
        ends: Where each string ends in `texts`, shape (M,).
        chart: From `new_chart`, for the longest of them.
        out: Receives the derivations, shape (M, L), integer; what is beyond a derivation is left as it was.
        status: Receives PARSED; REJECTED; TOO_LONG, for derivations of more than L productions; TOO_BIG or TOO_SLOW,
            for strings beyond the limits. Shape (M,).
        count: Receives the length of the derivation, 0 where it was not looked for, shape (M,).
        several: Receives whether there are other derivations, shape (M,).
        position: Receives where a rejected string fails, or where a budget was exceeded, in characters, shape (M,).
        expected: Receives the terminals that could have come there, and in the last column whether the string could
            have ended; shape (M, terminals + 1), all False before.
        most: Longer strings are TOO_LONG, unseen.
        limits: The budgets of each string.

    Returns:
        DONE; PAUSED, to be called again; or another reason, to be called again with `resized(chart, reason)`.
    """
    items, nodes, calls, counters = chart.items, chart.nodes, chart.calls, chart.counters
    while counters[INDEX] < len(ends):
        index = counters[INDEX]
        text = texts[ends[index - 1] if index > 0 else 0 : ends[index]]
        if len(text) > most:
            status[index] = TOO_LONG
            counters[INDEX] += 1
            continue
        if counters[HERE] == NONE:
            _begin(chart, len(text) + 1, NONE)
        reason = _recognize(t, text, items, nodes, calls, chart.seen, chart.reach, chart.predicted, counters)
        if reason == PAUSED and counters[STEPS] <= limits.steps:
            return PAUSED
        if reason == MORE_CELLS or (reason == MORE_ROWS and GROWTH * len(items) <= limits.rows):
            return reason
        if reason != DONE:
            status[index] = TOO_BIG if reason == MORE_ROWS else TOO_SLOW
            position[index] = counters[HERE]
        else:
            root = _root(chart, counters[LAST])
            look = counters[BLIND] == NONE
            if look and counters[LAST] == len(text) and root != NONE:
                count[index], several[index] = _derive(t, items, nodes, root, out[index], limits.productions)
                status[index] = PARSED if count[index] <= out.shape[1] else TOO_LONG
            elif look:  # once more, to see what could have come at the last position that is reached
                _begin(chart, len(text) + 1, counters[FURTHEST])
                continue
            else:
                status[index] = REJECTED
                position[index] = counters[LAST]
                expected[index, -1] = root != NONE
                _expect(t, items, counters, counters[LAST], expected[index])
        counters[HERE] = NONE
        counters[INDEX] += 1
        if len(items) > limits.few:
            return FEWER_ROWS
    return DONE
