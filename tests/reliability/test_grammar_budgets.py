"""Grammars have budgets: reading, numbering and parsing end in time for any grammar and string, or are refused."""

from __future__ import annotations

import itertools
import random
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import nltk
import numpy as np
import pytest
from torture import count, times

from expost.errors import DataError, UsageError
from expost.grammar import budgets, earley
from expost.grammar.cfg import Grammar, Production
from expost.grammar.codec import GrammarCodec
from expost.grammar.decode import finished
from expost.grammar.grammars import GRAMMARS, load_grammar
from expost.grammar.parser import Parser
from expost.grammar.stacks import prepare

#: Seconds of one core that anything may take, and more for each megabyte of text; a loaded machine is slower.
SECONDS, SECONDS_PER_MEGABYTE = 4.0, 3.0
#: Of a grammar that is used, for each symbol: it is read twice, numbered, and made tables of.
SECONDS_PER_SYMBOL = 60e-6
#: Those for a string that uses a whole budget.
SECONDS_PER_STRING = 20.0


@pytest.fixture(autouse=True, scope="module")
def warm() -> None:
    """Compile the parser, and import what is imported late, before anything is timed."""
    codec = GrammarCodec("S -> S S | 'a'", 9)
    codec.decode(codec.encode(["aa", "b"]).indices)
    prepare(codec.grammar.left, codec.grammar.children, 0, codec.grammar.pad)


def use(text: str) -> tuple[str, Grammar | None]:
    """Read a grammar and all that a model makes of it; return what is said if it is refused."""
    try:
        grammar = Grammar.from_text(text, prune=True)
        codec = GrammarCodec(grammar.text, 10_000)
        codec.encode(["", "a", "ab" * 50])
        prepare(grammar.left, grammar.children, 0, grammar.pad)
        assert len(grammar.describe().splitlines()) == 1
        assert len(grammar.describe()) < 4_000
    except (DataError, UsageError) as error:
        return str(error), None
    return "", grammar


def in_time(text: str) -> tuple[str, Grammar | None]:
    """Use a grammar; fail if it takes long, or a refusal more than a line."""
    begun = time.process_time()
    said, grammar = use(text)
    took = time.process_time() - begun
    symbols = 0 if grammar is None else sum(len(production.right) + 1 for production in grammar.productions)
    allowed = SECONDS + SECONDS_PER_MEGABYTE * len(text) / 1e6 + SECONDS_PER_SYMBOL * symbols
    assert took < allowed, f"{took:.1f} s for {len(text):,}: {text[:80]!r}"
    assert len(said.splitlines()) <= 1, said[:200]
    assert len(said) < 2_000, said[:200]
    return said, grammar


def chain(n: int) -> str:
    return "S -> A0 'b'\n" + "".join(f"A{i} -> 'a' | A{i + 1} 'c'\n" for i in range(n)) + f"A{n} -> 'a'\n"


