"""Residual convolutional pair: group norm, attention on the smallest map, any sides of 4 to 256 and any channels.

    block      x -> (x + Conv(SiLU(GN(Conv(SiLU(GN(x))))))) / sqrt(2)          (He et al. 2016; Karras et al. 2022)
    attention  x -> (x + W softmax(q^T k / sqrt(c)) v) / sqrt(2), q, k, v = linear in GN(x), over the positions of a map

The encoder halves the map at once, then goes through `depth` blocks and halves it again, until it is about 4 pixels a
side (8 for codes that are maps). The decoder is its mirror, and has two more layers at full size. Nothing depends on
other examples of the batch, so that a batch of one trains, and statistics never lag behind the weights.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from expost.errors import UsageError
from expost.networks.image import doublings
from expost.networks.layers import SameConv2d, SameConvTranspose2d, glorot
from expost.networks.normalization import GroupNorm
from expost.types import Layout, layout_of

SMALLEST, LARGEST = 4, 256
#: Most groups of channels that are normalized together.
GROUPS = 8
#: Channels of a level, in widths: of the largest map, the next, and all others.
FACTORS = (1, 2, 4)
_HALF = 2**-0.5


def check_shape(shape: Sequence[int]) -> None:
    """Refuse what the residual pair cannot take.

    Raises:
        UsageError: unless `shape` is (C, H, W) with at least one channel and sides of 4 to 256.
    """
    if layout_of(shape) is not Layout.IMAGE or min(shape) < 1:
        other = "convnext-1d or gru-autoregressive" if layout_of(shape) is Layout.SEQUENCE else "mlp"
        raise UsageError(f"network residual needs examples of shape (C, H, W), got {tuple(shape)}; use network {other}")
    if not all(SMALLEST <= side <= LARGEST for side in shape[1:]):
        raise UsageError(
            f"network residual needs image sides of {SMALLEST} to {LARGEST}, got {shape[1]}x{shape[2]}; resize or pad "
            "the images, or use network mlp"
        )


def halvings(shape: Sequence[int], spatial: bool) -> int:
    """Return how often a map is halved: to about 4 pixels on its longer side; for codes that are maps, as `conv4` does.

    Example:
        >>> [halvings((3, side, side), False) for side in (8, 28, 32, 64, 128, 256)]
        [1, 3, 3, 4, 5, 6]
    """
    return doublings(shape) if spatial else max(1, round(math.log2(max(shape[1:]) / 4)))


def _norm(channels: int) -> GroupNorm:
    return GroupNorm(math.gcd(channels, GROUPS), channels)


class ResidualBlock(nn.Module):
    """x -> (x + Conv(SiLU(GN(Conv(SiLU(GN(x))))))) / sqrt(2), on maps (B, C, h, w) of any size.

    Args:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            _norm(channels),
            nn.SiLU(),
            SameConv2d(channels, channels, 3, 1),
            _norm(channels),
            nn.SiLU(),
            SameConv2d(channels, channels, 3, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to the same shape."""
        return (x + self.layers(x)) * _HALF


class Attention(nn.Module):
    """Attention of every position of a map to all of them, with one head and without positions (Zhang et al. 2019).

    It is written out, since torch's fused kernels have no second derivative, which the gradient penalty takes.

    Args:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = _norm(channels)
        self.split = glorot(nn.Conv2d(channels, 3 * channels, 1))
        self.join = glorot(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to the same shape."""
        q, k, v = self.split(self.norm(x)).flatten(2).chunk(3, 1)  # each (B, C, h w)
        weights = (q.transpose(1, 2) @ k * x.shape[1] ** -0.5).softmax(-1)  # of position i to j
        return (x + self.join((v @ weights.transpose(1, 2)).view(x.shape))) * _HALF


def _channels(width: int, levels: int) -> list[int]:
    """Return the channels of the maps, from the largest to the smallest."""
    return [width * FACTORS[min(level, len(FACTORS) - 1)] for level in range(levels)]


def _blocks(channels: int, depth: int) -> list[nn.Module]:
    return [ResidualBlock(channels) for _ in range(depth)]


class ResidualEncoder(nn.Module):
    """x -> 2x - 1 -> Conv 4 s2 -> [blocks, Conv 3 s2] -> blocks, attention, GN, SiLU -> features.

    Args:
        shape: (C, H, W) of one image.
        width: Channels of the largest map; 2 and 4 times as many on smaller ones.
        depth: Blocks on each map, at least 1.
        spatial: Whether the features stay a map, or are flattened.
    """

    def __init__(self, shape: Sequence[int], width: int, depth: int, spatial: bool) -> None:
        super().__init__()
        check_shape(shape)
        maps = _channels(width, halvings(shape, spatial))
        layers: list[nn.Module] = [SameConv2d(shape[0], maps[0], 4, 2)]
        for here, smaller in itertools.pairwise(maps):
            layers += [*_blocks(here, depth), SameConv2d(here, smaller, 3, 2)]
        layers += [*_blocks(maps[-1], depth), Attention(maps[-1]), _norm(maps[-1]), nn.SiLU()]
        if not spatial:
            layers.append(nn.Flatten())
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (B, C, H, W) in [0, 1] to features (B, F), or (B, F, h, w) if spatial."""
        return self.layers(2 * x - 1)


class ResidualDecoder(nn.Module):
    """z -> linear to the smallest map -> attention, [blocks, ConvT 4 s2] -> GN, SiLU, Conv 3 -> sigmoid.

    The last map is cropped to the image, as many rows (columns) on each side as possible.

    Args:
        shape: (C, H, W) of one image.
        latent_dim: Dimension of the code, or channels of a spatial code.
        width: As of the encoder.
        depth: Blocks on each map, at least 1.
        spatial: Whether codes are maps (B, latent_dim, h, w).
    """

    def __init__(self, shape: Sequence[int], latent_dim: int, width: int, depth: int, spatial: bool) -> None:
        super().__init__()
        check_shape(shape)
        levels = halvings(shape, spatial)
        maps = _channels(width, levels)[::-1]
        sides = [-(-side // 2**levels) for side in shape[1:]]
        self.first: nn.Module = (
            glorot(nn.Conv2d(latent_dim, maps[0], 1))
            if spatial
            else nn.Sequential(
                glorot(nn.Linear(latent_dim, math.prod(sides) * maps[0])), nn.Unflatten(1, (maps[0], *sides))
            )
        )
        layers: list[nn.Module] = [Attention(maps[0])]
        for here, larger in zip(maps, [*maps[1:], width], strict=True):
            layers += [*_blocks(here, depth), SameConvTranspose2d(here, larger, 4, 2)]
        layers += [_norm(width), nn.SiLU(), SameConv2d(width, shape[0], 3, 1)]
        self.layers = nn.Sequential(*layers)
        self.top, self.left = ((side * 2**levels - whole) // 2 for side, whole in zip(sides, shape[1:], strict=True))
        self.height, self.breadth = shape[1], shape[2]

    def forward(self, z: Tensor) -> Tensor:
        """Map codes to images (B, C, H, W) in [0, 1], float32."""
        first = self.first(z).contiguous(memory_format=torch.channels_last)
        logits = self.layers(first)[:, :, self.top : self.top + self.height, self.left : self.left + self.breadth]
        return torch.sigmoid(logits.float())
