"""Sweeps: every combination once, ranked by the validation split, gone on with and widened."""

import csv
import json
import shutil
from typing import Any

import numpy as np
import pytest
import torch

from expost.commands import rank
from expost.config import to_json
from expost.errors import DataError, UsageError
from expost.evaluation.evaluate import score_examples
from expost.evaluation.protocol import Protocol, pick_space
from expost.evaluation.scores import Card, Score
from expost.experiments import sweep
from expost.experiments.sweep import settings
from expost.experiments.sweep_report import check_comparable, choose_score, markdown, ranked
from expost.run import Run
from expost.utils.seeding import SAMPLES, stream_seed

GRID: dict[str, Any] = {"models": ("rae-l2", "ae"), "data": "digits", "device": "cpu", "workers": 1}


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    out = tmp_path_factory.mktemp("sweep")
    return sweep(**GRID, out=out, options=("epochs=1,3", "width=8"), seeds=2)


def read(folder):
    return json.loads((folder / "table.json").read_text())


def times(folder):
    return {path: path.stat().st_mtime_ns for path in [*folder.glob("results/*"), *folder.glob("runs/*/*.*")]}


def test_every_combination_is_a_run_with_its_settings(swept):
    record = read(swept)
    assert {(row["model"], row["options"]["epochs"]) for row in record["rows"]} == {
        (model, epochs) for model in ("rae-l2", "ae") for epochs in (1, 3)
    }
    for row in record["rows"]:
        assert [run["seed"] for run in row["runs"]] == [0, 1]
        for run in row["runs"]:
            config = Run.open(swept / run["run"]).config
            assert (config.model.name, config.training.epochs, config.model.width) == (
                row["model"], row["options"]["epochs"], 8
            )  # fmt: skip
            assert config.training.seed == run["seed"]


def test_the_ranking_is_by_samples_against_the_validation_split(swept):
    record = read(swept)
    assert record["score"] == {"name": "frechet-pixels", "of": "gmm", "split": "validation"}
    for row in record["rows"]:
        for each in row["runs"]:
            run = Run.open(swept / each["run"])
            data, generator = run.data(), run.generator("cpu")
            drawn = generator.sample(len(data.validation), "gmm", stream_seed(each["seed"], SAMPLES))
            for split, x in (("validation", data.validation.x), ("test", data.test.x)):
                protocol = Protocol(("frechet",), seed=each["seed"])
                (expected,) = score_examples(drawn, x, pick_space("pixels", data, "cpu"), protocol)
                assert each[split] == pytest.approx(expected.value, rel=1e-6)
            result = json.loads((swept / "results" / f"{run.folder.name}.json").read_text())
            references = {split: {s["card"]["reference"] for s in result[split]} for split in ("validation", "test")}
            assert references == {"validation": {"digits validation"}, "test": {"digits test"}}
    means = [sum(run["validation"] for run in row["runs"]) / 2 for row in record["rows"]]
    assert means == sorted(means) == [row["validation"]["mean"] for row in record["rows"]]
    places = [row["place"] for row in record["rows"]]
    assert places[0] == 1
    assert places == sorted(places)
    assert all(place <= index for index, place in enumerate(places, 1))
    assert [row["tied"] for row in record["rows"]] == [places.count(place) > 1 for place in places]
    assert record["rows"][0]["options"]["epochs"] == 3  # three times the training shows


