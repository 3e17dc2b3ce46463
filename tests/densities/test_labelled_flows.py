"""Flow and flow matching with labels: planted classes, Bayes' rule, guidance against closed forms."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from expost.densities import (
    ConditionalDensity,
    Flow,
    FlowMatching,
    LabelledDensity,
    load_density,
    make_labelled,
)
from expost.densities.grouped import Grouped, centers_of, embed, spread_of
from expost.densities.labels import read_labels
from expost.densities.standards import Whitened
from expost.errors import DataError, UsageError

pytestmark = pytest.mark.usefixtures("one_thread")

SHARES = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
QUICK: tuple[LabelledDensity, ...] = (
    FlowMatching(width=16, depth=1, steps=30),
    Flow(width=16, transforms=2, steps=20),
    Flow(width=16, kind="affine", steps=20),
)
each_kind = pytest.mark.parametrize("density", QUICK, ids=["flow-matching", "flow", "affine"])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def planted(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Three classes that overlap: a banana, its mirror image moved up, a narrow Gaussian."""
    generator = seeded(seed)
    labels = torch.multinomial(SHARES, n, replacement=True, generator=generator)
    u = torch.randn(n, 2, generator=generator, dtype=torch.float64)
    up = torch.stack([u[:, 0], 0.5 * u[:, 1] + 0.5 * u[:, 0].square()], 1)
    down = torch.stack([u[:, 0], 2 - 0.5 * u[:, 1] - 0.5 * u[:, 0].square()], 1)
    narrow = 0.4 * u + torch.tensor([2.0, 1.0])
    return torch.stack([up, down, narrow])[labels, torch.arange(n)], labels


def log_planted(z: Tensor) -> Tensor:
    """log q(z | c), shape (N, 3)."""
    x, y = z.T
    normal = lambda u, v: -0.5 * (u.square() + v.square()) - math.log(2 * math.pi)  # noqa: E731
    columns = [
        normal(x, 2 * y - x.square()) + math.log(2),
        normal(x, 4 - x.square() - 2 * y) + math.log(2),
        normal((x - 2) / 0.4, (y - 1) / 0.4) - 2 * math.log(0.4),
    ]
    return torch.stack(columns, 1)


@pytest.mark.parametrize(
    "density",
    [FlowMatching(width=96, depth=2, steps=1_500), Flow(width=48, steps=400, lr=3e-3)],
    ids=["flow-matching", "flow"],
)
def test_planted_classes_are_recovered(density: LabelledDensity) -> None:
    """Every class to .02 nats, what is between them by Bayes' rule, their shares."""
    density.fit(*planted(60_000, 0))
    test, labels = planted(4_000, 1)
    exact = log_planted(test)
    for c in range(3):
        mine = test[labels == c]
        ratio = exact[labels == c, c] - density.log_prob(mine, c)
        assert ratio.mean() < 0.02 + 3 * ratio.std() / math.sqrt(len(mine)), c
    assert density.counts == tuple(torch.bincount(planted(60_000, 0)[1]).tolist())
    joint = exact + SHARES.log()
    posterior = torch.softmax(joint, 1)
    assert (density.posterior(test) - posterior).abs().sum(1).mean() < 0.05
    torch.testing.assert_close(density.log_prob(test).mean(), torch.logsumexp(joint, 1).mean(), atol=0.06, rtol=0)
    samples = density.sample(4_000, generator=seeded(2))
    torch.testing.assert_close(density.posterior(samples).mean(0), SHARES, atol=0.04, rtol=0)
    for c in range(3):
        samples, mine = density.sample(4_000, c, generator=seeded(3)).double(), test[labels == c]
        torch.testing.assert_close(samples.mean(0), mine.mean(0), atol=0.15, rtol=0)


@each_kind
def test_all_codes_are_the_classes_by_their_shares(density: LabelledDensity) -> None:
    z, labels = planted(600, 0)
    density.fit(z, labels)
    logs = torch.stack([density.log_prob(z[:50], c) for c in range(3)], 1)
    shares = torch.tensor(density.counts, dtype=torch.float64) / 600
    torch.testing.assert_close(density.log_prob(z[:50]), torch.logsumexp(logs + shares.log(), 1))
    torch.testing.assert_close(density.posterior(z[:50]), torch.softmax(logs + shares.log(), 1))


