"""The paper's table as a command: resumable, complete, and honest about what was measured."""

import csv
import json
import re
import shutil

import numpy as np
import pytest
import torch

from expost.commands import fit
from expost.errors import UsageError
from expost.experiments import reproduce
from expost.experiments.hardware import hardware
from expost.experiments.published import EXPECTED, ROWS
from expost.experiments.table1_report import columns, distinct_pairs, markdown
from expost.models.official import PAPER
from expost.models.zoo import ZOO
from expost.types import Split


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
            assert len(cell["scores"]) == len(saved)
            assert all(score in saved for score in cell["scores"])
            assert {score["card"]["seed"] for score in saved} == {int(cell["run"][-1])}
    assert record["rows"]["vae"]["prior"] == "standard-normal"
    assert record["rows"]["rae"]["prior"] == "gaussian"


def test_the_markdown_shows_means_and_spreads(table):
    record = json.loads((table / "table.json").read_text())
    text = (table / "table.md").read_text()
    values = columns(record["rows"]["rae"])["GMM"]
    line = next(line for line in text.splitlines() if line.startswith("| rae |"))
    assert f"{sum(values) / 2:.3g} ±" in line
    assert "frechet-pixels" in text
    assert "[" not in text.split("| model |")[1]  # other features than the paper's: nothing to compare with
    assert "expost reproduce table1 --dataset digits --scale smoke --models vae rae --seeds 2" in text


def test_a_finished_table_is_not_done_again_and_a_deleted_cell_is_redone_alone(table):
    def times():
        return {path: path.stat().st_mtime_ns for path in [*table.glob("cells/*/*"), *table.glob("runs/*/model*")]}

    before, text = times(), (table / "table.md").read_text()
    gone = table / "cells" / "rae-1" / "gmm.json"
    gone.unlink()
    reproduce("table1", dataset="digits", scale="smoke", models=("vae", "rae"), seeds=2, out=table, workers=1)
    assert [path for path, time in times().items() if time != before[path]] == [gone]
    assert drop_times((table / "table.md").read_text()) == drop_times(text)
    reproduce("table1", dataset="digits", scale="smoke", models=("vae", "rae"), seeds=2, out=table, workers=1)
    assert times().keys() == before.keys()

    shutil.rmtree(table / "runs" / "vae-0")  # the run of one model: trained again, bit for bit, and nothing else
    kept = times()
    reproduce("table1", dataset="digits", scale="smoke", models=("vae", "rae"), seeds=2, out=table, workers=1)
    changed = [path for path, time in times().items() if time != kept.get(path)]
    assert {path.parent.name for path in changed} == {"vae-0"}


def test_the_csv_has_a_line_a_run_with_all_its_scores(table):
    record = json.loads((table / "table.json").read_text())
    with (table / "table.csv").open(newline="") as file:
        rows = {(row["model"], int(row["seed"])): row for row in csv.DictReader(file)}
    assert rows.keys() == {(model, seed) for model in ("vae", "rae") for seed in (0, 1)}
    for name, row in record["rows"].items():
        for column, values in columns(row).items():
            assert [float(rows[name, seed][f"{column} frechet-pixels"]) for seed in (0, 1)] == values
        assert rows[name, 1]["own density"] == row["prior"]
        assert float(rows[name, 0]["Rec mse"]) == columns(row, "mse")["Rec"][0]
        assert rows[name, 0]["training on"] == hardware("cpu")


def test_cells_know_their_hardware_and_old_ones_need_not(table, tmp_path):
    table = shutil.copytree(table, tmp_path / "table")
    words = {"dataset": "digits", "scale": "smoke", "models": ("vae", "rae"), "seeds": 2, "out": table, "workers": 1}
    record = json.loads((table / "table.json").read_text())
    here = hardware("cpu")
    assert record["hardware"] == here
    for row in record["rows"].values():
        assert all(cell["hardware"] == {"training": [here], "scoring": [here]} for cell in row["cells"])

    noted = table / "hardware" / "rae-1.json"
    noted.write_text('["GPU X"]')
    reproduce("table1", **words)
    record = json.loads((table / "table.json").read_text())
    assert set(record["hardware"].split("; ")) == {here, "GPU X"}
    assert "- GPU X: rae-1" in (table / "table.md").read_text()

    shutil.rmtree(table / "hardware")  # as a table of an older version is
    for path in table.glob("cells/*/*.json"):
        cell = json.loads(path.read_text())
        del cell["hardware"]
        del cell["asked"]["settings"]["training"]["factor"]  # a setting that came later
        path.write_text(json.dumps(cell))
    (table / "table.json").write_text(json.dumps(record | {"hardware": "an old machine"}))
    before = {path: path.stat().st_mtime_ns for path in table.glob("cells/*/*.json")}
    reproduce("table1", **words)
    assert {path: path.stat().st_mtime_ns for path in table.glob("cells/*/*.json")} == before  # nothing is redone
    again = json.loads((table / "table.json").read_text())
    assert again["hardware"] == "an old machine"
    assert {name: columns(row) for name, row in again["rows"].items()} == {
        name: columns(row) for name, row in record["rows"].items()
    }


