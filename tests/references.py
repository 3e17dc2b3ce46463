"""What contract tests share: every entry of a registry has a reference, and gradients are those of a formula."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

T = TypeVar("T")


def reference_for(name: str, table: Mapping[str, T], where: str) -> T:
    """The reference of a registry's entry; without one the test fails, and says where one belongs."""
    if name not in table:
        pytest.fail(f"'{name}' has no reference formula yet; write it out and add it to {where}", pytrace=False)
    return table[name]


def assert_gradients(
    value: Callable[[], Tensor], inputs: Sequence[Tensor], of: Callable[[], Tensor] | None = None, step: float = 1e-6
) -> None:
    """Compare the gradient of `value` with central differences of `of` (of itself, if not given), along two directions.

    Both take their inputs from the outside, as leaves in float64, and are to seed what they draw.
    """
    of = of or value
    generator = torch.Generator().manual_seed(99)
    gradients = torch.autograd.grad(value(), inputs, allow_unused=True, materialize_grads=True)
    for x, gradient in zip(inputs, gradients, strict=True):
        for _ in range(2):
            direction = torch.randn(x.shape, generator=generator).to(x)
            direction /= direction.norm()
            ends = []
            for sign in (1, -1):
                with torch.no_grad():
                    x.add_(direction, alpha=sign * step)
                ends.append(of().item())
                with torch.no_grad():
                    x.sub_(direction, alpha=sign * step)
            expected = (ends[0] - ends[1]) / (2 * step)
            scale = max(1.0, *map(abs, ends))
            assert (gradient * direction).sum().item() == pytest.approx(expected, rel=1e-5, abs=1e-8 * scale)


def bulk_units(z: Tensor) -> Tensor:
    """Return the interquartile range over that of N(0, 1), or the deviation where that is less, of each dimension."""
    lower, upper = (
        np.quantile(z.numpy(), 0.25, axis=0, method="lower"),
        np.quantile(z.numpy(), 0.75, axis=0, method="higher"),
    )
    return torch.from_numpy(np.minimum((upper - lower) / (2 * stats.norm.ppf(0.75)), z.numpy().std(0)))
