"""The errors of scores, against their scatter over fresh draws, and of differences of scores that share examples."""

import numpy as np
import pytest
import torch

from expost.errors import UsageError
from expost.metrics.frechet import Statistics, frechet_distance, frechet_influence
from expost.metrics.influence import (
    RESAMPLES,
    Influence,
    difference_error,
    error_of_minimum,
    of_pairs,
    packed,
    unpacked,
)
from expost.metrics.latent import prior_gap
from expost.metrics.measures import MEASURES, Cloud, Context
from expost.metrics.strings import string_influences, unique_valid, uniqueness


def normal(n, d, seed, scale=1.0, shift=0.0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * scale + shift


def frechet(reference, samples):
    a, b = Statistics.of(reference), Statistics.of(samples)
    return frechet_distance(a, b), frechet_influence(reference, samples, a, b)


def test_the_influence_of_an_example_is_what_its_weight_does():
    """Against the derivative: a set in which one example counts a little more."""
    x, y = normal(40, 3, 0), normal(30, 3, 1, 0.7, 0.5)
    value, influence = frechet(x, y)

    def weighted(features, place, by):
        weights = torch.full((len(features), 1), (1 - by) / len(features), dtype=torch.float64)
        weights[place] += by
        mean = (weights * features).sum(0)
        cov = ((features - mean) * weights).T @ (features - mean) * len(features) / (len(features) - 1)
        return Statistics(mean, (cov + cov.T) / 2, len(features))

    step = 1e-6
    for place in (0, 7, 19):
        for side, features in (("reference", x), ("samples", y)):
            sets = [Statistics.of(x), Statistics.of(y)]
            sets[side == "samples"] = weighted(features, place, step)
            slope = (frechet_distance(*sets) - value) / step
            each = getattr(influence, side)
            assert slope == pytest.approx(float(each[place] - each.mean()), rel=1e-3, abs=1e-3)


def test_the_influence_of_a_code_is_what_its_weight_does():
    z = normal(50, 3, 2, 1.5, 0.3)
    gap = prior_gap(z)
    step = 1e-6

    def moments(place):
        weights = torch.full((50, 1), (1 - step) / 50, dtype=torch.float64)
        weights[place] += step
        mean = (weights * z).sum(0)
        return mean, ((z - mean) * weights).T @ (z - mean) * 50 / 49

    for place in (0, 33):
        mean, cov = moments(place)
        eigenvalues = torch.linalg.eigvalsh(cov)
        kl = float(eigenvalues.sum() - eigenvalues.log().sum() + mean @ mean - 3) / 2
        w2 = float((eigenvalues.sqrt() - 1).square().sum() + mean @ mean)
        for value, whole, influence in ((kl, gap.kl, gap.kl_influence), (w2, gap.frechet, gap.frechet_influence)):
            expected = float(influence.samples[place] - influence.samples.mean())
            assert (value - whole) / step == pytest.approx(expected, rel=1e-3, abs=1e-3)


def test_the_standard_error_is_the_scatter_over_draws_of_both_sets():
    draws = [frechet(normal(300, 4, 2 * s), normal(200, 4, 2 * s + 1, 0.6, 0.4)) for s in range(200)]
    scatter = np.std([value for value, _ in draws], ddof=1)
    assert np.mean([each.standard_error for _, each in draws]) == pytest.approx(scatter, rel=0.15)


@pytest.mark.parametrize("measure", ["frechet", "kid"])
def test_the_error_of_reconstructions_is_their_scatter_where_each_comes_with_what_it_is_of(measure):
    """y = 0.7 x + 0.4 and noise: what x and y have in common moves the score little."""
    scores: dict[str, list[tuple[float, float, float]]] = {}
    for seed in range(40):
        x = normal(300, 4, 2 * seed)
        y = 0.7 * x + 0.4 + normal(300, 4, 2 * seed + 1, 0.1)
        for name, value in MEASURES[measure](Cloud(x.float()), Cloud(y.float()), Context("fid")).items():
            apart = value.influence.standard_error
            scores.setdefault(name, []).append((value.value, value.influence.matched().standard_error, apart))
    for name, found in scores.items():
        values, matched, apart = np.array(found).T
        assert 0.5 < matched.mean() / values.std(ddof=1) < 2, name
        assert matched.mean() < apart.mean(), name


def test_matched_sets_have_one_size():
    with pytest.raises(UsageError, match="matched sets have one size"):
        Influence(torch.zeros(3), torch.zeros(4)).matched()


@pytest.mark.parametrize("measure", list(MEASURES))
def test_two_models_of_one_distribution_are_tied_in_about_95_of_100_draws(measure):
    """Runs whose samples come from one distribution, against one reference: a tie is |difference| < 1.96 errors."""
    trials = 40 if measure == "prd" else 60
    ties: dict[str, list[bool]] = {}
    for seed in range(trials):
        reference = Cloud(normal(150, 4, 3 * seed).float())
        a, b = (
            MEASURES[measure](reference, Cloud(normal(150, 4, 3 * seed + k, 0.7, 0.4).float()), Context("fid"))
            for k in (1, 2)
        )
        for name in a:
            one, other = a[name], b[name]
            mine, theirs = (v.influence.standard_error if v.error is None else v.error for v in (one, other))
            error = difference_error(mine, theirs, one.influence.deviations(), other.influence.deviations())
            ties.setdefault(name, []).append(abs(one.value - other.value) <= 1.96 * error)
    for name, found in ties.items():
        assert np.mean(found) >= 0.84, name  # at 95 %, so few of 60 are 1 in 1,000; more is allowed


def test_a_clear_difference_is_no_tie_and_pairing_sees_a_smaller_one():
    """Both models are far from the reference, so a shared reference moves both: pairing cancels it."""
    narrower = alone = 0
    for seed in range(20):
        reference = normal(200, 4, 3 * seed)
        a, b = (
            frechet(reference, normal(200, 4, 3 * seed + 1, 0.6, 1)),
            frechet(reference, normal(200, 4, 3 * seed + 2, 0.6, 1.3)),
        )
        errors = a[1].standard_error, b[1].standard_error
        paired = difference_error(*errors, a[1].deviations(), b[1].deviations())
        unpaired = difference_error(*errors, None, None)
        narrower += paired < unpaired
        alone += b[0] - a[0] > 1.96 * paired
    assert narrower == 20
    assert alone == 20


def test_deviations_have_the_standard_error_and_are_shared_by_place():
    influence = Influence(normal(500, 1, 0)[:, 0], normal(300, 1, 1)[:, 0])
    deviations = influence.deviations()
    assert deviations.shape == (RESAMPLES,)
    assert np.sqrt(np.square(deviations).mean()) == pytest.approx(influence.standard_error)
    assert np.array_equal(deviations, influence.deviations())
    moved = Influence(influence.samples + 5, influence.reference - 2).deviations()  # a constant does not matter
    assert moved == pytest.approx(deviations)
    near = Influence(influence.samples + 0.1 * normal(500, 1, 2)[:, 0], influence.reference).deviations()
    exact = 0.1 / np.sqrt(500)
    assert np.sqrt(np.square(near - deviations).mean()) == pytest.approx(exact, rel=0.25)
    other = Influence(normal(500, 1, 3)[:, 0], normal(300, 1, 4)[:, 0]).deviations()
    assert abs(np.corrcoef(deviations, other)[0, 1]) < 0.25


def test_the_sketch_gives_the_error_of_a_paired_difference():
    """Against the exact one, for influences that share half of their variance."""
    common = normal(400, 1, 0)[:, 0]
    a, b = (Influence(common + normal(400, 1, seed)[:, 0]) for seed in (1, 2))
    exact = float((a.samples - b.samples).std() / 400**0.5)
    found = difference_error(a.standard_error, b.standard_error, a.deviations(), b.deviations())
    assert found == pytest.approx(exact, rel=0.2)


def test_what_deviations_do_not_explain_is_independent():
    half = np.array([0.5, -0.5])
    assert difference_error(1.0, 1.0, half, half) == pytest.approx(np.sqrt(2 * 0.75))
    assert difference_error(3.0, 4.0, np.ones(2), np.ones(3)) == 5.0  # of other numbers of weights


def test_deviations_survive_their_text():
    deviations = np.random.default_rng(0).normal(size=RESAMPLES) * 0.003
    error = float(np.sqrt(np.square(deviations).mean()))
    text = packed(deviations, error)
    assert len(text) == 536
    assert unpacked(text, error) == pytest.approx(deviations, rel=1e-3, abs=1e-6)
    assert packed(deviations, 0.0) == ""
    with pytest.raises(ValueError, match="base64|padding"):
        unpacked("?", 1.0)


def test_the_errors_of_shares_of_strings():
    """Against their scatter over draws from a thousand strings, a fifth of them invalid."""
    random = np.random.default_rng(0)
    values, errors = {"unique-valid": [], "uniqueness": []}, {"unique-valid": [], "uniqueness": []}
    for _ in range(200):
        drawn = random.integers(0, 1000, 300)
        forms = [None if each < 200 else str(each) for each in drawn]
        moves = string_influences(forms, set())
        for name, compute in (("unique-valid", unique_valid), ("uniqueness", uniqueness)):
            values[name].append(compute(forms))
            errors[name].append(moves[name].standard_error)
    for name in values:
        ratio = np.mean(errors[name]) / np.std(values[name])
        assert 0.9 < ratio < 1.8, name  # the jackknife is on the safe side


def test_pairs_and_the_least_value():
    x = np.random.default_rng(0).normal(size=(300, 80))
    spread = []
    for row in x:
        means = np.exp(-np.abs(row[:, None] - row)).mean(1)
        spread.append((1 - means.mean(), of_pairs(means).standard_error))
    values, errors = np.array(spread).T
    assert errors.mean() == pytest.approx(values.std(), rel=0.2)
    drawn = np.random.default_rng(1)
    values = drawn.normal(size=50)
    resampled = [drawn.choice(values, 50).min() for _ in range(4000)]
    assert error_of_minimum(values) == pytest.approx(np.std(resampled), rel=0.1)
