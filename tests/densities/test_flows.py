"""Flow and flow matching: planted densities recovered, exact likelihoods, one Gaussian as the start."""

import math
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from expost.densities import Flow, FlowMatching, Gaussian, GaussianMixture, TractableDensity, load_density
from expost.densities.flow import _log_base, _log_prob
from expost.densities.linalg import whiten
from expost.densities.paths import runge_kutta
from expost.densities.training import Means, hold_out, in_batches, train
from expost.errors import DataError, UsageError

pytestmark = pytest.mark.usefixtures("one_thread")

Kind = Literal["coupling", "autoregressive", "affine"]
KINDS: tuple[Kind, ...] = ("coupling", "autoregressive", "affine")


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def banana(n: int, seed: int) -> Tensor:
    """(u, v / 2 + u^2), u and v from N(0, 1)."""
    u = torch.randn(n, 2, generator=seeded(seed), dtype=torch.float64)
    return torch.stack([u[:, 0], 0.5 * u[:, 1] + u[:, 0].square()], 1)


def log_banana(z: Tensor) -> Tensor:
    u, v = z[:, 0], 2 * (z[:, 1] - z[:, 0].square())
    return -0.5 * (u.square() + v.square()) - math.log(2 * math.pi) + math.log(2)


_ANGLES = torch.linspace(0, math.pi, 2_001, dtype=torch.float64)
_MOONS = torch.cat(
    [
        torch.stack([_ANGLES.cos(), _ANGLES.sin()], 1),
        torch.stack([1 - _ANGLES.cos(), 0.5 - _ANGLES.sin()], 1),
    ]
)
_SPREAD = 0.15


def moons(n: int, seed: int) -> Tensor:
    """Two half circles, each as likely, with normal noise."""
    generator = seeded(seed)
    angle = math.pi * torch.rand(n, generator=generator, dtype=torch.float64)
    upper = torch.rand(n, generator=generator) < 0.5
    x = torch.where(upper, angle.cos(), 1 - angle.cos())
    y = torch.where(upper, angle.sin(), 0.5 - angle.sin())
    return torch.stack([x, y], 1) + _SPREAD * torch.randn(n, 2, generator=generator, dtype=torch.float64)


def log_moons(z: Tensor) -> Tensor:
    squared = torch.cdist(z, _MOONS).square()
    weights = torch.ones(len(_MOONS), dtype=torch.float64)
    weights[[0, 2_000, 2_001, 4_001]] = 0.5  # the trapezoidal rule over the angle
    terms = -0.5 * squared / _SPREAD**2 + (weights / weights.sum()).log()
    return torch.logsumexp(terms, 1) - math.log(2 * math.pi * _SPREAD**2)


def test_the_planted_densities_integrate_to_one() -> None:
    side = torch.linspace(-6, 12, 301, dtype=torch.float64)
    grid = torch.cartesian_prod(side, side)
    for log in (log_banana, log_moons):
        assert torch.cat([log(part) for part in grid.split(20_000)]).exp().sum() * 0.06**2 == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize("planted", ["banana", "moons"])
@pytest.mark.parametrize(
    "density",
    [FlowMatching(width=128, steps=3_000), Flow(width=64, steps=1_500)],
    ids=["flow-matching", "flow"],
)
def test_a_planted_density_is_recovered(density: TractableDensity, planted: str) -> None:
    draw, log = (banana, log_banana) if planted == "banana" else (moons, log_moons)
    density.fit(draw(20_000, 0))
    test = draw(5_000, 1)
    ratio = log(test) - density.log_prob(test)
    gaussian = log(test) - Gaussian().fit(draw(20_000, 0)).log_prob(test)
    assert ratio.mean() < 0.02 + 3 * ratio.std() / math.sqrt(len(test))
    assert gaussian.mean() > 0.3  # where one Gaussian is far off


