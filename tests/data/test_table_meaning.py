"""What the cells of a table mean: numbers however written, headers, delimiters, labels, row numbers, parts.

Each case is one of a kind of table that people bring; the numbers are compared, not only that something was read.
"""

from __future__ import annotations

import decimal
import gzip

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from expost.data import load_data, load_examples
from expost.errors import DataError, UsageError

N = 30
A = [round(np.sin(i) * 3, 3) for i in range(N)]  # a measured quantity
ONE_TO_N = [float(i + 1) for i in range(N)]


def table(path, header, row, *, encoding="utf-8", above=""):
    lines = [header] * bool(header) + [row(i) for i in range(N)]
    path.write_bytes((above + "\n".join(lines) + "\n").encode(encoding))
    return path


def in_order(path):
    """Return all rows in the order of the file."""
    return load_examples(path).double().numpy()


def refused(path, message, **options):
    with pytest.raises((DataError, UsageError), match=message) as caught:
        load_data(path, **options)
    assert "\n" not in str(caught.value)


# --- cells ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mark", "others", "said"),
    [
        ("-999", lambda i: A[i], True),
        ("9999.0", lambda i: i, True),
        ("-1", lambda i: i % 3 / 10, True),
        ("-1", lambda i: i, False),  # one of a scale
        ("-1", lambda i: 1, False),  # one of two
        ("999", lambda i: 900 + 4 * i, False),
    ],
)
def test_a_number_that_may_mark_missing_values_is_named(mark, others, said, tmp_path):
    path = table(tmp_path / "x.csv", "a,b,c", lambda i: f"{A[i]},{mark if i % 7 == 3 else others(i)},{i * i}")
    note = load_data(path).note
    assert ("if that stands for a missing value" in note) is said
    assert not said or f"far from all other values: {int(float(mark))} in 'b'; if" in note


@pytest.mark.parametrize(
    ("width", "top", "shape"), [(64, 255, "8, 8"), (300, 255, "3, 10, 10"), (65, 255, ""), (64, 99, ""), (64, 256, "")]
)
def test_rows_that_may_be_images_are_said_to(width, top, shape, tmp_path):
    x = np.random.default_rng(0).integers(0, top + 1, (N, width))
    x[:, 0] = top
    np.save(tmp_path / "x.npy", x)
    note = load_data(tmp_path / "x.npy").note
    assert (f"save x.reshape(-1, {shape}) as uint8" in note) is bool(shape)
    assert bool(shape) is ("rows may be images" in note)
    np.save(tmp_path / "half.npy", x + 0.5)
    assert "rows may be images" not in load_data(tmp_path / "half.npy").note


@pytest.mark.parametrize("cell", ["?", ".", "<NA>", "None", "unknown", "n/d", "<0.1", "1,2,3", "-", "12 cm", "#DIV/0!"])
def test_a_cell_that_is_no_number_is_refused_by_column_row_and_cell(cell, tmp_path):
    path = table(tmp_path / "x.tsv", "a\tb\tc", lambda i: f"{A[i]}\t{cell if i == 7 else A[-i]}\t{i * i}")
    refused(path, r"x.tsv: 1 of 30 values of 'b' is no number \('.*' in row 7, counted from 0\); correct or fill in")
    with pytest.raises(DataError) as caught:
        load_data(path)
    assert repr(cell) in str(caught.value)


