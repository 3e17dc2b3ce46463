"""Properties of productions: which symbols can be empty, useful or recursive, and which characters begin them.

Every function takes time linear in the number of symbols of all right sides, but for the sets of characters: a set of K
characters is an integer of K bits, so that joining two takes K / 64 steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

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
    found = {start}
    todo = [start]
    while todo:
        for other in mentions.get(todo.pop(), ()):
            if other not in found:
                found.add(other)
                todo.append(other)
    return frozenset(found)


def left_recursive(productions: Sequence[Production]) -> tuple[str, ...]:
    """Return the nonterminals that derive a string beginning with themselves, also behind symbols that can be empty."""
    return _recursive(_beginnings(productions, nullable(productions)))


def cyclic(productions: Sequence[Production]) -> tuple[str, ...]:
    """Return the nonterminals that derive themselves and nothing else: A =>+ A.

    B follows from A in one step of such a derivation if A has a production in which everything but one B can be empty.
    """
    empty = nullable(productions)
    becomes: dict[str, set[str]] = {}
    for production in productions:
        names = becomes.setdefault(production.left, set())
        solid = [symbol for symbol in production.right if symbol.terminal or symbol.name not in empty]
        if not solid:
            names.update(symbol.name for symbol in production.right)
        elif len(solid) == 1 and not solid[0].terminal:
            names.add(solid[0].name)
    return _recursive(becomes)


def first_bits(productions: Sequence[Production], empty: frozenset[str], number: Mapping[str, int]) -> dict[str, int]:
    """Return, for each nonterminal, the characters with which what it derives can begin, as bits.

    Args:
        productions: The productions; every nonterminal has one.
        empty: `nullable(productions)`.
        number: The bit of each character with which a terminal begins.
    """
    own = dict.fromkeys((production.left for production in productions), 0)
    for production in productions:
        for symbol in production.right:
            if symbol.terminal:
                own[production.left] |= 1 << number[symbol.name[0]]
                break
            if symbol.name not in empty:
                break
    return _unions(own, _beginnings(productions, empty))


def follow_bits(
    productions: Sequence[Production],
    start: str,
    empty: frozenset[str],
    begins: Mapping[str, int],
    number: Mapping[str, int],
) -> dict[str, int]:
    """Return, for each nonterminal, the characters that can come right after what it derives, as bits.

    Args:
        productions: The productions; every nonterminal has one.
        start: The start symbol.
        empty: `nullable(productions)`.
        begins: `first_bits(...)`.
        number: The bit of each character with which a terminal begins, and of `END`.
    """
    own = dict.fromkeys((production.left for production in productions), 0)
    own[start] |= 1 << number[END]
    ends: dict[str, set[str]] = {name: set() for name in own}  # whose ends are also ends of what
    for production in productions:
        after, last = 0, True
        for symbol in reversed(production.right):
            if symbol.terminal:
                after, last = 1 << number[symbol.name[0]], False
                continue
            own[symbol.name] |= after
            if last:
                ends[symbol.name].add(production.left)
            if symbol.name in empty:
                after |= begins[symbol.name]
            else:
                after, last = begins[symbol.name], False
    return _unions(own, ends)


def first(productions: Sequence[Production]) -> dict[str, frozenset[str]]:
    """Return, for each nonterminal, the characters with which what it derives can begin."""
    number = number_firsts(productions)
    return _spelled(first_bits(productions, nullable(productions), number), number)


def follow(productions: Sequence[Production], start: str) -> dict[str, frozenset[str]]:
    """Return, for each nonterminal, the characters that can come right after what it derives; `END` for the end."""
    empty, number = nullable(productions), number_firsts(productions)
    begins = first_bits(productions, empty, number)
    return _spelled(follow_bits(productions, start, empty, begins, number), number)


def number_firsts(productions: Sequence[Production]) -> dict[str, int]:
    """Number the characters with which terminals begin, and `END`, which comes last."""
    letters = {symbol.name[0] for production in productions for symbol in production.right if symbol.terminal}
    return {letter: index for index, letter in enumerate([*sorted(letters), END])}


def _spelled(sets: Mapping[str, int], number: Mapping[str, int]) -> dict[str, frozenset[str]]:
    """Return sets of characters for sets of bits."""
    letters = list(number)
    return {
        name: frozenset(letter for letter, bit in zip(letters, reversed(f"{bits:b}"), strict=False) if bit == "1")
        for name, bits in sets.items()
    }


def _least(productions: Sequence[Production], fits: Callable[[Symbol], bool]) -> frozenset[str]:
    """Collect the left sides of productions whose symbols all fit or were collected before."""
    known: set[str] = set()
    todo: list[str] = []
    missing: list[int] = []  # symbols of each production that are not known yet
    users: dict[str, list[int]] = {}  # the productions in which each of them is, as often as it is
    for index, production in enumerate(productions):
        unknown = [symbol for symbol in production.right if not fits(symbol)]
        missing.append(len(unknown))
        for symbol in unknown:
            if not symbol.terminal:
                users.setdefault(symbol.name, []).append(index)
        if not unknown and production.left not in known:
            known.add(production.left)
            todo.append(production.left)
    while todo:
        for index in users.get(todo.pop(), ()):
            missing[index] -= 1
            if missing[index] == 0 and (left := productions[index].left) not in known:
                known.add(left)
                todo.append(left)
    return frozenset(known)


def _beginnings(productions: Sequence[Production], empty: frozenset[str]) -> dict[str, set[str]]:
    """Return, for each nonterminal, those with which its right sides begin, also behind symbols that can be empty."""
    begins: dict[str, set[str]] = {}
    for production in productions:
        names = begins.setdefault(production.left, set())
        for symbol in production.right:
            if symbol.terminal:
                break
            names.add(symbol.name)
            if symbol.name not in empty:
                break
    return begins


def _recursive(edges: Mapping[str, set[str]]) -> tuple[str, ...]:
    """Return the keys from which some path leads back to them, in order."""
    found = {name for part in _components(edges) for name in part if len(part) > 1 or name in edges.get(name, ())}
    return tuple(name for name in edges if name in found)


def _unions(own: Mapping[str, int], edges: Mapping[str, set[str]]) -> dict[str, int]:
    """Return the least sets, of bits, that hold each name's own and those of all that its edges lead to."""
    found: dict[str, int] = {}
    for part in _components(edges):
        bits = 0
        for name in part:
            bits |= own[name]
            for other in edges.get(name, ()):
                bits |= found.get(other, 0)
        found |= dict.fromkeys(part, bits)
    return {name: found[name] for name in own}


def _components(edges: Mapping[str, Iterable[str]]) -> list[set[str]]:
    """Return the strongly connected components, each after all that it leads to."""
    import networkx  # slow to import, and only grammars need it

    graph = networkx.DiGraph()
    graph.add_nodes_from(edges)
    graph.add_edges_from((name, other) for name, others in edges.items() for other in others)
    condensed = networkx.condensation(graph)
    return [condensed.nodes[part]["members"] for part in reversed(list(networkx.topological_sort(condensed)))]
