"""Schedules: the learning rate of each step, and the share of the penalty's weight that it has.

With t steps done of T in all, and W steps of warm-up, the rate of the next step is

    base (t + 1) / W                                              for t < W
    min_lr + (base - min_lr) shape((t - W) / (T - W))             from then on

where base is the initial rate, as far as the plateau has not cut it, and the shape is 1 or falls from 1 to 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from expost.config import TrainingConfig
from expost.registry import Registry


@dataclass(frozen=True)
class Schedule:
    """How the learning rate falls.

    Attributes:
        shape: From the share of the steps that are done, in [0, 1), to the share of the rate above its floor.
        plateau: Whether the rate is cut when the validation loss does not get better.
    """

    shape: Callable[[float], float]
    plateau: bool


def half_cosine(done: float) -> float:
    """Return 1/2 (1 + cos(pi done)), which falls from 1 to 0 (Loshchilov & Hutter 2017, eq. 5, without restarts).

    Example:
        >>> [round(half_cosine(done), 3) for done in (0, 0.25, 0.5, 1)]
        [1.0, 0.854, 0.5, 0.0]
    """
    return 0.5 * (1 + math.cos(math.pi * done))


def _level(done: float) -> float:
    return 1.0


#: The schedules. A new one is a line here, and a name in `TrainingConfig.schedule`.
SCHEDULES: Registry[Schedule] = Registry(
    "schedule",
    {
        "plateau": Schedule(_level, plateau=True),
        "cosine": Schedule(half_cosine, plateau=False),
        "constant": Schedule(_level, plateau=False),
    },
)


def warming(epochs: float, steps_per_epoch: int) -> int:
    """Return how many steps a warm-up of so many epochs takes, at least 0."""
    return round(epochs * steps_per_epoch)


def ramp(step: int, steps: int) -> float:
    """Return the share, in (0, 1], that a warm-up of `steps` steps gives the step after `step` others.

    Example:
        >>> [ramp(step, 4) for step in range(6)], ramp(0, 0)
        ([0.25, 0.5, 0.75, 1.0, 1.0, 1.0], 1.0)
    """
    return min(1.0, (step + 1) / steps) if steps else 1.0


def rate(config: TrainingConfig, base: float, step: int, steps_per_epoch: int) -> float:
    """Return the learning rate of the step after `step` others.

    Args:
        config: How to train; its epochs are the length of a schedule that falls.
        base: The initial rate, with the cuts so far.
        step: Steps taken, at least 0.
        steps_per_epoch: At least 1.
    """
    warm, total = warming(config.lr_warmup, steps_per_epoch), config.epochs * steps_per_epoch
    if step < warm:
        return base * ramp(step, warm)
    share = SCHEDULES[config.schedule].shape(min(1.0, (step - warm) / max(1, total - warm)))
    return base if share == 1 else config.min_lr + (base - config.min_lr) * share
