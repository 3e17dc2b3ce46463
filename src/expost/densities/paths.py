"""Following dy/dt = s(y, t): fixed steps of Runge and Kutta, or Dormand and Prince's with steps of their own a row.

No row's path depends on the others: a density of codes is the same in any batch. (Packages that solve for a whole batch
at a time choose its steps by the batch.)
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from expost.errors import DataError

#: s(y, t, rows): the slopes of positions y (N, d) at times t, (N, 1) or (1, 1); `rows` says which of the positions that
#: the path began with they are, None for all.
Slope = Callable[[Tensor, Tensor, Tensor | None], Tensor]

#: Dormand and Prince (1980): the stages' times, their weights, those of the fifth order (the last row of weights), and
#: what these differ by from the fourth.
_TIMES = (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
_WEIGHTS = (
    (),
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
_ERRORS = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)
#: First step, and the most that are tried.
_FIRST, _MOST = 0.1, 1_000
#: By how much a step may shrink and grow, and how far below the allowed error the next one aims.
_SHRINK, _GROW, _SAFETY = 0.2, 5.0, 0.9


def runge_kutta(slope: Slope, y: Tensor, start: float, end: float, steps: int) -> Tensor:
    """Follow the path from y at `start` to `end` in equal steps of the classical fourth-order method."""
    h = (end - start) / steps
    for k in range(steps):
        t = start + k * h
        at, middle, after = (torch.full((1, 1), each, device=y.device) for each in (t, t + 0.5 * h, t + h))
        first = slope(y, at, None)
        second = slope(y + 0.5 * h * first, middle, None)
        third = slope(y + 0.5 * h * second, middle, None)
        fourth = slope(y + h * third, after, None)
        y = y + h / 6 * (first + 2 * second + 2 * third + fourth)
    return y


def dormand_prince(slope: Slope, y: Tensor, start: float, end: float, tolerance: float) -> Tensor:
    """Follow the path from y at `start` to `end`, each row with the steps that its error asks for.

    The error of a step is the difference of the fifth order from the fourth, as root mean square over the dimensions of
    error / (1 + |y|). Where it is above the tolerance, the step is taken again, smaller.

    Raises:
        DataError: if a row needs more than a thousand steps.
    """
    sign = 1.0 if end > start else -1.0
    span = abs(end - start)
    y = y.clone()
    done = torch.zeros(len(y), 1, dtype=torch.float64, device=y.device)
    step = torch.full_like(done, min(_FIRST, span))
    first = slope(y, (start + sign * done).float(), None)
    rows = torch.arange(len(y), device=y.device)
    for _ in range(_MOST):
        if not len(rows):
            return y
        h = torch.minimum(step[rows], span - done[rows])
        stages = [first[rows]]
        at, here = done[rows], y[rows]
        signed = (sign * h).to(y.dtype)
        new = here
        for time, weights in zip(_TIMES[1:], _WEIGHTS[1:], strict=True):
            new = here + signed * _combine(weights, stages)
            stages.append(slope(new, (start + sign * (at + time * h)).float(), rows))
        errors = (signed * _combine(_ERRORS, stages) / (1 + torch.maximum(here.abs(), new.abs()))).double()
        error = errors.square().mean(1, keepdim=True).sqrt() / tolerance
        good = error <= 1  # not where it is NaN
        factor = (_SAFETY * error.clamp(min=1e-10) ** -0.2).nan_to_num(_SHRINK).clamp(_SHRINK, _GROW)
        step[rows] = h * factor
        taken = good[:, 0]
        moved = rows[taken]
        y[moved], first[moved] = new[taken], stages[-1][taken]
        done[moved] = at[taken] + h[taken]
        rows = rows[(done[rows] < span * (1 - 1e-12))[:, 0]]
    raise DataError(f"the path of a code needs more than {_MOST} steps; raise tolerance={tolerance:g}")


def _combine(weights: tuple[float, ...], stages: list[Tensor]) -> Tensor:
    total = torch.zeros_like(stages[0])
    for weight, stage in zip(weights, stages, strict=True):
        if weight:
            total = total.add_(stage, alpha=weight)
    return total
