"""Which column of a file holds the strings, whatever stands beside it."""

from __future__ import annotations

import pytest

from expost.data import load_data
from expost.data.drugs import DRUGS
from expost.data.encoding import encode_strings, suit_codec
from expost.data.strings import is_strings, read_strings
from expost.errors import DataError, UsageError
from expost.grammar.grammars import load_grammar
from expost.grammar.parser import Parser

NAMES, MOLECULES = zip(*[(name, smiles) for name, smiles in DRUGS if len(smiles) < 60][:60], strict=True)
PAIRS = list(zip(NAMES, MOLECULES, strict=True))


def write(path, lines, encoding="utf-8"):
    path.write_bytes("\n".join(lines).encode(encoding))
    return path


def everything(data):
    return sorted({*data.train, *data.validation, *data.test})


@pytest.mark.parametrize(
    ("name", "lines", "said"),
    [
        ("x.smi", [f"CID{i}\t{smiles}" for i, smiles in enumerate(MOLECULES)], "SMILES in column 2"),
        ("x.smi", [f"{name} of somebody\t{smiles}" for name, smiles in PAIRS], "SMILES in column 2"),
        ("x.smi", [f"{i} {name} {smiles}" for i, (name, smiles) in enumerate(PAIRS)], "SMILES in column 3"),
        ("x.smi", ["ID SMILES", *(f"{i} {smiles}" for i, smiles in enumerate(MOLECULES))], "SMILES in column 2"),
        ("x.smi", ["#smiles\tname", *(f"{smiles}\t{name} x" for name, smiles in PAIRS)], ""),
        ("x.smi", [f"NCI {smiles}" for smiles in MOLECULES], "SMILES in column 2"),  # which is a SMILES, too
        ("x.smi", [f"{smiles},{name}" for name, smiles in PAIRS], ""),
        ("x.smi", [f"{smiles} |c:1,2| {name}" for name, smiles in PAIRS], ""),
        ("x.csv", ["id,structure,logp", *(f"m{i},{s},{i}.5" for i, s in enumerate(MOLECULES))], "column 'structure'"),
        ("x.csv", ["Name;Isomeric SMILES", *(f"{n};{s}" for n, s in PAIRS)], "column 'Isomeric SMILES'"),
        ("x.csv", ['"ID"\t"Smiles"\t"MW, avg"', *(f'"C{i}"\t"{s}"\t"1"' for i, s in enumerate(MOLECULES))], "by tabs"),
        ("x.tsv", ["inn\tcode\tmol", *(f"{n}\tC{i}\t{s}" for i, (n, s) in enumerate(PAIRS))], "column 'mol'"),
        ("x.csv", [f"{s},{i}" for i, s in enumerate(MOLECULES)], "strings of column 1"),
        (
            "x.csv",
            ["# made by X", "smiles,logp", *(f"{s},{i}" for i, s in enumerate(MOLECULES))],
            "comments at the top",
        ),
    ],
)
def test_smiles_are_found_by_what_they_look_like(name, lines, said, tmp_path):
    path = write(tmp_path / name, lines)
    assert is_strings(path)
    data = read_strings(path)
    assert everything(data) == sorted(set(MOLECULES))
    assert data.domain == "molecules"
    assert said in data.note


@pytest.mark.parametrize("odd", ["{0}>>{0}", "not a molecule", "[Xx]C", "C1CC("])
def test_a_file_of_molecules_is_one_whatever_a_sixth_of_its_lines_is(odd, tmp_path):
    lines = [odd.format(s) if i % 6 == 0 else s for i, s in enumerate(MOLECULES)]
    data = read_strings(write(tmp_path / "x.smi", lines))
    assert data.domain == "molecules"
    encoded = encode_strings(data, suit_codec(data))
    kept = sum(len(split) for split in (encoded.train, encoded.validation, encoded.test))
    assert kept == len({s for i, s in enumerate(MOLECULES) if i % 6})
    assert "does not parse: " in encoded.note
    assert ", e.g. '" in encoded.note


def test_a_file_of_other_strings_is_no_file_of_molecules(tmp_path):
    path = write(tmp_path / "x.smi", [f"{name} 12" for name in NAMES])
    with pytest.raises(
        DataError, match=r"x.smi: .*% of its lines are no SMILES, the first '.*'; give a molecule a line"
    ):
        read_strings(path)


@pytest.mark.parametrize("gap", ["", "NA", "nan", "None", " "])
def test_cells_without_a_molecule_are_counted(gap, tmp_path):
    lines = ["name,smiles", *(f"{n},{gap if i % 5 == 0 else s}" for i, (n, s) in enumerate(PAIRS))]
    data = read_strings(write(tmp_path / "x.csv", lines))
    assert everything(data) == sorted({s for i, s in enumerate(MOLECULES) if i % 5})
    assert f"left out 12 of {len(PAIRS)} rows, without a string" in data.note


