"""Densities that encode codes once more: a second stage."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from expost.densities.base import Density


class StagedDensity(Density):
    """A density whose codes have codes u of their own.

    In the paper's table a model that samples from such a density also reconstructs and interpolates through it:
    z -> u -> z, with mid-points between the u.
    """

    @property
    @abstractmethod
    def encodes(self) -> bool:
        """Whether the fit can encode."""

    @abstractmethod
    def encode(self, z: Tensor) -> Tensor:
        """Return the noiseless u of codes z (N, ...), float32, shape (N, d)."""

    @abstractmethod
    def decode(self, u: Tensor) -> Tensor:
        """Return the codes of u, noiseless, float32, of the shape that the density was fitted on."""
