"""Measures of distributions, computed from the features of a reference set and of samples.

| measure | scores |
|---|---|
| frechet | the Frechet distance, named after the features: fid, fid-768, frechet-digits, ... |
| kid | kernel distance (kid, kid-768, kernel-distance), with its standard error |
| prd | f8 (weighs recall) and f1/8 (weighs precision) of the precision-recall curve of distributions |
| neighbours | precision, recall, density and coverage by nearest neighbours |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from expost.errors import UsageError
from expost.metrics import FEATURES, StandardizedValues
from expost.metrics.bootstrap import bootstrap_frechet
from expost.metrics.direction import HIGHER, LOWER, Direction
from expost.metrics.frechet import Statistics, frechet_distance
from expost.metrics.kernel import kernel_distance
from expost.metrics.neighbours import neighbour_scores
from expost.metrics.prd import prd
from expost.registry import Registry

#: Nearest neighbours of precision, recall, density and coverage (Naeem et al. 2020 take 5).
NEIGHBOURS = 5
#: Examples of a subset of the kernel distance, where there are as many (Binkowski et al. 2018 take 1,000).
SUBSET = 1_000
#: Scores by nearest neighbours, as `neighbour_scores` names them.
NEIGHBOUR_SCORES = ("precision", "recall", "density", "coverage")
_KERNEL_NAMES = {"fid": "kid", "fid-768": "kid-768"}


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
        error: Its standard error, where the measure gives one.
        interval: A confidence interval, where one was asked for.
        settings: The measure's settings, for the card.
    """

    value: float
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
            f"too large); give more than {dim}, take features with fewer dimensions, or pass --allow-few"
        )
    settings: dict[str, Any] = {"fewer examples than features": True} if scarce else {}
    interval = None
    if context.bootstrap:
        found = bootstrap_frechet(reference.features, samples.features, resamples=context.bootstrap, seed=context.seed)
        interval = (found.low, found.high)
        settings |= {"bootstrap resamples": found.resamples, "level": found.level}
    value = frechet_distance(samples.statistics, reference.statistics)
    return {context.score_name: Value(value, interval=interval, settings=settings)}


def _kid(reference: Cloud, samples: Cloud, context: Context) -> dict[str, Value]:
    size = min(SUBSET, len(reference), len(samples))
    found = kernel_distance(reference.features, samples.features, subset_size=size, seed=context.seed)
    settings = {"subsets": found.subsets, "subset size": size}
    name = _KERNEL_NAMES.get(context.score_name, "kernel-distance")  # only Inception's features make a KID
    return {name: Value(found.value, found.standard_error, settings=settings)}


def _prd(reference: Cloud, samples: Cloud, context: Context) -> dict[str, Value]:
    # the curve needs sets of one size: more examples find more of each cluster
    size = min(len(reference), len(samples))
    first, second = (_subset(cloud.features, size, context.seed) for cloud in (reference, samples))
    found = prd(first, second, seed=context.seed)
    settings = {"clusters": 20, "runs": 10, "examples of each": size}
    return {"f8": Value(found.f8, settings=settings), "f1/8": Value(found.f1_8, settings=settings)}


def _subset(features: Tensor, size: int, seed: int) -> Tensor:
    if len(features) == size:
        return features
    return features[torch.randperm(len(features), generator=torch.Generator().manual_seed(seed))[:size]]


def _neighbours(reference: Cloud, samples: Cloud, context: Context) -> dict[str, Value]:
    found = neighbour_scores(reference.features, samples.features, k=NEIGHBOURS)
    settings = {"neighbours": NEIGHBOURS}
    return {name: Value(getattr(found, name), settings=settings) for name in NEIGHBOUR_SCORES}


@dataclass(frozen=True)
class Measure:
    """A measure of two sets.

    Attributes:
        compute: Maps (reference, samples, context) to scores by name.
        directions: The direction of each score that it gives, by name.
    """

    compute: Callable[[Cloud, Cloud, Context], dict[str, Value]]
    directions: Mapping[str, Direction]


#: The measures. A new one is a function above and an entry here.
MEASURES: Registry[Measure] = Registry(
    "measure",
    {
        "frechet": Measure(
            _frechet,
            dict.fromkeys([StandardizedValues.score_name, *(each.score_name for each in FEATURES.values())], LOWER),
        ),
        "kid": Measure(_kid, dict.fromkeys([*_KERNEL_NAMES.values(), "kernel-distance"], LOWER)),
        "prd": Measure(_prd, {"f8": HIGHER, "f1/8": HIGHER}),
        "neighbours": Measure(_neighbours, dict.fromkeys(NEIGHBOUR_SCORES, HIGHER)),
    },
)
