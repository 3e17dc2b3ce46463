"""Precision and recall for distributions: the curve in closed form on histograms, and recovery of it from features."""

import math

import numpy as np
import pytest
import torch

from expost.errors import DataError, UsageError
from expost.metrics.prd import prd, prd_from_histograms


def generator(seed):
    return torch.Generator().manual_seed(seed)


def f_score(precision, recall, beta):
    return (1 + beta**2) * precision * recall / (beta**2 * precision + recall)


def by_loops(p, q, angles):
    """The definition, state by state."""
    precision, recall = [], []
    for i in range(1, angles - 1):
        slope = math.tan(i * math.pi / 2 / (angles - 1))
        precision.append(sum(min(slope * a, b) for a, b in zip(p, q, strict=True)))
        recall.append(sum(min(a, b / slope) for a, b in zip(p, q, strict=True)))
    return precision, recall


@pytest.mark.parametrize("seed", range(3))
def test_the_curve_is_the_definition(seed):
    random = np.random.default_rng(seed)
    p, q = random.dirichlet(np.ones(6)), random.dirichlet(np.ones(6))
    curve = prd_from_histograms(torch.from_numpy(p), torch.from_numpy(q), angles=41)
    precision, recall = by_loops(p, q, 41)
    np.testing.assert_allclose(curve.precision[1:-1], precision, rtol=1e-12)
    np.testing.assert_allclose(curve.recall[1:-1], recall, rtol=1e-12)
    best = max(f_score(a, b, 8) for a, b in zip(precision, recall, strict=True))
    assert curve.f8 == pytest.approx(best, rel=1e-12)


def test_equal_histograms_reach_one_in_both():
    p = torch.tensor([3.0, 1.0, 0.0, 2.0])
    curve = prd_from_histograms(p, 5 * p)  # counts need not have one total
    assert curve.f8 == pytest.approx(1, abs=1e-12)
    assert curve.f1_8 == pytest.approx(1, abs=1e-12)
    middle = len(curve.precision) // 2
    assert curve.precision[middle].item() == pytest.approx(1, abs=1e-12)
    assert curve.recall[middle].item() == pytest.approx(1, abs=1e-12)


def test_disjoint_histograms_have_nothing_in_common():
    curve = prd_from_histograms(torch.tensor([1.0, 2.0, 0.0]), torch.tensor([0.0, 0.0, 1.0]))
    assert curve.f8 == curve.f1_8 == 0.0
    assert torch.count_nonzero(curve.precision) == torch.count_nonzero(curve.recall) == 0


def test_samples_of_half_of_the_modes_are_precise_and_recall_half():
    reference, samples = torch.tensor([0.5, 0.5]), torch.tensor([1.0, 0.0])
    curve = prd_from_histograms(reference, samples)
    assert curve.precision.max().item() == pytest.approx(1.0)
    assert curve.recall.max().item() == pytest.approx(0.5)
    # both at once at slope 2, which lies between two angles of the grid
    assert curve.f8 == pytest.approx(f_score(1.0, 0.5, 8), abs=1e-3)
    assert curve.f1_8 == pytest.approx(f_score(1.0, 0.5, 1 / 8), abs=1e-3)
    assert curve.f1_8 > 0.98
    assert curve.f8 < 0.51


