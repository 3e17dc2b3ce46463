"""The parser against NLTK's, against an enumeration of all derivations, and on the two data sets."""

from __future__ import annotations

import gzip
import itertools
import random
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import nltk
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from expost.errors import DataError, UsageError
from expost.grammar.cfg import Grammar, Production, Symbol
from expost.grammar.grammars import load_grammar
from expost.grammar.parser import Parser

# compiling the parser, once a machine, takes longer than hypothesis allows an example
unhurried = settings(deadline=None, max_examples=60)


class Enumeration:
    """All derivations of one string, by exhaustive search of its spans: slow, and independent of the parser."""

    def __init__(self, productions: Sequence[Production], start: str, text: str) -> None:
        self.productions, self.start, self.text = productions, start, text
        self.true: set[tuple[str, int, int]] = set()
        while True:
            before = len(self.true)
            for begin, end in itertools.combinations_with_replacement(range(len(text) + 1), 2):
                for production in self.productions:
                    if next(self.splits(production, begin, end), None) is not None:
                        self.true.add((production.left, begin, end))
            if len(self.true) == before:
                break
        self.count = lru_cache(None)(self._count)

    def splits(self, production: Production, begin: int, end: int, symbols: int | None = None):
        """Yield the places between the symbols for each way to divide a span, the last symbol shortest first."""
        symbols = len(production.right) if symbols is None else symbols
        if symbols == 0:
            if begin == end:
                yield (begin,)
            return
        symbol = production.right[symbols - 1]
        for middle in range(end, begin - 1, -1):
            if self.text[middle:end] == symbol.name if symbol.terminal else (symbol.name, middle, end) in self.true:
                for places in self.splits(production, begin, middle, symbols - 1):
                    yield (*places, end)

    def _count(self, name: str, begin: int, end: int) -> int:
        total = 0
        for production in self.productions:
            if production.left == name:
                for places in self.splits(production, begin, end):
                    ways = 1
                    for symbol, (a, b) in zip(production.right, itertools.pairwise(places), strict=True):
                        ways *= 1 if symbol.terminal else self.count(symbol.name, a, b)
                    total += ways
        return total

    def number(self) -> int:
        """Return how many derivations there are."""
        return self.count(self.start, 0, len(self.text)) if (self.start, 0, len(self.text)) in self.true else 0

    def chosen(self, name: str | None = None, begin: int = 0, end: int | None = None) -> list[int]:
        """Return the derivation that the rule of disambiguation picks, in the rule's own words."""
        name, end = name or self.start, len(self.text) if end is None else end
        for number, production in enumerate(self.productions):
            if production.left == name:
                for places in self.splits(production, begin, end):
                    derivation = [number]
                    for symbol, (a, b) in zip(production.right, itertools.pairwise(places), strict=True):
                        derivation += [] if symbol.terminal else self.chosen(symbol.name, a, b)
                    return derivation
        raise AssertionError


def nltk_parser(grammar: Grammar) -> nltk.ChartParser:
    """Return NLTK's chart parser, whose tokens are single characters."""
    productions = []
    for production in grammar.productions:
        right: list[object] = []
        for symbol in production.right:
            right += list(symbol.name) if symbol.terminal else [nltk.Nonterminal(symbol.name)]
        productions.append(nltk.Production(nltk.Nonterminal(production.left), right))
    return nltk.ChartParser(nltk.CFG(nltk.Nonterminal(grammar.start), productions))


def nltk_accepts(parser: nltk.ChartParser, text: str) -> bool:
    try:
        return next(iter(parser.parse(list(text))), None) is not None
    except ValueError:  # a character that is in no production
        return False


