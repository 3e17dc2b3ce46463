"""What every measure keeps, run over the registry: its formula, a set against itself, turned round, moved, reordered.

A new measure is picked up here, and fails until it has a row in `MEASURE_CASES`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy import linalg

from expost.densities import Gaussian
from expost.evaluation.catalog import REGRESSION_SCORES
from expost.examples.domains import DOMAINS
from expost.metrics import FEATURES
from expost.metrics.direction import LOWER
from expost.metrics.image import PIXEL_SCORES
from expost.metrics.latent import LATENT_SCORES, held_out_log_likelihood, prior_gap
from expost.metrics.latent_regression import latent_regression
from expost.metrics.measures import MEASURES, Cloud, Context
from expost.metrics.strings import STRING_SCORES, novelty, reconstruction_accuracy, unique_valid, uniqueness
from references import reference_for

HERE = "MEASURE_CASES in tests/metrics/test_measures.py"
CONTEXT = Context("frechet-values")


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
        tolerance: Relative, of the formula.
    """

    formula: Callable[[np.ndarray, np.ndarray], dict[str, float]]
    sets: tuple[torch.Tensor, torch.Tensor]
    itself: Callable[[np.ndarray], dict[str, float]]
    turned: Mapping[str, str]
    tolerance: float = 1e-9


def frechet(x, y):
    a, b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = linalg.sqrtm(a @ b).real
    shift = x.mean(0) - y.mean(0)
    return {"frechet-values": shift @ shift + np.trace(a + b - 2 * root)}


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


def monge_distance(x, y):
    """By every quantile: each set is repeated until both have as many values."""
    directions = torch.randn(1000, x.shape[1], generator=torch.Generator().manual_seed(0)).double().numpy()
    found = []
    for u in directions:
        along = np.sort(np.repeat(x @ u, len(y))) - np.sort(np.repeat(y @ u, len(x)))
        found.append(np.mean(along**2) / (u @ u))
    return {"monge-distance": 3 * x.shape[1] * np.mean(found)}


def vendi(x, y):
    """Of the samples, from the matrix of their similarities."""
    similar = np.array([[u @ v / np.sqrt((u @ u) * (v @ v)) for v in y] for u in y])
    shares = linalg.eigvalsh(similar / len(y))
    shares = shares[shares > 1e-12]
    return {
        "vendi": np.exp(-sum(shares * np.log(shares))),
        "vendi-2": 1 / sum(shares**2),
        "vendi-inf": 1 / max(shares),
    }


def gaussian_mmd(x, y):
    def kernel(a, b):
        near = [[np.exp(-sum((u / linalg.norm(u) - v / linalg.norm(v)) ** 2) / 200) for v in b] for u in a]
        return np.mean(near)

    return {"gaussian-mmd": 1000 * (kernel(x, x) + kernel(y, y) - 2 * kernel(x, y))}


MEASURE_CASES = {
    "frechet": MeasureCase(
        frechet,
        (normal(60, 0, 7) @ normal(7, 2, 7), normal(45, 1, 7) @ normal(7, 3, 7) + 0.7),
        lambda x: {"frechet-values": 0.0},
        {"frechet-values": "frechet-values"},
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
    ),
    "neighbours": MeasureCase(
        neighbours,
        (normal(60, 0), 1.3 * normal(45, 1) + 0.5),
        # each example lies in its own ball and, without ties, in those of five others on average
        lambda x: {"precision": 1.0, "recall": 1.0, "density": 6 / 5, "coverage": 1.0},
        {"precision": "recall", "recall": "precision"},
    ),
    "mind": MeasureCase(
        monge_distance,
        (normal(30, 0), 1.3 * normal(21, 1) + 0.5),
        lambda x: {"monge-distance": 0.0},
        {"monge-distance": "monge-distance"},
        tolerance=1e-6,  # the directions are of float32
    ),
    "vendi": MeasureCase(
        vendi,
        (normal(30, 0), 1.3 * normal(24, 1) + 0.5),
        lambda x: vendi(x, x),
        {},  # of the samples alone
    ),
    "cmmd": MeasureCase(
        gaussian_mmd,
        (normal(30, 0), 1.3 * normal(24, 1) + 0.5),
        lambda x: {"gaussian-mmd": 0.0},
        {"gaussian-mmd": "gaussian-mmd"},
    ),
}


def case_of(name):
    return reference_for(name, MEASURE_CASES, HERE)


def scores(name, reference, samples, context=CONTEXT):
    return {key: each.value for key, each in MEASURES[name].compute(Cloud(reference), Cloud(samples), context).items()}


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
def test_scores_get_worse_by_their_direction_as_samples_move_away(name):
    reference, samples, directions = normal(200, 0), normal(200, 1), MEASURES[name].directions
    moved = [scores(name, reference, samples + shift) for shift in (0.0, 1.0, 2.0, 3.0)]
    for key in moved[0]:
        values = [-directions[key].sign * each[key] for each in moved]
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


