"""The paper's table as a command: resumable, complete, and honest about what was measured."""

import json

import numpy as np
import pytest

from expost.errors import UsageError
from expost.experiments import reproduce
from expost.experiments.table1 import EXPECTED, ROWS, columns, markdown
from expost.presets import PAPER
from expost.zoo import ZOO


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    out = tmp_path_factory.mktemp("table")
    reproduce("table1", dataset="digits", scale="smoke", models=("vae", "rae"), seeds=2, out=out)
    return out


def test_every_cell_is_the_score_of_its_run(table):
    record = json.loads((table / "table.json").read_text())
    assert list(record["rows"]) == ["vae", "rae"]
    for row in record["rows"].values():
        assert {column: len(values) for column, values in columns(row).items()} == dict.fromkeys(
            ("Rec", "N", "GMM", "Interp"), 2
        )
        for cell in row["cells"]:
            saved = json.loads((table / cell["run"] / "metrics.json").read_text())["scores"]
            assert cell["scores"] == saved
    assert record["rows"]["vae"]["prior"] == "standard-normal"
    assert record["rows"]["rae"]["prior"] == "gaussian"


def test_the_markdown_shows_means_and_spreads(table):
    record = json.loads((table / "table.json").read_text())
    text = (table / "table.md").read_text()
    values = columns(record["rows"]["rae"])["GMM"]
    line = next(line for line in text.splitlines() if line.startswith("| rae |"))
    assert f"{sum(values) / 2:.3g} ±" in line
    assert "frechet-pixels" in text
    assert "paper" not in text.splitlines()[-1]  # other features than the paper's: nothing to compare with
    assert "expost reproduce table1 --dataset digits --scale smoke --models vae rae --seeds 2" in text


def test_a_finished_table_is_not_done_again_and_a_broken_one_goes_on(table):
    weights = sorted((table / "runs").glob("*/model.safetensors"))
    before = [path.stat().st_mtime_ns for path in weights]
    text = (table / "table.md").read_text()
    (table / "runs" / "rae-1" / "cell-pixels.json").unlink()
    reproduce("table1", dataset="digits", scale="smoke", models=("vae", "rae"), seeds=2, out=table)
    assert [path.stat().st_mtime_ns for path in weights] == before
    assert (table / "table.md").read_text() == text


def test_expected_values_are_shown_beside_an_fid_only():
    card = {"features": "inception-2048", "weights": "0", "preprocessing": {}, "count": 1, "reference": "mnist test"}
    score = {"name": "fid", "of": "gmm", "value": 9.0, "card": card | {"reference_count": 1}}
    record = {
        "dataset": "mnist", "scale": {"name": "paper", "samples": None}, "command": "", "hardware": "", "seconds": 1.0,
        "version": "", "rows": {"rae-l2": {"prior": "gaussian", "cells": [{"scores": [score]}]}},
    }  # fmt: skip
    assert "| rae-l2 | - | - | 9 | - | - | 10.53 / 22.22 / 8.69 / 14.54 |" in markdown(record)


def test_the_tables_cover_the_papers_rows():
    assert set(ROWS) <= set(ZOO)
    assert EXPECTED.keys() == PAPER.keys()
    for rows in EXPECTED.values():
        assert set(rows) == set(ROWS)
        assert all(len(values) == 4 for values in rows.values())
        best = min(values[2] for values in rows.values() if values[2] is not None)
        assert best in {8.69, 74.16, 40.95}


def test_wrong_words(tmp_path):
    with pytest.raises(UsageError, match="unknown scale 'big'"):
        reproduce("table1", scale="big", out=tmp_path)
    with pytest.raises(UsageError, match="unknown model 'vea'"):
        reproduce("table1", models=("vea",), out=tmp_path)
    with pytest.raises(UsageError, match="seeds is 0"):
        reproduce("table1", seeds=0, out=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_table_of_another_scale_is_not_passed_off_as_this_one(table):
    with pytest.raises(UsageError, match="holds a run with other settings"):
        reproduce("table1", dataset="digits", scale="quick", models=("vae",), out=table)


def test_vectors_have_a_table_without_a_figure(tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(200, 5)).astype(np.float32))
    out = reproduce("table1", dataset=str(tmp_path / "x.npy"), scale="smoke", models=("ae",), out=tmp_path / "out")
    assert "frechet-values" in (out / "table.md").read_text()
    assert not (out / "figure.png").exists()
