r"""How well a property can be predicted from codes: Gaussian process regression on the latent space.

Kusner et al. 2017, section 4.3, report the root mean squared error and the log-likelihood of a sparse Gaussian process
(500 inducing points) on a tenth of the codes, held out; a smooth latent space has a low error and a high likelihood.

The process has a constant mean c, a squared-exponential kernel with one length scale a dimension (ARD), and noise:

    y = f(z) + e,  e ~ N(0, s^2),  f ~ GP(c, k),  k(z, z') = a^2 exp(-1/2 sum_j (z_j - z'_j)^2 / l_j^2).

With inducing inputs Z, |Z| = M, and Q = K_nm K_mm^-1 K_mn, all parameters maximize Titsias' bound on the evidence
(Titsias 2009, "Variational learning of inducing variables in sparse Gaussian processes", eq. 9),

    log p(y) >= log N(y; c, Q + s^2 I) - tr(K_nn - Q) / (2 s^2).

The best posterior over the inducing values has a closed form (`expost.metrics.sparse_gp`): one pass over all codes,
however many. If the inducing inputs are the codes themselves the bound is the evidence, and the regression an exact
Gaussian process.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from expost.errors import DataError, UsageError
from expost.metrics.influence import Influence
from expost.metrics.sparse_gp import CHUNK, Posterior, inducing_points, optimal_posterior, whiten, whitening_factor

_JITTER = 1e-8


@dataclass(frozen=True)
class Kernel:
    """Parameters of the process, in the units of standardized codes and values.

    Attributes:
        scales: Length scales l, shape (d,).
        amplitude: Standard deviation a of f.
        noise: Standard deviation s of the noise.
        mean: The constant c.
        inducing: Inducing inputs Z, shape (M, d).
    """

    scales: Tensor
    amplitude: Tensor
    noise: Tensor
    mean: Tensor
    inducing: Tensor

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """Return k(x, y), shape (N, P), for points (N, d) and (P, d)."""
        x, y = x / self.scales, y / self.scales
        squares = x.square().sum(1, keepdim=True) + y.square().sum(1) - 2 * x @ y.T
        return self.amplitude.square() * torch.exp(-0.5 * squares.clamp_min(0))

    def factor(self) -> Tensor:
        """Return Cholesky's factor L of K_mm, shape (M, M), after a jitter of 1e-8 of its diagonal."""
        return whitening_factor(self(self.inducing, self.inducing), _JITTER * self.amplitude.square())


