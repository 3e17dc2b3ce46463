"""Arrays, IDX files and tables on disk: what is recognized, what is refused, and with which words."""

import gzip
import io
import struct
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from expost.data import load_data, load_examples
from expost.data.load import load_part
from expost.errors import DataError, UsageError

RNG = np.random.default_rng(0)


def noise(*shape):
    return RNG.integers(0, 256, shape, dtype=np.uint8)


def rows(*arrays):
    return sorted(np.ascontiguousarray(image).tobytes() for array in arrays for image in array)


def everything(data):
    return rows(data.train.x.numpy(), data.validation.x.numpy(), data.test.x.numpy())


def saved(path, array):
    np.save(path, array)
    return path


def refuses(path, message, kind=DataError, **options):
    with pytest.raises(kind, match=message) as caught:
        load_data(path, **options)
    text = str(caught.value)
    assert "\n" not in text
    assert ";" in text  # what is wrong; what to do
    assert len(text) < 700


# --- arrays ------------------------------------------------------------------------------------------------------

images = noise(20, 9, 7, 3)  # (N, H, W, C)


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (images, images.transpose(0, 3, 1, 2)),
        (images.transpose(0, 3, 1, 2), images.transpose(0, 3, 1, 2)),
        (images[..., 0], images[:, None, :, :, 0]),
        (images[..., :1], images[:, None, :, :, 0]),
        (images[:, None, :, :, 0], images[:, None, :, :, 0]),
        (images.astype(np.int64), images.transpose(0, 3, 1, 2)),
        (images / 255, images.transpose(0, 3, 1, 2)),
        ((images / 255).astype(np.float32), images.transpose(0, 3, 1, 2)),
        (images[..., 0] > 127, (images[:, None, :, :, 0] > 127) * np.uint8(255)),
        (np.asfortranarray(images), images.transpose(0, 3, 1, 2)),
        (images.astype(">u2"), images.transpose(0, 3, 1, 2)),
    ],
    ids=["NHWC", "NCHW", "NHW", "NHW1", "N1HW", "int64", "float64", "float32", "bool", "fortran", "big-endian"],
)
def test_layouts_and_types_of_images(tmp_path, array, expected):
    data = load_data(saved(tmp_path / "a.npy", array))
    assert data.train.x.dim() == 4
    assert data.train.x.dtype == torch.uint8
    assert everything(data) == rows(expected)


def test_rgba_arrays_are_composited_onto_white(tmp_path):
    rgba = noise(10, 6, 6, 4)
    data = load_data(saved(tmp_path / "a.npy", rgba))
    alpha = rgba[..., 3:] / 255
    want = np.rint(rgba[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8).transpose(0, 3, 1, 2)
    assert everything(data) == rows(want)


def test_two_axes_are_vectors_unscaled(tmp_path):
    array = RNG.normal(size=(50, 3)) * 1000
    data = load_data(saved(tmp_path / "a.npy", array))
    assert data.train.x.dim() == 2
    assert data.shape == (3,)
    assert data.train.x.dtype == torch.float32
    assert everything(data) == rows(array.astype(np.float32))
    integers = load_data(saved(tmp_path / "b.npy", np.arange(30).reshape(10, 3)))
    assert integers.train.x.dtype == torch.float32
    assert torch.cat([integers.train.x, integers.validation.x, integers.test.x]).sum() == 435


def test_options_for_images_are_refused_for_vectors(tmp_path):
    path = saved(tmp_path / "a.npy", np.eye(10))
    for option in ({"size": 8}, {"crop": 8}, {"channels": 1}, {"range": (0, 1)}):
        refuses(path, "holds vectors, not images; leave out size, crop, channels and range", UsageError, **option)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (images.astype(float), r"floating-point pixels from 0 to 255; divide by 255, or store them as uint8"),
        (images / 127.5 - 1, r"floating-point pixels from -1 to 1; map them to \[0, 1\] with \(x \+ 1\) / 2"),
        (images * 1000.0, r"floating-point pixels from 0 to 255000; scale them to \[0, 1\]"),
        (np.where(images == 3, np.nan, images / 255), r"\d+ of 3780 pixels are NaN or infinite"),
        (images.astype(int) - 1, "integer pixels from -1 to 254; scale them to 0..255"),
        (images.astype(np.uint16) * 257, "integer pixels from 0 to 65535; scale them to 0..255"),
        ((images > 127).astype(int), "has no pixels but 0 and 1 of 255, all but black; store booleans, or multiply"),
        (images.astype(complex), "holds complex numbers; store plain integers or floats"),
        (images.astype(str), "holds text; store plain"),
        (np.zeros((10, 4, 4), "datetime64[s]"), r"holds values of type datetime64\[s\]; store plain"),
        (np.zeros((10, 2), [("a", int)]), r"holds values of type"),
        (images[:0], r"is empty: its shape is \(0, 9, 7, 3\); at least one axis has no entries"),
        (np.zeros((10, 0)), r"is empty: its shape is \(10, 0\)"),
        (np.zeros((10, 0, 5), np.uint8), "is empty"),
        (np.zeros(10), r"has shape \(10,\); give \(N, d\), \(N, H, W\)"),
        (np.float64(3), r"has shape \(\); give"),
        (np.zeros((5, 4, 8, 8, 3)), r"has shape \(5, 4, 8, 8, 3\); give"),
        (noise(9, 7, 3), r"\(9, 7, 3\), which could be one image or several grey ones; add the missing axis"),
        (noise(3, 32, 32), "could be one image or several grey ones; add the missing axis"),
        (noise(10, 3, 32, 3), r"axis 1 or 3 could be the channels; make images larger"),
        (noise(10, 5, 9, 7), r"neither axis 1 nor axis 3 is 1, 3 or 4 channels"),
        (np.array([[1.0, 2], [3, np.inf], [np.nan, 6]]), "inf in row 1, column 1 .2 such values. is no finite float32"),
        (np.full((5, 2), 1e300), r"1e\+300 in row 0, column 0 .10 such values."),
        (noise(2, 8, 8, 3), "2 examples to divide into 3 parts; add some"),
    ],
)
def test_arrays_that_are_refused(tmp_path, array, message):
    refuses(saved(tmp_path / "a.npy", array), message)