@pytest.mark.parametrize(
    ("header", "row", "value", "said"),
    [
        ("p,a", lambda i: f'"{i + 1},000",{A[i]}', lambda i: (i + 1) * 1000, "read '1,000' in 'p' as 1000"),
        ("p,a", lambda i: f'"{i + 1},234,567.5",{A[i]}', lambda i: (i + 1) * 1e6 + 234567.5, "as 1.23457e+06"),
        ("p,a", lambda i: f'"1{i},34,567",{A[i]}', lambda i: float(f"1{i}34567"), "read '10,34,567' in 'p'"),
        ("p;a", lambda i: f"{i},5;{A[i]}".replace(".", ","), lambda i: i + 0.5, "read '0,5' in 'p' as 0.5"),
        (
            "p;a",
            lambda i: f"{i + 1}.234,5;{A[i]}".replace("234,5;0.0", "234,5;0"),
            lambda i: i * 1000 + 1234.5,
            "1.234,5",
        ),
        ("p,a", lambda i: f"{i + 1} 234,{A[i]}", lambda i: i * 1000 + 1234, "read '1 234' in 'p' as 1234"),
        ("p,a", lambda i: f"{i + 1}\u202f234.5,{A[i]}", lambda i: i * 1000 + 1234.5, "in 'p' as 1234.5"),
        ("p,a", lambda i: f"{i + 1}'234,{A[i]}", lambda i: i * 1000 + 1234, "in 'p' as 1234"),
        ("p,a", lambda i: f"{i}%,{A[i]}", lambda i: i, "read '0%' in 'p' as 0"),
        ("p,a", lambda i: f"${i}.50,{A[i]}", lambda i: i + 0.5, "read '$0.50' in 'p' as 0.5"),
        ("p,a", lambda i: f"-€{i + 1},{A[i]}", lambda i: -i - 1, "read '-€1' in 'p' as -1"),
        ("p;a", lambda i: f"{i},50 €;{A[i]}", lambda i: i + 0.5, "read '0,50 €' in 'p' as 0.5"),
        ("p,a", lambda i: f"\u2212{i + 1}.5,{A[i]}", lambda i: -i - 1.5, "in 'p' as -1.5"),
        ("p,a", lambda i: f"({i + 1}.5),{A[i]}", lambda i: -i - 1.5, "read '(1.5)' in 'p' as -1.5"),
        ("p,a", lambda i: f"1.{i}D+02,{A[i]}", lambda i: float(f"1.{i}e2"), "read '1.0D+02' in 'p' as 100"),
        ("p,a", lambda i: f" 0{i} ,{A[i]}", lambda i: i, ""),
    ],
)
def test_numbers_are_read_however_they_are_written(header, row, value, said, tmp_path):
    path = table(tmp_path / "x.csv", header, row)
    assert in_order(path)[:, 0] == pytest.approx([value(i) for i in range(N)], rel=1e-6)
    data = load_data(path)
    assert data.columns == ("p", "a")
    assert said in data.note


@pytest.mark.parametrize(
    ("header", "row", "message"),
    [
        ("a;b", lambda i: f"{i + 1},{i:03d};{i}", "'1,000' in 'a' could be 1000 or 1.000; write it without a comma"),
        ("a;b", lambda i: f"{i + 1}.{i:03d};0,{i}", "'a' has .* beside decimal commas in other columns"),
        (
            "a;b",
            lambda i: f"{i + 1}.{i:03d} €;0,{i}",
            "'a' has .* beside decimal commas in other columns: a point could",
        ),
        (
            "a;b",
            lambda i: f"{i + 1}.{i:03d}{' %' * (i > 3)};0,{i}",
            "'a' has .* beside decimal commas in other columns",
        ),
        (
            "a;b",
            lambda i: f"{f'{i + 1}.234' if i % 2 else '5 $'};0,{i}",
            "'a' has 2.234 beside decimal commas in other",
        ),
        (
            "a;b",
            lambda i: f"{i + 1}.234{'.567' * (i % 2)} €;{i}",
            "'a' has 1.234 beside 2.234.567: a point could stand",
        ),
        (
            "a;b",
            lambda i: f"{'1,5' if i else '1,234,567'};{i}",
            "'a' holds '1,234,567' and '1,5', with commas of two kinds",
        ),
        ("a,b", lambda i: f"{'$€'[i % 2]}{i},{i}", "'a' holds amounts in . and .; convert them to one"),
        ("a,b", lambda i: f"{i} kg,{i}", "30 of 30 values of 'a' are no numbers ..0 kg. in row 0"),
        ("a,b", lambda i: f"{'inf' if i == 4 else i},{i}", "inf in row 4, counted from 0, of column 'a'"),
    ],
)
def test_numbers_that_could_be_others_are_refused(header, row, message, tmp_path):
    refused(table(tmp_path / "x.csv", header, row), message)


def test_commas_that_other_columns_settle(tmp_path):
    path = table(tmp_path / "x.csv", "a;b", lambda i: f"{i + 1},250;{i}.5")
    assert in_order(path)[:, 0].tolist() == [1000 * (i + 1) + 250 for i in range(N)]
    path = table(tmp_path / "x.csv", "a;b", lambda i: f"{i + 1},250;{i},5")
    assert in_order(path)[:, 0].tolist() == [i + 1.25 for i in range(N)]


