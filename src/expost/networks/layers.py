"""TensorFlow's "same" convolutions and Keras' Glorot initialisation, which the official networks use."""

from __future__ import annotations

from typing import TypeVar

from torch import Tensor, nn
from torch.nn import functional

from expost.networks import convolution

M = TypeVar("M", nn.Linear, nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d)


def glorot(layer: M) -> M:
    """Initialise a layer as Keras does: weights uniform in +-sqrt(6 / (fan_in + fan_out)), biases zero.

    Source: Glorot & Bengio 2010, eq. 16.
    """
    nn.init.xavier_uniform_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class SameConv2d(nn.Conv2d):
    """A convolution whose output side is ceil(side / stride), padded as TensorFlow's "same": the odd pixel comes last.

    Args:
        in_channels: Input channels.
        out_channels: Output channels.
        kernel: Kernel side.
        stride: Stride, at most `kernel`.
        bias: Whether it adds a bias.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, kernel, stride, bias=bias)
        glorot(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', ceil(H / stride), ceil(W / stride))."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        total = [max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in x.shape[2:]]
        if any(t % 2 for t in total):
            x = functional.pad(x, (total[1] // 2, total[1] - total[1] // 2, total[0] // 2, total[0] - total[0] // 2))
            total = [0, 0]
        padding = (total[0] // 2, total[1] // 2)
        weight = self.weight  # read once: under spectral norm reading it is a power iteration
        if padding[0] == padding[1] and self.training and convolution.trains(x, weight):
            return convolution.conv2d(*convolution.autocast(x, weight, self.bias), stride, padding[0])
        return functional.conv2d(x, weight, self.bias, stride, padding)


class SameConvTranspose2d(nn.ConvTranspose2d):
    """The transpose of `SameConv2d`: output side = side * stride, cropped as TensorFlow does.

    Args:
        in_channels: Input channels.
        out_channels: Output channels.
        kernel: Kernel side.
        stride: Stride, at most `kernel`.
        bias: Whether it adds a bias.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, kernel, stride, bias=bias)
        glorot(self)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Map (B, C, h, w) to (B, C', h * stride, w * stride); `output_size` is not used."""
        height, width = (side * self.stride[0] for side in x.shape[2:])
        crop = (self.kernel_size[0] - self.stride[0]) // 2
        weight = self.weight  # read once: under spectral norm reading it is a power iteration
        if self.training and convolution.trains(x, weight):
            y = convolution.conv_transpose2d(*convolution.autocast(x, weight, self.bias), self.stride[0], crop)
        else:
            y = functional.conv_transpose2d(x, weight, self.bias, self.stride, crop)
        return y[:, :, :height, :width]  # an odd kernel - stride leaves one row and column too many, at the end