def test_python_objects_are_never_unpickled(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "exploded"), "w"))

    np.save(tmp_path / "a.npy", np.array([Bomb(), None], object), allow_pickle=True)
    np.savez(tmp_path / "b.npz", x=np.array([Bomb(), None], object))
    for name in ("a.npy", "b.npz"):
        refuses(tmp_path / name, "holds Python objects, which are never unpickled; store plain numbers")
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_truncated_and_foreign_array_files(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    buffer = io.BytesIO()
    np.save(buffer, images) if suffix == "npy" else np.savez_compressed(buffer, x=images)
    content = buffer.getvalue()
    for length in [*range(0, 140, 7), len(content) // 2, len(content) - 1]:
        path.write_bytes(content[:length])
        refuses(path, r"truncated|damaged|no NumPy file")
    if suffix == "npy":
        path.write_bytes(content.replace(b"'descr': ", b"'descr': ((", 1))
        refuses(path, "truncated or damaged")
    path.write_bytes(b"not an array at all")
    refuses(path, "is no NumPy file, or truncated or damaged; save it again with numpy.savez")
    if suffix == "npz":
        path.write_bytes(content[:120] + bytes(40) + content[160:])
        refuses(path, "truncated or damaged")


@pytest.mark.parametrize(
    "names",
    [
        ("x_train", "y_train", "x_val", "y_val", "x_test", "y_test"),
        ("train_images", "train_labels", "val_images", "val_labels", "test_images", "test_labels"),
        ("X_Train", "Y_Train", "X_valid", "Y_valid", "X_Test", "Y_Test"),
        ("train", "y_train", "validation", "y_validation", "test", "y_test"),
        ("data_train", "targets_train", "data_dev", "targets_dev", "data_test", "targets_test"),
    ],
)
@pytest.mark.parametrize("packed", [True, False])
def test_named_parts(tmp_path, names, packed):
    x, y = noise(20, 5, 5), np.arange(20)
    cuts = (slice(0, 12), slice(12, 15), slice(15, 20))
    arrays: dict[str, Any] = {name: (x if index % 2 == 0 else y)[cuts[index // 2]] for index, name in enumerate(names)}
    if packed:
        np.savez(tmp_path / "a.npz", **arrays)
    else:
        for name, array in arrays.items():
            np.save(tmp_path / f"{name}.npy", array)
    data = load_data(tmp_path / "a.npz" if packed else tmp_path)
    for split, cut in zip((data.train, data.validation, data.test), cuts, strict=True):
        assert np.array_equal(split.x[:, 0].numpy(), x[cut])
        assert split.y.tolist() == y[cut].tolist()


@pytest.mark.parametrize(
    ("x", "y"), [("x", "y"), ("images", "labels"), ("data", "targets"), ("arr_0", "arr_1"), ("X", "Y")]
)
def test_undivided_examples_with_labels(tmp_path, x, y):
    examples = noise(30, 5, 5)
    np.savez(tmp_path / "a.npz", **{x: examples, y: examples[:, 0, 0, None], "mean": np.zeros(3)})
    data = load_data(tmp_path / "a.npz")
    for split in (data.train, data.validation, data.test):
        assert torch.equal(split.y, split.x[:, 0, 0, 0].long())
    assert "ignored 1 other array (mean)" in data.note


def test_one_file_for_each_part(tmp_path):
    for name, n in (("train", 10), ("test", 4)):
        np.savez(tmp_path / f"{name}.npz", x=noise(n, 5, 5), y=np.zeros(n, int))
    data = load_data(tmp_path)
    assert [len(s) for s in (data.train, data.validation, data.test)] == [9, 1, 4]
    assert data.test.y.tolist() == [0] * 4


def test_text_labels_and_a_single_array_of_any_name(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.eye(6), y=np.array(["b", "a", "b", "a", "b", "a"]))
    data = load_data(tmp_path / "a.npz")
    for split in (data.train, data.validation, data.test):
        assert torch.equal(split.y, (split.x.argmax(1) % 2 == 0).long())
    np.savez(tmp_path / "b.npz", whatever=images)
    assert load_data(tmp_path / "b.npz").shape == (3, 9, 7)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"foo": np.eye(5), "bar": np.eye(5)},
            r"no array is named as examples are \(foo \(5, 5\), bar \(5, 5\)\); name one x",
        ),
        ({"x": np.eye(5), "data": np.eye(5)}, "more than one array could be the examples"),
        ({"x": np.eye(5), "X": np.eye(5)}, "two arrays named x; keep one"),
        ({"x": np.eye(5), "y": np.arange(4)}, "4 labels for 5 examples; give one each"),
        ({"x": np.eye(5), "y": np.eye(5)}, r"has shape \(5, 5\); labels need one integer an example"),
        ({"x": np.eye(5), "y": np.arange(5) / 2}, "holds float64 labels; store whole numbers or text"),
        ({"x_train": np.eye(5), "x_test": noise(5, 4, 4)}, "some parts hold images and some vectors"),
        ({"x_train": np.eye(5), "x_test": np.ones((2, 4))}, r"shape \(5,\) in training, .* \(4,\) in test; make them"),
        ({"x_test": np.eye(5), "y_test": np.arange(5)}, "a test part but no training part; add one"),
        ({}, "no array is named as examples are"),
    ],
)
def test_archives_that_are_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    refuses(tmp_path / "a.npz", message)


def test_a_folder_with_a_files_name(tmp_path):
    (tmp_path / "a.npz").mkdir()
    refuses(tmp_path / "a.npz", "folder .*a.npz is empty; put files")


# --- IDX ---------------------------------------------------------------------------------------------------------


def idx(array, kind=8):
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, kind, array.ndim, *array.shape) + array.tobytes()