def test_the_table_is_written_as_text_and_as_csv_too(swept):
    record, text = read(swept), (swept / "table.md").read_text()
    best = record["rows"][0]
    first = "1=" if best["tied"] else "1"
    assert f"| {first} | {best['model']} | 3 | 8 | {best['validation']['mean']:.4g} ±" in text
    with (swept / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8
    assert [float(row["validation"]) for row in rows] == [
        r["validation"] for row in record["rows"] for r in row["runs"]
    ]
    assert all(row["training on"] == row["scoring on"] == record["hardware"] for row in rows)


def test_a_wider_grid_does_what_is_new_alone(swept, tmp_path):
    folder = shutil.copytree(swept, tmp_path / "copy")
    before = times(folder)
    sweep(**GRID, out=folder, options=("epochs=1,3,2", "width=8"), seeds=2, by="psnr", of="reconstruction")
    after = times(folder)
    assert {path: after[path] for path in before} == before
    assert {path.parent.name for path in after.keys() - before.keys() if path.parent.parent.name == "runs"} == {
        f"{model}_epochs=2_width=8_seed={seed}" for model in ("rae-l2", "ae") for seed in (0, 1)
    }
    values = [row["validation"]["mean"] for row in read(folder)["rows"]]
    assert values == sorted(values, reverse=True)  # of psnr more is better
    gone = folder / "results" / "ae_epochs=1_width=8_seed=0.json"
    old = json.loads(gone.read_text())
    gone.unlink()
    sweep(**GRID, out=folder, options=("epochs=1,3", "width=8"), seeds=2, by="loss")
    assert json.loads(gone.read_text())["validation"] == old["validation"]
    losses = [row["validation"]["mean"] for row in read(folder)["rows"]]
    assert losses == sorted(losses) == [row["loss"]["mean"] for row in read(folder)["rows"]]


def test_a_run_that_diverges_is_told_of_and_ends_nothing(tmp_path):
    out = sweep(("ae",), "digits", tmp_path / "out", ("lr=1e-3,1e30", "epochs=1", "width=8"), device="cpu", workers=1)
    good, bad = read(out)["rows"]
    assert (good["options"]["lr"], good["place"], bad["options"]["lr"], bad["place"]) == (1e-3, 1, 1e30, None)
    assert "the loss stopped being finite" in bad["runs"][0]["failed"]
    assert "- ae, lr=1e+30, epochs=1, width=8, seed 0: the loss stopped being finite" in (out / "table.md").read_text()
    with pytest.raises(DataError, match="all 1 runs failed; the first one: the loss stopped being finite"):
        sweep(("ae",), "digits", tmp_path / "none", ("lr=1e30", "epochs=1"), device="cpu", workers=1)


def test_settings_that_lack_a_run_come_last_whatever_their_mean():
    def result(value):
        card = Card("", "pixels", "", "x", "h", 9, 9, {}, {}, 0, "")
        scores = [to_json(Score("recall", "gmm", value, card))]
        return {"validation": scores, "test": scores, "loss": 1.0, "training seconds": 1.0, "hardware": {}}

    failed = {"failed": "diverged", "training seconds": 1.0, "hardware": {}}
    values = {1.0: (0.9, None), 2.0: (0.1, 0.3), 3.0: (0.7, 0.5)}
    runs = [
        ("ae", {"lr": lr}, seed, failed if value is None else result(value))
        for lr, pair in values.items()
        for seed, value in enumerate(pair)
    ]
    rows = ranked(runs, "recall", "gmm")
    assert [(row["options"]["lr"], row["place"]) for row in rows] == [(3.0, 1), (2.0, 1), (1.0, None)]  # by chance
    assert rows[1]["validation"] == {"mean": pytest.approx(0.2), "deviation": pytest.approx(0.02**0.5)}
    record = {"data": "x", "command": "", "hardware": "", "seconds": 1, "version": "", "rows": rows}
    text = markdown({**record, "score": {"name": "recall", "of": "gmm", "split": "validation"}})
    assert "by recall of gmm, higher is better" in text
    assert "| - | ae | 1.0 | 0.9 |" in text


def test_values_are_read_and_checked():
    assert settings([]) == [()]
    assert settings(["network=conv4,mlp", "latent_dim=8"]) == [
        (("network", "conv4"), ("latent_dim", 8)), (("network", "mlp"), ("latent_dim", 8))
    ]  # fmt: skip
    assert settings(["latent.sigma=0.5,0.5,1"]) == [(("latent.sigma", 0.5),), (("latent.sigma", 1),)]
    assert settings(["latent.hidden=[1,2],[3]"]) == [(("latent.hidden", [1, 2]),), (("latent.hidden", [3]),)]
    for words, reason in (
        (["beta"], "option 'beta' has no value"), (["beta="], "option 'beta=' has no value"),
        (["beta=1", "beta=2"], "beta is given twice"), (["betta=1"], "unknown option 'betta'"),
        (["seed=1"], "unknown option 'seed'"), (["epochs=2.5"], "epochs=2.5: .*integer"),
        (["beta=high"], "beta='high': .*number"), (["limit=10,20"], "limit has 2 values, whose scores could not be"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=reason):
            settings(words)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"seeds": 0}, "seeds is 0"),
        ({"models": ()}, "no models to train"),
        ({"models": ("rea",)}, "unknown model 'rea'"),
        ({"by": "authenticity"}, "by is 'authenticity', which cannot rank"),
        ({"of": "kde"}, "has no scores of kde, only of reconstruction, gaussian, gmm"),
        ({"densities": ("gm",)}, "unknown density 'gm'"),
        ({"measures": ("fid",)}, "'fid' does not apply here"),
        ({"options": ("latent.sigma=1",)}, "has no option 'sigma'"),
        ({"options": ("epochs=0",)}, "epochs is 0"),
        ({"engine": "slurm"}, "unknown engine 'slurm'"),
    ],
)
def test_wrong_words_are_refused_before_anything_is_trained(tmp_path, changed, reason):
    with pytest.raises(UsageError, match=reason):
        sweep(**{**GRID, "out": tmp_path, **changed})
    assert not list(tmp_path.iterdir())


