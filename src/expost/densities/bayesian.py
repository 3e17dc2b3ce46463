"""A mixture of Gaussians that prunes itself: scikit-learn's variational fit, our tensors."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from expost.densities.base import Fit
from expost.densities.checks import check_choice, check_float
from expost.densities.em import Components, log_density
from expost.densities.mixture import MixtureDensity
from expost.densities.units import Units
from expost.errors import DataError


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class BayesianGaussianMixture(MixtureDensity):
    """A mixture fitted by variational Bayes (Bishop 2006, section 10.2; Blei & Jordan 2006 for the Dirichlet process).

    Components that the codes do not support get a weight near 0, so `components` is an upper bound. The fit is
    scikit-learn's, on the CPU, of the codes in the unit of each dimension (`Units`). Sampling and `log_prob` use the
    *plug-in* mixture of the posterior's point estimates (weights, means, covariances), as scikit-learn's own `sample`
    does; its `score_samples` is another quantity, an expectation under the posterior that is no normalized density.

    Statistics: `converged`, `iterations`, `lower_bound` (scikit-learn's, of the evidence of the codes in their units),
    `log_likelihood` (mean per example of the plug-in mixture), `active` (components with more than a tenth of the mean
    weight).

    Attributes:
        weight_concentration: Prior concentration of the weights, above 0; None is 1 / components, as in the
            experiments of Ghosh et al. 2020. Smaller prunes more.
        weight_prior: "dirichlet_process" or "dirichlet_distribution".

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> z = torch.randn(600, 1, generator=generator) + torch.tensor([[-9.0], [9.0]]).repeat(300, 1)
        >>> BayesianGaussianMixture(components=6).fit(z).statistics["active"]
        2
    """

    name: ClassVar[str] = "bayesian-gmm"
    words: ClassVar[str] = "the Bayesian mixture"
    weight_concentration: float | None = None
    weight_prior: str = "dirichlet_process"

    def _check_more(self) -> None:
        check_choice("weight_prior", self.weight_prior, ["dirichlet_process", "dirichlet_distribution"])
        if self.weight_concentration is not None:
            check_float("weight_concentration", self.weight_concentration, minimum=0, above=True)

    def _fit(self, z: Tensor) -> Fit:
        self._require_enough(z)
        units = Units.of_bulk(z)
        from sklearn.exceptions import ConvergenceWarning  # slow to import, and no other density needs it
        from sklearn.mixture import BayesianGaussianMixture as VariationalMixture

        model = VariationalMixture(
            n_components=self.components,
            covariance_type=self.covariance,
            tol=self.tol,
            reg_covar=self.regularization,
            max_iter=self.max_iter,
            n_init=self.n_init,
            weight_concentration_prior_type=self.weight_prior,
            weight_concentration_prior=self.weight_concentration,
            random_state=self.seed,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # recorded as `converged` instead
            try:
                model.fit(units.apply(z).cpu().numpy())
            except ValueError as error:
                reason = str(error).split(". ")[0].replace("\n", " ").rstrip(".")
                raise DataError(f"{self.name}: {reason}; raise regularization or use fewer components") from None
        weights, means, covariances = (
            torch.from_numpy(array).to(z.device, torch.float64, copy=True)
            for array in (model.weights_, model.means_, model.covariances_)
        )
        scaled = Components(weights / weights.sum(), means, self._structure.scale_from(covariances))
        components = self._in_codes(scaled, units)
        statistics = {
            "seed": self.seed,
            "log_likelihood": log_density(z, components, self._structure).mean().item(),
            "converged": bool(model.converged_),
            "iterations": int(model.n_iter_),
            "lower_bound": float(model.lower_bound_),
            "active": int((components.weights > 0.1 / self.components).sum()),
        }
        tensors = {"weights": components.weights, "means": components.means, "scale": components.scale}
        return Fit(tensors, statistics)
