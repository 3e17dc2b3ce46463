"""Elementary batch norm: over the batch of several processes, with derivatives of any order and direction.

Torch's own layer is one operation that ignores other processes, and the derivative of its forward-mode derivative is
wrong in training mode (pytorch/pytorch#196699: the statistics are taken for constants).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from expost.distributed.shards import batch_total
from expost.errors import UsageError


@contextmanager
def elementary_batch_norm(model: nn.Module) -> Iterator[None]:
    """Compute a model's batch norm by elementary operations in this block, over the whole batch where it is split.

    The layers' classes, weights and running averages stay as they are.
    """
    layers = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    before = [layer.__dict__.get("forward") for layer in layers]
    try:
        for layer in layers:
            layer.__dict__["forward"] = partial(_batch_norm, layer)  # found before the class's own
        yield
    finally:
        for layer, forward in zip(layers, before, strict=True):
            layer.__dict__.pop("forward", None)
            if forward is not None:
                layer.__dict__["forward"] = forward


def _batch_norm(layer: _BatchNorm, x: Tensor) -> Tensor:
    """Apply batch norm; in training mode, or without running averages, by mean and variance of the whole batch.

    Processes exchange once forward and once backward. Each sums distances from its own mean, and their squares; these
    sums are joined in float64, so that nothing cancels. Whole steps of the networks of preset small take about an
    eighth longer than with torch's own layer.
    """
    if not layer.training and layer.running_mean is not None:
        return type(layer).forward(layer, x)
    layer._check_input_dim(x)  # type: ignore[no-untyped-call]
    axes = [0, *range(2, x.dim())]
    with torch.autocast(x.device.type, enabled=False):
        values = x if x.dtype == torch.float64 else x.float()
        shape = [1, -1, *[1] * (x.dim() - 2)]
        center = values.detach().mean(axes)  # any constant would do, but this one rounds least
        distance = values - center.view(shape)
        here = values.numel() // values.shape[1]
        exact = torch.float32 if x.device.type == "mps" else torch.float64  # which MPS has not
        mine = torch.full((1,), here, dtype=exact, device=x.device)
        first, second = distance.sum(axes).to(exact), distance.square().sum(axes).to(exact)
        moved = center.to(exact)
        sums = torch.cat([first + mine * moved, second + 2 * moved * first + mine * moved.square(), mine])
        joined = batch_total(sums)
        if joined is sums and here < 2:  # of several processes each has one or more
            raise UsageError(f"batch norm got {x.shape[0]} example(s) with one value a channel; give at least 2")
        count = joined[-1].detach()
        first, second = (joined[:-1] / count).chunk(2)
        average, variance = first.to(values.dtype), (second - first.square()).clamp_min(0).to(values.dtype)
        _track(layer, average.detach(), variance.detach() * (count / (count - 1)).to(values.dtype))
        scale = torch.rsqrt(variance + layer.eps)
        if layer.weight is not None:
            scale = scale * layer.weight
        shift = (center - average) * scale
        if layer.bias is not None:
            shift = shift + layer.bias
        y = torch.addcmul(shift.view(shape), distance, scale.view(shape))
    return y.to(x.dtype)


@torch.no_grad()
def _track(layer: _BatchNorm, average: Tensor, variance: Tensor) -> None:
    """Move the running averages, as torch's own layers do."""
    if not layer.track_running_stats or layer.running_mean is None or layer.running_var is None:
        return
    step = layer.momentum
    if layer.num_batches_tracked is not None:
        layer.num_batches_tracked.add_(1)
        if step is None:
            step = 1 / float(layer.num_batches_tracked)
    layer.running_mean.lerp_(average.to(layer.running_mean.dtype), step or 0.0)
    layer.running_var.lerp_(variance.to(layer.running_var.dtype), step or 0.0)
