"""Run folders of every format that was released are read for ever; those of the future are refused in one line.

`scripts/run_fixture.py` made the folders, with the first version of each format.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import expost
import expost.search
from expost.commands.reporting import report
from expost.config import FORMAT
from expost.densities import TractableDensity
from expost.errors import DataError
from expost.run import Run
from expost.utils.store import read_tensors, write_json, write_tensors

FOLDERS = Path(__file__).parent / "run_folders"
FORMATS = range(1, FORMAT + 1)


@pytest.fixture(params=[f"format-{number}/{kind}" for number in FORMATS for kind in ("vectors", "strings")])
def saved(request, tmp_path):
    return shutil.copytree(FOLDERS / request.param, tmp_path / "run")


def test_every_format_has_its_folders_and_they_are_small():
    assert {path.name for path in FOLDERS.iterdir()} == {f"format-{number}" for number in FORMATS}
    for folder in FOLDERS.glob("*/*"):
        assert json.loads((folder / "config.json").read_text())["format"] == int(folder.parent.name[-1])
        assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 200_000


def test_it_computes_what_its_own_version_computed(saved):
    run, expected = Run.open(saved), json.loads((saved / "expected.json").read_text())
    generator, x = run.generator("cpu"), run.data().test.x[:4]
    assert generator.densities.keys() >= expected["log_prob"].keys()
    z = generator.encode(x)
    torch.testing.assert_close(z, torch.tensor(expected["codes"]), rtol=1e-3, atol=1e-4)
    decoded = generator.decode(z).flatten(1)[:, :8]
    torch.testing.assert_close(decoded, torch.tensor(expected["decoded"]), rtol=1e-3, atol=1e-3)
    for name, density in generator.densities.items():
        assert torch.isfinite(density.sample(5, generator=torch.Generator().manual_seed(0))).all()
        if isinstance(density, TractableDensity):
            log_prob = torch.tensor(expected["log_prob"][name], dtype=torch.float64)
            torch.testing.assert_close(density.log_prob(z).double(), log_prob, rtol=1e-3, atol=1e-2)


def test_everything_goes_on_from_it(saved, tmp_path, capsys, monkeypatch):
    run = Run.open(saved)
    strings = run.config.data.codec is not None
    ending = "txt" if strings else "png"
    for command in (expost.sample, expost.reconstruct, expost.interpolate):
        assert Path(command(run, out=tmp_path / f"{command.__name__}.{ending}", n=3)).is_file()
    if not strings:
        assert Path(expost.sample(run, label="3", n=2, out=tmp_path / "threes.png")).stat().st_size
    expost.fit(run, "gmm", components=3)
    before = json.loads((saved / "metrics.json").read_text())["scores"]
    given: dict[str, Any] = {} if strings else {"features": "pixels", "allow_few": True}
    scores = expost.evaluate(run, ("gmm",), samples=20, **given)
    assert before
    assert scores
    assert Path(report((saved,), tmp_path / "report.html")).stat().st_size
    if strings:
        search, began = expost.search.optimize, read_tensors(saved / "began_with.safetensors")[0]

        def on_this_machine(codes, scores, *rest):
            """A search goes on from the same bits, which another machine does not compute."""
            torch.testing.assert_close(codes, began["codes"], rtol=1e-3, atol=1e-4)
            torch.testing.assert_close(scores, began["scores"])
            return search(began["codes"], began["scores"], *rest)

        monkeypatch.setattr(expost.search, "optimize", on_this_machine)
        options: dict[str, Any] = {"batch": 2, "decodes": 2, "inducing": 4, "region": "box"}
        assert len(expost.optimize(run, rounds=2, **options).rounds) == 2
    capsys.readouterr()
    done = run.finished_epochs()
    expost.train(run.config.model.name, run.config.data.name, saved, resume=True, epochs=done + 1)
    assert Run.open(saved).finished_epochs() == done + 1
    assert f"epoch {done + 1}/{done + 1}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("version", "message"),
    [
        (FORMAT + 1, f"has format {FORMAT + 1}, newer than this expost reads"),
        (10**30, "newer than this expost reads"),
        (str(FORMAT + 1), "no valid format version"),
        (FORMAT + 1.0, "no valid format version"),
        (0, "no valid format version"),
        (None, "no valid format version"),
    ],
)
def test_a_folder_of_another_format_is_refused(tmp_path, version, message):
    folder = shutil.copytree(FOLDERS / f"format-{FORMAT}" / "vectors", tmp_path / "run")
    config = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.json", config | {"format": version, "of_the_future": True})
    refused(lambda: Run.open(folder), message)


def refused(open_it, message):
    with pytest.raises(DataError, match=message) as error:
        open_it()
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300


def test_scores_densities_and_searches_of_the_future_are_refused(tmp_path):
    folder = shutil.copytree(FOLDERS / f"format-{FORMAT}" / "vectors", tmp_path / "run")
    scores = json.loads((folder / "metrics.json").read_text())
    write_json(folder / "metrics.json", scores | {"format": 2})
    refused(lambda: expost.evaluate(folder, ("gmm",), features="pixels", allow_few=True), "format 2, newer than 1")
    refused(lambda: expost.rank((folder,)), "format 2, newer than 1")
    assert "format 2, newer than 1" in report((folder,), tmp_path / "report.html").read_text("utf-8")

    path = folder / "densities" / "gaussian.safetensors"
    tensors, record = read_tensors(path)
    write_tensors(path, tensors, record | {"version": record["version"] + 1})
    refused(lambda: Run.open(folder).generator("cpu"), "newer than")

    strings = shutil.copytree(FOLDERS / f"format-{FORMAT}" / "strings", tmp_path / "strings")
    search = next(strings.glob("search/*/search.json"))
    write_json(search, json.loads(search.read_text()) | {"format": 99})
    refused(
        lambda: expost.optimize(strings, rounds=2, batch=2, decodes=2, inducing=4, region="box"), "format 99, newer"
    )
