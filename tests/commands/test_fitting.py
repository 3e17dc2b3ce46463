"""What `fit` prints: what was learned, beside other densities, and that a run is not finished."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock

import expost
from expost.cli import main
from expost.errors import UsageError
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


@pytest.mark.parametrize("density", ["flow-matching", "flow"])
def test_flows_are_fitted_by_label_as_one_and_each_class_has_its_own_if_asked_for(run, density, tmp_path, capsys):
    options = ["--set", "width=16", "--set", "steps=30"]
    main(["fit", str(run.folder), "--density", density, "--by", "label", *options])
    assert f"{density} by label" in capsys.readouterr().err
    generator = run.generator("cpu")
    fitted = generator.labelled(density)
    assert fitted.name == density
    assert density not in generator.densities
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
