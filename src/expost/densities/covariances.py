"""The covariance structures of a mixture of Gaussians: how to whiten, color and re-estimate all components at once.

A scale stands for the covariance S_k: its Cholesky factor L_k where S_k is full, the standard deviations where it is
diagonal. Second moments are taken of the *whitened* residuals y = L_k^-1 (z - m_k) of the current parameters, and
mapped back:

    a_k = sum_n r_nk y_nk / N_k,   A_k = sum_n r_nk y_nk y_nk^T / N_k
    m_k' = m_k + L_k a_k,          S_k' = L_k (A_k - a_k a_k^T) L_k^T + regularization I

which is algebraically the usual M-step. Near convergence a_k is about 0 and A_k about I, so nothing cancels, whereas
E[z z^T] - m m^T loses its digits when a component is narrow and far from the origin (scikit-learn#30382, #3945). It
also lets one pass over the codes serve both the E-step and the M-step.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import final

import torch
from torch import Tensor

from expost.densities.linalg import stable_cholesky
from expost.errors import DataError
from expost.registry import Registry

# Smallest block of dimensions in `FullCovariance.whiten`: smaller matrix products are too thin to be fast.
_SMALLEST_BLOCK = 16


class Covariance(ABC):
    """A structure of K covariances in d dimensions."""

    @abstractmethod
    def scale_shape(self, k: int, d: int) -> tuple[int, ...]:
        """Return the shape of the scales."""

    @abstractmethod
    def scale_from(self, covariances: Tensor) -> Tensor:
        """Turn covariances, shape (K, d, d) or (K, d) as the structure has them, into scales.

        Raises:
            DataError: if one is not positive definite.
        """

    @abstractmethod
    def initial_scale(self, covariance: Tensor, k: int) -> Tensor:
        """Turn one covariance, shape (d, d), into k equal scales."""

    @abstractmethod
    def stretch(self, scale: Tensor, factors: Tensor) -> Tensor:
        """Turn the scales of codes into those of the codes times factors, shape (d,), positive."""

    @abstractmethod
    def whitener(self, scale: Tensor) -> Tensor:
        """Invert the scales once per pass, for `whiten`."""

    @abstractmethod
    def whiten(self, z: Tensor, means: Tensor, whitener: Tensor) -> Tensor:
        """Return y, shape (n, K, d), for codes of shape (n, d)."""

    @abstractmethod
    def log_det(self, scale: Tensor) -> Tensor:
        """Return log |L_k|, half the log-determinant of the covariance, shape (K,)."""

    @abstractmethod
    def second_moment(self, y: Tensor, r: Tensor) -> Tensor:
        """Return sum_n r_n y_n y_n^T (or its diagonal) of one component: y (n, d), r (n,)."""

    @abstractmethod
    def second_moments(self, y: Tensor, r: Tensor) -> Tensor:
        """Return the same for all components: y (n, K, d), r (n, K)."""

    @abstractmethod
    def update(self, scale: Tensor, first: Tensor, second: Tensor, regularization: float) -> tuple[Tensor, Tensor]:
        """Return the shift of the means L_k a_k, (K, d), and the new scales, from a_k, (K, d), and A_k."""

    @abstractmethod
    def neutral(self, second: Tensor) -> Tensor:
        """Return the second moment of white noise, of the shape of one component's; `second` has that of K."""

    @abstractmethod
    def color(self, noise: Tensor, scale: Tensor) -> Tensor:
        """Turn standard normal rows, (n, d), into N(0, S) with the scale of one component."""


