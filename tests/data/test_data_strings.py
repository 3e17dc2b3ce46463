"""Strings: the expressions that are made, files of every kind, the parts, the named sets and their download."""

import collections
import gzip
import hashlib
import http.server
import itertools
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from expost.data.alphabets import alphabet_of
from expost.data.expressions import (
    LANGUAGE,
    PUBLISHED_SHA256,
    SOLUTIONS,
    TARGET,
    count_productions,
    published_expressions,
    sample_expressions,
)
from expost.data.named_strings import STRING_DATASETS, ZINC, NamedStrings, Published
from expost.data.notations import guess_domain
from expost.data.string_files import holds_strings
from expost.data.string_lines import Lines
from expost.data.strings import Strings, fingerprint, read_named_strings, read_strings
from expost.errors import DataError, UsageError
from expost.utils.downloads import PublicFile

# Expressions. What follows is written anew, from the grammar, to check against.


def parse(text):
    """Return the productions of the derivation, by recursive descent; raise ValueError where there is none."""
    used, at = [], 0

    def take(word):
        nonlocal at
        if not text.startswith(word, at):
            raise ValueError(text)
        at += len(word)

    def sum_():
        used.append("S->T")
        term()
        while text[at : at + 1] in ("+", "*", "/"):
            used.append(f"S->S{text[at]}T")
            take(text[at])
            term()

    def term():
        for word in ("(", "sin(", "exp("):
            if text.startswith(word, at):
                used.append(f"T->{word}S)")
                take(word)
                sum_()
                take(")")
                return
        if text[at : at + 1] not in ("x", "1", "2", "3"):
            raise ValueError(text)
        used.append(f"T->{text[at]}")
        take(text[at])

    sum_()
    if at != len(text):
        raise ValueError(text)
    return used


def derive(symbol, depth):
    """List what a symbol derives with at most `depth` productions on a path, in the grammar's order."""
    rules = {
        "S": [("S", "+", "T"), ("S", "*", "T"), ("S", "/", "T"), ("T",)],
        "T": [("(", "S", ")"), ("sin(", "S", ")"), ("exp(", "S", ")"), ("x",), ("1",), ("2",), ("3",)],
    }
    if depth == 0:
        return []
    strings = []
    for right in rules[symbol]:
        choices = [derive(part, depth - 1) if part in rules else [part] for part in right]
        strings += map("".join, itertools.product(*choices))
    return strings


@pytest.fixture(scope="module")
def language():
    return derive("S", 5)


@pytest.fixture(scope="module")
def drawn():
    return sample_expressions()


def test_the_published_set_begins_an_enumeration(language):
    assert published_expressions() == language[:100_000]
    spaced = "".join(" ".join(re.findall(r"sin\(|exp\(|.", text)) + "\n" for text in published_expressions())
    assert hashlib.sha256(spaced.encode()).hexdigest() == PUBLISHED_SHA256


def test_the_published_set_equals_the_published_file(shared_data):
    content = gzip.decompress((shared_data / "expressions" / "equation2_15_dataset.txt.gz").read_bytes())
    assert hashlib.sha256(content).hexdigest() == PUBLISHED_SHA256
    assert content.decode().replace(" ", "").splitlines() == published_expressions()


def test_every_draw_derives_from_the_grammar_with_at_most_15_productions(drawn):
    assert len(drawn) == len(set(drawn)) == 100_000
    for text in drawn[::10]:
        used = parse(text)
        assert len(used) == count_productions(text) <= 14
    assert max(map(count_productions, drawn)) == 14
    assert max(map(len, drawn)) == 19


def test_the_largest_draw_is_the_whole_language_but_the_solutions(language):
    assert len(language) == len(set(language)) == LANGUAGE
    everything = sample_expressions(LANGUAGE - len(SOLUTIONS), seed=3)
    assert len(everything) == len(set(everything))
    assert set(everything) == set(language) - set(SOLUTIONS)


def kinds(texts, shape):
    return collections.Counter(map(shape, texts))


