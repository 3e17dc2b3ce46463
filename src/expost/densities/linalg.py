"""Covariances and their Cholesky factors, in float64."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from expost.distributed import shard, total
from expost.errors import DataError

LOG_2PI = math.log(2 * math.pi)

# Relative to each variance. 1e-13 is about d * eps for the code sizes in use; 1e-7 still changes no sample visibly.
_RELATIVE_JITTERS = (0.0, 1e-13, 1e-11, 1e-9, 1e-7)


def precise_device(device: torch.device) -> torch.device:
    """Return `device` if it computes in float64, else the CPU (Apple's MPS has no float64)."""
    return torch.device("cpu") if device.type == "mps" else device


def stable_cholesky(covariance: Tensor, what: str) -> Tensor:
    """Factor S = L L^T, S symmetric and, but for rounding, positive definite.

    Rounding can leave S indefinite although a ridge was added. Then the diagonal is multiplied by 1 plus the smallest
    of 1e-13, 1e-11, 1e-9, 1e-7 that makes it factor, of the failing matrices only: dimensions of any scale keep theirs.

    Args:
        covariance: S, shape (..., d, d), float64.
        what: What it is the covariance of, for the error message.

    Returns:
        L, lower triangular, shape (..., d, d).

    Raises:
        DataError: if S is not finite or none of these suffices.

    Example:
        >>> stable_cholesky(torch.tensor([[4.0, 2.0], [2.0, 2.0]], dtype=torch.float64), "codes")
        tensor([[2., 0.],
                [1., 1.]], dtype=torch.float64)
    """
    variances = covariance.diagonal(dim1=-2, dim2=-1)
    factor = torch.zeros_like(covariance)
    missing = torch.ones(covariance.shape[:-2], dtype=torch.bool, device=covariance.device)
    for jitter in _RELATIVE_JITTERS:
        attempt, info = torch.linalg.cholesky_ex(covariance + torch.diag_embed(jitter * variances))
        good = missing & (info == 0) & attempt.isfinite().all(-1).all(-1)
        factor = torch.where(good[..., None, None], attempt, factor)
        missing = missing & ~good
        if not bool(missing.any()):
            return factor
    raise DataError(f"the covariance of {what} is not positive definite; raise regularization or standardize the codes")


def ml_covariance(z: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Estimate mean and maximum-likelihood covariance S = 1/N sum (z - m)(z - m)^T + eps I.

    Args:
        z: Codes, shape (N, d), float64.
        eps: Ridge, in squared units of the codes.

    Returns:
        m, shape (d,), and S, shape (d, d).
    """
    mean = z.mean(0)
    centered = shard(z) - mean
    covariance = total(centered.T @ centered)[0] / z.shape[0]
    covariance.diagonal().add_(eps)
    return mean, covariance


def whiten(z: Tensor, mean: Tensor, factor: Tensor) -> Tensor:
    """Solve L y = z - m for every row: y ~ N(0, I) where z ~ N(m, L L^T). Shapes (N, d), (d,), (d, d) to (N, d)."""
    return torch.linalg.solve_triangular(factor, (z - mean).T, upper=False).T


def log_normal(z: Tensor, mean: Tensor, factor: Tensor) -> Tensor:
    """Evaluate log N(z; m, L L^T) for every row, shape (N,).

    Example:
        >>> log_normal(torch.zeros(1, 2), torch.zeros(2), torch.eye(2))
        tensor([-1.8379])
    """
    squared = whiten(z, mean, factor).square().sum(1)
    return -0.5 * (squared + mean.shape[0] * LOG_2PI) - factor.diagonal().log().sum()