@pytest.fixture(scope="module")
def bent() -> FlowMatching:
    """A fit whose path is far from straight, in three dimensions."""
    z = torch.randn(2_000, 3, generator=seeded(0))
    z = torch.cat([z[:, :1], z[:, 1:2] + z[:, :1].square(), z[:, 2:].sinh()], 1) @ torch.randn(
        3, 3, generator=seeded(1)
    )
    return FlowMatching(width=48, depth=2, steps=300, ode_steps=16).fit(z)


def test_the_density_is_that_of_the_path_that_samples_take(bent: FlowMatching) -> None:
    """Against the change of variables, with the determinant of the whole map by automatic differentiation."""
    mean, factor = bent.tensors["mean"], bent.tensors["cholesky"]
    noise = torch.randn(20, 3, generator=seeded(2), dtype=torch.float64)

    def slope(y: Tensor, t: float) -> Tensor:
        return bent._slopes(None)(y.float(), torch.full((1, 1), t), None).double()

    def arrive(x: Tensor) -> Tensor:
        y, h = x[None], 1 / bent.ode_steps
        for k in range(bent.ode_steps):
            t = k * h
            first = slope(y, t)
            second = slope(y + h / 2 * first, t + h / 2)
            third = slope(y + h / 2 * second, t + h / 2)
            y = y + h / 6 * (first + 2 * second + 2 * third + slope(y + h * third, t + h))
        return mean + (y @ factor.T)[0]

    jacobian = torch.stack([torch.autograd.functional.jacobian(arrive, x) for x in noise])
    log_normal = -0.5 * (noise.square().sum(1) + 3 * math.log(2 * math.pi))
    expected = log_normal - torch.linalg.slogdet(jacobian)[1]
    assert bent.statistics["best_step"] > 0
    assert (torch.linalg.slogdet(jacobian)[1] - factor.diagonal().log().sum()).abs().max() > 0.1  # the path matters
    torch.testing.assert_close(bent.log_prob(torch.stack([arrive(x) for x in noise])), expected, atol=2e-3, rtol=0)


@pytest.mark.parametrize("temperature", [0.25, 4.0])
def test_temperature_multiplies_the_noise_at_the_start_of_the_path(bent: FlowMatching, temperature: float) -> None:
    def start(t: float) -> Tensor:
        z = bent.sample(100, generator=seeded(6), temperature=t).double()
        y = whiten(z, bent.tensors["mean"], bent.tensors["cholesky"]).float()
        return runge_kutta(bent._slopes(None), y, 1.0, 0.0, bent.ode_steps)

    torch.testing.assert_close(start(temperature), math.sqrt(temperature) * start(1.0), atol=0.02, rtol=0)


def test_more_steps_of_the_path_change_little(bent: FlowMatching) -> None:
    """Few and many steps of Runge and Kutta, and Dormand and Prince's at two tolerances, all find one path."""
    fine = FlowMatching(**bent.options | {"ode_steps": 64})
    fine._state.fit, fine._state.shape = bent._state.fit, bent._state.shape
    z = bent.sample(300, generator=seeded(3))
    for options, most in (
        ({"ode_steps": 8}, 0.01),
        ({"solver": "dormand-prince"}, 0.01),
        ({"solver": "dormand-prince", "tolerance": 1e-5}, 3e-4),
    ):
        density = FlowMatching(**bent.options | options)
        density._state.fit, density._state.shape = bent._state.fit, bent._state.shape
        assert (fine.log_prob(z) - density.log_prob(z)).abs().mean() < most
        same = [each.sample(200, generator=seeded(4)) for each in (fine, density)]
        assert (same[0] - same[1]).abs().mean() < most * same[0].std()


