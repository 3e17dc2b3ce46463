"""Columns of parquet, Feather and `datasets` folders: strings, images with several labels, and names of classes."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import Image

from expost.data import load_data
from expost.data.drugs import DRUGS
from expost.data.strings import is_strings, read_strings
from expost.errors import DataError, UsageError

pa = pytest.importorskip("pyarrow")
import pyarrow.feather as feather  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402

NAMES, MOLECULES = zip(*[(name, smiles) for name, smiles in DRUGS if len(smiles) < 60][:60], strict=True)


def everything(data):
    return sorted({*data.train, *data.validation, *data.test})


def write_stream(table, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=7)
    return path


WRITERS = {
    "x.parquet": lambda table, path: pq.write_table(table, path, row_group_size=7),
    "x.pq": pq.write_table,
    "x.feather": feather.write_feather,
    "x.arrow": write_stream,
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_column_of_smiles_is_found_as_in_a_csv(name, tmp_path):
    cells = [None if i % 6 == 0 else f" {smiles} " for i, smiles in enumerate(MOLECULES)]
    table = pa.table(
        {"id": range(60), "mol": pa.array(cells).dictionary_encode(), "name": NAMES, "fp": [[1.0, 2.0]] * 60}
    )
    path = tmp_path / name
    WRITERS[name](table, path)
    assert is_strings(path)
    data = read_strings(path)
    assert data.domain == "molecules"
    assert everything(data) == sorted({MOLECULES[i] for i in range(60) if i % 6})
    for said in ("column 'mol'", "left out 3 columns: id, name, fp", "left out 10 of 60 rows, without a string"):
        assert said in data.note
    assert everything(read_strings(path, column="NAME")) == sorted(NAMES)
    with pytest.raises(UsageError, match=r"has no column 'smile'; its columns: id, mol, name, fp"):
        read_strings(path, column="smile")
    with pytest.raises(DataError, match=r"column 'fp' holds values of type list.*, no strings; name another column"):
        read_strings(path, column="fp")
    with pytest.raises(UsageError, match="holds strings; read them with"):
        load_data(path)


def test_what_a_table_of_strings_holds_is_that_of_the_same_csv(tmp_path):
    rows = [
        f"{name},{smiles},{'train' if i < 40 else 'test'}\n"
        for i, (name, smiles) in enumerate(zip(NAMES, MOLECULES, strict=True))
    ]
    (tmp_path / "x.csv").write_text("name,smiles,fold_set\n" + "".join(rows))
    parts = ["train"] * 40 + ["test"] * 20
    pq.write_table(pa.table({"name": NAMES, "smiles": MOLECULES, "fold_set": parts}), tmp_path / "x.parquet")
    ours, theirs = read_strings(tmp_path / "x.parquet"), read_strings(tmp_path / "x.csv")
    assert (ours.train, ours.validation, ours.test) == (theirs.train, theirs.validation, theirs.test)
    assert ours.note.replace("x.parquet", "x.csv") == theirs.note
    assert "parts by column 'fold_set'; left out 1 column: name" in ours.note or (
        "left out 1 column: name; parts by column 'fold_set'" in ours.note
    )
    assert len(ours.test) == 20


def test_folders_of_tables_have_the_parts_that_their_names_say(tmp_path):
    for shard in range(2):
        chosen = NAMES[20 * shard : 20 * shard + 20]
        table = pa.table({"text": chosen, "label": [0] * 20})
        (tmp_path / "hub" / "data").mkdir(parents=True, exist_ok=True)
        pq.write_table(table, tmp_path / "hub" / "data" / f"train-{shard:05}-of-00002.parquet")
        write_stream(table, tmp_path / "saved" / "train" / f"data-{shard:05}-of-00002.arrow")
    last = pa.table({"label": [1] * 20, "text": NAMES[40:]})
    pq.write_table(last, tmp_path / "hub" / "data" / "test-00000-of-00001.parquet")
    write_stream(last, tmp_path / "saved" / "test" / "data-00000-of-00001.arrow")
    (tmp_path / "hub" / "README.md").write_text("---\n")
    (tmp_path / "saved" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    for folder in ("hub", "saved"):
        assert is_strings(tmp_path / folder)
        data = read_strings(tmp_path / folder)
        assert data.test == list(NAMES[40:])
        assert sorted([*data.train, *data.validation]) == sorted(NAMES[:40])
        assert "left out 1 column: label" in data.note


@pytest.mark.parametrize(
    "table",
    [
        {"a": [1.0] * 9, "text": range(9)},
        {"a": [1.0] * 9, "kind": ["u", "v", "w"] * 3},
        {"image": [{"bytes": b"x", "path": None}] * 9, "caption": ["a b"] * 9, "text": ["c"] * 9},
    ],
)
def test_tables_of_numbers_and_of_images_are_none_of_strings(table, tmp_path):
    pq.write_table(pa.table(table), tmp_path / "x.parquet")
    assert not is_strings(tmp_path / "x.parquet")


def test_a_shard_without_the_column_is_named(tmp_path):
    pq.write_table(pa.table({"text": NAMES}), tmp_path / "train.parquet")
    pq.write_table(pa.table({"sentence": NAMES}), tmp_path / "val.parquet")
    with pytest.raises(DataError, match=r"val.parquet lacks the column 'text' that .*train.parquet has"):
        read_strings(tmp_path)


def images(count, names, **columns):
    """Return a table of images as `datasets` writes it, with the names of the classes of some columns."""
    cells = []
    for index in range(count):
        buffer = io.BytesIO()
        Image.fromarray(np.full((8, 8), 6 * index, np.uint8)).save(buffer, "PNG")
        cells.append({"bytes": buffer.getvalue(), "path": None})
    features = {name: {"names": list(given), "_type": "ClassLabel"} for name, given in names.items()}
    info = json.dumps({"info": {"features": {"img": {"_type": "Image"}, **features}}})
    return pa.table({"img": cells, **columns}).replace_schema_metadata({"huggingface": info})


FINE, COARSE = ("pug", "siamese", "tabby"), ("dog", "cat")


@pytest.fixture(params=["x.parquet", "x.arrow"])
def animals(request, tmp_path):
    table = images(
        36,
        {"fine": FINE, "coarse": COARSE},
        fine=[i % 3 for i in range(36)],
        coarse=[int(i % 3 > 0) for i in range(36)],
        url=["http://x"] * 36,
    )
    WRITERS[request.param](table, tmp_path / request.param)
    return tmp_path / request.param


def test_of_several_columns_of_classes_none_is_taken_unasked(animals):
    data = load_data(animals)
    assert data.train.y is None
    assert "no labels: fine and coarse hold classes (--label-column takes one)" in data.note
    assert "left out 3 columns: fine, coarse, url" in data.note


@pytest.mark.parametrize(("column", "names"), [("fine", FINE), ("COARSE", COARSE)])
def test_classes_keep_their_numbers_and_show_their_names(animals, column, names):
    data = load_data(animals, label_column=column)
    assert data.classes == names  # in the order of their numbers, which is not the alphabet's
    for split in (data.train, data.validation, data.test):
        shades = (split.x[:, 0, 0, 0].numpy() // 6).astype(int)
        expected = shades % 3 if column == "fine" else (shades % 3 > 0).astype(int)
        assert split.y.tolist() == expected.tolist()
    assert f"labels: column '{column.lower()}'" in data.note
    assert "pug (12)" in data.note if column == "fine" else "cat (24)" in data.note


def test_a_column_of_labels_can_be_refused_and_must_exist(animals):
    assert load_data(animals, label_column="none").train.y is None
    with pytest.raises(UsageError, match="has no column 'breed'; its columns: img, fine, coarse, url"):
        load_data(animals, label_column="breed")


def test_the_only_column_of_classes_is_taken(tmp_path):
    pq.write_table(images(30, {"scene": COARSE}, scene=[0, 1] * 15), tmp_path / "x.parquet")
    assert load_data(tmp_path / "x.parquet").classes == COARSE


def test_names_of_classes_are_left_alone_where_a_number_has_none(tmp_path):
    pq.write_table(images(30, {"label": COARSE}, label=[0, -1] * 15), tmp_path / "x.parquet")
    data = load_data(tmp_path / "x.parquet")
    assert data.classes == ()
    assert set(data.train.y.tolist()) == {0, -1}


def test_tables_of_numbers_show_names_of_classes_too(tmp_path):
    info = json.dumps({"info": {"features": {"label": {"names": ["setosa", "alba"], "_type": "ClassLabel"}}}})
    table = pa.table({"a": [float(i) for i in range(30)], "label": [0, 1] * 15})
    pq.write_table(table.replace_schema_metadata({"huggingface": info}), tmp_path / "x.parquet")
    data = load_data(tmp_path / "x.parquet")
    assert data.classes == ("setosa", "alba")
    assert data.train.y.tolist() == [int(a % 2) for a in data.train.x[:, 0].tolist()]


@pytest.mark.parametrize("metadata", [b"", b"{", b"[]", b'{"info": {"features": {"label": 3}}}', b"[" * 100_000])
def test_damaged_words_of_datasets_are_ignored(metadata, tmp_path):
    table = pa.table({"a": [float(i) for i in range(30)], "label": [0, 1] * 15})
    pq.write_table(table.replace_schema_metadata({b"huggingface": metadata}), tmp_path / "x.parquet")
    assert load_data(tmp_path / "x.parquet").classes == ()