def test_columns_of_a_census_are_told_one_by_one(tmp_path):
    def row(i):
        dates = f"19{50 + i}-01-02,202401{i % 28 + 1:02d}"
        return f"{20 + i},{['Private', 'State'][i % 2]},{'MF'[i % 2]},0{1000 + i},{dates},P{i},"

    data = load_data(table(tmp_path / "x.csv", "age,work,sex,zip,born,seen,id,note", row))
    assert data.columns == ("age",)
    for said in (
        "rows of 1 number (age)",
        "left out 7 columns",
        "work (text, 2 values, e.g. 'Private')",
        "sex (text, 2 values, e.g. 'M')",
        "zip (codes, e.g. '01000')",
        "born (dates, e.g. '1950-01-02')",
        "seen (dates)",
        "id (text, all different, e.g. 'P0')",
        "note (empty)",
    ):
        assert said in data.note


@pytest.mark.parametrize(
    ("header", "cell", "why"),
    [
        ("index", lambda i: i, "index (row numbers, 0 to 29)"),
        ("", lambda i: (7 * i) % N + 100, "(unnamed) (row numbers, 100 to 129)"),
        ("Unnamed: 0", lambda i: 3 * i, "Unnamed: 0 (row numbers, 0 to 87)"),
        ("PassengerId", lambda i: i + 1, "PassengerId (row numbers, 1 to 30)"),
        ("patient_id", lambda i: 1000 + 17 * i, "patient_id (numbers of the rows, all different, 1000 to 1493)"),
        ("index", lambda i: 99 + A[i], ""),  # a stock index, a refractive index
        ("index", lambda i: 4500 + (37 * i) % 91, ""),
        ("id", lambda i: i % 5, ""),
        ("day", lambda i: i, ""),
        ("humid", lambda i: i, ""),
        ("valid", lambda i: i, ""),
    ],
)
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_row_numbers_are_left_out_and_said_and_measured_columns_are_kept(header, cell, why, suffix, tmp_path):
    path = tmp_path / f"x{suffix}"
    if suffix == ".csv":
        table(path, f"{header},a", lambda i: f"{cell(i)},{A[i]}")
    else:
        pq.write_table(pa.table({header: [cell(i) for i in range(N)], "a": A}), path)
    data = load_data(path)
    assert data.columns == (("a",) if why else (header, "a"))
    assert (f"left out 1 column: {why}" in data.note) is bool(why)


def test_numbers_in_parquet_of_every_type(tmp_path):
    columns = {
        "decimal": pa.array([decimal.Decimal(f"{i}.25") for i in range(N)], pa.decimal128(10, 2)),
        "text": [f"{i},000.5" if i else "0.5" for i in range(N)],
        "small": pa.array(range(N), pa.int8()),
        "half": pa.array(np.arange(N, dtype=np.float16)),
        "when": pa.array(range(N), pa.timestamp("s")),
        "kind": pa.array(["u", "v"] * 15).dictionary_encode(),
        "nothing": pa.nulls(N),
    }
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    data = load_data(tmp_path / "x.parquet")
    assert data.columns == ("decimal", "text", "small", "half")
    x = in_order(tmp_path / "x.parquet")
    assert x[3].tolist() == [3.25, 3000.5, 3, 3]
    assert "kind (text, 2 values, e.g. 'u'), nothing (empty), when (dates)" in data.note
    pq.write_table(pa.table({"a": A, "b": [*["1.5"] * 29, "?"]}), tmp_path / "x.parquet")
    refused(tmp_path / "x.parquet", "1 of 30 values of 'b' is no number .'.' in row 29")


