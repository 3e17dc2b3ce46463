"""Standardizations in which flow matching learns: affine maps of codes, with their log-determinant."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self, final

from torch import Tensor

from expost.densities.gaussian import Gaussian
from expost.densities.linalg import whiten
from expost.densities.units import Units


@dataclass(frozen=True, eq=False)
class Standard(ABC):
    """x = A^-1 (z - m) for codes z (N, d), float64, flattened where they are maps: about mean 0 and variance 1.

    A new one is a dataclass of the tensors that a fit keeps.
    """

    mean: Tensor

    @classmethod
    @abstractmethod
    def of(cls, z: Tensor, shape: tuple[int, ...], regularization: float) -> Self:
        """Estimate it from codes (N, d) of a shape of product d."""

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
    def apply(self, z: Tensor) -> Tensor:
        """Return x, shape (N, d)."""

    @abstractmethod
    def undo(self, x: Tensor) -> Tensor:
        """Return z, shape (N, d)."""

    @property
    @abstractmethod
    def log_volume(self) -> Tensor:
        """The term log det A, by which log q(z) = log q(x) - log det A."""


@final
@dataclass(frozen=True, eq=False)
class Whitened(Standard):
    """A = L, with m and L L^T the mean and covariance of `Gaussian`: N(0, I) stands for one Gaussian.

    Attributes:
        mean: m, shape (d,).
        cholesky: L, shape (d, d).
    """

    cholesky: Tensor

    @classmethod
    def of(cls, z: Tensor, shape: tuple[int, ...], regularization: float) -> Self:
        """Estimate it."""
        return cls(**Gaussian(regularization=regularization).fit(z).tensors)

    @classmethod
    def layout(cls, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the tensors."""
        d = math.prod(shape)
        return {"mean": (d,), "cholesky": (d, d)}

    def apply(self, z: Tensor) -> Tensor:
        """Return L^-1 (z - m)."""
        return whiten(z, self.mean, self.cholesky)

    def undo(self, x: Tensor) -> Tensor:
        """Return m + L x."""
        return self.mean + x @ self.cholesky.T

    @property
    def log_volume(self) -> Tensor:
        """Sum of log L_ii."""
        return self.cholesky.diagonal().log().sum()


@final
@dataclass(frozen=True, eq=False)
class PerChannel(Standard):
    """A = diag(s), one s for all positions of a channel of a map, so that neighbours stay comparable.

    m is the mean at each position, s_c^2 the variance of channel c about it, averaged over positions, plus
    `regularization` in squared units (`Units.from_scale`); N(0, I) stands for independent normal positions.

    Attributes:
        mean: m, shape (d,).
        scale: s, shape (C,).
    """

    scale: Tensor

    @classmethod
    def of(cls, z: Tensor, shape: tuple[int, ...], regularization: float) -> Self:
        """Estimate it."""
        mean = z.mean(0)
        parts = z.reshape(len(z), shape[0], -1)
        deviation = (z - mean).reshape(parts.shape).square().mean((0, 2)).sqrt()
        constant = (parts.amax(0).float() == parts.amin(0).float()).all(1)
        unit = Units.from_scale(mean, deviation.masked_fill(constant, 0.0), constant).scale
        variance = deviation.masked_fill(constant, 0.0).square() + regularization * unit.square()
        return cls(mean, variance.sqrt())

    @classmethod
    def layout(cls, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the tensors."""
        return {"mean": (math.prod(shape),), "scale": (shape[0],)}

    def apply(self, z: Tensor) -> Tensor:
        """Return (z - m) / s."""
        return (z - self.mean) / self._expanded

    def undo(self, x: Tensor) -> Tensor:
        """Return m + s x."""
        return self.mean + x * self._expanded

    @property
    def log_volume(self) -> Tensor:
        """Sum of log s_c over channels and positions."""
        return self._expanded.log().sum()

    @property
    def _expanded(self) -> Tensor:
        """Scale of each dimension, shape (d,)."""
        return self.scale.repeat_interleave(len(self.mean) // len(self.scale))
