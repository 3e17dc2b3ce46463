"""Strided convolutions whose weights' gradient is a matrix product a tap: faster for large layers in bf16 on a CPU.

With s the small map, b the big one (padded) and w the kernel, convolution, its transpose and the weights' gradient are
the derivatives by s, b and w of one form,

    T(s, w, b) = sum over n p q, i j, u v of  s[n, p, i, j] w[p, q, u, v] b[n, q, stride i + u, stride j + v]

so that the derivatives of each of the three are the two others, to any order. Here each is a function whose backward
pass calls the others. oneDNN's own weight gradient runs at a third to two thirds of the rate of a bf16 matrix product
for the paper's layers (at a twentieth for 2x2 maps); `benchmarks/train_step.py --profile` shows it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

#: Below that many pairs of channels torch's own gradient is as fast or faster (measured at batch 100).
FEWEST_PAIRS = 2**17


@dataclass(frozen=True)
class Geometry:
    """How a small map lies in a big one: stride, padding on each side, and the big map's height and width."""

    stride: int
    padding: int
    height: int
    width: int


def pays(x: Tensor, weight: Tensor) -> bool:
    """Return whether this is a large layer, trained on a CPU under autocast to bf16."""
    return (
        x.device.type == "cpu"
        and torch.is_autocast_enabled("cpu")
        and torch.get_autocast_dtype("cpu") == torch.bfloat16
        and torch.is_grad_enabled()
        and weight.requires_grad
        and weight.shape[0] * weight.shape[1] >= FEWEST_PAIRS
    )


def to_bf16(x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return them in the precision that autocast would choose."""
    return x.bfloat16(), weight.bfloat16(), None if bias is None else bias.bfloat16()


def conv2d(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int) -> Tensor:
    """`torch.nn.functional.conv2d`, differentiable any number of times (not in forward mode).

    Args:
        x: Input (B, C, H, W).
        weight: Kernel (C', C, k, k).
        bias: (C',) or None.
        stride: Stride.
        padding: Zeros on each side.

    Returns:
        (B, C', h, w) with h = floor((H + 2 padding - k) / stride) + 1.
    """
    return _call(_Convolve, x, weight, bias, Geometry(stride, padding, x.shape[2], x.shape[3]))


def conv_transpose2d(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int) -> Tensor:
    """`torch.nn.functional.conv_transpose2d`, differentiable any number of times (not in forward mode).

    Args:
        x: Input (B, C, h, w).
        weight: Kernel (C, C', k, k).
        bias: (C',) or None.
        stride: Stride.
        padding: Rows and columns cut off on each side.

    Returns:
        (B, C', H, W) with H = (h - 1) stride + k - 2 padding.
    """
    height, width = ((side - 1) * stride + weight.shape[2] - 2 * padding for side in x.shape[2:])
    return _call(_Spread, x, weight, bias, Geometry(stride, padding, height, width))


def _call(function: type[torch.autograd.Function], *arguments: Any) -> Tensor:
    result: Tensor = function.apply(*arguments)  # type: ignore[no-untyped-call]
    return result


class _Convolve(torch.autograd.Function):
    """dT/ds: big map and kernel to small map."""

    @staticmethod
    def forward(ctx: Any, big: Tensor, weight: Tensor, bias: Tensor | None, at: Geometry) -> Tensor:
        ctx.save_for_backward(big, weight)
        ctx.at = at
        return functional.conv2d(_last(big), weight, bias, at.stride, at.padding)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (small,), (big, weight) = gradients, ctx.saved_tensors
        return (
            _call(_Spread, small, weight, None, ctx.at) if ctx.needs_input_grad[0] else None,
            _call(_Correlate, small, big, weight.shape[2], ctx.at) if ctx.needs_input_grad[1] else None,
            small.sum((0, 2, 3)) if ctx.needs_input_grad[2] else None,
            None,
        )


class _Spread(torch.autograd.Function):
    """dT/db: small map and kernel to big map."""

    @staticmethod
    def forward(ctx: Any, small: Tensor, weight: Tensor, bias: Tensor | None, at: Geometry) -> Tensor:
        ctx.save_for_backward(small, weight)
        ctx.at = at
        kernel, sides = weight.shape[2], (at.height, at.width)
        reached = [(side - 1) * at.stride + kernel - 2 * at.padding for side in small.shape[2:]]
        missing = [side - there for side, there in zip(sides, reached, strict=True)]
        return functional.conv_transpose2d(_last(small), weight, bias, at.stride, at.padding, missing)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (big,), (small, weight) = gradients, ctx.saved_tensors
        return (
            _call(_Convolve, big, weight, None, ctx.at) if ctx.needs_input_grad[0] else None,
            _call(_Correlate, small, big, weight.shape[2], ctx.at) if ctx.needs_input_grad[1] else None,
            big.sum((0, 2, 3)) if ctx.needs_input_grad[2] else None,
            None,
        )


class _Correlate(torch.autograd.Function):
    """dT/dw: small and big map to kernel."""

    @staticmethod
    def forward(ctx: Any, small: Tensor, big: Tensor, kernel: int, at: Geometry) -> Tensor:
        ctx.save_for_backward(small, big)
        ctx.at = at
        height, width = small.shape[2:]
        rows = small.permute(0, 2, 3, 1).reshape(-1, small.shape[1]).t()  # p x n i j
        padded = functional.pad(big.permute(0, 2, 3, 1), (0, 0, *[at.padding] * 4))
        found = small.new_empty(small.shape[1], kernel, kernel, big.shape[1])  # as a channels-last kernel lies
        for u in range(kernel):
            for v in range(kernel):
                tap = padded[:, u:, v:][:, : at.stride * height : at.stride, : at.stride * width : at.stride]
                found[:, u, v] = rows @ tap.reshape(-1, big.shape[1])
        return found.permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (weight,), (small, big) = gradients, ctx.saved_tensors
        return (
            _call(_Convolve, big, weight, None, ctx.at) if ctx.needs_input_grad[0] else None,
            _call(_Spread, small, weight, None, ctx.at) if ctx.needs_input_grad[1] else None,
            None,
            None,
        )


def _last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)
