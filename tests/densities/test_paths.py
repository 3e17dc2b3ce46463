"""Solvers of paths: known solutions, their orders, steps of a row that no other row changes."""

import math

import pytest
import torch
from torch import Tensor

from expost.densities.paths import dormand_prince, runge_kutta
from expost.errors import DataError


def turning(y: Tensor, t: Tensor, rows: Tensor | None) -> Tensor:
    """y' = 2 pi t R y, R a quarter turn: at t = 1 the start, turned by pi t^2."""
    return 2 * math.pi * t.to(y.dtype) * torch.stack([-y[:, 1], y[:, 0]], 1)


START = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, -1.0]], dtype=torch.float64)


def test_a_known_path_is_followed_both_ways() -> None:
    for solve in (
        lambda y, a, b: runge_kutta(turning, y, a, b, 64),
        lambda y, a, b: dormand_prince(turning, y, a, b, 1e-6),
    ):
        end = solve(START, 0.0, 1.0)
        torch.testing.assert_close(end, -START, atol=2e-5, rtol=0)
        torch.testing.assert_close(solve(end, 1.0, 0.0), START, atol=4e-5, rtol=0)
        torch.testing.assert_close(solve(START, 0.0, 0.5), START @ _turn(math.pi / 4).T, atol=2e-5, rtol=0)


def _turn(angle: float) -> Tensor:
    return torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], dtype=torch.float64)


def test_runge_and_kutta_are_of_fourth_order() -> None:
    errors = [float((runge_kutta(turning, START, 0.0, 1.0, n) + START).abs().max()) for n in (8, 16, 32)]
    assert 13 < errors[0] / errors[1] < 40
    assert 13 < errors[1] / errors[2] < 40


def test_dormand_and_prince_have_the_error_that_is_allowed_at_a_price() -> None:
    """A hundredth of the tolerance costs 100^(1/5) = 2.5 times the steps."""
    errors, costs = [], []
    for tolerance in (1e-2, 1e-4, 1e-6):
        calls = 0

        def counted(y: Tensor, t: Tensor, rows: Tensor | None) -> Tensor:
            nonlocal calls
            calls += 1
            return turning(y, t, rows)

        errors.append(float((dormand_prince(counted, START, 0.0, 1.0, tolerance) + START).abs().max()))
        costs.append(calls)
    for error, tolerance in zip(errors, (1e-2, 1e-4, 1e-6), strict=True):
        assert error < 20 * tolerance
    assert 1.2 < costs[1] / costs[0] < 3.5
    assert 1.3 < costs[2] / costs[1] < 3.5


def test_no_row_changes_the_steps_of_another() -> None:
    speeds = torch.tensor([0.1, 1.0, 30.0], dtype=torch.float64)[:, None]
    seen = []

    def growing(y: Tensor, t: Tensor, rows: Tensor | None) -> Tensor:
        seen.append(len(y))
        chosen = speeds[: len(y)] if rows is None else speeds[rows]
        return -chosen * (y - t.to(y.dtype).cos())

    together = dormand_prince(growing, torch.ones(3, 1, dtype=torch.float64), 0.0, 1.0, 1e-4)
    assert min(seen) == 1  # rows that have arrived cost nothing
    for i in range(3):
        slope = lambda y, t, rows, i=i: -speeds[i] * (y - t.to(y.dtype).cos())  # noqa: E731
        alone = dormand_prince(slope, torch.ones(1, 1, dtype=torch.float64), 0.0, 1.0, 1e-4)
        assert torch.equal(together[i], alone[0])


def test_a_path_without_an_end_is_refused() -> None:
    def exploding(y: Tensor, t: Tensor, rows: Tensor | None) -> Tensor:
        return y.square()  # infinite at t = 1 / y(0)

    with pytest.raises(DataError, match="more than 1000 steps; raise tolerance=1e-06"):
        dormand_prince(exploding, torch.full((2, 1), 3.0, dtype=torch.float64), 0.0, 1.0, 1e-6)