def test_an_estimated_divergence_is_right_on_average(bent: FlowMatching) -> None:
    z = bent.sample(400, generator=seeded(5))
    exact = bent.log_prob(z)
    estimates = []
    for seed in range(4):
        estimate = FlowMatching(**bent.options | {"exact_divergence": 2, "probes": 16, "seed": seed})
        estimate._state.fit, estimate._state.shape = bent._state.fit, bent._state.shape
        estimates.append(estimate.log_prob(z))
        assert torch.equal(estimates[-1], estimate.log_prob(z))  # the same at every call
    difference = torch.stack(estimates).mean(0) - exact
    assert (torch.stack(estimates).std(0) > 1e-4).float().mean() > 0.9  # it is an estimate
    assert difference.abs().mean() < 0.1
    assert difference.mean().abs() < 5 * difference.std() / math.sqrt(len(z))


@pytest.mark.parametrize(
    "density",
    [
        FlowMatching(width=16, depth=1, steps=1, lr=1e-30),
        *(Flow(kind=kind, width=16, steps=1, lr=1e-30) for kind in KINDS),
    ],
    ids=["flow-matching", *KINDS],
)
def test_training_starts_from_one_gaussian(density: TractableDensity) -> None:
    z = torch.randn(200, 3, generator=seeded(0)) @ torch.randn(3, 3, generator=seeded(1)) + 2
    gaussian = Gaussian().fit(z)
    density.fit(z)
    torch.testing.assert_close(density.log_prob(z), gaussian.log_prob(z), atol=1e-4, rtol=0)
    mine, its = (each.sample(50, generator=seeded(2)) for each in (density, gaussian))
    torch.testing.assert_close(mine, its, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "density", [FlowMatching(width=64, steps=400), Flow(width=64, steps=400)], ids=["matching", "flow"]
)
def test_ten_codes_give_no_better_than_they_say(density: TractableDensity) -> None:
    """What fits the training codes alone is not kept."""
    z = torch.randn(10, 6, generator=seeded(0))
    density.fit(z)
    assert density.statistics["validation_loss"] <= density.statistics["start_loss"]
    fresh = torch.randn(500, 6, generator=seeded(1))
    assert density.log_prob(fresh).mean() > Gaussian().fit(z).log_prob(fresh).mean() - 3


def test_every_dimension_is_turned_by_the_others() -> None:
    """Of two maps in a row each bends what the other one leaves, and pairs of maps differ."""
    for d in (2, 4, 5):
        maps = Flow(transforms=8, width=4)._network(d, False).transforms
        left = [each.mask for each in maps]
        assert not any(bool((a & b).any()) for a, b in zip(left[::2], left[1::2], strict=True))
        assert len({tuple(each.tolist()) for each in left}) > (1 if d == 2 else 2)
    maps = Flow(kind="autoregressive", transforms=4, width=4)._network(5, False).transforms
    assert maps[1].order.tolist() == [4 - each for each in maps[0].order.tolist()]


def test_held_out_codes_are_not_trained_on() -> None:
    held, others = hold_out(40, seeded(0))
    assert len(held) == 4
    assert sorted(torch.cat([held, others]).tolist()) == list(range(40))
    rows = list(in_batches(others, 10, 4, seeded(0)))
    assert [len(each) for each in rows] == [10] * 4
    assert set(torch.cat(rows[:3] + rows[3:]).tolist()) == set(others.tolist())  # a pass, and four rows of the next
    assert len(set(torch.cat(rows).tolist()[:36])) == 36


def test_weights_are_kept_only_where_their_lead_is_beyond_chance() -> None:
    """Of two candidates the one with the lower loss leads by less than two standard errors, and is not kept."""
    weight = torch.zeros(1)
    start = torch.zeros(100)
    spread = torch.linspace(-1, 1, 100)
    candidates = [start, -0.2 + 2 * spread, -0.15 + 0.5 * spread, start]  # errors .117 and .029

    def step(batch: Tensor) -> None:
        weight.add_(1)

    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    batches = in_batches(torch.arange(10), 5, 3, seeded(0))
    judged = iter(candidates)
    best, found = train("flow", optimizer, 1.0, batches, 3, step, lambda: {"w": weight}, lambda: next(judged))
    assert (found["best_step"], best["w"].item()) == (2, 2.0)
    assert found["validation_loss"] == pytest.approx(-0.15)
    assert found["start_loss"] == 0.0