def write_idx(folder, compress=True, dot="-"):
    train, test = noise(30, 6, 5), noise(8, 6, 5)
    for name, array in (
        (f"train-images{dot}idx3-ubyte", train),
        (f"train-labels{dot}idx1-ubyte", np.arange(30, dtype=np.uint8)),
        (f"t10k-images{dot}idx3-ubyte", test),
        (f"t10k-labels{dot}idx1-ubyte", np.arange(8, dtype=np.uint8)),
    ):
        content = idx(array)
        (folder / (name + ".gz" * compress)).write_bytes(gzip.compress(content) if compress else content)
    return train, test


@pytest.mark.parametrize(("compress", "dot"), [(True, "-"), (False, "-"), (False, "."), (True, ".")])
def test_idx_folders(tmp_path, compress, dot):
    train, test = write_idx(tmp_path, compress, dot)
    data = load_data(tmp_path)
    assert np.array_equal(data.test.x[:, 0].numpy(), test)
    assert data.test.y.tolist() == list(range(8))
    assert np.array_equal(data.train.x[:, 0].numpy(), train[data.train.y])
    assert np.array_equal(data.validation.x[:, 0].numpy(), train[data.validation.y])
    assert sorted([*data.train.y.tolist(), *data.validation.y.tolist()]) == list(range(30))


def test_plain_idx_files_win_over_gzipped_ones(tmp_path):
    write_idx(tmp_path, True)
    train, _ = write_idx(tmp_path, False)
    data = load_data(tmp_path)
    assert np.array_equal(data.train.x[:, 0].numpy(), train[data.train.y])


def test_idx_files_of_two_sets_in_one_folder(tmp_path):
    write_idx(tmp_path)
    content = (tmp_path / "train-images-idx3-ubyte.gz").read_bytes()
    (tmp_path / "emnist-train-images-idx3-ubyte.gz").write_bytes(content)
    refuses(tmp_path, "train-images-idx3-ubyte.gz are of different sets; keep one of them there")


def test_one_idx_file_without_labels(tmp_path):
    train, _ = write_idx(tmp_path)
    data = load_data(tmp_path / "train-images-idx3-ubyte.gz")
    assert everything(data) == rows(train[:, None])
    assert data.train.y is None
    refuses(tmp_path / "train-labels-idx1-ubyte.gz", "holds labels; give the file of the images")


good = idx(noise(30, 6, 5))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (good[:-1], "should hold 30 x 6 x 5 = 900 bytes but has 899; download it again"),
        (good + b"x", "should hold 30 x 6 x 5 = 900 bytes but has more"),
        (idx(noise(30, 6, 5, 3)), "has 4 axes; give images .3: N, H, W. and labels .1."),
        (good[:10], "is truncated inside its header; download"),
        (b"", "is no IDX file .it begins nowhere.; download"),
        (b"<html>404</html>", "is no IDX file .it begins 3c68746d.; download"),
        (idx(noise(30, 6, 5), 0x0D), "holds IDX type 0x0d; only unsigned bytes"),
        (struct.pack(">BBBB3I", 0, 0, 8, 3, 2**32 - 1, 2**32 - 1, 2**32 - 1), "should hold|unpacks to"),
        (struct.pack(">BBBB3I", 0, 0, 8, 3, 0, 28, 28), r"holds no images: its shape is \(0, 28, 28\); download"),
        (idx(noise(31, 6, 5)), "30 labels for 31 examples; give one each"),
    ],
)
@pytest.mark.parametrize("compress", [True, False])
def test_damaged_idx_files(tmp_path, content, message, compress):
    write_idx(tmp_path, compress)
    name = "train-images-idx3-ubyte" + ".gz" * compress
    (tmp_path / name).write_bytes(gzip.compress(content) if compress else content)
    refuses(tmp_path, message)


