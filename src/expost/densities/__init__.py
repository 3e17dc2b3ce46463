"""Densities of codes, fitted ex post. One class and one line of the registry make a new one.

Example:
    >>> import torch
    >>> from expost.densities import make_density
    >>> codes = torch.randn(500, 4, generator=torch.Generator().manual_seed(0))
    >>> density = make_density("gmm", components=3).fit(codes)
    >>> density.sample(2).shape
    torch.Size([2, 4])
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from expost.densities import files
from expost.densities.base import Density, Fit, TractableDensity
from expost.densities.bayesian import BayesianGaussianMixture
from expost.densities.gaussian import Gaussian, StandardNormal
from expost.densities.kde import KernelDensity
from expost.densities.mixture import GaussianMixture, MixtureDensity, MixtureStart
from expost.densities.reduced import Reduced
from expost.densities.second_stage import SecondStageVAE
from expost.errors import DataError
from expost.registry import Part, Registry, construct

__all__ = [
    "DENSITIES",
    "BayesianGaussianMixture",
    "Density",
    "Fit",
    "Gaussian",
    "GaussianMixture",
    "KernelDensity",
    "MixtureDensity",
    "MixtureStart",
    "Reduced",
    "SecondStageVAE",
    "StandardNormal",
    "TractableDensity",
    "load_density",
    "make_density",
]

_KINDS: tuple[type[Density], ...] = (
    StandardNormal,
    Gaussian,
    GaussianMixture,
    BayesianGaussianMixture,
    KernelDensity,
    SecondStageVAE,
    Reduced,
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


def load_density(path: str | Path) -> Density:
    """Read a fitted density that `Density.save` wrote, onto the CPU; it samples and evaluates exactly as before.

    Args:
        path: The safetensors file, or the folder that it is in.

    Raises:
        DataError: if the file is missing, truncated, no density, of a newer format, or inconsistent.
    """
    name = files.read(Path(path)).density
    if name == "conditional":
        raise DataError(f"{path} holds densities by class; read it with ConditionalDensity.load")
    if name not in DENSITIES:
        known = ", ".join(DENSITIES)
        raise DataError(
            f"{path} holds density '{name}', which this version does not have (it has: {known}); update expost"
        )
    return DENSITIES[name].load(path)
