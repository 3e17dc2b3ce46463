"""The Vendi score: the effective number of different examples in a set."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from expost.densities.checks import check_float
from expost.metrics.checks import check_features
from expost.metrics.influence import Influence
from expost.metrics.unit import unit_vectors

#: Eigenvalues below it are rounding: they add up to 1.
_NOUGHT = 1e-14


@dataclass(frozen=True)
class VendiScore:
    """A Vendi score and how much each example moves it.

    Attributes:
        value: The effective number of different examples, from 1 to their number.
        order: The order q of the entropy.
        influence: How much each example moves the value.
    """

    value: float
    order: float
    influence: Influence = field(repr=False, compare=False)


def vendi_scores(features: Tensor, orders: tuple[float, ...] = (1.0,)) -> list[VendiScore]:
    """Return the effective number of different examples, for each order q (Friedman & Dieng 2023, definition 3.1).

    With K the cosine similarities of n examples and l_k the eigenvalues of K / n, which add up to 1,

        VS_1 = exp(-sum_k l_k log l_k),   VS_q = (sum_k l_k^q)^(1 / (1 - q)),   VS_inf = 1 / max_k l_k

    (orders other than 1: Pasarkar & Dieng 2023, "Cousins of the Vendi score"). k groups of equal examples, as many of
    each, at right angles to each other, have k in any order. A small order counts rare kinds, a large one common ones.

    The score looks at one set alone. Noise has a high one too: it says how varied samples are, not how good, and a
    value is read beside that of real examples. It is no larger than the number of examples, nor of features.

    An example whose features are all 0 has no direction; such examples count as one kind of their own.

    Args:
        features: Shape (n, d).
        orders: Each above 0; `math.inf` for the largest eigenvalue alone.

    Raises:
        UsageError: for an order out of range, or features that are no (n, d) tensor.
        DataError: for no examples, NaN or infinity, or values whose squares cannot be held.

    Example:
        >>> kinds = torch.eye(3).repeat(5, 1)  # three kinds, five of each
        >>> [round(each.value, 6) for each in vendi_scores(kinds, (0.5, 1.0, math.inf))]
        [3.0, 3.0, 3.0]
    """
    for order in orders:
        if order != math.inf:
            check_float("order", order, minimum=0, above=True)
    u = unit_vectors(check_features("samples", features, 1))
    n = len(u)
    # K / n and the second moment of the unit vectors have the same eigenvalues; take the smaller matrix
    if n < u.shape[1]:
        values, vectors = torch.linalg.eigh(u @ u.T / n)
        values = values.clamp_min(0.0)
        shares = vectors.square() * (n * values)
    else:
        values, vectors = torch.linalg.eigh(u.T @ u / n)
        shares = (u @ vectors).square()
    kept = values > _NOUGHT
    values, shares = values[kept], shares[:, kept]
    return [_of_order(values, shares, float(order)) for order in orders]


def _of_order(values: Tensor, shares: Tensor, order: float) -> VendiScore:
    """Return the score of an order, with the influence sum_k (dVS / dl_k) (u.w_k)^2, w_k the k-th eigenvector.

    Args:
        values: Eigenvalues, shape (k,), above 0.
        shares: The square of each example's component along each eigenvector, shape (n, k).
        order: The order.
    """
    if order == 1.0:
        score = float(torch.exp(-(values * values.log()).sum()))
        slopes = -score * (values.log() + 1)
    elif order == math.inf:
        score = 1 / float(values.max())
        slopes = -(score**2) * (values == values.max())
    else:
        total = float(values.pow(order).sum())
        score = total ** (1 / (1 - order))
        slopes = order / (1 - order) * (score / total) * values.pow(order - 1)
    return VendiScore(score, order, Influence(shares @ slopes.to(shares)))