@st.composite
def grammars(draw: st.DrawFn, terminals: Sequence[str] = ("a", "b", "ab", "ba")) -> Grammar:
    """Draw a grammar of up to three nonterminals: left-recursive, ambiguous, with empty productions, as it comes."""
    names = ["S", "A", "B"][: draw(st.integers(1, 3))]
    symbol = st.sampled_from(names + [repr(terminal) for terminal in terminals])
    right = st.lists(symbol, max_size=3).map(" ".join)
    rules = [f"{name} -> {' | '.join(draw(st.lists(right, min_size=1, max_size=3, unique=True)))}" for name in names]
    try:
        return Grammar.from_text("\n".join(rules), prune=True)
    except DataError:  # it derives nothing, or a symbol derives itself
        assume(False)
        raise


STRINGS = ["".join(letters) for size in range(5) for letters in itertools.product("ab", repeat=size)]


@unhurried
@given(grammars())
def test_acceptance_derivation_and_ambiguity_are_those_of_the_enumeration(grammar: Grammar):
    parser = Parser(grammar)
    found = parser.parse_many(STRINGS, 200)
    rows = dict(zip(found.kept.tolist(), zip(found.indices, found.ambiguous, strict=True), strict=True))
    for index, text in enumerate(STRINGS):
        expected = Enumeration(grammar.productions, grammar.start, text)
        assert (index in rows) == (expected.number() > 0), (grammar.text, text)
        if index in rows:
            row, ambiguous = rows[index]
            derivation = row[row != grammar.pad].tolist()
            assert derivation == expected.chosen(), (grammar.text, text)
            assert ambiguous == (expected.number() > 1), (grammar.text, text)
    assert parser.unparse(found.indices) == [STRINGS[index] for index in found.kept]


@unhurried
@given(grammars(terminals=("a", "b")), st.lists(st.sampled_from(STRINGS), min_size=8, max_size=8, unique=True))
def test_acceptance_and_ambiguity_are_those_of_nltk(grammar: Grammar, texts: list[str]):
    parser, peer = Parser(grammar), nltk_parser(grammar)
    letters = "".join(grammar.terminals)
    for text in texts:
        # NLTK refuses letters that no production has
        trees = list(itertools.islice(peer.parse(list(text)), 2)) if set(text) <= set(letters) else []
        assert parser.accepts(text) == bool(trees), (grammar.text, text)
        if trees:
            assert parser.is_ambiguous(text) == (len(trees) > 1), (grammar.text, text)


def goes_on(grammar: Grammar, prefix: str, terminal: str) -> bool:
    """Whether `terminal` comes after the tokens of `prefix` in some string, by a grammar of just such prefixes."""
    productions = list(grammar.productions)
    for production in grammar.productions:
        for place, symbol in enumerate(production.right):
            cut = Symbol("!", True) if symbol.name == terminal and symbol.terminal else Symbol(f"<{symbol.name}", False)
            if cut.terminal or not symbol.terminal:
                productions.append(Production(f"<{production.left}", (*production.right[:place], cut)))
    # every nonterminal derives something, so that what was cut off can be completed
    return (f"<{grammar.start}", 0, len(prefix) + 1) in Enumeration(productions, grammar.start, prefix + "!").true


@unhurried
@given(grammars(), st.text(alphabet="abc", max_size=6))
def test_a_rejection_names_the_longest_prefix_that_goes_on_and_all_that_can_follow(grammar: Grammar, text: str):
    found = Parser(grammar).parse_many([text], 500)
    assume(found.rejected)
    rejection = found.rejected[0]
    assert rejection.position is not None
    for position in range(rejection.position, len(text) + 1):
        expected = {name for name in grammar.terminals if goes_on(grammar, text[:position], name)}
        if Enumeration(grammar.productions, grammar.start, text[:position]).number():
            expected.add("end of string")
        assert expected == (set(rejection.expected) if position == rejection.position else set()), grammar.text
    assert rejection.expected


EXPRESSION = "S -> S '+' S | S '*' S | '(' S ')' | 'x'"


@pytest.mark.parametrize(
    ("text", "derivation"),
    [
        ("x+x", (0, 3, 3)),
        ("x+x+x", (0, 0, 3, 3, 3)),  # the last symbol is shortest: (x+x)+x
        ("x*x+x", (0, 1, 3, 3, 3)),  # '+' comes first in the grammar: (x*x)+x
        ("x+x*x", (0, 3, 1, 3, 3)),  # and again: x+(x*x)
    ],
)
def test_the_rule_of_disambiguation_by_example(text: str, derivation: tuple[int, ...]):
    assert Parser(Grammar.from_text(EXPRESSION)).parse(text) == derivation