@dataclass(frozen=True)
class GaussianProcess:
    """A fitted process; make one with `fit_gaussian_process`.

    Attributes:
        kernel: Its parameters.
        posterior: Its optimal posterior given all training codes.
        shift: Mean of the training codes, shape (d,).
        scale: Their standard deviations, shape (d,).
        center: Mean of the training values.
        spread: Their standard deviation.
        bound: Titsias' bound on the log evidence of the values, in nats, over the codes that the parameters were
            optimized on.
    """

    kernel: Kernel
    posterior: Posterior
    shift: Tensor
    scale: Tensor
    center: float
    spread: float
    bound: float

    def predict(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and variance of y, noise included, at codes (N, d): float64, shape (N,), in the values' unit."""
        x = (codes.to(self.shift) - self.shift) / self.scale
        parts = [self._moments(chunk) for chunk in torch.split(x, CHUNK)]
        mean, variance = (torch.cat(part) for part in zip(*parts, strict=True))
        return self.center + self.spread * mean, self.spread**2 * variance

    def _moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        a = whiten(self.posterior.factor, self.kernel(self.kernel.inducing, x))
        mean, variance = self.posterior.moments(a, self.kernel.amplitude.square())
        return self.kernel.mean + mean, variance.clamp_min(0) + self.kernel.noise.square()


@dataclass(frozen=True)
class Regression:
    """How well a Gaussian process predicts values of held-out codes.

    Attributes:
        rmse: Root mean squared error of the predicted mean, in the values' unit; lower is better.
        log_likelihood: Mean log density of the values under the prediction, noise included, in nats; higher is better.
        baseline_rmse: RMSE of predicting the training values' mean, as codes without information would.
        baseline_log_likelihood: Log-likelihood of a Gaussian with the training values' mean and variance.
        n_train: Codes fitted on.
        n_test: Codes predicted.
        inducing: Number of inducing points.
        rmse_influence: How much each held-out code moves `rmse`.
        log_likelihood_influence: How much each held-out code moves `log_likelihood`.
    """

    rmse: float
    log_likelihood: float
    baseline_rmse: float
    baseline_log_likelihood: float
    n_train: int
    n_test: int
    inducing: int
    rmse_influence: Influence = field(repr=False, compare=False)
    log_likelihood_influence: Influence = field(repr=False, compare=False)


@torch.inference_mode(False)  # parameters are fitted by gradients, even if the codes were made in inference mode
def latent_regression(
    codes: Tensor,
    values: Tensor,
    generator: torch.Generator,
    test_fraction: float = 0.1,
    inducing: int = 500,
    subset: int = 5000,
    steps: int = 50,
) -> Regression:
    """Fit a sparse Gaussian process to a random part of the codes and score its predictions of the rest.

    Args:
        codes: Latent codes, shape (N, d); noiseless ones (`LatentCode.mean`).
        values: A property of each, shape (N,), such as penalized logP. Codes whose value is NaN (invalid) are left out.
        generator: Draws the split, the subset and the first inducing points: equal seeds give equal results.
        test_fraction: Part that is held out.
        inducing: Most inducing points; with at least as many as training codes the process is exact.
        subset: Most training codes on which the parameters are optimized; the final fit uses all of them.
        steps: Most iterations of the optimizer.

    Raises:
        UsageError: for arguments out of range or shapes that do not fit.
        DataError: for codes that are not finite, or fewer than 10 codes with a value, or values that are all equal.

    Example:
        >>> z = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
        >>> result = latent_regression(z, torch.sin(z[:, 0]), torch.Generator().manual_seed(0), inducing=30)
        >>> result.rmse < 0.05 < result.baseline_rmse, result.n_train, result.n_test
        (True, 180, 20)
    """
    if not 0 < test_fraction < 1:
        raise UsageError(f"test_fraction={test_fraction}; give a number between 0 and 1")
    codes, values = _checked(codes, values, least=10)
    held = max(1, round(test_fraction * len(codes)))
    if len(codes) - held < 2:
        raise UsageError(f"test_fraction={test_fraction} leaves {len(codes) - held} codes to fit; give a smaller one")
    order = torch.randperm(len(codes), generator=generator)
    test, train = order[:held], order[held:]
    process = fit_gaussian_process(codes[train], values[train], generator, inducing, subset, steps)
    mean, variance = process.predict(codes[test])
    target = values[test]
    squares, likelihoods = (mean - target).square(), _log_normal(target, mean, variance)
    rmse = float(squares.mean().sqrt())
    return Regression(
        rmse=rmse,
        log_likelihood=float(likelihoods.mean()),
        baseline_rmse=float((target - process.center).square().mean().sqrt()),
        baseline_log_likelihood=float(
            _log_normal(target, torch.tensor(process.center), torch.tensor(process.spread**2)).mean()
        ),
        n_train=len(train),
        n_test=len(test),
        inducing=len(process.kernel.inducing),
        rmse_influence=Influence(squares / (2 * rmse) if rmse > 0 else squares),
        log_likelihood_influence=Influence(likelihoods),
    )


@torch.inference_mode(False)
def fit_gaussian_process(
    codes: Tensor, values: Tensor, generator: torch.Generator, inducing: int = 500, subset: int = 5000, steps: int = 50
) -> GaussianProcess:
    """Fit a process: parameters and inducing inputs by L-BFGS on a subset, the posterior in closed form on all codes.

    Codes and values are standardized first. Inducing inputs start as k-means centers. Everything is float64 on the CPU.

    Args:
        codes: Shape (N, d).
        values: Shape (N,); codes whose value is NaN are left out.
        generator: Draws the subset and the first inducing points.
        inducing: Most inducing points M; if there are no more codes than this, the codes themselves, held fixed.
        subset: Most codes on which the bound is optimized; time a step is proportional to subset M^2.
        steps: Most iterations; 0 keeps the starting values (length scales sqrt(d), amplitude 1, noise 0.5).

    Raises:
        UsageError: for arguments out of range or shapes that do not fit.
        DataError: as `latent_regression`, but 2 codes are enough.
    """
    if inducing < 1 or subset < 2 or steps < 0:
        raise UsageError(f"inducing={inducing}, subset={subset}, steps={steps}; give at least 1, 2 and 0")
    codes, values = _checked(codes, values, least=2)
    shift, scale = codes.mean(0), codes.std(0, correction=0)
    scale = torch.where(scale > 0, scale, 1.0)
    center, spread = float(values.mean()), float(values.std(correction=0))
    x, y = (codes - shift) / scale, (values - center) / spread
    chosen = torch.randperm(len(x), generator=generator)[: max(subset, 2)]
    part_x, part_y = x[chosen], y[chosen]
    exact = len(x) <= inducing
    start = x if exact else inducing_points(part_x, inducing, generator)
    kernel, bound = _optimize(part_x, part_y, start, steps, fixed=exact)
    variance = kernel.noise.square()
    posterior = optimal_posterior(kernel, kernel.inducing, kernel.factor(), variance, x, y - kernel.mean)
    bound -= len(chosen) * math.log(spread)  # the values were divided by their spread
    return GaussianProcess(kernel, posterior, shift, scale, center, spread, bound)


def evidence_bound(kernel: Kernel, x: Tensor, y: Tensor) -> Tensor:
    """Return Titsias' bound on log p(y), a scalar in nats, for standardized codes x (N, d) and values y (N,)."""
    n, m, variance = len(x), len(kernel.inducing), kernel.noise.square()
    a = whiten(kernel.factor(), kernel(kernel.inducing, x))
    posterior = torch.linalg.cholesky(torch.eye(m, dtype=x.dtype) + a @ a.T / variance)
    residual = y - kernel.mean
    weights = torch.linalg.solve_triangular(posterior, (a @ residual)[:, None] / variance, upper=False)
    log_det = 2 * posterior.diagonal().log().sum() + n * variance.log()
    quadratic = residual.square().sum() / variance - weights.square().sum()
    slack = (n * kernel.amplitude.square() - a.square().sum()).clamp_min(0) / variance
    return -0.5 * (n * math.log(2 * math.pi) + log_det + quadratic + slack)


def _optimize(x: Tensor, y: Tensor, start: Tensor, steps: int, fixed: bool) -> tuple[Kernel, float]:
    """Return the best parameters found and their bound."""
    d = x.shape[1]
    first = [torch.full((d,), 0.5 * math.log(d)), torch.tensor([0.0, math.log(0.5), 0.0])]
    theta = torch.cat([part.to(torch.float64) for part in first])
    if not fixed:
        theta = torch.cat([theta, start.flatten()])

    def build(vector: Tensor) -> Kernel:
        points = start if fixed else vector[d + 3 :].reshape(start.shape)
        return Kernel(vector[:d].exp(), vector[d].exp(), vector[d + 1].exp(), vector[d + 2], points)

    def negative(vector: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        leaf = torch.from_numpy(vector.copy()).requires_grad_()
        loss = -evidence_bound(build(leaf), x, y)
        (slope,) = torch.autograd.grad(loss, leaf)
        return loss.item(), slope.numpy()

    # Wide enough for any data of unit variance, narrow enough for Cholesky: a noise of 1e-3 with a jitter of 1e-8.
    limits = [(-4.0, 7.0)] * d + [(-5.0, 4.0), (math.log(1e-3), 2.0), (-5.0, 5.0)]
    limits += [(-math.inf, math.inf)] * (0 if fixed else start.numel())
    with torch.enable_grad():
        if steps > 0:
            from scipy.optimize import minimize  # slow to import

            found = minimize(
                negative, theta.numpy(), jac=True, method="L-BFGS-B", bounds=limits, options={"maxiter": steps}
            )
            theta = torch.from_numpy(found.x)
    with torch.no_grad():
        kernel = build(theta)
        return kernel, float(evidence_bound(kernel, x, y))


def _log_normal(y: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    return -0.5 * ((2 * math.pi * variance).log() + (y - mean).square() / variance)


def _checked(codes: Tensor, values: Tensor, least: int) -> tuple[Tensor, Tensor]:
    if codes.dim() != 2 or values.shape != codes.shape[:1]:
        raise UsageError(
            f"codes of shape {tuple(codes.shape)} and values of shape {tuple(values.shape)}; give (N, d) and (N,)"
        )
    codes, values = (part.detach().to("cpu", torch.float64, copy=True) for part in (codes, values))
    known = ~values.isnan()
    codes, values = codes[known], values[known]
    if len(codes) < least or codes.shape[1] == 0:
        raise DataError(f"{len(codes)} codes of {codes.shape[1]} dimensions have a value; give at least {least} of 1")
    if not bool(codes.isfinite().all() & values.isfinite().all()):
        raise DataError("codes or values hold NaN or infinity; check the encoder and cap the values")
    if float(values.std()) == 0:
        raise DataError(f"all {len(values)} values are {float(values[0]):g}; a regression needs values that differ")
    return codes, values
