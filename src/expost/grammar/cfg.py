"""Context-free grammars: read from text, checked once, and numbered for models over productions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property

from expost.errors import DataError, UsageError
from expost.grammar.analysis import cyclic, left_recursive, nullable, productive, reachable
from expost.grammar.budgets import MOST_COMPARED, MOST_TEXT, check_budget
from expost.grammar.notation import read_rules
from expost.grammar.rules import Production, Symbol, shown

__all__ = ["Grammar", "Production", "Symbol"]

#: Symbols are named in messages up to so many.
LISTED = 12


@dataclass(frozen=True)
class Grammar:
    r"""A context-free grammar over characters, without useless symbols and without cycles.

    Terminals may have several characters (`'sin('`, `'Cl'`) and are matched against the characters of a string: there
    is no tokenizer and no white space is skipped. Left-recursive, ambiguous and empty productions are all allowed (that
    a grammar is ambiguous cannot be decided in general; that a string is can: `Parser.is_ambiguous`). What is refused
    would make a model's mask or a derivation meaningless: a symbol without a production, one that derives no string,
    one that the start never reaches, the same production twice, and a nonterminal that derives itself (`A -> A`),
    because its strings have infinitely many derivations.

    Productions are numbered in the order of the text; one more number, `pad`, is kept for padding.

    Attributes:
        text: The text that it was made from; `Grammar.from_text(grammar.text)` gives an equal grammar.
        productions: The productions in order, without padding.

    Example:
        >>> grammar = Grammar.from_text("S -> S '+' T | T\nT -> 'x' | '1'")
        >>> print(grammar.productions[0], grammar.size, grammar.left, grammar.children)
        S -> S '+' T 5 (0, 0, 1, 1) ((0, 1), (1,), (), ())
        >>> grammar.describe()
        '4 productions and padding, 2 nonterminals, 3 terminals; left-recursive: S'
    """

    text: str
    productions: tuple[Production, ...]

    @classmethod
    def from_text(cls, text: str, prune: bool = False, name: str = "grammar") -> Grammar:
        r"""Read a grammar from text.

        One rule a line, `A -> B 'c' | "d"`; alternatives may go on in lines that begin with `|`. Terminals are quoted,
        single or double, and a backslash in them stands for itself. An alternative without symbols, or `''`, derives
        the empty string. `#` outside quotes begins a comment. The left side of the first rule is the start symbol. A
        last rule `Nothing -> None`, by which some grammar files spell out their padding, is dropped: `pad` takes its
        number. BNF, EBNF and other notations of `expost.grammar.notation` are translated, and `text` is then that of
        the productions.

        Args:
            text: The text.
            prune: Drop productions that no derivation of a string can use, instead of refusing the grammar. `text` is
                then that of the productions that are left.
            name: What to call the text in error messages, such as a file's path.

        Raises:
            DataError: if the text is no grammar, or one that the class refuses.
        """
        if not isinstance(text, str):
            raise UsageError(f"a grammar is given as text, not as {type(text).__name__}; read the file first")
        rules, notation = read_rules(text, name)
        return cls.from_rules(rules, None if notation else text, prune, name)

    @classmethod
    def from_rules(
        cls, rules: Sequence[tuple[Production, int]], text: str | None, prune: bool = False, name: str = "grammar"
    ) -> Grammar:
        """Make a grammar of productions, each with the number of its line; see `from_text`.

        Args:
            rules: The productions, as `expost.grammar.notation.read_rules` returns them.
            text: Their text; None, or where some are dropped, for that of the productions.
            prune: See `from_text`.
            name: See `from_text`.

        Raises:
            DataError: if the class refuses the grammar.
        """
        if not rules:
            raise DataError(f"{name} has no production; write rules such as S -> 'a' S | 'b'")
        seen: dict[Production, int] = {}
        for production, line in rules:
            if production in seen:
                raise DataError(
                    f"{name}, line {line}: duplicate production '{shown(production)}' of line {seen[production]}"
                )
            seen[production] = line
        kept = _useful(list(seen)) if prune else list(seen)
        if text is None or len(kept) < len(seen):
            text = "".join(f"{production}\n" for production in kept)
            check_budget(len(text), MOST_TEXT, "characters, written as productions", name)
            seen = {production: seen[production] for production in kept}
        _check_symbols(seen, name)
        if names := cyclic(list(seen)):
            raise DataError(
                f"{name}: '{names[0]}' derives itself, so that its strings have infinitely many derivations; "
                f"break the cycle through {_listed(names)}"
            )
        return cls(text, tuple(seen))

    @cached_property
    def nonterminals(self) -> tuple[str, ...]:
        """The nonterminals, in the order of their first production; the start symbol is first."""
        return tuple(dict.fromkeys(production.left for production in self.productions))

    @property
    def start(self) -> str:
        """The start symbol."""
        return self.nonterminals[0]

    @cached_property
    def terminals(self) -> tuple[str, ...]:
        """The terminals, in the order of the text."""
        symbols = (symbol for production in self.productions for symbol in production.right)
        return tuple(dict.fromkeys(symbol.name for symbol in symbols if symbol.terminal))

    @property
    def pad(self) -> int:
        """The number that stands for padding: one more than the last production's."""
        return len(self.productions)

    @property
    def size(self) -> int:
        """How many numbers there are, V: productions and padding."""
        return len(self.productions) + 1

    @cached_property
    def left(self) -> tuple[int, ...]:
        """The nonterminal on each production's left side, as an index into `nonterminals`."""
        return tuple(self._index[production.left] for production in self.productions)

    @cached_property
    def children(self) -> tuple[tuple[int, ...], ...]:
        """The nonterminals on each production's right side, in order, as indices into `nonterminals`."""
        return tuple(
            tuple(self._index[symbol.name] for symbol in production.right if not symbol.terminal)
            for production in self.productions
        )

    @cached_property
    def nullable(self) -> tuple[str, ...]:
        """The nonterminals that derive the empty string."""
        found = nullable(self.productions)
        return tuple(name for name in self.nonterminals if name in found)

    @cached_property
    def left_recursive(self) -> tuple[str, ...]:
        """The nonterminals that derive a string beginning with themselves, also behind symbols that can be empty."""
        return left_recursive(self.productions)

    @cached_property
    def _index(self) -> dict[str, int]:
        return {name: index for index, name in enumerate(self.nonterminals)}

    def describe(self) -> str:
        """Return one line: how many productions and symbols there are, and which nonterminals are left-recursive."""
        return (
            f"{len(self.productions)} productions and padding, {len(self.nonterminals)} nonterminals, "
            f"{len(self.terminals)} terminals; left-recursive: {_listed(self.left_recursive) or 'none'}"
        )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - LISTED:,} others" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


