"""The Gaussian kernel's discrepancy: the authors' double sums, closed forms, and its error against fresh draws."""

import numpy as np
import pytest
import torch

from expost.errors import DataError
from expost.metrics import gaussian, kernel
from expost.metrics.gaussian import gaussian_discrepancy


def normal(n, d, seed, scale=1.0, shift=0.0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * scale + shift


def published(x, y):
    """CMMD as its authors compute it, of embeddings of unit length."""
    x, y = (z / z.norm(dim=1, keepdim=True) for z in (x, y))

    def mean(a, b):
        squares = -2 * a @ b.T + a.square().sum(1)[:, None] + b.square().sum(1)
        return torch.exp(-squares / (2 * 10**2)).mean()

    return float(1000 * (mean(x, x) + mean(y, y) - 2 * mean(x, y)))


@pytest.mark.parametrize("sizes", [(50, 50), (40, 73)])
def test_it_is_the_double_sum_of_the_authors(sizes):
    x, y = normal(sizes[0], 16, 0), normal(sizes[1], 16, 1, 1.2, 0.3)
    expected = published(x, y)
    assert expected > 0.1
    assert gaussian_discrepancy(x, y).value == pytest.approx(expected, rel=1e-9)


def test_two_points_have_their_closed_form():
    """All x in one direction, all y in another, at an angle: 2000 (1 - exp(-(2 - 2 cos) / 200))."""
    for angle in (0.1, 1.0, 3.0):
        x = torch.tensor([[2.0, 0.0]]).repeat(6, 1)
        y = torch.tensor([[np.cos(angle), np.sin(angle)]]).repeat(5, 1) * 7
        expected = 2000 * (1 - np.exp(-(2 - 2 * np.cos(angle)) / 200))
        assert gaussian_discrepancy(x, y).value == pytest.approx(expected, rel=1e-5)


def test_directions_of_a_gaussian_have_the_mean_of_the_kernel_on_the_sphere():
    """Uniform directions x and one direction y: E exp((x.y - 1) / 100) = e^-1/100 sinh(1/100) / (1/100) in 3-d."""
    x, y = normal(4000, 3, 0), torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64).repeat(4, 1)
    mean = np.exp(-0.01) * np.sinh(0.01) / 0.01
    assert gaussian_discrepancy(x, y).value == pytest.approx(1000 * (mean + 1 - 2 * mean), rel=0.02)


def test_blocks_do_not_matter(monkeypatch):
    x, y = normal(50, 6, 0), normal(41, 6, 1, 1.2, 0.3)
    whole = gaussian_discrepancy(x, y)
    monkeypatch.setattr("expost.metrics.gaussian._ELEMENTS", 300)
    parts = gaussian_discrepancy(x, y)
    assert parts.value == pytest.approx(whole.value, rel=1e-10)
    assert parts.standard_error == pytest.approx(whole.standard_error, rel=1e-8)
    torch.testing.assert_close(parts.influence.reference, whole.influence.reference)


@pytest.mark.parametrize(("shift", "most"), [(0.0, 1.35), (0.4, 1.15)])
def test_the_standard_error_is_the_scatter_over_fresh_draws(shift, most):
    """Of equal distributions too, where the leading term vanishes; cut off at 0, its estimate is then too large."""
    found = [
        gaussian_discrepancy(normal(80, 5, 2 * seed), normal(60, 5, 2 * seed + 1, 1.0, shift)) for seed in range(200)
    ]
    scatter = np.std([each.value for each in found], ddof=1)
    assert 0.87 < np.sqrt(np.mean([each.standard_error**2 for each in found])) / scatter < most


def test_the_components_of_the_variance_are_those_of_the_whole_matrices():
    """Fitted from the sums of each row and of the squares, against the residuals themselves."""
    u, v = (z / z.norm(dim=1, keepdim=True) for z in (normal(30, 4, 0), normal(30, 4, 1, 1.0, 0.5)))
    whole = [torch.exp(-torch.cdist(a, b).square() / 200) - 1 for a, b in ((u, u), (v, v), (u, v))]
    sums = [gaussian._Sums.within(u), gaussian._Sums.within(v), gaussian._Sums.between(u, v)]
    expected = kernel._variances(*whole)
    assert min(expected) > 0
    assert gaussian._variances(*sums) == pytest.approx(expected, rel=1e-6)


def test_the_influence_is_the_derivative_in_an_examples_weight():
    x, y = normal(30, 4, 0), normal(25, 4, 1, 1.0, 0.5)
    found = gaussian_discrepancy(x, y)
    u, v = (z / z.norm(dim=1, keepdim=True) for z in (x, y))

    def value(weights):
        def part(a, b, p, q):
            return p @ torch.exp(-torch.cdist(a, b).square() / 200) @ q

        even = torch.full((30,), 1 / 30, dtype=torch.float64)
        return 1000 * (part(u, u, even, even) + part(v, v, weights, weights) - 2 * part(u, v, even, weights))

    even = torch.full((25,), 1 / 25, dtype=torch.float64)
    influence = found.influence.samples
    for place in (0, 24):
        towards = torch.zeros(25, dtype=torch.float64)
        towards[place] = 1
        slope = float(value(even + 1e-5 * (towards - even)) - value(even - 1e-5 * (towards - even))) / 2e-5
        assert slope == pytest.approx(float(influence[place] - influence.mean()), rel=1e-4)


def test_fewer_than_four_examples_are_refused():
    with pytest.raises(DataError, match="samples: got 3 examples, but at least 4 are needed"):
        gaussian_discrepancy(normal(4, 2, 0), normal(3, 2, 1))
