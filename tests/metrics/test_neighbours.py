"""Scores from nearest neighbours, against brute force, torch-fidelity, scikit-learn, scipy and closed forms."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.neighbors import NearestNeighbors
from test_inception import torch_fidelity

from expost.errors import DataError, UsageError
from expost.metrics.distances import Points
from expost.metrics.memorization import authenticity, copying_test, mann_whitney_z
from expost.metrics.neighbours import expected_coverage, nearest, neighbour_scores


def normal(n, d, seed):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def uniform(n, d, seed):
    return torch.rand(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pairwise(x, y):
    """Distances from differences, with NumPy."""
    return np.sqrt(((x.double().numpy()[:, None] - y.double().numpy()[None]) ** 2).sum(-1))


def brute(reference, samples, k):
    """The four scores by their definitions."""
    xx, yy, yx = pairwise(reference, reference), pairwise(samples, samples), pairwise(samples, reference)
    for own in (xx, yy):
        np.fill_diagonal(own, np.inf)
    radius_x, radius_y = np.sort(xx, axis=1)[:, k - 1], np.sort(yy, axis=1)[:, k - 1]
    inside = yx <= radius_x[None]
    return (
        inside.any(1).mean(),
        (yx <= radius_y[:, None]).any(0).mean(),
        inside.sum() / (k * len(samples)),
        inside.any(0).mean(),
    )


def as_tuple(scores):
    return scores.precision, scores.recall, scores.density, scores.coverage


SETS = {
    "plain": (normal(60, 7, 0), normal(45, 7, 1) * 0.7 + 0.3),
    "float32": (normal(60, 7, 0).float(), normal(45, 7, 1).float() * 0.7),
    "grid of ties": (normal(60, 2, 0).mul(2).round(), normal(80, 2, 1).mul(2).round()),
    "duplicates": (normal(9, 3, 0).repeat(5, 1), torch.cat([normal(9, 3, 0), normal(4, 3, 1)]).repeat(3, 1)),
    "far from the origin": (normal(50, 4, 0) + 1e7, normal(50, 4, 1) + 1e7),
    "one far outlier": (torch.cat([normal(50, 3, 0), torch.full((1, 3), 1e9)]), normal(40, 3, 1)),
    "collapsed": (normal(50, 3, 0), normal(50, 3, 0)[:1].repeat(30, 1)),
    "one feature": (normal(40, 1, 0), normal(50, 1, 1)),
}


@pytest.mark.parametrize("chunk", [1, 500, 2**22])
@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("name", SETS)
def test_the_scores_are_those_of_brute_force_in_chunks_of_any_size(name, k, chunk):
    reference, samples = SETS[name]
    scores = neighbour_scores(reference, samples, k, chunk=chunk)
    assert as_tuple(scores) == pytest.approx(brute(reference, samples, k), abs=1e-12)


def test_many_features():
    reference, samples = normal(80, 300, 0).relu().float(), normal(70, 300, 1).relu().float()
    assert as_tuple(neighbour_scores(reference, samples)) == pytest.approx(brute(reference, samples, 5), abs=1e-12)


def test_precision_and_recall_are_those_of_torch_fidelity():
    module = torch_fidelity("metric_prc")
    reference, samples = normal(300, 6, 0), normal(250, 6, 1) * 0.6 + 0.5
    theirs = module.prc_features_to_metric(samples, reference, prc_neighborhood=3, save_cpu_ram=False, verbose=False)
    ours = neighbour_scores(reference, samples, k=3)
    assert ours.precision == pytest.approx(theirs["precision"], abs=1e-6)  # theirs is float32
    assert ours.recall == pytest.approx(theirs["recall"], abs=1e-6)
    assert ours.precision != pytest.approx(ours.recall, abs=0.05)


@pytest.mark.parametrize("k", [1, 5])
def test_identical_sets(k):
    x = normal(200, 4, 0)
    # every sample lies in the balls of the k that have it as a neighbour, and in that about itself
    assert as_tuple(neighbour_scores(x, x, k)) == pytest.approx((1.0, 1.0, (k + 1) / k, 1.0))


def test_disjoint_sets():
    assert as_tuple(neighbour_scores(normal(50, 3, 0), normal(50, 3, 1) + 100)) == (0.0, 0.0, 0.0, 0.0)


def test_samples_of_half_of_the_reference():
    left, right = normal(100, 3, 0), normal(100, 3, 1) + 100
    precise = neighbour_scores(torch.cat([left, right]), left.repeat(2, 1))
    assert (precise.precision, precise.recall, precise.coverage) == (1.0, 0.5, 0.5)
    swapped = neighbour_scores(left, torch.cat([left, right]))
    assert (swapped.precision, swapped.recall, swapped.coverage) == (0.5, 1.0, 1.0)


def test_density_exceeds_one_where_samples_crowd_at_a_mode():
    reference = normal(500, 2, 0)
    scores = neighbour_scores(reference, 0.1 * normal(500, 2, 1))
    assert scores.density > 1.1
    assert scores.coverage < 0.6
    center = torch.zeros(20, 2)  # every ball of five points about the center holds every sample there
    assert neighbour_scores(torch.tensor([[1.0, 0], [-1, 0], [0, 1], [0, -1], [0, 0.1]]), center, k=4).density == 1.25


def test_one_distribution_has_the_published_expectations():
    n, m, k, runs = 100, 60, 3, 60
    scores = [neighbour_scores(normal(n, 3, 2 * i), normal(m, 3, 2 * i + 1), k) for i in range(runs)]
    coverage, density = (np.array([getattr(s, name) for s in scores]) for name in ("coverage", "density"))
    assert abs(coverage.mean() - expected_coverage(n, m, k)) < 4 * coverage.std() / math.sqrt(runs)
    assert abs(density.mean() - 1) < 4 * density.std() / math.sqrt(runs)
    assert coverage.std() / math.sqrt(runs) < 0.01


def test_expected_coverage():
    assert expected_coverage(2, 1, 1) == 1 / 2  # the other point and the sample are equally likely to be nearest
    assert expected_coverage(10**8, 10**8, 5) == pytest.approx(1 - 2**-5)
    with pytest.raises(UsageError, match="n=3"):
        expected_coverage(3, 10, 3)


@pytest.mark.parametrize("n", [1, 4])
def test_nearest_is_that_of_scikit_learn(n):
    queries, pool = normal(70, 9, 0), normal(300, 9, 1)
    distances, indices = (
        NearestNeighbors(n_neighbors=n, algorithm="brute").fit(pool.numpy()).kneighbors(queries.numpy())
    )
    found = nearest(queries, pool, n, chunk=2000)
    np.testing.assert_allclose(found.distances, distances, rtol=1e-9)
    np.testing.assert_array_equal(found.indices, indices)
    assert found.distances.dtype == torch.float64
    assert found.indices.dtype == torch.int64


def test_copies_are_at_distance_zero_and_ties_go_by_index():
    pool = normal(50, 512, 0) * 1e3 + 1e5
    found = nearest(pool[[7, 3]], pool, 2)
    assert found.indices[:, 0].tolist() == [7, 3]
    assert found.distances[:, 0].tolist() == [0.0, 0.0]
    assert bool((found.distances[:, 1] > 1).all())
    square = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    assert nearest(torch.zeros(1, 2), square, 4).indices.tolist() == [[0, 1, 2, 3]]
    many = square.repeat(10, 1).flip(0)  # more ties than candidates
    assert nearest(torch.zeros(2, 2), many, 3).indices.tolist() == [[0, 1, 2], [0, 1, 2]]


def test_nearest_takes_no_queries_and_the_whole_pool():
    pool = normal(5, 2, 0)
    assert nearest(torch.empty(0, 2), pool, 2).distances.shape == (0, 2)
    whole = nearest(pool[:1], pool, 5).distances[0]
    np.testing.assert_allclose(whole, np.sort(pairwise(pool[:1], pool)[0]))


def test_a_point_is_not_its_own_neighbour_but_its_copy_is():
    line = torch.tensor([[0.0], [1.0], [3.0], [3.0]], dtype=torch.float64)
    distances, indices = Points(line).nearest(line, 1, skip_self=True)
    assert distances[:, 0].tolist() == [1.0, 1.0, 0.0, 0.0]
    assert indices[:, 0].tolist() == [1, 0, 3, 2]


# ---------------------------------------------------------------------------------------------------- memorization


@pytest.mark.parametrize("ties", [False, True])
def test_the_statistic_is_that_of_scipy(ties):
    a, b = normal(40, 1, 0)[:, 0].numpy(), normal(55, 1, 1)[:, 0].numpy() + 0.3
    if ties:
        a, b = a.round(), b.round()
    p = stats.mannwhitneyu(a, b, alternative="less", method="asymptotic", use_continuity=False).pvalue
    assert stats.norm.cdf(mann_whitney_z(a, b)) == pytest.approx(p, rel=1e-10)
    assert mann_whitney_z(a, b) == pytest.approx(-mann_whitney_z(b, a))


def test_the_statistic_of_equal_values_is_zero():
    assert mann_whitney_z(np.ones(5), np.ones(7)) == 0.0


def test_copies_are_flagged_and_so_are_near_copies():
    train, held_out = normal(400, 5, 0), normal(300, 5, 1)
    exact = copying_test(train, held_out, train[:300])
    n = 300  # all samples below all held-out: the least that U can be, and ties among the zeros
    ties = 1 - (n**3 - n) / ((2 * n) ** 3 - 2 * n)
    assert exact.c_t == pytest.approx(-(n * n / 2) / math.sqrt(n * n * (2 * n + 1) / 12 * ties))
    assert exact.p_value < 1e-12
    assert copying_test(train, held_out, train[:300] + 0.1 * normal(300, 5, 2)).c_t < -15
    assert copying_test(train, held_out, 2 * normal(300, 5, 3)).c_t > 5  # too wide: underfitting


def test_fresh_samples_give_a_standard_normal_statistic():
    train = normal(300, 3, 0)
    drawn = [copying_test(train, normal(100, 3, 2 * i + 1), normal(80, 3, 2 * i + 2)) for i in range(80)]
    scores = np.array([each.c_t for each in drawn])
    assert abs(scores.mean()) < 4 / math.sqrt(80)
    assert 0.75 < scores.std() < 1.25
    assert all(each.standard_error == 1.0 and each.cells == 1 for each in drawn)
    assert drawn[0].p_value == pytest.approx(stats.norm.cdf(drawn[0].c_t))


def test_cells_find_copying_in_one_region_that_underfitting_in_another_hides():
    left, right = (lambda n, seed: normal(n, 2, seed)), (lambda n, seed: normal(n, 2, seed) + 50)
    train = torch.cat([left(300, 0), right(300, 1)])
    held_out = torch.cat([left(150, 2), right(150, 3)])
    samples = torch.cat([train[:150], right(150, 4)])
    result = copying_test(train, held_out, samples, cells=2)
    assert result.cells == 2
    assert result.standard_error == pytest.approx(math.sqrt(0.5))
    one = mann_whitney_z(np.zeros(150), nearest(held_out[:150], train[:300]).distances[:, 0].numpy())
    other = mann_whitney_z(*(nearest(each[150:], train[300:]).distances[:, 0].numpy() for each in (samples, held_out)))
    assert result.c_t == pytest.approx((one + other) / 2)
    # a cell without samples does not count
    only_left = copying_test(train, held_out, train[:150], cells=2)
    assert (only_left.cells, only_left.c_t) == (1, pytest.approx(one))


def test_fresh_samples_in_cells_have_the_standard_error_reported():
    train = normal(400, 2, 0)
    drawn = [copying_test(train, normal(200, 2, 2 * i + 1), normal(200, 2, 2 * i + 2), cells=4) for i in range(60)]
    z = np.array([each.c_t / each.standard_error for each in drawn])
    assert abs(z.mean()) < 4 / math.sqrt(60)
    assert 0.7 < z.std() < 1.3
    assert drawn[0].standard_error < 0.6


def test_authenticity_of_copies_and_of_far_away_samples():
    train = normal(200, 4, 0)
    assert authenticity(train, train) == 0.0
    assert authenticity(train, train + 1e-6) == 0.0
    assert authenticity(train.repeat(2, 1), train) == 0.0  # copies of an example that occurs twice
    assert authenticity(train, train + 100) == 1.0


@pytest.mark.parametrize(("d", "mutual"), [(1, 2 / 3), (2, 6 * math.pi / (8 * math.pi + 3 * math.sqrt(3)))])
def test_fresh_samples_are_flagged_as_often_as_neighbours_are_mutual(d, mutual):
    train, samples = uniform(20_000, d, 0), uniform(4_000, d, 1)
    assert 1 - authenticity(train, samples) == pytest.approx(mutual, abs=4 * 0.5 / math.sqrt(4_000))


def test_authenticity_by_brute_force():
    train, samples = normal(60, 3, 0), normal(50, 3, 1)
    own = pairwise(train, train)
    np.fill_diagonal(own, np.inf)
    to = pairwise(samples, train)
    expected = (to.min(1) > own.min(1)[to.argmin(1)]).mean()
    assert authenticity(train, samples) == pytest.approx(expected)
    assert 0 < expected < 1


# ---------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: neighbour_scores(normal(5, 2, 0), normal(9, 2, 0)), DataError, "reference: got 5 .* at least 6"),
        (lambda: neighbour_scores(normal(9, 2, 0), normal(3, 2, 0), 3), DataError, "samples: got 3 .* at least 4"),
        (lambda: neighbour_scores(normal(9, 2, 0), normal(9, 3, 0)), UsageError, "2 features, samples 3"),
        (lambda: neighbour_scores(normal(9, 2, 0), normal(9, 2, 0), 0), UsageError, "k=0"),
        (lambda: neighbour_scores(normal(9, 2, 0), normal(9, 2, 0), 2.0), UsageError, "k=2.0"),
        (lambda: neighbour_scores(normal(9, 2, 0), normal(9, 2, 0), chunk=0), UsageError, "chunk=0"),
        (lambda: neighbour_scores(normal(9, 2, 0) / 0, normal(9, 2, 0)), DataError, "reference: NaN or infinity"),
        (lambda: nearest(normal(3, 2, 0), normal(2, 2, 0), 3), DataError, "pool: got 2 examples"),
        (lambda: nearest(normal(3, 2, 0), torch.empty(0, 2)), DataError, "pool: got 0 examples"),
        (lambda: nearest(normal(3, 2, 0)[0], normal(3, 2, 0)), UsageError, "queries: shape"),
        (lambda: authenticity(normal(1, 2, 0), normal(3, 2, 0)), DataError, "train: got 1 examples"),
        (lambda: authenticity(normal(3, 2, 0), torch.empty(0, 2)), DataError, "samples: got 0 examples"),
        (
            lambda: copying_test(normal(9, 2, 0), normal(9, 2, 1), normal(9, 2, 2)),
            DataError,
            "at least 20 held-out examples and as many samples, and there are 9",
        ),
        (lambda: copying_test(*[torch.ones(30, 2)] * 3, cells=2), DataError, "fewer than 2 different training"),
        (lambda: copying_test(*[torch.ones(30, 2)] * 3, cells=0), UsageError, "cells=0"),
        (lambda: copying_test(normal(9, 2, 0), normal(9, 3, 1), normal(9, 2, 2)), UsageError, "held_out 3"),
    ],
)
def test_what_cannot_be_scored_is_refused(call, error, message):
    with pytest.raises(error, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