def test_damaged_gzip(tmp_path):
    write_idx(tmp_path)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    content = path.read_bytes()
    flipped = bytearray(content)
    flipped[-6] ^= 1  # the checksum
    for bad in (content[: len(content) // 2], b"plain", content[:12], bytes(flipped)):
        path.write_bytes(bad)
        refuses(path, r"is no complete gzip file \(.*\); download it again")


def test_idx_labels_without_images(tmp_path):
    write_idx(tmp_path)
    for path in tmp_path.glob("*images*"):
        path.unlink()
    refuses(tmp_path, "has labels but no images; add the files named")


# --- parquet -----------------------------------------------------------------------------------------------------


def png(array):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def image_table(array, column="image", labels=None, struct_type=True):
    content = [png(image) for image in array]
    values = pa.array([{"bytes": c, "path": None} for c in content] if struct_type else content)
    columns = {column: values}
    if labels is not None:
        columns["label"] = pa.array(labels)
    return pa.table(columns)


@pytest.mark.parametrize("column", ["img", "image", "anything"])
@pytest.mark.parametrize("struct_type", [True, False])
def test_a_parquet_file_of_images_in_many_row_groups(tmp_path, column, struct_type):
    array = noise(50, 6, 6, 3)
    table = image_table(array, column, list(range(50)), struct_type)
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=7)
    data = load_data(tmp_path / "a.parquet", seed=3)
    for split in (data.train, data.validation, data.test):
        assert np.array_equal(split.x.numpy(), array[split.y].transpose(0, 3, 1, 2))
    small = load_data(tmp_path / "a.parquet", limit=3)
    assert np.array_equal(small.train.x.numpy(), array[small.train.y].transpose(0, 3, 1, 2))


def test_a_folder_of_shards_in_the_hubs_layout(tmp_path):
    array = noise(24, 6, 6)
    (tmp_path / "data").mkdir()
    for index, cut in enumerate((slice(0, 8), slice(8, 16))):
        pq.write_table(
            image_table(array[cut], labels=["cat", "ant"] * 4),
            tmp_path / "data" / f"train-0000{index}-of-00002.parquet",
        )
    pq.write_table(
        image_table(array[16:20], labels=["ant"] * 4), tmp_path / "data" / "validation-00000-of-00001.parquet"
    )
    pq.write_table(image_table(array[20:], labels=["bee"] * 4), tmp_path / "data" / "test-00000-of-00001.parquet")
    pq.write_table(image_table(array), tmp_path / "data" / "extra-00000-of-00001.parquet")
    (tmp_path / "README.md").write_text("about")
    data = load_data(tmp_path)
    assert np.array_equal(data.train.x[:, 0].numpy(), array[:16])
    assert np.array_equal(data.validation.x[:, 0].numpy(), array[16:20])
    assert data.train.y.tolist() == [2, 0] * 8  # ant, bee, cat
    assert data.test.y.tolist() == [1] * 4
    assert "ignored 1 files that name no part (extra-00000-of-00001.parquet)" in data.note
    assert "ignored 1 other file (README.md)" in data.note


def test_numeric_parquet_is_vectors(tmp_path):
    values = RNG.normal(size=(40, 3)).astype(np.float32)
    table = pa.table(
        {
            "a": values[:, 0],
            "embedding": pa.FixedSizeListArray.from_arrays(values[:, 1:].ravel(), 2),
            "name": ["x"] * 40,
            "flag": [True, False] * 20,
            "label": pa.array(["p", "q"] * 20).dictionary_encode(),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    data = load_data(tmp_path)
    flags = np.tile(np.array([[1], [0]], np.float32), (20, 1))
    assert everything(data) == rows(np.concatenate([values, flags], axis=1))
    assert torch.bincount(torch.cat([data.train.y, data.validation.y, data.test.y])).tolist() == [20, 20]
    assert "left out 1 column: name (text, 1 value, e.g. 'x'); 3 columns of numbers: a, embedding, flag" in data.note


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            pa.table({"a": [1.0, None, 3, 4]}),
            "lacks values: 1 in column .a. .the first in row 1, counted from 0.; fill them in or drop those rows",
        ),
        (
            pa.table({"a": [1.0, 2, np.nan, 4]}),
            "nan in row 2, counted from 0, of column 'a' .1 such values. is no finite float32",
        ),
        (
            pa.table({"a": [[1.0], [1.0, 2], [3.0], [4.0]]}),
            "column 'a': lists of 1 to 2 numbers; vectors need one length",
        ),
        (
            pa.table({"a": ["x", "y"], "b": ["x", "y"]}),
            "has neither images nor numbers, only a .text, all different.*; add such a column",
        ),
        (pa.table({"a": pa.array([], pa.float64())}), "has no rows; fill or remove it"),
        (pa.table({"a": [1, 2, 3], "label": [1, None, 2]}), "1 labels are missing; fill them in or drop those rows"),
        (pa.table({"image": [b"junk"] * 5}), r"cannot read image row \d of .*a.parquet: damaged, or none of PNG"),
        (pa.table({"image": [None, b""] * 5}), r"row \d of .*a.parquet has no image bytes; drop that row"),
        (image_table(noise(5, 4, 4)).slice(0, 0), "the all part is empty; fill or remove it"),
    ],
)
def test_tables_that_are_refused(tmp_path, table, message):
    pq.write_table(table, tmp_path / "a.parquet")
    refuses(tmp_path / "a.parquet", message)


