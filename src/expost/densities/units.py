"""The unit of every dimension of the codes, in which densities are estimated: ridges and floors are relative to it.

Dimensions of codes differ in scale by any factor: a dimension that the encoder hardly uses beside one that it uses
fully. A ridge with one size for all would swamp the small ones. So the fits take place in t = (z - m) / s, with m the
mean and s the unit of each dimension, where a ridge is a pure number, and are mapped back:

    z ~ N(m + s a, diag(s) S diag(s))  where  t ~ N(a, S),     log q(z) = log q(t) - sum_j log s_j.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

#: Interquartile range of N(0, 1).
_QUARTILES = 1.3489795
#: Least unit, relative to the deviation. Its square times a ridge of 1e-6 is what rounding allows a covariance.
_LEAST = 1e-4


@dataclass(frozen=True)
class Units:
    """Where each dimension of some codes is, and how wide.

    Attributes:
        center: The mean m, shape (d,).
        scale: The unit s, shape (d,), positive.
        constant: Dimensions in which all codes agree in float32, the precision of samples; bool, shape (d,).
    """

    center: Tensor
    scale: Tensor
    constant: Tensor

    @classmethod
    def of_bulk(cls, z: Tensor) -> Self:
        """Take for unit the deviation of the bulk: a far code, which sets a standard deviation, does not move it.

        It is the interquartile range over that of N(0, 1), at least 1e-4 and at most 1 standard deviation; the standard
        deviation itself where half of the codes agree.

        Args:
            z: Codes, shape (N, d), float64, not all equal in float32.

        Example:
            >>> z = torch.tensor([[-2.0], [-1.0], [0.0], [1.0], [2.0], [1e3]], dtype=torch.float64)
            >>> round(float(Units.of_bulk(z).scale), 3), round(float(Units.of_deviation(z).scale), 1)
            (2.224, 372.7)
        """
        spread = cls.of_deviation(z)
        n = len(z)
        lower, upper = ((n - 1) // 4, n - 1 - (n - 1) // 4)
        quartiles = (z.kthvalue(upper + 1, 0).values - z.kthvalue(lower + 1, 0).values) / _QUARTILES
        bulk = torch.where(quartiles > 0, quartiles, spread.scale)
        bulk = torch.minimum(bulk.maximum(_LEAST * spread.scale), spread.scale)
        return cls.from_scale(spread.center, bulk, spread.constant)

    @classmethod
    def of_deviation(cls, z: Tensor) -> Self:
        """Take for unit the standard deviation (over N) of each dimension.

        Args:
            z: Codes, shape (N, d), float64, not all equal in float32.
        """
        constant = z.amax(0).float() == z.amin(0).float()
        return cls.from_scale(z.mean(0), z.std(0, correction=0), constant)

    @classmethod
    def from_scale(cls, center: Tensor, scale: Tensor, constant: Tensor) -> Self:
        """Give constant dimensions the root mean square of all units, theirs taken as 0: they have none of their own.

        Args:
            center: m, shape (d,).
            scale: s, shape (d,), positive but where constant.
            constant: Which dimensions are, bool, shape (d,); not all.
        """
        known = scale.masked_fill(constant, 0.0)
        largest = known.max()  # squares of the smallest units would underflow
        typical = largest * (known / largest).square().mean().sqrt()
        return cls(center, torch.where(constant, typical, scale), constant)

    @property
    def log_volume(self) -> float:
        """Return sum_j log s_j."""
        return self.scale.log().sum().item()

    def apply(self, z: Tensor) -> Tensor:
        """Return t = (z - m) / s, shape (N, d)."""
        return (z - self.center) / self.scale

    def undo(self, t: Tensor) -> Tensor:
        """Return z = m + s t, shape (..., d)."""
        return self.center + self.scale * t
