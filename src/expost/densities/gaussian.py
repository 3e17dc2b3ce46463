"""Single Gaussians: the standard normal, which needs no fit, and one with the codes' mean and full covariance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from expost import distributed
from expost.densities.base import Fit
from expost.densities.checks import check_determined, check_float
from expost.densities.drawing import draw_normal
from expost.densities.linalg import LOG_2PI, log_normal, ml_covariance, precise_device, stable_cholesky
from expost.densities.tractable import TractableDensity
from expost.densities.units import Units
from expost.distributed import shard


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class StandardNormal(TractableDensity):
    """q(z) = N(0, I): the prior of a VAE or WAE. Fitting only learns the number of dimensions.

    Example:
        >>> density = StandardNormal().fit(torch.randn(100, 2))
        >>> density.sample(5).shape
        torch.Size([5, 2])
        >>> density.log_prob(torch.zeros(1, 2))
        tensor([-1.8379], dtype=torch.float64)
    """

    name: ClassVar[str] = "standard-normal"
    words: ClassVar[str] = "N(0, I)"

    def _check(self) -> None:
        pass  # no options

    def _fit(self, z: Tensor) -> Fit:
        return Fit(tensors={}, statistics={"log_likelihood": _log_standard_normal(z).mean().item()})

    def _draw(self, n: int, generator: torch.Generator | None, temperature: float) -> Tensor:
        return draw_normal(n, self.dim, generator, precise_device(self.device), temperature)

    def _log_prob(self, z: Tensor) -> Tensor:
        return _log_standard_normal(z)

    def _layout(self, statistics: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        return {}


def _log_standard_normal(z: Tensor) -> Tensor:
    return -0.5 * (z.square().sum(1) + z.shape[1] * LOG_2PI)


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Gaussian(TractableDensity):
    """q(z) = N(m, S) with m the mean and S = 1/N sum (z - m)(z - m)^T + eps diag(s)^2 of the codes.

    S is the maximum-likelihood estimate (divided by N, not N - 1), as in a mixture of one component: column N of the
    table of Ghosh et al. 2020. The ridge makes S positive definite when a dimension is constant or there are fewer
    codes than dimensions.

    Attributes:
        regularization: The ridge eps, at least 0: on every variance, in squared units s of its dimension (`Units`).

    Example:
        >>> z = torch.tensor([[0.0], [2.0]])
        >>> density = Gaussian(regularization=0.0).fit(z)  # mean 1, variance 1
        >>> density.log_prob(torch.tensor([[1.0]]))
        tensor([-0.9189], dtype=torch.float64)
    """

    name: ClassVar[str] = "gaussian"
    words: ClassVar[str] = "one Gaussian"
    regularization: float = 1e-6

    def _check(self) -> None:
        check_float("regularization", self.regularization, minimum=0)

    def _fit(self, z: Tensor) -> Fit:
        check_determined(self.name, *z.shape)
        units = Units.of_bulk(z)
        shift, covariance = ml_covariance(units.apply(z), self.regularization)
        mean, factor = units.undo(shift), units.scale[:, None] * stable_cholesky(covariance, "the codes")
        log_likelihood = distributed.mean(log_normal(shard(z), mean, factor)).item()
        return Fit({"mean": mean, "cholesky": factor}, {"log_likelihood": log_likelihood})

    def _draw(self, n: int, generator: torch.Generator | None, temperature: float) -> Tensor:
        mean, factor = self.tensors["mean"], self.tensors["cholesky"]
        return mean + draw_normal(n, self.dim, generator, mean.device, temperature) @ factor.T

    def _log_prob(self, z: Tensor) -> Tensor:
        return log_normal(z, self.tensors["mean"], self.tensors["cholesky"])

    def _layout(self, statistics: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        d = statistics["d"]
        return {"mean": (d,), "cholesky": (d, d)}
