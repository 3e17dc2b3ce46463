"""A density in fewer dimensions: principal components of the codes, and noise for what they leave out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from expost.densities.base import Fit, restore_part
from expost.densities.checks import check_float, check_int
from expost.densities.drawing import draw_normal
from expost.densities.linalg import LOG_2PI
from expost.densities.tractable import TractableDensity
from expost.densities.units import Units
from expost.errors import UsageError

_PREFIX = "base."


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Reduced(TractableDensity):
    """q(t) = q_r(W^T t) N((I - W W^T) t; 0, sigma^2 I), for codes of too many dimensions for `base` itself.

    The codes are standardized per dimension, t_j = (z_j - m_j) / s_j with s_j^2 their variance; that of constant
    dimensions is taken as `regularization` times the mean variance.
    W (d x r, orthonormal) holds the first r principal axes of t, q_r is the density `base` fitted on the r coordinates,
    and sigma^2 is the mean variance of t along the d - r axes left out. With a Gaussian q_r, the density of t is
    probabilistic PCA at its maximum of likelihood (Tipping & Bishop 1999, eq. 7 and 8).

    Maps of codes, such as a diffusion model's 4 x 32 x 32, have thousands of dimensions: too many to estimate one full
    covariance, let alone ten. The fit takes the eigenvectors of an N x N or d x d matrix, whichever is smaller.

    Statistics: `rank` (r as fitted, at most N - 1 and d), `explained` (part of the variance of t in the r axes),
    `residual` (sigma^2), `base` (the statistics of q_r).

    Attributes:
        rank: Largest r, at least 1.
        base: Name of a density that can be evaluated.
        base_options: Its options.
        regularization: Ridge on sigma^2, and on the variances of constant dimensions, see above; above 0.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> plane = torch.randn(300, 3, generator=generator) @ torch.randn(3, 50, generator=generator)
        >>> z = plane + 0.1 * torch.randn(300, 50, generator=generator)
        >>> density = Reduced(rank=3, base="gaussian").fit(z)
        >>> density.sample(2).shape, round(density.statistics["explained"], 2)
        (torch.Size([2, 50]), 0.99)
    """

    name: ClassVar[str] = "reduced"
    words: ClassVar[str] = "the reduced density"
    tried: ClassVar[Mapping[str, Any] | None] = None  # it is its base in fewer dimensions, which is tried itself
    rank: int = 64
    base: str = "gmm"
    base_options: Mapping[str, Any] = field(default_factory=dict)
    regularization: float = 1e-6

    def _check(self) -> None:
        check_int("rank", self.rank, minimum=1)
        check_float("regularization", self.regularization, minimum=0, above=True)
        self._fresh()

    def _fit(self, z: Tensor) -> Fit:
        n, d = z.shape
        r = self._reduced_dim(n, d)
        units = Units.of_deviation(z)
        scale = torch.where(units.constant, math.sqrt(self.regularization) * units.scale, units.scale)
        t = ((z - units.center) / scale).masked_fill(units.constant, 0.0)
        basis = _principal_axes(t, r)
        coordinates = t @ basis
        total, kept = float(t.square().sum()) / n, float(coordinates.square().sum()) / n
        residual = max(0.0, total - kept) / max(1, d - r) + self.regularization
        base = self._fresh().fit(coordinates)
        tensors = {"mean": units.center, "scale": scale, "basis": basis, "residual": z.new_tensor(residual)}
        tensors |= {_PREFIX + name: tensor for name, tensor in base.tensors.items()}
        return Fit(tensors, {"rank": r, "explained": kept / total, "residual": residual, "base": base.statistics})

    def _draw(self, n: int, generator: torch.Generator | None, temperature: float) -> Tensor:
        fit = self.tensors
        u = self._fitted_base().sample(n, generator=generator, temperature=temperature).double()
        noise = fit["residual"].sqrt() * draw_normal(n, self.dim, generator, fit["mean"].device, temperature)
        return fit["mean"] + fit["scale"] * (noise + (u - noise @ fit["basis"]) @ fit["basis"].T)

    def _log_prob(self, z: Tensor) -> Tensor:
        return self._joint(z, self._fitted_base().log_prob)

    def _log_prob_left_out(self, z: Tensor) -> Tensor:
        return self._joint(z, self._fitted_base().log_prob_left_out)

    def _joint(self, z: Tensor, log_base: Callable[[Tensor], Tensor]) -> Tensor:
        fit = self.tensors
        t = (z - fit["mean"]) / fit["scale"]
        u = t @ fit["basis"]
        left_out = t.shape[1] - u.shape[1]
        squared = (t - u @ fit["basis"].T).square().sum(1) if left_out else torch.zeros_like(t[:, 0])
        log_rest = -0.5 * (left_out * (LOG_2PI + fit["residual"].log()) + squared / fit["residual"])
        return log_base(u) + log_rest - fit["scale"].log().sum()

    def _layout(self, statistics: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        n, d = statistics["n"], statistics["d"]
        r = self._reduced_dim(n, d)
        inner = {_PREFIX + name: shape for name, shape in self._fresh()._layout({"n": n, "d": r}).items()}
        return {"mean": (d,), "scale": (d,), "basis": (d, r), "residual": ()} | inner

    def _reduced_dim(self, n: int, d: int) -> int:
        return min(self.rank, d, n - 1)

    def _fresh(self) -> TractableDensity:
        """Return the base, not fitted."""
        from expost.densities.kinds import DENSITIES, make_density  # the registry holds this class

        kind = DENSITIES[self.base]  # looked at before it is made: a base of a base has no end
        if not issubclass(kind, TractableDensity) or kind is Reduced or kind.of_symbols:
            kinds = {name: kind for name, kind in DENSITIES.items() if issubclass(kind, TractableDensity)}
            choices = ", ".join(name for name, kind in kinds.items() if name != self.name and not kind.of_symbols)
            raise UsageError(f"base='{self.base}' cannot be evaluated in fewer dimensions; choose one of: {choices}")
        density = make_density(self.base, **self.base_options)
        assert isinstance(density, TractableDensity)
        return density

    def _fitted_base(self) -> TractableDensity:
        return restore_part(self._fresh(), self.statistics["base"], self.tensors, _PREFIX, self.device)


def _principal_axes(centered: Tensor, r: int) -> Tensor:
    """Return the r axes of largest variance, shape (d, r), orthonormal, each with its largest entry positive."""
    n, d = centered.shape
    if n < d:
        vectors = centered.T @ torch.linalg.eigh(centered @ centered.T)[1][:, -r:].flip(1)
        axes = torch.linalg.qr(vectors)[0]  # scales them, and mends what squaring has cost the weakest
    else:
        axes = torch.linalg.eigh(centered.T @ centered)[1][:, -r:].flip(1)
    largest = axes.gather(0, axes.abs().argmax(0, keepdim=True))
    return axes * largest.sign()
