"""The densities by name: a new one is a class and a line here."""

from __future__ import annotations

from typing import Any

from expost.densities.autoregressive import Autoregressive
from expost.densities.base import Density
from expost.densities.bayesian import BayesianGaussianMixture
from expost.densities.flow import Flow
from expost.densities.flow_matching import FlowMatching
from expost.densities.gaussian import Gaussian, StandardNormal
from expost.densities.kde import KernelDensity
from expost.densities.mixture import GaussianMixture
from expost.densities.posteriors import PosteriorMixture
from expost.densities.reduced import Reduced
from expost.densities.second_stage import SecondStageVAE
from expost.densities.symbols import Categorical
from expost.registry import Part, Registry, construct

_KINDS: tuple[type[Density], ...] = (
    StandardNormal,
    Gaussian,
    GaussianMixture,
    BayesianGaussianMixture,
    KernelDensity,
    SecondStageVAE,
    Flow,
    FlowMatching,
    Reduced,
    Categorical,
    Autoregressive,
    PosteriorMixture,
)

DENSITIES: Registry[type[Density]] = Registry("density", {kind.name: kind for kind in _KINDS})


def make_density(name: str, **options: Any) -> Density:
    """Make a density that is yet to be fitted.

    Args:
        name: Name in `DENSITIES`.
        options: Its keyword arguments; what is not given takes its default.

    Raises:
        UsageError: if the name or an option is unknown, or a value is outside its range.

    Example:
        >>> make_density("gaussian", regularization=1e-4)
        Gaussian(regularization=0.0001)
        >>> make_density("gaussian", ridge=1e-4)
        Traceback (most recent call last):
        ...
        expost.errors.UsageError: density 'gaussian' has no option 'ridge'; its options: regularization
    """
    return construct(DENSITIES, Part(name, options))
