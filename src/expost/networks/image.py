"""The paper's convolutional pairs, for any channel count and image sides 28 to 128.

The official MNIST / CIFAR-10 networks are `kernel=4` on 32x32 images, the CelebA networks `kernel=5` on 64x64.
Every decoder starts from a map of 6 to 11 pixels a side (8 at sides 32, 64 and 128) and doubles it; a side that is no
multiple is cropped at the end, as many rows (columns) on each side as possible.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from expost.errors import UsageError
from expost.networks.layers import SameConv2d, SameConvTranspose2d, glorot
from expost.networks.normalization import BatchNorm2d
from expost.types import Layout, layout_of

#: Keras' default; torch's is 1e-5.
BATCH_NORM_EPS = 1e-3
SMALLEST_SIDE, LARGEST_SIDE = 28, 128


def check_image_shape(shape: Sequence[int]) -> None:
    """Refuse what the convolutional pairs cannot take.

    Raises:
        UsageError: unless `shape` is (C, H, W) with at least one channel and sides of 28 to 128.
    """
    layout = layout_of(shape)
    if layout is not Layout.IMAGE or min(shape) < 1:
        other = "convnext-1d or gru-autoregressive" if layout is Layout.SEQUENCE else "mlp"
        raise UsageError(
            f"convolutional networks need examples of shape (C, H, W), got {tuple(shape)}; use network {other}"
        )
    if not all(SMALLEST_SIDE <= side <= LARGEST_SIDE for side in shape[1:]):
        raise UsageError(
            f"convolutional networks need image sides of {SMALLEST_SIDE} to {LARGEST_SIDE}, got {shape[1]}x{shape[2]}; "
            "resize or pad the images, or use network mlp"
        )


def doublings(shape: Sequence[int]) -> int:
    """Return how often a decoder doubles its map: 2 for sides around 32, 3 around 64, 4 around 128.

    Example:
        >>> [doublings((3, side, side)) for side in (28, 32, 64, 96, 128)]
        [2, 2, 3, 4, 4]
    """
    return max(2, round(math.log2(max(shape[1:]) / 8)))


def map_side(shape: Sequence[int]) -> tuple[int, int]:
    """Return height and width of the map from which a decoder starts."""
    factor = 2 ** doublings(shape)
    return -(-shape[1] // factor), -(-shape[2] // factor)


def _block(layer: nn.Module, channels: int) -> list[nn.Module]:
    return [layer, BatchNorm2d(channels, eps=BATCH_NORM_EPS), nn.ReLU(inplace=True)]


class ConvEncoder(nn.Module):
    """x -> [2x - 1 ->] (Conv k s2, BN, ReLU) with width, 2 width, 4 width, 8 width channels -> features.

    Args:
        shape: (C, H, W) of one image.
        width: Channels of the first layer; 128 in the paper.
        kernel: Kernel side; 4 (MNIST, CIFAR-10) or 5 (CelebA).
        spatial: Whether the features stay a map at the decoder's starting size (for vector quantisation), or are
            flattened after four layers.
        centered: Whether pixels are brought to [-1, 1] first, as the official networks do for MNIST and CIFAR-10, and
            not for CelebA.
    """

    def __init__(self, shape: Sequence[int], width: int, kernel: int, spatial: bool, centered: bool = True) -> None:
        super().__init__()
        check_image_shape(shape)
        self.centered = centered
        layers: list[nn.Module] = []
        channels = shape[0]
        for i in range(doublings(shape) if spatial else 4):
            out = width * 2 ** min(i, 3)
            layers += _block(SameConv2d(channels, out, kernel, 2), out)
            channels = out
        if not spatial:
            layers.append(nn.Flatten())
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (B, C, H, W) in [0, 1] to features (B, F), or (B, F, h, w) if spatial."""
        return self.layers(2 * x - 1 if self.centered else x)


class ConvDecoder(nn.Module):
    """z -> Linear (h, w, 8 width) -> [ConvT k s2, BN, ReLU] halving the channels -> ConvT k s1 to C -> sigmoid.

    For a spatial code the linear layer is a 1x1 convolution.

    Args:
        shape: (C, H, W) of one image.
        latent_dim: Dimension of the code, or channels of a spatial code.
        width: An eighth of the first map's channels; 128 in the paper.
        kernel: Kernel side; 4 or 5.
        spatial: Whether codes are maps (B, latent_dim, h, w).
    """

    def __init__(self, shape: Sequence[int], latent_dim: int, width: int, kernel: int, spatial: bool) -> None:
        super().__init__()
        check_image_shape(shape)
        height, breadth = map_side(shape)
        channels = 8 * width
        first: list[nn.Module] = (
            [glorot(nn.Conv2d(latent_dim, channels, 1))]
            if spatial
            else [
                glorot(nn.Linear(latent_dim, height * breadth * channels)),
                nn.Unflatten(1, (channels, height, breadth)),
            ]
        )
        layers: list[nn.Module] = []
        for _ in range(doublings(shape)):
            out = max(channels // 2, 1)
            layers += _block(SameConvTranspose2d(channels, out, kernel, 2), out)
            channels = out
        layers.append(SameConvTranspose2d(channels, shape[0], kernel, 1))
        self.first = nn.Sequential(*first)
        self.layers = nn.Sequential(*layers)
        grown = [side * 2 ** doublings(shape) for side in (height, breadth)]
        self.top, self.left = (grown[0] - shape[1]) // 2, (grown[1] - shape[2]) // 2
        self.height, self.breadth = shape[1], shape[2]

    def forward(self, z: Tensor) -> Tensor:
        """Map codes to images (B, C, H, W) in [0, 1], float32."""
        # the map's layout follows the weights', so that a channels-last network stays channels-last throughout
        first = self.first(z).contiguous(memory_format=torch.channels_last)
        logits = self.layers(first)[:, :, self.top : self.top + self.height, self.left : self.left + self.breadth]
        return torch.sigmoid(logits.float())
