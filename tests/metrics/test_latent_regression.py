import json
import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

from expost.errors import DataError, UsageError
from expost.metrics.latent_regression import Kernel, evidence_bound, fit_gaussian_process, latent_regression


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def sample(n=60, d=3, noise=0.2, seed=0):
    """Codes, and a smooth function of the first two of their dimensions with noise."""
    z = torch.randn(n, d, generator=seeded(seed), dtype=torch.float64)
    y = torch.sin(2 * z[:, 0]) + 0.5 * z[:, 1]
    return z, y + noise * torch.randn(n, generator=seeded(seed + 1), dtype=torch.float64)


def kernel_of(inducing, scales=(0.7, 1.5, 3.0), amplitude=1.3, noise=0.3, mean=0.2):
    return Kernel(
        scales=torch.tensor(scales, dtype=torch.float64),
        amplitude=torch.tensor(amplitude, dtype=torch.float64),
        noise=torch.tensor(noise, dtype=torch.float64),
        mean=torch.tensor(mean, dtype=torch.float64),
        inducing=inducing,
    )


def dense(x, y, scales=(0.7, 1.5, 3.0), amplitude=1.3):
    difference = (x[:, None] - y[None]).numpy() / np.array(scales)
    return amplitude**2 * np.exp(-0.5 * np.square(difference).sum(-1))


def test_kernel_is_the_squared_exponential():
    z, _ = sample()
    np.testing.assert_allclose(kernel_of(z)(z, z[:7]).numpy(), dense(z, z[:7]), rtol=1e-10, atol=1e-12)


def test_bound_equals_titsias_formula():
    z, y = sample()
    inducing = z[:11] + 0.1
    cross = dense(inducing, z)
    q = cross.T @ np.linalg.solve(dense(inducing, inducing), cross)
    likelihood = multivariate_normal(np.full(60, 0.2), q + 0.09 * np.eye(60)).logpdf(y.numpy())
    expected = likelihood - (60 * 1.3**2 - np.trace(q)) / (2 * 0.09)
    assert float(evidence_bound(kernel_of(inducing), z, y)) == pytest.approx(expected, rel=1e-6)


def test_bound_is_the_evidence_of_scikit_learn_if_the_codes_are_the_inducing_inputs():
    z, y = sample()
    kernel = ConstantKernel(1.3**2) * RBF([0.7, 1.5, 3.0]) + WhiteKernel(0.3**2)
    reference = GaussianProcessRegressor(kernel, alpha=0, optimizer=None).fit(z.numpy(), y.numpy() - 0.2)
    expected = reference.log_marginal_likelihood_value_
    assert float(evidence_bound(kernel_of(z), z, y)) == pytest.approx(expected, rel=1e-5)
    assert float(evidence_bound(kernel_of(z[:20]), z, y)) < expected


def test_gradient_of_the_bound_equals_finite_differences():
    z, y = sample(20)
    theta = torch.tensor([0.7, 1.5, 3.0, 1.3, 0.3, 0.2], dtype=torch.float64).requires_grad_()
    inducing = (z[:4] + 0.1).clone().requires_grad_()

    def bound(theta, inducing):
        return evidence_bound(Kernel(theta[:3], theta[3], theta[4], theta[5], inducing), z, y)

    assert torch.autograd.gradcheck(bound, (theta, inducing), eps=1e-6, atol=1e-4, rtol=1e-4)


def test_exact_predictions_equal_scikit_learns():
    """Zero steps keep length scales sqrt(3), amplitude 1 and noise 1/2 on standardized codes and values."""
    z, y = 5 + 3 * sample()[0], 10 + 4 * sample()[1]
    new = 5 + 3 * sample(25, seed=7)[0]
    process = fit_gaussian_process(z, y, seeded(), inducing=100, steps=0)
    kernel = RBF([math.sqrt(3)] * 3) + WhiteKernel(0.25)
    shift, scale = z.mean(0).numpy(), z.std(0, correction=0).numpy()
    center, spread = float(y.mean()), float(y.std(correction=0))
    reference = GaussianProcessRegressor(kernel, alpha=0, optimizer=None)
    reference.fit((z.numpy() - shift) / scale, (y.numpy() - center) / spread)
    mean, std = reference.predict((new.numpy() - shift) / scale, return_std=True)
    found, variance = process.predict(new)
    np.testing.assert_allclose(found.numpy(), center + spread * mean, rtol=1e-5)
    np.testing.assert_allclose(variance.sqrt().numpy(), spread * std, rtol=1e-5)
    expected = reference.log_marginal_likelihood_value_ - 60 * math.log(spread)
    assert process.bound == pytest.approx(expected, rel=1e-5)