@pytest.mark.parametrize(
    "shape",
    [
        lambda text: text.count("(") + sum(map(text.count, "+*/")),  # half the productions, less one
        lambda text: text[:5],
        lambda text: text[-4:],
        lambda text: tuple(map(text.count, "+*/")),
    ],
    ids=["productions", "beginning", "end", "operators"],
)
def test_draws_are_uniform(language, drawn, shape):
    """Chi-square against the exact counts, in the variance of draws without replacement; rare kinds are pooled."""
    exact, counted = kinds(language, shape), kinds(drawn, shape)
    common = [kind for kind, n in exact.items() if n * len(drawn) / LANGUAGE >= 20]
    expected = np.array([exact[kind] for kind in common] + [LANGUAGE - sum(exact[kind] for kind in common)], float)
    observed = np.array([counted[kind] for kind in common] + [len(drawn) - sum(counted[kind] for kind in common)])
    expected, observed = expected[expected > 0] * len(drawn) / LANGUAGE, observed[expected > 0]
    statistic = ((observed - expected) ** 2 / expected).sum() / (1 - len(drawn) / LANGUAGE)
    assert len(expected) >= 5
    assert 1e-4 < stats.chi2.sf(statistic, len(expected) - 1) < 1 - 1e-4


def test_a_draw_depends_on_its_seed_alone(drawn):
    digest = hashlib.sha256("\n".join(drawn).encode()).hexdigest()
    assert digest == "63a5bfddd981ab640348d5d22782cf3f59b7d17b98c448fa0abd9a30f628196b"
    assert sample_expressions(1000) == drawn[:1000]
    assert sample_expressions(1000, seed=1) != drawn[:1000]


def test_the_measured_distances_to_the_published_set(drawn):
    def features(texts):
        tokens = collections.Counter(itertools.chain.from_iterable(parse(text) for text in texts[::5]))
        return kinds(texts, count_productions), kinds(texts, len), tokens

    def distance(one, other):
        a, b = sum(one.values()), sum(other.values())
        return sum(abs(one[key] / a - other[key] / b) for key in one | other) / 2

    pairs = zip(features(published_expressions()), features(drawn), strict=True)
    assert [distance(*pair) for pair in pairs] == pytest.approx([0.056, 0.058, 0.116], abs=0.002)


def test_solutions_are_all_strings_of_the_language_that_equal_the_target():
    x = np.array([-9.3, -4.1, -0.77, 0.31, 1.9, 3.3, 7.7])
    functions: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "(": lambda value: value,
        "sin(": np.sin,
        "exp(": np.exp,
    }

    def terms(depth):
        inner = sums(depth - 1) if depth > 1 else []
        called = [
            (word + text + ")", call(rest + last)) for word, call in functions.items() for text, rest, last in inner
        ]
        return [*called, ("x", x), *((str(n), np.full_like(x, n)) for n in (1, 2, 3))]

    def sums(depth):
        """Texts with their values as a sum and the last product, since '*' and '/' bind tighter than '+'."""
        if depth == 1:
            return []
        left, right = sums(depth - 1), terms(depth - 1)
        added = [(a + "+" + b, rest + last, value) for a, rest, last in left for b, value in right]
        times = [(a + "*" + b, rest, last * value) for a, rest, last in left for b, value in right]
        over = [(a + "/" + b, rest, last / value) for a, rest, last in left for b, value in right]
        return added + times + over + [(b, np.zeros_like(x), value) for b, value in right]

    with np.errstate(all="ignore"):
        left, right = sums(4), terms(4)
        rest, last = (np.array([row[i] for row in left])[:, None] for i in (1, 2))
        value = np.array([row[1] for row in right])
        target = 1 / 3 + x + np.sin(x * x)
        equal = {
            left[i][0] + operator + right[j][0]
            for operator, values in (("+", rest + last + value), ("*", rest + last * value), ("/", rest + last / value))
            for i, j in np.argwhere(np.isclose(values, target, rtol=1e-9, atol=1e-9).all(axis=-1))
        }
    assert equal == set(SOLUTIONS)
    assert TARGET in equal
    assert set(SOLUTIONS) & set(published_expressions()) == {"1/3+(x)+sin(x*x)"}


@given(st.lists(st.sampled_from(["x", "1", "3", "+", "*", "/", "(", "sin(", "exp(", ")", "y", "-"]), max_size=9))
def test_counting_productions_agrees_with_a_parser(tokens):
    text = "".join(tokens)
    try:
        expected = len(parse(text))
    except ValueError:
        expected = None
    assert count_productions(text) == expected


