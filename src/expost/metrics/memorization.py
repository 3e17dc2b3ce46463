"""Do samples copy the training set? A test against held-out examples, and the share of samples that are authentic.

Both look at distances to the nearest training example, in the space of the features that they are given.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from expost.densities.checks import check_int, check_seed
from expost.densities.kmeans import assign, lloyd, plus_plus
from expost.errors import DataError, UsageError
from expost.metrics.checks import check_features
from expost.metrics.direction import NEITHER
from expost.metrics.pool import Pool

#: The direction of each score. Both describe: `copying` (C_T) far below 0 means copies, far above 0 underfitting;
#: `authenticity` is 0 for copies and 1 for samples that are far off.
MEMORIZATION_SCORES = {"copying": NEITHER, "authenticity": NEITHER}


def authenticity(train: Tensor | Pool, samples: Tensor) -> float:
    """Return the share of samples that are no closer to a training example than training examples are to each other.

    A sample is counted as copied if it is no farther from its nearest training example than that one is from its own
    nearest training neighbour (Alaa et al. 2022; AuthPct in later work is the rest, in percent).

    Fresh samples are flagged too. Where train and samples have one smooth distribution, the flagged ones are about
    those who would choose each other with their nearest neighbour: 2/3 in one dimension, 0.6215 in two, 1/2 in many;
    and in many dimensions hubs, which are nearest to a great many, lower it further. So no single value means "no
    copying": compare with `authenticity(train, held_out)`, held-out examples in the place of samples. Copies bring it
    to 0, samples that are far off to 1. `copying_test` makes that comparison a test.

    Args:
        train: Features of the examples that the model was trained on, shape (T, D); or a `Pool` of the examples
            themselves, of any number, and then `samples` are examples too.
        samples: Features of its samples, shape (M, D).

    Raises:
        UsageError: for features of unequal dimension, or that are no (n, d) tensors.
        DataError: for fewer than 2 training examples, no samples, NaN or infinity.

    Example:
        >>> authenticity(torch.tensor([[0.0], [1.0], [3.0]]), torch.tensor([[0.1], [-2.0], [3.5], [6.0]]))
        0.5
    """
    pool = _pool(train, 2)
    pool.check("samples", samples, 1)
    distances, indices = pool.nearest(samples, 1, "samples")
    chosen, inverse = torch.unique(indices[:, 0], return_inverse=True)  # only those that are the nearest of some sample
    own = pool.nearest(pool.examples[chosen.to(pool.examples.device)], 2).distances[:, 1]
    return float((distances[:, 0] > own[inverse]).double().mean())


@dataclass(frozen=True)
class CopyingTest:
    """Result of the three-sample test for data copying.

    Attributes:
        c_t: The statistic: far below 0, samples lie closer to the training examples than held-out examples do, which is
            copying; far above 0, farther, which is underfitting.
        standard_error: Its standard deviation if samples are distributed as held-out examples; 1 for a single cell.
        p_value: Probability of a C_T as low as this if they are, by the normal approximation, in [0, 1].
        cells: How many cells had enough examples to count.
    """

    c_t: float
    standard_error: float
    p_value: float
    cells: int


def copying_test(
    train: Tensor | Pool, held_out: Tensor, samples: Tensor, cells: int = 1, *, minimum: int = 20, seed: int = 0
) -> CopyingTest:
    """Test whether samples lie closer to the training set than fresh examples do (Meehan et al. 2020).

    L(x) is the distance from x to the nearest training example of its cell. Within a cell, z is the Mann-Whitney
    statistic of L(samples) against L(held out), standardized (`mann_whitney_z`); over cells,

        C_T = sum_c P(c) z_c / sum_c P(c),   P(c) the share of held-out examples in cell c.

    Cells come from k-means on the training examples and find copying that is confined to some region. One cell, the
    default, is the global test. Each z is standard normal where nothing is copied, so C_T has standard deviation
    sqrt(sum P^2) / sum P, which is below 1 for several cells; it is reported.

    Args:
        train: Features of the examples that the model was trained on, shape (T, D); or a `Pool` of the examples
            themselves, of any number, and then the others are examples too, and there is one cell.
        held_out: Features of examples from the same source, shape (P, D), used neither to train the model nor to choose
            it.
        samples: Features of its samples, shape (M, D).
        cells: Number of cells.
        minimum: A cell counts if it holds this many held-out examples, and as many samples.
        seed: Seed of k-means; without effect for one cell.

    Raises:
        UsageError: for options out of range, features of unequal dimension, or that are no (n, d) tensors.
        DataError: if no cell holds enough, there are too few different examples for the cells, or for NaN or infinity.

    Example:
        >>> draw = lambda s: torch.randn(200, 2, generator=torch.Generator().manual_seed(s))
        >>> copying_test(train=draw(0), held_out=draw(1), samples=draw(0)).c_t < -15
        True
    """
    check_int("cells", cells, minimum=1)
    check_int("minimum", minimum, minimum=1)
    check_seed(seed)
    pool = _pool(train, 1)
    pool.check("held_out", held_out, 1)
    pool.check("samples", samples, 1)
    shares, scores = [], []
    for near, tested, generated in _cells(train, pool, held_out, samples, cells, seed):
        if min(len(tested), len(generated)) >= minimum:
            found = [near.nearest(each, 1).distances[:, 0].numpy() for each in (generated, tested)]
            shares.append(len(tested) / len(held_out))
            scores.append(mann_whitney_z(*found))
    if not shares and cells == 1:
        raise DataError(
            f"it needs at least {minimum} held-out examples and as many samples, and there are {len(held_out)} and "
            f"{len(samples)}"
        )
    if not shares:
        raise DataError(
            f"none of {cells} cells has {minimum} held-out examples and {minimum} samples; give more or use fewer cells"
        )
    from scipy.special import ndtr  # slow to import

    weights = np.array(shares) / sum(shares)
    c_t, error = float(weights @ np.array(scores)), float(np.sqrt(weights @ weights))
    return CopyingTest(c_t, error, float(ndtr(c_t / error)), len(shares))


def mann_whitney_z(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Return the standardized Mann-Whitney statistic of a against b, below 0 where a tends to be smaller.

        U = sum_ij [a_i > b_j] + [a_i = b_j] / 2,   z = (U - mn/2) / sqrt(mn (m + n + 1) / 12),

    with the usual correction of the variance for ties; 0 if all values are equal (Mann & Whitney 1947).

    Args:
        a: Shape (m,), m at least 1.
        b: Shape (n,), n at least 1.

    Example:
        >>> round(mann_whitney_z(np.array([1.0, 2.0]), np.array([3.0, 4.0])), 4)
        -1.5492
    """
    m, n = len(a), len(b)
    values, u = np.concatenate([a, b]), _u(a, b)
    ties = np.unique(values, return_counts=True)[1].astype(np.float64)
    total = m + n
    variance = m * n / 12 * (total + 1 - float((ties**3 - ties).sum()) / (total * (total - 1)))
    return (u - m * n / 2) / math.sqrt(variance) if variance > 0 else 0.0


