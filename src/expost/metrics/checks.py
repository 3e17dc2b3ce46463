"""Checks of the features that are compared: each error is one line that says what is wrong and what to do."""

from __future__ import annotations

import torch
from torch import Tensor

from expost.densities.linalg import precise_device
from expost.errors import DataError, UsageError

# Scores square features, and cube inner products of them; no extractor that works comes near.
LARGEST_FEATURE = 1e18
# Below it, cubes of inner products underflow, and different sets look equal.
SMALLEST_FEATURE = 1e-50


def check_features(name: str, features: object, minimum: int = 1, first: int = 0) -> Tensor:
    """Return features in float64, without gradients, on their device (on the CPU if that has no float64).

    Args:
        name: What they are called in the message.
        features: Shape (n, d), any floating-point type, one row an example.
        minimum: At least this many rows are needed.
        first: What the first row is called in the message.

    Raises:
        UsageError: if they are no tensor, not (n, d) with d at least 1, or not floating point.
        DataError: for too few rows, NaN, infinity, or absurdly large or small values.

    Example:
        >>> check_features("samples", torch.tensor([[0.0, 1.0], [float("nan"), 2.0]]))
        Traceback (most recent call last):
        ...
        expost.errors.DataError: samples: NaN or infinity, first in row 1; check that example
    """
    if not isinstance(features, Tensor):
        kind = type(features).__name__
        raise UsageError(f"{name}: need a torch tensor, got {kind}; convert it with torch.as_tensor")
    if features.dim() != 2 or features.shape[1] == 0:
        raise UsageError(f"{name}: shape is {tuple(features.shape)}; give (n, d), one row an example, d at least 1")
    if not features.is_floating_point():
        kind = str(features.dtype).removeprefix("torch.")
        raise UsageError(f"{name}: type is {kind}; convert it to floating point with .float()")
    if len(features) < minimum:
        raise DataError(f"{name}: got {len(features)} examples, but at least {minimum} are needed; give more")
    precise = features.detach().to(precise_device(features.device), torch.float64)
    finite = precise.isfinite().all(dim=1)
    if not bool(finite.all()):
        row = first + int((~finite).nonzero()[0])
        raise DataError(f"{name}: NaN or infinity, first in row {row}; check that example")
    largest = float(precise.abs().max()) if len(precise) else 0.0
    if largest > LARGEST_FEATURE:
        raise DataError(
            f"{name}: values reach {largest:.3g}, above {LARGEST_FEATURE:g}; check the extractor or rescale them"
        )
    if 0.0 < largest < SMALLEST_FEATURE:
        raise DataError(
            f"{name}: values reach only {largest:.3g}, below {SMALLEST_FEATURE:g}; check the extractor or rescale them"
        )
    return precise


def check_same_dim(**features: Tensor) -> None:
    """Refuse sets of features, given by name, that differ in the number of features.

    Raises:
        UsageError: if they do.

    Example:
        >>> check_same_dim(reference=torch.zeros(5, 3), samples=torch.zeros(5, 2))
        Traceback (most recent call last):
        ...
        expost.errors.UsageError: reference has 3 features, samples 2; compute both with the same extractor
    """
    (first, one), *rest = features.items()
    for name, other in rest:
        if other.shape[1] != one.shape[1]:
            raise UsageError(
                f"{first} has {one.shape[1]} features, {name} {other.shape[1]}; compute both with the same extractor"
            )
