"""Scores of sets that are few, equal, constant, singular, tiny or huge: right by a closed form, or refused."""

import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from scipy import linalg
from torch import Tensor
from torture import count, times

from expost.errors import DataError, UsageError
from expost.metrics.frechet import Statistics, frechet_distance
from expost.metrics.kernel import kernel_distance
from expost.metrics.latent import dimensions, prior_gap
from expost.metrics.measures import MEASURES, Cloud, Context
from expost.metrics.neighbours import neighbour_scores
from expost.metrics.prd import prd

pytestmark = pytest.mark.usefixtures("one_thread")

PROMISE = "a score of odd sets is finite and right, or refused in a line"
CONTEXT = Context("frechet", allow_few=True)
#: Power of each score in the scale of the features, where it has one.
POWERS = {"frechet": 2, "monge-distance": 2} | dict.fromkeys(
    ["f8", "f1/8", "precision", "recall", "density", "coverage", "vendi", "vendi-2", "vendi-inf", "gaussian-mmd"], 0
)


def normal(n: int, d: int = 4, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def one_line(error: Exception) -> str:
    assert "\n" not in str(error)
    return str(error)


def scores(reference: Tensor, samples: Tensor, measure: str) -> dict[str, float] | str:
    """Compute a measure's scores, or return the line with which it refuses."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            found = MEASURES[measure](Cloud(reference), Cloud(samples), CONTEXT)
        except (DataError, UsageError) as error:
            return one_line(error)
    for value in found.values():
        assert value.influence.samples.isfinite().all()
        assert value.influence.reference.isfinite().all()
        assert value.error is None or math.isfinite(value.error)
    return {name: value.value for name, value in found.items()}


@pytest.mark.parametrize("power", [-100, -66, -20, 13, 40])
@pytest.mark.parametrize("measure", MEASURES)
def test_scores_follow_the_scale_of_the_features(measure: str, power: int) -> None:
    """A power of two changes no digit, so neither does a score, but by its own power of the scale."""
    a, b = normal(60), 1.5 * normal(50, seed=1) + 0.5
    unit, found = scores(a, b, measure), scores(a * 2.0**power, b * 2.0**power, measure)
    assert isinstance(unit, dict)
    assert isinstance(found, dict)
    for name, value in found.items():
        if name in POWERS:
            assert value == pytest.approx(unit[name] * 2.0 ** (power * POWERS[name]), rel=1e-9)
        elif power <= -20:  # the cubic kernel is linear at 0: three times the distance of the means, without bias
            assert value == pytest.approx(3 * linear_discrepancy(a, b, 50) * 4.0**power, rel=1e-4)
    count(PROMISE, tried=len(found))


def linear_discrepancy(a: Tensor, b: Tensor, size: int, subsets: int = 100) -> float:
    """Return the mean over the subsets, which are those of the kernel distance, under the kernel x.y / d."""
    random, values = np.random.RandomState(0), []
    for _ in range(subsets):
        y = b[torch.from_numpy(random.choice(len(b), size, replace=False))]
        x = a[torch.from_numpy(random.choice(len(a), size, replace=False))]
        within = [float((s.sum(0) @ s.sum(0) - s.square().sum()) / (size * (size - 1))) for s in (x, y)]
        values.append(sum(within) - 2 * float(x.mean(0) @ y.mean(0)))
    return float(np.mean(values)) / a.shape[1]


@pytest.mark.parametrize("features", [1e20, 1e-60, 1e-200, 1e200])
def test_what_a_score_cannot_hold_is_refused_with_the_value_or_computed(features: float) -> None:
    a, b = normal(60) * features, (normal(60, seed=1) + 1) * features
    for measure in MEASURES:
        found = scores(a, b, measure)
        if isinstance(found, str):
            assert "rescale" in found or "check the features for overflow" in found
        else:
            assert measure == "frechet"
            expected = float((a.mean(0) / features - b.mean(0) / features).square().sum())
            assert found["frechet"] / features**2 > expected
        count(PROMISE, tried=1)


def test_equal_sets_have_the_best_scores_and_constant_ones_their_distance() -> None:
    for z in (normal(40), torch.ones(40, 3), normal(40) * torch.tensor([1.0, 0.0, 1e-9, 1e9])):
        assert scores(z, z, "frechet") == {"frechet": 0.0}
        found = scores(z, z, "neighbours")
        assert isinstance(found, dict)
        assert [found[name] for name in ("precision", "recall", "coverage")] == [1, 1, 1]
        assert scores(z, z, "prd") == pytest.approx({"f8": 1, "f1/8": 1})
        assert scores(z, z, "mind") == {"monge-distance": 0.0}
        assert scores(z, z, "cmmd") == pytest.approx({"gaussian-mmd": 0.0}, abs=1e-9)
    zeros, ones = torch.zeros(40, 3), torch.ones(40, 3)
    assert scores(zeros, ones, "frechet") == {"frechet": 3.0}
    assert scores(zeros, ones, "kid") == {"kernel-distance": 7.0}
    assert scores(zeros, ones, "prd") == {"f8": 0.0, "f1/8": 0.0}
    assert set(scores(zeros, ones, "neighbours").values()) == {0.0}  # type: ignore[union-attr]
    assert scores(zeros, ones, "mind") == pytest.approx({"monge-distance": 9.0}, rel=0.1)  # a translation: 3 |v|^2
    # what is 0 is one kind of its own, at right angles to the rest: 2000 (1 - exp(-2 / 200))
    assert scores(zeros, ones, "cmmd") == pytest.approx({"gaussian-mmd": -2000 * math.expm1(-0.01)})
    for z in (zeros, ones):
        assert scores(ones, z, "vendi") == pytest.approx({"vendi": 1, "vendi-2": 1, "vendi-inf": 1})
    half = torch.cat([zeros, ones])
    assert scores(ones, half, "vendi") == pytest.approx({"vendi": 2, "vendi-2": 2, "vendi-inf": 2})
    count(PROMISE, tried=24)


@pytest.mark.parametrize("n", range(8))
@pytest.mark.parametrize("measure", MEASURES)
def test_few_examples_are_scored_or_refused_with_their_number(measure: str, n: int) -> None:
    found = scores(normal(n), normal(n, seed=1), measure)
    least = MEASURES[measure].least
    if n < least:
        assert isinstance(found, str)
        assert f"at least {least} examples" in found
        assert f"has {n}" in found
    else:
        assert isinstance(found, dict)
        assert all(map(math.isfinite, found.values()))
    count(PROMISE, tried=1)


def test_the_frechet_distance_of_two_samples_is_that_of_two_segments() -> None:
    """Two points have a covariance of rank one, u u^T / 2 with u their difference: tr (S_a S_b)^1/2 = |u.v| / 2."""
    for seed in range(times(20, 500)):
        a, b = normal(2, seed=seed), normal(2, seed=1000 + seed)
        u, v = a[1] - a[0], b[1] - b[0]
        expected = (a.mean(0) - b.mean(0)).square().sum() + (u @ u + v @ v) / 2 - (u @ v).abs()
        assert frechet_distance(Statistics.of(a), Statistics.of(b)) == pytest.approx(expected.item(), rel=1e-7)
        count(PROMISE, tried=1)


def test_the_frechet_distance_is_scipys_on_well_conditioned_covariances_and_a_closed_form_on_singular_ones() -> None:
    for seed in range(times(10, 300)):
        d = 2 + seed % 7
        a, b = normal(40 + d, d, seed), normal(60, d, seed + 1000) @ normal(d, d, seed) + 1
        first, second = Statistics.of(a), Statistics.of(b)
        root = np.real(linalg.sqrtm((first.cov @ second.cov).numpy()))
        expected = (first.mean - second.mean).square().sum() + (first.cov + second.cov).trace() - 2 * np.trace(root)
        assert frechet_distance(first, second) == pytest.approx(float(expected), rel=1e-6)
        # of diagonal covariances, singular and of any scales: sum (m_a - m_b)^2 + (s_a - s_b)^2
        s = torch.cat(
            [normal(2, d, seed).abs() * 10.0 ** (8 * normal(2, d, seed + 1)).clamp(-12, 12), torch.zeros(2, 1)], 1
        )
        zero = torch.zeros(d + 1)
        found = frechet_distance(Statistics(zero, s[0].square().diag(), 9), Statistics(zero, s[1].square().diag(), 9))
        total = s.square().sum().item()
        assert found == pytest.approx((s[0] - s[1]).square().sum().item(), rel=1e-6, abs=1e-12 * total)
        count(PROMISE, tried=2)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("measure", MEASURES)
def test_values_that_are_not_finite_are_refused_with_their_row(measure: str, bad: float) -> None:
    a, b = normal(60), normal(60, seed=1)
    b[3, 1] = bad
    found = scores(a, b, measure)
    assert isinstance(found, str)
    assert "3" in found
    assert "NaN or infinity" in found
    count(PROMISE, tried=1)


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1e6, 1e17])
def test_the_gap_to_the_prior_far_from_its_scale_is_its_limit(scale: float) -> None:
    """Codes at one point have k = 1 and g = (s^2 / (s^2 + 1))^(d/2); far ones k = g = 0, and what is left is c."""
    z, d = normal(100) * scale, 4
    c, g = (d / (d + 2)) ** 2, (d / (d + 1)) ** 2
    assert prior_gap(z).mmd == pytest.approx(1 - 2 * g + c if scale < 1 else c, abs=1e-5)
    assert dimensions(z).participation_ratio == pytest.approx(dimensions(normal(100)).participation_ratio, rel=1e-9)
    count(PROMISE, tried=2)


@pytest.mark.parametrize("score", [kernel_distance, neighbour_scores, prd])
def test_features_too_small_for_their_squares_are_refused_with_the_value(score: Any) -> None:
    with pytest.raises(DataError, match=r"reference: values reach only .*e-200, below 1e-50; .*rescale them"):
        score(normal(1000) * 1e-200, normal(1000, seed=1) * 1e-200)
