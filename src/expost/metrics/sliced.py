"""The Monge distance: squared Wasserstein distances of one-dimensional projections, which sorting gives exactly."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from expost.densities.checks import check_int, check_seed
from expost.metrics.checks import check_features, check_same_dim
from expost.metrics.influence import Influence

#: Random directions; Berthet et al. 2026 advise 100 to 1,000.
PROJECTIONS = 1_000
_ELEMENTS = 2**21


@dataclass(frozen=True)
class MongeDistance:
    """The Monge distance and how much each example moves it.

    Attributes:
        value: The distance, at least 0, in squared units of the features.
        projections: How many directions.
        influence: How much each example moves the value, by the Kantorovich potentials of the projections.
    """

    value: float
    projections: int
    influence: Influence = field(repr=False, compare=False)


def monge_distance(reference: Tensor, samples: Tensor, projections: int = PROJECTIONS, seed: int = 0) -> MongeDistance:
    """Return the sliced squared 2-Wasserstein distance, scaled by three times the dimension (Berthet et al. 2026).

    On Inception's 2048 features this is MIND, the Monge Inception Distance (arXiv 2605.06797); on others it should not
    have that name. With F_u and G_u the quantile functions of the two sets projected on a direction u,

        MIND = 3 d mean_u int_0^1 (F_u^-1(t) - G_u^-1(t))^2 dt,

    the mean over random unit vectors u. Nothing is estimated in d dimensions, so that sets of a few hundred examples
    give a useful value where a Frechet distance needs more examples than features. It still falls as both sets grow:
    compare at equal numbers.

    Sets of one size are compared value by value after sorting, as torch-fidelity does with `rng_seed=seed`, whose
    directions these are. Sets of unequal sizes are compared by all of their quantiles; nothing is left out.

    A translation by v has 3 d mean_u (u.v)^2, about 3 |v|^2; N(0, a^2 I) and N(0, b^2 I) are at 3 d (a - b)^2.

    The cost is d x projections multiplications for each example, and sorting the projections.

    Args:
        reference: Features of real examples, shape (N, d).
        samples: Features of generated examples, shape (M, d).
        projections: Number of directions.
        seed: Seed of the directions. PyTorch's global random state is neither used nor changed.

    Raises:
        UsageError: for options out of range, features of unequal dimension, or that are no (n, d) tensors.
        DataError: for no examples, NaN or infinity, or values whose squares cannot be held.

    Example:
        >>> x = torch.randn(50, 1, generator=torch.Generator().manual_seed(0))
        >>> round(monge_distance(x, x + 2).value, 3)  # in one dimension every direction sees all of it: 3 times 2^2
        12.0
    """
    check_int("projections", projections, minimum=1)
    check_seed(seed)
    reference, samples = check_features("reference", reference, 1), check_features("samples", samples, 1)
    samples = samples.to(reference.device)
    check_same_dim(reference=reference, samples=samples)
    n, m, d = len(reference), len(samples), reference.shape[1]
    drawn = torch.randn(projections, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float32)
    directions = (drawn / drawn.norm(dim=1, keepdim=True).clamp_min(1e-12)).to(reference)
    places = _Quantiles(n, m, reference.device)
    total = torch.zeros((), dtype=torch.float64, device=reference.device)
    of_x, of_y = (torch.zeros(size, dtype=torch.float64, device=reference.device) for size in (n, m))
    for part in directions.split(max(1, _ELEMENTS // (n + m))):
        x, order_x = (part @ reference.T).sort(dim=1)
        y, order_y = (part @ samples.T).sort(dim=1)
        x, y = x[:, places.of_x], y[:, places.of_y]
        gap = x - y
        total += (gap.square() @ places.weight).sum()
        # potentials of the one-dimensional plan: their slopes are 2 (x - y) and 2 (y - x)
        pairs = gap[:, 1:] + gap[:, :-1]
        of_x += _potential(x.diff(dim=1) * pairs, places.first_x, order_x)
        of_y += _potential(-y.diff(dim=1) * pairs, places.first_y, order_y)
    scale = 3.0 * d / projections
    influence = Influence(samples=of_y * scale, reference=of_x * scale)
    return MongeDistance(float(total) * scale, projections, influence)


class _Quantiles:
    """Where the quantile functions of n and of m equally likely values are constant together.

    Attributes:
        of_x: For each piece, the place of its value among the n sorted ones.
        of_y: The place among the m.
        weight: Length of each piece; they add up to 1.
        first_x: For each of the n values, the first piece that has it.
        first_y: For each of the m.
    """

    def __init__(self, n: int, m: int, device: torch.device) -> None:
        # ends in units of 1 / (n m), which are exact; the last of both is n m
        ends = torch.unique(torch.cat([torch.arange(1, n + 1) * m, torch.arange(1, m + 1) * n]))
        starts = torch.cat([torch.zeros(1, dtype=ends.dtype), ends[:-1]])
        self.of_x, self.of_y = (starts // m).to(device), (starts // n).to(device)
        self.weight = ((ends - starts).double() / (n * m)).to(device)
        self.first_x = torch.searchsorted(starts, torch.arange(n) * m).to(device)
        self.first_y = torch.searchsorted(starts, torch.arange(m) * n).to(device)


def _potential(steps: Tensor, first: Tensor, order: Tensor) -> Tensor:
    """Return the sum over the directions of each example's potential, from its steps along the sorted pieces."""
    along = torch.cat([torch.zeros_like(steps[:, :1]), steps.cumsum(dim=1)], dim=1)[:, first]
    centred = along - along.mean(dim=1, keepdim=True)
    return torch.zeros_like(centred).scatter_(1, order, centred).sum(dim=0)
