"""Files as instruments, archives and programs write them: read right, or named."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from expost.data import load_data
from expost.data.drugs import DRUGS
from expost.data.strings import is_strings, read_strings
from expost.errors import DataError

PAIRS = [(name, smiles) for name, smiles in DRUGS if len(smiles) < 60][:40]
MOLECULES = sorted({smiles for _, smiles in PAIRS})
ROWS = np.random.default_rng(0).normal(size=(40, 6)).round(3)


def write(path, lines):
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def everything(data):
    return sorted({*data.train, *data.validation, *data.test})


@pytest.mark.parametrize(
    ("name", "lines", "said"),
    [
        (
            "x.smi",
            ["# of the lab", *(s for _, s in PAIRS[:20]), "#half", *(s for _, s in PAIRS[20:])],
            "2 lines of com",
        ),
        ("x.ism", [s for _, s in PAIRS], ""),
        ("x.cxsmiles", [f"{s} |c:1|" for _, s in PAIRS], ""),
        ("x.txt", [f"{s} {n}" for n, s in PAIRS], "read as a file of molecules, what stands beside them left out"),
        ("x.txt", [f"{n}\t{s}" for n, s in PAIRS], "SMILES in column 2; read as a file of molecules"),
        ("x.txt", [f"{s};{i}.5" for i, (_, s) in enumerate(PAIRS)], "read as a file of molecules"),
    ],
)
def test_molecules_are_found_beside_comments_and_names(name, lines, said, tmp_path):
    data = read_strings(write(tmp_path / name, lines))
    assert everything(data) == MOLECULES
    assert data.domain == "molecules"
    assert said in data.note


@pytest.mark.parametrize(
    "lines",
    [
        [" ".join(s) for _, s in PAIRS],  # tokens, as translation models take them
        [f"the drug {n}" for n, _ in PAIRS],
        [f"CHEMBL{i} C{i}H{i}" for i in range(40)],
    ],
)
def test_other_lines_with_spaces_stay_whole(lines, tmp_path):
    data = read_strings(write(tmp_path / "x.txt", lines))
    assert everything(data) == sorted(lines)
    assert data.domain == "text"


@pytest.mark.parametrize("name", ["x.fasta", "x.fa", "x.txt"])
def test_sequences_are_read_without_their_names(name, tmp_path):
    lines = [line for i in range(12) for line in (f">P{i} made up", "MKV" + "A" * i, "L" * (i + 1), "")]
    data = read_strings(write(tmp_path / name, lines))
    assert everything(data) == sorted("MKV" + "A" * i + "L" * (i + 1) for i in range(12))
    assert "read as FASTA: 12 sequences, their names left out" in data.note


def test_what_is_no_fasta_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"is no FASTA: it begins with 'MKV', not with > and a name; correct it"):
        read_strings(write(tmp_path / "x.fasta", ["MKV", ">a", "M"]))


def test_selfies_are_no_smiles(tmp_path):
    lines = [f"[C][=C][Branch1][C]{'[O]' * i}[Ring1][Ring2]" for i in range(30)]
    assert read_strings(write(tmp_path / "x.txt", lines)).domain == "text"


def test_libsvm_is_named(tmp_path):
    lines = [f"{i % 2} 1:0.5 3:{i}" for i in range(30)]
    with pytest.raises(DataError, match=r"x.txt is in the format of LIBSVM \(0 1:0.5 3:0\); convert it"):
        read_strings(write(tmp_path / "x.txt", lines))


def test_arff_is_named_below_its_comments(tmp_path):
    lines = ["% from a museum", "@RELATION iris", "@ATTRIBUTE a REAL", "@ATTRIBUTE b REAL", "@DATA"]
    with pytest.raises(DataError, match=r"x.csv is ARFF; convert it to a table"):
        load_data(write(tmp_path / "x.csv", [*lines, *(f"{a},{b}" for a, b in ROWS[:, :2])]))


@pytest.mark.parametrize("scale", [[400 + 2 * i for i in range(6)], [0.5 * i for i in range(6)], [9, 7, 5, 3, 1, -1]])
def test_a_scale_above_fractions_names_the_columns(scale, tmp_path):
    lines = [",".join(map(str, scale)), *(",".join(map(str, row)) for row in ROWS)]
    data = load_data(write(tmp_path / "x.csv", lines))
    assert data.columns == tuple(map(str, scale))
    assert sum(map(len, (data.train, data.validation, data.test))) == 40


@pytest.mark.parametrize("first", [[1.5, 2.5, 3.5, 4.5, 5.6, 6.5], [2, 4, 6, 8, 10, 13]])
def test_other_numbers_in_the_first_line_are_data(first, tmp_path):
    lines = [",".join(map(str, first)), *(",".join(map(str, row)) for row in ROWS)]
    data = load_data(write(tmp_path / "x.csv", lines))
    assert sum(map(len, (data.train, data.validation, data.test))) == 41


def test_spaces_before_a_tab_and_a_name_are_the_delimiter(tmp_path):
    lines = [f'{a:.1f}   {b:8.3f}    {i}\t"car {i} of mine"' for i, (a, b) in enumerate(ROWS[:, :2])]
    data = load_data(write(tmp_path / "cars.data", lines))
    assert data.shape == (3,)
    assert "e.g. 'car 0 of mine'" in data.note


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("data_split", ["train", "test"]),
        ("Usage", ["Training", "PrivateTest"]),
        ("is_train", ["1", "0"]),
        ("is_test", ["False", "True"]),
        ("train", ["T", "F"]),
        ("Teilmenge", ["Trainingsdaten", "Testdaten"]),
    ],
)
def test_a_column_that_names_parts_divides_rows_and_strings(name, words, tmp_path):
    rows = [words[i % 4 == 3] for i in range(40)]
    table = write(
        tmp_path / "t.csv",
        [f"a,{name},b", *(f"{a},{word},{i}.5" for i, (a, word) in enumerate(zip(ROWS[:, 0], rows, strict=True)))],
    )
    data = load_data(table)
    assert sorted(data.test.x[:, 1].tolist()) == [i + 0.5 for i in range(40) if i % 4 == 3]
    assert data.columns == ("a", "b")
    assert f"parts by column '{name}'" in data.note
    strings = write(
        tmp_path / "s.csv",
        [f"smiles,{name}", *(f"{smiles},{word}" for (_, smiles), word in zip(PAIRS, rows, strict=True))],
    )
    found = read_strings(strings)
    assert found.test == [smiles for i, (_, smiles) in enumerate(PAIRS) if i % 4 == 3]
    assert f"parts by column '{name}'" in found.note


@pytest.mark.parametrize(
    ("name", "words"),
    [("train", ["1", "0"]), ("vehicle", ["train", "bus"]), ("is_new", ["1", "0"]), ("set", ["a", "b"])],
)
def test_a_column_that_names_none_divides_nothing(name, words, tmp_path):
    lines = [f"a,{name}", *(f"{a},{words[i % 4 == 3]}" for i, a in enumerate(ROWS[:, 0]))]
    assert "80/10/10 drawn" in load_data(write(tmp_path / "x.csv", lines)).note


def test_a_part_with_a_word_of_its_own_is_left_out(tmp_path):
    rows = [("train", "test", "test_scaffolds", "train_set")[i % 4] for i in range(40)]
    lines = ["smiles,split", *(f"{smiles},{word}" for (_, smiles), word in zip(PAIRS, rows, strict=True))]
    data = read_strings(write(tmp_path / "x.csv", lines))
    assert (len(data.train) + len(data.validation), len(data.test)) == (20, 10)
    assert "left out 10 rows of part 'test_scaffolds'" in data.note


TABLES = {
    "x.txt": ["a\tb\tlabel", *(f"{a}\t{b}\t{'xy'[i % 2]}" for i, (a, b) in enumerate(ROWS[:, :2]))],
    "iris.txt": [f"{a},{b},{('setosa', 'alba')[i % 2]}" for i, (a, b) in enumerate(ROWS[:, :2])],
    "fixed.txt": ["name       a       b", *(f"x{i:<6} {a:>7} {b:>7}" for i, (a, b) in enumerate(ROWS[:, :2]))],
    "r.txt": ['"a" "b" "Species"', *(f'"{i}" {a} {b} "x"' for i, (a, b) in enumerate(ROWS[:, :2]))],
    "tilde.csv": ["a~b", *(f"{a}~{b}" for a, b in ROWS[:, :2])],
    "caret.csv": ["a^b", *(f"{a}^{b}" for a, b in ROWS[:, :2])],
    "whole.csv": ['"a,b"', *(f'"{a},{b}"' for a, b in ROWS[:, :2])],
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_by_another_name_are_no_strings(name, tmp_path):
    path = write(tmp_path / name, TABLES[name])
    assert not is_strings(path)
    data = load_data(path)
    assert data.shape == (2,)
    rows = sorted(row for split in (data.train, data.validation, data.test) for row in split.x.tolist())
    assert np.allclose(rows, sorted(ROWS[:, :2].tolist()))


@pytest.mark.parametrize(
    "lines",
    [
        [f"{i} + {i + 1} = {2 * i + 1}" for i in range(30)],
        ["1 + 2 * 3", "x + 1 * 2", "2 + 2 / 1", "3 / 1 + 2"] * 5,
        [f"good film {i}\t{i % 2}" for i in range(30)],
        [f"{smiles} {i}.5" for i, (_, smiles) in enumerate(PAIRS)],
        [f"{i},{smiles},2.5" for i, (_, smiles) in enumerate(PAIRS)],
    ],
)
def test_lines_that_are_no_rows_are_strings(lines, tmp_path):
    assert is_strings(write(tmp_path / "x.txt", lines))


@pytest.mark.parametrize("name", ["subject_no", "Nr.", "sampleNo", "Patient number", "level_0"])
def test_a_column_of_running_numbers_is_none_of_the_data(name, tmp_path):
    lines = [f"{name},a,b", *(f"{i + 1},{a},{b}" for i, (a, b) in enumerate(ROWS[:, :2]))]
    data = load_data(write(tmp_path / "x.csv", lines))
    assert data.columns == ("a", "b")
    assert f"left out 1 column: {name} (row numbers" in data.note
    mixed = [f"{name},a,b", *(f"{i * 7 % 41},{a},{b}" for i, (a, b) in enumerate(ROWS[:, :2]))]
    assert load_data(write(tmp_path / "x.csv", mixed)).columns == (name, "a", "b")


def test_a_table_without_names_beside_one_with_them_is_told(tmp_path):
    rows = [",".join(map(str, row[:2])) for row in ROWS]
    write(tmp_path / "train.csv", ["a,b", *rows])
    write(tmp_path / "test.csv", rows)
    assert "test.csv names no columns: taken to be in the order of the others" in load_data(tmp_path).note


def test_a_refusal_of_few_examples_says_what_was_read(tmp_path):
    frames = [Image.fromarray(np.full((8, 8), 20 * i, np.uint8)) for i in range(5)]
    frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:])
    with pytest.raises(DataError, match=r"\(of 1 animation the first frame\): 1 example to divide into 3 parts"):
        load_data(tmp_path)


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("x.xlsx", "save its sheet as CSV"),
        ("x.jsonl", "convert it to CSV or parquet"),
        ("x.pkl", "pickles can run code, and are never read"),
        ("x.sdf", "write its molecules as SMILES"),
        ("x.mat", "scipy.io.loadmat reads it"),
        ("x.xyz", "convert it"),
    ],
)
def test_other_formats_come_with_a_way_on(name, remedy, tmp_path):
    (tmp_path / name).write_bytes(b"x")
    assert not is_strings(tmp_path / name)
    with pytest.raises(DataError, match=remedy):
        load_data(tmp_path / name)
