"""Measures of distributions, computed from the features of a reference set and of samples.

| measure | scores |
|---|---|
| frechet | the Frechet distance, named after the features: fid, fid-768, frechet-digits, ... |
| kid | kernel distance (kid, kid-768, kernel-distance), with its standard error |
| prd | f8 (weighs recall) and f1/8 (weighs precision) of the precision-recall curve of distributions |
| neighbours | precision, recall, density and coverage by nearest neighbours |
| mind | Monge distance (mind, mind-768, monge-distance): sliced Wasserstein, for few examples |
| vendi | effective number of different samples (vendi, vendi-2, vendi-inf), of the samples alone |
| cmmd | discrepancy of unit vectors under a Gaussian kernel (cmmd, gaussian-mmd), with its standard error |
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from expost.errors import DataError, UsageError
from expost.metrics import FEATURES, StandardizedValues
from expost.metrics.bootstrap import bootstrap_frechet
from expost.metrics.direction import HIGHER, LOWER, Direction
from expost.metrics.frechet import Statistics, frechet_distance, frechet_influence
from expost.metrics.gaussian import SCALE, SIGMA, gaussian_discrepancy
from expost.metrics.influence import Influence
from expost.metrics.kernel import kernel_distance
from expost.metrics.neighbours import neighbour_scores
from expost.metrics.prd import prd
from expost.metrics.sliced import monge_distance
from expost.metrics.vendi import vendi_scores
from expost.registry import Registry

#: Nearest neighbours of precision, recall, density and coverage (Naeem et al. 2020 take 5).
NEIGHBOURS = 5
#: Examples of a subset of the kernel distance, where there are as many (Binkowski et al. 2018 take 1,000).
SUBSET = 1_000
#: Clusters of precision and recall for distributions (Sajjadi et al. 2018 take 20).
CLUSTERS = 20
#: Scores by nearest neighbours, as `neighbour_scores` names them.
NEIGHBOUR_SCORES = ("precision", "recall", "density", "coverage")
#: Orders of the Vendi score, by name: small ones count rare kinds, large ones common kinds.
VENDI_ORDERS = {"vendi": 1.0, "vendi-2": 2.0, "vendi-inf": math.inf}
#: Names of scores that belong to the features of their authors; on other features a score has its general name.
_KERNEL_NAMES = {"fid": "kid", "fid-768": "kid-768"}
_MONGE_NAMES = {"fid": "mind", "fid-768": "mind-768"}
_GAUSSIAN_NAMES = {"frechet-clip-l-336": "cmmd"}


@dataclass(frozen=True, eq=False)
class Cloud:
    """Features of a set of examples.

    Attributes:
        features: float32, shape (N, D).
    """

    features: Tensor

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self.features)

    @cached_property
    def statistics(self) -> Statistics:
        """Mean and covariance, computed once."""
        return Statistics.of(self.features)


@dataclass(frozen=True)
class Value:
    """A score as a measure computes it.

    Attributes:
        value: The score.
        influence: How much each example moves it.
        error: Its standard error, where the measure knows it better than from the influence.
        interval: A confidence interval, where one was asked for.
        settings: The measure's settings, for the card.
    """

    value: float
    influence: Influence
    error: float | None = None
    interval: tuple[float, float] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Context:
    """Settings of a measure.

    Attributes:
        score_name: What the Frechet distance on these features is called.
        seed: Seeds clusters, subsets and resamples.
        bootstrap: Resamples of the Frechet distance's interval; 0 for none.
        allow_few: Whether to compute a Frechet distance from fewer examples than features.
    """

    score_name: str
    seed: int = 0
    bootstrap: int = 0
    allow_few: bool = False


def _frechet(reference: Cloud, samples: Cloud, context: Context) -> dict[str, Value]:
    dim, few = reference.features.shape[1], min(len(reference), len(samples))
    # gray images use a third of the pixel features; what counts is whether examples still span new directions
    scarce = few <= dim and int(torch.linalg.matrix_rank(reference.statistics.cov, hermitian=True)) >= few - 1
    if scarce and not context.allow_few:
        raise UsageError(
            f"{few} examples are too few for {context.score_name} on {dim} features (singular covariance, distance far "
            f"too large); give more than {dim}, take features with fewer dimensions, or the measure mind, "
            "or pass --allow-few"
        )
    settings: dict[str, Any] = {"fewer examples than features": True} if scarce else {}
    interval = None
    if context.bootstrap:
        found = bootstrap_frechet(reference.features, samples.features, resamples=context.bootstrap, seed=context.seed)
        interval = (found.low, found.high)
        settings |= {"bootstrap resamples": found.resamples, "level": found.level}
    value = frechet_distance(samples.statistics, reference.statistics)
    influence = frechet_influence(reference.features, samples.features, reference.statistics, samples.statistics)
    return {context.score_name: Value(value, influence, interval=interval, settings=settings)}


def _kid(reference: Cloud, samples: Cloud, context: Context) -> dict[str, Value]:
    size = min(SUBSET, len(reference), len(samples))
    found = kernel_distance(reference.features, samples.features, subset_size=size, seed=context.seed)
    settings = {"subsets": found.subsets, "subset size": size}
    name = _KERNEL_NAMES.get(context.score_name, "kernel-distance")  # only Inception's features make a KID
    return {name: Value(found.value, found.influence, found.standard_error, settings=settings)}


def _prd(reference: Cloud, samples: Cloud, context: Context) -> dict[str, Value]:
    # the curve needs sets of one size: more examples find more of each cluster
    size = min(len(reference), len(samples))
    first, second = (_subset(cloud.features, size, context.seed) for cloud in (reference, samples))
    found = prd(reference.features[first], samples.features[second], clusters=CLUSTERS, seed=context.seed)
    settings = {"clusters": CLUSTERS, "runs": 10, "examples of each": size}
    influences = [
        Influence(_spread(each.samples, second, len(samples)), _spread(each.reference, first, len(reference)))
        for each in found.influences
        if each.reference is not None
    ]
    return {
        name: Value(value, influence, settings=settings)
        for name, value, influence in zip(("f8", "f1/8"), (found.f8, found.f1_8), influences, strict=True)
    }


def _subset(features: Tensor, size: int, seed: int) -> Tensor:
    """Return the places of the examples that are taken."""
    if len(features) == size:
        return torch.arange(size)
    return torch.randperm(len(features), generator=torch.Generator().manual_seed(seed))[:size]


def _spread(influence: Tensor, places: Tensor, count: int) -> Tensor:
    """Return the influences of a subset as those of the whole: others have none, and the mean is over all of them."""
    whole = torch.zeros(count, dtype=torch.float64)
    whole[places] = (influence - influence.mean()) * (count / len(places))
    return whole


def _neighbours(reference: Cloud, samples: Cloud, context: Context) -> dict[str, Value]:
    found = neighbour_scores(reference.features, samples.features, k=NEIGHBOURS)
    settings = {"neighbours": NEIGHBOURS}
    return {name: Value(getattr(found, name), found.influences[name], settings=settings) for name in NEIGHBOUR_SCORES}


def _mind(reference: Cloud, samples: Cloud, context: Context) -> dict[str, Value]:
    found = monge_distance(reference.features, samples.features, seed=context.seed)
    name = _MONGE_NAMES.get(context.score_name, "monge-distance")  # the I of MIND is Inception
    return {name: Value(found.value, found.influence, settings={"projections": found.projections})}


def _vendi(reference: Cloud, samples: Cloud, context: Context) -> dict[str, Value]:
    unmoved = torch.zeros(len(reference), dtype=torch.float64)  # the score looks at the samples alone
    found = vendi_scores(samples.features, tuple(VENDI_ORDERS.values()))
    return {
        name: Value(
            each.value,
            Influence(each.influence.samples, unmoved),
            settings={"kernel": "cosine", "order": f"{each.order:g}"},
        )
        for name, each in zip(VENDI_ORDERS, found, strict=True)
    }


def _cmmd(reference: Cloud, samples: Cloud, context: Context) -> dict[str, Value]:
    found = gaussian_discrepancy(reference.features, samples.features)
    name = _GAUSSIAN_NAMES.get(context.score_name, "gaussian-mmd")  # the C of CMMD is CLIP
    settings = {"bandwidth": SIGMA, "scale": SCALE, "features": "unit length", "estimator": "all pairs"}
    return {name: Value(found.value, found.influence, found.standard_error, settings=settings)}


@dataclass(frozen=True)
class Measure:
    """A measure of two sets.

    Attributes:
        compute: Maps (reference, samples, context) to scores by name.
        directions: The direction of each score that it gives, by name.
        least: Examples that either set needs at least.
    """

    compute: Callable[[Cloud, Cloud, Context], dict[str, Value]]
    directions: Mapping[str, Direction]
    least: int

    def __call__(self, reference: Cloud, samples: Cloud, context: Context) -> dict[str, Value]:
        """Compute the scores.

        Raises:
            DataError: for fewer than the least number of examples.
            UsageError: for fewer than a Frechet distance on so many features needs.
        """
        few = min(len(reference), len(samples))
        if few < self.least:
            raise DataError(f"it needs at least {self.least} examples on either side, and one side has {few}")
        return self.compute(reference, samples, context)


#: The measures. A new one is a function above and an entry here.
MEASURES: Registry[Measure] = Registry(
    "measure",
    {
        "frechet": Measure(
            _frechet,
            dict.fromkeys([StandardizedValues.score_name, *(each.score_name for each in FEATURES.values())], LOWER),
            least=2,
        ),
        "kid": Measure(_kid, dict.fromkeys([*_KERNEL_NAMES.values(), "kernel-distance"], LOWER), least=4),
        "prd": Measure(_prd, {"f8": HIGHER, "f1/8": HIGHER}, least=CLUSTERS // 2),
        "neighbours": Measure(_neighbours, dict.fromkeys(NEIGHBOUR_SCORES, HIGHER), least=NEIGHBOURS + 1),
        "mind": Measure(_mind, dict.fromkeys([*_MONGE_NAMES.values(), "monge-distance"], LOWER), least=4),
        "vendi": Measure(_vendi, dict.fromkeys(VENDI_ORDERS, Direction(1, gameable=True)), least=4),
        "cmmd": Measure(_cmmd, dict.fromkeys([*_GAUSSIAN_NAMES.values(), "gaussian-mmd"], LOWER), least=4),
    },
)