@pytest.mark.parametrize("n", [0, -1, LANGUAGE, 2.0, True])
def test_numbers_of_expressions_out_of_range_are_refused(n):
    with pytest.raises(UsageError, match=r"n is .*; give a whole number of expressions from 1 to 1,205,916"):
        sample_expressions(n)
    with pytest.raises(UsageError, match="seed is -1"):
        sample_expressions(3, seed=-1)


# Domains and alphabets.


@pytest.mark.parametrize(
    ("strings", "domain"),
    [
        (["x", "1", "sin(x)"], "expressions"),
        (["sin( x ) + 1"], "expressions"),
        (["x+y"], "text"),
        (["C", "[nH]1cccc1", "F/C=C/F", "[Na+].[Cl-]", "C%10CC%10"], "molecules"),
        (["CC("], "text"),
        (["1CC"], "text"),
        (["Hello", "world"], "text"),
        (["C"] * 95 + ["no molecule"] * 5, "molecules"),
        (["C"] * 80 + ["no molecule"] * 20, "text"),
        ([], "text"),
        ([""], "text"),
    ],
)
def test_domains_are_told_by_looks(strings, domain):
    assert guess_domain(strings) == domain


def test_all_of_zinc_looks_like_molecules_and_has_the_papers_alphabet(shared_data):
    content = gzip.decompress((shared_data / "zinc250k" / f"{ZINC.name}.gz").read_bytes())
    strings = content.decode().split()
    assert guess_domain(strings) == "molecules"
    # 35 symbols with padding, and 120 of them, in the paper.
    characters = alphabet_of(strings)
    assert (len(characters.symbols), characters.length) == (34, 120)
    assert list(characters.symbols) == sorted(set("".join(strings)))
    atoms = alphabet_of(strings, tokens="smiles")
    assert set(atoms.symbols) == set(characters.symbols) - {"l", "r", "B"} | {"Cl", "Br"}
    assert atoms.length == max(len(re.findall("Cl|Br|.", string)) for string in strings if len(string) > 100)


def test_the_expressions_alphabet_is_the_papers():
    alphabet = alphabet_of(published_expressions())
    assert ("".join(alphabet.symbols), alphabet.length) == ("()*+/123einpsx", 19)  # 15 with padding


def test_alphabets_need_characters_and_a_known_way():
    assert alphabet_of(["BrB", ""], tokens="smiles").symbols == ("B", "Br")
    for empty in ([], [""]):
        with pytest.raises(DataError, match="no strings, or only empty ones"):
            alphabet_of(empty)
    with pytest.raises(UsageError, match="tokens is 'words'; choose one of: smiles, characters"):
        alphabet_of(["a"], tokens="words")  # type: ignore[arg-type]


# Files.


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def everything(data):
    return sorted(data.train + data.validation + data.test)


FOUR = ["CCO", "C1CC1", "CCl", "c1ccccc1"]
TABLE = "id,Smiles,logp\n1,CCO,0.1\n2,C1CC1,0.2\n\n3,CCl,0.3\n4,c1ccccc1,\n"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.smi", "CCO ethanol\nC1CC1\tcyclopropane 3\n\nCCl\n  c1ccccc1  \n"),
        ("a.smi", "SMILES name\nCCO ethanol\nC1CC1 b\nCCl c\nc1ccccc1 d\n"),
        ("a.smiles.gz", "smiles\nCCO\nC1CC1\nCCl\nc1ccccc1"),
        ("a.txt", "CCO\nC1CC1\nCCl\nc1ccccc1"),
        ("A.TXT", "\ufeffCCO\r\nC1CC1\r\n\r\nCCl\r\nc1ccccc1\r\n"),
        ("a.txt", "CCO\rC1CC1\rCCl\rc1ccccc1\r"),
        ("a.txt", "CCO\nC1CC1\nCCl\nc1ccccc1".encode("utf-16")),
        ("a.smi", "CCO\nC1CC1\nCCl\nc1ccccc1".encode("utf-16-le")),
        ("a.txt.gz", "\ufeffCCO\nC1CC1\nCCl\nc1ccccc1\n \t\n"),
        ("a.txt", gzip.compress(b"CCO\nC1CC1\nCCl\nc1ccccc1\n", mtime=0)),
        ("a.csv", TABLE),
        ("a.csv.gz", "\ufeff" + TABLE.replace("\n", "\r\n")),
        ("a.csv", "\n\n" + TABLE.replace(",", ";")),
        ("a.tsv", TABLE.replace(",", "\t")),
        ("a.csv", '"smiles","name"\n"CCO\n","a, ""b"""\n"C1CC1\n",x\nCCl,y\nc1ccccc1,z\n'),
        ("a.csv", "molecule\nCCO\nC1CC1\nCCl\nc1ccccc1\n"),
        ("a.csv", "CCO\nC1CC1\nCCl\nc1ccccc1\n"),
        ("a.csv", "CCO,1\nC1CC1,2\nCCl,3\nc1ccccc1,-1e3\n"),
        ("a.csv", "name,canonical_smiles,string\na,CCO,q\nb,C1CC1,q\nc,CCl,q\nd,c1ccccc1,q\n"),
    ],
)
def test_files_of_every_kind_are_read(tmp_path, name, content):
    path = write(tmp_path / name, content)
    data = read_strings(path)
    assert everything(data) == sorted(FOUR)
    assert data.domain == "molecules"
    assert data.name == str(path)
    assert data.note.startswith(
        f"from {path}; 4 molecules of 3 to 8 characters; 2/1/1 for training/validation/test; 80/10/10 drawn with seed 0"
    )


