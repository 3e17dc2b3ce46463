"""The Vendi score: groups that are counted, both ways round the eigenvalues, and the influence of an example."""

import math

import numpy as np
import pytest
import torch

from expost.errors import UsageError
from expost.metrics.vendi import vendi_scores

ORDERS = (0.1, 0.5, 1.0, 2.0, 7.0, math.inf)


def normal(n, d, seed):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def values(features, orders=ORDERS):
    return [each.value for each in vendi_scores(features, orders)]


@pytest.mark.parametrize("groups", [1, 3, 20])
@pytest.mark.parametrize("d", [20, 500])
def test_equal_groups_at_right_angles_are_counted_in_every_order(groups, d):
    axes = torch.linalg.qr(normal(d, d, 0)).Q[:groups]
    scale = torch.rand(groups * 6, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 0.1
    assert values(axes.repeat(6, 1) * scale) == pytest.approx([groups] * len(ORDERS), rel=1e-8)  # lengths do not count


def test_unequal_groups_have_the_entropies_of_their_shares():
    shares = np.array([0.5, 0.3, 0.2])
    x = torch.eye(3, dtype=torch.float64).repeat_interleave(torch.tensor([50, 30, 20]), 0)
    renyi = [np.sum(shares**q) ** (1 / (1 - q)) for q in (0.1, 0.5)]
    expected = [
        *renyi,
        np.exp(-np.sum(shares * np.log(shares))),
        1 / np.sum(shares**2),
        np.sum(shares**7) ** (-1 / 6),
        2,
    ]
    assert values(x) == pytest.approx(expected, rel=1e-9)


def test_two_directions_at_an_angle_lie_between_one_and_two():
    """K = [[1, c], [c, 1]] has the eigenvalues 1 + c and 1 - c."""
    c = 0.6
    x = torch.tensor([[1.0, 0.0], [c, math.sqrt(1 - c**2)]])
    p = np.array([(1 + c) / 2, (1 - c) / 2])
    assert values(x, (1.0, 2.0)) == pytest.approx([np.exp(-np.sum(p * np.log(p))), 1 / np.sum(p**2)], rel=1e-6)


def test_more_features_than_examples_or_fewer_is_one_score():
    x = normal(30, 8, 0)
    wide = torch.cat([x, torch.zeros(30, 60, dtype=torch.float64)], dim=1)  # the other of the two matrices
    for narrow, padded in zip(vendi_scores(x, ORDERS[1:]), vendi_scores(wide, ORDERS[1:]), strict=True):
        assert padded.value == pytest.approx(narrow.value, rel=1e-9)
        torch.testing.assert_close(padded.influence.samples, narrow.influence.samples, rtol=1e-6, atol=1e-8)


def test_orders_fall_and_no_score_exceeds_examples_or_features():
    for n, d in ((12, 40), (40, 12)):
        found = values(normal(n, d, 0))
        assert found == sorted(found, reverse=True)
        assert 1 <= found[-1] < found[0] <= 12 * (1 + 1e-9)


@pytest.mark.parametrize("order", [0.5, 1.0, 2.0, math.inf])
def test_the_influence_of_an_example_is_what_its_weight_does(order):
    x = normal(30, 4, 2) + 0.5
    u = x / x.norm(dim=1, keepdim=True)
    (found,) = vendi_scores(x, (order,))

    def score(place, by):
        weights = torch.full((30,), (1 - by) / 30, dtype=torch.float64)
        weights[place] += by
        p = torch.linalg.eigvalsh((u * weights[:, None]).T @ u)
        if order == 1.0:
            return float(torch.exp(-(p * p.log()).sum()))
        return float(1 / p.max()) if order == math.inf else float(p.pow(order).sum() ** (1 / (1 - order)))

    for place in (0, 11, 29):
        slope = (score(place, 1e-6) - score(place, -1e-6)) / 2e-6
        influence = found.influence.samples
        assert slope == pytest.approx(float(influence[place] - influence.mean()), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("order", [0.0, -1.0, math.nan])
def test_an_order_out_of_range_is_refused(order):
    with pytest.raises(UsageError, match="order"):
        vendi_scores(normal(5, 3, 0), (order,))
