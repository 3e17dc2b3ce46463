"""Expectation-maximization: against scikit-learn from the same start, scipy, and planted mixtures, and at the edges."""

import math
import warnings
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.cluster import KMeans
from sklearn.mixture import GaussianMixture as SklearnMixture
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from expost.densities import Gaussian, GaussianMixture, MixtureStart
from expost.densities.covariances import COVARIANCES
from expost.densities.em import Components, collect, maximize
from expost.densities.kmeans import lloyd, plus_plus
from expost.errors import DataError, UsageError
from references import bulk_units

pytestmark = pytest.mark.usefixtures("one_thread")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def planted(
    n: int, k: int = 3, d: int = 2, seed: int = 0, spread: float = 6.0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Draw n codes, float64, from a known mixture; return them and its weights, means and covariances."""
    generator = seeded(seed)
    weights = torch.arange(1, k + 1, dtype=torch.float64)
    weights /= weights.sum()
    means = spread * torch.randn(k, d, generator=generator, dtype=torch.float64)
    factors = torch.randn(k, d, d, generator=generator, dtype=torch.float64) + 1.5 * torch.eye(d, dtype=torch.float64)
    labels = torch.multinomial(weights, n, replacement=True, generator=generator)
    noise = torch.randn(n, d, generator=generator, dtype=torch.float64)
    z = means[labels] + torch.einsum("nij,nj->ni", factors[labels], noise)
    return z, weights, means, factors @ factors.mT


def rough_start(z: Tensor, k: int, covariance: str, seed: int) -> MixtureStart:
    """Start at k of the codes with the covariance of all of them."""
    means = z[torch.randperm(z.shape[0], generator=seeded(seed))[:k]]
    overall = torch.cov(z.T)
    start = overall if covariance == "full" else overall.diagonal()
    return MixtureStart(torch.full((k,), 1 / k, dtype=torch.float64), means, start.expand(k, *start.shape).clone())


def sklearn_from(z: Tensor, start: MixtureStart, covariance: str, max_iter: int, tol: float) -> SklearnMixture:
    inverse = start.covariances.inverse() if covariance == "full" else 1 / start.covariances
    model = SklearnMixture(
        start.weights.shape[0],
        covariance_type=covariance,
        max_iter=max_iter,
        tol=tol,
        weights_init=start.weights.double().numpy(),
        means_init=start.means.numpy(),
        precisions_init=inverse.numpy(),
        init_params="random",
        random_state=0,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # not converged within max_iter: that is the point of comparing at that point
        return model.fit(z.numpy())


def covariances_of(density: GaussianMixture) -> Tensor:
    scale = density.tensors["scale"]
    return scale @ scale.mT if scale.dim() == 3 else scale**2


# ------------------------------------------------------------------------------------------ against scikit-learn


@pytest.mark.parametrize("covariance", ["full", "diag"])
@pytest.mark.parametrize(("k", "d", "seed"), [(1, 3, 0), (3, 2, 1), (4, 20, 2), (6, 5, 3)])
def test_same_start_same_iterations_same_parameters_as_sklearn(covariance: str, k: int, d: int, seed: int) -> None:
    z, *_ = planted(700, k=k, d=d, seed=seed, spread=1.5)  # overlapping: responsibilities are soft
    z = z / bulk_units(z)  # then the ridge is scikit-learn's
    start = rough_start(z, k, covariance, seed)
    reference = sklearn_from(z, start, covariance, max_iter=25, tol=0.0)
    density = GaussianMixture(components=k, covariance=covariance, max_iter=25, tol=0.0).fit_from(z, start)
    np.testing.assert_allclose(density.tensors["weights"].numpy(), reference.weights_, rtol=1e-7, atol=1e-10)
    np.testing.assert_allclose(density.tensors["means"].numpy(), reference.means_, rtol=1e-7, atol=1e-8)
    np.testing.assert_allclose(covariances_of(density).numpy(), reference.covariances_, rtol=1e-6, atol=1e-8)
    ours, theirs = density.statistics["log_likelihood"], reference.score(z.numpy())
    assert ours >= theirs - 1e-6 * abs(theirs)
    held_out, *_ = planted(50, k=k, d=d, seed=seed + 10)
    np.testing.assert_allclose(density.log_prob(held_out).numpy(), reference.score_samples(held_out.numpy()), rtol=1e-6)


@pytest.mark.parametrize("covariance", ["full", "diag"])
def test_stops_where_sklearn_stops(covariance: str) -> None:
    z, *_ = planted(500, spread=2.0)
    z = z / bulk_units(z)
    start = rough_start(z, 3, covariance, 5)
    reference = sklearn_from(z, start, covariance, max_iter=500, tol=1e-3)
    density = GaussianMixture(components=3, covariance=covariance).fit_from(z, start)
    assert reference.converged_
    assert density.statistics["converged"] is True
    assert density.statistics["iterations"] == reference.n_iter_ > 3
    assert density.statistics["trace"][-2] == pytest.approx(reference.lower_bound_, rel=1e-9)


def test_own_starts_are_on_average_no_worse_than_sklearns() -> None:
    """Every one leads to some local optimum, and these differ by several tenths of a nat between seeds of either."""
    differences = []
    for seed in range(12):
        z, *_ = planted(800, k=8, d=4, seed=seed, spread=2.0)
        reference = SklearnMixture(8, random_state=seed, max_iter=2000).fit(z.numpy()).score(z.numpy())
        differences.append(GaussianMixture(components=8, seed=seed).fit(z).statistics["log_likelihood"] - reference)
    assert np.mean(differences) > -0.02


def test_float32_codes_of_large_scale_do_not_lose_the_variance() -> None:
    """The example of scikit-learn#30382: in float32 it gets variances of -1 where the ridge alone is right."""
    z = torch.tensor([[9999.0], [0.0]], dtype=torch.float32)
    for covariance in ("full", "diag"):
        density = GaussianMixture(components=2, covariance=covariance, regularization=4e-9).fit(z)
        ridge = torch.full((2,), 4e-9 * 9999**2 / 4, dtype=torch.float64)
        torch.testing.assert_close(covariances_of(density).flatten(), ridge)


# ------------------------------------------------------------------------------------------ the fitted mixture


@pytest.mark.parametrize("covariance", ["full", "diag"])
def test_log_prob_is_scipys_and_samples_have_its_moments(covariance: str) -> None:
    z, *_ = planted(800)
    density = GaussianMixture(components=3, covariance=covariance).fit(z)
    weights, means = density.tensors["weights"].numpy(), density.tensors["means"].numpy()
    full = [s if covariance == "full" else np.diag(s) for s in covariances_of(density).numpy()]
    held_out = planted(40, seed=3)[0].numpy()
    parts = [
        np.log(w) + multivariate_normal(m, s).logpdf(held_out) for w, m, s in zip(weights, means, full, strict=True)
    ]
    expected = np.logaddexp.reduce(parts)
    np.testing.assert_allclose(density.log_prob(torch.from_numpy(held_out)).numpy(), expected, rtol=1e-10)
    samples = density.sample(200_000, generator=seeded()).double().numpy()
    mean = weights @ means
    second = sum(w * (s + np.outer(m - mean, m - mean)) for w, m, s in zip(weights, means, full, strict=True))
    np.testing.assert_allclose(samples.mean(0), mean, atol=0.1)
    np.testing.assert_allclose(np.cov(samples.T), second, rtol=0.03, atol=0.3)


def test_recovers_a_planted_mixture() -> None:
    z, weights, means, covariances = planted(30_000, k=3, d=4)
    density = GaussianMixture(components=3, tol=1e-6).fit(z.float())
    order = torch.cdist(means, density.tensors["means"]).argmin(1)
    assert sorted(order.tolist()) == [0, 1, 2]
    torch.testing.assert_close(density.tensors["weights"][order], weights, atol=0.01, rtol=0)
    torch.testing.assert_close(density.tensors["means"][order], means, atol=0.1, rtol=0)
    torch.testing.assert_close(covariances_of(density)[order], covariances, atol=0.4, rtol=0.05)
    held_out, *_ = planted(30_000, k=3, d=4)
    assert density.statistics["reseeded"] == 0
    assert density.log_prob(held_out).mean().item() == pytest.approx(density.statistics["log_likelihood"], abs=0.02)


def test_one_component_is_the_gaussian() -> None:
    z, *_ = planted(300)
    one, gaussian = GaussianMixture(components=1).fit(z), Gaussian().fit(z)
    torch.testing.assert_close(one.log_prob(z), gaussian.log_prob(z), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("covariance", ["full", "diag"])
def test_moving_the_codes_far_away_changes_nothing(covariance: str) -> None:
    z, *_ = planted(400)
    near = GaussianMixture(components=3, covariance=covariance).fit(z)
    far = GaussianMixture(components=3, covariance=covariance).fit(z + 1e7)
    torch.testing.assert_close(far.tensors["scale"], near.tensors["scale"], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(far.log_prob(z + 1e7), near.log_prob(z), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("covariance", ["full", "diag"])
def test_chunks_change_nothing(covariance: str, monkeypatch: pytest.MonkeyPatch) -> None:
    z, *_ = planted(500, k=4, d=17)
    whole = GaussianMixture(components=4, covariance=covariance).fit(z)
    monkeypatch.setattr("expost.densities.em._CPU_ELEMENTS", 1)  # 16 codes at a time
    monkeypatch.setattr("expost.densities.kmeans._CHUNK_ELEMENTS", 30)
    chunked = GaussianMixture(components=4, covariance=covariance).fit(z)
    assert chunked.statistics["iterations"] == whole.statistics["iterations"]
    for key, tensor in whole.tensors.items():
        torch.testing.assert_close(chunked.tensors[key], tensor, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("covariance", ["full", "diag"])
def test_leaving_out_negligible_responsibilities_changes_nothing(
    covariance: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    z, *_ = planted(600, k=5, d=8, spread=10.0)
    start = rough_start(z, 5, covariance, 1)
    sparse = GaussianMixture(components=5, covariance=covariance).fit_from(z, start)
    monkeypatch.setattr("expost.densities.em._NEGLIGIBLE", -1.0)  # keeps all: the batched products
    dense = GaussianMixture(components=5, covariance=covariance).fit_from(z, start)
    assert dense.statistics["iterations"] == sparse.statistics["iterations"]
    for key, tensor in dense.tensors.items():
        torch.testing.assert_close(sparse.tensors[key], tensor, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("d", [1, 16, 17, 40, 48, 64, 65, 128])
def test_blockwise_whitening_is_a_triangular_solve(d: int) -> None:
    full = COVARIANCES["full"]
    factor = torch.randn(3, d, d, generator=seeded(), dtype=torch.float64) / d + torch.eye(d, dtype=torch.float64)
    factor = torch.linalg.cholesky(factor @ factor.mT)
    z, means = (torch.randn(n, d, generator=seeded(n), dtype=torch.float64) for n in (7, 3))
    y = full.whiten(z, means, full.whitener(factor))
    expected = torch.linalg.solve_triangular(factor[:, None], (z - means[:, None])[..., None], upper=False)
    torch.testing.assert_close(y, expected.squeeze(-1).transpose(0, 1), rtol=1e-10, atol=1e-10)


# ------------------------------------------------------------------------------------------ the trace


@pytest.mark.parametrize("covariance", ["full", "diag"])
@pytest.mark.parametrize("seed", range(4))
def test_the_log_likelihood_never_falls_without_a_ridge(covariance: str, seed: int) -> None:
    z, *_ = planted(400, k=4, d=3, seed=seed, spread=1.0)
    start = rough_start(z, 4, covariance, seed)
    density = GaussianMixture(components=4, covariance=covariance, regularization=0.0, tol=0.0, max_iter=80).fit_from(
        z, start
    )
    trace = density.statistics["trace"]
    assert len(trace) == 81
    assert trace[-1] > trace[0] + 0.05
    assert min(after - before for before, after in pairwise(trace)) > -1e-11
    assert density.statistics["largest_decrease"] < 1e-11


def test_the_trace_is_the_log_likelihood_of_every_iteration() -> None:
    z, *_ = planted(300, spread=2.0)
    start = rough_start(z, 3, "full", 2)
    trace = GaussianMixture(components=3, max_iter=6, tol=0.0).fit_from(z, start).statistics["trace"]
    for iterations in (1, 4, 6):
        density = GaussianMixture(components=3, max_iter=iterations, tol=0.0).fit_from(z, start)
        assert density.log_prob(z).mean().item() == pytest.approx(trace[iterations], rel=1e-10)
        assert density.statistics["converged"] is False
        assert density.statistics["log_likelihood"] == density.statistics["trace"][-1]


def test_a_large_ridge_may_lower_the_log_likelihood_and_that_is_recorded() -> None:
    """From the maximum-likelihood parameters the ridge's M-step can only go down: by exactly what it costs."""
    z, *_ = planted(500)
    density = GaussianMixture(components=1, regularization=2.0, max_iter=1).fit_from(
        z, MixtureStart(torch.ones(1), z.mean(0)[None], torch.cov(z.T, correction=0)[None])
    )
    best = Gaussian(regularization=0.0).fit(z).statistics["log_likelihood"]
    ridged = Gaussian(regularization=2.0).fit(z).statistics["log_likelihood"]
    assert density.statistics["largest_decrease"] == pytest.approx(best - ridged, rel=1e-9)
    assert best - ridged > 0.001


def test_more_starts_are_no_worse_and_the_best_is_kept() -> None:
    z, *_ = planted(300, k=8, d=2, spread=3.0)
    one = GaussianMixture(components=8).fit(z).statistics
    many = GaussianMixture(components=8, n_init=6).fit(z)
    starts = many.statistics["starts"]
    assert starts[0] == one["log_likelihood"]
    assert len(set(starts)) > 1
    assert many.statistics["log_likelihood"] == max(starts)
    assert many.log_prob(z).mean().item() == pytest.approx(max(starts), rel=1e-10)


# ------------------------------------------------------------------------------------------ the edges


def test_too_few_codes_for_the_components() -> None:
    with pytest.raises(DataError, match="10 components need at least as many codes, got 9; use fewer components"):
        GaussianMixture().fit(torch.randn(9, 2, generator=seeded()))
    repeated = torch.randn(3, 2, generator=seeded()).repeat(40, 1)
    with pytest.raises(DataError, match="only 3 different codes for 4 components; use fewer components"):
        GaussianMixture(components=4).fit(repeated)


@pytest.mark.parametrize("covariance", ["full", "diag"])
def test_repeated_codes_become_narrow_components(covariance: str) -> None:
    points = torch.tensor([[0.0, 0.0], [5.0, 1.0], [-3.0, 8.0]])
    density = GaussianMixture(components=3, covariance=covariance).fit(points.repeat(40, 1))
    means = density.tensors["means"]
    torch.testing.assert_close(means[torch.cdist(points.double(), means).argmin(1)], points.double())
    samples = density.sample(300, generator=seeded())
    ridge = (1e-6 * points.var(0, correction=0).mean()).sqrt()
    assert torch.cdist(samples, points).min(1).values.max() < 5 * ridge


@pytest.mark.parametrize("covariance", ["full", "diag"])
def test_without_a_ridge_a_collapsed_component_raises(covariance: str) -> None:
    z = torch.tensor([[0.0, 0.0], [5.0, 1.0], [-3.0, 8.0]]).repeat(40, 1)
    density = GaussianMixture(components=3, covariance=covariance, regularization=0.0)
    with pytest.raises(DataError, match="a component .*raise regularization") as caught:
        density.fit(z)
    assert "\n" not in str(caught.value)
    assert not density.fitted


@pytest.mark.parametrize("covariance", ["full", "diag"])
def test_empty_components_are_started_again(covariance: str) -> None:
    z, *_ = planted(600, spread=8.0)
    wide = rough_start(z, 3, covariance, 0)
    means = wide.means.clone()
    means[1:] = 1e6  # where no code is: their responsibilities are exactly 0
    narrow = wide.covariances * 1e-2
    start = MixtureStart(wide.weights, means, narrow)
    density = GaussianMixture(components=3, covariance=covariance).fit_from(z, start)
    assert density.statistics["reseeded"] == 2
    assert density.tensors["weights"].min() > 0.05
    single = GaussianMixture(components=1, covariance=covariance).fit(z).statistics["log_likelihood"]
    assert density.statistics["log_likelihood"] > single + 0.5
    assert density.tensors["weights"].sum().item() == pytest.approx(1)


@pytest.mark.parametrize(
    ("start", "words"),
    [
        (MixtureStart(torch.ones(3), torch.zeros(2, 2), torch.eye(2).expand(2, 2, 2)), "start.weights must be finite"),
        (MixtureStart(torch.ones(2), torch.zeros(2, 3), torch.eye(3).expand(2, 3, 3)), "start.means must be finite"),
        (MixtureStart(torch.ones(2), torch.zeros(2), torch.eye(2).expand(2, 2, 2)), "start.means must be finite"),
        (MixtureStart(torch.ones(2), torch.zeros(2, 2), torch.ones(2, 2)), "start.covariances must be finite"),
        (
            MixtureStart(torch.ones(2), torch.full((2, 2), math.nan), torch.eye(2).expand(2, 2, 2)),
            "start.means must be finite",
        ),
        (MixtureStart(torch.tensor([1.0, 0.0]), torch.zeros(2, 2), torch.eye(2).expand(2, 2, 2)), "must be positive"),
    ],
)
def test_an_unusable_start_is_refused(start: MixtureStart, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        GaussianMixture(components=2).fit_from(torch.randn(20, 2, generator=seeded()), start)


def test_a_start_that_is_not_positive_definite_is_refused() -> None:
    start = MixtureStart(torch.ones(2), torch.zeros(2, 2), -torch.eye(2).expand(2, 2, 2))
    with pytest.raises(DataError, match="not positive definite"):
        GaussianMixture(components=2).fit_from(torch.randn(20, 2, generator=seeded()), start)


def test_one_m_step_by_hand() -> None:
    """Two codes in one cluster and three in another, given wholly: weights, means and variances can be read off."""
    x = torch.tensor([[-3.0], [-1.0], [2.0], [6.0], [7.0]], dtype=torch.float64)
    before = Components(
        torch.tensor([0.5, 0.5]).double(), torch.tensor([[0.3], [0.7]]).double(), torch.ones(2, 1, 1).double()
    )
    moments = collect(x, before, COVARIANCES["full"], labels=torch.tensor([0, 0, 1, 1, 1]))
    after, empty = maximize(before, moments, COVARIANCES["full"], regularization=0.5)
    assert after.weights.tolist() == pytest.approx([0.4, 0.6])
    assert after.means.flatten().tolist() == pytest.approx([-2, 5])
    assert after.scale.square().flatten().tolist() == pytest.approx([1.5, 14 / 3 + 0.5])
    assert not empty.any()


class NoChoice(TorchDispatchMode):
    """Refuses what picks rows by their values, for which a GPU would have to be waited for."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        assert function._schema.name.removeprefix("aten::") not in ("index", "index_put_", "nonzero", "masked_select")
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_an_m_step_leaves_an_empty_component_as_it_is_and_the_others_as_without_it(covariance: str) -> None:
    structure = COVARIANCES[covariance]
    x = torch.randn(30, 2, generator=seeded(), dtype=torch.float64)
    labels = torch.arange(30) % 2 * 2  # none for the component in the middle
    scale = structure.initial_scale(torch.tensor([[2.0, 0.5], [0.5, 1.0]]).double(), 3)
    before = Components(torch.full((3,), 1 / 3).double(), torch.randn(3, 2, generator=seeded(1)).double(), scale)
    moments = collect(x, before, structure, labels)
    with NoChoice():
        after, empty = maximize(before, moments, structure, regularization=0.0)
    assert empty.tolist() == [False, True, False]
    assert torch.equal(after.means[1], before.means[1])
    assert torch.equal(after.scale[1], before.scale[1])
    pair = Components(before.weights[::2], before.means[::2], before.scale[::2])
    alone, _ = maximize(pair, collect(x, pair, structure, labels // 2), structure, regularization=0.0)
    torch.testing.assert_close(after.means[::2], alone.means)
    torch.testing.assert_close(after.scale[::2], alone.scale)
    torch.testing.assert_close(after.weights, torch.tensor([0.5, 0.0, 0.5]).double())


# ------------------------------------------------------------------------------------------ k-means


def test_lloyd_is_sklearns_from_the_same_centers() -> None:
    z, *_ = planted(500, k=5, d=3, spread=3.0)
    start = plus_plus(z, 5, seeded())
    centers, labels = lloyd(z, start, tol=0.0, max_iter=300)
    reference = KMeans(5, init=start.numpy(), n_init=1, tol=0.0, max_iter=300, algorithm="lloyd").fit(z.numpy())
    np.testing.assert_allclose(centers.numpy(), reference.cluster_centers_, rtol=1e-8, atol=1e-8)
    np.testing.assert_array_equal(labels.numpy(), reference.labels_)


def test_plus_plus_finds_every_far_cluster_and_never_a_repeated_code() -> None:
    points = torch.randn(12, 2, generator=seeded(), dtype=torch.float64) * 100
    clusters = points.repeat(30, 1) + 0.01 * torch.randn(360, 2, generator=seeded(1), dtype=torch.float64)
    for seed in range(10):
        centers = plus_plus(clusters, 12, seeded(seed))
        assert torch.cdist(points, centers).min(1).values.max() < 1
        repeated = plus_plus(points.repeat(3, 1), 12, seeded(seed))
        assert torch.unique(repeated, dim=0).shape[0] == 12


def test_plus_plus_is_seeded() -> None:
    z, *_ = planted(200)
    assert torch.equal(plus_plus(z, 4, seeded(1)), plus_plus(z, 4, seeded(1)))
    assert not torch.equal(plus_plus(z, 4, seeded(1)), plus_plus(z, 4, seeded(2)))
