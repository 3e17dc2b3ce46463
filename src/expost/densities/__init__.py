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
from expost.densities.base import Density, Fit
from expost.densities.bayesian import BayesianGaussianMixture
from expost.densities.conditional import ConditionalDensity
from expost.densities.flow import Flow
from expost.densities.flow_matching import FlowMatching
from expost.densities.gaussian import Gaussian, StandardNormal
from expost.densities.kde import KernelDensity
from expost.densities.kinds import DENSITIES, make_density
from expost.densities.labelled import LabelledDensity
from expost.densities.mixture import GaussianMixture, MixtureDensity, MixtureStart
from expost.densities.reduced import Reduced
from expost.densities.second_stage import SecondStageVAE
from expost.densities.tractable import TractableDensity
from expost.errors import DataError
from expost.registry import Part, Registry, construct

__all__ = [
    "DENSITIES",
    "NEED_LABELS",
    "BayesianGaussianMixture",
    "ConditionalDensity",
    "Density",
    "Fit",
    "Flow",
    "FlowMatching",
    "Gaussian",
    "GaussianMixture",
    "KernelDensity",
    "LabelledDensity",
    "MixtureDensity",
    "MixtureStart",
    "Reduced",
    "SecondStageVAE",
    "StandardNormal",
    "TractableDensity",
    "load_density",
    "make_density",
    "make_labelled",
]

#: Densities that cannot be fitted without labels; `DENSITIES` has the others.
NEED_LABELS: Registry[type[LabelledDensity]] = Registry("density with labels", {"conditional": ConditionalDensity})

_ALL: Registry[type[Density]] = Registry("density", {**DENSITIES, **NEED_LABELS})


def make_labelled(name: str, **options: Any) -> LabelledDensity:
    """Make a density that is yet to be fitted with labels: one that takes them, else a `ConditionalDensity` of it.

    Args:
        name: Name in `DENSITIES` or `NEED_LABELS`.
        options: Its keyword arguments.

    Raises:
        UsageError: if the name or an option is unknown, or a value is outside its range.

    Example:
        >>> make_labelled("flow", steps=100).name, make_labelled("gaussian").name
        ('flow', 'conditional')
    """
    density = construct(_ALL, Part(name, options))
    if isinstance(density, LabelledDensity):
        return density
    return ConditionalDensity(base=name, base_options=options)


def load_density(path: str | Path) -> Density:
    """Read a fitted density that `Density.save` wrote, onto the CPU; it samples and evaluates exactly as before.

    Args:
        path: The safetensors file, or the folder that it is in.

    Raises:
        DataError: if the file is missing, truncated, no density, of a newer format, or inconsistent.
    """
    name = files.read(Path(path)).density
    if name not in _ALL:
        known = ", ".join(_ALL)
        raise DataError(
            f"{path} holds density '{name}', which this version does not have (it has: {known}); update expost"
        )
    return _ALL[name].load(path)