def test_spaces_are_taken_out_of_expressions_alone(tmp_path):
    sums = read_strings(write(tmp_path / "sums.txt", "x + 1\nsin( x )\nx\n2 * x\n"))
    assert everything(sums) == ["2*x", "sin(x)", "x", "x+1"]
    assert sums.domain == "expressions"
    assert sums.note.endswith("spaces within expressions taken out")
    text = read_strings(write(tmp_path / "text.txt", " a b \nc d\ne  f\n"))
    assert (everything(text), text.domain) == (["a b", "c d", "e  f"], "text")
    assert text.note.endswith("drawn with seed 0")


def test_any_column_can_be_asked_for(tmp_path):
    path = write(tmp_path / "a.csv", "smiles,Name,name \nC,a,u\nN,b,v\nO,c,w\n")
    assert everything(read_strings(path, column="Name")) == ["a", "b", "c"]
    assert everything(read_strings(path, column="name")) == ["u", "v", "w"]
    assert everything(read_strings(path, column=" NAME")) == ["a", "b", "c"]
    with pytest.raises(UsageError, match=r"a.csv has no column 'formula'; its columns: smiles, Name, name$"):
        read_strings(path, column="formula")
    with pytest.raises(UsageError, match=r"column is 'a', but .*b.txt is no table; leave it out"):
        read_strings(write(tmp_path / "b.txt", "C\nN\nO\n"), column="a")
    with pytest.raises(UsageError, match=r"column is 'a', but 'expressions' is no table; leave it out"):
        read_strings("expressions", column="a")