@pytest.mark.parametrize(
    "smiles",
    [
        "[Lu+3].CC(=O)O", "[Og]", "F[Xe]F", "N->[Pt+2](<-N)(Cl)Cl", "C%(100)CCCCC%(100)", "[C@TH1](F)(Cl)Br", "C~C",
        "[si]1cccc[si]1", "[Co@OH12](Cl)(Br)(I)(F)(S)C", "[U+4]", "CC(=O)Oc1ccccc1C(=O)O",
    ],
)  # fmt: skip
def test_the_grammar_of_molecules_has_all_elements_and_bonds(smiles):
    assert Parser(load_grammar("smiles")).accepts(smiles)


@pytest.mark.parametrize("text", ["[Xx]", "CID1", "C%(1CC", "N>[Pt]", "CC>>CC", "[C"])
def test_the_grammar_of_molecules_has_nothing_else(text):
    assert not Parser(load_grammar("smiles")).accepts(text)


def test_a_column_that_is_asked_for_makes_a_table_one_of_strings(tmp_path):
    path = write(tmp_path / "x.csv", ["a,b,c", *(f"w{i} x,v{i} y,{i}" for i in range(20))])
    assert not is_strings(path)
    assert is_strings(path, "b")
    assert everything(read_strings(path, column=" B")) == sorted(f"v{i} y" for i in range(20))
    assert "strings of column 'b'" in read_strings(path, column="b").note
    with pytest.raises(UsageError, match=r"x.csv has no column 'd'; its columns: a, b, c$"):
        read_strings(path, column="d")


def test_numbers_in_a_text_file_are_a_table_and_words_and_expressions_are_strings(tmp_path):
    table = write(tmp_path / "x.txt", [f"{i}.5 {i} -1e3" for i in range(20)])
    assert not is_strings(table)
    assert load_data(table).shape == (3,)
    assert is_strings(write(tmp_path / "y.txt", [f"{i} + {i}" for i in range(20)]))
    assert is_strings(write(tmp_path / "z.txt", [str(i) for i in range(20)]))


def test_rows_are_as_long_as_the_strings(tmp_path):
    grammar = tmp_path / "g.txt"
    grammar.write_text("S -> L | L '+' S\nL -> '1' | '2'")
    data = read_strings(write(tmp_path / "x.txt", ["1+2", "2+1", "1", "2", "1+1+2", "2+2"]))
    assert suit_codec(data, grammar=grammar).options["length"] == 6
    assert suit_codec(data, grammar=grammar, length=9).options["length"] == 9
    long = read_strings(write(tmp_path / "y.txt", ["1" + f"+{i % 3 + 1}" * (i + 9) for i in range(20)]))
    assert long.domain == "expressions"
    encoded = encode_strings(long, suit_codec(long))
    assert "left out" not in encoded.note
    assert suit_codec(read_strings("expressions", 50)).options["length"] == 15  # the published one, where it fits


@pytest.mark.parametrize("name", ["text", "sentence", "smiles"])
@pytest.mark.parametrize("quote", ["", '"'])
@pytest.mark.parametrize("few", [1, 30])
def test_below_a_single_name_each_line_is_a_string(name, quote, few, tmp_path):
    strings = [f"hello word {i}, and more; {i} times" for i in range(few)] + [f"word{i}" for i in range(few, 30)]
    path = write(tmp_path / "x.csv", [name, *(f"{quote}{string}{quote}" for string in strings)])
    assert is_strings(path)
    assert everything(read_strings(path)) == sorted(strings)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["id,text", *(f"{i},hello word {i}, and more" for i in range(30))], "line 2: 3 of 2 columns; line 1 has 2; q"),
        (["text,n", *(f"hello word {i}, and more,{i}" for i in range(30))], "line 2: 3 of 2 columns; line 1 has 2; q"),
        (["text,n", *(f"hello {i},{i}" for i in range(30)), "a,b,1"], "line 32: 3 of 2 columns; line 1 has 2; quote"),
    ],
)
def test_rows_longer_than_the_header_are_refused(lines, message, tmp_path):
    with pytest.raises(DataError, match=message):
        read_strings(write(tmp_path / "x.csv", lines), column="text")


def test_empty_cells_at_the_end_of_rows_are_none(tmp_path):
    path = write(tmp_path / "x.csv", ["text,n", *(f"hello {i},{i},," for i in range(30))])
    assert len(everything(read_strings(path, column="text"))) == 30


def test_a_title_above_the_names_of_columns_is_refused(tmp_path):
    path = write(tmp_path / "x.csv", ["My molecules", "id,smiles,logp", *(f"m{i},CCO,{i}" for i in range(30))])
    with pytest.raises(DataError, match="line 2: 3 names of columns below 'My molecules'; remove the lines above"):
        read_strings(path)