def closer(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Return the share of pairs in which a is below b, ties as a half: 1 - U / mn, with U of `mann_whitney_z`.

    Args:
        a: Shape (m,), m at least 1: distances of samples to their nearest training examples, say.
        b: Shape (n,), n at least 1: those of held-out examples.

    Example:
        >>> closer(np.array([1.0, 2.0]), np.array([2.0, 3.0]))
        0.875
    """
    return 1 - _u(a, b) / (len(a) * len(b))


def _u(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Return U = sum_ij [a_i > b_j] + [a_i = b_j] / 2."""
    from scipy.stats import rankdata  # slow to import

    return float(rankdata(np.concatenate([a, b]))[: len(a)].sum()) - len(a) * (len(a) + 1) / 2


def _pool(train: Tensor | Pool, minimum: int) -> Pool:
    if isinstance(train, Pool):
        return train
    return Pool(check_features("train", train, minimum), "train")


def _cells(
    train: Tensor | Pool, pool: Pool, held_out: Tensor, samples: Tensor, cells: int, seed: int
) -> Iterator[tuple[Pool, Tensor, Tensor]]:
    """Yield the examples of each cell; cells come from k-means on the training examples."""
    if cells == 1:
        yield pool, held_out, samples
        return
    if isinstance(train, Pool):
        raise UsageError(f"cells is {cells}, but a Pool is compared as a whole; give features as a tensor, or one cell")
    sets = [pool.examples, *(check_features("", each).to(pool.examples.device) for each in (held_out, samples))]
    offset = sets[0].mean(dim=0)
    try:
        start = plus_plus(sets[0] - offset, cells, torch.Generator().manual_seed(seed))
    except DataError:
        raise DataError(f"fewer than {cells} different training examples; use fewer cells") from None
    centers, _ = lloyd(sets[0] - offset, start)
    labels = [assign(each - offset, centers) for each in sets]
    for cell in range(cells):
        of_train, tested, generated = (each[own == cell] for each, own in zip(sets, labels, strict=True))
        if len(of_train):
            yield Pool(of_train, "train"), tested, generated