def test_truncated_and_foreign_parquet(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(image_table(noise(30, 12, 12, 3)), path)
    content = path.read_bytes()
    for length in (0, 3, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        refuses(path, "cannot read .*a.parquet: .*; restore it")
    middle = len(content) // 3
    path.write_bytes(content[:40] + bytes(middle) + content[40 + middle :])
    refuses(path, "a.parquet")


def test_shards_that_do_not_fit_together(tmp_path):
    pq.write_table(image_table(noise(5, 4, 4), labels=[1] * 5), tmp_path / "train-0.parquet")
    pq.write_table(image_table(noise(5, 4, 4)), tmp_path / "train-1.parquet")
    refuses(tmp_path, "train-1.parquet lacks the column label that .*train-0.parquet has; give files of one kind")
    other = tmp_path / "numbers"
    other.mkdir()
    pq.write_table(pa.table({"a": [1.0]}), other / "train-0.parquet")
    pq.write_table(pa.table({"b": [1.0]}), other / "train-1.parquet")
    refuses(
        other, "train-1.parquet has other columns than .*train-0.parquet: it lacks 'a' and has 'b' besides; give files"
    )


# --- CSV ---------------------------------------------------------------------------------------------------------


def as_csv(path, **columns):
    rows = zip(*columns.values(), strict=True)
    path.with_suffix(".csv").write_text("\n".join(",".join(map(str, row)) for row in [columns, *rows]))


def as_parquet(path, **columns):
    pq.write_table(pa.table(columns), path.with_suffix(".parquet"))


def test_csv_with_and_without_header_and_tsv(tmp_path):
    values = RNG.normal(size=(30, 2)).astype(np.float32)
    lines = [f"{a},{b}" for a, b in values.tolist()]
    (tmp_path / "a.csv").write_text("\n".join(["a,b", *lines]) + "\n")
    (tmp_path / "b.csv").write_text("\ufeff" + "\n".join(lines))
    (tmp_path / "c.tsv").write_text("\n".join(lines).replace(",", "\t"))
    for name in ("a.csv", "b.csv", "c.tsv"):
        assert everything(load_data(tmp_path / name)) == rows(values)


def test_csv_labels_points_and_index_columns(tmp_path):
    text = ["id,size,class", *(f"n{i},{i},{'ab'[i % 2]}" for i in range(20))]
    (tmp_path / "a.csv").write_text("\n".join(text))
    data = load_data(tmp_path / "a.csv")
    assert data.shape == (1,)
    assert torch.equal(data.train.y, data.train.x[:, 0].long() % 2)
    assert "left out 1 column: id (text, all different, e.g. 'n0')" in data.note
    assert "labels: column 'class', 2 classes" in data.note
    (tmp_path / "b.csv").write_text("\n".join(["x,y", *(f"{i},{i % 3}" for i in range(20))]))
    assert load_data(tmp_path / "b.csv").shape == (2,)  # coordinates, not a label
    (tmp_path / "c.csv").write_text("\n".join([",a,target", *(f"{i},{i},{i / 7}" for i in range(20))]))
    measured = load_data(tmp_path / "c.csv")
    assert measured.shape == (2,)  # a measured target is one more number; the unnamed column is an index
    assert measured.train.y is None


def test_csv_of_what_stands_for_numbers_and_of_what_does_not(tmp_path):
    """Many rows, so that they are read in pieces; a column is one of text from its first word on."""
    header = "n,b,u,big,t,gaps,empty"
    lines = [f" {i} ,{'TRUE' if i % 2 else 'false'},{i}_0,{i},{i},NA," for i in range(9000)]
    (tmp_path / "a.csv").write_text("\n".join([header, *lines, ""]))
    data = load_data(tmp_path / "a.csv")
    assert data.columns == ("n", "b", "big", "t")
    assert "left out 3 columns: empty (empty), gaps (empty), u (text, all different, e.g. '0_0')" in data.note
    x = data.train.x.double()
    assert torch.equal(x[:, 1], x[:, 0] % 2)
    assert torch.equal(x[:, 2], x[:, 0])
    lines[8999] = lines[8999].replace(",8999,8999,", ",8999,late,")
    (tmp_path / "b.csv").write_text("\n".join([header, *lines]))
    refuses(tmp_path / "b.csv", "1 of 9,000 values of 't' is no number .'late' in row 8999, counted from 0.; correct")


def test_csv_reads_as_arrow_reads_it(tmp_path):
    values = np.concatenate(
        [RNG.normal(size=(200, 3)) * 10.0 ** RNG.integers(-30, 30, (200, 3)), RNG.normal(size=(200, 3))]
    )
    text = [f"{a!r},{b:.17g},{c:.6e},{'xyz'[i % 3]}" for i, (a, b, c) in enumerate(values.tolist())]
    (tmp_path / "a.csv").write_text("\r\n".join(['"a","b, too",c,label', *text]))
    ours, theirs = load_data(tmp_path / "a.csv"), pyarrow.csv.read_csv(tmp_path / "a.csv")
    pq.write_table(theirs, tmp_path / "b.parquet")
    other = load_data(tmp_path / "b.parquet")
    assert ours.columns == other.columns == ("a", "b, too", "c")
    assert everything(ours) == everything(other)
    assert torch.equal(ours.train.y, other.train.y)


def test_csv_labels_of_many_digits_stay_apart(tmp_path):
    lines = [f"{i},{2**60 + i % 3}" for i in range(30)]  # float64 would have them equal
    (tmp_path / "a.csv").write_text("\n".join(["a,label", *lines]))
    data = load_data(tmp_path / "a.csv")
    assert torch.equal(data.train.y, 2**60 + data.train.x[:, 0].long() % 3)


LARGE = [2**64 - 1 - i for i in range(3)]  # more than int64 holds, and all the same in float64


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "save",
    [
        as_csv,
        lambda path, a, label: as_csv(path, a=a, label=[f"{each}.0" for each in label]),
        lambda path, a, label: as_csv(path, a=a, label=[f"-{each}" for each in label]),
        lambda path, a, label: as_parquet(path, a=a, label=pa.array(label, pa.uint64())),
        lambda path, a, label: np.savez(path, x=np.array(a)[:, None], y=np.array(label, np.uint64)),
        lambda path, a, label: np.savez(path, x=np.array(a)[:, None], y=np.array([1e19, 2e19, -1e300] * 10)),
    ],
    ids=["CSV", "CSV of floats", "CSV below zero", "parquet", "npz", "npz of floats"],
)
def test_labels_beyond_int64_are_text(save, tmp_path):
    save(tmp_path / "a", a=range(30), label=LARGE * 10)
    data = load_data(tmp_path)
    assert len(data.classes) == 3
    one, two = data.train, data.test
    same = one.x.long() % 3 == two.x.long().T % 3
    assert torch.equal(one.y[:, None] == two.y, same)
    assert set(data.train.y.tolist()) == {0, 1, 2}


def test_labels_of_all_of_int64_stay_numbers(tmp_path):
    ends = [2**63 - 1, -(2**63), 0]
    as_csv(tmp_path / "a", a=range(30), label=ends * 10)
    np.savez(tmp_path / "b.npz", x=np.arange(30.0)[:, None], y=np.array(ends * 10))
    for name in ("a.csv", "b.npz"):
        data = load_data(tmp_path / name)
        assert data.train.y.tolist() == [ends[int(x) % 3] for x in data.train.x[:, 0]]
        assert data.classes == ()


@pytest.mark.parametrize("change", [3, 9_000])  # within the rows that are read at once, and after them
def test_csv_of_words_and_numbers_in_one_column_is_refused(change, tmp_path):
    lines = [f"{i},{'true' if i < change else i},{('true', 'false')[i % 2]}" for i in range(9_100)]
    (tmp_path / "a.csv").write_text("\n".join(["a,mixed,answer", *lines]))
    if 2 * change < len(lines):
        refuses(tmp_path / "a.csv", "3 of 9,100 values of 'mixed' are no numbers .'true' in row 0, counted from 0.")
    else:
        refuses(tmp_path / "a.csv", "9,000 of 9,100 values of 'mixed' are no numbers .'true' in row 0, counted from 0.")
    (tmp_path / "a.csv").write_text("\n".join(line.replace(",true,", ",1,") for line in ["a,mixed,answer", *lines]))
    data = load_data(tmp_path / "a.csv")
    assert torch.equal(data.train.x[:, 2], 1 - data.train.x[:, 0] % 2)


TRUE, GAP = ["true", "FALSE"], ["", "NA"]


@pytest.mark.parametrize(
    ("pieces", "numeric"),
    [
        ([TRUE, TRUE], True),
        ([GAP, TRUE, TRUE], True),
        ([TRUE, ["1", "0"]], False),
        ([["1", "0"], TRUE], False),
        ([TRUE, GAP, ["1", "0"]], False),
        ([["1", "0"], GAP, TRUE], False),
        ([["1", "true"], ["1", "0"]], False),
        ([TRUE, ["0", "true"]], False),
        ([["1", ""], ["true", ""]], False),
    ],
)
def test_csv_of_words_and_numbers_is_refused_wherever_they_meet(pieces, numeric, tmp_path, monkeypatch):
    """In the rows that are read at once, or in different ones."""
    monkeypatch.setattr("expost.data.csv_tables._AT_ONCE", 2)
    cells = [cell for piece in pieces for cell in piece] + pieces[-1]
    (tmp_path / "a.csv").write_text("\n".join(["n,mixed", *(f"{i},{cell}" for i, cell in enumerate(cells))]))
    if numeric and "" in cells:
        refuses(tmp_path / "a.csv", "lacks values: 2 in column 'mixed'")
    elif numeric or (set(TRUE) <= set(cells) and cells.count("0") + cells.count("1") < cells.count("true") * 2):
        assert load_data(tmp_path / "a.csv").columns == (("n", "mixed") if numeric else ("n",))
    else:
        refuses(tmp_path / "a.csv", "values of 'mixed' (is no number|are no numbers) .'true' in row")
    (tmp_path / "b.csv").write_text("\n".join(["n,label", *(f"{i},{cell}" for i, cell in enumerate(cells))]))
    if "" in cells:
        count = 2 if numeric else cells.count("")
        refuses(tmp_path / "b.csv", f"{count} labels are missing")
    else:
        assert load_data(tmp_path / "b.csv").classes == (() if numeric else tuple(sorted(set(cells))))


def test_csv_without_names_has_text_where_words_follow_the_first_line(tmp_path):
    (tmp_path / "a.csv").write_text("1,2\n3,true\n5,false\n7,true\n")
    assert load_data(tmp_path / "a.csv").columns == ("f0",)


def test_csv_files_of_different_columns(tmp_path):
    (tmp_path / "train-0.csv").write_text("a,b\n1,2\n3,4\n")
    (tmp_path / "train-1.csv").write_text("a,c\n1,2\n3,4\n")
    refuses(tmp_path, "train-1.csv has other columns than .*train-0.csv: it lacks 'b' and has 'c' besides; give files")


formats = pytest.mark.parametrize("save", [as_csv, as_parquet])
TENS, ONES = [10.0, 20.0, 30.0], [1.0, 2.0, 3.0]


@formats
def test_columns_of_parts_are_matched_by_name(save, tmp_path):
    save(tmp_path / "train", a=TENS, name=["u", "v", "w"], b=ONES, label=[0, 1, 2])
    save(tmp_path / "validation", label=[0, 1, 2], b=ONES, a=TENS)
    save(tmp_path / "test", b=ONES, index=[0, 1, 2], a=TENS)
    data = load_data(tmp_path)
    for split in (data.train, data.validation, data.test):
        assert split.x.tolist() == [[10, 1], [20, 2], [30, 3]]
    assert data.validation.y.tolist() == [0, 1, 2]
    assert data.test.y is None
    assert data.columns == ("a", "b")
    assert load_part(tmp_path, "test")[0].tolist() == data.test.x.tolist()


@formats
def test_columns_of_the_files_of_a_part_are_matched_by_name(save, tmp_path):
    save(tmp_path / "0", a=TENS, b=ONES)
    save(tmp_path / "1", b=ONES, a=TENS)
    assert load_examples(tmp_path).tolist() == [[10, 1], [20, 2], [30, 3]] * 2


@formats
@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        (
            {"a": ONES},
            {"b": ONES},
            "test.* lacks the column 'a' of .*train.*, .*train.* lacks the column 'b' of .*test",
        ),
        ({"a": ONES, "b": ONES}, {"a": ONES, "c": ONES}, "test.* lacks the column 'b' of .*train"),
        ({"a": ONES, "b": ONES}, {"b": ONES}, "test.* lacks the column 'a' of .*train"),
        ({"a": ONES}, {"b": ONES, "a": ONES}, "train.* lacks the column 'b' of .*test"),
        (
            {"a": ONES, "b": list("xyz")},
            {"a": list("xyz"), "b": ONES},
            "'a' holds text.* in .*test.*, and numbers in .*train",
        ),
        ({"a": ONES, "y": [0, 1, 2]}, {"x": ONES, "y": [0, 1, 2]}, "lacks the column 'a' .* lacks the column 'x'"),
        ({"a": ONES, "label": [0.5, 1, 2]}, {"a": ONES}, "test.* lacks the column 'label' of .*train"),
    ],
)
def test_parts_of_different_columns_are_refused(save, train, test, message, tmp_path):
    save(tmp_path / "train", **train)
    save(tmp_path / "test", **test)
    refuses(tmp_path, f"{message}.*; give all parts the same columns of numbers, or name the classes by --label-column")