def test_swapping_the_arguments_swaps_precision_and_recall():
    p, q = torch.tensor([0.7, 0.2, 0.1, 0.0]), torch.tensor([0.1, 0.2, 0.0, 0.7])
    one, other = prd_from_histograms(p, q), prd_from_histograms(q, p)
    torch.testing.assert_close(one.precision.flip(0), other.recall, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(one.recall.flip(0), other.precision, rtol=1e-9, atol=1e-12)
    assert one.f8 == pytest.approx(other.f1_8)
    assert one.f8 != pytest.approx(one.f1_8, abs=1e-3)


def test_half_overlap_and_contamination():
    half = prd_from_histograms(torch.tensor([1.0, 1.0, 0.0]), torch.tensor([0.0, 1.0, 1.0]))
    assert half.f8 == pytest.approx(0.5)
    assert half.f1_8 == pytest.approx(0.5)
    # a tenth of the samples is none of the reference, the rest is all of it: the curve has the corner (0.9, 1)
    dirty = prd_from_histograms(torch.tensor([0.4, 0.6, 0.0]), torch.tensor([0.36, 0.54, 0.1]))
    assert dirty.precision.max().item() == pytest.approx(0.9)
    assert dirty.recall.max().item() == pytest.approx(1.0)
    assert dirty.f8 == pytest.approx(f_score(0.9, 1.0, 8), abs=1e-3)
    assert dirty.f1_8 == pytest.approx(f_score(0.9, 1.0, 1 / 8), abs=1e-3)


def modes(counts, seed, spread=0.05, d=5):
    """Well separated blobs, so many points each."""
    centers = 10 * torch.eye(len(counts), d)
    points = [
        center + spread * torch.randn(n, d, generator=generator(seed + i))
        for i, (n, center) in enumerate(zip(counts, centers, strict=True))
    ]
    return torch.cat(points)


def test_features_give_the_histograms_of_their_modes():
    reference, samples = modes([100, 100, 100, 100], 0), modes([200, 200, 0, 0], 10)
    scores = prd(reference, samples, clusters=4, runs=3)
    expected = prd_from_histograms(torch.tensor([1.0, 1.0, 1.0, 1.0]), torch.tensor([1.0, 1.0, 0.0, 0.0]))
    torch.testing.assert_close(scores.precision, expected.precision)
    torch.testing.assert_close(scores.recall, expected.recall)
    assert scores.f8 == pytest.approx(expected.f8)
    swapped = prd(samples, reference, clusters=4, runs=3)
    assert swapped.f8 == pytest.approx(expected.f1_8)
    assert swapped.f1_8 == pytest.approx(expected.f8)


def test_identical_sets_score_one_and_distant_ones_zero():
    x = torch.randn(300, 8, generator=generator(0))
    same = prd(x, x.flip(0), runs=2)
    assert same.f8 == pytest.approx(1, abs=1e-9)
    assert same.f1_8 == pytest.approx(1, abs=1e-9)
    apart = prd(x, x + 1000, runs=2)
    assert apart.f8 == apart.f1_8 == 0.0


def test_one_distribution_falls_short_of_one_by_chance_alone():
    x, y = (torch.randn(2000, 16, generator=generator(seed)) for seed in (0, 1))
    scores = prd(x, y, runs=3)
    assert 0.9 < scores.f8 < 1
    assert 0.9 < scores.f1_8 < 1


def test_a_far_offset_and_another_unit_change_nothing():
    reference, samples = modes([100, 100, 100], 0).double(), modes([250, 25, 25], 5).double()
    plain = prd(reference, samples, clusters=3, runs=2)
    moved = prd(1e-9 * (reference + 1e6), 1e-9 * (samples + 1e6), clusters=3, runs=2)
    torch.testing.assert_close(moved.precision, plain.precision)
    assert 0.5 < plain.f8 < 1


def test_fewer_points_than_clusters_and_points_that_all_coincide():
    x = torch.zeros(30, 2)
    assert prd(x, x, clusters=20, runs=2).f8 == pytest.approx(1)
    with pytest.raises(DataError, match="20 clusters need at least 10 examples on each side, and there are 3"):
        prd(x[:3], x[:3])


def test_it_is_seeded_and_leaves_the_global_states_alone():
    x, y = (torch.randn(400, 4, generator=generator(seed)) for seed in (0, 1))
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state(legacy=False)["state"]["key"].copy()  # noqa: NPY002
    one, again, other = prd(x, y, runs=2), prd(x, y, runs=2), prd(x, y, runs=2, seed=1)
    assert torch.equal(one.precision, again.precision)
    assert not torch.equal(one.precision, other.precision)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state(legacy=False)["state"]["key"], numpy_state)  # noqa: NPY002


@pytest.mark.parametrize(
    ("reference", "samples", "options", "error", "message"),
    [
        (
            torch.zeros(40, 2),
            torch.zeros(50, 2),
            {},
            DataError,
            "reference has 40 examples, samples 50.*use 40 of each",
        ),
        (torch.zeros(40, 2), torch.zeros(40, 3), {}, UsageError, "reference has 2 features, samples 3"),
        (torch.zeros(40, 2), torch.full((40, 2), math.nan), {}, DataError, "samples: NaN or infinity, first in row 0"),
        (torch.zeros(0, 2), torch.zeros(0, 2), {}, DataError, "reference: got 0 examples"),
        (torch.zeros(40), torch.zeros(40), {}, UsageError, r"reference: shape is \(40,\); give \(n, d\)"),
        (torch.zeros(40, 2).int(), torch.zeros(40, 2), {}, UsageError, "reference: type is int32"),
        (np.zeros((40, 2)), torch.zeros(40, 2), {}, UsageError, "need a torch tensor, got ndarray"),
        (torch.zeros(40, 2), torch.full((40, 2), 1e30), {}, DataError, r"samples: values reach 1e\+30"),
        (torch.zeros(40, 2), torch.zeros(40, 2), {"clusters": 0}, UsageError, "clusters=0"),
        (torch.zeros(40, 2), torch.zeros(40, 2), {"runs": 0}, UsageError, "runs=0"),
        (torch.zeros(40, 2), torch.zeros(40, 2), {"angles": 2}, UsageError, "angles=2"),
        (torch.zeros(40, 2), torch.zeros(40, 2), {"seed": -1}, UsageError, "seed=-1"),
    ],
)
def test_what_cannot_be_scored_is_refused(reference, samples, options, error, message):
    with pytest.raises(error, match=message) as caught:
        prd(reference, samples, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("p", "q", "error"),
    [
        ([1.0, 2.0], [1.0], UsageError),
        ([], [], UsageError),
        ([0.0, 0.0], [1.0, 0.0], DataError),
        ([1.0, -1.0], [1.0, 0.0], DataError),
        ([1.0, 1.0], [math.inf, 0.0], DataError),
    ],
)
def test_bad_histograms_are_refused(p, q, error):
    with pytest.raises(error):
        prd_from_histograms(torch.tensor(p), torch.tensor(q))
