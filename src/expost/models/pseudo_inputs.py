"""Pseudo-inputs: learned examples whose posteriors, in equal parts, are a model's prior (Tomczak & Welling 2018)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from expost.types import Layout, layout_of

#: Examples are kept so far from 0 and 1 where pseudo-inputs start at them, so that their logits are finite.
_EDGE = 0.02


class PseudoInputs(nn.Module):
    """u_1 ... u_K, learned through numbers v_k that may take any value.

    Images: u = 1 / (1 + exp(-v)). One-hot strings: u = softmax of v at each position. Vectors: u = v. (The code of
    Tomczak & Welling clips images to [0, 1], where a pixel that has left the interval has no gradient to come back.)

    They start as noise; `start` has them start at examples.

    Args:
        count: K, at least 2.
        shape: Shape of an example as the encoder sees it.

    Example:
        >>> PseudoInputs(3, (1, 2, 2))().shape
        torch.Size([3, 1, 2, 2])
    """

    def __init__(self, count: int, shape: Sequence[int]) -> None:
        super().__init__()
        self._layout = layout_of(shape)
        self.values = nn.Parameter(torch.randn(count, *shape))

    def forward(self) -> Tensor:
        """Return them as the encoder sees examples, shape (K, *shape)."""
        if self._layout is Layout.IMAGE:
            return self.values.sigmoid()
        return self.values.softmax(-1) if self._layout is Layout.SEQUENCE else self.values

    @torch.no_grad()
    def start(self, x: Tensor) -> None:
        """Start at examples, as the encoder sees them, shape (K, *shape); images and one-hot strings a little blurred.

        Args:
            x: Examples; images in [0, 1].
        """
        if self._layout is Layout.IMAGE:
            x = x.clamp(_EDGE, 1 - _EDGE).logit()
        elif self._layout is Layout.SEQUENCE:
            x = x * math.log((1 - _EDGE) / _EDGE * max(1, x.shape[-1] - 1))
        self.values.copy_(x)