@formats
def test_parts_whose_labels_have_different_names_are_refused(save, tmp_path):
    save(tmp_path / "train", a=ONES, label=[0, 1, 2])
    save(tmp_path / "test", a=ONES, target=[0, 1, 2])
    refuses(tmp_path, "test.* has labels in column 'target', but .*train.* in 'label'; give both columns one name")
    save(tmp_path / "test", a=ONES, LABEL=[2, 1, 0])
    assert load_data(tmp_path).test.y.tolist() == [2, 1, 0]


def test_lists_of_parts_have_one_length_in_every_column(tmp_path):
    as_parquet(tmp_path / "train", a=[[1.0, 2.0]] * 3, b=[[3.0]] * 3)
    as_parquet(tmp_path / "test", a=[[1.0]] * 3, b=[[2.0, 3.0]] * 3)
    refuses(tmp_path, "train.parquet and .*test.parquet: 2 and 1 numbers a row in column 'a'; vectors need one length")
    (tmp_path / "train.parquet").rename(tmp_path / "all.parquet")
    (tmp_path / "test.parquet").rename(tmp_path / "rest.parquet")
    refuses(tmp_path, "all.parquet: 2 and 1 numbers a row in column 'a'; vectors need one length")


def test_csv_parts_without_names_stay_as_they_are(tmp_path):
    (tmp_path / "validation.csv").write_text("1,10\n2,20\n")
    (tmp_path / "train.csv").write_text("b,a\n1,10\n2,20\n3,30")
    (tmp_path / "test.csv").write_text("a,b\n10,1\n20,2\n")
    data = load_data(tmp_path)
    assert data.train.x.tolist() == [[1, 10], [2, 20], [3, 30]]
    assert data.validation.x.tolist() == data.test.x.tolist() == [[1, 10], [2, 20]]
    assert data.columns == ()


