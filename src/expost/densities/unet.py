"""The network of flow matching on maps: convolutions at several resolutions, as a function of its weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import final

import torch
from torch import Tensor
from torch.nn.functional import conv2d, group_norm, linear, pad, silu

from expost.densities.velocity import EMBEDDED, FREQUENCIES, Velocity, embed_time

#: Most positions of the finest grid: larger maps are cut into patches, whose pixels become channels.
_FINEST = 256
#: Most positions of the coarsest grid, at which attention looks at all pairs.
_COARSEST = 16
#: Channels of a group of the normalization, at least.
_GROUP = 8

Sides = tuple[int, int]


@final
@dataclass(frozen=True, kw_only=True)
class UNet(Velocity):
    """A residual U-Net of maps (C, H, W) of any sides, or of sequences (C, L), which are maps of height 1.

    The map is cut into patches, 2 x 2 pixels or more, until there are at most 256 of them, and the pixels of a patch
    become channels (Shi et al. 2016). To the first layer's output a learned map is added, which tells positions apart.
    From one grid to the next both sides are halved, rounded up, until at most 16 positions are left. There attention
    lets all positions look at all (Vaswani et al. 2017). On the way back what the grid above had is added. A block adds

        K_2 silu((1 + s) n(K_1 silu(n(h))) + b),   (s, b) = W_t e(t) + w_t

    to the state h, with K convolutions of 3 x 3 (of 1 along a side of 1), n the normalization of groups of channels
    (Wu & He 2018), and e the embedding of the time and the condition. The finest grid has `width` channels, the others
    twice as many.

    Attributes:
        shape: (C, H, W) or (C, L) of a position; positions themselves are (N, d), flattened.
        width: Channels of the finest grid.
        depth: Blocks on each grid on the way down, and as many on the way up.
        attention: Whether the coarsest grid has attention.
    """

    shape: tuple[int, ...]
    width: int
    depth: int
    attention: bool

    @property
    def units(self) -> int:
        """Numbers that the largest layer holds of a position."""
        height, width = self._grids[0]
        return self.width * height * width

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the weights by name."""
        grids, channels = self._grids, self._channels
        pixels, finest = self._map[0] * math.prod(self._patch), _kernel(grids[0])
        found: dict[str, tuple[int, ...]] = {"in.weight": (self.width, pixels, *finest), "in.bias": (self.width,)}
        found |= {"in.position": (self.width, *grids[0])}
        found |= {"time.weight": (EMBEDDED, 2 * FREQUENCIES), "time.bias": (EMBEDDED,)}
        for name, level in self._blocks():
            c, kernel = channels[level], _kernel(grids[level])
            found |= {f"{name}.first.weight": (c, c, *kernel), f"{name}.first.bias": (c,)}
            found |= {f"{name}.time.weight": (2 * c, EMBEDDED), f"{name}.time.bias": (2 * c,)}
            found |= {f"{name}.second.weight": (c, c, *kernel), f"{name}.second.bias": (c,)}
        for level, (fine, coarse) in enumerate(pairwise(channels)):
            kernel = _kernel(grids[level])
            found |= {f"{level}.halve.weight": (coarse, fine, *kernel), f"{level}.halve.bias": (coarse,)}
            found |= {f"{level}.widen.weight": (fine, coarse, *kernel), f"{level}.widen.bias": (fine,)}
        if self.attention:
            c = channels[-1]
            found |= {"pairs.weight": (3 * c, c), "pairs.bias": (3 * c,)}
            found |= {"mixed.weight": (c, c), "mixed.bias": (c,)}
        return found | {"out.weight": (pixels, self.width, *finest), "out.bias": (pixels,)}

    def evaluate(self, y: Tensor, t: Tensor, weights: Mapping[str, Tensor], condition: Tensor | None = None) -> Tensor:
        """Return f(y, t, c), shape (N, d)."""
        embedded = embed_time(t, weights, condition)
        grids = self._grids
        h = _convolve(self._cut(y), weights, "in") + weights["in.position"]
        kept = []
        for level in range(len(grids)):
            for i in range(self.depth):
                h = _block(h, embedded, weights, f"{level}.down.{i}")
            if level < len(grids) - 1:
                kept.append(h)
                h = _convolve(h, weights, f"{level}.halve", _strides(grids[level]))
        if self.attention:
            h = _attend(h, weights)
        for level in reversed(range(len(grids))):
            if level < len(grids) - 1:
                wide = _enlarge(h, grids[level], _strides(grids[level]))
                h = _convolve(wide, weights, f"{level}.widen") + kept[level]
            for i in range(self.depth):
                h = _block(h, embedded, weights, f"{level}.up.{i}")
        return self._join(_convolve(silu(_normalize(h)), weights, "out"))

    @property
    def _map(self) -> tuple[int, int, int]:
        """(C, H, W), H = 1 for a sequence."""
        return (self.shape[0], *((1,) * (3 - len(self.shape))), *self.shape[1:])  # type: ignore[return-value]

    @property
    def _patch(self) -> Sides:
        """Sides of a patch."""
        _, height, width = self._map
        size = 1
        while math.ceil(height / size) * math.ceil(width / size) > _FINEST:
            size *= 2
        return size if height > 1 else 1, size if width > 1 else 1

    @property
    def _grids(self) -> list[Sides]:
        """The sides of the grids, finest first."""
        (_, height, width), (high, wide) = self._map, self._patch
        found = [(math.ceil(height / high), math.ceil(width / wide))]
        while math.prod(found[-1]) > _COARSEST:
            found.append((math.ceil(found[-1][0] / 2), math.ceil(found[-1][1] / 2)))
        return found

    @property
    def _channels(self) -> list[int]:
        return [self.width, *[2 * self.width] * (len(self._grids) - 1)]

    def _blocks(self) -> Iterator[tuple[str, int]]:
        """Yield the name of each block and the number of its grid."""
        for level in range(len(self._grids)):
            for i in range(self.depth):
                yield f"{level}.down.{i}", level
                yield f"{level}.up.{i}", level

    def _cut(self, y: Tensor) -> Tensor:
        """Return the positions as maps on the finest grid, (N, C patch, h, w), with zeros beyond the edges."""
        channels, height, width = self._map
        (rows, columns), (high, wide) = self._grids[0], self._patch
        x = pad(y.reshape(-1, channels, height, width), (0, columns * wide - width, 0, rows * high - height))
        x = x.reshape(-1, channels, rows, high, columns, wide).permute(0, 1, 3, 5, 2, 4)
        return x.reshape(-1, channels * high * wide, rows, columns)

    def _join(self, x: Tensor) -> Tensor:
        """Undo `_cut`."""
        channels, height, width = self._map
        (rows, columns), (high, wide) = self._grids[0], self._patch
        x = x.reshape(-1, channels, high, wide, rows, columns).permute(0, 1, 4, 2, 5, 3)
        return x.reshape(-1, channels, rows * high, columns * wide)[:, :, :height, :width].flatten(1)


