"""Errors of reconstructions, pixel by pixel: MSE, PSNR and SSIM."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from expost.errors import DataError, UsageError
from expost.metrics.direction import HIGHER, LOWER, Direction
from expost.types import to_unit

#: The window of Wang et al. 2004: a Gaussian of this standard deviation, cut to this many pixels a side.
WINDOW, SIGMA = 11, 1.5
#: Mean squared error of rounding to 8 bits: `psnr` clamps errors to it from below.
ROUNDING = (1 / 255) ** 2 / 12


def _pair(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    if x.shape != y.shape or x.dim() != 4 or len(x) == 0:
        raise UsageError(
            f"images have shapes {tuple(x.shape)} and {tuple(y.shape)}; give two equal shapes (N, C, H, W)"
        )
    pair = to_unit(x).double(), to_unit(y).double()
    if not all(bool(each.isfinite().all()) for each in pair):
        raise DataError("images hold NaN or infinity; check the model's output")
    return pair


def mse(x: Tensor, y: Tensor) -> Tensor:
    """Return the mean squared error of each image, over its pixels and channels, float64.

    Args:
        x: Images, floats in [0, 1] or uint8 0..255, shape (N, C, H, W).
        y: Images of the same shape.

    Example:
        >>> mse(torch.zeros(2, 1, 2, 2), torch.full((2, 1, 2, 2), 0.5))
        tensor([0.2500, 0.2500], dtype=torch.float64)
    """
    x, y = _pair(x, y)
    return (x - y).square().flatten(1).mean(1)


def psnr(x: Tensor, y: Tensor) -> Tensor:
    """Return the peak signal-to-noise ratio of each image in decibels, -10 log10(mse), for a data range of 1.

    Identical images have an infinite ratio, and one such pair would make the mean infinite. The error is clamped from
    below at that of rounding to 8 bits, (1/255)^2 / 12, which caps the ratio at 58.92 dB.

    Args:
        x: Images, floats in [0, 1] or uint8 0..255, shape (N, C, H, W).
        y: Images of the same shape.
    """
    return -10 * mse(x, y).clamp_min(ROUNDING).log10()


def ssim(x: Tensor, y: Tensor) -> Tensor:
    """Return the structural similarity of each image, in [-1, 1], float64 (Wang et al. 2004, eq. 13).

    (2 mx my + C1)(2 sxy + C2) / ((mx^2 + my^2 + C1)(sx^2 + sy^2 + C2)) with C1 = 0.01^2, C2 = 0.03^2 for a data range
    of 1; means, variances and covariance over an 11x11 Gaussian window of standard deviation 1.5, averaged over
    channels and over the pixels whose window lies inside the image.

    Args:
        x: Images, floats in [0, 1] or uint8 0..255, shape (N, C, H, W), at least 11 pixels a side.
        y: Images of the same shape.

    Raises:
        UsageError: for smaller images.
    """
    x, y = _pair(x, y)
    if min(x.shape[2:]) < WINDOW:
        raise UsageError(f"ssim needs images of at least {WINDOW} pixels a side, got {x.shape[2]}x{x.shape[3]}")
    offsets = torch.arange(WINDOW, dtype=x.dtype, device=x.device) - WINDOW // 2
    line = (-0.5 * (offsets / SIGMA).square()).exp()
    line = line / line.sum()

    def blur(image: Tensor) -> Tensor:
        flat = image.flatten(0, 1)[:, None]
        return functional.conv2d(functional.conv2d(flat, line.view(1, 1, -1, 1)), line.view(1, 1, 1, -1))

    mx, my = blur(x), blur(y)
    vx, vy, cov = blur(x * x) - mx * mx, blur(y * y) - my * my, blur(x * y) - mx * my
    c1, c2 = 0.01**2, 0.03**2
    similarity = (2 * mx * my + c1) * (2 * cov + c2) / ((mx * mx + my * my + c1) * (vx + vy + c2))
    return similarity.view(len(x), -1).mean(1)


@dataclass(frozen=True)
class PixelScore:
    """A score that compares images with their reconstructions.

    Attributes:
        compute: Maps two batches of images to a value per image.
        direction: Which values are better.
        side: Smallest side of the images, in pixels.
    """

    compute: Callable[[Tensor, Tensor], Tensor]
    direction: Direction
    side: int = 1


#: The scores of reconstructions, by name.
PIXEL_SCORES = {
    "mse": PixelScore(mse, LOWER),
    "psnr": PixelScore(psnr, HIGHER),
    "ssim": PixelScore(ssim, HIGHER, WINDOW),
}
