"""What densities that are trained by gradient share: the held-out part, batches, the rate, the best weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor


def hold_out(x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return a tenth of the rows (at least one), drawn at random, and the others (all, if there is but one)."""
    order = torch.randperm(len(x), generator=generator).to(x.device)
    held = max(1, len(x) // 10)
    return x[order[:held]], x[order[held:]]


def in_batches(x: Tensor, size: int, steps: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield `steps` batches of `size` rows (all, if there are fewer): passes in random order, one after another.

    The rows that are left over at the end of a pass begin the next.
    """
    size = min(size, len(x))
    waiting = torch.empty(0, dtype=torch.int64)
    for _ in range(steps):
        while len(waiting) < size:
            waiting = torch.cat([waiting, torch.randperm(len(x), generator=generator)])
        rows, waiting = waiting[:size], waiting[size:]
        yield x[rows.to(x.device)]


def cosine(lr: float, step: int, steps: int) -> float:
    """Return the rate of a step from 1 to `steps`: half a cosine from `lr` to 0."""
    return lr * 0.5 * (1 + math.cos(math.pi * (step - 1) / steps))


class Held:
    """The weights that held-out codes like best, among those that they like better than the start beyond chance."""

    def __init__(self, weights: Mapping[str, Tensor], losses: Tensor) -> None:
        """Begin with the weights before the first step, and the loss of each held-out code."""
        self._start = losses
        self.first = losses.mean().item()
        self._take(weights, self.first, 0)

    def keep(self, weights: Mapping[str, Tensor], losses: Tensor, step: int) -> None:
        """Keep a copy of these, if their loss is the smallest so far.

        It must also be below the start's by two standard errors of the paired difference.
        """
        loss, lead = losses.mean().item(), self._start - losses
        error = lead.std().item() / math.sqrt(len(lead)) if len(lead) > 1 else math.inf
        if loss < self.loss and lead.mean().item() > 2 * error:
            self._take(weights, loss, step)

    def _take(self, weights: Mapping[str, Tensor], loss: float, step: int) -> None:
        self.weights = {name: tensor.detach().clone() for name, tensor in weights.items()}
        self.loss, self.step = loss, step
