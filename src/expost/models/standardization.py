"""Columns in standard units around a model of vectors, so that it takes and gives rows in the units of the data."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from expost.data.standardization import Columns


class Standardization(nn.Module):
    """t = (x - m) / s before the encoder, x = m + s t after the decoder, column by column; see `Columns`.

    m and s are buffers, float32, so that they travel with the weights; before `learn` they change nothing.

    Args:
        dim: Number of columns D.

    Example:
        >>> columns = Standardization(2)
        >>> columns.learn(torch.tensor([[1.0, 5.0], [3.0, 5.0]]))
        >>> columns.standardize(torch.tensor([[1.0, 6.0]])), columns.restore(torch.tensor([[2.0, 1.0]]))
        (tensor([[-1.,  0.]]), tensor([[4., 5.]]))
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(dim))

    @torch.no_grad()
    def learn(self, x: Tensor) -> None:
        """Take mean and standard deviation of the columns of training examples, shape (N, D).

        Raises:
            DataError: if values are too large for their variance.
        """
        columns = Columns.of(x.numpy())
        self.mean.copy_(torch.from_numpy(columns.mean))
        self.scale.copy_(torch.from_numpy(columns.scale))

    def standardize(self, x: Tensor) -> Tensor:
        """Return x in standard units, shape (B, D); 0 in columns that do not vary."""
        varying = self.scale > 0
        return torch.where(varying, (x - self.mean) / torch.where(varying, self.scale, 1.0), 0.0)

    def restore(self, t: Tensor) -> Tensor:
        """Return t in the units of the data, float32, shape (B, D)."""
        return self.mean + self.scale * t.float()
