"""Folders that `datasets` saved, HDF5, and cells of AnnData."""

from __future__ import annotations

import sys

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from expost.data import load_data, load_examples, load_part
from expost.errors import DataError, UsageError


def test_a_folder_that_datasets_saved(tmp_path):
    datasets = pytest.importorskip("datasets")
    table = datasets.Dataset.from_dict({"a": range(30), "b": [i / 4 for i in range(30)], "label": ["u", "v"] * 15})
    table.save_to_disk(tmp_path / "one", num_shards=3)
    assert load_examples(tmp_path / "one").tolist() == [[i, i / 4] for i in range(30)]
    data = load_data(tmp_path / "one")
    assert (data.columns, data.classes) == (("a", "b"), ("u", "v"))
    parts = datasets.DatasetDict(train=table, validation=table.select(range(4)), test=table.select(range(9)))
    parts.save_to_disk(tmp_path / "parts")
    data = load_data(tmp_path / "parts")
    assert [len(part) for part in (data.train, data.validation, data.test)] == [30, 4, 9]
    assert load_part(tmp_path / "parts", "test")[0].tolist() == [[i, i / 4] for i in range(9)]


def test_images_that_datasets_saved(tmp_path):
    datasets = pytest.importorskip("datasets")
    images = [Image.fromarray(np.full((6, 8), 3 * i, np.uint8)) for i in range(30)]
    table = datasets.Dataset.from_dict(
        {"image": images, "label": [i % 3 for i in range(30)]},
        features=datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")}),
    )
    table.save_to_disk(tmp_path / "one")
    data = load_data(tmp_path / "one")
    assert data.shape == (1, 6, 8)
    for part in (data.train, data.validation, data.test):
        assert (part.x[:, 0, 0, 0] // 3 % 3).tolist() == part.y.tolist()


def test_an_arrow_file_and_one_that_is_none(tmp_path):
    table = pa.table({"a": [float(i) for i in range(20)], "b": list(range(20))})
    with pa.ipc.new_file(str(tmp_path / "x.arrow"), table.schema) as file:
        file.write_table(table)
    assert load_examples(tmp_path / "x.arrow").tolist() == [[i, i] for i in range(20)]
    (tmp_path / "y.arrow").write_bytes(b"nothing of the kind")
    with pytest.raises(DataError, match=r"cannot read .*y.arrow: .*; restore it"):
        load_data(tmp_path / "y.arrow")


def test_arrays_in_hdf5(tmp_path):
    h5py = pytest.importorskip("h5py")
    x = np.arange(60, dtype=np.float32).reshape(30, 2)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["x_train"], file["y_train"], file["x_test"] = x, np.arange(30) % 2, x[:4]
    data = load_data(tmp_path / "x.h5")
    assert data.test.x.tolist() == x[:4].tolist()
    assert sorted(set(data.train.y.tolist())) == [0, 1]
    with pytest.raises(UsageError, match="label_column is 'a', but .*x.h5 has no obs; leave it out"):
        load_data(tmp_path / "x.h5", label_column="a")
    with h5py.File(tmp_path / "images.hdf5", "w") as file:
        file.create_group("group")["images"] = np.tile(np.arange(10, dtype=np.uint8)[:, None, None, None], (1, 8, 8, 3))
    assert load_data(tmp_path / "images.hdf5").shape == (3, 8, 8)
    (tmp_path / "z.h5").write_bytes(b"nothing of the kind")
    with pytest.raises(DataError, match=r"cannot read .*z.h5: .*; restore it"):
        load_data(tmp_path / "z.h5")


def write_cells(path, matrix, layout):
    """Write what AnnData does, as far as its format's page says it."""
    h5py = pytest.importorskip("h5py")
    count, width = matrix.shape
    with h5py.File(path, "w") as file:
        if layout == "dense":
            file["X"] = matrix
        else:
            group = file.create_group("X")
            group.attrs.update({"encoding-type": f"{layout}_matrix", "shape": matrix.shape})
            rows = matrix if layout == "csr" else matrix.T
            group["data"] = np.concatenate([row[row != 0] for row in rows])
            group["indices"] = np.concatenate([np.flatnonzero(row) for row in rows])
            group["indptr"] = np.cumsum([0, *((row != 0).sum() for row in rows)])
        obs, var = file.create_group("obs"), file.create_group("var")
        for frame, names in ((obs, [f"c{i}" for i in range(count)]), (var, [f"g{i}" for i in range(width)])):
            frame.attrs["_index"] = "_index"
            frame["_index"] = np.array(names, dtype=h5py.string_dtype())
        kinds = obs.create_group("cell_type")
        kinds.attrs["encoding-type"] = "categorical"
        kinds["categories"] = np.array(["B", "T"], dtype=h5py.string_dtype())
        kinds["codes"] = (np.arange(count) % 2).astype(np.int8)
        obs["depth"] = matrix.sum(axis=1)


@pytest.mark.parametrize("layout", ["dense", "csr", "csc"])
def test_cells_of_anndata(layout, tmp_path):
    matrix = np.random.default_rng(0).poisson(0.4, (40, 7)).astype(np.float32)
    write_cells(tmp_path / "x.h5ad", matrix, layout)
    assert np.array_equal(load_examples(tmp_path / "x.h5ad").numpy(), matrix)
    data = load_data(tmp_path / "x.h5ad")
    assert data.columns == tuple(f"g{i}" for i in range(7))
    assert data.train.y is None
    assert "40 cells of 7 numbers" in data.note
    assert "left out of obs: cell_type, depth (--label-column takes one for labels)" in data.note
    labelled = load_data(tmp_path / "x.h5ad", label_column="cell_type")
    assert labelled.classes == ("B", "T")
    order = {tuple(row): {i % 2 for i in range(40) if (matrix[i] == row).all()} for row in matrix}
    assert all(int(y) in order[tuple(x.tolist())] for x, y in zip(labelled.train.x, labelled.train.y, strict=True))


def test_hdf5_without_h5py_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    (tmp_path / "x.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    with pytest.raises(UsageError, match=r"reading .*x.h5 needs h5py; install it with: pip install 'expost\[hdf5\]'"):
        load_data(tmp_path / "x.h5")