@final
class FullCovariance(Covariance):
    """S_k any symmetric positive definite matrix; its scale is the lower Cholesky factor, shape (K, d, d)."""

    def scale_shape(self, k: int, d: int) -> tuple[int, ...]:
        """Return (K, d, d)."""
        return (k, d, d)

    def scale_from(self, covariances: Tensor) -> Tensor:
        """Factor the covariances."""
        return stable_cholesky(covariances, "a component")

    def initial_scale(self, covariance: Tensor, k: int) -> Tensor:
        """Factor once, repeat."""
        return stable_cholesky(covariance, "the codes").expand(k, -1, -1).clone()

    def stretch(self, scale: Tensor, factors: Tensor) -> Tensor:
        """Multiply the rows."""
        return factors[:, None] * scale

    def whitener(self, scale: Tensor) -> Tensor:
        """Return L_k^-1, shape (K, d, d): triangular, so inverting it is as accurate as solving with it."""
        identity = torch.eye(scale.shape[-1], dtype=scale.dtype, device=scale.device).expand_as(scale)
        return torch.linalg.solve_triangular(scale, identity, upper=False)

    def whiten(self, z: Tensor, means: Tensor, whitener: Tensor) -> Tensor:
        """Multiply by all L_k^-1 at once.

        These are lower triangular: the first q dimensions of y need only the first q of z, and so on. So a product per
        block of q, (n, i q) times (i q, K q), does little more than half the work of a single one.
        """
        k, d = means.shape
        # Subtracting L_k^-1 m_k from the product cancels if m_k is large against S_k; the caller's codes are centered
        # on the data's mean, which leaves at most the data's own spread over the component's.
        matrices = torch.cat([-whitener @ means[..., None], whitener], 2)
        augmented = torch.cat([z.new_ones(z.shape[0], 1), z], 1)
        q = max(_SMALLEST_BLOCK, -(-d // 4))
        parts = []
        for start in range(0, d, q):
            stop = min(start + q, d)
            block = matrices[:, start:stop, : stop + 1].reshape(-1, stop + 1)
            parts.append((augmented[:, : stop + 1] @ block.T).view(z.shape[0], k, stop - start))
        return torch.cat(parts, 2)

    def log_det(self, scale: Tensor) -> Tensor:
        """Sum the logarithms of the diagonals."""
        return scale.diagonal(dim1=-2, dim2=-1).log().sum(-1)

    def second_moment(self, y: Tensor, r: Tensor) -> Tensor:
        """Return (d, d)."""
        return (y * r[:, None]).T @ y

    def second_moments(self, y: Tensor, r: Tensor) -> Tensor:
        """Return (K, d, d), one batched product."""
        return torch.bmm((y * r[..., None]).permute(1, 2, 0), y.transpose(0, 1))

    def update(self, scale: Tensor, first: Tensor, second: Tensor, regularization: float) -> tuple[Tensor, Tensor]:
        """Map the moments back through L_k and factor the new covariances."""
        shift = (scale @ first[..., None]).squeeze(-1)
        covariances = scale @ (second - first[:, :, None] * first[:, None]) @ scale.mT
        covariances = 0.5 * (covariances + covariances.mT)
        covariances.diagonal(dim1=-2, dim2=-1).add_(regularization)
        return shift, stable_cholesky(covariances, "a component")

    def neutral(self, second: Tensor) -> Tensor:
        """Return the identity."""
        return torch.eye(second.shape[-1], dtype=second.dtype, device=second.device)

    def color(self, noise: Tensor, scale: Tensor) -> Tensor:
        """Multiply by L^T."""
        return noise @ scale.T


@final
class DiagonalCovariance(Covariance):
    """S_k diagonal; its scale is the vector of standard deviations, shape (K, d)."""

    def scale_shape(self, k: int, d: int) -> tuple[int, ...]:
        """Return (K, d)."""
        return (k, d)

    def scale_from(self, covariances: Tensor) -> Tensor:
        """Take the roots of the variances, shape (K, d)."""
        if not bool((covariances > 0).all()):
            raise DataError(
                "a component has no variance in some dimension; raise regularization or use fewer components"
            )
        return covariances.sqrt()

    def initial_scale(self, covariance: Tensor, k: int) -> Tensor:
        """Take the roots of the diagonal, repeat."""
        return self.scale_from(covariance.diagonal()).expand(k, -1).clone()

    def stretch(self, scale: Tensor, factors: Tensor) -> Tensor:
        """Multiply."""
        return factors * scale

    def whitener(self, scale: Tensor) -> Tensor:
        """Return the reciprocals."""
        return scale.reciprocal()

    def whiten(self, z: Tensor, means: Tensor, whitener: Tensor) -> Tensor:
        """Subtract and multiply."""
        return (z[:, None] - means).mul_(whitener)

    def log_det(self, scale: Tensor) -> Tensor:
        """Sum the logarithms."""
        return scale.log().sum(-1)

    def second_moment(self, y: Tensor, r: Tensor) -> Tensor:
        """Return (d,)."""
        return r @ y.square()

    def second_moments(self, y: Tensor, r: Tensor) -> Tensor:
        """Return (K, d), one batched product."""
        return torch.bmm(r.T[:, None], y.square().transpose(0, 1)).squeeze(1)

    def update(self, scale: Tensor, first: Tensor, second: Tensor, regularization: float) -> tuple[Tensor, Tensor]:
        """Map the moments back; rounding below zero is clamped before the ridge is added."""
        return scale * first, self.scale_from(scale.square() * (second - first.square()).clamp(min=0) + regularization)

    def neutral(self, second: Tensor) -> Tensor:
        """Return ones."""
        return torch.ones_like(second[0])

    def color(self, noise: Tensor, scale: Tensor) -> Tensor:
        """Multiply by the standard deviations."""
        return noise * scale


COVARIANCES: Registry[Covariance] = Registry("covariance", {"full": FullCovariance(), "diag": DiagonalCovariance()})
