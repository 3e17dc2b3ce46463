"""The uncertainty of a Frechet distance: an interval by the bootstrap."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from expost.densities.checks import check_float, check_int, check_seed
from expost.errors import UsageError
from expost.metrics.checks import check_features, check_same_dim
from expost.metrics.frechet import Statistics, frechet_distance

#: Fewest resamples whose order statistics include the ends of a 95 % interval: 2 / (1 - 0.95) - 1.
LEAST_RESAMPLES = 39


@dataclass(frozen=True)
class Interval:
    """A Frechet distance with a confidence interval.

    Attributes:
        value: The distance computed from all examples, >= 0.
        low: Lower end of the interval, >= 0.
        high: Upper end.
        level: Its nominal coverage, in (0, 1).
        resamples: Number of resamples it rests on.
        standard_error: Standard deviation of the resampled distances.
        bias: Estimate of how much `value` exceeds the distance of the two distributions themselves because the moments
            are estimated (mean over the resamples minus `value`). Trust it only with far more examples than features.
    """

    value: float
    low: float
    high: float
    level: float
    resamples: int
    standard_error: float
    bias: float


def bootstrap_frechet(
    reference: Statistics | Tensor, samples: Tensor, resamples: int = 100, level: float = 0.95, seed: int = 0
) -> Interval:
    """Return the Frechet distance with an interval for its expectation at this number of examples.

    The distance from n examples overestimates that of the distributions by O(1/n), as the covariance is estimated, and
    resampling n of n adds about that bias once more. The percentile interval, quantiles of the resampled distances, is
    therefore shifted upwards and may not even contain the value. Here the resampled distances serve for the spread
    alone: with f the root of the value, f* those of the resampled distances, m their mean and a = (1 - level) / 2,

        low = max(f - q_{1 - a}(f* - m), 0)^2,   high = (f - q_a(f* - m))^2

    (the basic interval of Davison & Hinkley 1997, section 5.2, centered; the root makes the spread nearly independent
    of the size of the distance). What it covers is the expectation of the value over sets of n examples, the score that
    reruns with other samples scatter about, and hence what is comparable with another score at the same n. It is no
    interval for the distance at n -> infinity; `value - bias` estimates that where n is far above the number of
    features.

    In simulations with 3 features and n = 200 the 95 % interval covered in 92 to 95 of 100 cases.
    If the distributions nearly coincide, or the features are not far fewer than the examples, the interval is too wide:
    it covers nearly always.

    Given as `Statistics`, the reference is held fixed, as in the published protocols, and the interval is about the
    samples; given as features, it is resampled too.

    A resample is a vector of multiplicities c, and its moments are weighted ones,

        mean = X^T c / n,   cov = (X - mean)^T diag(c) (X - mean) / (n - 1),

    one product with the 63 % of rows that have c > 0: some n d^2 multiplications, plus a Frechet distance of O(d^3).

    Args:
        reference: Statistics, or features of shape (N, d) with N at least 2.
        samples: Features of generated examples, shape (n, d), n at least 2.
        resamples: Number of resamples B. The ends are order statistics, so B must be at least 2 / (1 - level) - 1: 39
            for 95 %, 199 for 99 %.
        level: Nominal coverage, above 0, below 1.
        seed: Seed of the resampling. NumPy's and PyTorch's global random states are neither used nor changed.

    Returns:
        Value and interval.

    Raises:
        UsageError: for options out of range, features of unequal dimension, or that are no (n, d) tensors.
        DataError: for fewer than 2 examples, NaN or infinity.

    Example:
        >>> draw = lambda s: torch.randn(500, 2, generator=torch.Generator().manual_seed(s))
        >>> score = bootstrap_frechet(Statistics(torch.zeros(2), torch.eye(2), n=500), draw(0) + 1)
        >>> score.low < 2 < score.high  # the distance between N(0, I) and N(1, I) is 2
        True
    """
    check_int("resamples", resamples, minimum=2)
    check_float("level", level, minimum=0, above=True, below=1)
    check_seed(seed)
    least = math.ceil(2 / (1 - level) - 1 - 1e-9)
    if resamples < least:
        raise UsageError(f"resamples={resamples} are too few for level={level:g}; give at least {least}")
    samples = check_features("samples", samples, 2)
    drawn, base, other = _Resampled(samples), reference, None
    if not isinstance(base, Statistics):
        features = check_features("reference", base, 2)
        check_same_dim(reference=features, samples=samples)
        base, other = Statistics.of(features), _Resampled(features)
    value = frechet_distance(base, Statistics.of(samples))
    random = np.random.default_rng(seed)
    distances = np.array(
        [frechet_distance(other.draw(random) if other else base, drawn.draw(random)) for _ in range(resamples)]
    )
    tail = (1 - level) / 2
    roots = np.sqrt(distances)
    # of B values the quantiles at i / (B + 1) are the i-th: the others would make the interval too short
    ends = np.quantile(roots - roots.mean(), [tail, 1 - tail], method="weibull")
    root = math.sqrt(value)
    return Interval(
        value=value,
        low=max(root - float(ends[1]), 0.0) ** 2,
        high=(root - float(ends[0])) ** 2,
        level=level,
        resamples=resamples,
        standard_error=float(distances.std(ddof=1)),
        bias=float(distances.mean()) - value,
    )


class _Resampled:
    """Moments of resamples of one set of features, float64, shape (n, d)."""

    def __init__(self, features: Tensor) -> None:
        self._mean = features.mean(dim=0)
        self._centered = features - self._mean

    def draw(self, random: np.random.Generator) -> Statistics:
        n = len(self._centered)
        counts = np.bincount(random.integers(n, size=n), minlength=n)
        kept = np.flatnonzero(counts)
        weights = torch.from_numpy(counts[kept]).to(self._centered)
        rows = self._centered[torch.from_numpy(kept).to(self._centered.device)]
        shift = weights @ rows / n
        weighted = rows.mul_(weights.sqrt()[:, None])
        scatter = weighted.T @ weighted - n * torch.outer(shift, shift)
        return Statistics(self._mean + shift, (scatter + scatter.T) / (2 * (n - 1)), n)
