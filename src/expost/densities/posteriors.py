"""The mixture of the posteriors of learned pseudo-inputs: the prior that a `vamp-vae` is trained with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self, final

import torch
from torch import Tensor

from expost.densities import em
from expost.densities.base import Fit
from expost.densities.covariances import COVARIANCES
from expost.densities.drawing import draw_index, draw_normal
from expost.densities.em import Components
from expost.densities.linalg import precise_device
from expost.densities.tractable import TractableDensity
from expost.densities.units import Units
from expost.errors import UsageError

#: Ridge on the variances of the component that is estimated, in squared units of each dimension.
_RIDGE = 1e-6


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class PosteriorMixture(TractableDensity):
    """q(z) = 1/K sum_k N(z; m_k, diag s_k^2), with m_k and s_k from the encoder (Tomczak & Welling 2018, eq. 9).

    A model with pseudo-inputs gives its components (`given`), and a generator of such a model has them without a fit.
    Codes alone give one component, with their means and variances.

    Statistics: `components` K; of a fit on codes also `log_likelihood`.

    Example:
        >>> means, deviations = torch.tensor([[-1.0], [1.0]]), torch.ones(2, 1)
        >>> PosteriorMixture().given(means, deviations).log_prob(torch.zeros(1, 1))
        tensor([-1.4189], dtype=torch.float64)
    """

    name: ClassVar[str] = "posterior-mixture"
    words: ClassVar[str] = "the mixture of posteriors"
    tried: ClassVar[Mapping[str, Any] | None] = None  # it is the model's own, and needs no search

    def given(self, means: Tensor, deviations: Tensor) -> Self:
        """Take components as they are.

        Args:
            means: Shape (K, d), finite.
            deviations: Standard deviations, shape (K, d), positive and finite.

        Raises:
            UsageError: for other shapes and values.
        """
        sound = means.dim() == 2 and means.shape == deviations.shape and means.numel() > 0
        if not (sound and bool(means.isfinite().all()) and bool((deviations.isfinite() & (deviations > 0)).all())):
            raise UsageError(
                f"components need finite means and positive deviations of one shape (K, d), got {tuple(means.shape)} "
                f"and {tuple(deviations.shape)}"
            )
        at, k = precise_device(means.device), len(means)
        tensors = {"means": means.detach().to(at).double(), "deviations": deviations.detach().to(at).double()}
        self._state.fit = Fit(tensors, {"n": k, "d": means.shape[1], "components": k})
        self._state.device, self._state.weights, self._state.shape = means.device, "", (means.shape[1],)
        return self

    def fit_given(self, z: Tensor, means: Tensor, deviations: Tensor) -> Self:
        """Take components as they are, and note how likely codes are under them.

        Args:
            z: Codes, shape (N, d).
            means: As of `given`.
            deviations: As of `given`.

        Raises:
            UsageError: as `given`, and for codes of another dimension.
            DataError: as `fit`.
        """
        if z.dim() == 2 and means.dim() == 2 and z.shape[1] != means.shape[1]:
            raise UsageError(
                f"codes have {z.shape[1]} dimensions, the components {means.shape[1]}; give the model's own"
            )
        tensors = dict(self.given(means.to(z.device), deviations.to(z.device)).tensors)
        return self._accept(z, lambda codes: self._packed(tensors, codes))

    def _check(self) -> None:
        pass  # no options

    def _fit(self, z: Tensor) -> Fit:
        units = Units.of_bulk(z)
        x = units.apply(z)
        variances = x.var(0, correction=0) + _RIDGE
        tensors = {"means": units.undo(x.mean(0))[None], "deviations": (units.scale * variances.sqrt())[None]}
        return self._packed(tensors, z)

    @staticmethod
    def _packed(tensors: Mapping[str, Tensor], z: Tensor) -> Fit:
        likelihood = _log_density(z, tensors).mean().item()
        return Fit(tensors, {"components": len(tensors["means"]), "log_likelihood": likelihood})

    def _draw(self, n: int, generator: torch.Generator | None, temperature: float) -> Tensor:
        means, deviations = self.tensors["means"], self.tensors["deviations"]
        chosen = draw_index(n, means.new_full((len(means),), 1 / len(means)), generator)
        return means[chosen] + deviations[chosen] * draw_normal(n, self.dim, generator, means.device, temperature)

    def _log_prob(self, z: Tensor) -> Tensor:
        return _log_density(z, self.tensors)

    def _layout(self, statistics: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        shape = (int(statistics["components"]), int(statistics["d"]))
        return {"means": shape, "deviations": shape}


def _log_density(z: Tensor, tensors: Mapping[str, Tensor]) -> Tensor:
    means = tensors["means"]
    weights = means.new_full((len(means),), 1 / len(means))
    return em.log_density(z, Components(weights, means, tensors["deviations"]), COVARIANCES["diag"])
