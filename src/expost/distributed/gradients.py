"""Data-parallel training: batch norm over the whole batch, and gradients summed over the processes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from expost import distributed
from expost.distributed.batch_norm import elementary_batch_norm

#: Bytes of gradients that are summed in one exchange.
BUCKET = 2**25


class _Bucket:
    """Gradients summed in one exchange, which starts when the last of them has been computed."""

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        self.parameters = parameters
        self.missing = len(parameters)
        self.filled: list[Tensor] = []
        self.flat = torch.empty(0)
        self.work: Any = None

    def arrived(self, parameter: Tensor) -> None:
        self.missing -= 1
        if self.missing == 0:
            self.start()

    def start(self) -> None:
        self.filled = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        if self.filled:
            self.flat = torch.cat([gradient.reshape(-1) for gradient in self.filled])
            self.work = dist.all_reduce(self.flat, async_op=True)

    def finish(self) -> None:
        if self.missing > 0:  # the objective does not depend on some parameter
            self.start()
        if self.work is not None:
            self.work.wait()
            pieces = self.flat.split([gradient.numel() for gradient in self.filled])  # type: ignore[no-untyped-call]
            for gradient, piece in zip(self.filled, pieces, strict=True):
                gradient.copy_(piece.view(gradient.shape))
        self.missing, self.work = len(self.parameters), None


class Gradients:
    """Sums gradients over the processes in buckets, those of the last layers during the backward pass of the first."""

    def __init__(self, buckets: list[_Bucket]) -> None:
        self._buckets = buckets

    def finish(self) -> None:
        """Wait until `grad` of every parameter is the sum over the processes; call it after each backward pass."""
        for bucket in self._buckets:
            bucket.finish()


@contextmanager
def replicated(model: nn.Module) -> Iterator[Gradients]:
    """Train a model alike in all processes: its batch norm sees whole batches, and its gradients are summed.

    All processes start from the weights of the first. The block leaves no hooks on the model.

    Args:
        model: The same in every process, on its device; do not move it inside the block.
    """
    if distributed.world() == 1:
        yield Gradients([])
        return
    distributed.copy_from_main(*model.parameters(), *model.buffers())
    groups: list[list[nn.Parameter]] = [[]]
    size, kind = 0, None
    for parameter in reversed([each for each in model.parameters() if each.requires_grad]):  # the order they come in
        same = kind in (None, (parameter.dtype, parameter.device))
        if groups[-1] and (size + parameter.nbytes > BUCKET or not same):
            groups.append([])
            size = 0
        groups[-1].append(parameter)
        size, kind = size + parameter.nbytes, (parameter.dtype, parameter.device)
    buckets = [_Bucket(group) for group in groups if group]
    hooks = [
        parameter.register_post_accumulate_grad_hook(bucket.arrived)  # type: ignore[no-untyped-call]
        for bucket in buckets
        for parameter in bucket.parameters
    ]
    try:
        with elementary_batch_norm(model):
            yield Gradients(buckets)
    finally:
        for hook in hooks:
            hook.remove()