@pytest.mark.parametrize("kind", [FlowMatching, Flow])
def test_training_starts_from_a_gaussian_about_every_class(kind: type[FlowMatching | Flow]) -> None:
    """N(m_c, S) with S the covariance within classes, over N - C: linear discriminant analysis."""
    z, labels = planted(900, 0)
    density = kind(width=8, steps=1, lr=1e-30).fit(z, labels)
    means = torch.stack([z[labels == c].mean(0) for c in range(3)])
    centered = z - means[labels]
    within = torch.distributions.MultivariateNormal(torch.zeros(2).double(), centered.T @ centered / (900 - 3))
    for c in range(3):
        expected = within.log_prob(z - means[c])
        torch.testing.assert_close(density.log_prob(z, c), expected, atol=1e-3, rtol=1e-4)
        noise = torch.randn(20, 2, generator=seeded(5)).double()
        samples = density.sample(20, c, generator=seeded(5)).double()
        torch.testing.assert_close(samples, means[c] + noise @ within.scale_tril.T, atol=1e-3, rtol=0)


def test_bins_of_a_property_are_learned_in_order() -> None:
    """The code goes along a curve with the property; one bin between others has few codes, and lies between them."""
    value = torch.rand(3_000, generator=seeded(0), dtype=torch.float64)
    value = torch.cat([value[(value < 0.45) | (value > 0.55)], torch.full((6,), 0.5, dtype=torch.float64)])
    noise = torch.randn(len(value), 2, generator=seeded(1), dtype=torch.float64)
    curve = torch.stack([(3 * value).cos(), (3 * value).sin()], 1) * 3
    bins = [0.0, 0.15, 0.3, 0.45, 0.55, 0.7, 0.85, 1.0]
    for density in (FlowMatching(width=32, depth=1, steps=250), Flow(width=32, transforms=2, steps=120)):
        density.fit(curve + 0.2 * noise, value, bins=bins)
        assert density.edges == tuple(bins)
        for at in (0.07, 0.5, 0.93):
            middle = density.sample(500, at, generator=seeded(2)).double().mean(0)
            assert (middle - 3 * torch.tensor([math.cos(3 * at), math.sin(3 * at)])).norm() < 0.35, (density.name, at)


def test_an_embedding_of_bins_sums_steps_and_one_of_classes_does_not() -> None:
    learned = torch.arange(6.0).reshape(3, 2)
    bins, _ = read_labels([0.1, 0.5, 0.9], 3, bins=[0.0, 0.3, 0.6, 1.0])
    classes, _ = read_labels(["a", "b", "c"], 3)
    assert embed(learned, bins).tolist() == [[0.0, 1.0], [2.0, 4.0], [6.0, 9.0]]
    assert torch.equal(embed(learned, classes), learned)


# ------------------------------------------------------------------------------------------------------------ guidance


def follow(velocity, x: Tensor, steps: int = 400) -> Tensor:
    """Follow dx/dt from t = 0 to 1 by the middle of each step, float64."""
    for k in range(steps):
        t, h = k / steps, 1 / steps
        x = x + h * velocity(x + h / 2 * velocity(x, t), t + h / 2)
    return x


def of_normal(x: Tensor, t: float, mean: Tensor, variance: Tensor | float) -> Tensor:
    """E[x_1 - x_0 | x_t = x] for x_1 of N(mean, diag(variance)) and x_0 of N(0, I)."""
    return mean + (t * variance - (1 - t)) / ((1 - t) ** 2 + t**2 * variance) * (x - t * mean)


def two_classes(n: int) -> tuple[Tensor, Tensor]:
    """N(m, I) and N(-m, I), their means and covariance those of the codes exactly."""
    half = torch.randn(n, 2, generator=seeded(0), dtype=torch.float64)
    half = half - half.mean(0)
    half = half @ torch.linalg.inv(torch.linalg.cholesky(half.T @ half / (n - 1))).T
    mean = torch.tensor([1.5, 0.5], dtype=torch.float64)
    return torch.cat([half + mean, half - mean]), torch.arange(2).repeat_interleave(n)


MEAN = torch.tensor([1.5, 0.5], dtype=torch.float64)