def clusters(n: int, seed: int) -> Tensor:
    """Three of them, bent, on a plane."""
    at = 6 * torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    return banana(n, seed) + at[torch.randint(3, (n,), generator=seeded(seed + 1))]


def test_training_starts_from_the_mixture_where_codes_are_in_clusters() -> None:
    """From that of the training part, seen through the whitening; it is kept if nothing is better."""
    z, fresh = clusters(900, 0), clusters(500, 2)
    density = Flow(components=3, width=16, steps=1, lr=1e-30, seed=4).fit(z)
    assert (density.statistics["components"], density.statistics["best_step"]) == (3, 0)
    whole = Gaussian(regularization=density.regularization).fit(z).tensors
    rows = hold_out(len(z), seeded(4))[1]
    mixture = GaussianMixture(components=3, seed=4).fit(whiten(z[rows], whole["mean"], whole["cholesky"]))
    expected = mixture.log_prob(whiten(fresh, whole["mean"], whole["cholesky"]))
    expected = expected - whole["cholesky"].diagonal().log().sum()
    torch.testing.assert_close(density.log_prob(fresh), expected, atol=1e-6, rtol=0)
    drawn = mixture.sample(50, generator=seeded(5), temperature=0.5).double()
    samples = density.sample(50, generator=seeded(5), temperature=0.5).double()
    torch.testing.assert_close(samples, whole["mean"] + drawn @ whole["cholesky"].T, atol=1e-4, rtol=0)
    one = Flow(components=1, width=16, steps=1, lr=1e-30, seed=4).fit(z)
    assert one.log_prob(fresh).mean() < density.log_prob(fresh).mean() - 0.3
    assert "components" not in one.statistics


def test_a_mixture_has_as_many_gaussians_as_codes_support() -> None:
    few = torch.cat([clusters(40, 0), clusters(40, 3)])
    assert Flow(components=50, width=8, steps=1).fit(few).statistics["components"] == 72 // 15
    assert Flow(components=15, width=8, steps=1).fit(clusters(2_000, 0)).statistics["components"] == 15
    assert "components" not in Flow(width=8, steps=1).fit(torch.randn(500, 2, generator=seeded(0))).statistics


def test_the_mean_of_weights_is_a_weighted_sum_of_them() -> None:
    weight = torch.tensor([2.0], requires_grad=True)
    means, expected = Means([weight]), 2.0
    for n in range(1, 30):
        with torch.no_grad():
            weight.copy_(torch.tensor([float(n * n)]))
        means.update()
        a = min(0.999, (1 + n) / (10 + n))
        expected = a * expected + (1 - a) * n * n
    assert means.tensors[0].item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("components", [1, 3])
def test_the_gradient_is_that_of_the_likelihood(components: int) -> None:
    """The largest of every weight tensor, against central differences."""
    z = clusters(300, 0)
    density = Flow(components=components, transforms=2, width=4, steps=30, lr=0.01).fit(z)
    chain, start = density._fitted(), _log_base(density._fitted_base())
    x = whiten(z, density.tensors["mean"], density.tensors["cholesky"])
    _log_prob(chain, x, None, start).mean().backward()  # type: ignore[no-untyped-call]
    sizes = []
    for weight in chain.parameters():
        values, place = [], int(weight.grad.abs().argmax())
        with torch.no_grad():
            for change in (1e-5, -2e-5):
                weight.view(-1)[place] += change
                values.append(_log_prob(chain, x, None, start).mean().item())
            weight.view(-1)[place] += 1e-5
        sizes.append(weight.grad.view(-1)[place].item())
        assert sizes[-1] == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-3, abs=1e-7)
    assert max(map(abs, sizes)) > 1e-3


