"""Batch norm whose second derivatives take a few passes over the batch, and group norm that has them in any layout.

Torch composes the second derivative of batch norm from some twenty-five elementwise operations, which take a gradient
penalty longer than its convolutions. Here it has a closed form. With n values a channel, mean m, variance v
and s = (v + eps)^(-1/2), x^ = (x - m) s, and averages <.> over a channel, batch norm y = w x^ + b has the derivatives

    dL/dx = P g = w s (g - <g> - x^ <g x^>)      dL/dw = n <g x^>      dL/db = n <g>

of g = dL/dy. Along directions d, a, b of these three, with F = sum of d P g over a channel, the sum of d dL/dx +
a dL/dw + b dL/db has in turn the derivatives

    by g:  P d + a x^ + b          by w:  F / w
    by x:  s (h - <h> - x^ <h x^>) - F s x^ / n      with      h = a g - w s (<g x^> d + <d x^> g)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from expost.networks.convolution import trains


class BatchNorm2d(nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d` with the second derivatives above; same weights and names."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        several = x.dim() == 4 and x.numel() > x.shape[1]  # torch refuses anything else, by a good message
        if not (self.training and self.affine and several and trains(x, self.weight)):
            return super().forward(x)
        tracked = self.track_running_stats and self.running_mean is not None
        if tracked and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        momentum = self.momentum
        if tracked and momentum is None:
            momentum = 1 / float(self.num_batches_tracked or 1)
        means = (self.running_mean, self.running_var) if tracked else (None, None)
        y: Tensor = _Normalize.apply(x, self.weight, self.bias, *means, momentum or 0.0, self.eps)  # type: ignore[no-untyped-call]
        return y


class _Normalize(torch.autograd.Function):
    """y = w x^ + b."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        momentum: float,
        eps: float,
    ) -> Tensor:
        y, mean, scale = torch.native_batch_norm(x, weight, bias, running_mean, running_var, True, momentum, eps)
        ctx.save_for_backward(x, weight, mean, scale)
        ctx.eps = eps
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (g,) = gradients
        found = _Derivative.apply(g, *ctx.saved_tensors, ctx.eps)  # type: ignore[no-untyped-call]
        return (*found, None, None, None, None)


def _first(
    g: Tensor, x: Tensor, weight: Tensor, mean: Tensor, scale: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return P g, n <g x^> and n <g>."""
    return torch.ops.aten.native_batch_norm_backward(
        g, x, weight, None, None, mean, scale, True, eps, [True, True, True]
    )


class _Derivative(torch.autograd.Function):
    """The three first derivatives, as functions of g, x and w."""

    @staticmethod
    def forward(
        ctx: Any, g: Tensor, x: Tensor, weight: Tensor, mean: Tensor, scale: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        found = _first(g, x, weight, mean, scale, eps)
        ctx.save_for_backward(g, x, weight, mean, scale, *found[1:])
        ctx.eps = eps
        ctx.set_materialize_grads(False)
        return found

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *directions: Tensor | None) -> tuple[Tensor | None, ...]:
        g, x, weight, mean, scale, gw, gb = ctx.saved_tensors
        d, a, b = directions
        n, shape = x.numel() // x.shape[1], (1, -1, 1, 1)
        zero = torch.zeros_like(gw)
        a, b = (zero if each is None else each for each in (a, b))
        if d is None:
            by_g, dw, db, dg = torch.zeros_like(g), zero, zero, zero
        else:
            by_g, dw, db = _first(d, x, weight, mean, scale, ctx.eps)
            dg = (d * g).sum((0, 2, 3), dtype=gw.dtype)
        by_weight = scale * (dg - (gw * dw + gb * db) / n)  # F / w
        of_d, of_g = -weight * scale * gw / n, a - weight * scale * dw / n  # h is of_d d + of_g g
        mean_h, mean_hx = (of_d * db + of_g * gb) / n, (of_d * dw + of_g * gw) / n
        of_x = -scale.square() * (mean_hx + weight * by_weight / n)
        by_x = torch.addcmul((-scale * mean_h - of_x * mean).view(shape), x, of_x.view(shape))
        by_x = by_x.addcmul_(g, (scale * of_g).view(shape))
        if d is not None:
            by_x = by_x.addcmul_(d, (scale * of_d).view(shape))
        if directions[1] is not None or directions[2] is not None:
            by_g = by_g + (a * scale).view(shape) * x + (b - a * scale * mean).view(shape)
        return by_g.to(g.dtype), by_x.to(x.dtype), by_weight, None, None, None


class GroupNorm(nn.GroupNorm):
    """`torch.nn.GroupNorm` of maps whose second and forward derivatives exist in the channels-last layout, too.

    Torch's own refuse that layout, which its first derivative is fastest in. So the first derivative is torch's, and
    what it is differentiated by in turn comes from the formula, y = w (x - m) s + b for each group.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape; statistics are float32."""
        values = x if x.dtype == torch.float64 else x.float()
        return self._normalize(values).to(x.dtype)

    def _normalize(self, x: Tensor) -> Tensor:
        if forward_ad._current_level >= 0 or torch._C._functorch.is_functorch_wrapped_tensor(x):
            return _by_formula(x, self.weight, self.bias, self.num_groups, self.eps)
        if not torch.is_grad_enabled():
            return super().forward(x)
        if not x.is_contiguous(memory_format=torch.channels_last):
            x = x.contiguous()
        y: Tensor = _NormalizeGroups.apply(x, self.weight, self.bias, self.num_groups, self.eps)  # type: ignore[no-untyped-call]
        return y


class _NormalizeGroups(torch.autograd.Function):
    """y = w x^ + b, with the statistics of an example's group of channels."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
        sizes = (x.shape[0], x.shape[1], x[0, 0].numel())
        y, mean, scale = torch.native_group_norm(x, weight, bias, *sizes, groups, eps)
        ctx.save_for_backward(x, weight, bias, mean, scale)
        ctx.sizes, ctx.groups, ctx.eps = sizes, groups, eps
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (g,) = gradients
        x, weight, bias, mean, scale = ctx.saved_tensors
        if torch.is_grad_enabled():  # to be differentiated again
            y = _by_formula(x, weight, bias, ctx.groups, ctx.eps)
            wanted = [each for each, want in zip((x, weight, bias), ctx.needs_input_grad, strict=False) if want]
            found = iter(torch.autograd.grad(y, wanted, g, create_graph=True))
            return (*(next(found) if want else None for want in ctx.needs_input_grad[:3]), None, None)
        if x.is_contiguous(memory_format=torch.channels_last):
            g = g.contiguous(memory_format=torch.channels_last)
        else:
            g = g.contiguous()
        sizes, wanted = ctx.sizes, list(ctx.needs_input_grad[:3])
        first = torch.ops.aten.native_group_norm_backward(g, x, mean, scale, weight, *sizes, ctx.groups, wanted)
        return (*first, None, None)


def _by_formula(x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
    parts = x.unflatten(1, (groups, -1))  # type: ignore[no-untyped-call]
    variance, mean = torch.var_mean(parts, dim=(2, 3, 4), correction=0, keepdim=True)
    scale = torch.rsqrt(variance + eps) * weight.view(1, groups, -1, 1, 1)
    return torch.addcmul(bias.view(1, groups, -1, 1, 1) - mean * scale, parts, scale).flatten(1, 2)
