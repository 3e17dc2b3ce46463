"""What every measure keeps, run over the registry: its formula, a set against itself, turned round, moved, reordered.

A new measure is picked up here, and fails until it has a row in `MEASURE_CASES`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from scipy import linalg

from expost.metrics.measures import MEASURES, Cloud, Context
from references import reference_for

HERE = "MEASURE_CASES in tests/metrics/test_measures.py"
CONTEXT = Context("frechet-test")


def normal(n, seed, d=3):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def sites(counts):
    """Copies of twenty places, all as far apart, as many of each as counted: clusters that k-means finds."""
    return torch.eye(20).repeat_interleave(torch.as_tensor(counts), 0)


@dataclass(frozen=True)
class MeasureCase:
    """What a measure computes, and what it keeps.

    Attributes:
        formula: From (reference, samples), arrays, to the scores by name.
        sets: A reference and samples to compute it for.
        itself: From an array to the scores of that set against itself, where it is not the formula that says.
        turned: For each score the one that takes its value when reference and samples change places; a score that is
            not named has none.
        falls: Scores that fall as the samples move away from the reference; the others rise.
        tolerance: Relative, of the formula.
    """

    formula: Callable[[np.ndarray, np.ndarray], dict[str, float]]
    sets: tuple[torch.Tensor, torch.Tensor]
    itself: Callable[[np.ndarray], dict[str, float]]
    turned: Mapping[str, str]
    falls: frozenset[str] = field(default_factory=frozenset)
    tolerance: float = 1e-9


def frechet(x, y):
    a, b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = linalg.sqrtm(a @ b).real
    shift = x.mean(0) - y.mean(0)
    return {"frechet-test": shift @ shift + np.trace(a + b - 2 * root)}


def kernel_distance(x, y):
    def kernel(u, v):
        return (sum(u * v) / len(u) + 1) ** 3

    def within(z):
        return np.mean([kernel(u, v) for i, u in enumerate(z) for j, v in enumerate(z) if i != j])

    return {"kernel-distance": within(x) + within(y) - 2 * np.mean([kernel(u, v) for u in x for v in y])}


def precision_recall_curve(x, y):
    """Of the histograms over the sites."""
    places = np.unique(np.concatenate([x, y]), axis=0)
    p, q = (np.array([(z == place).all(1).mean() for place in places]) for z in (x, y))
    angles = np.linspace(0, np.pi / 2, 1001)[1:-1]
    curve = [(sum(np.minimum(s * p, q)), sum(np.minimum(p, q / s))) for s in np.tan(angles)]

    def largest(b):
        return max((1 + b**2) * precision * recall / (b**2 * precision + recall) for precision, recall in curve)

    return {"f8": largest(8), "f1/8": largest(1 / 8)}


def neighbours(x, y, k=5):
    def distances(u, v):
        return np.sqrt(((u[:, None] - v) ** 2).sum(2))

    radius_x, radius_y = (np.sort(distances(z, z), 1)[:, k] for z in (x, y))  # the first is the example itself
    inside, turned = distances(y, x) <= radius_x, distances(x, y) <= radius_y
    return {
        "precision": inside.any(1).mean(),
        "recall": turned.any(1).mean(),
        "density": inside.sum() / (k * len(y)),
        "coverage": inside.any(0).mean(),
    }


MEASURE_CASES = {
    "frechet": MeasureCase(
        frechet,
        (normal(60, 0, 7) @ normal(7, 2, 7), normal(45, 1, 7) @ normal(7, 3, 7) + 0.7),
        lambda x: {"frechet-test": 0.0},
        {"frechet-test": "frechet-test"},
        tolerance=1e-7,
    ),
    "kid": MeasureCase(
        kernel_distance,
        (normal(30, 0), 1.5 * normal(30, 1) + 0.5),
        lambda x: kernel_distance(x, x),  # below 0: examples are equal to themselves only in the mixed sum
        {"kernel-distance": "kernel-distance"},
    ),
    "prd": MeasureCase(
        precision_recall_curve,
        (sites([20] * 5 + [8] * 10 + [4] * 5), sites([0] * 5 + [12] * 10 + [16] * 5)),
        lambda x: {"f8": 1.0, "f1/8": 1.0},
        {"f8": "f1/8", "f1/8": "f8"},
        frozenset({"f8", "f1/8"}),
    ),
    "neighbours": MeasureCase(
        neighbours,
        (normal(60, 0), 1.3 * normal(45, 1) + 0.5),
        # each example lies in its own ball and, without ties, in those of five others on average
        lambda x: {"precision": 1.0, "recall": 1.0, "density": 6 / 5, "coverage": 1.0},
        {"precision": "recall", "recall": "precision"},
        frozenset({"precision", "recall", "density", "coverage"}),
    ),
}


def case_of(name):
    return reference_for(name, MEASURE_CASES, HERE)


def scores(name, reference, samples, context=CONTEXT):
    return {key: each.value for key, each in MEASURES[name](Cloud(reference), Cloud(samples), context).items()}


def test_no_reference_is_of_a_measure_that_is_gone():
    assert set(MEASURE_CASES) <= set(MEASURES)


@pytest.mark.parametrize("name", MEASURES)
def test_a_measure_is_its_formula(name):
    case = case_of(name)
    reference, samples = case.sets
    expected = case.formula(reference.double().numpy(), samples.double().numpy())
    assert scores(name, reference, samples) == pytest.approx(expected, rel=case.tolerance)
    assert all(abs(value) > 1e-3 for value in expected.values())


@pytest.mark.parametrize("name", MEASURES)
def test_a_set_against_itself(name):
    case = case_of(name)
    for x in case.sets:
        expected = case.itself(x.double().numpy())
        assert scores(name, x, x.clone()) == pytest.approx(expected, rel=1e-7, abs=1e-9)


@pytest.mark.parametrize("name", MEASURES)
def test_what_a_measure_says_when_reference_and_samples_change_places(name):
    case = case_of(name)
    reference, samples = case.sets
    found, turned = scores(name, reference, samples), scores(name, samples, reference)
    for key, value in found.items():
        if key in case.turned:
            assert turned[case.turned[key]] == pytest.approx(value, rel=1e-7), key
        else:
            assert all(abs(other - value) > 1e-3 for other in turned.values()), f"{key} is symmetric, after all"
    for key, other in case.turned.items():
        assert key == other or abs(found[key] - found[other]) > 1e-3  # or nothing would have been shown


@pytest.mark.parametrize("name", MEASURES)
def test_scores_get_worse_as_samples_move_away(name):
    case, reference, samples = case_of(name), normal(200, 0), normal(200, 1)
    moved = [scores(name, reference, samples + shift) for shift in (0.0, 1.0, 2.0, 3.0)]
    for key in moved[0]:
        values = [each[key] * (-1 if key in case.falls else 1) for each in moved]
        assert values == sorted(set(values)), key
        assert values[-1] - values[0] > 0.5


@pytest.mark.parametrize("name", MEASURES)
def test_the_order_of_examples_does_not_matter(name):
    case = case_of(name)
    reference, samples = case.sets
    generator = torch.Generator().manual_seed(3)
    shuffled = [x[torch.randperm(len(x), generator=generator)] for x in case.sets]
    assert scores(name, *shuffled) == pytest.approx(scores(name, reference, samples), rel=1e-7)
    assert scores(name, shuffled[0], samples) == pytest.approx(scores(name, reference, samples), rel=1e-7)


def test_the_kernel_distance_of_inceptions_features_is_called_kid():
    reference, samples = MEASURE_CASES["kid"].sets
    for features, called in (("fid", "kid"), ("fid-768", "kid-768"), ("frechet-digits", "kernel-distance")):
        assert list(scores("kid", reference, samples, Context(features))) == [called]
