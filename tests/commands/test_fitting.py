"""What `fit` prints: what was learned, beside other densities, and that a run is not finished."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock

import expost
from expost.cli import main
from expost.commands.reporting import report
from expost.densities import TractableDensity
from expost.errors import DataError, UsageError
from expost.training.lock import in_training


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fitting") / "run"
    return expost.train("rae", "digits", folder, epochs=2, width=32, latent_dim=4, tensorboard=False)


def test_fit_says_what_it_learned_and_json_has_the_numbers(run, capsys):
    main(["fit", str(run.folder), "--density", "gmm", "--components", "3", "--json"])
    printed = capsys.readouterr()
    record = json.loads(printed.out)
    assert record["path"] == str(run.folder / "densities" / "gmm.safetensors")
    assert record["codes"] == len(run.data().validation)
    numbers = {each["density"]: each["mean"] for each in record["log_likelihoods"]}
    assert {"gmm", "gaussian", "standard-normal"} <= numbers.keys()
    generator = run.generator("cpu")
    z = generator.encode(run.data().validation.x)
    assert numbers["gmm"] == pytest.approx(float(generator.density("gmm").log_prob(z).mean()), rel=1e-5)
    assert numbers["standard-normal"] == pytest.approx(
        float(-0.5 * (z.double().square().sum(1) + 4 * np.log(2 * np.pi)).mean()), rel=1e-5
    )
    for name, value in numbers.items():
        assert any(line.split()[:2] == [name, f"{value:.3f}"] for line in printed.err.splitlines()), name
    assert "gmm is " in printed.err


def test_a_result_is_its_files_path(run):
    fitted = expost.fit(run, "gaussian")
    assert expost.load_density(Path(fitted)).name == "gaussian"


def test_densities_by_label_are_compared_too(run, capsys):
    fitted = expost.fit(run, "gaussian", by="label")
    assert fitted.log_likelihoods[0].density == "gaussian by label"
    assert "gaussian by label is " in capsys.readouterr().err


BRIEF = ("flow.steps=5", "flow.width=8", "flow-matching.steps=5", "flow-matching.width=8", "bayesian-gmm.max_iter=3")


def test_auto_keeps_the_likeliest_under_its_own_name_and_says_why(run, capsys):
    main(["fit", str(run.folder), "--density", "auto", "--set", *BRIEF, "--json"])
    printed = capsys.readouterr()
    record = json.loads(printed.out)
    trials = record["selection"]["trials"]
    taken = trials[record["selection"]["chosen"]]
    assert Path(record["path"]).stem == taken["density"] == record["density"]
    density = expost.load_density(record["path"])
    assert isinstance(density, TractableDensity)
    assert {name: density.options[name] for name in taken["options"]} == taken["options"]
    z = run.generator("cpu").encode(run.data().validation.x)
    assert taken["log_likelihood"] == pytest.approx(float(density.log_prob(z).mean()), rel=1e-5)
    assert taken["frechet"] > 0
    best = max(each["log_likelihood"] for each in trials if not each["reason"])
    assert best - taken["log_likelihood"] < 1
    assert f"{taken['density']} " in printed.err
    assert " is taken: held-out codes are" in printed.err
    assert run.selections()["auto"] == record["selection"]
    page = Path(report((run.folder,), out=run.folder / "page.html")).read_text()
    assert "What auto was chosen from" in page
    assert all(each["density"] in page for each in trials)
    (run.folder / "selection.json").write_text("[]")
    with pytest.raises(DataError, match=r"selection.json is damaged; remove it"):
        run.selections()
    (run.folder / "selection.json").unlink()


def test_the_best_fitted_is_taken_by_default_and_it_is_said(run, capsys, tmp_path):
    for name in ("standard-normal", "kde", "gmm"):
        expost.fit(run, name)
    capsys.readouterr()
    generator = run.generator("cpu")
    z = generator.encode(run.data().validation.x)
    means = {name: float(each.log_prob(z).mean()) for name, each in generator.densities.items()}
    expost.sample(run, 2, tmp_path / "best.npy")
    line = capsys.readouterr().err
    taken = generator.density_name()
    assert f"density {taken} is taken: " in line
    assert max(means.values()) - means[taken] < 1
    expost.sample(run, 2, tmp_path / "asked.npy", density=taken)
    assert "is taken" not in capsys.readouterr().err
    assert np.array_equal(np.load(tmp_path / "best.npy"), np.load(tmp_path / "asked.npy"))
    expost.sample(run, 2, tmp_path / "other.npy", density="standard-normal")
    assert not np.array_equal(np.load(tmp_path / "best.npy"), np.load(tmp_path / "other.npy"))


def test_components_are_chosen_by_label_too(run, capsys):
    fitted = expost.fit(run, "gmm", components="auto", by="label", options={"covariance": "diag"})
    assert fitted.density == "gmm by label"
    assert len(fitted.selection["trials"]) == 7
    density = run.generator("cpu").by_label["gmm"]
    assert density.base_options["covariance"] == "diag"
    assert "gmm by label" in run.selections()
    with pytest.raises(UsageError, match="option 'components' is of no candidate"):
        expost.fit(run, "auto", components=5)


@pytest.mark.parametrize("density", ["flow-matching", "flow"])
def test_flows_are_fitted_by_label_as_one_and_each_class_has_its_own_if_asked_for(run, density, tmp_path, capsys):
    options, before = ["--set", "width=16", "--set", "steps=30"], set(run.generator("cpu").densities)
    main(["fit", str(run.folder), "--density", density, "--by", "label", *options])
    assert f"{density} by label" in capsys.readouterr().err
    generator = run.generator("cpu")
    fitted = generator.labelled(density)
    assert fitted.name == density
    assert set(generator.densities) == before
    assert sum(fitted.counts) == len(run.data().train)
    main(["sample", str(run.folder), "--density", density, "--label", "3", "-n", "4", "--code-temperature", "0.5",
          "--out", str(tmp_path / "threes.png")])  # fmt: skip
    assert (tmp_path / "threes.png").stat().st_size > 0
    z = fitted.sample(5, 3, generator=torch.Generator().manual_seed(0), temperature=0.5)
    assert torch.equal(z, generator.draw(5, density, 3, torch.Generator().manual_seed(0), 0.5))
    with pytest.raises(UsageError, match="unknown label '12'; choose one of: 0, 1, 2"):
        expost.sample(run, 4, tmp_path / "x.png", density, label="12")


def test_a_density_of_each_class_is_asked_for_by_the_base_of_conditional(run):
    fitted = expost.fit(run, "conditional", by="label", options={"base": "gaussian"})
    assert Path(fitted).parts[-2:] == ("by_label", "conditional.safetensors")
    assert run.generator("cpu").labelled("conditional").given(3).name == "gaussian"
    with pytest.raises(UsageError, match="unknown density 'conditional'"):
        expost.fit(run, "conditional")


def test_a_run_that_is_not_finished_is_warned_of(run, capsys):
    assert run.unfinished() is None
    more = run.with_training(epochs=5)
    assert "unfinished (2 of 5 epochs)" in more.unfinished()
    assert more.unfinished().endswith(f"--out {run.folder} --resume")
    expost.fit(more, "gaussian")
    assert "warning: " in capsys.readouterr().err


def test_a_run_in_training_is_warned_of(run, capsys):
    assert not in_training(run.folder)
    with FileLock(run.folder / ".training.lock"):
        assert in_training(run.folder)
        expost.fit(run, "gaussian")
        assert "is being trained" in capsys.readouterr().err
    assert not in_training(run.folder)
