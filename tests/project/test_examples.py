"""Every example runs, prints what it says it prints, and is in the table of examples."""

import re
import runpy
from pathlib import Path

import pytest
from PIL import Image

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
#: Longer than the others, and tested with the estimator that it is about.
LONGER = {"table_anomalies"}

pytestmark = pytest.mark.usefixtures("one_thread")


def printed(name, words, monkeypatch, capsys):
    """Run an example as a script; return the lines that it prints."""
    monkeypatch.setattr("sys.argv", [name, *map(str, words)])
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    return capsys.readouterr().out.splitlines()


def test_images_score_a_mixture_above_one_gaussian(tmp_path, monkeypatch, capsys):
    lines = printed("images", ["--out", tmp_path / "run", "--epochs", 3], monkeypatch, capsys)
    values = {name: float(value) for name, value in (line.split() for line in lines[:-1])}
    assert set(values) == {"reconstruction", "gaussian", "gmm", "interpolation"}
    assert values["reconstruction"] < values["gmm"] < values["gaussian"]
    assert lines[-1] == str(tmp_path / "run" / "samples.png")
    with Image.open(lines[-1]) as picture:
        assert picture.size == (1364, 892)
        assert picture.convert("L").getextrema() == (0, 255)


def test_an_autoencoder_of_ones_own_gets_better_densities(tmp_path, monkeypatch, capsys):
    lines = printed("foreign_autoencoder", [tmp_path / "foreign.png"], monkeypatch, capsys)
    rows = {line.split()[0]: [float(word) for word in re.findall(r"-?\d+\.\d+", line)] for line in lines}
    assert list(rows) == ["standard-normal", "gaussian", "gmm"]
    likelihoods, distances = zip(*rows.values(), strict=True)
    assert list(likelihoods) == sorted(likelihoods)
    assert list(distances) == sorted(distances, reverse=True)
    with Image.open(tmp_path / "foreign.png") as picture:
        assert picture.convert("L").getextrema() == (0, 255)


@pytest.mark.parametrize("rdkit", [True, False])
def test_molecules_are_counted_and_not_more_than_that_is_said(rdkit, tmp_path, monkeypatch, capsys):
    if rdkit:
        pytest.importorskip("rdkit", reason="install it with: pip install -e '.[molecules]'")
    else:
        monkeypatch.setattr("expost.utils.extras.installed", lambda name: False)
    lines = printed("molecules", ["--out", tmp_path / "run", "--epochs", 1], monkeypatch, capsys)
    counts = [[int(number) for number in re.findall(r"\d+", line)] for line in lines if ": " in line]
    (same, held_out), (ended, drawn) = counts[:2]
    assert held_out == 62
    assert drawn == 200
    assert 0 <= same <= held_out
    assert 0 <= ended <= drawn
    assert len(counts) == (4 if rdkit else 2)
    if rdkit:
        valid, of, different = counts[2]
        assert of == drawn
        assert counts[3][0] <= different <= valid <= ended


def test_the_table_lists_every_example_and_the_new_ones_are_short():
    listed = set(re.findall(r"^\| \[(\w+)\.py\]\(\1\.py\) \|", (EXAMPLES / "README.md").read_text(), re.MULTILINE))
    paths = {path.stem: path for path in EXAMPLES.glob("*.py")}
    assert listed == set(paths)
    for name in listed - LONGER:
        assert len(paths[name].read_text(encoding="utf-8").splitlines()) < 60, name
