"""expost data: the list of data sets, and what one of them is."""

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from expost import cli
from expost.commands import data, train
from expost.commands.listing import DataShown
from expost.data import load_data
from expost.errors import DataError, UsageError
from expost.examples.pictures import grid

RNG = np.random.default_rng(0)


def shown_of(path, **options):
    """Return what the command returns of a path, which is no list."""
    found = data(path, **options)
    assert isinstance(found, DataShown)
    return found


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for part, count in (("train", 12), ("test", 4)):
        for kind in ("cat", "dog"):
            for index in range(count):
                path = tmp_path / "photos" / part / kind / f"{index:02d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(RNG.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(path)
    return tmp_path / "photos"


def test_images_are_described_and_sixteen_are_drawn(folder, capsys):
    cli.main(["data", "photos"])
    shown = capsys.readouterr().out.splitlines()
    loaded = load_data(folder.resolve())
    assert shown[0] == f"data: {loaded.note}"
    assert shown[0].count(str(folder)) == 1
    place, _, labels = shown[1].partition(", row by row: ")
    chosen = torch.linspace(0, len(loaded.train) - 1, 16).round().long()
    assert labels.split(", ") == [loaded.classes[index] for index in loaded.train.y[chosen]]
    assert place == "photos-examples.png"
    assert np.array_equal(np.asarray(Image.open(place)), np.asarray(grid(loaded.train.x[chosen])))


def test_pictures_are_never_overwritten_unasked(folder):
    assert [shown_of("photos").file for _ in range(3)] == [
        "photos-examples.png",
        "photos-examples-2.png",
        "photos-examples-3.png",
    ]
    assert shown_of("photos", out="photos-examples.png").file == "photos-examples.png"
    with pytest.raises(UsageError, match="cannot write this as 'a.csv'; give one of: .png"):
        data("photos", out="a.csv")


def test_what_overrules_does_so_here_too(folder, capsys):
    images = RNG.integers(0, 4096, (8, 9, 20)).astype(np.uint16)
    images[0, 0, 0], images[0, 0, 1] = 0, 4095
    np.save("x.npy", images)
    cli.main(["data", "x.npy", "--layout", "HWN", "--range", "0", "4095", "--out", "x.png", "--json"])
    shown = json.loads(capsys.readouterr().out)
    assert (
        "; 20 images of 9x8 pixels (width x height), grey; values 0 to 4,095 scaled to 0..255" in shown["description"]
    )
    assert shown["file"] == "x.png"
    cli.main(["data", "photos", "--parts", "train=train/cat", "test=train/dog", "--size", "8"])
    said = capsys.readouterr().out
    assert "resized to 8x8 where of another size; 11/1/12 for training/validation/test" in said
    with pytest.raises(DataError, match="integer pixels from 0 to 4095"):
        data("x.npy", layout="HWN")


def test_the_line_is_that_of_training_and_of_a_dry_run(folder, capsys):
    options: dict[str, Any] = {
        "epochs": 1,
        "latent_dim": 2,
        "precision": "float32",
        "tensorboard": False,
        "parts": ("train=test", "test=train"),
    }
    run = train("rae", "photos", "run", **options)
    line = f"data: {run.data().note}"
    assert line in capsys.readouterr().err.splitlines()
    assert run.config.data.parts == ("train=test", "test=train")
    assert len(run.data().test) == 24
    words = ["train", "rae", "--data", "photos", "--out", "other", "--dry-run", "--parts", "train=test", "test=train"]
    cli.main([*words, "--latent-dim", "2"])
    assert line in capsys.readouterr().err.splitlines()
    assert shown_of("photos", parts=("train=test", "test=train")).description == run.data().note


def test_tables_show_rows_under_their_names(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    lines = [f"{0.5 * index},{index * index},{'ab'[index % 2]}" for index in range(30)]
    (tmp_path / "t.csv").write_text("\n".join(["height,area,label", *lines]) + "\n")
    cli.main(["data", "t.csv"])
    shown = capsys.readouterr().out.splitlines()
    assert "30 rows of 2 numbers (height, area); 2 classes: a (15), b (15)" in shown[0]
    assert shown[1].split() == ["height", "area", "class"]
    assert len(shown) == 10
    for row in shown[2:]:
        height, area, kind = row.split()
        assert math.isclose(float(area), 4 * float(height) ** 2)
        assert kind == "ab"[int(2 * float(height)) % 2]
    assert shown_of("t.csv", out="rows.csv").file == "rows.csv"
    assert len((tmp_path / "rows.csv").read_text().splitlines()) == 17
    np.save("wide.npy", RNG.normal(size=(30, 40)))
    cli.main(["data", "wide.npy"])
    assert capsys.readouterr().out.splitlines()[-1] == "(11 of 40 columns)"


def test_strings_are_shown(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    strings = [f"{first}*x+{second}" for first in range(1, 9) for second in range(1, 9)]
    (tmp_path / "sums.txt").write_text("\n".join(strings))
    cli.main(["data", "sums.txt", "--out", "some.txt"])
    shown = capsys.readouterr().out.splitlines()
    assert "/6/6 for training/validation/test" in shown[0]
    assert len(shown) == 18
    assert set(shown[1:17]) <= set(strings)
    assert (tmp_path / "some.txt").read_text().split() == shown[1:17]


def test_strings_take_no_options_of_images(tmp_path):
    (tmp_path / "sums.txt").write_text("1\n2\n3\n")
    for option in ({"range": (0, 1)}, {"layout": "NHW"}, {"parts": ("train=a",)}, {"size": 8}):
        message = f"{next(iter(option))} is for images and arrays, and .*sums.txt holds strings; leave it out"
        with pytest.raises(UsageError, match=message):
            data(str(tmp_path / "sums.txt"), **option)  # type: ignore[arg-type]
        with pytest.raises(UsageError, match=message):
            train("character-vae", tmp_path / "sums.txt", tmp_path / "run", **option)  # type: ignore[arg-type]


def test_without_a_path_the_data_sets_are_listed(capsys):
    cli.main(["data"])
    shown = capsys.readouterr().out
    assert "mnist-5k" in shown
    assert "expost data PATH shows what would be read" in shown
    listed = data()
    assert isinstance(listed, list)
    assert [entry["name"] for entry in listed][:2] == ["mnist-5k", "digits"]


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(UsageError, match="no file or folder"):
        data(str(tmp_path / "nothing"))
