"""Scores from nearest neighbours: precision, recall, density and coverage; and the nearest examples themselves.

All distances are Euclidean, exact up to float64 rounding, in blocks of bounded size; copies are at distance exactly 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from expost.densities.checks import check_int
from expost.metrics.checks import check_features, check_same_dim
from expost.metrics.distances import CHUNK_ELEMENTS, Points
from expost.metrics.influence import Influence


@dataclass(frozen=True)
class NeighbourScores:
    """How samples lie in the neighbourhoods of a reference, and the other way round.

    Attributes:
        precision: Share of samples in the neighbourhood of some reference example, in [0, 1].
        recall: Share of reference examples in the neighbourhood of some sample, in [0, 1].
        density: Mean number of reference neighbourhoods that a sample lies in, over k; at least 0, 1 expected for
            samples of the reference distribution, more where samples crowd at its modes.
        coverage: Share of reference examples whose neighbourhood holds some sample, in [0, 1].
        k: The k-th nearest neighbour bounds a neighbourhood.
        influences: How much each example moves each of the four, by its name. The radii are taken as they are.
    """

    precision: float
    recall: float
    density: float
    coverage: float
    k: int
    influences: Mapping[str, Influence] = field(repr=False, compare=False)


def neighbour_scores(reference: Tensor, samples: Tensor, k: int = 5, *, chunk: int = CHUNK_ELEMENTS) -> NeighbourScores:
    """Return precision and recall, density and coverage from k-nearest-neighbour balls.

    With X the N reference examples, Y the M samples, B(x) the closed ball about x whose radius is the distance from x
    to its k-th nearest neighbour in its own set, itself not counted:

        precision = mean_j [Y_j in some B(X_i)]         recall = mean_i [X_i in some B(Y_j)]
        density = sum_ij [Y_j in B(X_i)] / (k M)        coverage = mean_i [some Y_j in B(X_i)]

    The first two are by Kynkaanniemi et al. 2019 (eq. 1 and 2), who use k = 3; the others by Naeem et al. 2020
    (section 3.2), who use k = 5, as here all four do. Balls are closed, as the former's equation has it; the published
    code of the latter has them open, which differs only where distances tie. A reference example that occurs k + 1
    times has radius 0, and holds exact copies alone.

    For samples of the reference distribution itself the expected density is 1, and the expected coverage
    `expected_coverage(N, M, k)`; compare with these, and compare scores only at equal k, N and M.

    Args:
        reference: Features of real examples, shape (N, D).
        samples: Features of generated examples, shape (M, D).
        k: Number of neighbours, at least 1, below N and M.
        chunk: Elements of a block of distances; the result does not depend on it.

    Returns:
        The four scores.

    Raises:
        UsageError: for a k below 1, features of unequal dimension, or that are no (n, d) tensors.
        DataError: for fewer than k + 1 examples on either side, NaN or infinity.

    Example:
        >>> line = torch.arange(10.0)[:, None]
        >>> neighbour_scores(reference=line, samples=line[:5] + 0.5, k=1)
        NeighbourScores(precision=1.0, recall=0.6, density=2.0, coverage=0.6, k=1)
    """
    check_int("k", k, minimum=1)
    check_int("chunk", chunk, minimum=1)
    reference, samples = check_features("reference", reference, k + 1), check_features("samples", samples, k + 1)
    samples = samples.to(reference.device)
    check_same_dim(reference=reference, samples=samples)
    points = Points(reference, chunk)
    reference_radii = points.nearest(reference, k, skip_self=True)[0][:, -1]
    sample_radii = Points(samples, chunk).nearest(samples, k, skip_self=True)[0][:, -1]
    of_samples = _Counts(len(samples), len(reference), reference.device)
    of_reference = _Counts(len(samples), len(reference), reference.device)
    for block in points.blocks(samples):
        near = block.within(reference_radii[None])
        of_reference.add(block.start, near)
        own_radii = sample_radii[block.start : block.start + len(near), None]
        of_samples.add(block.start, block.within(own_radii))
    n, m = len(reference), len(samples)
    realistic, covered, recalled = of_reference.of_sample > 0, of_reference.of_example > 0, of_samples.of_example > 0
    influences = {  # as the jackknife: without a point, those are lost for whom it is the only one near
        "precision": Influence(realistic.double(), of_reference.only_for(samples=False) * (n / m)),
        "recall": Influence(of_samples.only_for(samples=True) * (m / n), recalled.double()),
        "density": Influence(of_reference.of_sample / k, of_reference.of_example * (n / (k * m))),
        "coverage": Influence(of_reference.only_for(samples=True) * (m / n), covered.double()),
    }
    return NeighbourScores(
        precision=int(realistic.sum()) / m,
        recall=int(recalled.sum()) / n,
        density=int(of_reference.of_sample.sum()) / (k * m),
        coverage=int(covered.sum()) / n,
        k=k,
        influences=influences,
    )


class _Counts:
    """Pairs of a sample and a reference example that are near: how many each has, and for how many it is the only one.

    Attributes:
        of_sample: Near examples of each sample, float64, shape (M,).
        of_example: Near samples of each reference example, float64, shape (N,).
    """

    def __init__(self, samples: int, examples: int, device: torch.device) -> None:
        self.of_sample = torch.zeros(samples, dtype=torch.float64, device=device)
        self.of_example = torch.zeros(examples, dtype=torch.float64, device=device)
        # the sum of the places of all partners is the place of the only one, where there is one
        self._partners_of_sample = torch.zeros_like(self.of_sample)
        self._partners_of_example = torch.zeros_like(self.of_example)

    def add(self, start: int, near: Tensor) -> None:
        """Count the pairs of a block, bool (B, N), whose first sample is number `start`."""
        pairs = near.double()
        rows = slice(start, start + len(pairs))
        self.of_sample[rows] = pairs.sum(dim=1)
        self.of_example += pairs.sum(dim=0)
        examples = torch.arange(len(self.of_example), dtype=torch.float64, device=near.device)
        samples = torch.arange(start, start + len(pairs), dtype=torch.float64, device=near.device)
        self._partners_of_sample[rows] = pairs @ examples
        self._partners_of_example += samples @ pairs

    def only_for(self, *, samples: bool) -> Tensor:
        """Return for how many partners each sample (or each reference example) is the only one, float64."""
        if samples:
            alone, partners, into = self.of_example == 1, self._partners_of_example, self.of_sample
        else:
            alone, partners, into = self.of_sample == 1, self._partners_of_sample, self.of_example
        return partners[alone].long().bincount(minlength=len(into)).double()


def expected_coverage(n: int, m: int, k: int = 5) -> float:
    """Return the expected coverage of m samples of the reference distribution itself (Naeem et al. 2020, section 3).

        1 - (n - 1) ... (n - k) / ((m + n - 1) ... (m + n - k)),

    for any continuous distribution in any dimension; 1 - 2^-k for large n = m.

    Args:
        n: Reference examples, above k.
        m: Samples, at least 1.
        k: Number of neighbours.

    Raises:
        UsageError: for numbers out of range.

    Example:
        >>> round(expected_coverage(10_000, 10_000, k=5), 4)
        0.9688
    """
    check_int("k", k, minimum=1)
    check_int("n", n, minimum=k + 1)
    check_int("m", m, minimum=1)
    return 1.0 - math.prod((n - i) / (m + n - i) for i in range(1, k + 1))


class Nearest(NamedTuple):
    """What `nearest` returns.

    Attributes:
        distances: Euclidean, ascending along each row, shape (Q, n), float64.
        indices: Rows of the pool, shape (Q, n), int64.
    """

    distances: Tensor
    indices: Tensor


def nearest(queries: Tensor, pool: Tensor, n: int = 1, *, chunk: int = CHUNK_ELEMENTS) -> Nearest:
    """Return the n nearest rows of the pool for every query, such as the training examples nearest to a sample.

    Args:
        queries: Shape (Q, D); Q may be 0.
        pool: Shape (P, D).
        n: How many, at most P.
        chunk: Elements of a block of distances; the result does not depend on it.

    Returns:
        Distances and indices. Of rows at equal distance the one of lower index comes first. (Of more than 8 exact
        copies of a query any may.)

    Raises:
        UsageError: for an n below 1, features of unequal dimension, or that are no (n, d) tensors.
        DataError: for fewer than n rows in the pool, NaN or infinity.

    Example:
        >>> nearest(torch.tensor([[0.9], [5.0]]), pool=torch.tensor([[0.0], [1.0], [4.0]])).indices
        tensor([[1],
                [2]])
    """
    check_int("n", n, minimum=1)
    check_int("chunk", chunk, minimum=1)
    queries, pool = check_features("queries", queries, 0), check_features("pool", pool, n)
    check_same_dim(queries=queries, pool=pool)
    return Nearest(*Points(pool, chunk).nearest(queries.to(pool.device), n))
