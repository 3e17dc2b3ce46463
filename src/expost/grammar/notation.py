"""Grammars in notations other than the plain one of `rules`: BNF, EBNF, NLTK's probabilities, other arrows, primes.

A rule is a name, an arrow and alternatives, and goes on until the next name with an arrow. Groups and repetitions
become rules of their own, which recurse to the right.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from expost.errors import DataError
from expost.grammar.budgets import (
    MOST_NAME,
    MOST_NESTED,
    MOST_SYMBOLS,
    MOST_TERMINAL,
    MOST_TEXT,
    check_budget,
)
from expost.grammar.rules import (
    EMPTY,
    Production,
    Symbol,
    check_word,
    read_plain,
    shown,
    without_empty,
    without_padding,
)
from expost.grammar.tokens import ARROW, CLOSING, Token, spans_of, tokens_of
from expost.grammar.typography import untypeset

#: What is not read, and how it is written without.
_REFUSED = {
    "regular": "a regular expression; write its alternatives out",
    "directive": "a directive; leave it out, and write its rules out",
    "code": "a character's number, as in ABNF; write the character in quotes",
}
_PRIMED = re.compile(rf"^[^\S\n]*+\w++'++\s*+({ARROW})", re.MULTILINE)
#: Names that become the same word are told apart by as many underscores, more of them by a number.
_UNDERSCORES = 8
_COMMENTED = re.compile(r"(\||::=)[^\S\n]*#")
_FOREIGN = re.compile(r"^[^\S\n]*+[<\w][^|'\"\n]*?(-->|<-|::=|:=|=>|[→⟶⇒⟹⭢←]|:|=)", re.MULTILINE)


def read_rules(text: str, name: str) -> tuple[list[tuple[Production, int]], str]:
    """Read the productions, in order, each with the number of its line; also return what another notation is called.

    A last rule `Nothing -> None` that only spells out padding is left out, and a word of `EMPTY` without a rule of its
    own derives the empty string.

    Raises:
        DataError: at the first line that is no rule, in the plain notation or another one.
    """
    check_budget(len(text), MOST_TEXT, "characters", name)
    text = untypeset(text, name)
    if _PRIMED.search(text):  # where an apostrophe would begin a terminal
        rules, notation = read_other(text, name)
        return without_empty(rules), notation
    try:
        plain = read_plain(text, name)
        rules = without_empty(plain)
        return without_padding(rules), "" if rules == plain else "a word for the empty string"
    except DataError as error:
        try:
            rules, notation = read_other(text, name)
            if not notation:
                raise error
        except DataError as other:
            known = _FOREIGN.search(text) or any(reason in str(other) for reason in _REFUSED.values())
            raise (other if known else error) from None
        return without_padding(without_empty(rules)), notation


@dataclass
class _Reader:
    """Reads the rules of a text, and adds those of its groups and repetitions."""

    tokens: Sequence[Token]
    where: str
    bare: bool  # whether words that are not in angle brackets are terminals
    found: dict[str, None] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)
    alike: dict[str, int] = field(default_factory=dict)  # how many names of the text have the same word
    rules: list[tuple[Production, int]] = field(default_factory=list)
    added: list[tuple[Production, int]] = field(default_factory=list)
    position: int = 0
    left: str = ""
    ending: str = ""  # the sign that every rule ends with
    count: int = 0
    depth: int = 0
    size: int = 0

    def read(self) -> None:
        """Read all rules."""
        starts = [index for index in range(len(self.tokens)) if self._starts(index)]
        for index in starts:
            self._named(self.tokens[index].text)
        if not starts or starts[0] > 0:
            raise self._unexpected(self.tokens[0])
        lasts = {self.tokens[index - 1].text for index in [*starts[1:], len(self.tokens)]}
        self.ending = lasts.pop() if len(lasts) == 1 else ""
        while self.position < len(self.tokens):
            token = self.tokens[self.position]
            if not self._starts(self.position):
                raise self._unexpected(token)
            self.left = self._named(token.text)
            self.position += 2
            for right, line in self._alternatives(token.line):
                self._spend(len(right) + 1, line)
                self.rules.append((Production(self.left, right), line))

    def _starts(self, index: int) -> bool:
        """Tell whether a rule begins at a token: a name before an arrow."""
        if index + 1 >= len(self.tokens) or self.tokens[index].kind not in ("name", "angled"):
            return False
        after = self.tokens[index + 1]
        first = (
            index == 0 or self.tokens[index - 1].line < self.tokens[index].line or self.tokens[index - 1].text in ";."
        )
        return after.kind == "arrow" and first

    def _alternatives(self, line: int) -> list[tuple[tuple[Symbol, ...], int]]:
        """Read alternatives up to a closing bracket, or the end of the rule."""
        found: list[tuple[tuple[Symbol, ...], int]] = []
        right: list[Symbol] = []
        while self.position < len(self.tokens):
            token = self.tokens[self.position]
            if (token.kind == "close" and not self._is_terminal(token)) or self._starts(self.position):
                break
            self.position += 1
            if token.kind == "bar":
                if right or found or self.tokens[self.position - 2].kind != "arrow":  # not a bar before the first
                    found.append((tuple(right), line))
                right, line = [], token.line
            elif token.kind == "arrow" and token.text == "->" and right:
                self.position += 1  # the alias of an alternative, as Lark has them
            elif self._separates(token):
                self.note("EBNF")
            elif token.kind == "chance":
                self.note("probabilities, which are left out")
            else:
                right += self._factor(token)
        return [*found, (tuple(right), line)]

    def _separates(self, token: Token) -> bool:
        """Tell whether a sign ends a rule or stands between symbols; without quotes, it does if it ends every rule."""
        if token.kind != "other" or token.text not in (";", ".", ","):
            return False
        last = self.position == len(self.tokens) or self._starts(self.position)
        return not self.bare or (last and token.text == self.ending)

    def _factor(self, token: Token) -> list[Symbol]:
        """Read a symbol or a group, with what repeats it."""
        part = self._part(token)
        while self.position < len(self.tokens) and self.tokens[self.position].kind == "times":
            times = self.tokens[self.position]
            if self._is_terminal(times):
                break
            self.position += 1
            self.note("EBNF")
            part = self._repeated(part, times.text, times.line)
        return part

    def _part(self, token: Token) -> list[Symbol]:
        if self._is_terminal(token):
            return [self._terminal(token.text, token.line)]
        if token.kind == "quoted":
            if self.position < len(self.tokens) and self.tokens[self.position].kind == "dots":
                return self._range(token)
            return [self._terminal(token.text[1:-1], token.line)] if len(token.text) > 2 else []
        if token.kind in ("name", "angled"):
            if token.text.strip("<> ") in EMPTY and token.text not in self.names:
                return []
            return [Symbol(self._named(token.text), False)]
        if token.kind == "open":
            self.note("EBNF")
            self.depth += 1
            where = f"{self.where}, line {token.line}"
            check_budget(self.depth, MOST_NESTED, "groups within groups", where, "give some of them names")
            inside = self._alternatives(token.line)
            self.depth -= 1
            close = self.tokens[self.position] if self.position < len(self.tokens) else None
            if close is None or close.text != CLOSING[token.text]:
                raise DataError(f"{self.where}, line {token.line}: '{token.text}' is not closed; close or quote it")
            self.position += 1
            rights = [right for right, _ in inside]
            if token.text == "[":
                return self._rule([(), *rights], token.line)
            part = list(rights[0]) if len(rights) == 1 else self._rule(rights, token.line)
            return self._repeated(part, "*", token.line) if token.text == "{" else part
        if token.kind == "range":
            self.note("EBNF")
            return self._letters(token.text[1:-1], token.line)
        if token.text in EMPTY:
            return []
        raise self._unexpected(token)

    def _range(self, first: Token) -> list[Symbol]:
        """Read 'a'..'z'."""
        last = self.tokens[self.position + 1] if self.position + 1 < len(self.tokens) else first
        if last.kind != "quoted" or len(last.text) != 3 or len(first.text) != 3:
            raise self._unexpected(self.tokens[self.position])
        self.position += 2
        self.note("EBNF")
        return self._letters(f"{first.text[1]}-{last.text[1]}", first.line)

    def _letters(self, inside: str, line: int) -> list[Symbol]:
        """Return what stands for one of the characters of a class."""
        spans = spans_of(inside)
        size = self.size + sum(max(0, last - first + 1) for first, last in spans)
        check_budget(size, MOST_SYMBOLS, "symbols up to here", f"{self.where}, line {line}")
        found = dict.fromkeys(chr(point) for first, last in spans for point in range(first, last + 1))
        return self._rule([(Symbol(each, True),) for each in found], line)

    def _repeated(self, part: Sequence[Symbol], times: str, line: int) -> list[Symbol]:
        """Return what stands for a part that may be left out, or repeated."""
        once = tuple(part)
        if times == "?":
            return self._rule([(), once], line)
        self._spend(2 * len(once) + 3, line)
        name = self._new()
        self.added += [(Production(name, () if times == "*" else once), line)]
        self.added += [(Production(name, (*once, Symbol(name, False))), line)]
        return [Symbol(name, False)]

    def _rule(self, rights: Sequence[Sequence[Symbol]], line: int) -> list[Symbol]:
        name = self._new()
        for right in dict.fromkeys(map(tuple, rights)):
            self._spend(len(right) + 1, line)
            self.added.append((Production(name, right), line))
        return [Symbol(name, False)]

    def _new(self) -> str:
        """Return a name that no rule has."""
        while True:
            self.count += 1
            name = f"{self.left}_{self.count}"
            if name not in self.taken:
                self.taken.add(name)
                return name

    def _spend(self, symbols: int, line: int) -> None:
        """Count symbols, and refuse a grammar of too many."""
        self.size += symbols
        check_budget(self.size, MOST_SYMBOLS, "symbols up to here", f"{self.where}, line {line}")

    def _terminal(self, text: str, line: int) -> Symbol:
        return Symbol(check_word(text, MOST_TERMINAL, f"{self.where}, line {line}"), True)

    def _named(self, text: str) -> str:
        """Return the plain name of a symbol: a word, with `prime` for an apostrophe."""
        if text not in self.names:
            word = re.sub(r"\W+", "_", text.strip("<> ").replace("'", "_prime"))
            check_word(word, MOST_NAME, self.where)
            if text.startswith("<"):
                self.note("BNF")
            if "'" in text:
                self.note("primes")
            plain = word
            while word in self.taken:
                self.alike[plain] = again = self.alike.get(plain, 0) + 1
                word = plain + "_" * again if again < _UNDERSCORES else f"{plain}_{again}_"
            self.taken.add(word)
            self.names[text] = word
        return self.names[text]

    def _is_terminal(self, token: Token) -> bool:
        """Tell whether a word of BNF without quotes stands for itself; signs do where they stand apart."""
        if not self.bare or token.kind in ("angled", "quoted", "bar", "arrow", "chance"):
            return False
        if token.kind == "name":
            return token.text not in EMPTY
        if token.kind == "times":
            return not token.tight
        return token.text not in EMPTY and token.text not in "[]{}" and token.kind in ("open", "close", "other")

    def note(self, what: str) -> None:
        """Remember what the notation is called."""
        self.found[what] = None

    def _unexpected(self, token: Token) -> DataError:
        notation = f" in {' and '.join(self.found)}" if self.found else ""
        if token.kind in _REFUSED:
            return DataError(f"{self.where}, line {token.line}: {shown(token.text)} is {_REFUSED[token.kind]}")
        if token.text in "'\"":
            return DataError(
                f"{self.where}, line {token.line}: unterminated quote; close it with {token.text} on the same line"
            )
        return DataError(
            f"{self.where}, line {token.line}: unexpected {shown(token.text)!r}{notation}; write rules such as "
            "S -> 'a' S | 'b', or in BNF or EBNF, with terminals in quotes"
        )


def read_other(text: str, name: str) -> tuple[list[tuple[Production, int]], str]:
    """Read the productions of a grammar in another notation than the plain one.

    Args:
        text: The text.
        name: What errors call it.

    Returns:
        The productions, each with the number of its line, and what the notation is called.

    Raises:
        DataError: at the first line that is none of those that are known.

    Example:
        >>> rules, notation = read_other("<s> ::= 'a'+ | <s> 'b' [0.5]", "example")
        >>> [str(production) for production, _ in rules]
        ['s -> s_1', "s -> s 'b'", "s_1 -> 'a'", "s_1 -> 'a' s_1"]
        >>> notation
        'BNF, EBNF, probabilities, which are left out, rules with ::='
    """
    tokens = tokens_of(text)
    if not tokens:
        return [], ""
    refused = next((token for token in tokens if token.kind in _REFUSED), None)
    quoted = any(token.kind == "quoted" for token in tokens)
    lefts = [first.kind for first, second in pairwise(tokens) if second.kind == "arrow"]
    bare = not quoted and bool(lefts) and set(lefts) == {"angled"}
    reader = _Reader(tokens, name, bare)
    if bare and (found := _COMMENTED.search(text)):
        line = text.count("\n", 0, found.start()) + 1
        raise DataError(f"{name}, line {line}: an alternative that is a comment; quote '#' if it is a terminal")
    if refused is not None:
        raise reader._unexpected(refused)
    arrows = {token.text for token in tokens if token.kind == "arrow"}
    reader.read()
    if arrows - {"->"}:
        reader.note(f"rules with {min(arrows - {'->'})}")
    return [*reader.rules, *reader.added], ", ".join(reader.found)