def test_another_score_can_be_asked_for_later(tmp_path):
    """What the runs do not have is said after the first of them, and what was trained is kept."""
    words: dict[str, Any] = {
        "models": ("ae",),
        "data": "digits",
        "options": ("epochs=1", "width=8"),
        "device": "cpu",
        "workers": 1,
    }
    with pytest.raises(UsageError, match=r"the runs have no recall of gmm to rank by \(they have: frechet-pixels\)"):
        sweep(**words, out=tmp_path, by="recall")
    before = times(tmp_path)
    sweep(**words, out=tmp_path)
    assert times(tmp_path) == before


def test_runs_without_a_score_in_common_are_not_ranked(swept, tmp_path):
    first, second = (
        shutil.copytree(swept / "runs" / f"ae_epochs=1_width=8_seed={seed}", tmp_path / str(seed)) for seed in (0, 1)
    )
    metrics = second / "metrics.json"
    record = json.loads(metrics.read_text())
    assert [each.label for each in rank((first, second), ignoring=("seed",))]
    for score in record["scores"]:
        score["name"] = "fid"
    metrics.write_text(json.dumps(record))
    with pytest.raises(UsageError, match=r"1 has no score of gmm in common .* \(frechet-pixels, against fid\)"):
        rank((first, second))
    metrics.unlink()
    with pytest.raises(UsageError, match="1 has no score of gmm to rank by; run: expost evaluate .*1$"):
        rank((first, second))


def test_long_and_odd_settings_have_folders_of_their_own(tmp_path):
    from expost.experiments.sweep_run import Job

    def label(**options):
        return Job(tmp_path, "ae", "digits", tuple(options.items()), Protocol(), (), "pixels").label

    assert label(beta=0.001, width=8) == label(width=8, beta=0.001) == "ae_beta=0.001_width=8_seed=0"
    assert label(network="a/b") != label(network="a-b")
    assert "/" not in label(network="a/b")
    assert label(**{"latent.x": "y" * 300}) != label(**{"latent.x": "y" * 299})
    assert len(label(**{"latent.x": "y" * 300})) < 120


def test_strings_are_swept_too(tmp_path):
    out = sweep(
        ("grae",), "expressions", tmp_path, ("epochs=1", "limit=60", "width=8"), samples=5, device="cpu", workers=1
    )
    record = read(out)
    assert record["score"]["name"] == "unique-valid"
    assert 0 <= record["rows"][0]["validation"]["mean"] <= 1
    assert torch.isfinite(torch.tensor(record["rows"][0]["loss"]["mean"]))


def test_a_run_of_strings_without_the_score_comes_last_and_ends_nothing(tmp_path):
    grid = (("grae",), "expressions", tmp_path, ("epochs=1,20", "width=16", "limit=200", "batch_size=200"))
    out = sweep(*grid, by="expression-score", samples=30, densities=("gmm",), device="cpu", workers=1)
    best, worst = read(out)["rows"]
    assert (best["options"]["epochs"], best["place"], best["failed"]) == (20, 1, 0)
    assert (worst["options"]["epochs"], worst["place"], worst["failed"]) == (1, None, 0)
    assert worst["validation"] is None


def test_a_score_that_no_run_has_is_refused_and_all_is_kept(tmp_path):
    grid = (("grae",), "expressions", tmp_path, ("epochs=1", "width=8", "limit=60"))
    with pytest.raises(UsageError, match="the runs have no fid of gmm to rank by .*what is trained is kept"):
        sweep(*grid, by="fid", samples=3, device="cpu", workers=1)
    before = times(tmp_path)
    assert read(sweep(*grid, samples=3, device="cpu", workers=1))["score"]["name"] == "unique-valid"
    assert times(tmp_path) == before


