"""The uncertainty of any score: how much each example moves it, its standard error, and differences that are paired.

A score S of a reference set X and samples Y moves, to first order, by the mean of its influences as examples weigh more
or less (the infinitesimal jackknife, Efron 1982, chapter 6):

    S(X', Y') - S(X, Y) = mean_i' f(x_i') + mean_j' g(y_j'),   so   Var S = Var f / N + Var g / M.

Two scores that share a reference, or reconstruct the same examples, err together. Each is therefore perturbed by the
same random weights (`deviations`), and the spread of the differences is the error of the difference.
"""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from expost.errors import UsageError

#: Random weights of the examples that all scores share; the error of a paired difference is known to 1 part in 20.
RESAMPLES = 200
_ROWS = 8_192


@dataclass(frozen=True, eq=False)
class Influence:
    """How much each example moves a score.

    Attributes:
        samples: Influence g of each sample, shape (M,), in units of the score; a constant does not matter.
        reference: Influence f of each reference example, shape (N,); None where the reference is not drawn at random.
    """

    samples: Tensor
    reference: Tensor | None = None

    @property
    def standard_error(self) -> float:
        """The standard deviation of the score over new draws of both sets, sqrt(Var f / N + Var g / M)."""
        return math.sqrt(sum(float(side.var(correction=1)) / len(side) for side in self._sides() if len(side) > 1))

    def matched(self) -> Influence:
        """Return the influence of pairs of a sample and a reference example that are drawn together.

        So are reconstructions and what they are of: an example brings its reconstruction, and moves the score by f + g.

        Raises:
            UsageError: if the two sets are not of one size.
        """
        if self.reference is None or len(self.reference) != len(self.samples):
            raise UsageError("matched sets have one size; give the influence of both on as many examples")
        return Influence(self.samples.cpu() + self.reference.cpu())

    def deviations(self) -> NDArray[np.float64]:
        """Return how the score moves under each of the shared weights, shape (RESAMPLES,).

        The weights are standard normal, one for each example's place: scores of as many examples get the same. Their
        mean square is the squared standard error.
        """
        total = torch.zeros(RESAMPLES, dtype=torch.float64)
        for number, side in enumerate(self._sides()):
            source = torch.Generator().manual_seed(2 * len(side) + number)
            for rows in (side - side.mean()).split(_ROWS):  # type: ignore[no-untyped-call]
                total += torch.randn(RESAMPLES, len(rows), generator=source, dtype=torch.float64) @ rows / len(side)
        spread = float(total.square().mean().sqrt())
        scaled = total * (self.standard_error / spread) if spread > 0 else total
        found: NDArray[np.float64] = scaled.numpy()
        return found

    def _sides(self) -> list[Tensor]:
        return [side.detach().cpu().double() for side in (self.samples, self.reference) if side is not None]


def of_pairs(means: NDArray[np.float64]) -> Influence:
    """Return the influence of each example on 1 minus the mean over all pairs, from its own means over the others."""
    return Influence(torch.from_numpy(-2 * means))


def error_of_minimum(values: NDArray[np.float64]) -> float:
    """Return the bootstrap's standard error of the least of n values, from P(min* >= v_(k)) = ((n - k + 1) / n)^n.

    Example:
        >>> error_of_minimum(np.array([3.0, 3.0, 3.0])), round(error_of_minimum(np.array([0.0, 1.0])), 3)
        (0.0, 0.433)
    """
    n = len(values)
    below = ((n - np.arange(n + 1)) / n) ** n
    weights, ordered = below[:-1] - below[1:], np.sort(values)
    mean = float(weights @ ordered)
    return math.sqrt(float(weights @ np.square(ordered - mean)))


def packed(deviations: NDArray[np.float64], error: float) -> str:
    """Return deviations as text, in standard errors: half floats in base64, 534 letters.

    A part of the error that the deviations do not explain is left to be independent; they never explain more.

    Example:
        >>> unpacked(packed(np.array([1.0, -2.0]), error=2.0), error=2.0)
        array([ 1., -2.])
    """
    if not (error > 0 and math.isfinite(error)):
        return ""
    explained = float(np.sqrt(np.square(deviations).mean()))
    scale = max(error, explained)
    return base64.b64encode((deviations / scale).astype("<f2").tobytes()).decode()


def unpacked(text: str, error: float) -> NDArray[np.float64]:
    """Return the deviations that `packed` has written, in units of the score.

    Raises:
        ValueError: if the text was not written by it.
    """
    return np.frombuffer(base64.b64decode(text, validate=True), "<f2").astype(np.float64) * error


def difference_error(
    error_a: float, error_b: float, a: NDArray[np.float64] | None, b: NDArray[np.float64] | None
) -> float:
    """Return the standard error of the difference of two scores, paired as far as deviations explain their errors.

        Var(A - B) = mean (a - b)^2 + (error_a^2 - mean a^2) + (error_b^2 - mean b^2)

    Args:
        error_a: Standard error of one score.
        error_b: That of the other.
        a: The first score's deviations under weights that both share; None if there are none.
        b: The second one's.

    Example:
        >>> together = np.array([1.0, -1.0])
        >>> difference_error(1.0, 1.0, together, together), difference_error(3.0, 4.0, None, together)
        (0.0, 5.0)
    """
    if a is None or b is None or a.shape != b.shape:
        return math.hypot(error_a, error_b)
    alone = max(error_a**2 - float(np.square(a).mean()), 0.0) + max(error_b**2 - float(np.square(b).mean()), 0.0)
    return math.sqrt(float(np.square(a - b).mean()) + alone)
