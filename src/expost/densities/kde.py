"""Kernel density estimation: every training code is the center of one Gaussian."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from expost.densities.base import Fit
from expost.densities.checks import check_choice, check_determined, check_float, check_int, check_seed
from expost.densities.drawing import draw_index, draw_normal
from expost.densities.em import rows_per_chunk
from expost.densities.linalg import LOG_2PI, ml_covariance, stable_cholesky, whiten
from expost.densities.tractable import TractableDensity
from expost.densities.units import Units
from expost.errors import UsageError
from expost.registry import Registry

# Of Scott's factor: the grid of the cross-validated bandwidth, two decades in 25 steps of 21 %.
_GRID = torch.logspace(-1.5, 0.5, 25, dtype=torch.float64)


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class KernelDensity(TractableDensity):
    """q(z) = 1/N sum_n N(z; z_n, h^2 S), one Gaussian on each training code z_n (Scott 2015, chapter 6).

    A draw is a training code picked at random plus h times noise from N(0, S), so the fit keeps all the codes.

    The bandwidth h is one of
    - "scott": N^(-1/(d+4)),
    - "silverman": (N (d+2) / 4)^(-1/(d+4)),
    - "cross-validated": the h of a grid from 0.03 to 3.2 times Scott's with the largest leave-one-out log-likelihood
      (Duin 1976), summed over at most `cv_queries` codes, each against all the others. Meaningless where codes are
      repeated: the likelihood then favors the smallest h of the grid,
    - a number above 0.
    The three rules assume unit spread; for an isotropic kernel they are multiplied by the codes' root mean variance.

    Attributes:
        bandwidth: The rule or the number.
        kernel: What S is: "covariance", that of the codes (then h is a fraction of their spread, as for
            `scipy.stats.gaussian_kde`), or "isotropic", the identity (then h is in the units of the codes, as for
            `sklearn.neighbors.KernelDensity`; the experiments of Ghosh et al. 2020 take 0.425).
        regularization: Ridge on the variances of the codes, in squared units of each dimension (`Units`); unused if
            isotropic.
        cv_queries: Codes to score in cross-validation, at least 2.
        seed: Seed of the choice of these codes.

    Example:
        >>> z = torch.tensor([[-1.0], [1.0]])
        >>> density = KernelDensity(bandwidth=1.0, kernel="isotropic").fit(z)
        >>> density.log_prob(torch.zeros(1, 1))  # both kernels give N(1; 0, 1)
        tensor([-1.4189], dtype=torch.float64)
    """

    name: ClassVar[str] = "kde"
    words: ClassVar[str] = "the kernel density"
    grids: ClassVar[Mapping[str, Callable[[Tensor, Mapping[str, Any]], Sequence[Any]]]] = {
        "bandwidth": lambda z, options: bandwidths(z, KernelDensity(**options))
    }
    tried: ClassVar[Mapping[str, Any] | None] = {"bandwidth": "auto"}
    bandwidth: str | float = "scott"
    kernel: str = "covariance"
    regularization: float = 1e-6
    cv_queries: int = 1000
    seed: int = 0

    def _check(self) -> None:
        if isinstance(self.bandwidth, str):
            if self.bandwidth not in BANDWIDTHS:
                choices = ", ".join(BANDWIDTHS)
                raise UsageError(
                    f"bandwidth={self.bandwidth!r} is unknown; choose a number above 0 or one of: {choices}"
                )
        else:
            check_float("bandwidth", self.bandwidth, minimum=0, above=True)
        check_choice("kernel", self.kernel, list(KERNELS))
        check_float("regularization", self.regularization, minimum=0)
        check_int("cv_queries", self.cv_queries, minimum=2)
        check_seed(self.seed)

    def _fit(self, z: Tensor) -> Fit:
        mean, factor, unit = KERNELS[self.kernel](z, self.regularization)
        centers = whiten(z, mean, factor).contiguous()
        if isinstance(self.bandwidth, str):
            h = unit * BANDWIDTHS[self.bandwidth](centers / unit, self.cv_queries, self.seed)
        else:
            h = float(self.bandwidth)
        tensors = {"mean": mean, "cholesky": factor, "centers": centers, "bandwidth": z.new_tensor(h)}
        return Fit(tensors, {"seed": self.seed, "bandwidth": h})

    def _draw(self, n: int, generator: torch.Generator | None, temperature: float) -> Tensor:
        fit = self.tensors
        centers = fit["centers"]
        rows = draw_index(n, torch.ones_like(centers[:, 0]), generator)
        noise = draw_normal(n, self.dim, generator, centers.device, temperature)
        return fit["mean"] + (centers[rows] + fit["bandwidth"] * noise) @ fit["cholesky"].T

    def _log_prob(self, z: Tensor) -> Tensor:
        return self._mean_of_kernels(z, without_nearest=False)

    def _log_prob_left_out(self, z: Tensor) -> Tensor:
        return self._mean_of_kernels(z, without_nearest=True)  # a training code is the nearest to itself

    def _mean_of_kernels(self, z: Tensor, without_nearest: bool) -> Tensor:
        fit = self.tensors
        queries = whiten(z, fit["mean"], fit["cholesky"])
        n, d = fit["centers"].shape
        sums = []
        for chunk in torch.split(queries, rows_per_chunk(n, z.device)):
            squared = squared_distances(chunk, fit["centers"])
            if without_nearest:
                squared.scatter_(1, squared.argmin(1, keepdim=True), math.inf)
            sums.append(torch.logsumexp(-0.5 / fit["bandwidth"] ** 2 * squared, 1))
        log_volume = fit["cholesky"].diagonal().log().sum() + d * (fit["bandwidth"].log() + 0.5 * LOG_2PI)
        return torch.cat(sums) - log_volume - math.log(n - without_nearest)

    def _layout(self, statistics: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        n, d = statistics["n"], statistics["d"]
        return {"mean": (d,), "cholesky": (d, d), "centers": (n, d), "bandwidth": ()}


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """Return ||a_i - b_j||^2, shape (n, m), by one matrix product; exact to about eps times the larger squared norm."""
    products = torch.addmm(a.square().sum(1)[:, None] + b.square().sum(1), a, b.T, alpha=-2)
    return products.clamp_(min=0)


def scott(centers: Tensor, queries: int, seed: int) -> float:
    """Return N^(-1/(d+4)) (Scott 2015, eq. 6.44)."""
    n, d = centers.shape
    return float(n ** (-1 / (d + 4)))


def silverman(centers: Tensor, queries: int, seed: int) -> float:
    """Return (N (d+2) / 4)^(-1/(d+4)) (Silverman 1986, eq. 4.15)."""
    n, d = centers.shape
    return float((n * (d + 2) / 4) ** (-1 / (d + 4)))


def cross_validated(centers: Tensor, queries: int, seed: int) -> float:
    """Return the bandwidth of the grid with the largest leave-one-out log-likelihood.

    log q_-i(z_i) = log sum_{n != i} exp(-||z_i - z_n||^2 / (2 h^2)) - d log h + constant.

    Args:
        centers: Codes in units of their spread, shape (N, d).
        queries: At most this many of them are scored.
        seed: Which ones.
    """
    n, d = centers.shape
    rows = torch.randperm(n, generator=torch.Generator().manual_seed(seed))[:queries].to(centers.device)
    grid = (_GRID * scott(centers, queries, seed)).to(centers.device)
    total = torch.zeros_like(grid)
    for chunk in torch.split(rows, rows_per_chunk(n, centers.device)):
        squared = squared_distances(centers[chunk], centers)
        squared.scatter_(1, chunk[:, None], math.inf)  # leave the code itself out
        for i, h in enumerate(grid):
            total[i] += torch.logsumexp(-0.5 / h**2 * squared, 1).sum() - chunk.shape[0] * d * h.log()
    return float(grid[total.argmax()])


def bandwidths(z: Tensor, density: KernelDensity) -> list[float]:
    """Return the bandwidths that are tried where one is to be chosen: from .03 to 3.2 times Scott's, each 1.47 times.

    Args:
        z: Codes, shape (N, d).
        density: Whose kernel says in which units.
    """
    unit = KERNELS[density.kernel](z.double(), density.regularization)[2]
    return [float(each) * unit * scott(z, 0, 0) for each in _GRID[::2]]


def covariance_kernel(z: Tensor, regularization: float) -> tuple[Tensor, Tensor, float]:
    """Return mean, Cholesky factor of the covariance (over N - 1, as scipy has it, plus the ridge), and the unit 1."""
    check_determined(KernelDensity.name, *z.shape)
    n, units = z.shape[0], Units.of_bulk(z)
    shift, covariance = ml_covariance(units.apply(z), 0.0)
    covariance = covariance * (n / (n - 1))
    covariance.diagonal().add_(regularization)
    return units.undo(shift), units.scale[:, None] * stable_cholesky(covariance, "the codes"), 1.0


def isotropic_kernel(z: Tensor, regularization: float) -> tuple[Tensor, Tensor, float]:
    """Return mean, the identity, and the root mean variance of the codes as the unit of the bandwidth rules."""
    unit = float(z.var(0).mean().sqrt())
    return z.mean(0), torch.eye(z.shape[1], dtype=z.dtype, device=z.device), unit


BANDWIDTHS: Registry[Callable[[Tensor, int, int], float]] = Registry(
    "bandwidth", {"scott": scott, "silverman": silverman, "cross-validated": cross_validated}
)
KERNELS: Registry[Callable[[Tensor, float], tuple[Tensor, Tensor, float]]] = Registry(
    "kernel", {"covariance": covariance_kernel, "isotropic": isotropic_kernel}
)
