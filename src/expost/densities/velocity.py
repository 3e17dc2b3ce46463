"""The networks of flow matching: functions of a position, a time and, if need be, a condition, given their weights."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from torch.nn.functional import layer_norm, linear, silu

#: Frequencies of the time: half a turn, one turn, ... in the unit interval.
FREQUENCIES = 4
#: Units of the embedding of the time, hence e of a condition's.
EMBEDDED = 64


@dataclass(frozen=True, kw_only=True)
class Velocity(ABC):
    """f(y, t, c): what flow matching learns, as a function of weights that are kept by name.

    A new one has its sizes as fields, `shapes` and `evaluate`. Its last layer is called "out".
    """

    @abstractmethod
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the weights by name; a matrix or a kernel is (outputs, inputs, ...)."""

    @abstractmethod
    def evaluate(self, y: Tensor, t: Tensor, weights: Mapping[str, Tensor], condition: Tensor | None = None) -> Tensor:
        """Return f(y, t, c), of the shape of y.

        Args:
            y: Positions, shape (N, ...).
            t: Their times in [0, 1], shape (N, 1), or (1, 1) for one time of all.
            weights: The weights by name; there may be others among them.
            condition: What is known of each position, an embedding of shape (N, `EMBEDDED`) or (1, `EMBEDDED`), which
                is added to that of the time before its activation; None adds nothing.
        """

    @final
    def initial(self, generator: torch.Generator, device: torch.device) -> dict[str, Tensor]:
        """Return the weights that training starts from: Glorot uniform, vectors 0, the last layer 0, so that f = 0."""
        weights = {}
        for name, shape in self.shapes().items():
            if name.startswith("out.") or len(shape) == 1:
                weights[name] = torch.zeros(shape, device=device)
            else:
                limit = math.sqrt(6 / (sum(shape[:2]) * math.prod(shape[2:])))
                weights[name] = ((2 * torch.rand(shape, generator=generator) - 1) * limit).to(device)
        return weights


def embed_time(t: Tensor, weights: Mapping[str, Tensor], condition: Tensor | None) -> Tensor:
    """Return silu(W s(t) + b + c), shape (N, `EMBEDDED`), s(t) the sines and cosines of 2^k pi t.

    Args:
        t: Times, shape (N, 1).
        weights: With `time.weight` (`EMBEDDED`, 2 `FREQUENCIES`) and `time.bias`.
        condition: c, shape (N, `EMBEDDED`), or None for 0.
    """
    angles = t * (math.pi * 2.0 ** torch.arange(FREQUENCIES, device=t.device, dtype=t.dtype))
    features = torch.cat([angles.sin(), angles.cos()], 1)
    embedded = linear(features, weights["time.weight"], weights["time.bias"])
    return silu(embedded if condition is None else embedded + condition)


@final
@dataclass(frozen=True, kw_only=True)
class Perceptron(Velocity):
    """A residual perceptron of vectors.

    A block adds W_2 silu(W_1 n(h) + W_t e(t)) to the state h, with n the layer normalisation and e the embedding of
    the time and the condition.

    Attributes:
        dim: d of the positions (N, d).
        width: Units of a layer.
        depth: Residual blocks.
    """

    dim: int
    width: int
    depth: int

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the weights by name."""
        found: dict[str, tuple[int, ...]] = {"in.weight": (self.width, self.dim), "in.bias": (self.width,)}
        found |= {"time.weight": (EMBEDDED, 2 * FREQUENCIES), "time.bias": (EMBEDDED,)}
        for i in range(self.depth):
            found |= {f"{i}.first.weight": (self.width, self.width), f"{i}.first.bias": (self.width,)}
            found |= {f"{i}.time.weight": (self.width, EMBEDDED)}
            found |= {f"{i}.second.weight": (self.width, self.width), f"{i}.second.bias": (self.width,)}
        return found | {"out.weight": (self.dim, self.width), "out.bias": (self.dim,)}

    def evaluate(self, y: Tensor, t: Tensor, weights: Mapping[str, Tensor], condition: Tensor | None = None) -> Tensor:
        """Return f(y, t, c), shape (N, d)."""
        embedded = embed_time(t, weights, condition)
        h = linear(y, weights["in.weight"], weights["in.bias"])
        size = h.shape[-1:]
        for i in range(self.depth):
            first = linear(layer_norm(h, size), weights[f"{i}.first.weight"], weights[f"{i}.first.bias"])
            inner = silu(first + linear(embedded, weights[f"{i}.time.weight"]))
            h = h + linear(inner, weights[f"{i}.second.weight"], weights[f"{i}.second.bias"])
        return linear(layer_norm(h, size), weights["out.weight"], weights["out.bias"])