# --- header, delimiter, encoding -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "row", "columns", "said"),
    [
        ("a;b", lambda i: f"{A[i]};{i}", ("a", "b"), "separated by semicolons"),
        ("a|b", lambda i: f"{A[i]}|{i}", ("a", "b"), "separated by bars"),
        ("a\tb", lambda i: f"{A[i]}\t{i}", ("a", "b"), "separated by tabs"),
        ("a  b", lambda i: f" {A[i]}   {i}", ("a", "b"), "separated by spaces"),
        ('"a","b, c"', lambda i: f'"{A[i]}","{i}"', ("a", "b, c"), ""),
        ("a, b", lambda i: f"{A[i]}, {i}", ("a", "b"), ""),
        ("", lambda i: f"{A[i]},{i}", ("f0", "f1"), ""),
        ("", lambda i: "0,1,2" if i == 0 else f"{A[i]},{A[-i]},{i}.5", ("f0", "f1", "f2"), ""),  # a row, not names
        ("", lambda i: f"{A[i]},{i},{'?' if i == 0 else 'xy'[i % 2]}", ("f0", "f1"), "line 1 holds no names"),
        ("", lambda i: f"{A[i]},{i},iris {'uv'[i % 2]}", ("f0", "f1"), "labels: column 'f2', 2 classes"),
        (
            "town,2019,2020",
            lambda i: f"t{i}x,{A[i]},{i}",
            ("2019", "2020"),
            "line 1 (town, 2019, 2020) taken for names",
        ),
        ("0,1,2,3", lambda i: f"{A[i]},{i},1.5,{i}", ("0", "1", "2", "3"), "taken for names"),
        ("2019,2020", lambda i: f"{A[i]},{A[-i]}", ("2019", "2020"), "line 1 (2019, 2020, ...) taken for names"),
        ("a,b", lambda i: f"r{i},{A[i]},{i}", ("a", "b"), "(unnamed) (text, all different, e.g. 'r0')"),  # as R writes
        ("a,b", lambda i: f"{A[i]},{i},", ("a", "b"), "left out 1 column: (unnamed) (empty)"),
        ("# made by X\n# in cm\na,b", lambda i: f"{A[i]},{i}", ("a", "b"), "skipped 2 lines of comments at the top"),
        ("# a b", lambda i: f"{A[i]} {i}", ("a", "b"), "columns named by the comment above"),  # as NumPy writes
        ("Made by: X\nOn: Monday\n\na,b", lambda i: f"{A[i]},{i}", ("a", "b"), "skipped 2 lines above the table (Made"),
        ("sep=;\na;b", lambda i: f"{A[i]};{i}", ("a", "b"), "separated by semicolons"),
    ],
)
def test_headers_and_delimiters_are_recognized(header, row, columns, said, tmp_path):
    path = table(tmp_path / "x.csv", header, row)
    data = load_data(path)
    assert data.columns == columns
    assert in_order(path)[:, 0] == pytest.approx(A, abs=1e-6)
    assert len(data.train) + len(data.validation) + len(data.test) == N
    assert said in data.note


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("name", ["x.csv", "x.tsv", "x.txt", "x.data"])
def test_encodings_are_recognized(encoding, name, tmp_path):
    path = table(tmp_path / name, "a\tb", lambda i: f"{A[i]}\t{i}", encoding=encoding)
    assert load_data(path).columns == ("a", "b")
    assert in_order(path)[:, 0] == pytest.approx(A, abs=1e-6)
    assert (f"read as {encoding[:6].upper()}" in load_data(path).note) is not encoding.startswith("utf-8")


@pytest.mark.parametrize(
    ("header", "row", "widths"),
    [
        (
            "time,temp",
            lambda i: f"{i},21,{i % 7}",
            "line 2: 3 of 2 columns; line 1 has 2; quote cells with commas",
        ),
        (
            "temp,time",
            lambda i: f"{i % 5},{i % 7},{i}",
            "line 2: 3 of 2 columns; line 1 has 2; quote cells with commas",
        ),
        (
            "height,weight",
            lambda i: f"1,{70 + i},60,{i % 9}",
            "line 2: 4 of 2 columns; line 1 has 2; quote cells with commas",
        ),
        (
            "name,height,weight",
            lambda i: f"p{i},1,{70 + i},60,0",
            "line 2: 5 of 3 columns; line 1 has 3; quote cells with commas",
        ),
        (
            "price",
            lambda i: f"{i},{i % 9}",
            "line 2: 2 of 1 columns; line 1 has 1; quote cells with commas",
        ),
        ("a,b,c,d", lambda i: f"{i},{A[i]}", "line 2: 2 of 4 columns; complete or remove"),
        (
            "My data\nx,y",
            lambda i: f"{i},21,{i % 7}",
            "line 3: 3 of 2 columns; line 2 has 2; quote cells with commas",
        ),
        (
            "a;b",
            lambda i: f"{i};{A[i]};{A[i]};{i}",
            "line 2: 4 of 2 columns; line 1 has 2; quote cells with semicolons",
        ),
    ],
)
def test_a_header_of_another_width_is_refused(header, row, widths, tmp_path):
    refused(table(tmp_path / "x.csv", header, row), widths)


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ('"a","b"', lambda i: f'"{i + 1}",{A[i]},{i}'),  # as R writes it
        ("a b", lambda i: f"{i + 1} {A[i]} {i}"),
        ("a\tb", lambda i: f"{3 * i}\t{A[i]}\t{i}"),
        ("a,b", lambda i: f"{A[i]},{i},"),
        ("My data of 2024\na,b", lambda i: f"{A[i]},{i}"),
        ("My data, of mine,\na,b", lambda i: f"{A[i]},{i}"),
    ],
)
def test_names_of_rows_ends_of_rows_and_titles_are_told_from_numbers(header, row, tmp_path):
    path = table(tmp_path / "x.csv", header, row)
    assert load_data(path).columns == ("a", "b")
    np.testing.assert_allclose(in_order(path), np.stack([A, np.arange(N)], axis=1), rtol=1e-6)