@pytest.mark.parametrize("solver", ["runge-kutta", "dormand-prince"])
@pytest.mark.parametrize("guidance", [0.0, 0.5, 3.0])
def test_guidance_of_an_untrained_network_is_that_of_gaussians(guidance: float, solver: str) -> None:
    """f = 0: with a label N(m_c, I), without one N(0, diag(1 + m^2)); paths followed in x instead of y."""
    options: dict[str, Any] = {"solver": solver, "ode_steps": 32, "tolerance": 1e-5}
    density = FlowMatching(width=8, depth=1, steps=1, lr=1e-30, guidance=guidance, **options).fit(*two_classes(400))
    noise = torch.randn(200, 2, generator=seeded(4)).double()
    for c, mean in enumerate((MEAN, -MEAN)):

        def guided(x: Tensor, t: float, mean: Tensor = mean) -> Tensor:
            labelled = of_normal(x, t, mean, 1.0)
            unlabelled = of_normal(x, t, 0 * mean, 1 + mean.square())
            return unlabelled + guidance * (labelled - unlabelled)

        samples = density.sample(200, c, generator=seeded(4)).double()
        torch.testing.assert_close(samples, follow(guided, noise), atol=4e-3, rtol=0)


@pytest.fixture(scope="module")
def of_two() -> FlowMatching:
    """Flow matching of two Gaussian classes, the velocity without a label trained as much as that with one."""
    return FlowMatching(width=48, depth=2, steps=1_200, unlabelled=0.5, ode_steps=16).fit(*two_classes(5_000))


@pytest.mark.parametrize("guidance", [0.0, 1.0, 2.0])
def test_guidance_of_two_gaussians_is_the_closed_form(of_two: FlowMatching, guidance: float) -> None:
    """Without a label the velocity is the mean of the classes' by p(c | x_t), here logistic."""
    noise = torch.randn(1_000, 2, generator=seeded(4)).double()
    for c, sign in enumerate((1.0, -1.0)):

        def guided(x: Tensor, t: float, sign: float = sign) -> Tensor:
            both = [of_normal(x, t, side * MEAN, 1.0) for side in (1.0, -1.0)]
            share = torch.sigmoid(2 * t * (x @ MEAN) / ((1 - t) ** 2 + t**2))[:, None]
            unlabelled = share * both[0] + (1 - share) * both[1]
            return unlabelled + guidance * (both[0 if sign > 0 else 1] - unlabelled)

        samples = of_two.guided(guidance).sample(1_000, c, generator=seeded(4)).double()
        expected = follow(guided, noise, 100)
        assert (samples - expected).norm(dim=1).mean() < 0.15
        torch.testing.assert_close(samples.mean(0), expected.mean(0), atol=0.1, rtol=0)
    if guidance == 2.0:  # further from the other class than the codes are
        assert (expected @ MEAN).mean().abs() > 1.1 * MEAN @ MEAN


def test_guidance_one_is_none_bit_for_bit_and_near_one_it_is_near(of_two: FlowMatching) -> None:
    same, near = of_two.guided(1.0), of_two.guided(1.001)
    z = two_classes(5)[0]
    for c in (0, 1):
        assert torch.equal(same.sample(50, c, generator=seeded()), of_two.sample(50, c, generator=seeded()))
        assert torch.equal(same.log_prob(z, c), of_two.log_prob(z, c))
        difference = near.sample(50, c, generator=seeded()) - of_two.sample(50, c, generator=seeded())
        assert 0 < difference.abs().max() < 0.01


def test_the_density_of_a_guided_fit_is_that_of_its_samples(of_two: FlowMatching) -> None:
    """By the change of variables, with the whole map's Jacobian; and it integrates to one."""
    guided = of_two.guided(2.0)
    noise = torch.randn(8, 2, generator=seeded(4))
    index = torch.zeros(1, dtype=torch.int64)

    def arrive(x: Tensor) -> Tensor:
        return guided.tensors["mean"][0] + guided._follow(x[None], index).double()[0] @ guided.tensors["cholesky"].T

    jacobian = torch.stack([torch.autograd.functional.jacobian(arrive, x) for x in noise])
    expected = -0.5 * (noise.double().square().sum(1) + 2 * math.log(2 * math.pi))
    expected -= torch.linalg.slogdet(jacobian.double())[1]
    ends = torch.stack([arrive(x) for x in noise])
    torch.testing.assert_close(guided.log_prob(ends, 0), expected, atol=0.02, rtol=0)
    assert (of_two.log_prob(ends, 0) - expected).abs().max() > 0.1
    side = torch.linspace(-4, 7, 45, dtype=torch.float64)
    mass = guided.log_prob(torch.cartesian_prod(side, side), 0).exp().sum() * 0.25**2
    assert mass == pytest.approx(1, abs=0.01)


# ------------------------------------------------------------------------------------------- what they refuse and keep


