"""The Monge distance: closed forms of Gaussians, unequal sizes, few examples, and the influence of an example."""

import numpy as np
import pytest
import torch
from scipy import stats

from expost.errors import DataError, UsageError
from expost.metrics.sliced import monge_distance


def normal(n, d, seed, scale=1.0, shift=0.0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * scale + shift


def directions(count, d, seed=0):
    drawn = torch.randn(count, d, generator=torch.Generator().manual_seed(seed)).double()
    return drawn / drawn.norm(dim=1, keepdim=True)


def test_sets_of_one_size_are_compared_value_by_value_after_sorting():
    """The published definition: 3 d / (n M) times the sum of |sort(u_i X)_j - sort(u_i Y)_j|^2 over i and j."""
    x, y = normal(70, 12, 0), normal(70, 12, 1, 1.4, 0.2)
    u = directions(100, 12, 2020)
    expected = 3 * 12 * ((x @ u.T).sort(dim=0).values - (y @ u.T).sort(dim=0).values).square().mean()
    assert monge_distance(x, y, projections=100, seed=2020).value == pytest.approx(float(expected), rel=1e-6)


def test_a_translation_is_three_times_its_square():
    x, v = normal(40, 5, 0), torch.tensor([2.0, 0, -1, 0, 3])
    u = directions(1000, 5)
    assert monge_distance(x, x + v).value == pytest.approx(float(3 * 5 * (u @ v.double()).square().mean()), rel=1e-6)
    assert monge_distance(x, x + v).value == pytest.approx(3 * 14, rel=0.05)


@pytest.mark.parametrize("d", [1, 4])
def test_gaussians_of_two_widths_have_their_closed_form(d):
    x, y = normal(20_000, d, 0, 1.0), normal(30_000, d, 1, 2.5)
    assert monge_distance(x, y, projections=50).value == pytest.approx(3 * d * 1.5**2, rel=0.03)


def test_in_one_dimension_it_is_three_times_the_squared_wasserstein_distance_of_unequal_sets():
    x, y = np.array([0.0, 1.0, 5.0]), np.array([2.0, 2.5])
    levels = (np.arange(6) + 0.5) / 6  # both quantile functions are constant on sixths
    steps = [np.quantile(z, levels, method="inverted_cdf") for z in (x, y)]
    expected = 3 * np.mean((steps[0] - steps[1]) ** 2)
    found = monge_distance(torch.from_numpy(x)[:, None], torch.from_numpy(y)[:, None])
    assert found.value == pytest.approx(expected, rel=1e-6)
    assert stats.wasserstein_distance(x, y) ** 2 < expected / 3  # of order 2, not 1


def test_the_influence_of_an_example_is_what_its_weight_does():
    """Against the derivative: an example's weight grows by a little, and quantiles with it."""
    x, y = normal(12, 3, 0), normal(9, 3, 1, 1.5, 0.7)
    u = directions(40, 3)
    found = monge_distance(x, y, projections=40)

    def distance(weights_x, weights_y):
        total = 0.0
        for direction in u:
            pieces = []
            for z, weights in ((x, weights_x), (y, weights_y)):
                values, order = (z @ direction).sort()
                pieces.append((values.numpy(), np.cumsum(weights[order.numpy()])))
            ends = np.unique(np.concatenate([each for _, each in pieces]))
            middle = ends - np.diff(ends, prepend=0.0) / 2
            at = [values[np.searchsorted(cuts, middle).clip(max=len(values) - 1)] for values, cuts in pieces]
            total += np.sum(np.diff(ends, prepend=0.0) * (at[0] - at[1]) ** 2)
        return 3 * 3 * total / len(u)

    even = [np.full(12, 1 / 12), np.full(9, 1 / 9)]
    assert distance(*even) == pytest.approx(found.value, rel=1e-6)
    step = 1e-4
    for side, influence in ((0, found.influence.reference), (1, found.influence.samples)):
        for place in (0, 3, 7):
            moved = []
            for by in (step, -step):
                weights = [each.copy() for each in even]
                weights[side] *= 1 - by
                weights[side][place] += by
                moved.append(distance(*weights))
            slope = (moved[0] - moved[1]) / (2 * step)
            assert slope == pytest.approx(float(influence[place] - influence.mean()), rel=2e-2, abs=2e-2)


def test_three_hundred_examples_of_many_features_tell_two_models_apart():
    """Where a Frechet distance on 384 features is refused: which of two models is nearer, each time of ten."""
    for seed in range(10):
        reference = normal(300, 384, 3 * seed)
        near, far = normal(300, 384, 3 * seed + 1, 1.1), normal(300, 384, 3 * seed + 2, 1.25)
        a, b = (monge_distance(reference, each, projections=200) for each in (near, far))
        assert b.value - a.value > 1.96 * (a.influence.standard_error + b.influence.standard_error)


def test_few_directions_at_once_give_what_all_at_once_give(monkeypatch):
    x, y = normal(40, 5, 0), normal(25, 5, 1, 1.5)
    whole = monge_distance(x, y, projections=30)
    monkeypatch.setattr("expost.metrics.sliced._ELEMENTS", 200)
    parts = monge_distance(x, y, projections=30)
    assert parts.value == pytest.approx(whole.value, rel=1e-12)
    torch.testing.assert_close(parts.influence.samples, whole.influence.samples)


def test_what_is_no_set_of_features_is_refused():
    x = normal(5, 3, 0)
    with pytest.raises(UsageError, match="projections"):
        monge_distance(x, x, projections=0)
    with pytest.raises(UsageError, match="reference has 3 features, samples 2"):
        monge_distance(x, x[:, :2])
    with pytest.raises(DataError, match="samples: got 0 examples"):
        monge_distance(x, x[:0])