LONG = "C" * 100_001


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "", "holds no strings; fill it"),
        ("a.txt", " \n\n\t\n", "holds no strings; fill it"),
        ("a.txt.gz", "", "holds no strings"),
        ("a.smi", "smiles\n", "holds no strings"),
        ("a.csv", "", "is empty; give a table"),
        ("a.csv", "\n\n", "is empty; give a table"),
        ("a.csv", ",,\n,,\n", "is a table of empty cells"),
        ("a.csv", "smiles\n", "holds no strings"),
        ("a.csv", "smiles,n\n,1\n,2\n", "holds no strings"),
        ("a.txt", b"\x89PNG\r\n\x1a\n\0\0", r"is no UTF-8 text \(byte 0x89 after line 0\); save it as UTF-8"),
        ("a.smi", "C\nN\n\0\n", "is no text: it has a zero byte in line 3"),
        ("a.csv", "smiles\nCO\n\xe9\n".encode("latin-1"), "is no UTF-8 text"),
        ("a.txt", gzip.compress(FOUR[0].encode() * 1000, mtime=0)[:-9], "is no complete gzip file"),
        ("a.txt", gzip.compress(b"C\nN\n", mtime=0)[:-8] + b"12345678", "is no complete gzip file"),
        (
            "a.txt",
            f"C\n{LONG}\nN\n{LONG}{LONG}",
            "2 lines have more than 100,000 characters, the first is line 2; give",
        ),
        ("a.smi", f"C\nN\n{LONG}\n", "1 line has more than 100,000 characters, the first is line 3"),
        ("a.csv", f"smiles\nC\n{LONG}\n", "1 line has more than 100,000 characters"),
        ("a.txt", "C\nC\n", "repeated strings taken once: 1 example to divide into 3 parts"),
        ("a.txt", "C\nN\n", "2 examples to divide into 3 parts"),
        ("a.csv", "a,b\nx,y\nz,w\n", r"could be in any of the columns a, b; choose one by --column"),
        ("a.csv", "a,b\n1,2\n3,-4.5e6\n", "has no column of text, only a, b; give a column named smiles"),
        ("a.csv", "id,smiles\n1,C\n2\n", "line 3: 1 of 2 columns; complete or remove that row"),
        ("a.csv", 'smiles\nC\n"N\nO\n', "line 4: a string with line breaks; is a quotation mark not closed?"),
        ("a.csv", 'smiles\n"' + "C\n" * 70_000, "is a quotation mark not closed?"),
        ("a.csv", "smiles,split\nC,train\nN,valid\n,test\nO,train\n", "holds no strings in its part test"),
        ("a.csv", "smiles,split\nC,train\nN,valid\nC,test\nO,train\n", "every test string is in training too"),
        ("a.xlsx", "C\n", "is in no known format of strings"),
        ("a.gz", "C\n", "is in no known format of strings"),
    ],
)
def test_files_that_cannot_be_used_are_refused_in_one_line(tmp_path, name, content, message):
    path = write(tmp_path / name, content)
    with pytest.raises(DataError, match=message) as caught:
        read_strings(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_lines_as_long_as_allowed_are_read(tmp_path):
    strings = ["C" * 100_000, "N" * 99_999, "O"]
    for ending in ("\n", "\r\n"):
        assert everything(read_strings(write(tmp_path / "a.txt", ending.join(strings)))) == sorted(strings)


@pytest.mark.parametrize(
    "asked", ["", " ", None, 3, "expresions", "./nothing", Path("nothing"), "~nobody-has-this-name/x", "a\0b"]
)
def test_what_is_neither_name_nor_path_is_a_usage_error(asked):
    with pytest.raises(UsageError) as caught:
        read_strings(asked)
    assert "\n" not in str(caught.value)
    if asked == "expresions":
        assert "did you mean 'expressions'?" in str(caught.value)


@pytest.mark.parametrize(
    ("option", "value"), [("limit", 0), ("limit", 1.5), ("limit", True), ("seed", -1), ("seed", 2**32)]
)
def test_options_out_of_range_are_usage_errors(option, value):
    with pytest.raises(UsageError, match=f"{option} is {value}"):
        read_strings("expressions", **{option: value})


def test_special_files_and_unreadable_ones_are_refused(tmp_path):
    os.mkfifo(tmp_path / "a.txt")
    with pytest.raises(DataError, match="is no regular file"):
        read_strings(tmp_path / "a.txt")
    if os.geteuid():
        write(tmp_path / "b.txt", "C\nN\nO\n").chmod(0)
        with pytest.raises(DataError, match="cannot read .*b.txt: Permission denied"):
            read_strings(tmp_path / "b.txt")


def test_a_folder_gives_its_parts(tmp_path):
    write(tmp_path / "zinc_train.smi", "C\nN\nO\nC\n")
    write(tmp_path / "zinc-test.csv.gz", "smiles,split\nF,train\nI,train\n")
    write(tmp_path / "README.txt", "about\n")
    write(tmp_path / "other.txt", "about\n")
    data = read_strings(tmp_path)
    assert sorted(data.test) == ["F", "I"]
    assert sorted(set(data.train)) + data.validation in (["C", "N", "O"], ["C", "O", "N"], ["N", "O", "C"])
    assert "validation is a tenth of the training part" in data.note
    assert data.note.endswith("ignored 1 other file (other.txt)")
    write(tmp_path / "validation.txt", "S\n")
    data = read_strings(tmp_path)
    assert (data.train, data.validation) == (["C", "N", "O", "C"], ["S"])
    write(tmp_path / "my-valid.txt", "P\n")
    assert read_strings(tmp_path).validation == ["S"]
    write(tmp_path / "train-more.txt", "P\n")
    with pytest.raises(DataError, match=r"train-more.txt and zinc_train.smi are both 'train'; keep one of them"):
        read_strings(tmp_path)


def test_folders_without_parts_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"no files of strings \(.smi"):
        read_strings(tmp_path)
    write(tmp_path / "a.txt", "C\nN\nO\n")
    assert everything(read_strings(tmp_path)) == ["C", "N", "O"]
    write(tmp_path / "b.txt", "C\nN\nO\n")
    with pytest.raises(DataError, match=r"none of its files of strings \(a.txt, b.txt\) is named train"):
        read_strings(tmp_path)
    (tmp_path / "a.txt").rename(tmp_path / "test.txt")
    with pytest.raises(DataError, match="has a test part but no training part"):
        read_strings(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.smi", "C\n", True),
        ("a.txt.gz", "C\n", True),
        ("a.csv", "id,SMILES\n1,C\n", True),
        ("a.csv", "words\nhello\n", True),
        ("a.csv", "a,b\n1,2\n", False),
        ("a.csv", "1\n2\n", False),
        ("a.csv", "x,species\n1,cat\n", False),
        ("a.csv", "", False),
        ("a.csv", b"\xff\xfe", False),
        ("a.png", "C\n", False),
        ("README.txt", "C\n", True),
    ],
)
def test_strings_are_told_from_numbers_and_images(tmp_path, name, content, expected):
    path = write(tmp_path / "folder" / name, content)
    assert holds_strings(path) is expected
    assert holds_strings(path.parent) is (expected and name != "README.txt")
    write(path.parent / "b.png", "")
    assert holds_strings(path.parent) is False
    assert holds_strings(tmp_path / "nothing") is False


