"""Reading grammars: what is understood, what is refused and in which words, and what is worked out from a grammar."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from expost.data.drugs import DRUGS
from expost.errors import DataError, UsageError
from expost.grammar.analysis import END, first, follow
from expost.grammar.cfg import Grammar, Production, Symbol
from expost.grammar.codec import GrammarCodec
from expost.grammar.grammars import EXPRESSIONS, GRAMMARS, SMILES, load_grammar


def test_productions_are_numbered_in_the_order_of_the_text():
    grammar = Grammar.from_text("S -> S '+' T | T\n# a comment\n\nT -> 'x'   # another\n  | \"y\"\n")
    assert [str(production) for production in grammar.productions] == [
        "S -> S '+' T",
        "S -> T",
        "T -> 'x'",
        "T -> 'y'",
    ]
    assert (grammar.start, grammar.nonterminals, grammar.terminals) == ("S", ("S", "T"), ("+", "x", "y"))
    assert (grammar.pad, grammar.size) == (4, 5)
    assert (grammar.left, grammar.children) == ((0, 0, 1, 1), ((0, 1), (1,), (), ()))


def test_quotes_backslashes_hashes_and_bars_inside_quotes_are_characters():
    grammar = Grammar.from_text("""bond -> '\\' | '#' | "'" | '"' | '|' | '->' | ' '""")
    assert grammar.terminals == ("\\", "#", "'", '"', "|", "->", " ")


def test_line_ends_and_byte_order_marks_of_other_systems_do_not_matter():
    assert Grammar.from_text("\ufeffS -> 'a' S\r\nS -> 'b'\r\n").productions == (
        Production("S", (Symbol("a", True), Symbol("S", False))),
        Production("S", (Symbol("b", True),)),
    )


@pytest.mark.parametrize("text", ["S -> 'a' S |", "S -> 'a' S\nS ->", "S -> 'a' S | ''", "S->'a' S|"])
def test_an_alternative_without_symbols_is_empty(text: str):
    grammar = Grammar.from_text(text)
    assert grammar.productions[1] == Production("S", ())
    assert grammar.nullable == ("S",)


def test_a_padding_rule_is_dropped_only_where_it_only_pads():
    padded = Grammar.from_text("S -> 'a'\nNothing -> None\n")
    assert [str(production) for production in padded.productions] == ["S -> 'a'"]
    assert padded.pad == 1
    real = Grammar.from_text("S -> 'a' Nothing\nNone -> 'b'\nNothing -> None")
    assert len(real.productions) == 3


def test_the_original_zinc_grammar_is_read_without_its_dead_rules(
    shared_data: Path, capsys: pytest.CaptureFixture[str]
):
    path = shared_data / "grammars" / "zinc_smiles.cfg"
    with pytest.raises(DataError, match=r"line 30: 'class' in 'BACH -> charge class' has no production.*prune=True"):
        Grammar.from_text(path.read_text())
    grammar = load_grammar(path)
    remark = capsys.readouterr().err.strip()
    assert remark.endswith(
        "2 of 75 productions are in no derivation and left out: BACH -> charge class ('class' has no production); "
        "BACH -> class ('class' has no production)"
    )
    lines = path.read_text().splitlines()
    assert [str(production) for production in grammar.productions] == [
        line for line in lines if "class" not in line and line != "Nothing -> None"
    ]
    assert "\\" in grammar.terminals
    assert Grammar.from_text(grammar.text) == grammar
    assert load_grammar("smiles-published").productions == grammar.productions
    assert grammar.left_recursive == ("RB", "BB", "chain")


def test_what_no_string_uses_in_a_file_is_left_out_with_a_remark(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "own.cfg"
    path.write_text("S -> 'a' | U | V\nU -> U 'b'\nW -> 'c'\nV -> x W 'd' | 'v'")
    assert [str(production) for production in load_grammar(path).productions] == ["S -> 'a'", "S -> V", "V -> 'v'"]
    remark = capsys.readouterr().err
    assert "4 of 7 productions" in remark
    for reason in (
        "S -> U ('U' never ends)",
        "W -> 'c' (nothing leads to 'W')",
        "V -> x W 'd' ('x' has no production)",
    ):
        assert reason in remark
    path.write_text("S -> 'a' | numbr\nnumber -> '1'")
    with pytest.raises(DataError, match=r"line 1: 'numbr' in 'S -> numbr' has no production; did you mean 'number'\?"):
        load_grammar(path)
    path.write_text("S -> 'a' | T\nT -> 'b'")
    capsys.readouterr()
    load_grammar(path)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "grammar has no production; write rules"),
        ("# nothing\n\n", "grammar has no production"),
        ("Nothing -> None", "grammar has no production"),
        ("S -> 'a'\nT 'b'", "line 2: no arrow"),
        ("| 'b'", "line 1: no arrow"),
        ("-> 'b'", "line 1: no arrow"),
        ("S 'x' -> 'b'", "line 1: no arrow"),
        ("S -> 'a' -> 'b'", "line 1: a second '->'"),
        ("S -> 'a", "line 1: unterminated quote; close it with '"),
        ('S -> "a\n"', 'line 1: unterminated quote; close it with "'),
        ("S -> 'a' | %", "line 1: unexpected '%'"),
        ("S -> 'a' {2}", "line 1: .* never|line 1: '2' in"),
        ("start: NUMBER\nNUMBER: /[0-9]+/", "line 2: /.0-9.+/ is a regular expression; write its alternatives out"),
        ("%import common.NUMBER\nstart: NUMBER", "line 1: %import is a directive; leave it out"),
        ("s = 1*digit\ndigit = %x30-39", "line 2: %x30-39 is a character's number, as in ABNF; write the character"),
        ("S <- 'a' / 'b'", "line 1: unexpected '/'"),
        ("S ::= ( 'a' | 'b'", "line 1: .\\(. is not closed; close or quote it"),
        ("S -> 'a'\nS -> 'b' | 'a'", "line 2: duplicate production 'S -> 'a'' of line 1"),
        ("S -> 'a' | T", "line 1: 'T' in 'S -> T' has no production"),
        ("S -> 'a' S", "line 1: 'S' never ends"),
        ("S -> 'a' | T\nT -> T 'b'", "line 2: 'T' never ends"),
        ("S -> 'a'\nT -> 'b'", "line 2: 'T' is never reached from the start symbol 'S'"),
        ("S -> S | 'a'", "'S' derives itself"),
        ("S -> T\nT -> S | 'a'", "'S' derives itself.*through S, T"),
        ("S -> E S E | 'a'\nE -> | 'e'", "'S' derives itself"),
        ("S -> S S | 'a' |", "'S' derives itself"),
    ],
)
def test_what_is_no_usable_grammar_is_refused_in_one_line(text: str, message: str):
    with pytest.raises(DataError, match=message) as caught:
        Grammar.from_text(text)
    assert "\n" not in str(caught.value)


def test_what_is_not_text_is_refused():
    with pytest.raises(UsageError, match="not as bytes"):
        Grammar.from_text(b"S -> 'a'")  # type: ignore[arg-type]


def test_pruning_keeps_what_derives_strings_and_nothing_else():
    grammar = Grammar.from_text("S -> 'a' | L 'b' | U\nL -> L 'c'\nD -> 'd'\nU -> 'u' | 'x' M", prune=True)
    assert grammar.text == "S -> 'a'\nS -> U\nU -> 'u'\n"
    # nothing to drop: the text stays as it was written
    assert Grammar.from_text("S->'a'", prune=True).text == "S->'a'"
    with pytest.raises(DataError, match="'S' never ends") as caught:
        Grammar.from_text("S -> S 'a'", prune=True)
    assert "prune" not in str(caught.value)


def test_left_recursion_is_seen_behind_empty_symbols():
    grammar = Grammar.from_text("S -> E T 'x' | 'a'\nE -> | 'e'\nT -> S 'y' | 'b' T")
    assert grammar.left_recursive == ("S", "T")
    assert Grammar.from_text("S -> 'a' S | 'b'").left_recursive == ()


def test_first_and_follow_are_those_of_the_textbook():
    # Aho, Lam, Sethi & Ullman, example 4.30: expressions without left recursion
    grammar = Grammar.from_text("E -> T R\nR -> '+' T R |\nT -> F Q\nQ -> '*' F Q |\nF -> '(' E ')' | 'i'")
    assert {name: set(found) for name, found in first(grammar.productions).items()} == {
        "E": {"(", "i"},
        "R": {"+"},
        "T": {"(", "i"},
        "Q": {"*"},
        "F": {"(", "i"},
    }
    assert {name: set(found) for name, found in follow(grammar.productions, "E").items()} == {
        "E": {")", END},
        "R": {")", END},
        "T": {"+", ")", END},
        "Q": {"+", ")", END},
        "F": {"+", "*", ")", END},
    }


@given(st.text(alphabet="AS->|'\"# \n\\%xé", max_size=40))
def test_any_text_is_a_grammar_or_a_data_error(text: str):
    try:
        grammar = Grammar.from_text(text)
    except DataError as error:
        lines = str(error).splitlines()
    else:
        lines = [grammar.describe()]
        assert Grammar.from_text("\n".join(map(str, grammar.productions))).productions == grammar.productions
    assert len(lines) == 1


@pytest.mark.parametrize("name", GRAMMARS)
def test_every_grammar_that_comes_along_is_read_whole(name: str):
    grammar = load_grammar(name)
    assert grammar.text == GRAMMARS[name]
    assert grammar.size <= 256  # uint8


def test_the_expression_grammar_is_the_papers():
    assert GRAMMARS["expressions"] == EXPRESSIONS
    assert [str(production) for production in load_grammar("expressions").productions] == [
        *("S -> S '+' T", "S -> S '*' T", "S -> S '/' T", "S -> T"),
        *("T -> '(' S ')'", "T -> 'sin(' S ')'", "T -> 'exp(' S ')'", "T -> 'x'", "T -> '1'", "T -> '2'", "T -> '3'"),
    ]
    assert GRAMMARS["smiles"] == SMILES


def test_grammars_are_loaded_from_files_and_names_are_explained(tmp_path: Path):
    (tmp_path / "own.cfg").write_text("S -> 'ä' S | 'b'\n", encoding="utf-8")
    assert load_grammar(str(tmp_path / "own.cfg")).terminals == ("ä", "b")
    with pytest.raises(UsageError, match="no grammar and no file 'smile'; names: expressions, smiles"):
        load_grammar("smile")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="pipe is a pipe; give a file"):
        load_grammar(tmp_path / "pipe")
    with pytest.raises(UsageError, match="cannot read the grammar"):
        load_grammar(tmp_path)
    with pytest.raises(UsageError, match="is no name and no path"):
        load_grammar("")
    (tmp_path / "picture").write_bytes(b"\xff\xfe\x00S")
    with pytest.raises(DataError, match="not UTF-8 text"):
        load_grammar(tmp_path / "picture")
    (tmp_path / "bad.cfg").write_text("S -> 'a")
    with pytest.raises(DataError, match=r"bad\.cfg, line 1: unterminated quote"):
        load_grammar(tmp_path / "bad.cfg")


def test_the_lists_of_smiles_recurse_to_the_right_and_derive_what_they_derived_to_the_left():
    """The same strings either way, whole and broken; rightwards a derivation goes along the string."""
    right = load_grammar("smiles")
    text = GRAMMARS["smiles"]
    for ours, theirs in {
        "unit chain | unit bond chain | unit '.' chain": "chain unit | chain bond unit | chain '.' unit",
        "ring rings": "rings ring",
        "branch branches": "branches branch",
        "digit number": "number digit",
    }.items():
        assert text.count(ours) == 1
        text = text.replace(ours, theirs)
    assert right.left_recursive == ()
    left = Grammar.from_text(text)
    assert set(left.left_recursive) == {"chain", "rings", "branches", "number"}
    molecules = [drug.smiles for drug in DRUGS]
    broken = [smiles[: len(smiles) // 2] + smiles[len(smiles) // 2 + 1 :] for smiles in molecules]
    found = {}
    for grammar in (right, left):
        codec = GrammarCodec(grammar.text, length=400)
        encoded = codec.encode(molecules + broken)
        found[grammar] = encoded.kept.tolist()
        assert codec.decode(encoded.indices) == [(molecules + broken)[i] for i in found[grammar]]
    assert found[right] == found[left]
    assert len(molecules) <= len(found[right]) < len(molecules + broken)
    (row,) = GrammarCodec(right.text, length=9).encode(["CNO"]).indices.tolist()
    atoms = [["unit -> atom", f"atom -> '{atom}'"] for atom in "CNO"]
    steps = ["chain -> unit chain", *atoms[0], "chain -> unit chain", *atoms[1], "chain -> unit", *atoms[2]]
    assert [str(right.productions[symbol]) for symbol in row] == steps
