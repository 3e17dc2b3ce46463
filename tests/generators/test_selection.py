"""`auto`: planted structure is found, options are those of scikit-learn's searches, what memorises is passed over."""

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import mannwhitneyu
from sklearn.mixture import GaussianMixture as Mixture
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KernelDensity as Kernels

from expost.densities import DENSITIES, ConditionalDensity, GaussianMixture, TractableDensity, make_density
from expost.densities.kde import KernelDensity, bandwidths
from expost.errors import DataError, UsageError
from expost.generators.generator import Generator
from expost.generators.selection import candidates, folds, select
from expost.generators.selection_table import in_words, rows
from expost.metrics.memorization import closer

#: Trained densities in few steps.
BRIEF: dict[str, Any] = {
    "flow.steps": 20, "flow.transforms": 1, "flow.width": 16, "flow.depth": 1,
    "flow-matching.steps": 40, "flow-matching.width": 32, "flow-matching.depth": 1, "flow-matching.ode_steps": 4,
    "bayesian-gmm.max_iter": 10,
}  # fmt: skip


def normal(n, seed):
    mixing = torch.randn(4, 4, generator=torch.Generator().manual_seed(1))
    return torch.randn(n, 4, generator=torch.Generator().manual_seed(seed)) @ mixing + 1


def five(n, seed):
    centers = 8 * torch.randn(5, 3, generator=torch.Generator().manual_seed(2))
    source = torch.Generator().manual_seed(seed)
    return centers[torch.randint(5, (n,), generator=source)] + torch.randn(n, 3, generator=source)


def ring(n, seed):
    source = torch.Generator().manual_seed(seed)
    t = 2 * math.pi * torch.rand(n, generator=source)
    return torch.stack([t.cos(), t.sin()], 1) * (1 + 0.05 * torch.randn(n, 1, generator=source))


def roll(n, seed):
    source = torch.Generator().manual_seed(seed)
    t = math.pi * (1.5 + 12 * torch.rand(n, generator=source))
    return torch.stack([t * t.cos(), t * t.sin()], 1) / 4 + 0.05 * torch.randn(n, 2, generator=source)


@pytest.mark.parametrize("seed", range(3))
def test_of_one_gaussian_one_gaussian_is_kept(seed):
    found = select("auto", BRIEF, normal(1000, seed), normal(300, 100 + seed))
    assert found.name == "gaussian"
    assert found.density.statistics["n"] == 1000
    tried = {trial.density for trial in found.trials}
    vectors = {name for name, kind in DENSITIES.items() if issubclass(kind, TractableDensity) and not kind.of_symbols}
    assert tried == vectors - {"reduced", "posterior-mixture"}


def test_of_five_clumps_a_mixture_of_at_least_five_is_kept():
    found = select("auto", BRIEF, five(1000, 0), five(300, 1))
    assert found.name == "gmm"
    assert isinstance(found.density, GaussianMixture)
    assert found.density.components == found.options["components"] >= 5
    by_hand = make_density("gmm", **found.options).fit(five(1000, 0))
    assert torch.equal(found.density.tensors["means"], by_hand.tensors["means"])


def test_of_a_long_roll_a_kernel_density_is_kept():
    found = select("auto", BRIEF, roll(1200, 0), roll(300, 1))
    assert found.name == "kde"


def test_of_a_ring_flow_matching_is_kept_beside_a_small_mixture():
    options = {"flow-matching.steps": 300, "flow-matching.width": 64, "flow-matching.lr": 4e-3}
    options |= {"gmm.components": 5, "flow.components": 1}
    found = select("auto", BRIEF | {"kde.bandwidth": "scott"} | options, ring(1000, 0), ring(400, 1))
    assert found.name == "flow-matching"
    assert isinstance(found.density, TractableDensity)
    z = ring(1000, 2).double()
    r = z.norm(dim=1)  # the true density: that of the radius over the circle's length
    true = -0.5 * ((r - 1) / 0.05) ** 2 - math.log(0.05) - 1.5 * math.log(2 * math.pi) - r.log()
    assert (true - found.density.log_prob(z)).mean().item() < 0.2


def test_the_bandwidth_is_that_of_a_grid_search():
    z = ring(300, 0)
    found = select("kde", {"bandwidth": "auto", "kernel": "isotropic"}, z)
    grid = bandwidths(z, KernelDensity(kernel="isotropic"))
    parts = [(fit.numpy(), held.numpy()) for fit, held in folds(300)]
    search = GridSearchCV(Kernels(), {"bandwidth": grid}, cv=parts).fit(z.double().numpy())
    assert found.density.statistics["n"] == 300  # the chosen one is fitted on all codes
    assert found.options["bandwidth"] == pytest.approx(search.best_params_["bandwidth"])
    assert min(grid) < found.options["bandwidth"] < max(grid)
    means = [trial.log_likelihood for trial in found.trials if not trial.reason]
    at = {round(each.options["bandwidth"], 9): each.log_likelihood for each in found.trials if not each.reason}
    theirs = dict(zip((round(h, 9) for h in grid), search.cv_results_["mean_test_score"] / 60, strict=True))
    assert len(means) > 2
    for h, value in at.items():
        assert value == pytest.approx(theirs[h], abs=1e-6)


def test_the_components_are_those_that_scikit_learn_finds():
    z, held_out = five(1000, 0), five(400, 1)
    found = select("gmm", {"components": "auto"}, z, held_out)
    mixtures = {k: Mixture(k, random_state=0, n_init=3).fit(z) for k in (1, 2, 5, 10, 20)}
    assert found.options["components"] == min(mixtures, key=lambda k: mixtures[k].bic(z)) == 5
    ours = {trial.options["components"]: trial.log_likelihood for trial in found.trials}
    assert ours[5] == pytest.approx(mixtures[5].score(held_out), abs=0.02)
    assert ours[1] == pytest.approx(mixtures[1].score(held_out), abs=1e-3)