def test_strings_are_not_images():
    from expost.data import Preprocess

    with pytest.raises(UsageError, match="a.txt holds strings, not images; leave out size, crop and channels"):
        Lines(["C"], "a.txt").load(np.array([0]), Preprocess(size=8))


# Parts.


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.text("ab", min_size=1, max_size=4), min_size=12, max_size=80).filter(lambda lines: len(set(lines)) > 2),
    st.integers(0, 2**32 - 1),
)
def test_undivided_strings_are_divided_without_loss_or_overlap(tmp_path_factory, lines, seed):
    path = write(tmp_path_factory.getbasetemp() / "lines.txt", "\n".join(lines))
    data = read_strings(path, seed=seed)
    train, validation, test = map(set, (data.train, data.validation, data.test))
    assert train.isdisjoint(validation | test)
    assert validation.isdisjoint(test)
    assert train | validation | test == set(lines)
    assert data.train == [line for line in lines if line in train]  # copies included
    tenth = max(1, round(len(set(lines)) / 10))
    assert (len(data.validation), len(data.test)) == (tenth, tenth)
    copies = len(lines) - len(set(lines))
    assert (f"{copies} repeated strings, of which training keeps its own" in data.note) == (copies > 0)
    assert fingerprint(read_strings(path, seed=seed)) == fingerprint(data)


def test_given_parts_lose_what_they_share(tmp_path):
    rows = ["C,train", "C,TRAIN", "N,train", "N,valid", "O,valid", "F,valid", "F,test", "I,test", "C,test", "P,extra"]
    data = read_strings(write(tmp_path / "a.csv", "smiles,Split\n" + "\n".join(rows)))
    assert (data.train, data.validation, data.test) == (["C", "C", "N"], ["O"], ["F", "I"])
    assert "left out 2 of validation and 1 of test that are in other parts" in data.note
    assert "1 repeated strings" in data.note
    assert data.note.endswith("left out 1 rows of part 'extra'")


def test_a_split_column_without_a_training_part_divides_nothing(tmp_path):
    data = read_strings(write(tmp_path / "a.csv", "smiles,part\nC,left\nN,right\nO,test\n"))
    assert everything(data) == ["C", "N", "O"]


