"""The ladder of densities as a command: one set of weights, resumable, with the arithmetic of its table."""

import json

import numpy as np
import pytest

from expost.commands import fit
from expost.errors import UsageError
from expost.experiments import reproduce
from expost.experiments.beyond import LADDER, RUNGS
from expost.experiments.beyond_report import as_csv, closed, figure, markdown, values
from expost.generators.selection import select
from expost.metrics.latent import held_out_log_likelihood
from expost.run import Run


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    out = tmp_path_factory.mktemp("beyond")
    return reproduce("beyond", dataset="digits", scale="smoke", seeds=2, out=out, workers=1)


def test_every_rung_is_scored_on_the_same_weights(table):
    record = json.loads((table / "table.json").read_text())
    assert record["rungs"] == ["reconstruction", *RUNGS]
    for run in record["runs"]:
        assert list(run["cells"]) == record["rungs"]
        cards = [score["card"] for cell in run["cells"].values() for score in cell["scores"]]
        assert len({card["model"] for card in cards}) == 1
        assert {card["seed"] for card in cards} == {run["seed"]}
        opened = Run.open(table / run["run"])
        generator = opened.generator("cpu")
        codes = generator.encode(opened.data().test.x)
        for name in LADDER:
            likelihood = held_out_log_likelihood(generator.densities[name], codes).mean
            assert run["cells"][name]["log-likelihood"] == pytest.approx(likelihood, rel=1e-6)
            assert run["cells"][name]["fit seconds"] >= 0
            assert run["cells"][name]["codes"] == len(opened.data().train)


def test_the_last_rung_is_what_auto_chooses(table):
    record = json.loads((table / "table.json").read_text())
    options = {"flow.transforms": 2, "flow.width": 32, "flow.steps": 200}
    options |= {"flow-matching.width": 64, "flow-matching.steps": 400}
    names = []
    for run in record["runs"]:
        cell, opened = run["cells"]["auto"], Run.open(table / run["run"])
        data, generator = opened.data(), opened.generator("cpu")
        codes, validation, test = (generator.encode(part.x) for part in (data.train, data.validation, data.test))
        chosen = select("auto", options, codes, validation)
        assert (cell["chosen"]["density"], cell["chosen"]["options"]) == (chosen.name, dict(chosen.options))
        assert cell["log-likelihood"] == pytest.approx(held_out_log_likelihood(chosen.density, test).mean, rel=1e-5)
        assert {score["of"] for score in cell["scores"]} == {chosen.name}
        names.append(chosen.name)
    assert f"auto chose, by the likelihood of validation codes: {names[0]}" in (table / "table.md").read_text()


def test_the_share_of_the_gap_is_taken_seed_by_seed():
    def cell(value):
        return {"scores": [{"name": "fid", "value": value}]}

    record = {
        "runs": [
            {"cells": {"reconstruction": cell(10.0), "gmm": cell(30.0), "flow": cell(22.0)}},
            {"cells": {"reconstruction": cell(20.0), "gmm": cell(24.0), "flow": cell(25.0)}},
            {"cells": {"reconstruction": cell(9.0), "gmm": cell(8.0), "flow": cell(7.0)}},  # no gap to close
            {"cells": {"reconstruction": cell(9.99), "gmm": cell(10.0), "flow": cell(12.0)}},
        ]
    }
    assert closed(record, "flow") == [0.4, -0.25]
    assert closed(record, "gmm") == [0.0, 0.0]
    assert closed(record, "reconstruction") == [1.0, 1.0]


def test_the_table_shows_means_spreads_and_the_command(table):
    record = json.loads((table / "table.json").read_text())
    text = (table / "table.md").read_text()
    assert text == markdown(record)
    found = values(record, "flow-matching")
    line = next(line for line in text.splitlines() if line.startswith("| flow matching |"))
    assert f"| {np.mean(found):.3g} ± {np.std(found, ddof=1):.2g} |" in line
    assert "expost reproduce beyond --dataset digits --scale smoke --models rae-l2 --seeds 2" in text
    lines = as_csv(record).splitlines()
    assert len(lines) == 1 + 2 * (1 + len(RUNGS))
    assert (table / "table.csv").read_text() == as_csv(record)
    assert (table / "figure.png").stat().st_size > 1_000


def test_a_deleted_rung_and_one_whose_density_was_fitted_again_are_redone_alone(table):
    def times():
        files = [*table.glob("cells/*/*"), *table.glob("runs/*/model.safetensors")]
        return {path: path.stat().st_mtime_ns for path in files}

    deleted, refitted = (table / "cells" / f"rae-l2-{seed}" / "gaussian.json" for seed in (1, 0))
    before, old = times(), json.loads(deleted.read_text())["scores"]
    deleted.unlink()
    fit(table / "runs" / "rae-l2-0", "gaussian", options={"regularization": 0.5})
    reproduce("beyond", dataset="digits", scale="smoke", seeds=2, out=table, workers=1)
    assert {path for path, time in times().items() if time != before[path]} == {deleted, refitted}
    assert json.loads(deleted.read_text())["scores"] == old
    assert Run.open(table / "runs" / "rae-l2-0").generator("cpu").densities["gaussian"].options["regularization"] < 0.5


def test_the_figure_has_a_strip_for_every_rung(table):
    run = Run.open(table / "runs" / "rae-l2-0")
    whole, two = figure(run, LADDER, "cpu", 4), figure(run, LADDER[:2], "cpu", 4)
    assert whole.width == two.width
    assert whole.height / two.height == pytest.approx((2 + len(LADDER)) / 4, rel=0.1)


def test_what_is_no_option_of_it_is_refused(tmp_path):
    with pytest.raises(UsageError, match="beyond takes one"):
        reproduce("beyond", models=("rae", "vae"), out=tmp_path / "a")
    with pytest.raises(UsageError, match="'vq-vae' has no codes that all"):
        reproduce("beyond", models=("vq-vae",), out=tmp_path / "a")
    with pytest.raises(UsageError, match="columns is no option of beyond"):
        reproduce("beyond", columns=("Rec",), out=tmp_path / "a")
    assert not list(tmp_path.iterdir())