def test_densities_of_codes_do_not_rank_models(tmp_path):
    with pytest.raises(UsageError, match="by is 'log-likelihood', which cannot rank"):
        sweep(("rae",), "digits", tmp_path, ("epochs=1",), by="log-likelihood", device="cpu")
    assert not list(tmp_path.iterdir())


def test_scores_of_unlike_protocols_are_not_ranked(swept):
    results = [json.loads(path.read_text()) for path in sorted((swept / "results").glob("*.json"))]
    check_comparable(results, "frechet-pixels", "gmm")
    for score in results[-1]["validation"]:
        score["card"]["count"] += 1
    with pytest.raises(UsageError, match="frechet-pixels cannot be ranked: count is 180 in one, 181 in another"):
        check_comparable(results, "frechet-pixels", "gmm")


def test_the_draw_of_held_out_examples_parts_no_runs_but_how_many_they_are_does(swept):
    results = [json.loads(path.read_text()) for path in sorted((swept / "results").glob("*.json"))]
    scores = [score for each in results for score in each["validation"]]
    cards = [score["card"] for score in scores if (score["name"], score["of"]) == ("frechet-pixels", "gmm")]
    for number, card in enumerate(cards):
        card["settings"] |= {"held-out hash": f"of draw {number}", "held out": "7 of validation"}
    assert len(cards) > 1
    check_comparable(results, "frechet-pixels", "gmm")
    cards[-1]["settings"]["held out"] = "8 of validation"
    with pytest.raises(UsageError, match="the runs' frechet-pixels cannot be ranked: settings is"):
        check_comparable(results, "frechet-pixels", "gmm")


def test_cards_of_validation_scores_never_name_the_test_split(tmp_path):
    options = ("epochs=1", "width=8")
    measures = ("frechet", "memorization", "latent")
    sweep(("rae",), "digits", tmp_path, options, measures=measures, device="cpu", workers=1)
    (path,) = (tmp_path / "results").glob("*.json")
    record = json.loads(path.read_text())
    assert {"copying", "log-likelihood"} <= {score["name"] for score in record["validation"]}
    for score in record["validation"]:
        assert "test" not in json.dumps(score["card"]), score["name"]
    both = [
        next(s["card"]["settings"]["held-out hash"] for s in record[split] if s["name"] == "copying")
        for split in ("validation", "test")
    ]
    assert both[0] != both[1]


def test_what_a_collapsed_model_wins_ranks_only_when_asked_for():
    names = ("validity-greedy", "truncated", "uniqueness", "unique-valid", "novelty")
    runs = [{"validation": [{"name": name, "of": "gmm"} for name in names]}]
    assert choose_score(runs, None, "gmm") == "unique-valid"
    assert choose_score(runs, "validity-greedy", "gmm") == "validity-greedy"


def test_settings_share_a_place_where_chance_may_have_decided():
    def rows(values, error=None, score="recall"):
        card = Card("", "pixels", "", "x", "h", 9, 9, {}, {}, 0, "")
        results = []
        for lr, many in values.items():
            for seed, value in enumerate(many):
                scores = [to_json(Score("recall", "gmm", value, card, error))]
                one = {"validation": scores, "test": scores, "loss": value, "training seconds": 1.0, "hardware": {}}
                results.append(("ae", {"lr": lr}, seed, one))
        return [(row["options"]["lr"], row["place"], row["tied"]) for row in ranked(results, score, "gmm")]

    # one seed: by the standard error of the score; without one any difference counts, as of losses
    assert rows({1: [0.9], 2: [0.8], 3: [0.2]}, 0.1) == [(1, 1, True), (2, 1, True), (3, 3, False)]
    assert rows({1: [0.9], 2: [0.8]}) == [(1, 1, False), (2, 2, False)]
    assert rows({1: [0.9], 2: [0.8]}, score="loss") == [(2, 1, False), (1, 2, False)]
    # several: the spread over seeds decides as well, for losses too. Here v = 0.005, 6 degrees of freedom, t = 2.447:
    # the least difference is 2.447 sqrt(2 * 0.005 / 4) = 0.122
    wide = [0.9 - 0.0866, 0.9, 0.9, 0.9 + 0.0866]
    assert np.var(wide, ddof=1) == pytest.approx(0.005, rel=1e-3)
    for score in ("recall", "loss"):
        down = {1: wide, 2: [value - 0.12 for value in wide]}
        assert [place for _, place, _ in rows(down, score=score)] == [1, 1]
        down = {1: wide, 2: [value - 0.125 for value in wide]}
        assert [place for _, place, _ in rows(down, score=score)] == [1, 2]
