"""Diagnostics of codes: closed forms, SciPy's distributions, and calibration on codes that are Gaussian."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from expost.densities import Gaussian, KernelDensity, SecondStageVAE, StandardNormal
from expost.errors import DataError, UsageError
from expost.metrics.frechet import Statistics, frechet_distance
from expost.metrics.latent import dimensions, held_out_log_likelihood, prior_gap


def normal(n, d, seed):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def with_moments(mean, cov, n=200, seed=0):
    """Codes whose sample mean and unbiased covariance are exactly these."""
    mean, cov = torch.as_tensor(mean, dtype=torch.float64), torch.as_tensor(cov, dtype=torch.float64)
    z = normal(n, len(mean), seed)
    z = z - z.mean(0)
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(z.T @ z / (n - 1)), z.T, upper=False).T
    return white @ torch.linalg.cholesky(cov).T + mean


def test_dimensions_of_a_known_spectrum():
    turn = torch.linalg.qr(normal(4, 4, 1)).Q
    spectrum = torch.tensor([4.0, 2.0, 1.0, 0.05], dtype=torch.float64)
    result = dimensions(with_moments([5.0, 0, 0, -3], turn @ spectrum.diag() @ turn.T))
    assert result.participation_ratio == pytest.approx(7.05**2 / (16 + 4 + 1 + 0.0025))


def test_active_units_are_those_whose_variance_exceeds_a_hundredth():
    z = with_moments([0.0, 9, 0, 0], torch.diag(torch.tensor([1.0, 0.0101, 0.0099, 1e-6])))
    assert dimensions(z).active_units == 2
    assert dimensions(z / 100).active_units == 0


@pytest.mark.parametrize("d", [1, 3, 8])
def test_isotropic_codes_use_all_dimensions_and_a_line_uses_one(d):
    assert dimensions(with_moments([0.0] * d, 2 * torch.eye(d))).participation_ratio == pytest.approx(d)
    line = normal(50, 1, 0) * torch.ones(d)
    assert dimensions(line).participation_ratio == pytest.approx(1)


def test_codes_that_are_all_equal_use_none():
    result = dimensions(torch.full((10, 3), 0.7))
    assert (result.participation_ratio, result.active_units) == (0, 0)


def test_the_gap_of_known_moments_in_closed_form():
    mean, cov = torch.tensor([1.0, -2.0]).double(), torch.tensor([[2.0, 0.6], [0.6, 0.5]]).double()
    gap = prior_gap(with_moments(mean, cov))
    gaussian = torch.distributions.MultivariateNormal(mean, cov)
    prior = torch.distributions.MultivariateNormal(torch.zeros(2).double(), torch.eye(2).double())
    assert gap.kl == pytest.approx(float(torch.distributions.kl_divergence(gaussian, prior)))
    both = Statistics(mean, cov, n=200), Statistics(torch.zeros(2), torch.eye(2), n=200)
    assert gap.frechet == pytest.approx(frechet_distance(*both))
    exact = prior_gap(with_moments([0.0, 0, 0], torch.eye(3)))
    assert exact.kl == pytest.approx(0, abs=1e-12)
    assert exact.frechet == pytest.approx(0, abs=1e-12)


def test_a_collapsed_dimension_is_infinitely_far_in_kl_and_one_in_frechet():
    z = torch.cat([with_moments([0.0, 0.0], torch.eye(2)), torch.zeros(200, 1)], dim=1)
    gap = prior_gap(z)
    assert gap.kl == math.inf
    assert gap.frechet == pytest.approx(1)
    assert prior_gap(normal(5, 9, 0)).kl == math.inf  # fewer codes than dimensions
    collapsed = prior_gap(torch.zeros(20, 3))
    assert (collapsed.kl, collapsed.frechet) == (math.inf, pytest.approx(3))
    assert collapsed.mmd_z > 10


def test_the_moments_of_gaussian_codes_are_off_by_what_is_documented():
    n, d = 500, 6
    gaps = [prior_gap(normal(n, d, seed)) for seed in range(30)]
    assert np.mean([gap.kl for gap in gaps]) == pytest.approx(d * (d + 3) / (4 * n), rel=0.15)
    assert np.mean([gap.frechet for gap in gaps]) == pytest.approx(d * (d + 5) / (4 * n), rel=0.15)


def test_the_mmd_is_its_definition_with_the_prior_sampled():
    z, prior, s = normal(40, 3, 0) + 0.5, normal(20_000, 3, 1), 1.3

    def k(a, b):
        return torch.exp(-torch.cdist(a, b).square() / (2 * s**2))

    within = (k(z, z).sum() - 40) / (40 * 39)
    across = k(z, prior).mean(0)
    half = k(prior[:5000], prior[5000:10_000]).mean()
    expected = float(within - 2 * across.mean() + half)
    assert prior_gap(z, bandwidth=s).mmd == pytest.approx(expected, abs=4 * 2 * float(across.std()) / math.sqrt(20_000))


@pytest.mark.parametrize(("d", "bandwidth"), [(1, None), (5, None), (5, 0.7)])
def test_the_mmd_of_codes_from_the_prior_has_mean_zero_and_the_deviation_claimed(d, bandwidth):
    runs = 300
    z = np.array([prior_gap(normal(60, d, seed), bandwidth).mmd_z for seed in range(runs)])
    assert abs(z.mean()) < 4 / math.sqrt(runs)
    assert z.std() == pytest.approx(1, abs=0.25)


@pytest.mark.parametrize("v", [0.3, 1.0, 4.0])
def test_the_deviation_of_the_mmd_is_that_of_its_centered_kernel_by_quadrature(v):
    nodes, weights = np.polynomial.hermite_e.hermegauss(120)
    weights = weights / weights.sum()
    k = np.exp(-((nodes[:, None] - nodes) ** 2) / (2 * v))
    g = k @ weights
    centered = k - g[:, None] - g + weights @ g
    n = 30
    expected = math.sqrt(2 * (weights @ centered**2 @ weights) / (n * (n - 1)))
    gap = prior_gap(normal(n, 1, 0) + 1, bandwidth=math.sqrt(v))
    assert gap.mmd / gap.mmd_z == pytest.approx(expected, rel=1e-6)


def test_the_mmd_of_a_shifted_gaussian_in_closed_form():
    # 2 (s^2 / (s^2 + 2))^(d / 2) (1 - exp(-|m|^2 / (2 (s^2 + 2))))
    shift, d, runs = 0.8, 2, 40
    values = np.array([prior_gap(normal(150, d, seed) + shift).mmd for seed in range(runs)])
    expected = 2 * (d / (d + 2)) ** (d / 2) * (1 - math.exp(-d * shift**2 / (2 * (d + 2))))
    assert abs(values.mean() - expected) < 4 * values.std() / math.sqrt(runs)
    assert values.std() / math.sqrt(runs) < 0.1 * expected


def test_the_mmd_sees_what_two_moments_do_not():
    signs = torch.randint(0, 2, (2000, 2), generator=torch.Generator().manual_seed(0)).double() * 2 - 1
    z = 0.95 * signs + math.sqrt(1 - 0.95**2) * normal(2000, 2, 1)  # four clusters, of mean 0 and covariance I
    gap = prior_gap(z)
    assert gap.kl < 0.01
    assert gap.mmd_z > 10


def test_held_out_likelihood_is_the_mean_with_its_error():
    fitted, held_out = normal(400, 3, 0) * 2 + 1, normal(500, 3, 1) * 2 + 1
    density = Gaussian().fit(fitted)
    result = held_out_log_likelihood(density, held_out)
    values = stats.multivariate_normal(density.tensors["mean"].numpy(), np.cov(fitted.numpy().T, bias=True)).logpdf(
        held_out.numpy()
    )
    assert result.mean == pytest.approx(values.mean(), rel=1e-3)  # the density may regularize its covariance
    assert result.standard_error == pytest.approx(values.std(ddof=1) / math.sqrt(500), rel=1e-2)
    assert result.n == 500
    entropy = 1.5 * math.log(2 * math.pi * math.e * 4)
    assert abs(result.mean + entropy) < 5 * result.standard_error


def test_held_out_codes_out_of_reach_are_bounded_by_no_number():
    density = StandardNormal().fit(normal(10, 2, 0))
    assert held_out_log_likelihood(density, torch.full((3, 2), 100.0)).mean == pytest.approx(
        -math.log(2 * math.pi) - 10_000
    )
    density = KernelDensity().fit(normal(20, 1, 0))
    far = held_out_log_likelihood(density, torch.full((3, 1), 1e17))
    assert far.mean < -1e30
    assert far.standard_error >= 0


@pytest.mark.parametrize("function", [dimensions, prior_gap])
@pytest.mark.parametrize(
    ("codes", "error", "message"),
    [
        (normal(1, 2, 0), DataError, "codes: got 1 examples, but at least"),
        (torch.empty(0, 2), DataError, "codes: got 0 examples"),
        (torch.full((20, 2), math.nan), DataError, "codes: NaN or infinity, first in row 0"),
        (normal(20, 2, 0)[:, 0], UsageError, "codes: shape"),
        (torch.zeros(20, 0), UsageError, "codes: shape"),
    ],
)
def test_unusable_codes_are_refused(function, codes, error, message):
    with pytest.raises(error, match=message) as caught:
        function(codes)
    assert "\n" not in str(caught.value)


def test_other_misuse_is_refused():
    with pytest.raises(UsageError, match="bandwidth=0"):
        prior_gap(normal(10, 2, 0), bandwidth=0)
    with pytest.raises(UsageError, match="has no log-likelihood"):
        held_out_log_likelihood(SecondStageVAE(), normal(10, 2, 0))
    with pytest.raises(UsageError, match="is not fitted"):
        held_out_log_likelihood(Gaussian(), normal(10, 2, 0))
    with pytest.raises(DataError, match="codes have 3 dimensions"):
        held_out_log_likelihood(Gaussian().fit(normal(10, 2, 0)), normal(10, 3, 0))
