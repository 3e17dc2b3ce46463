"""Features scaled to unit length, for scores that look at their directions."""

from __future__ import annotations

import torch
from torch import Tensor


def unit_vectors(features: Tensor) -> Tensor:
    """Scale each row to length 1; rows of zeros become one direction of their own, at right angles to all others.

    Args:
        features: float64, finite, shape (n, d).

    Returns:
        Shape (n, d), or (n, d + 1) where there are rows of zeros.

    Example:
        >>> unit_vectors(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
        tensor([[0.6000, 0.8000, 0.0000],
                [0.0000, 0.0000, 1.0000]])
    """
    largest = features.abs().amax(dim=1, keepdim=True)
    zero = largest == 0
    scaled = features / largest.where(~zero, torch.ones_like(largest))  # squares of tiny values would underflow
    unit = scaled / scaled.norm(dim=1, keepdim=True).where(~zero, torch.ones_like(largest))
    return torch.cat([unit, zero.to(unit)], dim=1) if bool(zero.any()) else unit