def test_the_split_depends_on_strings_and_seed_alone(tmp_path):
    text = "\n".join(published_expressions()[:500])
    one = read_strings(write(tmp_path / "a.txt", text))
    other = read_strings(write(tmp_path / "b" / "c.csv.gz", "expression\n" + text))
    assert fingerprint(one) == fingerprint(other) == "962610d764b3e15600f117e79ff90f764ec246ad1e680860b8f6a0f5a61b118d"
    assert set(read_strings(tmp_path / "a.txt", seed=1).test) != set(one.test)


def test_limits_give_nested_parts():
    whole, hundred, ten = (read_strings("expressions", limit=limit, seed=5) for limit in (None, 100, 10))
    for part in ("train", "validation", "test"):
        large, middle, small = (getattr(data, part) for data in (whole, hundred, ten))
        assert (len(middle), len(small)) == (100, 10)
        assert set(small) < set(middle) < set(large)
        assert [string for string in large if string in set(middle)] == middle
    assert hundred.train != read_strings("expressions", limit=100, seed=6).train
    assert "at most 10 of each, drawn with seed 5" in ten.note


def test_a_fingerprint_is_of_the_parts():
    base = Strings("a", ["ab", "c"], ["d"], ["e"], "", "text")
    same = Strings("b", ["ab", "c"], ["d"], ["e"], "else", "molecules")
    assert fingerprint(base) == fingerprint(same)
    others = [
        Strings("a", ["a", "bc"], ["d"], ["e"], "", "text"),
        Strings("a", ["c", "ab"], ["d"], ["e"], "", "text"),
        Strings("a", ["ab"], ["c", "d"], ["e"], "", "text"),
        Strings("a", ["ab1:c"], ["d"], ["e"], "", "text"),
    ]
    assert len({fingerprint(data) for data in [base, *others]}) == 5


# Named sets.