@pytest.mark.parametrize(("text", "ambiguous"), [("x", False), ("x+x", False), ("x+x+x", True), ("(x+x)*x", False)])
def test_ambiguity_is_of_strings(text: str, ambiguous: bool):
    assert Parser(Grammar.from_text(EXPRESSION)).is_ambiguous(text) is ambiguous


def test_hidden_left_recursion_and_empty_symbols():
    parser = Parser(Grammar.from_text("S -> E S 'b' | 'a'\nE -> | 'e'"))
    assert parser.parse("abb") == (0, 2, 0, 2, 1)
    assert parser.parse("eeabb") == (0, 3, 0, 3, 1)
    assert parser.is_ambiguous("eabb")  # the e belongs to either b
    assert not parser.accepts("eeab")


def test_the_empty_string_is_parsed_where_the_language_has_it():
    parser = Parser(Grammar.from_text("S -> A A\nA -> 'a' |"))
    assert parser.parse("") == (0, 2, 2)
    assert parser.is_ambiguous("a")
    only = Parser(Grammar.from_text("S ->"))
    assert only.parse("") == (0,)
    assert not only.accepts("a")


def test_long_strings_and_deep_nesting_take_no_recursion():
    parser = Parser(Grammar.from_text("S -> '(' S ')' | S 'x' |"))
    text = "(" * 1500 + ")" * 1500
    assert parser.parse(text) == (0,) * 1500 + (2,)
    right = Parser(Grammar.from_text("S -> 'a' S | 'a'"))  # as many open items as characters, and beyond first tables
    assert right.parse("a" * 600) == (0,) * 599 + (1,)
    assert sum(parser.parse("x" * 3000)) == 3000 + 2


def test_the_worst_ambiguity_stays_cubic():
    # as many derivations as there are binary trees, 10^115 of them
    parser = Parser(Grammar.from_text("S -> S S | 'a'"))
    assert parser.is_ambiguous("a" * 200)
    assert parser.parse("a" * 200) == (0,) * 199 + (1,) * 200


def test_a_derivation_of_exponential_length_ends_in_a_rejection():
    chain = "\n".join(f"A{i} -> A{i + 1} A{i + 1} 'x' | A{i + 1} A{i + 1}" for i in range(40)) + "\nA40 ->"
    parser = Parser(Grammar.from_text(chain))
    found = parser.parse_many([""], 50)
    assert [str(rejection) for rejection in found.rejected] == ["string 0, '': takes more than 50 productions"]
    with pytest.raises(DataError, match="takes more than"):
        parser.parse("")


def test_a_string_that_needs_gigabytes_is_rejected():
    found = Parser(load_grammar("smiles")).parse_many(["C" * 2_000_000, "C"], 1_000_000)
    assert [rejection.reason for rejection in found.rejected] == [
        "exceeds the budget of 16,777,216 items of the parser"
    ]
    assert found.kept.tolist() == [1]


def test_rejections_say_where_and_what_was_expected():
    parser = Parser(load_grammar("expressions"))
    bad = ["x+", "x++1", "sx", "sin(x", "", "1/é", None, "x" + "+x" * 8, float("nan")]
    found = parser.parse_many([*bad, "x"], 15)  # type: ignore[list-item]
    expected = "'(', 'sin(', 'exp(', 'x', '1', '2' or '3'"
    assert [str(rejection) for rejection in found.rejected] == [
        f"string 0, 'x+': does not parse at position 2, its end: expected {expected}",
        f"string 1, 'x++1': does not parse at position 2, '+': expected {expected}",
        f"string 2, 'sx': does not parse at position 0, 's': expected {expected}",
        "string 3, 'sin(x': does not parse at position 5, its end: expected '+', '*', '/' or ')'",
        f"string 4, '': is empty at position 0, its end: expected {expected}",
        f"string 5, '1/é': does not parse at position 2, 'é': expected {expected}",
        "string 6, 'None': is no string",
        f"string 7, 'x{'+x' * 8}': takes more than 15 productions: it needs 18",
        "string 8, 'nan': is no string",
    ]
    assert found.kept.tolist() == [9]
    assert found.indices.tolist() == [[3, 7] + [11] * 13]
    many = Parser(load_grammar("smiles")).parse_many(["C" * 90 + "("], 400).rejected[0]
    assert str(many).startswith(f"string 0, '{'C' * 77}...': does not parse at position 91, its end: expected ")
    assert str(many).endswith(" others")


