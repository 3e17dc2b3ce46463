"""Properties of productions: which symbols can be empty, useful or recursive, and which characters begin them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from expost.grammar.rules import Production, Symbol

END = ""  # stands for the end of the string in the sets of `first` and `follow`; a terminal is never empty


def nullable(productions: Sequence[Production]) -> frozenset[str]:
    """Return the nonterminals that derive the empty string."""
    return _least(productions, lambda symbol: False)


def productive(productions: Sequence[Production]) -> frozenset[str]:
    """Return the nonterminals that derive some string of terminals."""
    return _least(productions, lambda symbol: symbol.terminal)


def reachable(productions: Sequence[Production], start: str) -> frozenset[str]:
    """Return the nonterminals that occur in what `start` derives, `start` among them."""
    mentions: dict[str, set[str]] = {}
    for production in productions:
        names = (symbol.name for symbol in production.right if not symbol.terminal)
        mentions.setdefault(production.left, set()).update(names)
    return frozenset({start} | _reached(mentions, start))


def left_recursive(productions: Sequence[Production]) -> tuple[str, ...]:
    """Return the nonterminals that derive a string beginning with themselves, also behind symbols that can be empty."""
    empty = nullable(productions)
    begins: dict[str, set[str]] = {}
    for production in productions:
        names = begins.setdefault(production.left, set())
        for symbol in production.right:
            if symbol.terminal:
                break
            names.add(symbol.name)
            if symbol.name not in empty:
                break
    return tuple(name for name in begins if name in _reached(begins, name))


def cyclic(productions: Sequence[Production]) -> tuple[str, ...]:
    """Return the nonterminals that derive themselves and nothing else: A =>+ A.

    B follows from A in one step of such a derivation if A has a production in which everything but one B can be empty.
    """
    empty = nullable(productions)
    becomes: dict[str, set[str]] = {}
    for production in productions:
        names = becomes.setdefault(production.left, set())
        for place, symbol in enumerate(production.right):
            others = production.right[:place] + production.right[place + 1 :]
            if not symbol.terminal and all(not other.terminal and other.name in empty for other in others):
                names.add(symbol.name)
    return tuple(name for name in becomes if name in _reached(becomes, name))


def first(productions: Sequence[Production]) -> dict[str, frozenset[str]]:
    """Return, for each nonterminal, the characters with which what it derives can begin."""
    empty = nullable(productions)
    sets: dict[str, set[str]] = {production.left: set() for production in productions}
    _until_stable(sets, lambda: [(p.left, first_of(p.right, sets, empty)) for p in productions])
    return {name: frozenset(found) for name, found in sets.items()}


def first_of(
    symbols: Sequence[Symbol], sets: Mapping[str, frozenset[str] | set[str]], empty: frozenset[str]
) -> set[str]:
    """Return the characters with which what `symbols` derive can begin, given `first` and `nullable`."""
    found: set[str] = set()
    for symbol in symbols:
        if symbol.terminal:
            return found | {symbol.name[0]}
        found |= sets[symbol.name]
        if symbol.name not in empty:
            return found
    return found


def follow(productions: Sequence[Production], start: str) -> dict[str, frozenset[str]]:
    """Return, for each nonterminal, the characters that can come right after what it derives; `END` for the end."""
    empty, begins = nullable(productions), first(productions)
    sets: dict[str, set[str]] = {production.left: set() for production in productions}
    sets[start].add(END)

    def step() -> list[tuple[str, set[str]]]:
        found = []
        for production in productions:
            after = set(sets[production.left])
            for symbol in reversed(production.right):
                if symbol.terminal:
                    after = {symbol.name[0]}
                    continue
                found.append((symbol.name, set(after)))
                after = set(begins[symbol.name]) | (after if symbol.name in empty else set())
        return found

    _until_stable(sets, step)
    return {name: frozenset(found) for name, found in sets.items()}


def _least(productions: Sequence[Production], fits: Callable[[Symbol], bool]) -> frozenset[str]:
    """Collect the left sides of productions whose symbols all fit or were collected before."""
    known: set[str] = set()
    size = -1
    while len(known) > size:
        size = len(known)
        for left, right in ((production.left, production.right) for production in productions):
            if left not in known and all(
                fits(symbol) or (not symbol.terminal and symbol.name in known) for symbol in right
            ):
                known.add(left)
    return frozenset(known)


def _reached(edges: Mapping[str, set[str]], name: str) -> set[str]:
    """Return what can be reached from `name` in one step or more."""
    found: set[str] = set()
    todo = [name]
    while todo:
        for other in edges.get(todo.pop(), ()):
            if other not in found:
                found.add(other)
                todo.append(other)
    return found


def _until_stable(sets: dict[str, set[str]], step: Callable[[], list[tuple[str, set[str]]]]) -> None:
    """Add what `step` finds to the sets until nothing changes (a fixed point)."""
    size = -1
    while (total := sum(map(len, sets.values()))) > size:
        size = total
        for name, found in step():
            sets[name] |= found
