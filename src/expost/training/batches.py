"""Batches of examples on a device, from data of any size: all of it there, or brought batch by batch."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from expost.data.mapped import memory_limit
from expost.types import to_unit


class Batches:
    """Examples as floats on a device, a batch at a time.

    Data that take at most half of an accelerator's free memory are put there once, and batches are cut out there.
    Larger data stay where they are, in memory or in a mapped file, and a batch is gathered into page-locked memory and
    copied from there. While one batch is computed on, a thread gathers the next, if that is known and the data are
    larger than `memory_limit`, so that they may have to be read from disk. The values never depend on which way was
    taken.

    Args:
        x: Examples, as `Split.x` has them, shape (N, ...).
        device: Device of the batches.
        resident: Whether to keep all examples on the device; None decides by their size.

    Example:
        >>> batches = Batches(torch.arange(8, dtype=torch.uint8).view(4, 1, 1, 2), torch.device("cpu"))
        >>> batches[torch.tensor([3, 0])].mul(255).flatten()
        tensor([6., 7., 0., 1.])
    """

    def __init__(self, x: Tensor, device: torch.device, resident: bool | None = None) -> None:
        size = x.numel() * x.element_size()
        self.device = device
        self.resident = size <= _free(device) // 2 if resident is None else resident
        self._x = x.to(device) if self.resident else x
        #: Device for the indices: looking a batch up from there does not wait.
        self.home = self._x.device
        self._pinned = device.type == "cuda" and not self.resident
        self._ahead = self.home.type == "cpu" and (device.type != "cpu" or size > memory_limit())
        self._thread: ThreadPoolExecutor | None = None
        self._pending: tuple[Tensor, Future[Tensor]] | None = None

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self._x)

    def __getitem__(self, indices: Tensor) -> Tensor:
        """Return some examples; see `take`."""
        return self.take(indices)

    def take(self, indices: Tensor, then: Tensor | None = None) -> Tensor:
        """Return some examples.

        Args:
            indices: Which, int64, shape (B,), on any device; best on `home`.
            then: Indices of the next batch, which is prepared meanwhile; a wrong guess costs time only.

        Returns:
            Shape (B, ...), on `device`: images as floats in [0, 1], vectors as they are, strings as rows of symbols.
        """
        batch = self._ready(indices.to(self.home))
        if self._ahead and then is not None and len(then):
            self._thread = self._thread or ThreadPoolExecutor(1, "expost-batches")
            then = then.to(self.home)
            self._pending = then, self._thread.submit(self._gather, then)
        return to_unit(batch.to(self.device, non_blocking=True))

    def _ready(self, indices: Tensor) -> Tensor:
        pending, self._pending = self._pending, None
        if pending is None:
            return self._gather(indices)
        foreseen, future = pending
        batch = future.result()  # waited for in any case, lest a wrong guess leave work behind
        return batch if torch.equal(foreseen, indices) else self._gather(indices)

    def _gather(self, indices: Tensor) -> Tensor:
        if not self._pinned:
            return self._x[indices]
        # from torch's own cache of page-locked memory, which waits with giving it out again until it was copied
        batch = torch.empty((len(indices), *self._x.shape[1:]), dtype=self._x.dtype, pin_memory=True)
        return torch.index_select(self._x, 0, indices, out=batch)


def _free(device: torch.device) -> int:
    """Return the bytes that are free on an accelerator; 0 for the CPU, to which nothing need be moved."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    return 0