def useless(rules: Sequence[tuple[Production, int]], name: str = "grammar") -> list[tuple[Production, str]]:
    """Return the productions that `Grammar.from_rules` prunes, in order, each with the reason.

    Raises:
        DataError: if a symbol has no production, and nearly the name of one that has: most likely an error of typing.
            Of names without a production so many are compared as `MOST_COMPARED` allows.
    """
    productions = [production for production, _ in rules]
    defined = {production.left for production in productions}
    ends, kept = productive(productions), set(_useful(productions))
    compared: set[str] = set()
    found = []
    for production, line in rules:
        if production in kept:
            continue
        names = [symbol.name for symbol in production.right if not symbol.terminal]
        unknown = [each for each in names if each not in defined]
        for each in unknown:
            if each in compared or (len(compared) + 1) * len(defined) > MOST_COMPARED:
                continue
            compared.add(each)
            if close := get_close_matches(each, defined, n=1, cutoff=0.8):
                raise DataError(
                    f"{name}, line {line}: '{each}' in '{shown(production)}' has no production; "
                    f"did you mean '{close[0]}'?"
                )
        endless = [each for each in names if each not in ends]
        if unknown:
            reason = f"'{unknown[0]}' has no production"
        elif endless:
            reason = f"'{endless[0]}' never ends"
        else:
            reason = f"nothing leads to '{production.left}'"
        found.append((production, reason))
    return found


def _useful(productions: Sequence[Production]) -> list[Production]:
    """Return the productions that some derivation of a string from the start symbol uses."""
    start, ends = productions[0].left, productive(productions)
    ending = [p for p in productions if all(symbol.terminal or symbol.name in ends for symbol in p.right)]
    reached = reachable(ending, start)
    # without a start symbol that ends nothing is useful: leave the grammar to the check, which says so
    return [p for p in ending if p.left in reached] if start in ends else list(productions)


def _check_symbols(lines: Mapping[Production, int], name: str) -> None:
    """Refuse a symbol without a production, one that never ends, and one that is never reached."""
    productions = list(lines)
    defined = {production.left for production in productions}
    ends = productive(productions)
    reached = reachable(productions, productions[0].left)
    remedy = "or remove it (prune=True drops what no string can use)"
    for production, line in lines.items():
        for symbol in production.right:
            if not symbol.terminal and symbol.name not in defined:
                raise DataError(
                    f"{name}, line {line}: '{symbol.name}' in '{shown(production)}' has no production; "
                    f"define it, quote it if it is a terminal, {remedy}"
                )
    for production, line in lines.items():
        if production.left not in ends:
            other = "" if production.left == productions[0].left else f", {remedy}"
            raise DataError(
                f"{name}, line {line}: '{production.left}' never ends: none of its productions leads to a string; "
                f"give it one that does{other}"
            )
        if production.left not in reached:
            raise DataError(
                f"{name}, line {line}: '{production.left}' is never reached from the start symbol "
                f"'{productions[0].left}'; use it, {remedy}"
            )
