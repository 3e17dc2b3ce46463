"""Optional packages that are not installed: one line that names the extra, and nothing half done."""

import itertools
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from packaging.requirements import Requirement

import expost
from expost.data.hub import Hub
from expost.errors import UsageError
from expost.metrics.expressions import ExpressionScore
from expost.search.drawing import curves
from expost.utils.extras import installed, require

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def hidden(monkeypatch):
    """Hide packages, as if they were not installed."""

    def hide(*names):
        for name in names:
            monkeypatch.setitem(sys.modules, name, None)
            for module in [each for each in sys.modules if each.startswith(f"{name}.")]:
                monkeypatch.delitem(sys.modules, module)

    return hide


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A trained run without event files."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    return expost.train("rae", "digits", folder, epochs=1, width=16, latent_dim=4, limit=200, tensorboard=False)


def lacking(extra):
    return pytest.raises(UsageError, match=rf"^[^\n]+; install it with: pip install 'expost\[{extra}\]'$")


def test_what_is_there_is_imported_and_what_is_not_is_missed(hidden):
    assert installed("json.decoder")
    assert require("json.decoder", "hub", "nothing needs it").JSONDecoder
    hidden("pyarrow")
    assert not installed("pyarrow")
    with lacking("hub") as error:
        require("pyarrow.parquet", "hub", "reading needs PyArrow")
    assert str(error.value).startswith("reading needs PyArrow; ")


def test_a_package_that_lacks_another_itself_is_not_called_missing(tmp_path, monkeypatch):
    (tmp_path / "halfbaked.py").write_text("import absent_of_all_things\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="absent_of_all_things"):
        require("halfbaked", "hub", "a test needs it")


def test_parquet_needs_the_extra_and_csv_none(tmp_path, hidden):
    values = np.random.default_rng(0).normal(size=(20, 2))
    pq.write_table(pa.table({"a": values[:, 0], "b": values[:, 1]}), tmp_path / "a.parquet")
    (tmp_path / "a.csv").write_text("\n".join(["a,b", *(f"{a!r},{b!r}" for a, b in values.tolist())]))
    read = expost.load_data(tmp_path / "a.parquet")
    hidden("pyarrow", "expost.data.parquet")
    with lacking("hub"):
        expost.load_data(tmp_path / "a.parquet")
    assert np.array_equal(expost.load_data(tmp_path / "a.csv").train.x, read.train.x)


def test_a_set_of_the_hub_needs_the_extra(tmp_path, hidden, monkeypatch):
    monkeypatch.delenv("EXPOST_DATA", raising=False)
    hidden("datasets")
    with lacking("hub"):
        Hub(str(tmp_path), "default").read("mnist")


def test_sharing_needs_the_extra_and_reading_a_folder_none(run, tmp_path, hidden):
    hidden("huggingface_hub", "expost.sharing.hub")
    with lacking("hub"):
        expost.push(run, "me/digits", license="mit")
    with lacking("hub"):
        expost.save_pretrained(run, tmp_path / "saved", license="mit")
    assert not (tmp_path / "saved").exists()
    with lacking("hub"):
        expost.pull("me/digits", tmp_path / "pulled")
    generator = expost.from_pretrained(run.folder)
    assert isinstance(generator, expost.Generator)
    assert generator.decode(torch.zeros(1, 4)).shape == (1, 1, 8, 8)


def test_event_files_are_written_where_tensorboard_is(tmp_path, hidden, capsys):
    options: dict[str, Any] = {"epochs": 1, "width": 16, "latent_dim": 4, "limit": 200}
    assert expost.train("rae", "digits", tmp_path / "a", **options).config.training.tensorboard
    assert list((tmp_path / "a" / "tensorboard").iterdir())
    hidden("tensorboard")
    assert not expost.train("rae", "digits", tmp_path / "b", **options).config.training.tensorboard
    assert not (tmp_path / "b" / "tensorboard").exists()
    with lacking("tensorboard"):
        expost.train("rae", "digits", tmp_path / "c", **options, tensorboard=True)
    assert not (tmp_path / "c").exists()
    assert "TensorBoard" not in capsys.readouterr().err
    expost.train("rae", "digits", tmp_path / "a", resume=True, epochs=2)  # begun where it is installed
    assert "no event files are written, since TensorBoard is not installed" in capsys.readouterr().err


def test_pictures_of_a_search_need_the_extra(hidden):
    hidden("matplotlib")
    with lacking("molecules"):
        curves(ExpressionScore("sin(x)"), [])


def test_development_has_every_extra():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert extras["dev"][0] == f"expost[{','.join(name for name in extras if name not in ('dev', 'peers'))}]"


def test_what_is_tested_is_pinned_and_allowed():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    asked = [each for each in map(Requirement, itertools.chain(*lists)) if each.name != "expost"]
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert {each.name.lower() for each in asked} == set(pinned)
    for each in asked:
        assert each.specifier.contains(pinned[each.name.lower()]), each
    installs = [line for line in (ROOT / "Makefile").read_text().splitlines() if "pip install" in line]
    assert len(installs) >= 3
    assert all("--constraint constraints.txt" in line for line in installs)
