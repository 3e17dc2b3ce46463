"""Random draws: float64, the same numbers on every device."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def draw_normal(n: int, d: int, generator: torch.Generator | None, device: torch.device, temperature: float) -> Tensor:
    """Draw N(0, temperature I), shape (n, d), float64 on `device`.

    The generator's own device draws, in float32 (as samples are returned), so a seeded CPU generator gives the same
    numbers wherever the density lives.
    """
    source = device if generator is None else generator.device
    noise = torch.randn(n, d, generator=generator, device=source, dtype=torch.float32).to(device).double()
    return noise.mul_(math.sqrt(temperature))  # by 1 changes no bit


def draw_index(n: int, weights: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draw n indices with probability proportional to `weights`, shape (K,), by inversion; int64, shape (n,)."""
    source = weights.device if generator is None else generator.device
    uniform = torch.rand(n, generator=generator, device=source, dtype=torch.float64).to(weights.device)
    cumulative = weights.double().cumsum(0)
    last = int(weights.nonzero()[-1])  # where rounding in the sums could lead beyond
    return torch.searchsorted(cumulative, uniform * cumulative[-1], right=True).clamp_(max=last)
