"""What contract tests share: every entry of a registry has a reference, and gradients are those of a formula."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import pytest
import torch
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
