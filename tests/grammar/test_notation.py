"""Grammars in other notations: what they derive, and what is said of them."""

from __future__ import annotations

import pytest

from expost.errors import DataError
from expost.grammar.cfg import Grammar
from expost.grammar.grammars import load_grammar
from expost.grammar.parser import Parser

CASES = [
    # arrows
    ("S → 'a' S | 'b'", "b aab", "a ba", "rules with →"),
    ("S => 'a' S | 'b'", "b aab", "a", "rules with =>"),
    ("S --> 'a' S\nS --> 'b'", "b aab", "a", "rules with -->"),
    ("S ::= 'a' S\n  | 'b'", "b aab", "a", "rules with ::="),
    ('S ⟶ "a" S | ε', " a aa", "b", "rules with ⟶"),
    # EBNF, as of Lark, W3C, ISO 14977
    ("start: term ('+' term)*\nterm: 'x' | '1'", "x 1+x x+x+x", "+ x+ xx", "EBNF, rules with :"),
    ("?start: A? B+ -> both\n!A: 'a'\nB: 'b' // a comment", "b ab abb", "a aab", "EBNF"),
    ("n = ['-'] , digit , { digit } ;\ndigit = '0' | '1' ;", "0 -10 011", "- 1-", "EBNF, rules with ="),
    ("e ::= t (('+' | '-') t)*\nt ::= 'x' | '(' e ')'", "x x-(x+x)", "x- ()", "EBNF"),
    ("number: [0-9]+ ('.' [0-9]+)?", "7 12 3.50", ". 1.", "EBNF"),
    ("word: 'a'..'c'+ /* letters */", "abc c", "d", "EBNF"),
    ("s: (* none *) ('a' | 'b' 'c')? 'd'", "d ad bcd", "bd", "EBNF"),
    # BNF, with terminals quoted or not
    ('<date> ::= <day> "-" <month>\n<day> ::= "1" | "2"\n<month> ::= "Jan" | "Feb"', "1-Jan 2-Feb", "3-Jan", "BNF"),
    ("<e> ::= <t> | <t> + <e>\n<t> ::= x | ( <e> )", "x x+x (x)+x", "x+ ()", "BNF"),
    ("<bits> ::= <a bit>+\n<a bit> ::= 0 | 1", "0 011", "2", "BNF"),
    ("<e> ::= max(<e>,<e>) | 1.5 | x.y", "1.5 x.y max(1.5,x.y)", "15 max(1.5x.y)", "BNF"),
    ("<s> ::= x is <e> ; | y\n<e> ::= 1 | 2", "xis1; y", "xis1", "BNF"),
    ("<e> ::= a <t> ;\n<t> ::= b | c ;", "ab ac", "ab;", "BNF, EBNF"),
    # NLTK: probabilities and primes
    ("S -> NP VP [1.0]\nNP -> 'a' [0.25] | 'b' [.75]\nVP -> 'c' [1.0]", "ac bc", "c ab", "probabilities"),
    ("E -> T E'\nE' -> '+' T E' | ''\nT -> 'x'", "x x+x", "+ x+", "primes"),
    ("A -> B' C''\nB' -> 'x'\nC'' -> 'y'", "xy", "x B", "primes"),
    ("S' -> S\nS -> 'a' S | λ", " a aa", "b", "primes"),
    # typeset
    ("E → T E′\nE′ → „+“ T E′ | ∅\nT → „x“", "x x+x", "+ x+", "primes, rules with →"),
    ("S’ -> ‘a’ S’ | “b”", "b ab", "a", "primes"),
    ("// of a book\nS \\to 'a' S \\mid \\varepsilon", " a aa", "b", "a word for the empty string"),
]


@pytest.mark.parametrize(("text", "strings", "others", "said"), CASES)
def test_a_grammar_in_another_notation_derives_its_strings(text, strings, others, said, tmp_path, capsys):
    path = tmp_path / "g.txt"
    path.write_text(text, encoding="utf-8")
    grammar = load_grammar(path)
    parser = Parser(grammar)
    for string in strings.split(" "):
        assert parser.accepts(string), string
    for string in others.split(" "):
        assert not parser.accepts(string), string
    assert said in capsys.readouterr().err
    again = Grammar.from_text(grammar.text)  # as a run keeps it
    assert again.productions == grammar.productions
    assert again.text == grammar.text


def test_a_comment_in_the_place_of_an_alternative_is_refused_where_terminals_have_no_quotes(tmp_path):
    path = tmp_path / "g.txt"
    path.write_text("<a> ::= x <b> x  # fine\n<b> ::= - | #\n")
    with pytest.raises(DataError, match=r"g.txt, line 2: an alternative that is a comment; quote '#'"):
        load_grammar(path)


def test_a_count_of_repetitions_is_named():
    with pytest.raises(DataError, match=r"line 2: \{3\} counts repetitions; write them out"):
        Grammar.from_text("S -> T\nT -> 'a'{3}")


def test_what_stands_in_quotes_is_left_as_it_is_typeset():
    parser = Parser(Grammar.from_text("""S -> "x′" '//' "„a“" '∅' | 'a' S"""))
    assert parser.accepts("x′//„a“∅")


@pytest.mark.parametrize("word", ["ε", "λ", "epsilon", "eps", "empty"])
def test_a_word_for_the_empty_string_derives_it_unless_it_is_defined_or_quoted(word):
    parser = Parser(Grammar.from_text(f"S -> 'a' S | {word}"))
    assert parser.accepts("")
    assert parser.accepts("aa")
    assert not parser.accepts(word)
    assert Parser(Grammar.from_text(f"S -> 'a' S | {word}\n{word} -> 'b'")).accepts("ab")
    assert Parser(Grammar.from_text(f"S -> 'a' S | '{word}'")).accepts(f"a{word}")


def test_the_plain_notation_is_as_it_was_and_says_nothing(tmp_path, capsys):
    text = "S->S'+'T|T  # quotes directly after names\nT -> '(' S ')' | ':' | '=' | \"'\"\n"
    (tmp_path / "g.txt").write_text(text)
    grammar = load_grammar(tmp_path / "g.txt")
    assert grammar.text == text
    assert Parser(grammar).accepts("(:+=)+'")
    assert capsys.readouterr().err == ""


def test_rules_of_groups_take_no_name_that_is_there():
    grammar = Grammar.from_text("s: s_1 ('a' | 'b')\ns_1: 'c'")
    assert Parser(grammar).accepts("cb")
    assert len(set(grammar.nonterminals)) == 3


def test_an_unclosed_group_of_a_file_is_named_with_its_line(tmp_path):
    (tmp_path / "g.ebnf").write_text("s: 'a'\n  | {'b' 'c'\n")
    with pytest.raises(DataError, match=r"g.ebnf, line 2: '\{' is not closed; close or quote it"):
        load_grammar(tmp_path / "g.ebnf")