@pytest.mark.parametrize("name", ["expressions", "expressions-published"])
def test_sets_of_expressions_are_fixed(name, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    data = read_strings(name, seed=7)
    assert fingerprint(data) == fingerprint(read_strings(name))
    assert (len(data.train), len(data.validation), len(data.test)) == (80_000, 10_000, 10_000)
    assert data.domain == "expressions"
    source = published_expressions() if name == "expressions-published" else sample_expressions()
    assert everything(data) == sorted(source)
    assert STRING_DATASETS[name].origin.find(name) == "built in"


def test_drugs_are_molecules():
    pytest.importorskip("expost.data.drugs", reason="the bundled drugs are not here yet")
    from expost.data.drugs import DRUGS

    data = read_strings("drugs")
    assert set(everything(data)) == {smiles for _, smiles in DRUGS}
    assert guess_domain(everything(data)) == data.domain == "molecules"


def test_zinc_has_the_papers_split(shared_data, monkeypatch):
    monkeypatch.setenv("EXPOST_DATA", str(shared_data))
    data = read_strings("zinc250k", seed=3)
    lines = gzip.decompress((shared_data / "zinc250k" / f"{ZINC.name}.gz").read_bytes()).decode().split()
    assert data.test == lines[:5000]
    held = set(data.validation)
    assert len(data.validation) == len(held) == 5000
    assert data.train == [line for line in lines[5000:] if line not in held]
    assert (data.domain, len(data.train)) == ("molecules", 239_456)
    assert "test is its first 5,000, validation a fixed draw" in data.note
    assert fingerprint(data) == "e39d122c0fcb75e1d5e2b3c7650ca242c9c3799e061e80bbac05869a820aba0e"
    assert STRING_DATASETS["zinc250k"].origin.find("zinc250k") == str(shared_data / "zinc250k" / f"{ZINC.name}.gz")


SMALL = "".join(f"{'C' * n}\n" for n in range(1, 101)).encode()


class Server(http.server.ThreadingHTTPServer):
    """Records the paths of all requests."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.paths: list[str] = []


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self):
        self.server.paths.append(self.path)
        body = {"/good": SMALL, "/altered": SMALL.replace(b"CC", b"CN", 1)}.get(self.path)
        if body is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def named(server, path):
    url = f"http://127.0.0.1:{server.server_port}{path}"
    public = PublicFile("small.smi", (url,), hashlib.sha256(SMALL).hexdigest(), len(SMALL))
    return NamedStrings("small", "molecules", Published(public, test=10, validation=20), "none")


def test_a_set_is_downloaded_once_and_checked(server, tmp_path):
    entry = named(server, "/good")
    assert entry.origin.find("small") is None
    first = read_named_strings("small", entry, seed=1)
    assert first.test == ["C" * n for n in range(1, 11)]
    assert (len(first.train), len(first.validation)) == (70, 20)
    assert everything(first) == SMALL.decode().split()
    cached = tmp_path / "cache" / "expost" / "small" / "small.smi"
    assert entry.origin.find("small") == str(cached)
    assert fingerprint(read_named_strings("small", entry)) == fingerprint(first)
    assert server.paths == ["/good"]
    cached.write_bytes(SMALL + b"N\n")
    with pytest.raises(DataError, match=r"small.smi is not the published file \(more than 5,150 bytes of other"):
        read_named_strings("small", entry)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_set_on_disk_is_not_downloaded(server, tmp_path, monkeypatch, suffix):
    monkeypatch.setenv("EXPOST_DATA", str(tmp_path / "mine"))
    path = write(tmp_path / "mine" / "small" / f"small.smi{suffix}", SMALL)
    data = read_named_strings("small", named(server, "/good"))
    assert data.note.startswith(f"from {path}; 100 molecules of 1 to 100 characters; 70/20/10 ")
    write(path, SMALL.replace(b"CC", b"CN", 1))
    with pytest.raises(DataError, match=r"small.smi.* is not the published file \(5,150 bytes of other contents\)"):
        read_named_strings("small", named(server, "/good"))
    path.write_bytes(gzip.compress(SMALL)[:50])
    with pytest.raises(DataError, match="is no complete gzip file" if suffix else "is not the published file"):
        read_named_strings("small", named(server, "/good"))
    assert server.paths == []


@pytest.mark.parametrize(("path", "reason"), [("/altered", "SHA-256 .* contents are altered"), ("/missing", "404")])
def test_a_bad_download_is_not_kept_and_says_what_to_do(server, tmp_path, monkeypatch, path, reason):
    with pytest.raises(DataError, match=reason) as caught:
        read_named_strings("small", named(server, path))
    folder = tmp_path / "cache" / "expost" / "small"
    assert f"put it into {folder} (" in str(caught.value)
    assert str(caught.value).endswith("or into a folder 'small', and set EXPOST_DATA to the folder that holds that one")
    assert list(folder.iterdir()) == []
    monkeypatch.setenv("EXPOST_DATA", str(tmp_path / "mine"))
    with pytest.raises(DataError, match=rf"put it into {folder} \(.*\), or into {tmp_path}/mine/small$"):
        read_named_strings("small", named(server, path))


MOSES = "SMILES,SPLIT\n" + "".join(
    f"{'C' * n}O,train\n{'C' * n}N,test\n{'C' * n}F,test_scaffolds\n" for n in range(1, 21)
)


def test_moses_is_read_from_one_table_or_two(tmp_path, monkeypatch):
    monkeypatch.setenv("EXPOST_DATA", str(tmp_path))
    with pytest.raises(
        DataError, match=rf"'moses' is not here; download dataset_v1.csv, .* put it into {tmp_path}/moses$"
    ):
        read_strings("moses")
    write(tmp_path / "moses" / "test_scaffolds.csv", "SMILES,SPLIT\nCCF,test_scaffolds\n")
    write(tmp_path / "moses" / "train.csv", "SMILES,SPLIT\n" + "".join(f"{'C' * n}O,train\n" for n in range(1, 21)))
    with pytest.raises(DataError, match="'moses' is not here"):
        read_strings("moses")
    assert STRING_DATASETS["moses"].origin.find("moses") is None
    write(tmp_path / "moses" / "test.csv.gz", "SMILES,SPLIT\n" + "".join(f"{'C' * n}N,test\n" for n in range(1, 21)))
    two = read_strings("moses", seed=1)
    write(tmp_path / "moses" / "dataset_v1.csv", MOSES)
    one = read_strings("moses", seed=2)
    assert fingerprint(one) == fingerprint(two)
    assert one.test == [f"{'C' * n}N" for n in range(1, 21)]
    assert (len(one.train), len(one.validation), one.domain) == (18, 2, "molecules")
    assert one.note.endswith("left out 20 rows of part 'test_scaffolds'")
    assert STRING_DATASETS["moses"].origin.find("moses") == str(tmp_path / "moses")
