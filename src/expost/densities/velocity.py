"""The network of flow matching: a residual perceptron of a position and a time, as a function of its weights."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import layer_norm, linear, silu

#: Frequencies of the time: half a turn, one turn, ... in the unit interval.
_FREQUENCIES = 4
#: Units of the embedding of the time.
_EMBEDDED = 64


def shapes(d: int, width: int, depth: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the weights by name, for positions of d dimensions."""
    found: dict[str, tuple[int, ...]] = {"in.weight": (width, d), "in.bias": (width,)}
    found |= {"time.weight": (_EMBEDDED, 2 * _FREQUENCIES), "time.bias": (_EMBEDDED,)}
    for i in range(depth):
        found |= {f"{i}.first.weight": (width, width), f"{i}.first.bias": (width,)}
        found |= {f"{i}.time.weight": (width, _EMBEDDED)}
        found |= {f"{i}.second.weight": (width, width), f"{i}.second.bias": (width,)}
    return found | {"out.weight": (d, width), "out.bias": (d,)}


def initial(d: int, width: int, depth: int, generator: torch.Generator, device: torch.device) -> dict[str, Tensor]:
    """Return the weights that training starts from: Glorot uniform, biases 0, the last layer 0, so that f = 0."""
    weights = {}
    for name, shape in shapes(d, width, depth).items():
        if name.startswith("out.") or len(shape) == 1:
            weights[name] = torch.zeros(shape, device=device)
        else:
            limit = math.sqrt(6 / sum(shape))
            weights[name] = ((2 * torch.rand(shape, generator=generator) - 1) * limit).to(device)
    return weights


def evaluate(y: Tensor, t: Tensor, weights: Mapping[str, Tensor], depth: int) -> Tensor:
    """Return f(y, t), shape (N, d), of positions (N, d) and times (N, 1).

    A block adds W_2 silu(W_1 n(h) + W_t e(t)) to the state h, with n the layer normalisation and e an embedding of
    sines and cosines of the time.
    """
    angles = t * (math.pi * 2.0 ** torch.arange(_FREQUENCIES, device=t.device, dtype=t.dtype))
    features = torch.cat([angles.sin(), angles.cos()], 1)
    embedded = silu(linear(features, weights["time.weight"], weights["time.bias"]))
    h = linear(y, weights["in.weight"], weights["in.bias"])
    size = h.shape[-1:]
    for i in range(depth):
        first = linear(layer_norm(h, size), weights[f"{i}.first.weight"], weights[f"{i}.first.bias"])
        inner = silu(first + linear(embedded, weights[f"{i}.time.weight"]))
        h = h + linear(inner, weights[f"{i}.second.weight"], weights[f"{i}.second.bias"])
    return linear(layer_norm(h, size), weights["out.weight"], weights["out.bias"])
