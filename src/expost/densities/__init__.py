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

from expost.densities import files
from expost.densities.autoregressive import Autoregressive
from expost.densities.base import Density, Fit
from expost.densities.bayesian import BayesianGaussianMixture
from expost.densities.choice import Choice, HeldOut, usual_density
from expost.densities.conditional import ConditionalDensity
from expost.densities.flow import Flow
from expost.densities.flow_matching import FlowMatching
from expost.densities.gaussian import Gaussian, StandardNormal
from expost.densities.kde import KernelDensity
from expost.densities.kinds import DENSITIES, make_density
from expost.densities.labelled import LabelledDensity
from expost.densities.mixture import GaussianMixture, MixtureDensity, MixtureStart
from expost.densities.posteriors import PosteriorMixture
from expost.densities.reduced import Reduced
from expost.densities.second_stage import SecondStageVAE
from expost.densities.symbols import Categorical, SymbolDensity
from expost.densities.tractable import TractableDensity
from expost.errors import DataError
from expost.registry import Registry

__all__ = [
    "DENSITIES",
    "NEED_LABELS",
    "Autoregressive",
    "BayesianGaussianMixture",
    "Categorical",
    "Choice",
    "ConditionalDensity",
    "Density",
    "Fit",
    "Flow",
    "FlowMatching",
    "Gaussian",
    "GaussianMixture",
    "HeldOut",
    "KernelDensity",
    "LabelledDensity",
    "MixtureDensity",
    "MixtureStart",
    "PosteriorMixture",
    "Reduced",
    "SecondStageVAE",
    "StandardNormal",
    "SymbolDensity",
    "TractableDensity",
    "load_density",
    "make_density",
    "usual_density",
]

#: Densities that cannot be fitted without labels; `DENSITIES` has the others.
NEED_LABELS: Registry[type[LabelledDensity]] = Registry("density with labels", {"conditional": ConditionalDensity})


def load_density(path: str | Path) -> Density:
    """Read a fitted density that `Density.save` wrote, onto the CPU; it samples and evaluates exactly as before.

    Args:
        path: The safetensors file, or the folder that it is in.

    Raises:
        DataError: if the file is missing, truncated, no density, of a newer format, or inconsistent.
    """
    name = files.read(Path(path)).density
    kinds: dict[str, type[Density]] = {**DENSITIES, **NEED_LABELS}
    if name not in kinds:
        known = ", ".join(kinds)
        raise DataError(
            f"{path} holds density '{name}', which this version does not have (it has: {known}); update expost"
        )
    return kinds[name].load(path)
