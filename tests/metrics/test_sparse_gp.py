"""The sparse Gaussian process that regression on codes and the search share, against closed forms."""

import numpy as np
import pytest
import torch
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF
from torch import Tensor

from expost.metrics import sparse_gp
from expost.metrics.sparse_gp import inducing_points, optimal_posterior, whiten, whitening_factor

NOISE = 0.04


def kernel(x: Tensor, y: Tensor) -> Tensor:
    return torch.exp(-0.5 * (x[:, None] - y[None]).square().sum(2))


def problem(n: int = 40) -> tuple[Tensor, Tensor, Tensor]:
    """Points, values, and new points."""
    generator = torch.Generator().manual_seed(0)
    x = 2 * torch.randn(n, 2, generator=generator, dtype=torch.float64)
    y = torch.sin(x[:, 0]) + 0.2 * torch.randn(n, generator=generator, dtype=torch.float64)
    return x, y, torch.randn(9, 2, generator=generator, dtype=torch.float64)


def predict(z: Tensor, x: Tensor, y: Tensor, new: Tensor) -> tuple[Tensor, Tensor]:
    factor = whitening_factor(kernel(z, z), 1e-12)
    posterior = optimal_posterior(kernel, z, factor, torch.tensor(NOISE, dtype=torch.float64), x, y)
    return posterior.moments(whiten(factor, kernel(z, new)), 1.0)


def test_through_all_points_it_is_the_exact_process_of_scikit_learn() -> None:
    x, y, new = problem()
    exact = GaussianProcessRegressor(RBF(1.0), alpha=NOISE, optimizer=None).fit(x.numpy(), y.numpy())
    expected, deviation = exact.predict(new.numpy(), return_std=True)
    mean, variance = predict(x, x, y, new)
    np.testing.assert_allclose(mean, expected, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(variance, deviation**2, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("chunk", [7, 8192])
def test_through_few_points_it_is_the_optimum_of_titsias(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Titsias 2009, eq. 6 and 10: mean K_xZ B^-1 K_ZX y / s^2, B = K_ZZ + K_ZX K_XZ / s^2."""
    monkeypatch.setattr(sparse_gp, "CHUNK", chunk)
    x, y, new = problem()
    z = x[:6] + 0.1
    k_zz, k_zx, k_zn = (kernel(z, other).numpy() for other in (z, x, new))
    b = k_zz + k_zx @ k_zx.T / NOISE
    mean, variance = predict(z, x, y, new)
    np.testing.assert_allclose(mean, k_zn.T @ np.linalg.solve(b, k_zx @ y.numpy()) / NOISE, rtol=1e-8)
    correction = np.linalg.inv(k_zz) - np.linalg.inv(b)
    np.testing.assert_allclose(variance, 1 - np.einsum("mn,mk,kn->n", k_zn, correction, k_zn), rtol=1e-7)


def test_inducing_points_are_centers_of_what_there_is() -> None:
    centers = torch.tensor([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]], dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    x = centers.repeat(50, 1) + 0.01 * torch.randn(150, 2, generator=generator, dtype=torch.float64)
    found = inducing_points(x, 30, generator)
    assert found.shape == (30, 2)
    assert torch.cdist(found, centers).amin(1).max() < 0.1
    assert len(inducing_points(centers.repeat(9, 1), 30, generator)) == 3  # no more than different points