def test_what_is_no_list_of_strings_or_out_of_range_is_refused():
    parser = Parser(load_grammar("expressions"))
    with pytest.raises(UsageError, match="strings is one str"):
        parser.parse_many("x+x", 15)
    with pytest.raises(UsageError, match="strings is one int"):
        parser.parse_many(3, 15)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="length=0"):
        parser.parse_many(["x"], 0)
    with pytest.raises(UsageError, match="workers=0"):
        parser.parse_many(["x"], 15, workers=0)
    with pytest.raises(UsageError, match="None is not a string"):
        parser.parse(None)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="indices go from 0 to 12; the symbols are 0 to 11"):
        parser.unparse(np.array([[0, 12]]))
    with pytest.raises(UsageError, match="give integers of shape"):
        parser.unparse(np.array([0, 1]))


def test_no_strings_give_no_rows():
    found = Parser(load_grammar("expressions")).parse_many([], 15)
    assert found.indices.shape == (0, 15)
    assert (len(found.kept), found.rejected) == (0, [])


def test_rows_that_are_no_whole_derivations_have_no_string():
    parser = Parser(load_grammar("expressions"))
    rows = [[3, 7, 11, 11], [0, 3, 7, 8], [0, 3, 7, 11], [3, 11, 7, 11], [7, 11, 11, 11], [3, 7, 11, 7], [3, 3, 7, 11]]
    assert parser.unparse(np.array(rows)) == ["x", "x+1", None, None, None, None, None]
    assert parser.unparse(np.array([[11, 11]])) == [None]


def test_characters_beyond_the_basic_plane_are_characters():
    parser = Parser(Grammar.from_text("S -> S '𝛼' | '\U0001f600é'"))
    found = parser.parse_many(["\U0001f600é𝛼𝛼", "\ud800"], 9)
    assert parser.unparse(found.indices) == ["\U0001f600é𝛼𝛼"]
    assert found.rejected[0].position == 0


def test_as_many_threads_as_you_like_give_the_same_rows():
    parser = Parser(load_grammar("expressions"))
    texts = ["x" + "+x" * (index % 9) + ("" if index % 5 else "(") for index in range(5000)]
    one, three = parser.parse_many(texts, 20, workers=1), parser.parse_many(texts, 20, workers=3)
    assert np.array_equal(one.indices, three.indices)
    assert np.array_equal(one.kept, three.kept)
    assert one.rejected == three.rejected
    assert len(one.rejected) + len(one.kept) == 5000


def test_more_symbols_than_a_byte_holds():
    rules = "\n".join(f"N{i} -> 'a' N{i + 1}" for i in range(299)) + "\nN299 -> 'b'"
    parser = Parser(Grammar.from_text(rules))
    found = parser.parse_many(["a" * 299 + "b"], 300)
    assert found.indices.dtype == np.int16
    assert found.indices[0].tolist() == list(range(300))


@pytest.fixture(scope="session")
def molecules(shared_data: Path) -> list[str]:
    with gzip.open(shared_data / "zinc250k" / "250k_rndm_zinc_drugs_clean.smi.gz", "rt") as file:
        return file.read().split()


def corrupt(text: str, source: random.Random) -> str:
    """Delete or double a character, or swap two parts."""
    place = source.randrange(len(text))
    head, tail = text[:place], text[place:]
    return source.choice([head + tail[1:], head + tail[:1] + tail, tail + head])


