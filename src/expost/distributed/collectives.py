"""Exchanges between processes: sums, rows, copies. In a single process nothing here does any work.

Sums are taken in the precision of what is summed: statistics are given in float64. CPU tensors travel by gloo, CUDA
tensors by NCCL (by gloo where processes share a GPU, which NCCL refuses).
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from expost.distributed.launch import rank, world


def travelling(x: Tensor) -> Tensor:
    """Return a tensor on a device where the processes can exchange it: a GPU, if the group has no gloo."""
    if x.device.type == "cpu" and "gloo" not in str(dist.get_backend_config()):
        return x.cuda()
    return x


def add_up(x: Tensor) -> None:
    """Sum a tensor over the processes, in place."""
    if world() > 1:
        carried = travelling(x.contiguous())
        dist.all_reduce(carried)
        if carried is not x:
            x.copy_(carried)


def total(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Return the sums of tensors over the processes, all of them in one exchange; one dtype and device."""
    if world() == 1:
        return tensors
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    add_up(flat)
    parts = flat.split([tensor.numel() for tensor in tensors])  # type: ignore[no-untyped-call]
    return tuple(part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True))


def mean(values: Tensor) -> Tensor:
    """Return the mean of numbers that are spread over the processes, shape (n,) in each."""
    if world() == 1:
        return values.mean()
    whole, count = total(values.sum(), values.new_tensor(len(values)))
    return whole / count


def bounds(count: int, part: int | None = None) -> tuple[int, int]:
    """Return the first row and the end of the rows that a process has of `count`; `part` None is this process.

    Example:
        >>> bounds(5)
        (0, 5)
    """
    size, rest = divmod(count, world())
    index = rank() if part is None else part
    first = index * size + min(index, rest)
    return first, first + size + (index < rest)


def shard(x: Tensor) -> Tensor:
    """Return this process's rows (a view) of a tensor that all processes have."""
    first, last = bounds(len(x))
    return x[first:last]


def gather(part: Tensor, count: int) -> Tensor:
    """Return all `count` rows in every process, from the part that each has by `bounds`."""
    if world() == 1:
        return part
    longest = -(-count // world())
    padded = travelling(part.new_zeros(longest, *part.shape[1:]))
    padded[: len(part)] = part
    everything = padded.new_empty(world() * longest, *part.shape[1:])
    dist.all_gather(list(everything.chunk(world())), padded)
    if count == len(everything):
        return everything.to(part.device)
    sizes = [bounds(count, each) for each in range(world())]
    pieces = [everything[i * longest : i * longest + last - first] for i, (first, last) in enumerate(sizes)]
    return torch.cat(pieces).to(part.device)


def everywhere(flag: bool) -> bool:
    """Return whether a flag is set in every process."""
    if world() == 1:
        return flag
    missing = torch.tensor(0 if flag else 1)
    add_up(missing)
    return not bool(missing)


def copy_from_main(*tensors: Tensor) -> None:
    """Overwrite tensors by those of the first process."""
    if world() > 1:
        for tensor in tensors:
            carried = travelling(tensor.detach().contiguous())
            dist.broadcast(carried, 0)
            if carried is not tensor:
                tensor.detach().copy_(carried)


def barrier() -> None:
    """Wait for the other processes."""
    add_up(torch.zeros(1))
