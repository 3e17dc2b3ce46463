"""Downloading: against a server of our own, since the real Hub is no part of a test."""

import hashlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from expost.data import load_data
from expost.errors import DataError


@pytest.fixture(scope="module")
def loopback(tmp_path_factory):
    folder = tmp_path_factory.mktemp("loopback")
    script = Path(__file__).with_name("hub_loopback.py")
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    command = [sys.executable, str(script), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, env=environment)
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout.splitlines()[-1])


def test_what_is_downloaded_is_what_was_put_there(loopback):
    folder, result = loopback
    pixels, labels = [], []
    for split in ("train", "test"):
        table = pq.read_table(folder / "hub" / "own" / "tiny" / "cropped" / f"{split}-0.parquet")
        images = [np.asarray(Image.open(io.BytesIO(row["bytes"]))) for row in table["image"].to_pylist()]
        pixels += [np.pad(image.transpose(2, 0, 1), ((0, 0), (1, 1), (1, 1))) for image in images]
        labels += table["label"].to_pylist()
    state = hashlib.sha256()
    for part in (slice(0, 25), slice(25, 30), slice(30, 40)):  # validation is the end of the training part
        state.update(np.stack(pixels[part]).tobytes() + np.array(labels[part], np.int64).tobytes())
    assert result["downloaded"] == state.hexdigest()
    assert "own/tiny (cropped)" in result["note"]
    assert "left out its split 'extra'" in result["note"]
    assert any("resolve" in request and "cropped/train-0.parquet" in request for request in result["requests"])
    assert not any("full/" in request and "resolve" in request for request in result["requests"])


def test_every_way_to_the_same_set_gives_the_same_data(loopback):
    _, result = loopback
    for way in ("local folder", "clone in EXPOST_DATA", "cached", "cached, hub down", "mapped", "mapped again"):
        assert result[way] == result["downloaded"], way
    assert result["prepared"] == 3  # a file a part, made once


def test_a_downloaded_set_is_found_and_read_without_the_network(loopback):
    folder, result = loopback
    assert result["found before"] is None
    assert result["found after"] == str(folder / "home" / "datasets" / "own___tiny" / "cropped")
    assert result["requests for cached"] == []
    assert result["offline flag"] is False  # put back as it was


@pytest.mark.parametrize("case", ["missing", "hub down", "hub silent"])
def test_failures_come_soon_in_one_line_that_says_where_to_put_files(loopback, case):
    folder, result = loopback
    message = result[case]["message"]
    assert message.startswith("cannot download 'tiny' (own/")
    assert "\n" not in message
    if case == "missing":
        assert message.endswith("put its files into a folder 'tiny' and set EXPOST_DATA to the folder that holds it")
    else:
        assert message.endswith(f"put its files into {folder / 'mine' / 'tiny'}")
    assert result[case]["seconds"] < 20


def test_a_set_of_any_owner_is_read_by_its_name(loopback):
    _, result = loopback
    note, test, columns, classes, train, validation = result["anybody"]
    assert (columns, classes, train, validation) == (["a", "b"], ["u", "v"], 36, 4)
    assert test == [[i / 2, 1] for i in range(6)]
    assert note.startswith(
        "from some-one/numbers.v2 (main); 46 rows of 2 numbers (a, b); 2 classes: u (23), v (23); 36/4/6 for"
    )
    assert result["nobody"].startswith(
        "no file or folder some-one/nothing; taken for a data set on the Hugging Face Hub: cannot download"
    )


def test_of_a_large_set_examples_are_drawn_from_a_stream(loopback):
    _, result = loopback
    remarks, parts = result["streamed"]
    assert remarks[0].startswith("streamed 20,000 examples of each split at most, of ")
    assert remarks[0].endswith("drawn from its files in random order through a buffer of 2,000 with seed 0")
    assert sorted(parts["train"]) == [[i, i % 7] for i in range(40)] != parts["train"]
    assert sorted(parts["test"]) == [[i / 2, 1] for i in range(6)]


def test_strings_of_the_hub_are_read_by_name(loopback):
    _, result = loopback
    assert result["strings"] == [True, False, False]
    note, domain, test, others = result["read"]
    assert domain == "molecules"
    assert test == [f"CC(C){'C' * i}O" for i in range(40, 80)]
    assert others == sorted(f"CC(C){'C' * i}O" for i in range(40))
    assert note.startswith("from some-one/strings; 80 molecules of 6 to 85 characters; 36/4/40 for")
    assert note.endswith("strings of column 'smiles'; left out 1 column: y")
    remarks, sizes = result["streamed strings"]
    assert remarks[0].startswith("streamed 20,000 examples of each split at most")
    assert sizes == {"train": 40, "test": 40}
    assert "some-one/strings holds strings; read them with" in result["no images"]


@pytest.mark.parametrize("name", ["data/images", "a/b/c", "./a", "runs/x.csv", "a", Path("a/b")])
def test_what_is_more_likely_a_path_is_not_asked_for_on_the_hub(name, tmp_path, monkeypatch):
    from expost.data.hub import on_hub

    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    assert on_hub(name) is None
    assert on_hub("owner/name:en").config == "en"
    assert on_hub("owner/name.v2").repository == "owner/name.v2"


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "cifar10", "svhn", "celeba"])
def test_every_hub_set_without_network_says_where_to_put_its_files(name, tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", "http://127.0.0.1:9")  # the discard port: nobody listens
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.delenv("HF_DATASETS_CACHE", raising=False)
    monkeypatch.setenv("EXPOST_DATA", str(tmp_path / "mine"))
    with pytest.raises(DataError, match=rf"cannot download '{name}' \(.*; put its files into {tmp_path}/mine/{name}$"):
        load_data(name)