def test_zinc_molecules_parse_as_nltk_parses_them_whole_and_broken(shared_data: Path, molecules: list[str]):
    grammar = load_grammar(shared_data / "grammars" / "zinc_smiles.cfg")
    parser, peer = Parser(grammar), nltk_parser(grammar)
    numbers = {str(production): number for number, production in enumerate(peer.grammar().productions())}
    assert len(numbers) == len(grammar.productions)
    source = random.Random(0)
    for text in molecules[:: len(molecules) // 25]:
        trees = list(itertools.islice(peer.parse(list(text)), 2))
        assert len(trees) == 1
        assert parser.parse(text) == tuple(numbers[str(production)] for production in trees[0].productions())
        assert not parser.is_ambiguous(text)
        broken = corrupt(text, source)
        assert parser.accepts(broken) == nltk_accepts(peer, broken), broken


def test_the_smiles_grammar_has_all_of_zinc_in_fewer_productions(shared_data: Path, molecules: list[str]):
    original = Parser(load_grammar(shared_data / "grammars" / "zinc_smiles.cfg"))
    ours = Parser(load_grammar("smiles"))
    some = molecules[::50]
    assert len(some) > 4000
    found, before = ours.parse_many(some, 277), original.parse_many(some, 277)
    assert found.rejected == before.rejected == []
    assert not found.ambiguous.any()
    assert ours.unparse(found.indices) == original.unparse(before.indices) == some
    assert ((found.indices != ours.grammar.pad).sum(1) <= (before.indices != original.grammar.pad).sum(1)).all()
    assert found.indices.dtype == np.uint8


@pytest.mark.parametrize(
    "text",
    [
        *("C%10CCCCC%10", "C1CCCCCCCC1.[Na+].[Cl-]", "C9CC9", "[13CH3:12]c1cc[se]c1", "[2H]O[2H]", "[O-2]", "C$C"),
        *("[NH3+][C@@](F)(Cl)Br", "[Pt++](Cl)", "b1ccccc1", "*c1:c:c:c:c:c1", "N[C@H0](C)O", "c1ccccc1-%11.C%11"),
    ],
)
def test_smiles_that_the_original_grammar_has_not(text: str):
    parser = Parser(load_grammar("smiles"))
    assert parser.unparse(np.array([parser.parse(text)])) == [text]
    assert not parser.is_ambiguous(text)


def test_the_smiles_grammar_is_a_superset_of_the_original(shared_data: Path):
    grammar = load_grammar(shared_data / "grammars" / "zinc_smiles.cfg")
    ours = Parser(load_grammar("smiles"))
    source = np.random.default_rng(0)
    own: dict[str, list[Production]] = {}
    for production in grammar.productions:
        own.setdefault(production.left, []).append(production)
    used: set[str] = set()

    def draw(name: str, depth: int) -> str:
        choices = own[name]
        # deep down the shorter alternatives, which come first but for the recursive ones, let it end
        pick = (
            choices[source.integers(len(choices))] if depth < 12 else min(choices, key=lambda p: (len(p.right), str(p)))
        )
        used.add(str(pick))
        return "".join(symbol.name if symbol.terminal else draw(symbol.name, depth + 1) for symbol in pick.right)

    texts = {draw("smiles", 0) for _ in range(3000)}
    assert len(texts) > 1000
    assert len(used) == len(grammar.productions)
    assert not [text for text in texts if len(text) < 500 and not ours.accepts(text)]


def test_all_expressions_come_back(shared_data: Path):
    with gzip.open(shared_data / "expressions" / "equation2_15_dataset.txt.gz", "rt") as file:
        texts = [line.replace(" ", "") for line in file.read().splitlines()]
    assert len(texts) == 100_000
    parser = Parser(load_grammar("expressions"))
    found = parser.parse_many(texts, 15)
    assert found.rejected == []
    assert not found.ambiguous.any()
    assert parser.unparse(found.indices) == texts