@pytest.mark.parametrize(
    ("train", "test", "classes"),
    [
        (["cat", "true", "false"], ["true", "false"], ("cat", "false", "true")),
        (["01", "02", "x"], ["01", "02"], ("01", "02", "x")),
        (["1", "2", "3"], ["2", "b"], ("1", "2", "3", "b")),
        (["1.0", "NA", "?"], ["1.0", "NA"], ("1.0", "?", "NA")),
        (["01", "02", "03"], ["01", str(2**64 - 1)], ("01", "02", "03", str(2**64 - 1))),
        (["0.5", "1", "x"], ["1", "0.5"], ("0.5", "1", "x")),
        (["3", "2", "1"], ["1.0", "2"], ()),
        (["true", "false", "true"], ["1", "0"], ()),
        (["1", "2", str(2**60 + 1)], ["1.0", "2"], ()),
    ],
)
def test_csv_labels_of_all_parts_are_text_or_all_are_numbers(train, test, classes, tmp_path):
    as_csv(tmp_path / "train", a=range(3), label=train)
    as_csv(tmp_path / "validation", a=range(3), label=train)
    as_csv(tmp_path / "test", a=range(2), label=test)
    data = load_data(tmp_path)
    assert data.classes == classes
    for split, labels in ((data.train, train), (data.validation, train), (data.test, test)):
        if classes:
            assert [classes[index] for index in split.y] == labels
        else:
            numbers = {"true": 1, "false": 0, "1.0": 1}
            assert split.y.tolist() == [int(numbers.get(each, each)) for each in labels]


