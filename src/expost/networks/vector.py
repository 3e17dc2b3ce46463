"""Plain multilayer perceptrons, for vectors and for images too small for convolutions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from expost.networks.layers import glorot
from expost.types import Layout, layout_of


class VectorEncoder(nn.Module):
    """x -> flatten -> [Linear, ReLU] twice -> features.

    Args:
        shape: Shape of one example; it is flattened.
        width: Units of each hidden layer.
    """

    def __init__(self, shape: Sequence[int], width: int) -> None:
        super().__init__()
        inputs = math.prod(shape)
        self.layers = nn.Sequential(
            nn.Flatten(), glorot(nn.Linear(inputs, width)), nn.ReLU(), glorot(nn.Linear(width, width)), nn.ReLU()
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map examples (B, *shape) to features (B, width)."""
        return self.layers(x)


class VectorDecoder(nn.Module):
    """z -> [Linear, ReLU] twice -> Linear -> output, through a sigmoid for images.

    Args:
        shape: Shape of one example. Outputs for images lie in [0, 1]; others are unbounded.
        latent_dim: Dimension of the code.
        width: Units of each hidden layer.
    """

    def __init__(self, shape: Sequence[int], latent_dim: int, width: int) -> None:
        super().__init__()
        self.bounded = layout_of(shape) is Layout.IMAGE
        self.layers = nn.Sequential(
            glorot(nn.Linear(latent_dim, width)),
            nn.ReLU(),
            glorot(nn.Linear(width, width)),
            nn.ReLU(),
            glorot(nn.Linear(width, math.prod(shape))),
            nn.Unflatten(1, tuple(shape)),
        )

    def forward(self, z: Tensor) -> Tensor:
        """Map codes (B, d) to examples (B, *shape), float32."""
        output = self.layers(z).float()
        return torch.sigmoid(output) if self.bounded else output