def _kernel(sides: Sides) -> Sides:
    """Return the sides of a kernel on a grid: along a side of 1 there is nothing beside a position."""
    return 3 if sides[0] > 1 else 1, 3 if sides[1] > 1 else 1


def _strides(sides: Sides) -> Sides:
    return 2 if sides[0] > 1 else 1, 2 if sides[1] > 1 else 1


def _convolve(h: Tensor, weights: Mapping[str, Tensor], name: str, strides: Sides = (1, 1)) -> Tensor:
    weight = weights[f"{name}.weight"]
    padding = weight.shape[2] // 2, weight.shape[3] // 2
    return conv2d(h, weight, weights[f"{name}.bias"], strides, padding)


def _enlarge(h: Tensor, sides: Sides, factors: Sides) -> Tensor:
    """Repeat each position along each side as often as its factor says, and cut off what is beyond the sides."""
    n, c, rows, columns = h.shape
    high, wide = factors
    h = h[:, :, :, None, :, None].expand(n, c, rows, high, columns, wide).reshape(n, c, rows * high, columns * wide)
    return h[:, :, : sides[0], : sides[1]]


def _normalize(h: Tensor) -> Tensor:
    """Normalize groups of at least 8 channels (all, if there are fewer) over their positions."""
    channels = h.shape[1]
    return group_norm(h, next(g for g in range(max(1, channels // _GROUP), 0, -1) if channels % g == 0))


def _block(h: Tensor, embedded: Tensor, weights: Mapping[str, Tensor], name: str) -> Tensor:
    of_time = linear(embedded, weights[f"{name}.time.weight"], weights[f"{name}.time.bias"])
    scale, shift = of_time[:, :, None, None].chunk(2, 1)
    inner = _normalize(_convolve(silu(_normalize(h)), weights, f"{name}.first"))
    return h + _convolve(silu((1 + scale) * inner + shift), weights, f"{name}.second")


def _attend(h: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
    """Add what each position takes from all: softmax(Q K^T / sqrt(c)) V, mapped once more."""
    n, c, rows, columns = h.shape
    places = _normalize(h).flatten(2).mT
    query, key, value = linear(places, weights["pairs.weight"], weights["pairs.bias"]).chunk(3, 2)
    shares = torch.softmax(query @ key.mT / math.sqrt(c), 2)
    mixed = linear(shares @ value, weights["mixed.weight"], weights["mixed.bias"])
    return h + mixed.mT.reshape(n, c, rows, columns)
