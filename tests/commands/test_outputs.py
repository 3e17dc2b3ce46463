"""Where results go if no --out is given: one rule, and nothing that exists is written over."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import expost
from expost.cli import main
from expost.commands.outputs import label_of, new_run, within
from expost.errors import UsageError

QUICK: Any = {"epochs": 1, "width": 8, "latent_dim": 4, "limit": 100, "tensorboard": False}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("outputs") / "run"
    opened = expost.train("rae", "digits", folder, **QUICK)
    expost.fit(opened, "gaussian")
    return opened


@pytest.mark.parametrize(
    ("data", "label"),
    [
        ("mnist-5k", "mnist-5k"),
        ("wines.csv.gz", "wines"),
        ("a folder/my photos/", "my-photos"),
        ("owner/name", "name"),
        ("größe.npy", "größe"),
        (".hidden", "hidden"),
        ("/", "data"),
    ],
)
def test_a_data_set_names_a_folder(data, label):
    assert label_of(data) == label


def test_the_first_free_number_is_taken(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert new_run("a-b") == Path("runs/a-b-1")
    Path("runs/a-b-1").mkdir(parents=True)
    assert new_run("a-b") == Path("runs/a-b-1")  # empty, so nothing is lost
    Path("runs/a-b-1/config.json").touch()
    Path("runs/a-b-3").mkdir()
    Path("runs/a-b-3/config.json").touch()
    assert new_run("a-b") == Path("runs/a-b-2")
    assert new_run("a-b", begun=lambda folder: folder.name == "a-b-1") == Path("runs/a-b-1")
    assert within(tmp_path, "s.png") == tmp_path / "s.png"
    (tmp_path / "s.png").touch()
    (tmp_path / "s-2.png").touch()
    assert within(tmp_path, "s.png") == tmp_path / "s-3.png"


def test_training_needs_no_folder_and_says_which_it_takes_first(tmp_path, monkeypatch, capsys):
    np.savez(tmp_path / "my numbers.npz", x=np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32))
    monkeypatch.chdir(tmp_path)
    words = ["train", "rae", "--data", "my numbers.npz", "--epochs", "1", "--width", "8", "--no-tensorboard"]
    for number in (1, 2):
        main(words)
        printed = capsys.readouterr()
        folder = f"runs/my-numbers-rae-{number}"
        assert printed.err.splitlines()[0] == f"run: {folder}"
        assert printed.out.strip() == folder
        assert (tmp_path / folder / "config.json").is_file()
    main([*words, "--dry-run"])
    assert "runs/my-numbers-rae-3" in capsys.readouterr().err
    assert not (tmp_path / "runs" / "my-numbers-rae-3").exists()


def test_resuming_names_the_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="give its folder with out"):
        expost.train("rae", "digits", resume=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["sample", "-n", "4"], "samples"),
        (["reconstruct", "-n", "4"], "reconstructions"),
        (["interpolate", "-n", "2", "--steps", "3"], "paths"),
        (["report"], "report"),
    ],
)
def test_what_belongs_to_a_run_goes_into_its_folder_and_replaces_nothing(
    words, name, run, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    command, *options = words
    kept = {}
    for ending in ("", "-2"):
        main([command, str(run.folder), *options, "--json"])
        path = Path(json.loads(capsys.readouterr().out)["path"])
        assert (path.parent, path.stem) == (run.folder, name + ending)
        assert all(each.read_bytes() == content for each, content in kept.items())
        kept[path] = path.read_bytes()
    assert not list(tmp_path.iterdir())


def test_a_page_about_several_runs_goes_beside_the_first(run, tmp_path):
    other = expost.train("ae", "digits", tmp_path / "other", **QUICK)
    from expost.commands.reporting import report

    assert report((run.folder, other.folder)) == run.folder.parent / "report.html"


def test_an_upload_that_is_only_looked_at_goes_into_the_runs_folder(run):
    from expost.commands.publishing import push

    assert Path(push(run, "me/name", license="mit", dry_run=True)) == run.folder / "upload"
    assert (run.folder / "upload" / "README.md").is_file()


def test_a_fetched_run_gets_a_folder_of_its_own(run, tmp_path, monkeypatch):
    from expost.commands.publishing import pull, push

    folder = push(run, "me/name", license="mit", dry_run=True, out=tmp_path / "my model")
    monkeypatch.chdir(tmp_path)
    assert pull(folder).folder == Path("runs/my-model-1")


def test_a_sweep_has_one_name_so_that_the_same_command_goes_on(tmp_path, monkeypatch):
    from expost.experiments import sweep

    monkeypatch.chdir(tmp_path)
    options = ("epochs=1", "width=8", "latent_dim=4", "limit=100")
    for _ in range(2):
        folder = sweep(("rae",), "digits", options=options, measures=("latent",), by="loss", device="cpu", workers=1)
        assert folder == Path("runs/sweep-digits-rae")
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["sweep-digits-rae"]