def test_optimum_is_scikit_learns():
    z, y = sample(80)
    process = fit_gaussian_process(z, y, seeded(), inducing=80, steps=200)
    kernel = ConstantKernel(1.0) * RBF([1.0] * 3, (1e-2, 1e6)) + WhiteKernel(0.1)
    x, target = (z - z.mean(0)) / z.std(0, correction=0), (y - y.mean()) / y.std(correction=0)
    reference = GaussianProcessRegressor(kernel, alpha=0).fit(x.numpy(), target.numpy())
    expected = reference.log_marginal_likelihood_value_ - 80 * math.log(process.spread)
    # ours has one parameter more, the constant mean, so that it can only be better
    assert expected - 0.01 < process.bound < expected + 2
    np.testing.assert_allclose(process.kernel.scales[:2], reference.kernel_.k1.k2.length_scale[:2], rtol=0.3)
    assert process.kernel.scales[2] > 5 * process.kernel.scales[0]  # the dimension that does not matter


def test_sparse_predictions_equal_the_formula_in_dense_algebra():
    z, y = sample(300)
    new, _ = sample(20, seed=9)
    process = fit_gaussian_process(z, y, seeded(), inducing=25, subset=200, steps=15)
    kernel = process.kernel
    parameters = (kernel.scales.numpy(), float(kernel.amplitude))
    x, x_new = ((part - process.shift) / process.scale for part in (z, new))
    target = ((y - process.center) / process.spread - kernel.mean).numpy()
    k_mm = dense(kernel.inducing, kernel.inducing, *parameters) + 1e-8 * parameters[1] ** 2 * np.eye(25)
    k_mn, k_ms = dense(kernel.inducing, x, *parameters), dense(kernel.inducing, x_new, *parameters)
    variance = float(kernel.noise) ** 2
    sigma = np.linalg.inv(k_mm + k_mn @ k_mn.T / variance)
    mean = k_ms.T @ sigma @ k_mn @ target / variance + float(kernel.mean)
    var = float(kernel.amplitude) ** 2 - np.einsum("ms,ms->s", k_ms, np.linalg.solve(k_mm, k_ms))
    var += np.einsum("ms,mp,ps->s", k_ms, sigma, k_ms) + variance
    found, found_variance = process.predict(new)
    np.testing.assert_allclose(found, process.center + process.spread * mean, rtol=1e-4, atol=2e-4)
    np.testing.assert_allclose(found_variance, process.spread**2 * var, rtol=1e-4)


def test_a_known_function_is_found_down_to_its_noise():
    z, y = sample(1500, d=5, noise=0.2)
    result = latent_regression(z, y, seeded(), inducing=60, subset=600, steps=60)
    assert result.rmse == pytest.approx(0.2, rel=0.2)
    assert result.log_likelihood == pytest.approx(-0.5 * math.log(2 * math.pi * math.e * 0.04), abs=0.15)
    assert result.baseline_rmse == pytest.approx(float(y.std()), rel=0.15)
    assert result.baseline_log_likelihood == pytest.approx(
        -0.5 * math.log(2 * math.pi * math.e * float(y.var())), abs=0.15
    )
    assert (result.n_train, result.n_test, result.inducing) == (1350, 150, 60)
    json.dumps({name: value for name, value in vars(result).items() if "influence" not in name}, allow_nan=False)