def test_columns_can_be_chosen(table, tmp_path):
    out = reproduce("table1", dataset="digits", scale="smoke", models=("rae",), columns=("gmm", "Rec"), out=tmp_path)
    assert {path.name for path in out.glob("cells/*/*")} == {"reconstruction.json", "gmm.json"}
    text, record = (out / "table.md").read_text(), json.loads((out / "table.json").read_text())
    assert "| model | Rec | GMM | MSE | training, s | seeds |" in text
    assert "--columns gmm Rec" in record["command"]
    whole = json.loads((table / "table.json").read_text())["rows"]["rae"]
    for column, values in columns(record["rows"]["rae"]).items():
        assert values == [pytest.approx(columns(whole)[column][0], rel=1e-4)]
    with pytest.raises(UsageError, match="unknown column 'FID'; choose of: Rec, N, GMM, Interp"):
        reproduce("table1", columns=("FID",), out=tmp_path)
    with pytest.raises(UsageError, match="columns is no option of table2"):
        reproduce("table2", columns=("Rec",), out=tmp_path)


def test_walks_are_between_distinct_images_of_distinct_classes():
    y = torch.tensor([0] * 50 + [1] * 3 + [2] * 2 + [3])
    split = Split(torch.arange(len(y))[:, None], y)
    for seed in range(5):
        ends = [int(end) for pair in distinct_pairs(split, 2, seed) for end in pair]
        assert len(set(ends)) == 4
        assert {int(y[end]) for end in ends} == {0, 1, 2, 3}
        ends = [int(end) for pair in distinct_pairs(split, 20, seed) for end in pair]
        assert len(set(ends)) == len(ends) == 40
    one_class = Split(torch.arange(5)[:, None], torch.zeros(5))
    assert len(distinct_pairs(one_class, 9)) == 2
    assert len(distinct_pairs(Split(torch.arange(3)[:, None]), 9)) == 1
    assert distinct_pairs(Split(torch.arange(1)[:, None]), 9) == []


def test_another_density_makes_its_cells_anew(table, tmp_path):
    table = shutil.copytree(table, tmp_path / "table")
    record = json.loads((table / "table.json").read_text())
    before = columns(record["rows"]["rae"])["GMM"][0]
    fit(table / "runs" / "rae-0", "gmm", components=2)
    reproduce("table1", dataset="digits", scale="smoke", models=("rae", "rae"), seeds=1, out=table, workers=1)
    row = json.loads((table / "table.json").read_text())["rows"]["rae"]
    assert len(row["cells"]) == 1  # a row named twice is one row
    assert columns(row)["GMM"][0] != before


def test_rows_of_unlike_protocols_are_not_put_into_one_table():
    card = {"features": "pixels", "weights": "", "preprocessing": {}, "count": 5, "reference": "a", "seed": 0}
    cell = {"scores": [{"name": "frechet-pixels", "of": "gmm", "value": 1.0, "card": card | {"reference_count": 9}}]}
    other = {"scores": [{"name": "frechet-pixels", "of": "gmm", "value": 1.0, "card": card | {"reference_count": 8}}]}
    record = {
        "dataset": "x", "scale": {"name": "smoke", "samples": None}, "command": "", "hardware": "", "seconds": 1.0,
        "version": "", "rows": {"rae": {"prior": "gaussian", "cells": [cell]}},
        "peers": {"peer": {"prior": "gaussian", "cells": [other]}},
    }  # fmt: skip
    with pytest.raises(UsageError, match=r"rows rae and peer were scored in different ways \(reference_count: 9, 8\)"):
        markdown(record)


def drop_times(text):
    text = re.sub(r"[\d,]+ s of training", "", text)
    return [re.sub(r"\| [\d.]+( ± [\d.]+)? \| 2 \|$", "", line) for line in text.splitlines()]


def test_workers_find_what_one_process_finds(table, tmp_path):
    """Side by side or one after the other, the same numbers come out."""
    reproduce("table1", dataset="digits", scale="smoke", models=("vae", "rae"), seeds=1, out=tmp_path, workers=2)
    one, two = (json.loads((folder / "table.json").read_text())["rows"] for folder in (table, tmp_path))
    for name in ("vae", "rae"):
        assert columns(two[name])["GMM"] == [pytest.approx(columns(one[name])["GMM"][0], rel=1e-4)]
    assert "epoch 1/4" in (tmp_path / "logs" / "vae-0.log").read_text()


def test_expected_values_stand_beside_an_fid_only():
    card = {"features": "inception-2048", "weights": "0", "preprocessing": {}, "count": 1, "reference": "mnist test"}
    score = {"name": "fid", "of": "gmm", "value": 9.0, "card": card | {"reference_count": 1}}
    record = {
        "dataset": "mnist", "scale": {"name": "paper", "samples": None}, "command": "", "hardware": "", "seconds": 1.0,
        "version": "", "rows": {"rae-l2": {"prior": "gaussian", "cells": [{"scores": [score]}]}},
    }  # fmt: skip
    assert "| rae-l2 | - [10.53] | - [22.22] | 9 [8.69] | - [14.54] |" in markdown(record)
    score["name"] = "fid-768"
    assert "| rae-l2 | - | - | 9 | - |" in markdown(record)


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
    with pytest.raises(UsageError, match="domain is no option of table1"):
        reproduce("table1", domain="molecules", out=tmp_path)
    with pytest.raises(UsageError, match="seeds is no option of table2"):
        reproduce("table2", seeds=3, out=tmp_path)
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
