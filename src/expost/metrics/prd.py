"""Precision and recall for distributions (PRD): a curve on histograms over clusters of the pooled features."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from expost.densities.checks import check_int, check_seed
from expost.errors import DataError, UsageError
from expost.metrics.checks import check_features, check_same_dim
from expost.metrics.influence import Influence

BETA = 8.0


@dataclass(frozen=True, eq=False)
class PRD:
    """A curve of precision and recall, and its two summaries.

    Attributes:
        precision: How much of the samples' distribution the reference explains, at each angle, shape (angles,),
            float64 in [0, 1]. It rises along the curve.
        recall: How much of the reference the samples' distribution covers, likewise. It falls along the curve.
        f8: Largest F_8 on the curve: weighs recall 8 times as much as precision.
        f1_8: Largest F_{1/8} on the curve: weighs precision 8 times as much as recall.
        influences: How much each example moves `f8` and `f1_8`; empty for a curve of histograms.
    """

    precision: Tensor
    recall: Tensor
    f8: float
    f1_8: float
    influences: tuple[Influence, ...] = field(default=(), repr=False)


def prd(
    reference: Tensor, samples: Tensor, clusters: int = 20, runs: int = 10, angles: int = 1001, seed: int = 0
) -> PRD:
    """Compare samples with a reference by precision and recall for distributions (Sajjadi et al. 2018, section 4).

    Both sets are pooled and clustered by k-means; each becomes a histogram over the clusters, and `prd_from_histograms`
    makes the curve. The curve depends on where k-means ends, so it is averaged over several runs (the F-scores are
    those of the averaged curve, as published). Every run is seeded; the reference implementation's are not.

    The sets must be of equal size: clusters form where most points are, and histograms of fewer points are noisier, so
    the score of unequal sets would depend on their sizes. The published code refuses them too, by default.

    Two equal distributions do not quite reach 1: with n examples a set, the histograms differ by chance in about
    sqrt(clusters / n) of the mass.

    Args:
        reference: Features of real examples, shape (n, d).
        samples: Features of generated examples, shape (n, d).
        clusters: Number of clusters, at most 2n; 20 as published.
        runs: Number of runs of k-means; 10 as published.
        angles: Points on the curve, an odd number to hit the slope 1 exactly; 1001 as published.
        seed: Seed of k-means. PyTorch's and NumPy's global random states are neither used nor changed.

    Returns:
        Curve and F-scores. Precision is about the samples, recall about the reference: `prd(a, b)` has as precision
        what `prd(b, a)` has as recall, but for the randomness of k-means.

    Raises:
        UsageError: for options out of range, features of unequal dimension, or that are no (n, d) tensors.
        DataError: for sets of unequal size, fewer examples than clusters in all, NaN or infinity.

    Example:
        >>> left, right = torch.zeros(50, 2), torch.ones(50, 2)
        >>> score = prd(reference=torch.cat([left, right]), samples=torch.cat([left, left]), clusters=2)
        >>> score.precision.max().item(), score.recall.max().item()  # good samples, of half of the reference
        (1.0, 0.5)
    """
    check_int("clusters", clusters, minimum=1)
    check_int("runs", runs, minimum=1)
    check_seed(seed)
    _check_angles(angles)
    reference, samples = check_features("reference", reference, 1), check_features("samples", samples, 1)
    check_same_dim(reference=reference, samples=samples)
    n = len(reference)
    if len(samples) != n:
        few = min(n, len(samples))
        raise DataError(
            f"reference has {n} examples, samples {len(samples)}; PRD needs equal numbers: use {few} of each"
        )
    if 2 * n < clusters:
        raise DataError(
            f"{clusters} clusters need at least {math.ceil(clusters / 2)} examples on each side, and there are {n}; "
            "give more"
        )
    pooled = torch.cat([reference.cpu(), samples.cpu()])
    pooled -= pooled.mean(dim=0)  # so that float32, in which k-means is twice as fast, is precise enough
    scale = float(pooled.abs().max())
    points = (pooled / scale if scale > 0 else pooled).float().numpy()
    first = _first_equal(points)
    precision, recall = torch.zeros(angles, dtype=torch.float64), torch.zeros(angles, dtype=torch.float64)
    all_labels = []
    for state in np.random.SeedSequence(seed).generate_state(runs):
        labels = torch.from_numpy(_cluster(points, clusters, int(state))[first]).long()
        p, q = (part.bincount(minlength=clusters) for part in (labels[:n], labels[n:]))
        curve = prd_from_histograms(p.double(), q.double(), angles)
        precision += curve.precision
        recall += curve.recall
        all_labels.append(labels)
    averaged = _summarize(precision / runs, recall / runs)
    influences = tuple(_influence(averaged, all_labels, n, clusters, beta) for beta in (BETA, 1 / BETA))
    return replace(averaged, influences=influences)


def _influence(curve: PRD, all_labels: list[Tensor], n: int, clusters: int, beta: float) -> Influence:
    """Return how much each example moves the largest F_b.

    At a slope s, F_b = (1 + b^2) alpha / (b^2 s + 1), and alpha = sum_i min(s p_i, q_i): an example of the reference
    adds to it where s p_i is the smaller, a sample where q_i is. Clusters and slope are taken as they are.
    """
    best = int(_f(curve.precision, curve.recall, beta).argmax())
    nothing = torch.zeros(n, dtype=torch.float64)
    if best in (0, len(curve.precision) - 1):  # F is 0 everywhere
        return Influence(samples=nothing, reference=nothing)
    slope = math.tan(best * math.pi / 2 / (len(curve.precision) - 1))
    factor = (1 + beta**2) / (beta**2 * slope + 1)
    of_reference, of_samples = torch.zeros(n, dtype=torch.float64), torch.zeros(n, dtype=torch.float64)
    for labels in all_labels:
        p, q = (part.bincount(minlength=clusters).double() / n for part in (labels[:n], labels[n:]))
        of_reference += (factor * slope * (slope * p < q).double())[labels[:n]] / len(all_labels)
        of_samples += (factor * (q <= slope * p).double())[labels[n:]] / len(all_labels)
    return Influence(samples=of_samples, reference=of_reference)


def prd_from_histograms(p: Tensor, q: Tensor, angles: int = 1001) -> PRD:
    """Return the PRD curve of two histograms over the same states (Sajjadi et al. 2018, section 3).

        alpha(s) = sum_i min(s p_i, q_i),   beta(s) = sum_i min(p_i, q_i / s) = alpha(s) / s

    are precision and recall at the slopes s = tan(angle), for angles equally spaced from 0 to pi/2, and

        F_b = (1 + b^2) alpha beta / (b^2 alpha + beta).

    At the two ends the limits are taken: at angle 0 precision is 0 and recall the mass of p where q is positive; at
    pi/2 recall is 0 and precision the mass of q where p is positive.

    Args:
        p: Reference, counts or probabilities, shape (states,); normalized here.
        q: Samples, counts or probabilities, shape (states,); normalized here.
        angles: Points on the curve, at least 3.

    Returns:
        Curve and F-scores.

    Raises:
        UsageError: for shapes that differ or are not (states,), or too few angles.
        DataError: for values that are negative or not finite, or a histogram without mass.

    Example:
        >>> score = prd_from_histograms(torch.tensor([0.5, 0.5, 0.0]), torch.tensor([0.0, 0.5, 0.5]), angles=5)
        >>> score.precision
        tensor([0.0000, 0.2071, 0.5000, 0.5000, 0.5000], dtype=torch.float64)
        >>> score.recall
        tensor([0.5000, 0.5000, 0.5000, 0.2071, 0.0000], dtype=torch.float64)
    """
    _check_angles(angles)
    if p.dim() != 1 or p.shape != q.shape or len(p) == 0:
        raise UsageError(f"histograms have shapes {tuple(p.shape)} and {tuple(q.shape)}; give both as (states,)")
    p, q = _normalize("p", p), _normalize("q", q)
    angle = torch.linspace(0, math.pi / 2, angles, dtype=torch.float64)[1:-1, None]
    # rounding can exceed the mass of 1 by a few units in the last place
    alpha = torch.minimum(angle.tan() * p, q).sum(dim=1).clamp(max=1)
    beta = torch.minimum(p, q / angle.tan()).sum(dim=1).clamp(max=1)
    ends = torch.zeros(1, dtype=torch.float64)
    precision = torch.cat([ends, alpha, q[p > 0].sum(dim=0, keepdim=True).clamp(max=1)])
    recall = torch.cat([p[q > 0].sum(dim=0, keepdim=True).clamp(max=1), beta, ends])
    return _summarize(precision, recall)


def _check_angles(angles: int) -> None:
    check_int("angles", angles, minimum=3)


def _normalize(name: str, histogram: Tensor) -> Tensor:
    values = histogram.detach().to("cpu", torch.float64)
    total = values.sum()
    if not bool(values.isfinite().all() & (values >= 0).all() & (total > 0) & total.isfinite()):
        raise DataError(f"histogram {name} has negative, infinite or NaN entries, or no mass; give counts")
    return values / total


def _summarize(precision: Tensor, recall: Tensor) -> PRD:
    return PRD(precision, recall, _largest_f(precision, recall, BETA), _largest_f(precision, recall, 1 / BETA))


def _largest_f(precision: Tensor, recall: Tensor, beta: float) -> float:
    return min(float(_f(precision, recall, beta).max()), 1.0)


def _f(precision: Tensor, recall: Tensor, beta: float) -> Tensor:
    below = beta**2 * precision + recall
    return (1 + beta**2) * precision * recall / below.where(below > 0, 1.0)


def _first_equal(points: NDArray[np.float32]) -> NDArray[np.intp]:
    """Return the index of the first point that equals each, shape (n,).

    Copies must share a cluster. Between two centers at the same distance, rounding decides, and it depends on a point's
    place in the matrix.
    """
    rows = np.ascontiguousarray(points).view(f"V{points.shape[1] * points.itemsize}")[:, 0]
    _, first, group = np.unique(rows, return_index=True, return_inverse=True)
    return first[group]


def _cluster(points: NDArray[np.float32], clusters: int, state: int) -> NDArray[np.int32]:
    """Return the cluster of every point, int32, shape (n,)."""
    from sklearn.cluster import MiniBatchKMeans  # slow to import

    means = MiniBatchKMeans(n_clusters=clusters, n_init=3, random_state=state, compute_labels=False)
    labels: NDArray[np.int32] = means.fit(points).predict(points)
    return labels
