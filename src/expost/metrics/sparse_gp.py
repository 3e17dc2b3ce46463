"""A Gaussian process through M inducing points: the optimal posterior in one pass over the data, and its predictions.

For f = c + GP(0, k), y = f(x) + e with e ~ N(0, s^2), inducing inputs Z and K_ZZ = L L^T, let

    a(x) = L^-1 k(Z, x),    f(Z) - c = L v.

The best Gaussian q(v) = N(m, S) is known in closed form (Titsias 2009, "Variational learning of inducing variables in
sparse Gaussian processes", eq. 10): with the columns of A the a(x) of the data,

    S^-1 = I + A A^T / s^2,    m = S A (y - c) / s^2,
    E f(x) = c + a(x)^T m,     cov(f(x), f(x')) = k(x, x') - a(x)^T (I - S) a(x').

If Z are the data themselves, this is the exact Gaussian process. Kernel, noise and Z are learned elsewhere, in two
ways: on a fixed subset of 5,000 codes L-BFGS maximizes the collapsed bound (`latent_regression`); the 250,000 strings
of a search need minibatches, hence the bound with an explicit q(v) (`expost.search.surrogate`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from expost.densities.kmeans import lloyd

#: Points at a time in passes over all of them: 33 MB of float64 at 500 inducing points.
CHUNK = 8192

#: k(x, y), shape (N, P), for points (N, d) and (P, d).
KernelFunction = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Posterior:
    """The optimal q(v).

    Attributes:
        factor: L, lower triangular, shape (M, M).
        moment: S^-1 m, shape (M,).
        precision: S^-1, shape (M, M).
        mean: m, shape (M,).
        shrinkage: I - S, shape (M, M).
    """

    factor: Tensor
    moment: Tensor
    precision: Tensor
    mean: Tensor
    shrinkage: Tensor

    def moments(self, a: Tensor, prior: Tensor | float) -> tuple[Tensor, Tensor]:
        """Return mean and variance of f - c at points of features a (M, N), each (N,); `prior` is k(x, x)."""
        return a.mT @ self.mean, prior - (a * (self.shrinkage @ a)).sum(0)


def inducing_points(x: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Return at most `count` k-means centers of x (N, d): 10 rounds of Lloyd from different random points."""
    distinct = torch.unique(x, dim=0)  # sorted, hence drawn from at random
    chosen = distinct[torch.randperm(len(distinct), generator=generator)[:count].to(x.device)]
    return lloyd(x, chosen, max_iter=10)[0]


def whitening_factor(gram: Tensor, jitter: Tensor | float) -> Tensor:
    """Return L, lower triangular, shape (M, M), with L L^T = K_ZZ + jitter I."""
    return torch.linalg.cholesky(gram + jitter * torch.eye(len(gram), dtype=gram.dtype, device=gram.device))


def whiten(factor: Tensor, cross: Tensor) -> Tensor:
    """Return the features a(x) = L^-1 k(Z, x), shape (M, N), of k(Z, x)."""
    return torch.linalg.solve_triangular(factor, cross, upper=False)


def optimal_posterior(
    kernel: KernelFunction, inducing: Tensor, factor: Tensor, noise: Tensor, x: Tensor, y: Tensor
) -> Posterior:
    """Return the optimal q(v), by one pass over the data.

    Args:
        kernel: k.
        inducing: Z, shape (M, d).
        factor: L, from `whitening_factor`.
        noise: s^2.
        x: Points, shape (N, d).
        y: Values less the constant mean c, shape (N,).
    """
    identity = torch.eye(len(inducing), dtype=x.dtype, device=x.device)
    precision, moment = identity.clone(), x.new_zeros(len(inducing))
    for points, values in zip(torch.split(x, CHUNK), torch.split(y, CHUNK), strict=True):
        a = whiten(factor, kernel(inducing, points))
        precision += a @ a.mT / noise
        moment += a @ values / noise
    root = torch.linalg.cholesky(precision)
    mean = torch.cholesky_solve(moment[:, None], root)[:, 0]
    return Posterior(factor, moment, precision, mean, identity - torch.cholesky_inverse(root))
