"""Convolutions for training: fast derivatives of both orders, equal to torch's up to rounding.

With s the small map, b the big one (padded) and w the kernel, convolution, its transpose and the weights' gradient are
the derivatives by s, b and w of one form,

    T(s, w, b) = sum over n p q, i j, u v of  s[n, p, i, j] w[p, q, u, v] b[n, q, stride i + u, stride j + v]

so the derivatives of each of the three are the two others, to any order. Here each is a function whose backward pass
calls the others, computed in the fastest way (`benchmarks/train_step.py --profile` shows it):

- Torch computes the second derivative by the kernel as a convolution over the batch, which takes three times as long as
  the equal first derivative on a CPU, ten times on a GPU.
- On a CPU with few channels in the big map and stride 1 (the last layer of a decoder) dT/db is a matrix product, whose
  columns are then added up where they overlap.
- On a CPU oneDNN's gradient of the weights runs at a third to two thirds of the rate of a bf16 matrix product for the
  paper's layers (at a twentieth for 2x2 maps), so that in bf16 large ones are a matrix product a tap.
- Only the derivatives that the current pass asks for are computed: the gradient penalty first needs those by the input
  alone.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import functional

#: In bf16, below that many pairs of channels torch's own gradient is as fast or faster (measured at batch 100).
FEWEST_PAIRS = 2**17


@dataclass(frozen=True)
class Geometry:
    """How a small map lies in a big one: stride, padding on each side, and the big map's height and width."""

    stride: int
    padding: int
    height: int
    width: int


class _Wanted(threading.local):
    """Whether the outputs of this thread will be differentiated twice."""

    twice = False


_WANTED = _Wanted()


@contextmanager
def differentiated_twice() -> Iterator[None]:
    """Declare that outputs of layers in this block will be differentiated twice."""
    before, _WANTED.twice = _WANTED.twice, True
    try:
        yield
    finally:
        _WANTED.twice = before


def trains(x: Tensor, weight: Tensor) -> bool:
    """Return whether to use these functions: where a layer is trained in reverse mode, and they are faster.

    On a GPU torch's own first derivatives are as fast, and take Python less time to launch.
    """
    return (
        (x.device.type == "cpu" or (x.device.type == "cuda" and _WANTED.twice))
        and torch.is_grad_enabled()
        and weight.requires_grad
        and forward_ad._current_level < 0
        and not torch._C._functorch.is_functorch_wrapped_tensor(x)
    )


def autocast(x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return the tensors in the precision that autocast would choose."""
    kind = x.device.type
    if not torch.is_autocast_enabled(kind):
        return x, weight, bias
    dtype = torch.get_autocast_dtype(kind)
    return x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)


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
            _call(_Spread, small, weight, None, ctx.at) if _wanted(ctx, 0) else None,
            _call(_Correlate, small, big, weight.shape[2], ctx.at) if _wanted(ctx, 1) else None,
            small.sum((0, 2, 3)) if _wanted(ctx, 2) else None,
            None,
        )


class _Spread(torch.autograd.Function):
    """dT/db: small map and kernel to big map."""

    @staticmethod
    def forward(ctx: Any, small: Tensor, weight: Tensor, bias: Tensor | None, at: Geometry) -> Tensor:
        ctx.save_for_backward(small, weight)
        ctx.at = at
        # with more products a place than the small map has channels, oneDNN's kernel takes less time and memory
        few = at.stride == 1 and weight[0].numel() <= weight.shape[0]
        if few and small.device.type == "cpu" and small.dtype != torch.bfloat16:
            return _spread_few(small, weight, bias, at)
        kernel, sides = weight.shape[2], (at.height, at.width)
        reached = [(side - 1) * at.stride + kernel - 2 * at.padding for side in small.shape[2:]]
        missing = [side - there for side, there in zip(sides, reached, strict=True)]
        return functional.conv_transpose2d(_last(small), weight, bias, at.stride, at.padding, missing)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (big,), (small, weight) = gradients, ctx.saved_tensors
        return (
            _call(_Convolve, big, weight, None, ctx.at) if _wanted(ctx, 0) else None,
            _call(_Correlate, small, big, weight.shape[2], ctx.at) if _wanted(ctx, 1) else None,
            big.sum((0, 2, 3)) if _wanted(ctx, 2) else None,
            None,
        )


class _Correlate(torch.autograd.Function):
    """dT/dw: small and big map to kernel."""

    @staticmethod
    def forward(ctx: Any, small: Tensor, big: Tensor, kernel: int, at: Geometry) -> Tensor:
        ctx.save_for_backward(small, big)
        ctx.at = at
        large = small.shape[1] * big.shape[1] >= FEWEST_PAIRS
        if small.device.type != "cpu" or small.dtype != torch.bfloat16 or not large:
            return _correlate(small, big, kernel, at)
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
            _call(_Convolve, big, weight, None, ctx.at) if _wanted(ctx, 0) else None,
            _call(_Spread, small, weight, None, ctx.at) if _wanted(ctx, 1) else None,
            None,
            None,
        )


def _wanted(ctx: Any, index: int) -> bool:
    """Return whether the current backward pass needs the derivative by an input.

    Torch's own functions ask the engine, too; `needs_input_grad` only says whether any pass could need it.
    """
    if not ctx.needs_input_grad[index]:
        return False
    try:
        return bool(torch._C._will_engine_execute_node(ctx.next_functions[index][0]))
    except (AttributeError, RuntimeError):  # it does not answer for a leaf that the pass is to stop at
        return True


def _spread_few(small: Tensor, weight: Tensor, bias: Tensor | None, at: Geometry) -> Tensor:
    """Multiply every position of the small map by all taps, and add the products where they overlap."""
    batch, channels = small.shape[:2]
    places = _last(small).permute(0, 2, 3, 1).reshape(batch, -1, channels)
    taps = (places @ weight.reshape(channels, -1)).transpose(1, 2)  # (B, C' k k, h w)
    y = functional.fold(taps, (at.height, at.width), weight.shape[2], padding=at.padding)
    return y if bias is None else y + bias.view(1, -1, 1, 1)


def _correlate(small: Tensor, big: Tensor, kernel: int, at: Geometry) -> Tensor:
    """Return the weights' gradient by torch's own kernel."""
    like = small.new_empty(small.shape[1], big.shape[1], kernel, kernel).to(memory_format=torch.channels_last)
    sizes = [at.stride] * 2, [at.padding] * 2, [1, 1]
    found: Tensor = torch.ops.aten.convolution_backward(
        _last(small), _last(big), like, None, *sizes, False, [0, 0], 1, [False, True, False]
    )[1]
    return found


def _last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)
