"""The kernel distance against torch-fidelity, its formula and closed forms; its standard error by simulation."""

import math

import numpy as np
import pytest
import torch
from test_inception import torch_fidelity

from expost.errors import DataError, UsageError
from expost.metrics.kernel import _effects_within, kernel_distance


def normal(n, d, seed):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_loops(x, y):
    """The unbiased estimator on all examples, pair by pair."""

    def k(a, b):
        return (float(a @ b) / len(a) + 1) ** 3

    n, m = len(x), len(y)
    xx = sum(k(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    yy = sum(k(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    xy = sum(k(a, b) for a in x for b in y) / (n * m)
    return xx + yy - 2 * xy


def test_a_subset_of_everything_is_the_estimator_on_everything():
    x, y = normal(12, 3, 0), normal(12, 3, 1) + 0.5
    result = kernel_distance(x, y, subsets=3, subset_size=12)
    assert result.value == pytest.approx(by_loops(x, y), rel=1e-12)
    assert result.std == pytest.approx(0, abs=1e-12)
    assert result.standard_error > 0


@pytest.mark.parametrize("seed", [0, 2020])
def test_value_and_spread_are_those_of_torch_fidelity_on_the_same_subsets(seed):
    module = torch_fidelity("metric_kid")
    reference, samples = normal(300, 40, 0).relu(), 1.1 * normal(250, 40, 1).relu()
    options = {"kid_subsets": 20, "kid_subset_size": 100, "rng_seed": seed, "verbose": False}
    theirs = module.kid_features_to_metric(samples, reference, **options)
    ours = kernel_distance(reference, samples, subsets=20, subset_size=100, seed=seed)
    assert ours.value == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-9)
    assert ours.std == pytest.approx(theirs["kernel_inception_distance_std"], rel=1e-9)
    assert ours.value > 0


def expected(mean, scale):
    """MMD^2 of N(0, 1) and N(mean, scale^2): (xy + 1)^3 compares the first three moments, weighted 3, 3, 1."""
    moments = (mean, mean**2 + scale**2, mean**3 + 3 * mean * scale**2)
    return 3 * moments[0] ** 2 + 3 * (moments[1] - 1) ** 2 + moments[2] ** 2


@pytest.mark.parametrize(
    ("mean", "scale", "n", "m"), [(0.0, 1.0, 60, 60), (0.5, 1.2, 60, 60), (0.5, 1.2, 40, 160), (0.0, 1.0, 300, 100)]
)
def test_it_is_unbiased_and_its_standard_error_is_the_spread_over_new_data(mean, scale, n, m):
    runs = 200
    results = [
        kernel_distance(normal(n, 1, 2 * i), mean + scale * normal(m, 1, 2 * i + 1), subsets=12, subset_size=30, seed=i)
        for i in range(runs)
    ]
    values = np.array([each.value for each in results])
    spread = values.std(ddof=1)
    assert abs(values.mean() - expected(mean, scale)) < 4 * spread / math.sqrt(runs)
    claimed = math.sqrt(np.mean([each.standard_error**2 for each in results]))
    # heavy tails of a cubic kernel make both uncertain by some ten percent
    assert 0.7 < claimed / spread < 1.4


@pytest.mark.parametrize(("n", "m"), [(400, 400), (300, 600)])
def test_the_standard_error_of_equal_distributions_in_closed_form(n, m):
    # signs: (xy + 1)^3 = 4 + 4 xy, so the kernel has no main effects, and what is left has the second moment 16
    x, y = (torch.arange(size).remainder(2).mul(2).sub(1).double()[:, None] for size in (n, m))
    subsets, size = 200, 200
    variances = [32 / (a * (a - 1)) + 32 / (b * (b - 1)) + 64 / (a * b) for a, b in ((n, m), (size, size))]
    expected_error = math.sqrt(variances[0] + (variances[1] - variances[0]) / subsets)
    result = kernel_distance(x, y, subsets, size)
    assert result.standard_error == pytest.approx(expected_error, rel=0.05)


def test_the_variance_of_pairs_has_no_bias_in_small_subsets():
    """Of m (m - 1) / 2 pairs the fit takes a mean and m - 1 effects: m (m - 3) / 2 degrees of freedom are left."""
    m, draws = 5, 3000
    found = []
    for noise in normal(draws * m, m, 0).view(draws, m, m):
        effects = 3 * torch.arange(m).double() - 6  # sum to zero
        upper = noise.triu(1)
        fitted, variance = _effects_within(10 + effects[:, None] + effects + upper + upper.T)
        found.append(torch.cat([fitted - effects, torch.tensor([variance])]))
    results = torch.stack(found)
    expected = torch.tensor([0.0] * m + [1.0]).double()
    assert ((results.mean(0) - expected).abs() < 6 * results.std(0) / math.sqrt(draws)).all()
    assert results[:, -1].std() / math.sqrt(draws) < 0.02


def test_more_data_make_it_surer_and_the_spread_of_subsets_does_not_tell():
    small, large = (kernel_distance(normal(n, 4, 0), normal(n, 4, 1) + 0.5, 30, 50) for n in (200, 3200))
    # in units of the variance of one subset of 50: that of all n examples, 50 / n, plus the rest over 30 subsets
    variances = [50 / n + (1 - 50 / n) / 30 for n in (200, 3200)]
    expected_ratio = math.sqrt(variances[0] / variances[1])
    assert small.standard_error / large.standard_error == pytest.approx(expected_ratio, rel=0.2)
    assert large.std > 3 * large.standard_error


def test_it_is_symmetric_and_equal_sets_are_near_zero():
    x, y = normal(100, 3, 0), normal(100, 3, 1) + 1
    assert kernel_distance(x, y, 1, 100).value == pytest.approx(kernel_distance(y, x, 1, 100).value)
    same = kernel_distance(x, normal(100, 3, 2), 1, 100)
    assert abs(same.value) < 5 * same.standard_error
    assert kernel_distance(x, y, 1, 100).value > 20 * same.standard_error


def test_it_is_seeded_and_leaves_the_global_states_alone():
    x, y = normal(100, 3, 0), normal(100, 3, 1)
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state(legacy=False)["state"]["key"].copy()  # noqa: NPY002
    one, again, other = (kernel_distance(x, y, 5, 20, seed=seed) for seed in (3, 3, 4))
    assert one == again
    assert one != other
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state(legacy=False)["state"]["key"], numpy_state)  # noqa: NPY002


def test_float32_features_are_scored_in_float64():
    x, y = normal(60, 8, 0).float(), normal(60, 8, 1).float()
    assert kernel_distance(x, y, 2, 30) == kernel_distance(x.double(), y.double(), 2, 30)


@pytest.mark.parametrize(
    ("x", "y", "options", "error", "message"),
    [
        (normal(999, 2, 0), normal(2000, 2, 1), {}, DataError, "reference: 999 .* subset_size=1000; .* at most 999"),
        (normal(50, 2, 0), normal(20, 2, 1), {"subset_size": 30}, DataError, "samples: 20 .* at most 20"),
        (normal(50, 2, 0), normal(50, 2, 1), {"subset_size": 3}, UsageError, "subset_size=3"),
        (normal(50, 2, 0), normal(50, 2, 1), {"subsets": 0}, UsageError, "subsets=0"),
        (normal(50, 2, 0), normal(50, 3, 1), {"subset_size": 20}, UsageError, "2 features, samples 3"),
        (normal(50, 2, 0), normal(50, 2, 1).log(), {"subset_size": 20}, DataError, "samples: NaN"),
        (torch.empty(0, 2), normal(50, 2, 1), {"subset_size": 20}, DataError, "reference: got 0 examples"),
    ],
)
def test_what_cannot_be_scored_is_refused(x, y, options, error, message):
    with pytest.raises(error, match=message) as caught:
        kernel_distance(x, y, **options)
    assert "\n" not in str(caught.value)