@pytest.mark.parametrize("name", MEASURES)
@pytest.mark.parametrize("score_name", ["frechet-values", *(each.score_name for each in FEATURES.values())])
def test_a_measure_states_the_direction_of_every_score_under_all_features(name, score_name):
    found = scores(name, normal(30, 0), normal(30, 1), Context(score_name))
    assert set(found) <= set(MEASURES[name].directions)


# The other scores: each with values for something better and something worse.


def pixel_scores():
    x = torch.rand(5, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    near, far = ((x + scale * noise).clamp(0, 1) for scale in (0.05, 0.3))
    return {
        name: (each.compute(x, near).mean().item(), each.compute(x, far).mean().item())
        for name, each in PIXEL_SCORES.items()
    }


def latent_scores():
    """A density of the codes against one of other codes; codes from N(0, I) against codes that are wide."""
    codes, wide = normal(300, 0), 3 * normal(300, 0)
    fitted = [held_out_log_likelihood(Gaussian().fit(z), normal(300, 1)).mean for z in (codes, wide)]
    near, far = prior_gap(codes), prior_gap(wide)
    return {
        "log-likelihood": tuple(fitted),
        "kl-from-normal": (near.kl, far.kl),
        "frechet-from-normal": (near.frechet, far.frechet),
    }


def string_scores():
    """Distinct valid new strings, against one training string made over and over, or what is no string."""
    good, bad, training = ["a", "b", "c", "d"], ["x", "x", "x", None], {"x"}
    shares = [sum(each is not None for each in forms) / 4 for forms in (good, bad)]
    return {
        "accuracy": (reconstruction_accuracy(good, good), reconstruction_accuracy(good, bad)),
        "validity-greedy": tuple(shares),
        "validity-sampled": tuple(shares),
        "validity-best-of-k": tuple(shares),
        "truncated": tuple(1 - share for share in shares),
        "unique-valid": (unique_valid(good), unique_valid(bad)),
        "uniqueness": (uniqueness(good), uniqueness(bad)),
        "novelty": (novelty(good, training), novelty(bad, training)),
    }


def regression_scores():
    codes = normal(200, 0)
    told, noise = codes[:, 0] + codes[:, 1], normal(200, 1)[:, 0]
    better, worse = (
        latent_regression(codes, values / values.std(), torch.Generator().manual_seed(0)) for values in (told, noise)
    )
    return {
        "regression-rmse": (better.rmse, worse.rmse),
        "regression-log-likelihood": (better.log_likelihood, worse.log_likelihood),
    }


def expression_scores():
    """The target itself, and a constant."""
    near, far = (DOMAINS["expressions"].scores([text], []) for text in ("1/3+x+sin(x*x)", "1"))
    return {name: (near[name].value, far[name].value) for name in near}


@pytest.mark.parametrize(
    ("directions", "compared"),
    [
        ({name: each.direction for name, each in PIXEL_SCORES.items()}, pixel_scores),
        (LATENT_SCORES, latent_scores),
        (STRING_SCORES, string_scores),
        (REGRESSION_SCORES, regression_scores),
        (DOMAINS["expressions"].directions, expression_scores),
    ],
)
def test_the_better_of_two_has_the_better_score(directions, compared):
    values = compared()
    assert set(values) == {name for name, direction in directions.items() if direction.sign}
    for name, (better, worse) in values.items():
        assert directions[name].sign * (better - worse) > 1e-3, name


def test_of_molecules_drugs_score_better_than_a_strained_ring_made_over_and_over():
    pytest.importorskip("rdkit", reason="molecules need RDKit")
    domain = DOMAINS["molecules"]
    drugs = ["CC(=O)Oc1ccccc1C(=O)O", "CC(C)Cc1ccc(cc1)C(C)C(=O)O", "Cn1cnc2c1c(=O)n(C)c(=O)n2C"]
    strained = ["OC12C3(O)C4(O)C1(O)C5(O)C2(O)C3(O)C45O"] * 3
    better, worse = domain.scores(drugs, []), domain.scores(strained, [])
    assert set(better) == set(worse) == set(domain.directions) - {"fcd"}  # a Frechet distance
    assert domain.directions["fcd"] == LOWER
    for name in set(better) - {"mean-logp"}:
        assert domain.directions[name].sign * (better[name].value - worse[name].value) > 1e-3, name


@pytest.mark.parametrize(
    ("measure", "names"),
    [
        ("kid", {"fid": "kid", "fid-768": "kid-768", "frechet-digits": "kernel-distance"}),
        ("mind", {"fid": "mind", "fid-768": "mind-768", "frechet-dinov2": "monge-distance"}),
        ("cmmd", {"frechet-clip-l-336": "cmmd", "frechet-clip": "gaussian-mmd", "fid": "gaussian-mmd"}),
    ],
)
def test_a_score_has_the_name_of_its_authors_on_their_features_alone(measure, names):
    reference, samples = MEASURE_CASES[measure].sets
    for features, called in names.items():
        assert list(scores(measure, reference, samples, Context(features))) == [called]
