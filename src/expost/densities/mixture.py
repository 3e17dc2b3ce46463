"""Mixtures of Gaussians, q(z) = sum_k w_k N(z; m_k, S_k): the base of fitted ones, and the maximum-likelihood fit."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self, final

import torch
from torch import Tensor

from expost.densities import em
from expost.densities.base import Fit
from expost.densities.checks import check_choice, check_float, check_int, check_seed
from expost.densities.covariances import COVARIANCES, Covariance
from expost.densities.drawing import draw_index, draw_normal
from expost.densities.em import Components
from expost.densities.tractable import TractableDensity
from expost.densities.units import Units
from expost.errors import DataError, UsageError

#: Components that are tried where they are to be chosen.
COMPONENTS = (1, 2, 5, 10, 20, 50)
#: Most numbers in all covariances together: 400 MB in float64, and hours of a fit.
_MOST_NUMBERS = 50_000_000


def default_components(n: int, d: int, most: int = 10) -> int:
    """Return how many full Gaussians n codes of d dimensions support: one for every 5 (d + 1), from 1 to `most`.

    Example:
        >>> default_components(400, 16), default_components(50, 16), default_components(10_000, 16)
        (4, 1, 10)
    """
    return min(most, max(1, n // (5 * (d + 1))))


@dataclass(frozen=True)
class MixtureStart:
    """Parameters from which to start EM.

    Attributes:
        weights: Shape (K,), positive; scaled to sum 1.
        means: Shape (K, d).
        covariances: Shape (K, d, d), symmetric positive definite, or (K, d), positive, for a diagonal mixture.
    """

    weights: Tensor
    means: Tensor
    covariances: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class MixtureDensity(TractableDensity):
    """A fitted mixture of Gaussians; subclasses say how it is fitted.

    Attributes:
        components: Number K of Gaussians, at least 1.
        covariance: "full", or "diag" for diagonal covariances.
        n_init: Number of fits from different starts; the best is kept.
        max_iter: At most this many iterations of one fit.
        tol: Stop when the objective per example changes by less, in nats.
        regularization: Ridge on the diagonals of the covariances, in squared units of each dimension of all the codes
            (`Units`); where these are 1 it is scikit-learn's `reg_covar`.
        seed: Seed of the starts.
    """

    grids: ClassVar[Mapping[str, Callable[[Tensor, Mapping[str, Any]], Sequence[Any]]]] = {
        "components": lambda z, options: [k for k in COMPONENTS if k <= len(z)]
    }
    components: int = 10
    covariance: str = "full"
    n_init: int = 1
    max_iter: int = 2000
    tol: float = 1e-3
    regularization: float = 1e-6
    seed: int = 0

    def _check(self) -> None:
        check_int("components", self.components, minimum=1)
        check_choice("covariance", self.covariance, list(COVARIANCES))
        check_int("n_init", self.n_init, minimum=1)
        check_int("max_iter", self.max_iter, minimum=1)
        check_float("tol", self.tol, minimum=0)
        check_float("regularization", self.regularization, minimum=0)
        check_seed(self.seed)
        self._check_more()

    @abstractmethod
    def _check_more(self) -> None:
        """Check the options that not every mixture has."""

    @property
    def _structure(self) -> Covariance:
        return COVARIANCES[self.covariance]

    @property
    def _components(self) -> Components:
        return Components(**self.tensors)

    def _require_enough(self, z: Tensor) -> None:
        n, d = z.shape
        numbers = math.prod(self._structure.scale_shape(self.components, d))
        if numbers > _MOST_NUMBERS:
            raise DataError(
                f"{self.name}: {self.components} covariances of {d} dimensions have {numbers:.2g} numbers, more than "
                f"{n} codes can determine; use density reduced (base={self.name}), covariance=diag or fewer components"
            )
        if n < self.components:
            raise DataError(
                f"{self.name}: {self.components} components need at least as many codes, got {n}; use fewer components"
            )

    def _in_codes(self, components: Components, units: Units) -> Components:
        """Map components of codes in units back to those of the codes."""
        scale = self._structure.stretch(components.scale, units.scale)
        return Components(components.weights, units.undo(components.means), scale)

    def _draw(self, n: int, generator: torch.Generator | None, temperature: float) -> Tensor:
        mixture = self._components
        labels = draw_index(n, mixture.weights, generator)
        noise = draw_normal(n, self.dim, generator, mixture.means.device, temperature)
        z = mixture.means[labels]
        for k in range(self.components):
            rows = (labels == k).nonzero().squeeze(1)
            z[rows] += self._structure.color(noise[rows], mixture.scale[k])
        return z

    def _log_prob(self, z: Tensor) -> Tensor:
        return em.log_density(z, self._components, self._structure)

    def _layout(self, statistics: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        k, d = self.components, statistics["d"]
        return {"weights": (k,), "means": (k, d), "scale": self._structure.scale_shape(k, d)}


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class GaussianMixture(MixtureDensity):
    """A mixture fitted by expectation-maximization from a k-means start: column GMM of the table of Ghosh et al. 2020.

    The defaults are those of the paper's experiments (10 full components, at most 2000 iterations, tolerance 1e-3, one
    start) and of scikit-learn (ridge 1e-6, k-means start). The fit runs in float64 on the device of the codes, and its
    memory beyond them is bounded for any number of codes. Its statistics hold `log_likelihood` (mean per example, of
    the fitted codes), `trace` (the same of the start and after every iteration), `largest_decrease` (see `em`),
    `iterations`, `converged`, `reseeded`, and `starts` (the final log-likelihood from each start).

    A fit that does not converge within `max_iter` is no error: the statistics record it, and the mixture is usable.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> z = torch.randn(1000, 1, generator=generator) + torch.tensor([[-5.0], [5.0]]).repeat(500, 1)
        >>> density = GaussianMixture(components=2).fit(z)
        >>> density.tensors["means"].flatten().sort().values.round()
        tensor([-5.,  5.], dtype=torch.float64)
        >>> density.sample(3, generator=generator).shape
        torch.Size([3, 1])
    """

    name: ClassVar[str] = "gmm"
    words: ClassVar[str] = "the mixture"
    tried: ClassVar[Mapping[str, Any] | None] = {"components": "auto"}

    def fit_from(self, z: Tensor, start: MixtureStart) -> Self:
        """Run EM from given parameters instead of from k-means; everything else is as in `fit`.

        Raises:
            UsageError: if the start does not have this mixture's components and covariance, or the codes' dimension.
            DataError: as `fit`, or if a covariance of the start is not positive definite.
        """
        return self._accept(z, lambda codes: self._from_start(codes, start))

    def _check_more(self) -> None:
        pass  # the common options are all there are

    def _fit(self, z: Tensor) -> Fit:
        self._require_enough(z)
        units = Units.of_bulk(z)
        x, common = units.apply(z), units.scale / units.scale.max()
        generator = torch.Generator().manual_seed(self.seed)
        results = []
        for _ in range(self.n_init):
            start = em.kmeans_start(x, self.components, self._structure, self.regularization, common, generator)
            results.append(self._run(x, start))
        return self._pack(results, units, {"seed": self.seed})

    def _from_start(self, z: Tensor, start: MixtureStart) -> Fit:
        self._require_enough(z)
        weights, means, covariances = (
            given.detach().to(device=z.device).double() for given in (start.weights, start.means, start.covariances)
        )
        expected = {"weights": (self.components,), "means": (self.components, z.shape[1])}
        expected["covariances"] = self._structure.scale_shape(*means.shape) if means.dim() == 2 else ()
        for name, tensor in {"weights": weights, "means": means, "covariances": covariances}.items():
            if tuple(tensor.shape) != expected[name] or not bool(tensor.isfinite().all()):
                raise UsageError(f"start.{name} must be finite with shape {expected[name]}, got {tuple(tensor.shape)}")
        if not bool((weights > 0).all()):
            raise UsageError(
                f"start.weights must be positive, the least is {float(weights.min()):g}; drop that component"
            )
        units = Units.of_bulk(z)
        scale = self._structure.stretch(self._structure.scale_from(covariances), units.scale.reciprocal())
        result = self._run(units.apply(z), Components(weights / weights.sum(), units.apply(means), scale))
        return self._pack([result], units, {})

    def _run(self, x: Tensor, start: Components) -> em.Result:
        return em.run(x, start, self._structure, self.regularization, self.tol, self.max_iter)

    def _pack(self, results: list[em.Result], units: Units, statistics: dict[str, Any]) -> Fit:
        best = max(results, key=lambda result: result.trace[-1])
        trace = [value - units.log_volume for value in best.trace]
        fitted = self._in_codes(best.components, units)
        statistics |= {
            "log_likelihood": trace[-1],
            "converged": best.converged,
            "iterations": len(best.trace) - 1,
            "reseeded": best.reseeded,
            "largest_decrease": best.largest_decrease,
            "starts": [result.trace[-1] - units.log_volume for result in results],
            "trace": trace,
        }
        return Fit({"weights": fitted.weights, "means": fitted.means, "scale": fitted.scale}, statistics)
