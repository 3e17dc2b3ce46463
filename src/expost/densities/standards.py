"""Standardizations in which flows learn: linear maps of centered codes, with their log-determinant."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self, final

import torch
from torch import Tensor

from expost.densities.linalg import stable_cholesky
from expost.densities.units import Units


@dataclass(frozen=True, eq=False)
class Standard(ABC):
    """x = A^-1 (z - m) for codes z (N, d), float64, flattened where they are maps: of variance 1 if m is their mean.

    With classes, m is the mean of a code's class. A new one is a dataclass of the tensors that a fit keeps, A's.
    """

    @classmethod
    @abstractmethod
    def of(cls, z: Tensor, centered: Tensor, spare: int, shape: tuple[int, ...], regularization: float) -> Self:
        """Estimate it.

        Args:
            z: Codes (N, d).
            centered: z - m.
            spare: What sums of squares are divided by: N, or with the means of C classes N - C.
            shape: Shape of a code, of product d.
            regularization: Ridge eps on variances, in squared units of the codes (`Units`).
        """

    @classmethod
    @abstractmethod
    def layout(cls, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
        """Return the shapes of its tensors by name, for codes of a shape."""

    @classmethod
    @final
    def among(cls, tensors: Mapping[str, Tensor], shape: tuple[int, ...]) -> Self:
        """Take it from a fit's tensors."""
        return cls(**{name: tensors[name] for name in cls.layout(shape)})

    @final
    @property
    def tensors(self) -> dict[str, Tensor]:
        """What `among` reads."""
        return dict(vars(self))

    @abstractmethod
    def whiten(self, centered: Tensor) -> Tensor:
        """Return A^-1 (z - m), shape (N, d)."""

    @abstractmethod
    def color(self, x: Tensor) -> Tensor:
        """Return A x, shape (N, d)."""

    @property
    @abstractmethod
    def log_volume(self) -> Tensor:
        """The term log det A, by which log q(z) = log q(x) - log det A."""


@final
@dataclass(frozen=True, eq=False)
class Whitened(Standard):
    """A = L with L L^T the covariance, sum of (z - m)(z - m)^T / spare + eps diag(s)^2: N(0, I) is one Gaussian.

    Attributes:
        cholesky: L, lower triangular, shape (d, d).
    """

    cholesky: Tensor

    @classmethod
    def of(cls, z: Tensor, centered: Tensor, spare: int, shape: tuple[int, ...], regularization: float) -> Self:
        """Estimate it."""
        units = Units.of_bulk(z)
        scaled = centered / units.scale
        covariance = scaled.T @ scaled / spare
        covariance.diagonal().add_(regularization)
        return cls(units.scale[:, None] * stable_cholesky(covariance, "the codes"))

    @classmethod
    def layout(cls, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
        """Return the shape of L."""
        return {"cholesky": (math.prod(shape),) * 2}

    def whiten(self, centered: Tensor) -> Tensor:
        """Return L^-1 (z - m)."""
        return torch.linalg.solve_triangular(self.cholesky, centered.T, upper=False).T

    def color(self, x: Tensor) -> Tensor:
        """Return L x."""
        return x @ self.cholesky.T

    @property
    def log_volume(self) -> Tensor:
        """Sum of log L_ii."""
        return self.cholesky.diagonal().log().sum()


@final
@dataclass(frozen=True, eq=False)
class PerChannel(Standard):
    """A = diag(s), one s for all positions of a channel of a map, so that neighbours stay comparable.

    s_c^2 is the variance of channel c, averaged over its positions, plus `regularization` in squared units
    (`Units.from_scale`); N(0, I) is then a normal density of independent positions.

    Attributes:
        scale: s by position, shape (d,).
    """

    scale: Tensor

    @classmethod
    def of(cls, z: Tensor, centered: Tensor, spare: int, shape: tuple[int, ...], regularization: float) -> Self:
        """Estimate it."""
        channels, positions = shape[0], math.prod(shape[1:])
        constant = (z.amax(0).float() == z.amin(0).float()).reshape(channels, positions).all(1)
        sums = centered.square().sum(0).reshape(channels, positions).mean(1)
        deviation = (sums / spare).sqrt().masked_fill(constant, 0.0)
        unit = Units.from_scale(deviation, deviation, constant).scale
        return cls((deviation.square() + regularization * unit.square()).sqrt().repeat_interleave(positions))

    @classmethod
    def layout(cls, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
        """Return the shape of s."""
        return {"scale": (math.prod(shape),)}

    def whiten(self, centered: Tensor) -> Tensor:
        """Return (z - m) / s."""
        return centered / self.scale

    def color(self, x: Tensor) -> Tensor:
        """Return s x."""
        return x * self.scale

    @property
    def log_volume(self) -> Tensor:
        """Sum of log s over channels and positions."""
        return self.scale.log().sum()