def test_codes_without_information_give_the_baseline():
    z, _ = sample(600, d=4)
    y = torch.randn(600, generator=seeded(5))
    result = latent_regression(z, y, seeded(), inducing=30, subset=400, steps=40)
    assert result.rmse == pytest.approx(result.baseline_rmse, rel=0.05)
    assert result.log_likelihood == pytest.approx(result.baseline_log_likelihood, abs=0.05)


def test_units_do_not_matter():
    z, y = sample(200)
    a = latent_regression(z, y, seeded(3), inducing=20, steps=20)
    b = latent_regression(100 * z - 7, 50 * y + 1000, seeded(3), inducing=20, steps=20)
    assert b.rmse == pytest.approx(50 * a.rmse, rel=1e-3)
    assert b.log_likelihood == pytest.approx(a.log_likelihood - math.log(50), abs=1e-3)


def test_equal_seeds_give_equal_results_and_the_global_state_is_left_alone():
    z, y = sample(150)
    before = torch.get_rng_state()
    one, two, other = (latent_regression(z.float(), y.float(), seeded(s), inducing=15, steps=10) for s in (1, 1, 2))
    assert one == two != other
    assert torch.equal(torch.get_rng_state(), before)


def test_invalid_values_are_left_out():
    z, y = sample(100)
    y[::4] = math.nan
    result = latent_regression(z, y, seeded(), inducing=10, steps=5)
    assert (result.n_train, result.n_test) == (67, 8)
    kept = ~y.isnan()
    assert result == latent_regression(z[kept], y[kept], seeded(), inducing=10, steps=5)


def test_repeated_codes_and_dead_dimensions_are_no_trouble():
    z, y = sample(40)
    z = torch.cat([z, z[:, :1], torch.zeros(40, 1)], dim=1).repeat(3, 1)
    for inducing in (10, 200):
        result = latent_regression(z, y.repeat(3), seeded(), inducing=inducing, steps=30)
        assert result.rmse < result.baseline_rmse
    few = latent_regression(z[:3].repeat(20, 1), y[:3].repeat(20), seeded(), inducing=10, steps=30)
    assert few.inducing == 3
    assert few.rmse < 0.05 * few.baseline_rmse


def test_a_gradient_is_neither_needed_nor_left():
    z, y = sample(50)
    with torch.inference_mode():
        result = latent_regression(z.clone(), y.clone(), seeded(), inducing=10, steps=5)
    assert result == latent_regression(z.requires_grad_(), y, seeded(), inducing=10, steps=5)
    assert z.grad is None


@pytest.mark.parametrize(
    ("codes", "values", "options", "error", "message"),
    [
        (torch.zeros(20), torch.arange(20.0), {}, UsageError, "codes of shape .20,."),
        (torch.randn(20, 2), torch.arange(19.0), {}, UsageError, "values of shape .19,."),
        (torch.randn(20, 2), torch.ones(20), {}, DataError, "all 20 values are 1"),
        (torch.randn(20, 2), torch.full((20,), math.nan), {}, DataError, "0 codes of 2 dimensions"),
        (torch.randn(9, 2), torch.arange(9.0), {}, DataError, "9 codes of 2 dimensions"),
        (torch.randn(20, 0), torch.arange(20.0), {}, DataError, "20 codes of 0 dimensions"),
        (torch.full((20, 2), math.inf), torch.arange(20.0), {}, DataError, "NaN or infinity"),
        (torch.randn(20, 2), torch.full((20,), math.inf), {}, DataError, "NaN or infinity"),
        (torch.randn(20, 2), torch.arange(20.0), {"test_fraction": 0.0}, UsageError, "test_fraction=0.0"),
        (torch.randn(20, 2), torch.arange(20.0), {"test_fraction": 0.99}, UsageError, "leaves 0 codes"),
        (torch.randn(20, 2), torch.arange(20.0), {"inducing": 0}, UsageError, "inducing=0"),
        (torch.randn(20, 2), torch.arange(20.0), {"steps": -1}, UsageError, "steps=-1"),
    ],
)
def test_what_cannot_be_fitted_is_refused(codes, values, options, error, message):
    with pytest.raises(error, match=message) as caught:
        latent_regression(codes, values, seeded(), **options)
    assert "\n" not in str(caught.value)
