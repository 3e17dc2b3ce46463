"""Products of a decoder's Jacobian J = dD/dz with vectors, which can be differentiated by the weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules.batchnorm import _BatchNorm

from expost.distributed.batch_norm import elementary_batch_norm
from expost.errors import UsageError


@contextmanager
def untracked(decoder: nn.Module) -> Iterator[None]:
    """Let batch norm use the statistics of the batch without counting them a second time in its running averages."""
    tracked = [m for m in decoder.modules() if isinstance(m, _BatchNorm) and m.training and m.track_running_stats]
    for module in tracked:
        module.track_running_stats = False
    saved = [(module.running_mean, module.running_var) for module in tracked]
    for module in tracked:
        module.running_mean = module.running_var = None
    try:
        yield
    finally:
        for module, (mean, var) in zip(tracked, saved, strict=True):
            module.running_mean, module.running_var = mean, var
            module.track_running_stats = True


@contextmanager
def twice_differentiable(decoder: nn.Module) -> Iterator[None]:
    """Disable cuDNN for recurrent layers: its kernels lack double backward."""
    before = torch.backends.cudnn.enabled
    torch.backends.cudnn.enabled = before and not is_recurrent(decoder)
    try:
        yield
    finally:
        torch.backends.cudnn.enabled = before


def is_recurrent(decoder: nn.Module) -> bool:
    """Return whether a decoder has recurrent layers."""
    return any(isinstance(module, nn.RNNBase) for module in decoder.modules())


def jvp(decoder: nn.Module, z: Tensor, direction: Tensor) -> Tensor:
    """Return J u in float32, for codes z and a direction u of one shape.

    Raises:
        UsageError: if the decoder's output does not depend on its input.
    """
    if z.is_cuda and is_recurrent(decoder):
        return jvp_in_reverse(decoder, z, direction)
    # autocast does not cast tangents, so forward mode runs in float32
    with torch.autocast(z.device.type, enabled=False), elementary_batch_norm(decoder), forward_ad.dual_level():
        dual = forward_ad.make_dual(z, direction.contiguous())  # type: ignore[no-untyped-call]
        tangent: Tensor | None = forward_ad.unpack_dual(decoder(dual)).tangent  # type: ignore[no-untyped-call]
    if tangent is None:
        raise UsageError(
            "the decoder's output does not depend on its input; the gradient penalty has nothing to act on"
        )
    return tangent


def jvp_in_reverse(decoder: nn.Module, z: Tensor, direction: Tensor) -> Tensor:
    """Return J u as the derivative of J^T v by v, along u: recurrent layers have no forward mode on a GPU."""
    leaf = z.detach().requires_grad_()
    with torch.autocast(z.device.type, enabled=False):
        output = decoder(leaf)
    v = torch.zeros_like(output, requires_grad=True)
    (pulled,) = torch.autograd.grad(output, leaf, v, create_graph=True)
    (pushed,) = torch.autograd.grad(pulled, v, direction, create_graph=True)
    return pushed
