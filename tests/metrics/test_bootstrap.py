"""The bootstrapped interval of the Frechet distance: its moments, its center, and how often it covers."""

import math
from contextlib import nullcontext

import numpy as np
import pytest
import torch

from expost.errors import DataError, UsageError
from expost.metrics.bootstrap import _Resampled, bootstrap_frechet
from expost.metrics.frechet import Statistics, frechet_distance


@pytest.fixture(autouse=True)
def _threads_as_they_are(monkeypatch):
    """Limiting BLAS threads takes milliseconds, far more than a distance in the few dimensions of these tests."""
    monkeypatch.setattr("expost.metrics.frechet.threadpool_limits", lambda **_: nullcontext())


def normal(n, d, seed):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def standard(d, n=1000):
    return Statistics(torch.zeros(d), torch.eye(d), n=n)


def test_a_resample_has_the_moments_of_the_rows_it_repeats():
    x = normal(50, 4, 0) * 3 + 1e4
    drawn = _Resampled(x).draw(np.random.default_rng(5))
    rows = x.numpy()[np.random.default_rng(5).integers(50, size=50)]
    np.testing.assert_allclose(drawn.mean, rows.mean(0), rtol=1e-12)
    np.testing.assert_allclose(drawn.cov, np.cov(rows.T), rtol=1e-9, atol=1e-9)
    assert drawn.n == 50


def test_the_value_is_the_frechet_distance_and_lies_inside():
    x, y = normal(200, 3, 0), 1.2 * normal(150, 3, 1) + 0.3
    fixed = bootstrap_frechet(Statistics.of(x), y, resamples=60, level=0.9)
    both = bootstrap_frechet(x, y, resamples=60, level=0.9)
    value = frechet_distance(Statistics.of(x), Statistics.of(y))
    assert fixed.value == both.value == pytest.approx(value)
    assert fixed.low < value < fixed.high
    assert (fixed.level, fixed.resamples) == (0.9, 60)
    # the reference varies as much as the samples do, so resampling it as well widens the interval
    assert both.high - both.low > 1.1 * (fixed.high - fixed.low)


def test_the_spread_is_that_of_a_shifted_mean():
    # with a tiny variance and a far mean, F is about |mean|^2, whose standard deviation is 2 |mean| s / sqrt(n)
    n, mean, s = 400, 5.0, 0.1
    point = Statistics(torch.zeros(1), torch.full((1, 1), s**2), n=1000)
    result = bootstrap_frechet(point, mean + s * normal(n, 1, 0), resamples=199)
    assert result.standard_error == pytest.approx(2 * mean * s / math.sqrt(n), rel=0.15)
    assert result.high - result.low == pytest.approx(2 * 1.96 * 2 * mean * s / math.sqrt(n), rel=0.2)


def test_the_bias_is_estimated():
    # N(0, I) against itself: d (d + 5) / (4 n), all of it bias
    d, n = 4, 400
    results = [bootstrap_frechet(standard(d), normal(n, d, seed), resamples=39, seed=seed) for seed in range(5)]
    assert np.mean([each.bias for each in results]) == pytest.approx(d * (d + 5) / (4 * n), rel=0.25)
    assert all(each.low >= 0 for each in results)


def test_the_interval_is_about_the_value_though_the_resamples_lie_above_it():
    result = bootstrap_frechet(standard(15), normal(60, 15, 0), resamples=99)
    assert result.low < result.value < result.high
    assert result.bias > 2 * result.standard_error  # nearly all of them do
    middle = (math.sqrt(result.low) + math.sqrt(result.high)) / 2
    assert middle == pytest.approx(math.sqrt(result.value), rel=0.05)


def test_it_covers_the_expectation_of_the_score_as_often_as_it_says():
    # In one dimension F = m^2 + (s - 1)^2, m and s the moments of n draws from N(1, 1.5^2)
    n, runs = 100, 60
    root = 1.5 * math.sqrt(2 / (n - 1)) * math.exp(math.lgamma(n / 2) - math.lgamma((n - 1) / 2))  # E s
    expectation = 1 + 1.5**2 / n + 1.5**2 + 1 - 2 * root
    draws = 1 + 1.5 * normal(20_000, n, 1)
    values = draws.mean(1).square() + (draws.std(1) - 1).square()
    assert float(values.mean()) == pytest.approx(expectation, rel=0.01)
    results = [bootstrap_frechet(standard(1), draws[i, :, None], resamples=39, seed=i) for i in range(runs)]
    assert results[3].value == pytest.approx(float(values[3]))
    hits = sum(each.low <= expectation <= each.high for each in results)
    assert hits >= 50  # for a coverage of 94 % fewer occur about once in 500 times
    assert np.mean([each.high - each.low for each in results]) < 5 * float(values.std())  # not by being too wide
    assert np.mean([each.standard_error for each in results]) == pytest.approx(float(values.std()), rel=0.2)


def test_a_higher_level_is_wider_and_the_seed_decides():
    reference, y = standard(2), normal(100, 2, 0) + 1
    narrow, wide = (bootstrap_frechet(reference, y, resamples=99, level=level) for level in (0.5, 0.95))
    assert wide.low < narrow.low < narrow.high < wide.high
    state = torch.get_rng_state()
    assert bootstrap_frechet(reference, y, resamples=39) == bootstrap_frechet(reference, y, resamples=39)
    assert bootstrap_frechet(reference, y, resamples=39, seed=1).low != wide.low
    assert torch.equal(torch.get_rng_state(), state)


def test_constant_features_have_no_uncertainty():
    same = torch.ones(20, 2)
    result = bootstrap_frechet(same, same, resamples=39)
    assert (result.value, result.low, result.high, result.standard_error) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("reference", "samples", "options", "error", "message"),
    [
        (standard(2), normal(1, 2, 0), {}, DataError, "samples: got 1 examples, but at least 2"),
        (normal(1, 2, 0), normal(9, 2, 0), {}, DataError, "reference: got 1 examples"),
        (standard(2), normal(9, 3, 0), {}, UsageError, "2 and 3 features"),
        (normal(9, 2, 0), normal(9, 3, 0), {}, UsageError, "reference has 2 features, samples 3"),
        (standard(2), torch.full((9, 2), math.inf), {}, DataError, "samples: NaN or infinity"),
        (standard(2), normal(9, 2, 0), {"resamples": 38}, UsageError, "resamples=38 .* at least 39"),
        (standard(2), normal(9, 2, 0), {"level": 0.99}, UsageError, "at least 199"),
        (standard(2), normal(9, 2, 0), {"level": 1.0}, UsageError, "level=1.0"),
        (standard(2), normal(9, 2, 0), {"level": 95}, UsageError, "level=95"),
        (standard(2), normal(9, 2, 0), {"seed": 0.5}, UsageError, "seed=0.5"),
    ],
)
def test_what_cannot_be_resampled_is_refused(reference, samples, options, error, message):
    with pytest.raises(error, match=message) as caught:
        bootstrap_frechet(reference, samples, **options)
    assert "\n" not in str(caught.value)
