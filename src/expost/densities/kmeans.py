"""k-means, to start a mixture: greedy k-means++ seeding, then Lloyd's iterations. Runs on the device of the points.

Over several processes all have the points. The seeding is done alike in each; in Lloyd's iterations each takes a part
of the points, and sums and counts are added up.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from expost import distributed
from expost.errors import DataError

_CHUNK_ELEMENTS = 2**22  # of a distance block: 32 MB in float64


def _rows(n_columns: int) -> int:
    return max(1, _CHUNK_ELEMENTS // max(1, n_columns))


def _squared_distances(x: Tensor, centers: Tensor) -> Tensor:
    """Return ||x_i - c_j||^2, shape (N, K), from differences, so that equal points are at distance exactly 0."""
    exact = "donot_use_mm_for_euclid_dist"
    blocks = [
        torch.cdist(block, centers, compute_mode=exact).square() for block in torch.split(x, _rows(centers.shape[0]))
    ]
    return torch.cat(blocks)


def plus_plus(x: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """Choose k of the points as starting centers, spread out (Arthur & Vassilvitskii 2007, the greedy variant).

    Each next center is drawn with probability proportional to the squared distance to the nearest center so far; of
    2 + floor(log k) such candidates the one that lowers the sum of these distances most is kept.

    Args:
        x: Points, shape (N, d).
        k: Number of centers.
        generator: Source of randomness, on the CPU, so that every device makes the same choices.

    Returns:
        Centers, shape (k, d), all different.

    Raises:
        DataError: if there are fewer than k different points.
    """
    trials = 2 + int(math.log(k))
    chosen = [int(torch.randint(x.shape[0], (1,), generator=generator))]
    nearest = _squared_distances(x, x[chosen]).squeeze(1)
    while len(chosen) < k:
        cumulative = nearest.cumsum(0)
        total = float(cumulative[-1])
        if total == 0:
            raise DataError(
                f"only {len(chosen)} different codes for {k} components; use fewer components or encode more examples"
            )
        targets = torch.rand(trials, generator=generator, dtype=torch.float64).to(x.device) * cumulative[-1]
        # "right": a target that equals a sum goes on to the next point, so a point at distance 0 is never drawn, except
        # for rounding at the very end, which the clamp to the last point of positive distance repairs.
        last = int(nearest.nonzero()[-1])
        candidates = torch.searchsorted(cumulative, targets, right=True).clamp_(max=last)
        updated = torch.minimum(nearest[:, None], _squared_distances(x, x[candidates]))
        best = int(updated.sum(0).argmin())
        chosen.append(int(candidates[best]))
        nearest = updated[:, best]
    return x[chosen]


def assign(x: Tensor, centers: Tensor) -> Tensor:
    """Return the index of the nearest center of every point, int64, shape (N,)."""
    half_norms = 0.5 * centers.square().sum(1)
    blocks = [
        torch.addmm(half_norms, block, centers.T, alpha=-1).argmin(1)
        for block in torch.split(x, _rows(centers.shape[0]))
    ]
    return torch.cat(blocks) if blocks else torch.zeros(0, dtype=torch.int64, device=x.device)


def lloyd(x: Tensor, centers: Tensor, *, max_iter: int = 100, tol: float = 1e-4) -> tuple[Tensor, Tensor]:
    """Alternate assignment and averaging (Lloyd 1982) until the centers rest.

    Args:
        x: Points, shape (N, d).
        centers: Start, shape (K, d).
        max_iter: At most this many rounds.
        tol: Stop when the summed squared shift of the centers is below `tol` times the mean variance of the points.

    Returns:
        Centers, shape (K, d), and the label of every point, int64, shape (N,). A center that no point is nearest to
        stays.
    """
    shift_limit = tol * float(x.var(0, correction=0).mean())
    offset = x.mean(0)  # distances by products: center first, or far-away data lose their digits
    count = x.shape[0]
    x, centers = distributed.shard(x) - offset, centers - offset
    for _ in range(max_iter):
        labels = assign(x, centers)
        counts, sums = distributed.total(
            torch.bincount(labels, minlength=centers.shape[0]).to(x.dtype),
            torch.zeros_like(centers).index_add_(0, labels, x),
        )
        moved = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], centers)
        shift = float((moved - centers).square().sum())
        centers = moved
        if shift <= shift_limit:
            break
    return centers + offset, distributed.gather(assign(x, centers), count)
