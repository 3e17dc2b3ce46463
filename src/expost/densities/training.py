"""What densities that are trained by steps share: the held-out part, batches, the loop, the best weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from expost.errors import DataError
from expost.utils.progress import progress

#: Checks of the held-out codes in a training.
CHECKS = 20
#: Share of the mean of weights that a step leaves.
_DECAY = 0.999


def hold_out(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return a tenth of the numbers below n (at least one), drawn at random, and the others; on the CPU."""
    order = torch.randperm(n, generator=generator)
    held = max(1, n // 10)
    return order[:held], order[held:]


def in_batches(rows: Tensor, size: int, steps: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield `steps` batches of `size` rows (all, if there are fewer): passes in random order, one after another.

    The rows that are left over at the end of a pass begin the next.
    """
    size = min(size, len(rows))
    waiting = torch.empty(0, dtype=torch.int64)
    for _ in range(steps):
        while len(waiting) < size:
            waiting = torch.cat([waiting, torch.randperm(len(rows), generator=generator)])
        taken, waiting = waiting[:size], waiting[size:]
        yield rows[taken]


def train(
    name: str,
    optimizer: torch.optim.Optimizer,
    lr: float,
    batches: Iterator[Tensor],
    steps: int,
    step: Callable[[Tensor], None],
    weights: Callable[[], Mapping[str, Tensor]],
    judge: Callable[[], Tensor],
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Train by steps, with a rate that falls from `lr` to 0 by half a cosine; look at held-out codes `CHECKS` times.

    Args:
        name: The density's, for messages.
        optimizer: Its rate is set before each step.
        lr: Largest rate.
        batches: The rows of each step.
        steps: Their number.
        step: Takes one step.
        weights: Returns the weights as they are now.
        judge: Returns the loss of each held-out code by them.

    Returns:
        The best weights, the start's among them (see `_Best`), and the statistics `steps`, `best_step`,
        `validation_loss` and `start_loss`, that of the start.

    Raises:
        DataError: if the loss is not finite.
    """
    best = _Best(weights(), judge())
    every = max(1, steps // CHECKS)
    with progress(f"fitting {name}", steps) as bar:
        for number, batch in enumerate(batches, 1):
            bar.advance()
            for group in optimizer.param_groups:
                group["lr"] = lr * 0.5 * (1 + math.cos(math.pi * (number - 1) / steps))
            step(batch)
            if number % every == 0 or number == steps:
                losses = judge()
                if not math.isfinite(mean := losses.mean().item()):
                    raise DataError(f"{name}: the loss is {mean} at step {number}; lower lr={lr:g}")
                best.keep(weights(), losses, number)
    return best.weights, {
        "steps": steps,
        "best_step": best.step,
        "validation_loss": best.loss,
        "start_loss": best.first,
    }


class Means:
    """Means of weights over the steps so far, of which the last ones count most; they vary less than the weights do.

    After step n each mean is a m + (1 - a) w, with a = min(0.999, (1 + n) / (10 + n)).

    Attributes:
        tensors: The means.
    """

    def __init__(self, weights: Sequence[Tensor]) -> None:
        """Begin with the weights before the first step."""
        self._weights = [weight.detach() for weight in weights]
        self.tensors = [weight.clone() for weight in self._weights]
        self._steps = 0

    def update(self) -> None:
        """Take in the weights as they are after a step."""
        self._steps += 1
        decay = min(_DECAY, (1 + self._steps) / (10 + self._steps))
        torch._foreach_lerp_(self.tensors, self._weights, 1 - decay)


class _Best:
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
