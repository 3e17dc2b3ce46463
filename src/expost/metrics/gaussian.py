"""The Gaussian kernel's discrepancy of unit vectors: CMMD on CLIP's embeddings."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from expost.metrics.checks import check_features, check_same_dim
from expost.metrics.influence import Influence
from expost.metrics.kernel import Variances
from expost.metrics.unit import unit_vectors

#: Bandwidth and scale of Jayasumana et al. 2024.
SIGMA, SCALE = 10.0, 1_000.0
_ELEMENTS = 2**22


@dataclass(frozen=True)
class GaussianDiscrepancy:
    """The squared discrepancy, scaled, and its uncertainty.

    Attributes:
        value: `SCALE` times the squared maximum mean discrepancy, at least 0.
        standard_error: Estimated standard deviation of `value` over new draws of both sets; for equal distributions
            some 20 % too large.
        influence: How much each example moves the value, by the witness function.
    """

    value: float
    standard_error: float
    influence: Influence = field(repr=False, compare=False)


def gaussian_discrepancy(reference: Tensor, samples: Tensor) -> GaussianDiscrepancy:
    """Return 1000 times the squared MMD of unit vectors under a Gaussian kernel (Jayasumana et al. 2024).

    On the embeddings of CLIP ViT-L/14@336px this is CMMD ("Rethinking FID", CVPR 2024); on others it should not have
    that name. Features are scaled to unit length first, as CMMD's are, so that the bandwidth of 10 suits any. With
    k(x, y) = exp(-|x - y|^2 / (2 10^2)),

        value = 1000 [mean_ij k(x_i, x_j) + mean_ij k(y_i, y_j) - 2 mean_ij k(x_i, y_j)],

    means over all pairs, i = j included: the authors' code computes this biased estimator, and so does this. Of n
    examples each, equal distributions are expected at 2000 (1 - E k) / n: .01 or less for 1,000 embeddings of CLIP.

    At this bandwidth the kernel is nearly linear: the value is close to 10 |mean x - mean y|^2 of the unit vectors.

    The cost is that of all pairs: (N + M)^2 d / 2 multiplications, in blocks.

    Args:
        reference: Features of real examples, shape (N, d), N at least 4.
        samples: Features of generated examples, shape (M, d), M at least 4.

    Raises:
        UsageError: for features of unequal dimension, or that are no (n, d) tensors.
        DataError: for fewer than 4 examples, NaN or infinity, or values whose squares cannot be held.

    Example:
        >>> east, west = torch.tensor([[1.0, 0.0]]).repeat(5, 1), torch.tensor([[-1.0, 0.0]]).repeat(5, 1)
        >>> round(gaussian_discrepancy(east, west).value, 6)  # 2000 (1 - exp(-4 / 200))
        39.602653
    """
    reference, samples = check_features("reference", reference, 4), check_features("samples", samples, 4)
    samples = samples.to(reference.device)
    check_same_dim(reference=reference, samples=samples)
    n, m = len(reference), len(samples)
    both = unit_vectors(torch.cat([reference, samples]))
    x, y = both[:n], both[n:]
    xx, yy, xy = _Sums.within(x), _Sums.within(y), _Sums.between(x, y)
    value = xx.total / n**2 + yy.total / m**2 - 2 * xy.total / (n * m)
    influence = Influence(
        samples=2 * SCALE * (yy.rows / m - xy.columns / n), reference=2 * SCALE * (xx.rows / n - xy.rows / m)
    )
    error = math.sqrt(_variances(xx, yy, xy).total(n, m))
    return GaussianDiscrepancy(SCALE * max(value, 0.0), SCALE * error, influence)


@dataclass(frozen=True)
class _Sums:
    """Sums of k - 1 over all pairs of two sets: 1 would swallow the digits of a kernel that is nearly 1.

    Attributes:
        rows: Sum over the second set, for each of the first.
        columns: Sum over the first set, for each of the second.
        squares: Sum of the squares.
    """

    rows: Tensor
    columns: Tensor
    squares: float

    @property
    def total(self) -> float:
        return float(self.rows.sum())

    @classmethod
    def between(cls, x: Tensor, y: Tensor) -> _Sums:
        rows, columns, squares = [], torch.zeros(len(y), dtype=x.dtype, device=x.device), 0.0
        for part in x.split(max(1, _ELEMENTS // len(y))):  # type: ignore[no-untyped-call]
            kernel = _kernel(part, y)
            rows.append(kernel.sum(dim=1))
            columns += kernel.sum(dim=0)
            squares += float(kernel.square_().sum())
        return cls(torch.cat(rows), columns, squares)

    @classmethod
    def within(cls, x: Tensor) -> _Sums:
        """Sum over the pairs of one set, of which each is computed once."""
        sums, squares, start = torch.zeros(len(x), dtype=x.dtype, device=x.device), 0.0, 0
        for part in x.split(max(1, _ELEMENTS // len(x))):  # type: ignore[no-untyped-call]
            kernel, size = _kernel(part, x[start:]), len(part)
            sums[start : start + size] += kernel.sum(dim=1)
            sums[start + size :] += kernel[:, size:].sum(dim=0)
            own = kernel.square_().sum(dim=0)
            squares += float(own[:size].sum() + 2 * own[size:].sum())
            start += size
        return cls(sums, sums, squares)


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    """Return k - 1 of all pairs; |x - y|^2 = 2 - 2 x.y of unit vectors."""
    return (x @ y.T).sub_(1).clamp_max_(0.0).div_(SIGMA**2).expm1_()


def _variances(xx: _Sums, yy: _Sums, xy: _Sums) -> Variances:
    """Estimate the components of the variance from the sums, without bias, each at least 0."""
    n, m = len(xy.rows), len(xy.columns)
    a, second_xx = _effects_within(xx)
    b, second_yy = _effects_within(yy)
    rows, columns, mean = xy.rows / m, xy.columns / n, xy.total / (n * m)
    main = m * float((rows - mean).square().sum()) + n * float((columns - mean).square().sum())
    second_xy = (xy.squares - n * m * mean**2 - main) / ((n - 1) * (m - 1))
    # an estimated effect is the true one plus a mean of residuals, whose variance is subtracted
    first_x = float((a - rows).var()) - second_xx / (n - 2) - second_xy / m
    first_y = float((b - columns).var()) - second_yy / (m - 2) - second_xy / n
    return Variances(*(max(each, 0.0) for each in (first_x, first_y, second_xx, second_yy, second_xy)))


def _effects_within(sums: _Sums) -> tuple[Tensor, float]:
    """Fit k_ij = mean + a_i + a_j + e_ij to the pairs i != j by least squares; return a and the variance of e."""
    m = len(sums.rows)  # k - 1 is 0 on the diagonal
    mean = sums.total / (m * (m - 1))
    effects = (sums.rows - (m - 1) * mean) / (m - 2)
    rest = sums.squares - m * (m - 1) * mean**2 - 2 * (m - 2) * float(effects.square().sum())
    return effects, rest / (m * (m - 3))