def test_what_is_no_table_is_named(tmp_path):
    refused(
        table(tmp_path / "x.csv", "größe,b", lambda i: f"{i},{i}", encoding="latin-1"),
        "'ö' in Latin-1.; save it as UTF-8",
    )
    for text, what in (
        ("<!DOCTYPE html>\n<html>", "is a page of HTML"),
        ('{"a": [1, 2]}', "is JSON"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a pointer of Git LFS"),
    ):
        (tmp_path / "x.csv").write_text(text)
        refused(tmp_path / "x.csv", what)
    miscounted = table(tmp_path / "x.csv", "7,4,setosa,virginica", lambda i: f"{A[i]},2,3,4,{i % 2}")
    assert "skipped 1 line above the table (7 4 setosa virginica)" in load_data(miscounted).note
    mixed = table(tmp_path / "x.csv", "30,4.5,b,c", lambda i: f"{i},2,3,4")
    refused(mixed, "line 1 is neither names nor numbers: '30' is a number, 'b' stands above numbers")


@pytest.mark.parametrize("wide", [True, False])  # as many cells as the rows have, or fewer
def test_a_first_line_that_counts_names_the_classes(wide, tmp_path):
    features = 2 if wide else 5
    header = f"{N},{features},u,v" if not wide else f"{N},{features},u"
    path = table(tmp_path / "x.csv", header, lambda i: ",".join([str(A[i])] * features) + f",{i % (1 if wide else 2)}")
    data = load_data(path)
    assert data.columns == tuple(f"f{i}" for i in range(features))
    assert data.classes == (("u",) if wide else ("u", "v"))
    assert f"line 1 counts 30 rows and {features} columns" in data.note
    assert in_order(path)[:, 0] == pytest.approx(A, abs=1e-6)


def test_comments_among_rows_are_counted_and_a_column_called_hash_is_none(tmp_path):
    data = load_data(table(tmp_path / "x.csv", "a,b", lambda i: "# paused" if i == 9 else f"{A[i]},{i}"))
    assert len(data.train) + len(data.validation) + len(data.test) == N - 1
    assert "skipped 1 comment line among the rows" in data.note
    data = load_data(table(tmp_path / "x.csv", "#,name,hp", lambda i: f"{i},n{i}x,{A[i]}"))
    assert data.columns == ("hp",)
    assert len(data.train) + len(data.validation) + len(data.test) == N
    colors = table(tmp_path / "x.csv", "", lambda i: f"#ff00{i:02d},{A[i]},{i}")
    assert in_order(colors)[:, 0] == pytest.approx(A, abs=1e-6)


def test_gzipped_tables_are_read(tmp_path):
    text = "a,b\n" + "\n".join(f"{A[i]},{i}" for i in range(N))
    (tmp_path / "x.csv.gz").write_bytes(gzip.compress(text.encode()))
    assert in_order(tmp_path / "x.csv.gz")[:, 0] == pytest.approx(A, abs=1e-6)


@pytest.mark.parametrize("name", ["sequence", "text", "string", "SMILES", "expression"])
def test_a_column_with_the_name_of_strings_that_holds_numbers_is_one_of_numbers(name, tmp_path):
    path = table(tmp_path / "x.csv", f"{name},a", lambda i: f"{i // 3},{A[i]}")
    assert load_data(path).columns == (name, "a")


# --- several tables ---------------------------------------------------------------------------------------------------


def write(path, columns):
    if path.suffix == ".parquet":
        pq.write_table(pa.table(columns), path)
    else:
        rows = zip(*columns.values(), strict=True)
        path.write_text("\n".join(",".join(map(str, row)) for row in [columns, *rows]))


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_shards_are_joined_by_name_and_whole_numbers_with_fractions(suffix, tmp_path):
    write(tmp_path / f"p0{suffix}", {"a": [1, 2, 3], "b": [4.5, 5.5, 6.5]})
    write(tmp_path / f"p1{suffix}", {"b": [7, 8, 9], "a": [1.5, 2.5, 3.5]})
    assert in_order(tmp_path).tolist() == [[1, 4.5], [2, 5.5], [3, 6.5], [1.5, 7], [2.5, 8], [3.5, 9]]
    write(tmp_path / f"p1{suffix}", {"b": [7, 8, 9], "c": [1.5, 2.5, 3.5]})
    refused(tmp_path, rf"p1{suffix} has other columns than .*p0{suffix}: it lacks 'a' and has 'c' besides; give files")


def test_parquet_shards_of_two_kinds_are_refused_by_column(tmp_path):
    write(tmp_path / "p0.parquet", {"a": [1, 2, 3], "b": [1, 2, 3]})
    write(tmp_path / "p1.parquet", {"a": [1, 2, 3], "b": ["x", "y", "z"]})
    refused(tmp_path, "p1.parquet has text in column 'b', .*p0.parquet has numbers; give files of one kind")


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_parts_are_joined_by_name_and_a_column_that_lacks_is_named(suffix, tmp_path):
    write(tmp_path / f"train{suffix}", {"a": [1.0] * 9, "b": [2.0] * 9, "Survived": [0, 1, 0] * 3})
    write(tmp_path / f"test{suffix}", {"Survived": [1] * 3, "b": [2.0] * 3, "a": [1.0] * 3})
    data = load_data(tmp_path)
    assert data.columns == ("a", "b", "Survived")
    assert data.test.x[0].tolist() == [1, 2, 1]
    write(tmp_path / f"test{suffix}", {"b": [2.0] * 3, "a": [1.0] * 3})
    refused(tmp_path, rf"test{suffix} lacks the column 'Survived' of .*train{suffix}; .*--label-column")
    named = load_data(tmp_path, label_column="survived")
    assert named.columns == ("a", "b")
    assert named.test.x[0].tolist() == [1, 2]
    assert named.test.y is None


@pytest.mark.parametrize("header", ["a,label,label", "a,Label,label", "a,target,TARGET"])
def test_labels_that_stand_twice_are_refused(header, tmp_path):
    refused(
        table(tmp_path / "x.csv", header, lambda i: f"{A[i]},{i % 2},{i % 2}"), "2 columns are called '.*'; keep one"
    )


# --- labels and parts -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "cell", "classes", "said"),
    [
        (
            "target",
            lambda i: (37 * i) % 101 + 20,
            None,
            "'target' kept as numbers, not as labels: 30 values in 30 rows",
        ),
        ("y", lambda i: 151.0 + i, None, "'y' kept as numbers, not as labels"),
        ("target", lambda i: A[i], None, "'target' kept as numbers: it holds fractions, as "),
        ("class", lambda i: A[i], None, "'class' kept as numbers: it holds fractions, as "),
        ("target", lambda i: i % 3, 3, "labels: column 'target', 3 classes"),
        (" label", lambda i: i % 2, 2, "labels: column 'label', 2 classes"),
        ("Species", lambda i: "uv"[i % 2], 2, "labels: column 'Species', 2 classes"),
        ("label", lambda i: i // 2, 15, "labels: column 'label', 15 classes"),
        ("price", lambda i: i % 3, None, "rows of 2 numbers (a, price)"),
    ],
)
def test_labels_are_what_is_called_so_and_has_few_values(header, cell, classes, said, tmp_path):
    data = load_data(table(tmp_path / "x.csv", f"a,{header}", lambda i: f"{A[i]},{cell(i)}"))
    assert said in data.note
    assert data.columns == (("a", header) if classes is None else ("a",))
    found = [split.y for split in (data.train, data.validation, data.test)]
    assert (found[0] is None) is (classes is None)
    if classes is not None:
        assert len({label for y in found for label in y.tolist()}) == classes


def test_a_class_of_every_row_is_none(tmp_path):
    data = load_data(table(tmp_path / "x.csv", "a,class", lambda i: f"{A[i]},n{i}"))
    assert data.train.y is None
    assert "'class' left out, not as labels: 30 values in 30 rows (--label-column overrules)" in data.note


def test_the_label_column_can_be_named_or_refused(tmp_path):
    path = table(tmp_path / "x.csv", "a,kind,target", lambda i: f"{A[i]},{'uv'[i % 2]},{i // 2}")
    assert load_data(path, label_column=" KIND ").classes == ("u", "v")
    assert load_data(path, label_column="kind").columns == ("a", "target")
    assert len(set(load_data(path, label_column="target").train.y.tolist())) > 10
    none = load_data(path, label_column="none")
    assert none.columns == ("a", "target")
    assert none.train.y is None
    refused(path, "x.csv has no column 'sort'; its columns: a, kind, target", label_column="sort")
    refused(path, "column 'a' holds fractions, as .*, no classes; name another column", label_column="a")
    np.save(tmp_path / "x.npy", np.zeros((9, 2)))
    refused(
        tmp_path / "x.npy",
        "label_column is for parquet .*, and .*x.npy holds NumPy arrays",
        label_column="a",
    )
    refused("digits", "label_column is for files and folders, and digits is a named set", label_column="a")


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_column_of_parts_divides_the_rows(suffix, tmp_path):
    words = ["Train", "train", "val", "test", "extra"]
    write(tmp_path / f"x{suffix}", {"a": ONE_TO_N, "Split": words * 6, "label": [0, 1] * 15})
    data = load_data(tmp_path / f"x{suffix}")
    for split, rests in ((data.train, (1, 2)), (data.validation, (3,)), (data.test, (4,))):
        assert split.x[:, 0].tolist() == [i for i in ONE_TO_N if i % 5 in rests]
        assert split.y.tolist() == [(int(i) - 1) % 2 for i in split.x[:, 0]]
    assert data.columns == ("a",)
    assert "left out 1 column: Split (it names the parts)" in data.note
    assert "parts by column 'Split'; left out 6 rows of part 'extra'" in data.note


def test_a_column_called_split_without_a_training_part_is_text_and_one_of_numbers_is_kept(tmp_path):
    data = load_data(table(tmp_path / "x.csv", "a,split", lambda i: f"{A[i]},{'uv'[i % 2]}"))
    assert "left out 1 column: split (text, 2 values, e.g. 'u')" in data.note
    assert load_data(table(tmp_path / "x.csv", "a,split", lambda i: f"{A[i]},{i % 2}")).columns == ("a", "split")


@pytest.mark.parametrize("names", ["x,y,z", "X,Y,Z", "x,Y,z", "X,y,Z"])
def test_coordinates_are_no_labels_in_any_case(names, tmp_path):
    path = table(tmp_path / "x.csv", names, lambda i: f"{A[i]},{i % 3},{A[-i]}")
    assert load_data(path).columns == tuple(names.split(","))


def test_a_y_without_an_x_still_labels(tmp_path):
    data = load_data(table(tmp_path / "x.csv", "a,Y", lambda i: f"{A[i]},{i % 3}"))
    assert data.columns == ("a",)


@pytest.mark.parametrize("cells", ["cd", "34"])
@pytest.mark.parametrize("gap", ["", "  "])
def test_empty_labels_are_missing_whether_others_are_text_or_numbers(cells, gap, tmp_path):
    path = table(tmp_path / "x.csv", "a,label", lambda i: f"{A[i]},{gap if i in (3, 8) else cells[i % 2]}")
    refused(path, "2 labels are missing; fill them in or drop those rows")


@pytest.mark.parametrize("name", ["id", "index", "no", "patient_id"])
def test_a_column_kept_in_the_first_part_is_kept_in_all(name, tmp_path):
    table(tmp_path / "train.csv", f"{name},a", lambda i: f"{i // 2},{A[i]}")
    table(tmp_path / "test.csv", f"{name},a", lambda i: f"{i},{A[i]}")
    data = load_data(tmp_path)
    assert data.columns == (name, "a")
    np.testing.assert_allclose(data.test.x[:, 0].numpy(), np.arange(N))


def test_two_arrays_of_one_name_in_hdf5_are_refused(tmp_path):
    h5py = pytest.importorskip("h5py")
    for first, second in (("x", "X"), ("a/b", "a_b"), ("G/x", "g/X")):
        path = tmp_path / "x.h5"
        with h5py.File(path, "w") as file:
            file[first] = np.ones((8, 2))
            file[second] = np.zeros((8, 2))
        refused(path, f"two arrays named {first.replace('/', '_').lower()}; keep one")
