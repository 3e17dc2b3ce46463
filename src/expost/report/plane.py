"""The plane in which codes are drawn, and the marginal of a density in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import singledispatch
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor

from expost.densities import Density, Gaussian, MixtureDensity, StandardNormal
from expost.errors import DataError
from expost.utils.seeding import SAMPLES, generator

Array = NDArray[np.float64]
#: Turns codes into points, one row each.
Rows = Callable[[Tensor], Tensor]
#: Samples of a density that cannot be projected exactly; of symbols, which are drawn one by one.
DRAWN, DRAWN_SYMBOLS = 20_000, 1_000


def flat(z: Tensor) -> Tensor:
    """Return codes as rows, shape (N, d)."""
    return z.flatten(1)


@dataclass(frozen=True, eq=False)
class Plane:
    """The two principal axes of codes.

    Attributes:
        mean: Of the codes, shape (d,).
        axes: Orthonormal columns, shape (d, 2).
        explained: Part of the codes' variance along each.
    """

    mean: Array
    axes: Array
    explained: tuple[float, float]

    @classmethod
    def of(cls, codes: Tensor) -> Plane:
        """Return the plane of largest variance.

        Args:
            codes: Shape (N, d), d at least 2.

        Raises:
            DataError: for codes of one dimension, fewer than two codes, or codes that are all equal or not finite.
        """
        z = codes.detach().cpu().double().numpy()
        if z.shape[1] < 2:
            raise DataError("codes of one dimension span no plane; train with a larger --latent-dim to see a map")
        if not np.isfinite(z).all():
            raise DataError("the codes are not all finite numbers; train anew with a lower --lr")
        if len(z) < 2 or not (z.std(0) > 0).any():
            raise DataError("all codes are equal, so there is no map of them to draw")
        from sklearn.decomposition import PCA  # slow to import

        pca = PCA(2, random_state=0).fit(z)
        first, second = (float(share) for share in pca.explained_variance_ratio_)
        return cls(pca.mean_, pca.components_.T, (first, second))

    def project(self, codes: Tensor) -> Array:
        """Return coordinates in the plane, shape (N, 2)."""
        return (codes.detach().cpu().double().numpy() - self.mean) @ self.axes


@dataclass(frozen=True, eq=False)
class PlaneMixture:
    """A mixture of Gaussians in the plane.

    Attributes:
        weights: Shape (K,).
        means: Shape (K, 2).
        covariances: Shape (K, 2, 2).
    """

    weights: Array
    means: Array
    covariances: Array

    def pdf(self, points: Array) -> Array:
        """Return the density at points (P, 2), shape (P,)."""
        total = np.zeros(len(points))
        for weight, mean, covariance in zip(self.weights, self.means, self.covariances, strict=True):
            # a component that is flat in the plane is drawn as narrow as rounding allows
            covariance = covariance + 1e-12 * np.trace(covariance) * np.eye(2)
            offset = points - mean
            mahalanobis = np.einsum("pi,ij,pj->p", offset, np.linalg.inv(covariance), offset)
            total += weight * np.exp(-0.5 * mahalanobis) / (2 * np.pi * np.sqrt(np.linalg.det(covariance)))
        return total


@singledispatch
def shadow(density: Density, plane: Plane) -> PlaneMixture | None:
    """Return the exact marginal of a density in the plane; None if only samples can estimate it.

    With W the axes and m the origin, z ~ N(mu, S) gives W^T (z - m) ~ N(W^T (mu - m), W^T S W), and a mixture the
    mixture of these. A new density of Gaussians is a new `shadow.register`; any other is drawn from samples.

    Args:
        density: Fitted.
        plane: From its codes.
    """
    return None


@shadow.register
def _(density: StandardNormal, plane: Plane) -> PlaneMixture | None:
    d = len(plane.mean)
    return _projected(plane, np.ones(1), np.zeros((1, d)), plane.axes[None])


@shadow.register
def _(density: Gaussian, plane: Plane) -> PlaneMixture | None:
    mean, factor = (_array(density.tensors[name]) for name in ("mean", "cholesky"))
    return _projected(plane, np.ones(1), mean[None], (factor.T @ plane.axes)[None])


@shadow.register
def _(density: MixtureDensity, plane: Plane) -> PlaneMixture | None:
    weights, means, scale = (_array(density.tensors[name]) for name in ("weights", "means", "scale"))
    # S = L L^T for a full covariance, S = diag(s)^2 for a diagonal one
    roots = np.swapaxes(scale, 1, 2) @ plane.axes if scale.ndim == 3 else scale[:, :, None] * plane.axes
    return _projected(plane, weights, means, roots)


def _projected(plane: Plane, weights: Array, means: Array, roots: Array) -> PlaneMixture:
    """Return the mixture of projected components; `roots` (K, d, 2) are R with W^T S W = R^T R."""
    return PlaneMixture(weights, (means - plane.mean) @ plane.axes, np.swapaxes(roots, 1, 2) @ roots)


def _array(tensor: Tensor) -> Array:
    return tensor.detach().cpu().double().numpy()


@dataclass(frozen=True, eq=False)
class Surface:
    """A density on a grid of the plane.

    Attributes:
        x: Abscissae, shape (A,).
        y: Ordinates, shape (B,).
        values: Shape (B, A), in units of mass per area.
        exact: Whether it is a projection rather than an estimate from samples.
    """

    x: Array
    y: Array
    values: Array
    exact: bool

    def level(self, mass: float) -> float:
        """Return the density on the border of the smallest region with the given mass; 0 if the grid holds less."""
        falling = np.sort(self.values, axis=None)[::-1]
        held = np.cumsum(falling) * (self.x[1] - self.x[0]) * (self.y[1] - self.y[0])
        held /= max(1.0, held[-1])  # on a grid that is coarse for a component the sum may exceed 1
        found = int(np.searchsorted(held, mass))
        return float(falling[found]) if found < len(held) else 0.0


def surface(
    density: Density, plane: Plane, x: tuple[float, float], y: tuple[float, float], seed: int, rows: Rows = flat
) -> Surface:
    """Evaluate a density's marginal on a grid of the plane.

    Args:
        density: Fitted.
        plane: From its codes.
        x: Ends of the grid.
        y: Likewise.
        seed: Seeds the samples of a density that cannot be projected.
        rows: Turns its samples into points of the plane's space.

    Raises:
        DataError: for a density of codes of another dimension.
    """
    if not density.of_symbols and density.dim != len(plane.mean):
        raise DataError(f"density {density.name} is of {density.dim} dimensions, the codes have {len(plane.mean)}")
    across, up = np.linspace(*x, 161), np.linspace(*y, 161)
    mixture = shadow(density, plane)
    if mixture is not None:
        points = np.stack(np.meshgrid(across, up), -1).reshape(-1, 2)
        return Surface(across, up, mixture.pdf(points).reshape(len(up), len(across)), True)
    points = plane.project(rows(_drawn(density, seed)))
    return Surface(across, up, _estimated(points, across, up), False)


def _drawn(density: Density, seed: int) -> Tensor:
    with torch.inference_mode():
        return density.sample(DRAWN_SYMBOLS if density.of_symbols else DRAWN, generator=generator(seed, SAMPLES, 4))


def _estimated(points: Array, x: Array, y: Array) -> Array:
    """Return a kernel estimate on the grid: a histogram, smoothed by Scott's bandwidth."""
    edges = [np.append(line - (line[1] - line[0]) / 2, line[-1] + (line[1] - line[0]) / 2) for line in (y, x)]
    counts, _, _ = np.histogram2d(points[:, 1], points[:, 0], bins=edges)
    bandwidth = points.std(0) * len(points) ** (-1 / 6)
    widths: Any = (bandwidth[1] / (y[1] - y[0]), bandwidth[0] / (x[1] - x[0]))
    density = counts / (len(points) * (x[1] - x[0]) * (y[1] - y[0]))
    return np.asarray(gaussian_filter(density, widths, mode="constant"), dtype=np.float64)


def reach(density: Density, plane: Plane, seed: int, rows: Rows = flat) -> tuple[Array, Array]:
    """Return the corners of a box with nearly all of a density's marginal: 2.3 standard deviations around its mean."""
    count = DRAWN_SYMBOLS if density.of_symbols else 2_000
    points = plane.project(rows(density.sample(count, generator=generator(seed, SAMPLES, 5))))
    return points.mean(0) - 2.3 * points.std(0), points.mean(0) + 2.3 * points.std(0)