def test_csv_labels_that_are_measured_in_one_part_are_entries_in_all(tmp_path):
    as_csv(tmp_path / "train", a=ONES, target=[0.5, 1, 2])
    as_csv(tmp_path / "test", target=[2, 1, 2], a=ONES)
    data = load_data(tmp_path)
    assert data.test.x.tolist() == [[1, 2], [2, 1], [3, 2]]
    assert data.train.y is data.test.y is None


def test_csv_labels_that_one_part_lacks_are_missing(tmp_path):
    as_csv(tmp_path / "train", a=ONES, label=[0, 1, 2])
    as_csv(tmp_path / "test", a=ONES, label=["", "", ""])
    refuses(tmp_path, "test.csv: 3 labels are missing; fill them in or drop those rows")


@pytest.mark.parametrize("part", ["train", "test"])
def test_csv_parts_without_rows(part, tmp_path):
    for name in ("train", "test"):
        (tmp_path / f"{name}.csv").write_text("a,label\n" + "1,x\n2,y\n" * (name != part))
    refuses(tmp_path, f"{part}.csv has no rows; fill or remove it")


def test_csv_parts(tmp_path):
    for name, n in (("train", 12), ("valid", 3), ("test", 5)):
        (tmp_path / f"{name}.csv").write_text("a,b\n" + "1,2\n" * n)
    data = load_data(tmp_path)
    assert [len(s) for s in (data.train, data.validation, data.test)] == [12, 3, 5]
    assert "all examples are identical" in data.note


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a.csv is empty; give a table"),
        ("a,b\n", "a.csv has no rows; fill or remove it"),
        ("name,label\n\n", "a.csv has no rows; fill or remove it"),
        ("a,b\n1,2\n3\n", "a.csv, line 3: 1 of 2 columns; complete or remove that row"),
        ("a,b\n1,2\n3,\n5,6\n", "1 in column .b. .the first in row 1"),
        ("a,b\n1,2\n3,nan\n5,6\n", "1 in column .b. .the first in row 1"),
        ("a;b\n1;2\n", "1 example to divide into 3 parts"),
        ("name,town\nx,a\ny,b\n", "has neither images nor numbers, only name .text, all different, e.g. 'x'., town"),
        ("a\n1\n", "1 example to divide"),
        ("a\n1\ninf\n3\n", "inf in row 1"),
    ],
)
def test_csv_that_is_refused(tmp_path, text, message):
    (tmp_path / "a.csv").write_text(text)
    refuses(tmp_path / "a.csv", message)


def test_csv_in_another_encoding(tmp_path):
    (tmp_path / "a.csv").write_bytes("größe,b\n1,2\n3,4\n5,6\n".encode("latin-1"))
    refuses(tmp_path / "a.csv", "a.csv is no UTF-8 text .byte 0xf6 after line 0, 'ö' in Latin-1.; save it as UTF-8")


def test_images_win_over_tables_beside_them(tmp_path):
    for index in range(5):
        Image.fromarray(noise(4, 4)).save(tmp_path / f"{index}.png")
    np.savez(tmp_path / "statistics.npz", mu=np.zeros(3), sigma=np.eye(3))
    (tmp_path / "attributes.csv").write_text("a\n1\n")
    data = load_data(tmp_path)
    assert data.shape == (1, 4, 4)
    assert "ignored 2 other files (attributes.csv, statistics.npz)" in data.note
