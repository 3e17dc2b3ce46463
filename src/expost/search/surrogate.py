"""The surrogate of latent-space search: a sparse variational Gaussian process from codes to scores.

The model is BoTorch's `SingleTaskVariationalGP`: M inducing points Z, q(u) Gaussian, minibatch evidence lower bound
(Hensman, Fusi & Lawrence 2013, eq. 4). Adam learns inducing points, length scales and noise. Before and after, q(u) is
set to its optimum in closed form (`expost.metrics.sparse_gp`); in between it follows by natural gradients (Salimbeni,
Eleftheriadis & Hensman 2018). Under Adam, q(u) would lag behind the moving kernel, and the noise would grow instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from expost.metrics.sparse_gp import CHUNK, Posterior, inducing_points, optimal_posterior, whiten, whitening_factor
from expost.utils.extras import require
from expost.utils.seeding import isolated

_NATURAL_LR = 0.1  # of the natural gradient; 1 would be the minibatch's optimum
_UNIFORM = 12**0.5  # the unit cube's sides have standard deviation 1/sqrt(12): BoTorch's priors expect that scale


@dataclass(frozen=True)
class Surrogate:
    """A fitted Gaussian process f over scaled codes; larger values of f are better scores.

    See `expost.metrics.sparse_gp` for the equations.

    Attributes:
        model: The BoTorch model, in evaluation mode, with q(u) at its optimum.
        shift: What is subtracted from codes, shape (d,).
        scale: What they are then divided by, shape (d,).
        posterior: The optimal q(v).
        center: Mean of the targets that the model was fitted on.
        spread: Their standard deviation; f is in units of it.
    """

    model: Any
    shift: Tensor
    scale: Tensor
    posterior: Posterior
    center: float
    spread: float

    def to_unit(self, codes: Tensor) -> Tensor:
        """Bring codes (N, d) to the scale of the model, float64."""
        return (codes.to(self.shift) - self.shift) / self.scale

    def to_codes(self, x: Tensor) -> Tensor:
        """Bring scaled points (N, d) back to codes, float64."""
        return x * self.scale + self.shift

    def kernel(self, x: Tensor, y: Tensor) -> Tensor:
        """Return k(x, y), shape (N, P), for scaled points (N, d) and (P, d)."""
        return self.model.model.covar_module(x, y).to_dense()

    def features(self, x: Tensor) -> Tensor:
        """Return a(x), shape (M, N), for scaled points (N, d)."""
        inducing = self.model.model.variational_strategy.inducing_points
        return whiten(self.posterior.factor, self.kernel(inducing, x))

    def moments(self, a: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and variance of f, each (N,), in units of `spread`, for features (M, N)."""
        # k(x, x) = 1: the kernel is a squared exponential without an output scale, the targets are standardized
        mean, variance = self.posterior.moments(a, 1.0)
        return self.model.model.mean_module.constant + mean, variance.clamp_min(1e-10)

    def predict(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of the noiseless target at codes (N, d), each (N,), in the targets' unit.

        Chunked, so that any number of codes goes through.
        """
        with torch.no_grad():
            parts = [self.moments(self.features(self.to_unit(chunk))) for chunk in torch.split(codes, CHUNK)]
        mean, variance = (torch.cat(part) for part in zip(*parts, strict=True))
        return self.center + self.spread * mean, self.spread * variance.sqrt()


def fit_surrogate(
    codes: Tensor,
    targets: Tensor,
    inducing: int,
    steps: int,
    minibatch: int,
    lr: float,
    generator: torch.Generator,
    tick: Callable[[], None] = lambda: None,
) -> Surrogate:
    """Fit the sparse variational Gaussian process. Float64; PyTorch's global random state is left alone.

    Args:
        codes: Shape (N, d), finite.
        targets: Shape (N,), finite, not all equal; larger is better.
        inducing: Number M of inducing points; at most as many as there are different codes are used. They start as
            k-means centers of a random subset.
        steps: Steps of Adam on the evidence lower bound; 0 leaves kernel and inducing points as they start.
        minibatch: Codes per step.
        lr: Adam's learning rate.
        generator: Source of randomness, on the CPU.
        tick: Called after every step, for a progress bar.

    Returns:
        The fitted process, on the device of `codes`.

    Raises:
        UsageError: if BoTorch is not installed.
    """
    parts = libraries()
    codes, targets = codes.double(), targets.double()
    shift, scale = codes.mean(0), codes.std(0) * _UNIFORM
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))  # an unused dimension stays at 0
    x = (codes - shift) / scale
    center, spread = targets.mean(), targets.std()
    y = (targets - center) / spread

    with isolated():  # BoTorch's constructors may draw random numbers; other draws must not change
        subset = x[torch.randperm(len(x), generator=generator)[: 20 * inducing].to(x.device)]
        start = inducing_points(subset, inducing, generator)
        model = _model(parts, start)
        bound = parts.VariationalELBO(model.likelihood, model.model, num_data=len(x))
        model.model.variational_strategy.variational_params_initialized.fill_(1)
        _set_optimal(model, x, y)
        model.train()
        natural = parts.NGD(model.model.variational_parameters(), num_data=len(x), lr=_NATURAL_LR)
        others = [*model.model.hyperparameters(), *model.likelihood.parameters()]
        adam = torch.optim.Adam(others, lr=lr)
        for _ in range(steps):
            index = torch.randint(len(x), (min(minibatch, len(x)),), generator=generator).to(x.device)
            loss = -bound(model.model(x[index]), y[index])
            natural.zero_grad()
            adam.zero_grad()
            loss.backward()
            natural.step()
            adam.step()
            tick()
        model.eval().requires_grad_(False)
        posterior = _set_optimal(model, x, y)
    return Surrogate(model, shift, scale, posterior, float(center), float(spread))


def libraries() -> SimpleNamespace:
    """Import BoTorch and GPyTorch: this takes a second, and only a search needs them.

    Raises:
        UsageError: if BoTorch is not installed.
    """
    need = "search needs BoTorch"
    botorch_models, gpytorch = require("botorch.models", "molecules", need), require("gpytorch", "molecules", need)
    return SimpleNamespace(
        SingleTaskVariationalGP=botorch_models.SingleTaskVariationalGP,
        VariationalELBO=gpytorch.mlls.VariationalELBO,
        NGD=gpytorch.optim.NGD,
        NaturalVariationalDistribution=gpytorch.variational.NaturalVariationalDistribution,
        RBFKernel=gpytorch.kernels.RBFKernel,
        GaussianLikelihood=gpytorch.likelihoods.GaussianLikelihood,
        GreaterThan=gpytorch.constraints.GreaterThan,
        LogNormalPrior=gpytorch.priors.LogNormalPrior,
    )


def _model(parts: SimpleNamespace, inducing: Tensor) -> Any:
    """Build the model: squared exponential kernel, a length scale for each dimension, Gaussian noise.

    The prior of the length scales is BoTorch's, log-normal with its mode growing as sqrt(d) (Hvarfner, Hellsten & Nardi
    2024). The bounds are not: BoTorch leaves them to its optimizer, and Adam's steps would overrun them; here they are
    part of the parametrization (softplus).
    """
    d = inducing.shape[1]
    location, width = 2**0.5 + 0.5 * math.log(d), 3**0.5
    kernel = parts.RBFKernel(
        ard_num_dims=d,
        lengthscale_prior=parts.LogNormalPrior(location, width),
        lengthscale_constraint=parts.GreaterThan(0.025, initial_value=math.exp(location - width**2)),
    )
    likelihood = parts.GaussianLikelihood(noise_constraint=parts.GreaterThan(1e-4, initial_value=0.1))
    q = parts.NaturalVariationalDistribution(len(inducing))
    return parts.SingleTaskVariationalGP(
        inducing[:1],
        likelihood=likelihood,
        covar_module=kernel,
        variational_distribution=q,
        inducing_points=inducing,
    ).to(inducing)


@torch.no_grad()
def _set_optimal(model: Any, x: Tensor, y: Tensor) -> Posterior:
    """Set q(u) to the optimum for the present kernel, noise and inducing points, and return it."""
    strategy = model.model.variational_strategy
    covariance, constant = model.model.covar_module, model.model.mean_module.constant

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        return covariance(x, y).to_dense()

    inducing = strategy.inducing_points
    factor = whitening_factor(kernel(inducing, inducing), strategy.jitter_val)
    posterior = optimal_posterior(kernel, inducing, factor, model.likelihood.noise, x, y - constant)
    q = strategy._variational_distribution
    q.natural_vec.copy_(posterior.moment)
    q.natural_mat.copy_(-0.5 * posterior.precision)
    strategy._clear_cache()
    return posterior
