"""One batch split over several processes: their rows, their noise, and sums over all rows.

The objective of a batch of N examples is L = sum_p (N_p / N) L_p over the processes p, with L_p the objective on the
N_p rows that process p has: rows p, p + P, p + 2 P, ... of the batch. Each process differentiates its own term, and
the gradients are summed. What couples examples (batch norm, the mean discrepancy, a codebook) goes through
`batch_total` and `batch_rows`, whose derivatives are sums over the processes as well. So the gradient is that of one
process with the whole batch, up to the order of the sums, also where it is a derivative of a derivative.

Every process draws the same noise for the whole batch and keeps its own rows. In a single process no function here
exchanges anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from expost import distributed

#: Most numbers that are drawn for a whole batch. Beyond it each process draws its own rows from its own stream, which
#: is as random, but gives other numbers than a single process.
LARGEST_DRAW = 2**26


class Noise:
    """The source of the noise of the next batches.

    It seeds torch's global generators of the device: by the seed alone in a single process, else for each process by
    its own address, so that layers which draw for themselves (dropout) do not draw alike.

    Args:
        seed: Determines all of it.
        device: Device to draw on.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self.shared: torch.Generator | None = None
        if distributed.world() > 1:
            self.shared = torch.Generator(device).manual_seed(seed)
            seed = int(np.random.SeedSequence([seed, distributed.rank()]).generate_state(1, np.uint64)[0] >> 1)
        if device.type == "cpu":  # torch.manual_seed formats the stack once for each accelerator that is not in use
            torch.default_generator.manual_seed(seed)
        else:
            torch.manual_seed(seed)


@dataclass(frozen=True)
class Part:
    """The part of a batch that this process has.

    Attributes:
        count: Rows N of the batch.
        index: Number p of this part.
        parts: How many parts there are. A batch with fewer rows than processes is not split: all have the whole.
        share: Its weight in the objective; of a batch that is not split, one over the number of processes.
        noise: Generator of the draws that all processes share.
    """

    count: int
    index: int
    parts: int
    share: float
    noise: torch.Generator

    @property
    def rows(self) -> slice:
        """The rows of the batch in this part."""
        return slice(self.index, self.count, self.parts)

    def __len__(self) -> int:
        """Return the number of rows in this part."""
        return len(range(*self.rows.indices(self.count)))


class _Now:
    """The current part; None in a single process, or outside a batch."""

    part: Part | None = None


@contextmanager
def split(count: int, noise: Noise) -> Iterator[Part]:
    """Work on this process's part of a batch of `count` rows.

    Args:
        count: Rows of the batch.
        noise: Source of its noise.

    Yields:
        The part; in a single process all of it.
    """
    if noise.shared is None:
        yield Part(count, 0, 1, 1.0, torch.default_generator)
        return
    processes = distributed.world()
    if count < processes:
        part = Part(count, 0, 1, 1 / processes, noise.shared)
    else:
        part = Part(count, distributed.rank(), processes, 1.0, noise.shared)
        part = replace(part, share=len(part) / count)
    _Now.part = part
    try:
        yield part
    finally:
        _Now.part = None


@contextmanager
def head(x: Tensor, fraction: float) -> Iterator[tuple[Tensor, float]]:
    """Work on the first examples of the current batch, a given fraction of it.

    Args:
        x: This process's rows of the batch.
        fraction: In (0, 1]; at least two examples are taken (batch norm needs as many), and one for each process.

    Yields:
        This process's rows of them, and the divisor of their sum: with it the mean over the processes, each weighted
        by its share of the batch, is the mean over these examples. In a single process it is their number.
    """
    part = _Now.part
    if part is None:
        count = max(min(2, len(x)), round(fraction * len(x)))
        yield x[:count], count
        return
    count = max(min(2, part.count), part.parts, round(fraction * part.count))
    _Now.part = fewer = replace(part, count=count)
    try:
        yield x[: len(fewer)], count * part.share * (1 if part.parts > 1 else distributed.world())
    finally:
        _Now.part = part


class _Total(torch.autograd.Function):
    """The sum over the processes; so are its derivatives, of any order, backward and forward."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        y = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(y)
        return y

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return batch_total(gradients[0])

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        return batch_total(tangents[0])


def batch_total(x: Tensor) -> Tensor:
    """Return the sum over the processes that share the current batch, with its derivatives."""
    alone = distributed.world() == 1 or (_Now.part is not None and _Now.part.parts == 1)
    return x if alone else _Total.apply(x)  # type: ignore[no-untyped-call]


def batch_rows(x: Tensor) -> Tensor:
    """Return the rows of the whole batch, in its order, from this process's; gradients reach all of them."""
    part = _Now.part
    if part is None or part.parts == 1:
        return x
    mine = torch.arange(part.count, device=x.device)[part.rows]
    return batch_total(x.new_zeros(part.count, *x.shape[1:]).index_copy(0, mine, x))


def _draw(shape: tuple[int, ...], part: Part, device: torch.device, signs: bool) -> Tensor:
    if signs:
        return torch.randint(0, 2, shape, generator=part.noise, device=device)
    return torch.randn(shape, generator=part.noise, device=device)


def _draw_rows(x: Tensor, part: Part, signs: bool) -> Tensor:
    if len(x) != len(part):
        raise ValueError(f"noise for {len(x)} rows, but this process has {len(part)} of the batch")
    if part.count * x[:1].numel() > LARGEST_DRAW:
        return torch.randint(0, 2, x.shape, device=x.device) if signs else torch.randn(x.shape, device=x.device)
    return _draw((part.count, *x.shape[1:]), part, x.device, signs)[part.rows]


def normal_like(x: Tensor) -> Tensor:
    """Draw N(0, I) for this process's rows of the current batch, of their shape and type."""
    # from the shape alone: draws must not depend on the memory layout, or on the number of processes
    if _Now.part is None:
        return torch.randn(x.shape, device=x.device).to(x.dtype)
    return _draw_rows(x, _Now.part, False).to(x.dtype)


def random_signs(x: Tensor) -> Tensor:
    """Draw -1 and 1 with equal probability for this process's rows of the current batch, of their shape and type."""
    coins = torch.randint(0, 2, x.shape, device=x.device) if _Now.part is None else _draw_rows(x, _Now.part, True)
    return coins.to(x.dtype).mul_(2).sub_(1)


def normal_for_all(like: Tensor) -> Tensor:
    """Draw N(0, I) of the shape and type of `like`, the same in every process."""
    if _Now.part is None:
        return torch.randn(like.shape, device=like.device).to(like.dtype)
    return _draw(tuple(like.shape), _Now.part, like.device, False).to(like.dtype)


def choices_for_all(below: int, count: int, device: torch.device) -> Tensor:
    """Draw `count` whole numbers from 0 to `below` - 1, the same in every process."""
    source = None if _Now.part is None else _Now.part.noise
    return torch.randint(below, (count,), device=device, generator=source)