def test_what_memorises_is_passed_over():
    source = torch.Generator().manual_seed(0)
    centers = 3 * torch.randn(250, 40, generator=source)
    of = torch.arange(1000) % 250
    z = centers[of] + 0.3 * torch.randn(1000, 40, generator=source)
    held_out = centers[of[:400]] + 0.3 * torch.randn(400, 40, generator=source)
    # too narrow a kernel describes clumps of four better than one Gaussian does, and repeats what it was fitted on
    narrow = BRIEF | {"gmm.components": 5, "kde.kernel": "isotropic", "kde.bandwidth": 0.2}
    found = select("auto", narrow, z, held_out)
    likeliest = max(found.trials, key=lambda trial: trial.log_likelihood)
    assert likeliest.density == "kde"
    assert likeliest.memorisation > 0.99
    assert likeliest.reason == "it memorises: 1.00 > 0.75"
    taken = found.trials[found.chosen]
    assert taken.density == found.name != "kde"
    assert taken.memorisation < 0.75
    # the bandwidth that held-out codes ask for is wide enough
    wide = select("kde", {"bandwidth": "auto", "kernel": "isotropic"}, z, held_out)
    tried = {trial.options["bandwidth"]: trial for trial in wide.trials}
    assert wide.options["bandwidth"] > 0.3
    assert wide.trials[wide.chosen].log_likelihood > likeliest.log_likelihood
    assert tried[min(tried)].reason.startswith("it memorises")


def test_samples_like_held_out_codes_are_no_memory():
    found = select("gaussian", {}, normal(1500, 0), normal(1500, 1))
    assert found.trials[0].memorisation == pytest.approx(0.5, abs=0.03)
    near, apart = np.random.default_rng(0).normal(size=(2, 40)).round(1)
    u = mannwhitneyu(near, apart).statistic  # counts pairs with near above
    assert closer(near, apart) == pytest.approx(1 - u / 1600)


def test_classes_share_one_kind_and_each_has_its_own():
    z, labels = torch.cat([normal(150, 0), normal(150, 1) + 6, normal(20, 2) - 9]), torch.arange(320) // 150
    found = select("gmm", {"components": "auto", "covariance": "diag"}, z, labels=(labels, None))
    assert found.folds == 5
    assert found.held_out == 320
    assert isinstance(found.density, ConditionalDensity)
    assert found.density.labels == (0, 1, 2)
    assert found.density.base == "gmm"
    assert found.density.base_options["covariance"] == "diag"
    for fit, held in folds(320, labels):
        assert len(fit) + len(held) == 320
        assert torch.bincount(labels[held]).tolist() == [30, 30, 4]
    reasons = {trial.reason for trial in found.trials if trial.options.get("components") == 20}
    assert any("class 2" in reason for reason in reasons)


def test_a_generator_keeps_what_is_chosen_under_its_own_name():
    generator = Generator(lambda x: x, lambda z: z)
    z, held_out = five(1000, 0), five(200, 1)
    density = generator.fit("auto", z, held_out=held_out, **BRIEF)
    assert list(generator.densities) == ["gmm"]
    assert isinstance(density, GaussianMixture)
    assert density is generator.densities["gmm"]
    torch.testing.assert_close(density.held_out.values, density.log_prob(held_out), atol=5.1e-5, rtol=0)
    again = generator.fit("gmm", codes=z, components="auto")
    assert isinstance(again, GaussianMixture)
    assert again.components == density.components
    assert generator.density_name() == "gmm"


def test_the_record_is_json_and_the_table_has_a_row_for_each_density():
    found = select("auto", BRIEF, normal(200, 0), distance=lambda density: 1.25)
    record = json.loads(json.dumps(found.record(), allow_nan=False))
    assert len(rows(record, full=True)) == len(found.trials)
    shown = rows(record)
    assert [row[0] for row in shown] == list(dict.fromkeys(trial.density for trial in found.trials))
    taken = [row for row in shown if row[-1] == "taken"]
    assert [row[0] for row in taken] == [found.name]
    assert taken[0][3] == "1.25"
    text = in_words(record)
    assert "200 codes, a fifth of them held out in turn" in text[0]
    assert text[-1].startswith(f"{found.name} is taken: ")


@pytest.mark.parametrize(
    ("density", "options", "message"),
    [
        ("auto", {"components": 5}, "option 'components' is of no candidate; .* DENSITY.OPTION"),
        ("auto", {"gmm.component": 5}, "has no option 'component'"),
        ("auto", {"second-stage-vae.width": 5}, "of no candidate"),
        ("gaussian", {"regularization": "auto"}, "can choose no regularization"),
        ("automatic", {}, "unknown density"),
    ],
)
def test_wrong_words_are_refused(density, options, message):
    with pytest.raises(UsageError, match=message):
        select(density, options, normal(50, 0))


def test_codes_that_nothing_fits_are_refused():
    with pytest.raises(DataError, match="no density can be chosen"):
        select("gmm", {"components": "auto"}, torch.ones(40, 2))


def test_grids_hold_values_that_their_densities_take():
    z = normal(60, 0)
    for name, kind in DENSITIES.items():
        for option in kind.grids:
            found = candidates(name, {option: "auto"}, z)
            assert len(found) > 2
            assert len({str(part.options[option]) for part in found}) == len(found)
            for part in found:
                make_density(name, **part.options)
