"""The rules of a context-free grammar, and how they are read from text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from expost.errors import DataError
from expost.grammar.budgets import MOST_NAME, MOST_SYMBOLS, MOST_TERMINAL, check_budget


@dataclass(frozen=True)
class Symbol:
    """One symbol on the right side of a production.

    Attributes:
        name: The name of a nonterminal, or the very characters of a terminal.
        terminal: Whether it stands for its characters.
    """

    name: str
    terminal: bool

    def __str__(self) -> str:
        """Return the symbol as written in a grammar: terminals in quotes."""
        quote = '"' if "'" in self.name else "'"
        return f"{quote}{self.name}{quote}" if self.terminal else self.name


@dataclass(frozen=True)
class Production:
    """One rewriting rule.

    Attributes:
        left: The nonterminal that is rewritten.
        right: What it becomes; empty for a production that derives the empty string.
    """

    left: str
    right: tuple[Symbol, ...]

    def __str__(self) -> str:
        """Return the production as written in a grammar."""
        return f"{self.left} -> {' '.join(map(str, self.right))}".rstrip()


def shown(value: object, most: int = 120) -> str:
    r"""Return a name or a production for a message: in one line of printable characters, cut short where it is long.

    Example:
        >>> shown(Symbol("a\tb", True)), shown("A" * 50, 10)
        ("'a\\tb'", 'AAAAAAA...')
    """
    text = str(value)
    text = text if len(text) <= most else f"{text[: most - 3]}..."
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def check_word(word: str, most: int, where: str) -> str:
    """Return the characters of a symbol, unless there are too many."""
    if len(word) > most:
        check_budget(len(word), most, f"characters for the symbol {shown(word, 20)!r}", where)
    return word


_TOKEN = re.compile(
    r"""\s+ | (?P<comment>\#.*) | (?P<quoted>'[^']*'|"[^"]*") | (?P<arrow>->) | (?P<bar>\|)
      | (?P<name>[\w/](?:[\w/^<>]|-(?!>))*) | (?P<open>['"]) | (?P<other>.)""",
    re.VERBOSE,
)

EMPTY = frozenset(("ε", "ϵ", "ɛ", "λ", "Λ", "epsilon", "Epsilon", "EPSILON", "eps", "lambda", "empty", "EMPTY", "∅"))
"""Words that mean the empty string where no rule has that name."""

_PADDING = Production("Nothing", (Symbol("None", False),))


def read_plain(text: str, name: str) -> list[tuple[Production, int]]:
    """Read the productions, in order, each with the number of its line.

    Raises:
        DataError: at the first line that is no rule.
    """
    rules: list[tuple[Production, int]] = []
    left, size = "", 0
    for number, line in enumerate(re.split(r"\r\n|\r|\n", text.removeprefix("\ufeff")), start=1):
        where = f"{name}, line {number}"
        tokens = [(str(match.lastgroup), match.group()) for match in _TOKEN.finditer(line) if match.lastgroup]
        tokens = [token for token in tokens if token[0] != "comment"]
        if not tokens:
            continue
        for kind, value in tokens:
            if kind == "open":
                raise DataError(f"{where}: unterminated quote; close it with {value} on the same line")
            if kind == "other":
                raise DataError(f"{where}: unexpected {value!r}; quote terminals, as in '{value}', and name the others")
        kinds = [kind for kind, _ in tokens]
        if kinds[:2] == ["name", "arrow"]:
            left, tokens = check_word(tokens[0][1], MOST_NAME, where), tokens[2:]
        elif kinds[0] == "bar" and left:
            tokens = tokens[1:]
        else:
            raise DataError(f"{where}: no arrow: a rule begins with 'NAME ->'; write rules such as S -> 'a' S | 'b'")
        if "arrow" in (kind for kind, _ in tokens):
            raise DataError(f"{where}: a second '->'; write one rule a line, and '->' as a terminal in quotes")
        size += len(tokens) + 1
        check_budget(size, MOST_SYMBOLS, "symbols up to here", where)
        right: list[Symbol] = []
        for kind, value in [*tokens, ("bar", "|")]:
            if kind == "bar":
                rules.append((Production(left, tuple(right)), number))
                right = []
            elif kind == "name":
                right.append(Symbol(check_word(value, MOST_NAME, where), False))
            elif len(value) > 2:
                right.append(Symbol(check_word(value[1:-1], MOST_TERMINAL, where), True))
    return rules


def without_empty(rules: Sequence[tuple[Production, int]]) -> list[tuple[Production, int]]:
    """Leave out words that mean the empty string, as far as no rule defines them."""
    defined = {production.left for production, _ in rules}
    words = EMPTY - defined
    if not any(symbol.name in words and not symbol.terminal for p, _ in rules for symbol in p.right):
        return list(rules)
    return [
        (Production(p.left, tuple(symbol for symbol in p.right if symbol.terminal or symbol.name not in words)), line)
        for p, line in rules
    ]


def without_padding(rules: list[tuple[Production, int]]) -> list[tuple[Production, int]]:
    """Leave out a last rule `Nothing -> None` that only spells out padding."""
    return rules[:-1] if _is_padding([production for production, _ in rules]) else rules


def _is_padding(productions: Sequence[Production]) -> bool:
    """Tell whether the last production serves only as padding: neither of its names occurs elsewhere."""
    if not productions or productions[-1] != _PADDING:
        return False
    left = [production.left for production in productions]
    used = [symbol.name for production in productions[:-1] for symbol in production.right if not symbol.terminal]
    return left.count("Nothing") == 1 and "None" not in left and "Nothing" not in used
