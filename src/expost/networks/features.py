"""A decoder of features: from codes of any shape, which somebody else's encoder gives, to examples of any shape."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from expost.errors import UsageError
from expost.networks.layers import glorot
from expost.types import Layout, layout_of

#: Longest side of the map that a vector starts as.
_FIRST_SIDE = 8
#: Channels of a group of the normalization.
_GROUP = 8


class FeatureDecoder(nn.Module):
    """z -> a map -> doubled until it covers the image, two convolutions a size -> Conv 3 to C -> sigmoid -> pixels.

    A vector becomes a map of at most 8 pixels a side by a linear layer; a map (C', h, w), or tokens (C', L), keeps its
    sides. A size has Conv 3, group norm, SiLU twice; channels begin at 8 `width` at most and are halved with each
    doubling, down to `width`. What is too large in the end is averaged to the image's sides before the last
    convolution. Examples that are no images are the output of a perceptron of two hidden layers of 8 `width`, without a
    sigmoid.

    Args:
        code_shape: Shape of one code: (d,), (C', L) or (C', h, w).
        shape: Shape of one example; (C, H, W) is an image.
        width: Channels at the image's size, at least 1.
        pixels: Range (low, high) of the pixels that it gives: those that the encoder takes.

    Raises:
        UsageError: if a shape has no or other axes, or the width is below 1.
    """

    def __init__(
        self,
        code_shape: Sequence[int],
        shape: Sequence[int],
        width: int = 32,
        pixels: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        super().__init__()
        if not 1 <= len(code_shape) <= 3 or not shape or min(*code_shape, *shape) < 1:
            raise UsageError(
                f"codes of shape {tuple(code_shape)} and examples of shape {tuple(shape)}: a decoder needs codes (d,), "
                "(C, L) or (C, h, w), and no empty axis"
            )
        if width < 1:
            raise UsageError(f"width={width} must be at least 1")
        self.code_shape, self.shape, self.width, self.pixels = tuple(code_shape), tuple(shape), width, pixels
        self.image = layout_of(self.shape) is Layout.IMAGE
        channels = 8 * width
        if not self.image:
            size = math.prod(self.code_shape)
            layers: list[nn.Module] = [nn.Flatten(1)]
            for _ in range(2):
                layers += [glorot(nn.Linear(size, channels)), nn.SiLU()]
                size = channels
            self.layers = nn.Sequential(*layers, glorot(nn.Linear(size, math.prod(self.shape))))
            return
        sides = self.shape[1:]
        vector = len(self.code_shape) == 1
        halvings = max(0, math.ceil(math.log2(max(sides) / _FIRST_SIDE)))
        start = [math.ceil(side / 2**halvings) for side in sides] if vector else [1, *self.code_shape[1:]][-2:]
        doublings = max(0, math.ceil(math.log2(max(side / there for side, there in zip(sides, start, strict=True)))))
        channels = width * 2 ** min(3, doublings)
        first: list[nn.Module] = [glorot(nn.Conv2d(self.code_shape[0], channels, 1))]
        if vector:
            first = [glorot(nn.Linear(self.code_shape[0], channels * math.prod(start)))]
            first.append(nn.Unflatten(1, (channels, *start)))
        layers = [*first, *_size(channels, channels)]
        for _ in range(doublings):
            narrower = max(width, channels // 2)
            layers += [nn.Upsample(scale_factor=2), *_size(channels, narrower)]
            channels = narrower
        self.layers = nn.Sequential(*layers)
        self.last = glorot(nn.Conv2d(channels, self.shape[0], 3, padding=1))

    def forward(self, z: Tensor) -> Tensor:
        """Map codes (B, *code_shape) to examples (B, *shape), images in the range of `pixels`."""
        if not self.image:
            return self.layers(z).reshape(-1, *self.shape)
        if len(self.code_shape) == 2:
            z = z.unsqueeze(2)
        low, high = self.pixels
        fitted = functional.adaptive_avg_pool2d(self.layers(z), [*self.shape[1:]])  # type: ignore[arg-type]
        return low + (high - low) * self.last(fitted).sigmoid()


def _size(channels: int, out: int) -> list[nn.Module]:
    """Two convolutions at one size."""
    layers: list[nn.Module] = []
    for before in (channels, out):
        groups = next(g for g in range(max(1, out // _GROUP), 0, -1) if out % g == 0)
        layers += [glorot(nn.Conv2d(before, out, 3, padding=1)), nn.GroupNorm(groups, out), nn.SiLU()]
    return layers