@each_kind
def test_a_saved_fit_is_the_same(density: LabelledDensity, tmp_path: Path) -> None:
    z, labels = planted(300, 0)
    names = np.array(["a", "b", "c"])[labels]
    density.fit(z, names)
    again = load_density(density.save(tmp_path))
    assert isinstance(again, LabelledDensity)
    assert again.labels == ("a", "b", "c")
    assert again.counts == density.counts
    for label in ("b", None):
        assert torch.equal(again.sample(20, label, generator=seeded()), density.sample(20, label, generator=seeded()))
        assert torch.equal(again.log_prob(z[:20], label), density.log_prob(z[:20], label))


@each_kind
def test_a_fit_without_labels_has_none(density: LabelledDensity) -> None:
    z, labels = planted(300, 0)
    density.fit(z, labels).fit(z)
    assert not density.labelled
    for ask in (
        lambda: density.sample(3, 1),
        lambda: density.log_prob(z, 1),
        lambda: density.posterior(z),
        lambda: density.labels,
        lambda: density.counts,
    ):
        with pytest.raises(UsageError, match=f"'{density.name}' was fitted without labels"):
            ask()
    with pytest.raises(UsageError, match="unknown label '7'; choose one of: 0, 1, 2"):
        density.fit(z, labels).sample(3, 7)


def test_guidance_without_labels_is_refused() -> None:
    z, labels = planted(100, 0)
    with pytest.raises(UsageError, match=r"guidance=2 is towards a label: fit with labels"):
        FlowMatching(guidance=2.0).fit(z)
    with pytest.raises(UsageError, match=r"guidance=2 needs the velocity without a label: give unlabelled above 0"):
        FlowMatching(guidance=2.0, unlabelled=0.0)
    with pytest.raises(UsageError, match="guidance=-1"):
        FlowMatching(width=8, depth=1, steps=1).fit(z, labels).guided(-1.0)


@each_kind
def test_classes_of_one_code_each_are_refused(density: LabelledDensity) -> None:
    z, _ = planted(5, 0)
    with pytest.raises(DataError, match="5 codes in 5 classes do not differ within a class; merge classes"):
        density.fit(z, torch.arange(5))
    with pytest.raises(DataError, match="do not differ within a class"):
        density.fit(z[:2].repeat(10, 1), torch.arange(2).repeat(10))
    density.fit(z, torch.tensor([0, 0, 1, 2, 2]))
    assert density.sample(4, 1, generator=seeded()).isfinite().all()


def test_a_dimension_that_only_tells_the_classes_apart_has_a_ridge() -> None:
    z, labels = planted(200, 0)
    told = torch.cat([z, labels[:, None].double()], 1)
    groups = Grouped.of(told, *read_labels(labels, 200), Whitened, (told.shape[1],), 1e-6)
    assert groups.x.isfinite().all()
    density = FlowMatching(width=8, depth=1, steps=5).fit(told, labels)
    torch.testing.assert_close(
        density.sample(50, 2, generator=seeded())[:, 2], torch.full((50,), 2.0), atol=0.02, rtol=0
    )


def test_a_density_that_takes_labels_is_fitted_once_and_any_other_for_each_class() -> None:
    assert isinstance(make_labelled("flow", steps=5), Flow)
    gaussian = make_labelled("gaussian", regularization=1e-4)
    assert isinstance(gaussian, ConditionalDensity)
    assert (gaussian.base, gaussian.base_options) == ("gaussian", {"regularization": 1e-4})
    each = make_labelled("conditional", base="flow", base_options={"width": 8, "steps": 5})
    z, labels = planted(300, 0)
    assert isinstance(each, ConditionalDensity)
    each.fit(z, labels)
    assert each.given(0).name == "flow"
    with pytest.raises(UsageError, match="unknown density 'flo', did you mean 'flow'"):
        make_labelled("flo")


def test_where_classes_lie_about_the_mean_of_all_codes_in_closed_form() -> None:
    """A^-1 (m_c - m), with m the mean of all codes, not of the classes' means nor of one of them."""
    z = torch.randn(40, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    z[:10] += 5
    classes, index = read_labels(np.repeat([0, 1], [10, 30]), 40, None)
    groups = Grouped.of(z, classes, index, Whitened, (2,), 1e-6)
    centers = centers_of(groups.means, groups.standard, groups.counts)
    expected = groups.standard.whiten(torch.stack([z[:10].mean(0), z[10:].mean(0)]) - z.mean(0)).float()
    torch.testing.assert_close(centers, expected)
    spread = 1 + 0.25 * expected[0].square() + 0.75 * expected[1].square()
    torch.testing.assert_close(spread_of(centers, groups.counts), spread)