def words(n: int) -> list[str]:
    return [chr(0x4E00 + i % 20_000) + chr(0x4E00 + i // 20_000) for i in range(n)]


#: Grammars of some size n: chains, alternatives, right sides, symbols that can be empty, characters, unknown names, ...
#: and whether they may be used, refused, or either.
SHAPES: dict[str, Callable[[int], str]] = {
    "a chain": chain,
    "a chain to the left": lambda n: "".join(f"A{i} -> A{i + 1} 'a'\n" for i in range(n)) + f"A{n} -> 'a'\n",
    "a chain of units": lambda n: "".join(f"A{i} -> A{i + 1}\n" for i in range(n)) + f"A{n} -> 'a'\n",
    "a chain, last rule first": lambda n: (
        "S -> A0\n" + "".join(f"A{i} -> A{i + 1}\n" for i in reversed(range(n))) + f"A{n} -> 'a'\n"
    ),
    "a chain without an end": lambda n: "".join(f"A{i} -> A{i + 1} 'a'\n" for i in range(n)) + f"A{n} -> A0 'a'\n",
    "a cycle": lambda n: "A0 -> 'a'\n" + "".join(f"A{i} -> A{(i + 1) % n}\n" for i in range(n)),
    "left recursion through all": lambda n: "".join(f"A{i} -> A{(i + 1) % n} 'a' | 'b'\n" for i in range(n)),
    "doubling": lambda n: "".join(f"A{i} -> A{i + 1} A{i + 1}\n" for i in range(n)) + f"A{n} -> 'a'\n",
    "doubling of nothing": lambda n: (
        "".join(f"A{i} -> A{i + 1} A{i + 1} 'x' | A{i + 1} A{i + 1}\n" for i in range(n)) + f"A{n} ->\n"
    ),
    "many alternatives": lambda n: "S -> " + " | ".join(f"'{chr(0x4E00 + i)}'" for i in range(n)),
    "many words": lambda n: "S -> " + " | ".join(f"'{word}'" for word in words(n)) + " | S S",
    "many rules and characters": lambda n: (
        "S -> "
        + " | ".join(f"A{i}" for i in range(n))
        + "\n"
        + "".join(f"A{i} -> '{chr(0x4E00 + i)}' | A{(i + 1) % n} 'x'\n" for i in range(n))
    ),
    "a long right side": lambda n: "S -> " + " ".join(["'a' T"] * n) + "\nT -> 'b' |",
    "a long right side of empty symbols": lambda n: "S -> " + "T " * n + "\nT -> 'b' |",
    "long right sides": lambda n: (
        "".join(f"A{i} -> {' '.join(['T'] * (n // 50))} {f'A{i + 1}' if i < 49 else ''} '{i}'\n" for i in range(50))
        + "T -> 'b' |"
    ),
    "many empty symbols": lambda n: (
        "S -> "
        + " ".join(f"A{i}" for i in range(n))
        + "\n"
        + "".join(f"A{i} -> | '{chr(0x4E00 + i)}'\n" for i in range(n))
    ),
    "unknown names": lambda n: "S -> 'a'\n" + "".join(f"S -> number{i} 'a'\nname{i} -> 'a'\n" for i in range(n)),
    "ambiguous everywhere": lambda n: "S -> S S | 'a' | 'b' | " + " | ".join(f"S '{i}' S" for i in range(n)),
    "EBNF, nested": lambda n: "S: " + "(" * n + "'a'" + ")*" * n,
    "EBNF, nested and open": lambda n: "S: " + "('a' | " * n,
    "EBNF, repeated": lambda n: "S: " + "'a'+ [b] ('c' | 'd')* " * n + "\nb: 'b'",
    "EBNF, all characters": lambda n: "S: " + f"[ -{chr(0x10FFFF)}] " * n,
    "EBNF, ranges": lambda n: "S: " + "'a'..'z' [a-z0-9] | " * n + "'x'",
    "names alike": lambda n: (
        "<s> ::= 'a'\n"
        + "".join(
            f"<s> ::= <a{'!' * (i % 50 + 1)}{'?' * (i // 50 + 1)}> 'b'\n"
            f"<a{'!' * (i % 50 + 1)}{'?' * (i // 50 + 1)}> ::= 'a'\n"
            for i in range(n)
        )
    ),
    "comments that are not closed": lambda n: "S: 'a' " + "(* /* " * n,
    "brackets that are not closed": lambda n: "S: 'a' " + "[a-b" * n,
    "classes without an end": lambda n: "S: 'a' [" + "a-b" * n,
    "many dashes": lambda n: "S: [" + "-" * n,
    "many brackets and a dash": lambda n: "S: " + "[" * n + "a-z]",
    "a number without an end": lambda n: "S: 'a' [" + "1" * n,
    "slashes": lambda n: "S: 'a' " + "/\\" * n,
    "curly quotes": lambda n: "S: " + "‘“" * n,
    "quotes": lambda n: "S -> " + "' \" " * n,
    "empty lines": lambda n: "\n" * (20 * n) + "x",
    "returns": lambda n: "\r" * (20 * n) + "x",
    "primes": lambda n: "a'\n" * n,
    "NULs": lambda n: "S -> 'a'\n" + "\0" * n,
    "a huge name": lambda n: "S -> 'a' | " + "A" * n + "\n" + "A" * n + " -> 'b'",
    "a huge terminal": lambda n: "S -> 'b' | '" + "a" * n + "' S",
    "lines": lambda n: "S -> 'a'\n" + "".join(f"S -> '{word}'\n" for word in words(n)),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_large_grammar_of_any_shape_is_read_or_refused_in_time(shape: str):
    sizes = [100, 3_000, *([20_000, 100_000] if times(0, 1) else [])]
    for size in sizes:
        in_time(SHAPES[shape](size))
    count("a large grammar is read or refused within a second a megabyte", tried=len(sizes))


@pytest.mark.parametrize("shape", ["a chain", "a chain to the left", "many alternatives", "many words", "lines"])
def test_grammars_of_thousands_of_rules_are_used(shape: str):
    said, grammar = in_time(SHAPES[shape](3_000))
    assert grammar is not None, said
    assert len(grammar.productions) >= 3_000


def test_a_chain_of_rules_is_parsed_in_linear_time():
    rules = "".join(f"A{i} -> 'a' A{i + 1} | 'b'\n" for i in range(9_000)) + "A9000 -> 'b'\n"
    parser = Parser(Grammar.from_text(rules))
    begun = time.process_time()
    for length in (0, 1, 4_500, 9_000):
        assert len(parser.parse("a" * length + "b")) == length + 1
    assert time.process_time() - begun < SECONDS
    assert not parser.accepts("a" * 9_001 + "b")
    leftwards = Parser(Grammar.from_text(chain(9_000)))  # each character may end any of the rules that are left
    assert len(leftwards.parse("a" + "c" * 300 + "b")) == 302


def test_symbols_and_characters_over_the_budget_are_refused_with_the_figures():
    with pytest.raises(DataError, match=r"symbols up to here, over the budget of 131,072; shorten it"):
        Grammar.from_text("S -> " + "'a' " * (budgets.MOST_SYMBOLS + 1))
    with pytest.raises(DataError, match=r"grammar takes 8,388,\d+ characters, over the budget of 8,388,608"):
        Grammar.from_text("S -> 'a' # " + "x" * budgets.MOST_TEXT)
    with pytest.raises(DataError, match=r"line 2 takes 101 groups within groups, over the budget of 100"):
        Grammar.from_text("S: 'b' T\nT: " + "(" * 101 + "'a'" + ")" * 101)
    with pytest.raises(DataError, match=r"entries of look-ahead \(9,000 nonterminals by 9,0\d\d characters\), over"):
        Parser(Grammar.from_text(SHAPES["many rules and characters"](8_999)))


def test_a_file_over_the_budget_is_not_read_whole(tmp_path: Path):
    path = tmp_path / "endless.txt"
    with path.open("wb") as file:
        file.truncate(2**40)  # sparse
    with pytest.raises(DataError, match=r"endless.txt has more than 8,388,608 bytes, the budget of a grammar"):
        load_grammar(path)


AMBIGUOUS = {
    "S -> S S | 'a'": ("a" * 2_000, "a" * 100_000),
    "S -> S S S | S S | 'a'": ("a" * 1_000,),
    "S -> S '+' S | S '*' S | 'x'": ("x" + "+x*x" * 1_000,),
    "S -> 'a' S 'a' | 'a' |": ("a" * 2_000, "a" * 20_000),
    "S -> A 'a'\nA -> 'a' A | 'a'": ("a" * 3_000, "a" * 50_000),
    "S -> E S 'a' | 'a'\nE -> E2 E2\nE2 -> 'a' |": ("a" * 2_000,),
}


@pytest.mark.parametrize("text", AMBIGUOUS)
def test_an_ambiguous_or_long_string_is_parsed_or_refused_with_position_and_budget(text: str):
    parser = Parser(Grammar.from_text(text))
    strings = AMBIGUOUS[text][: times(1, 2)]
    for string in strings:
        begun = time.process_time()
        found = parser.parse_many([string, string[:9]], 1_000_000)
        assert time.process_time() - begun < SECONDS_PER_STRING
        for rejection in found.rejected:
            if not rejection.expected and rejection.position is not None:
                assert 0 < rejection.position <= len(string)
                assert f"{budgets.MOST_STEPS:,} steps" in str(rejection) or f"{budgets.MOST_ROWS:,} items" in str(
                    rejection
                )
                assert f"at position {rejection.position}, " in str(rejection)
    count("an ambiguous or long string is parsed or refused within its budget", tried=len(strings))


def test_the_string_that_hung_is_refused_and_those_around_it_are_parsed():
    parser = Parser(Grammar.from_text("S -> S S | 'a'"))
    found = parser.parse_many(["a", "a" * 2_000, "aa", "b", "a" * 60], 5_000)
    assert [rejection.index for rejection in found.rejected] == [1, 3]
    assert "'a': shorten it, or make the grammar less ambiguous" in str(found.rejected[0])
    assert found.kept.tolist() == [0, 2, 4]
    assert parser.unparse(found.indices) == ["a", "aa", "a" * 60]


def test_the_budget_of_steps_does_not_depend_on_what_was_parsed_before():
    parser = Parser(Grammar.from_text("S -> S S | 'a'"))
    alone = parser.parse_many(["a" * 2_000], 10_000).rejected[0]
    among = parser.parse_many(["a" * n for n in (1, 400, 2_000)], 10_000).rejected[0]
    assert alone.position == among.position


@pytest.mark.parametrize("workers", [1, 2])
def test_an_interruption_stops_parsing_at_once(workers: int):
    parser = Parser(Grammar.from_text("S -> S S | 'a'"))
    strings = ["a" * 1_500] * 5_000  # hours
    sent: list[float] = []

    def interrupt(number: int, frame: object) -> None:
        sent.append(time.monotonic())
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for delay in (0.3, 1.1)[: times(1, 2)]:
            signal.setitimer(signal.ITIMER_REAL, delay)
            with pytest.raises(KeyboardInterrupt):
                parser.parse_many(strings, 3_000, workers=workers)
            assert time.monotonic() - sent[-1] < 3.0  # a tenth of a second of each thread, on a loaded machine
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


LETTERS = ("a", "b")
STRINGS = ["".join(letters) for size in range(6) for letters in itertools.product("ab", repeat=size)]


def random_grammar(source: random.Random) -> str:
    """Draw a grammar of up to five nonterminals: recursive, nullable, ambiguous, cyclic, of single symbols."""
    names = ["S", "A", "B", "C", "D"][: source.randint(1, 5)]
    pool = [*names, *[f"'{letter}'" for letter in LETTERS]]
    rules = []
    for name in names:
        rights = {
            " ".join(source.choices(pool, k=source.choice((0, 1, 1, 2, 2, 3)))) for _ in range(source.randint(1, 4))
        }
        rules.append(f"{name} -> {' | '.join(sorted(rights))}")
    return "\n".join(rules)


def language(productions: Sequence[Production], start: str, longest: int) -> set[str]:
    """Return all strings of at most so many characters, by joining sets of strings until there is nothing new."""
    known: dict[str, set[str]] = {production.left: set() for production in productions}
    changed = True
    while changed:
        changed = False
        for production in productions:
            strings = {""}
            for symbol in production.right:
                parts = {symbol.name} if symbol.terminal else known[symbol.name]
                strings = {a + b for a in strings for b in parts if len(a) + len(b) <= longest}
            if not strings <= known[production.left]:
                known[production.left] |= strings
                changed = True
    return known[start]


def nltk_parser(grammar: Grammar) -> nltk.ChartParser:
    rights = [
        nltk.Production(nltk.Nonterminal(p.left), [s.name if s.terminal else nltk.Nonterminal(s.name) for s in p.right])
        for p in grammar.productions
    ]
    return nltk.ChartParser(nltk.CFG(nltk.Nonterminal(grammar.start), rights))


def nltk_accepts(parser: nltk.ChartParser, string: str) -> bool:
    """Whether there is a complete edge over the whole string; trees may be too many to list."""
    chart, start = parser.chart_parse(list(string)), parser.grammar().start()
    return next(chart.select(start=0, end=len(string), lhs=start, is_complete=True), None) is not None


def test_random_grammars_accept_what_nltk_and_an_enumeration_accept_in_time():
    source = random.Random(times(1, 2))
    tried = refused = 0
    while tried < times(4_000, 100_000):
        text = random_grammar(source)
        said, grammar = in_time(text)
        if grammar is None:
            refused += 1
            tried += 1
            assert "derives itself" in said or "never ends" in said, (text, said)
            continue
        parser = Parser(grammar)
        begun = time.process_time()
        found = parser.parse_many(STRINGS, 400, workers=1)
        assert time.process_time() - begun < SECONDS, text
        accepted = {STRINGS[index] for index in found.kept.tolist()}
        assert accepted == language(grammar.productions, grammar.start, 5), text
        assert parser.unparse(found.indices) == [STRINGS[index] for index in found.kept.tolist()]
        rows = np.array(found.indices[:5], dtype=np.int64)
        if len(rows):
            import torch

            assert finished(torch.from_numpy(rows), grammar.left, grammar.children, 0, grammar.pad).all()
        peer = nltk_parser(grammar)
        for string in source.sample(STRINGS, 2):
            if set(string) <= set(grammar.terminals):
                assert nltk_accepts(peer, string) == (string in accepted), (text, string)
        long = "".join(source.choices("ab", k=source.randint(20, 60)))
        begun = time.process_time()
        parser.accepts(long)
        assert time.process_time() - begun < SECONDS, (text, long)
        tried += len(STRINGS) + 1
    assert refused
    count("random grammars and strings: membership as by nltk and by enumeration, in time", tried=tried)


SEEDS = [
    *GRAMMARS.values(),
    "start: term ('+' term)*\nterm: 'x' | [0-9]+ ('.' [0-9]+)? // c",
    '<s> ::= <a b> "-" | x',
    "S -> NP VP [1.0]\nNP -> 'a' [0.25] | 'b' [.75]\nVP -> 'c' [1.0]",
    "E -> T E'\nE' -> '+' T E' | ''\nT -> 'x'",
    "n = ['-'] , digit , { digit } ;\ndigit = '0' | '1' ;",
    "s: (* none *) ('a' | 'b' 'c')? 'd'",
]
PIECES = [
    "'",
    '"',
    "[",
    "]",
    "(",
    ")",
    "(*",
    "*)",
    "/*",
    "//",
    "#",
    "|",
    "->",
    "::=",
    "{",
    "}",
    "*",
    "+",
    "?",
    "..",
    "\0",
    "\ufeff",
    "\ud800",
    "‘",
    "”",
    "<",
    ">",
    "%import ",
    "/[0-9]+/",
    "-",
    "[a-",
    "[1",
    "\n",
    "\r",
    "\u2028",
    "\x85",
    "ε",
    "S",
    "A'",
    "'a'",
    " ",
    "\x1b[31m",
    "é",
    "𝛼",
    "Nothing -> None",
    "%x30",
]


def mutated(source: random.Random) -> str:
    """Return a grammar with pieces put in, cut out, doubled or repeated, or random characters alone."""
    if source.random() < 0.15:
        return "".join(source.choices(PIECES, k=source.randint(0, 200)))
    text = source.choice(SEEDS)
    for _ in range(source.randint(1, 6)):
        at = source.randrange(len(text) + 1)
        end = min(len(text), at + source.randint(0, 30))
        what = source.randrange(4)
        if what == 0:
            text = text[:at] + source.choice(PIECES) * source.choice((1, 1, 1, 2, 150)) + text[at:]
        elif what == 1:
            text = text[:at] + text[end:]
        elif what == 2:
            text = text[:end] + text[at:end] * source.randint(1, 5) + text[end:]
        else:
            text = text[:at] + chr(source.choice((source.randrange(32), source.randrange(0x3000)))) + text[at + 1 :]
    return text


def test_hostile_texts_are_grammars_or_refused_in_a_line_in_time():
    source = random.Random(times(1, 2))
    tried = times(400, 100_000)
    for _ in range(tried):
        in_time(mutated(source))
    count("hostile texts are grammars, or refused in one line, in time", tried=tried)


def test_hostile_files_are_grammars_or_refused_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    source = random.Random(times(1, 2))
    path = tmp_path / "grammar.txt"
    tried = times(200, 20_000)
    for number in range(tried):
        data = mutated(source).encode(source.choice(("utf-8", "utf-16", "utf-32", "latin-1")), "replace")
        if number % 3 == 0:
            data = source.randbytes(source.randint(0, 300))
        path.write_bytes(data)
        said = ""
        try:
            load_grammar(path)
        except (DataError, UsageError) as error:
            said = str(error)
        assert len(said.splitlines()) <= 1
    for line in capsys.readouterr().err.splitlines():
        assert line.startswith("grammar "), line
    count("hostile files of grammars are read or refused in one line", tried=tried)


def test_the_budget_of_rows_is_one_that_growth_reaches():
    assert earley.FIRST_ROWS * earley.GROWTH**6 == budgets.MOST_ROWS
