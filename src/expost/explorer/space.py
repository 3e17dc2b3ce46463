"""Coordinates in the latent space: along the principal axes of the codes, and the rest orthogonal to them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from torch import Tensor

from expost.errors import DataError
from expost.report.plane import Plane

Array = NDArray[np.float64]
#: Principal axes that have a slider.
AXES = 8


@dataclass(frozen=True, eq=False)
class Space:
    """An orthonormal frame around the mean of codes: z = mean + axes c + rest, with axes^T rest = 0.

    Attributes:
        mean: Of the codes, shape (d,).
        axes: The first k principal axes, orthonormal columns, shape (d, k).
        deviations: Standard deviations of the codes along them, descending, shape (k,).
        explained: Parts of the codes' variance along them, shape (k,).
    """

    mean: Array
    axes: Array
    deviations: Array
    explained: Array

    @classmethod
    def of(cls, codes: Tensor, axes: int = AXES) -> Space:
        """Return the frame of codes.

        Args:
            codes: Shape (N, d).
            axes: At most this many axes; fewer where codes have fewer dimensions or do not vary in them.

        Raises:
            DataError: if codes are not finite, fewer than two, or all the same.

        Example:
            >>> codes = torch.tensor([[0.0, 1.0], [4.0, 1.0], [0.0, 3.0], [4.0, 3.0]])
            >>> space = Space.of(codes)
            >>> space.mean, space.deviations
            (array([2., 2.]), array([2., 1.]))
        """
        z = codes.detach().cpu().double().numpy()
        if not np.isfinite(z).all():
            raise DataError("the codes are not all finite numbers; train anew with a lower --lr")
        if len(z) < 2 or not (z.std(0) > 0).any():
            raise DataError("all codes are equal; there is no latent space to explore")
        pca = PCA(min(axes, *z.shape), random_state=0).fit(z)
        deviations = np.sqrt(pca.explained_variance_ * (len(z) - 1) / len(z))
        kept = deviations > 1e-6 * deviations[0]
        return cls(
            pca.mean_,
            np.ascontiguousarray(pca.components_[kept].T),
            deviations[kept],
            pca.explained_variance_ratio_[kept],
        )

    @property
    def plane(self) -> Plane | None:
        """The plane of the first two axes; None where there is one only."""
        if self.axes.shape[1] < 2:
            return None
        return Plane(self.mean, self.axes[:, :2], (float(self.explained[0]), float(self.explained[1])))

    def split(self, z: Tensor) -> tuple[Array, Array]:
        """Return a code's coordinates, shape (k,), and its rest, shape (d,)."""
        offset = z.detach().cpu().double().numpy().reshape(-1) - self.mean
        coordinates = offset @ self.axes
        return coordinates, offset - self.axes @ coordinates

    def join(self, coordinates: Array, rest: Array | None = None) -> Tensor:
        """Return the code at coordinates, float32, shape (1, d).

        Args:
            coordinates: Shape (k,).
            rest: What lies off the axes, shape (d,); default: nothing.
        """
        z = self.mean + self.axes @ coordinates + (0.0 if rest is None else rest)
        return torch.from_numpy(z).float()[None]
