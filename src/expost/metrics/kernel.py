"""The kernel distance: squared maximum mean discrepancy under a cubic kernel, on subsets, with its standard error."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from expost.densities.checks import check_int, check_seed
from expost.errors import DataError
from expost.metrics.checks import check_features, check_same_dim
from expost.metrics.influence import Influence


@dataclass(frozen=True)
class KernelDistance:
    """The kernel distance and its uncertainty.

    Attributes:
        value: Mean over the subsets, in units of the kernel; unbiased, so it may be below 0.
        standard_error: Estimated standard deviation of `value` over new draws of both sets and of the subsets.
        std: Standard deviation over the subsets (divisor: their number), the figure usually printed beside KID. It is
            the spread of one small subset: several times the uncertainty of `value`.
        subsets: How many subsets.
        subset_size: Examples in each, of either set.
        influence: How much each example moves the value, by the witness function 2 (E k(x, X) - E k(x, Y)).
    """

    value: float
    standard_error: float
    std: float
    subsets: int
    subset_size: int
    influence: Influence = field(repr=False, compare=False)


def kernel_distance(
    reference: Tensor, samples: Tensor, subsets: int = 100, subset_size: int = 1000, seed: int = 0
) -> KernelDistance:
    """Return the unbiased squared MMD with the kernel k(x, y) = (x.y / d + 1)^3 (Binkowski et al. 2018).

    On Inception's 2048 features this is the KID; on others it should not have that name. On a subset of m rows of each,

        MMD^2 = sum_{i != j} [k(x_i, x_j) + k(y_i, y_j)] / (m (m - 1)) - 2 sum_ij k(x_i, y_j) / m^2,

    and the value is the mean over subsets, each drawn without replacement. It has no bias, unlike the Frechet distance,
    so that values from different numbers of examples may be compared.

    The standard error follows from the variance of the estimator (`Variances`), estimated within the subsets and
    applied to the numbers of examples at hand; it holds for equal distributions, where the leading term vanishes, too.

    The subsets are those that torch-fidelity draws with `rng_seed=seed` for the samples as its first input and the
    reference as its second, so its result can be repeated (2020 is its default seed; it computes in the type of the
    features, this always in float64).

    The cost is that of 3 x subsets x subset_size^2 inner products: as many as all pairs at the default and 10,000
    examples.

    Args:
        reference: Features of real examples, shape (N, d).
        samples: Features of generated examples, shape (M, d).
        subsets: Number of subsets; 100 is customary.
        subset_size: Examples in a subset, at least 4, at most N and M; 1000 is customary.
        seed: Seed of the subsets. NumPy's and PyTorch's global random states are neither used nor changed.

    Returns:
        The value, its standard error and the spread of the subsets.

    Raises:
        UsageError: for options out of range, features of unequal dimension, or that are no (n, d) tensors.
        DataError: for fewer examples than a subset takes, NaN or infinity.

    Example:
        >>> ones = torch.ones(10, 3)  # k is 8 among these, 1 among zeros and between them
        >>> kernel_distance(reference=ones, samples=0 * ones, subsets=2, subset_size=5).value
        7.0
    """
    check_int("subsets", subsets, minimum=1)
    check_int("subset_size", subset_size, minimum=4)  # the variances need degrees of freedom
    check_seed(seed)
    reference, samples = check_features("reference", reference, 1), check_features("samples", samples, 1)
    samples = samples.to(reference.device)
    check_same_dim(reference=reference, samples=samples)
    for name, features in (("reference", reference), ("samples", samples)):
        if len(features) < subset_size:
            raise DataError(
                f"{name}: {len(features)} examples are fewer than subset_size={subset_size}; "
                f"give more, or a subset_size of at most {min(len(reference), len(samples))}"
            )
    random = np.random.RandomState(seed)
    values, variances = [], []
    witness_x, witness_y = _Means(reference), _Means(samples)
    for _ in range(subsets):
        of_y = _draw(random, len(samples), subset_size, samples.device)
        of_x = _draw(random, len(reference), subset_size, reference.device)
        x, y = reference[of_x], samples[of_y]
        xx, yy, xy = _kernel(x, x), _kernel(y, y), _kernel(x, y)
        values.append(_mmd(xx, yy, xy))
        within = [(each.sum(dim=1) - each.diagonal()) / (subset_size - 1) for each in (xx, yy)]
        witness_x.add(of_x, 2 * (within[0] - xy.mean(dim=1)))
        witness_y.add(of_y, 2 * (within[1] - xy.mean(dim=0)))
        variances.append(_variances(xx, yy, xy))
    mean = Variances(*np.mean(variances, axis=0).clip(min=0.0).tolist())
    of_all, of_subset = mean.total(len(reference), len(samples)), mean.total(subset_size, subset_size)
    # the mean over all possible subsets is the estimator on all examples; a finite number of them scatters about it
    error = math.sqrt(of_all + max(of_subset - of_all, 0.0) / subsets)
    influence = Influence(samples=witness_y.result(), reference=witness_x.result())
    return KernelDistance(float(np.mean(values)), error, float(np.std(values)), subsets, subset_size, influence)


class _Means:
    """Mean of what each example of a set is given; the mean of all for those that are given nothing."""

    def __init__(self, examples: Tensor) -> None:
        self._sum = torch.zeros(len(examples), dtype=torch.float64, device=examples.device)
        self._count = torch.zeros_like(self._sum)

    def add(self, places: Tensor, values: Tensor) -> None:
        self._sum.index_add_(0, places, values)
        self._count.index_add_(0, places, torch.ones_like(values))

    def result(self) -> Tensor:
        seen = self._count > 0
        mean = self._sum / self._count.clamp(min=1)
        return mean.where(seen, mean[seen].mean())


class Variances(NamedTuple):
    """Components of the variance of MMD^2 for n and m examples, by the decomposition of Hoeffding 1948.

        Var = 4 first_x / n + 4 first_y / m
              + 2 second_xx / (n (n - 1)) + 2 second_yy / (m (m - 1)) + 4 second_xy / (n m)

    The first-order parts are the variances of the witness function E k(x, X) - E k(x, Y) under either distribution (so
    they vanish where the distributions are equal), the second-order ones those of the kernel without its main effects.
    """

    first_x: float
    first_y: float
    second_xx: float
    second_yy: float
    second_xy: float

    def total(self, n: int, m: int) -> float:
        """Return the variance for n and m examples."""
        within = 2 * self.second_xx / (n * (n - 1)) + 2 * self.second_yy / (m * (m - 1))
        return 4 * self.first_x / n + 4 * self.first_y / m + within + 4 * self.second_xy / (n * m)


def _draw(random: np.random.RandomState, n: int, size: int, device: torch.device) -> Tensor:
    return torch.from_numpy(random.choice(n, size, replace=False)).to(device)


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    """Return k(x, y) - 1: a constant changes neither the distance nor what follows from it, and 1 would swallow k - 1.

    With t = x.y / d it is t (3 + t (3 + t)), which keeps its digits for features of any scale.
    """
    t = (x @ y.T).div_(x.shape[1])
    return (t + 3).mul_(t).add_(3).mul_(t)


def _mmd(xx: Tensor, yy: Tensor, xy: Tensor) -> float:
    m = len(xx)
    within = xx.sum() - xx.trace() + yy.sum() - yy.trace()
    return float(within / (m * (m - 1)) - 2 * xy.mean())


def _variances(xx: Tensor, yy: Tensor, xy: Tensor) -> Variances:
    """Estimate the components without bias (so single values may be negative) from the kernels on one subset."""
    m = len(xx)
    a, second_xx = _effects_within(xx)
    b, second_yy = _effects_within(yy)
    rows, columns = xy.mean(dim=1), xy.mean(dim=0)
    rest = xy - rows[:, None] - columns + xy.mean()
    second_xy = float(rest.square().sum()) / (m - 1) ** 2
    # an estimated effect is the true one plus a mean of residuals, whose variance is subtracted
    first_x = float((a - rows).var()) - second_xx / (m - 2) - second_xy / m
    first_y = float((b - columns).var()) - second_yy / (m - 2) - second_xy / m
    return Variances(first_x, first_y, second_xx, second_yy, second_xy)


def _effects_within(kernel: Tensor) -> tuple[Tensor, float]:
    """Fit k_ij = mean + a_i + a_j + e_ij to the pairs i != j by least squares; return a and the variance of e."""
    m = len(kernel)
    sums = kernel.sum(dim=1) - kernel.diagonal()
    mean = sums.sum() / (m * (m - 1))
    effects = (sums - (m - 1) * mean) / (m - 2)
    rest = kernel - mean - effects[:, None] - effects
    squares = rest.square().sum() - rest.diagonal().square().sum()
    return effects, float(squares) / (m * (m - 3))