def test_a_flow_from_a_mixture_is_saved_and_integrates_to_one(tmp_path: Path) -> None:
    density = Flow(components=3, width=16, steps=60, lr=0.01).fit(clusters(900, 0))
    assert density.statistics["best_step"] > 0
    again = load_density(density.save(tmp_path / "flow.safetensors"))
    side = torch.linspace(-8, 24, 401)
    grid = torch.cartesian_prod(side, side)
    assert isinstance(again, Flow)
    torch.testing.assert_close(again.log_prob(grid), density.log_prob(grid), atol=0, rtol=0)
    assert again.log_prob(grid).exp().sum() * 0.08**2 == pytest.approx(1, abs=5e-3)
    assert torch.equal(again.sample(9, generator=seeded(0)), density.sample(9, generator=seeded(0)))


@pytest.mark.parametrize("kind", KINDS)
def test_the_flow_is_inverted_by_its_samples(kind: Kind) -> None:
    z = banana(1_000, 0)
    density = Flow(components=1, kind=kind, width=16, steps=60).fit(z)
    noise = torch.randn(30, 2, generator=seeded(3)).double()
    chain = density._fitted()()
    for temperature in (4.0, 1.0):
        samples = density.sample(30, generator=seeded(3), temperature=temperature).double()
        whitened = whiten(samples, density.tensors["mean"], density.tensors["cholesky"])
        torch.testing.assert_close(chain(whitened), math.sqrt(temperature) * noise, atol=1e-4, rtol=0)
    jacobian = torch.stack([torch.autograd.functional.jacobian(chain, x) for x in whitened])
    expected = torch.linalg.slogdet(jacobian)[1] - density.tensors["cholesky"].diagonal().log().sum()
    expected = expected - 0.5 * (chain(whitened).square().sum(1) + 2 * math.log(2 * math.pi))
    torch.testing.assert_close(density.log_prob(samples), expected, atol=1e-6, rtol=0)


def test_without_zuko_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "zuko", None)
    with pytest.raises(UsageError, match=r"density 'flow' needs zuko; install it with: pip install 'expost\[flows\]'"):
        Flow(steps=1).fit(torch.randn(50, 2))


@pytest.mark.parametrize(
    ("density", "match"),
    [
        (
            lambda: Flow(kind="spline"),  # type: ignore[arg-type]
            "choose one of: coupling, autoregressive, affine",
        ),
        (lambda: Flow(bins=1), "bins=1"),
        (lambda: Flow(transforms=1_000), "transforms=1000 is too deep"),
        (lambda: FlowMatching(depth=1_000), "depth=1000 is too deep"),
        (lambda: FlowMatching(ode_steps=0), "ode_steps=0"),
        (lambda: FlowMatching(exact_divergence=-1), "exact_divergence=-1"),
    ],
)
def test_options_out_of_range_are_refused(density: object, match: str) -> None:
    assert callable(density)
    with pytest.raises(UsageError, match=match):
        density()


@pytest.mark.parametrize("density", [FlowMatching(width=16, lr=1e30, steps=40), Flow(width=16, lr=1e30, steps=40)])
def test_a_rate_that_explodes_is_named(density: TractableDensity) -> None:
    with pytest.raises(DataError, match=r"the loss is (nan|inf) at step \d+; lower lr=1e\+30"):
        density.fit(torch.randn(300, 2, generator=seeded(0)))


def test_the_callers_random_state_stays() -> None:
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002 (the global state is what is looked at)
    before = torch.get_rng_state(), repr(np.random.get_state())  # noqa: NPY002
    Flow(width=8, steps=2).fit(torch.randn(50, 2, generator=seeded(0))).sample(3, generator=seeded(0))
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == repr(np.random.get_state())  # noqa: NPY002
