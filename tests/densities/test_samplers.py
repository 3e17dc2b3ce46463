"""Every density's sampler draws from that density: distribution functions and moments up to the fourth, several seeds.

A density with a log-density is compared with that: its moments, and their variances, are integrals over a grid. So a
new one is picked up with nothing to add, except where its eighth moment does not exist: then `HEAVY` has to name it,
and moments are taken of bounded functions of the codes. A density that can only be sampled needs a row in `SAMPLERS`,
which draws from it in another way.

Thresholds follow from standard errors: right samplers fail in less than one of a million choices of the seeds.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from expost.densities import DENSITIES, NEED_LABELS, Density, LabelledDensity, TractableDensity, make_density
from references import reference_for

pytestmark = pytest.mark.usefixtures("one_thread")

HERE = "tests/densities/test_samplers.py"
DRAWS = 100_000
SEEDS = (0, 1, 2)
#: Standard errors that no moment of a right sampler is off. There are some 800 moments in this file. A normal variable
#: is beyond 7 with a probability of 3e-12; the means of fourth powers, of skewness 10 / sqrt(DRAWS), some six times as
#: often.
STANDARD_ERRORS = 7.0
#: Largest distance of distribution functions (Dvoretzky, Kiefer & Wolfowitz 1956, with Massart's constant): beyond it
#: with a probability below 2 exp(-2 n D^2) = 1e-9.
DISTANCE = math.sqrt(math.log(2e9) / (2 * DRAWS))

#: Options to try, beside the defaults where these are quick.
OPTIONS: dict[str, tuple[dict[str, Any], ...]] = {
    "gmm": ({"components": 3}, {"components": 3, "covariance": "diag"}),
    "bayesian-gmm": ({"components": 3}, {"components": 3, "covariance": "diag"}),
    "kde": ({}, {"kernel": "isotropic", "bandwidth": "silverman"}),
    "reduced": ({"rank": 1, "base": "gaussian"}, {"rank": 1, "base": "gmm", "base_options": {"components": 2}}),
    "conditional": ({"base": "gaussian"},),
    "flow": ({"width": 16, "transforms": 2, "steps": 40}, {"width": 16, "steps": 40, "kind": "affine"}),
    "flow-matching": ({"width": 8, "depth": 1, "steps": 60, "ode_steps": 16},),
    "second-stage-vae": ({"width": 16, "epochs": 4}, {"width": 16, "epochs": 4, "noise": False}),
}
#: Densities whose eighth moment does not exist.
HEAVY: set[str] = set()


def second_stage(density: Density, n: int, random: np.random.Generator) -> np.ndarray:
    """z = mean + deviation (D(u) + gamma e), D a perceptron, u and e from N(0, I)."""
    fit = {name: tensor.double().numpy() for name, tensor in density.tensors.items()}
    x = random.standard_normal((n, density.dim))
    layers = sum(name.startswith("decoder.") and name.endswith(".bias") for name in fit)
    for i in range(layers):
        x = x @ fit[f"decoder.{i}.weight"].T + fit[f"decoder.{i}.bias"]
        x = np.maximum(x, 0) if i < layers - 1 else x
    gamma = np.exp(fit["log_gamma"]) if density.options["noise"] else 0.0
    return fit["mean"] + fit["deviation"] * (x + gamma * random.standard_normal(x.shape))


#: Other ways to draw from the densities that have no log-density.
SAMPLERS: dict[str, Callable[[Density, int, np.random.Generator], np.ndarray]] = {"second-stage-vae": second_stage}

TRACTABLE = [name for name, kind in DENSITIES.items() if issubclass(kind, TractableDensity)]
SAMPLED = [name for name in DENSITIES if name not in TRACTABLE]


def each(names: list[str]) -> Any:
    cases = [(name, options) for name in names for options in OPTIONS.get(name, ({},))]
    return pytest.mark.parametrize(("name", "options"), cases, ids=[f"{n}-{list(o.values())}" for n, o in cases])


def make_codes(d: int, n: int = 90) -> Tensor:
    """Two clusters of unlike sizes and shapes, away from the origin: no density of them is symmetric."""
    generator = torch.Generator().manual_seed(d)
    mix = torch.tensor([[1.0, 0.6], [0.0, 0.7]])[:d, :d]
    z = torch.randn(n, d, generator=generator, dtype=torch.float64) @ mix.double()
    small = torch.arange(n) < n // 3
    return torch.where(small[:, None], 0.5 * z.flip(1) + 3.0, z - 0.5)


def draw(density: Any, seed: int) -> Tensor:
    return density.sample(DRAWS, generator=torch.Generator().manual_seed(seed)).double()


@dataclass(frozen=True)
class Given:
    """A density for one of its labels."""

    density: LabelledDensity
    label: int

    @property
    def name(self) -> str:
        return f"{self.density.name} of {self.label}"

    def log_prob(self, z: Tensor) -> Tensor:
        return self.density.log_prob(z, self.label)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        return self.density.sample(n, self.label, generator=generator)


@dataclass(frozen=True)
class Standard:
    """The map of codes to numbers of which moments are taken."""

    center: Tensor
    spread: Tensor
    bounded: bool

    @classmethod
    def of(cls, z: Tensor, bounded: bool = False) -> "Standard":
        return cls(z.mean(0), z.std(0), bounded)

    def moments(self, z: Tensor) -> Tensor:
        """All products of up to four coordinates, shape (n, M)."""
        u = (z - self.center) / self.spread
        u = torch.tanh(0.5 * u) if self.bounded else u
        axes = range(z.shape[1])
        products = itertools.chain(*(itertools.combinations_with_replacement(axes, k) for k in (1, 2, 3, 4)))
        return torch.stack([u[:, list(chosen)].prod(1) for chosen in products], 1)


@dataclass(frozen=True)
class Grid:
    """Points over all of space that may have mass, in steps that grow outwards, to 500 deviations.

    Attributes:
        axes: The places along each axis, in order.
        points: All of them, shape (n, d).
        volumes: Of the points' cells, shape (n,).
        index: Where each point is on each axis, shape (n, d).
    """

    axes: list[Tensor]
    points: Tensor
    volumes: Tensor
    index: Tensor

    @classmethod
    def around(cls, z: Tensor) -> "Grid":
        d = z.shape[1]
        steps = torch.linspace(-7, 7, {1: 8001, 2: 801}[d], dtype=torch.float64)
        spread = z.std(0).clamp(min=1)  # the standard normal's, too
        axes = [center + scale * steps.sinh() for center, scale in zip(z.mean(0), spread, strict=True)]
        widths = [scale * steps.cosh() * (steps[1] - steps[0]) for scale in spread]
        index = torch.cartesian_prod(*[torch.arange(len(steps))] * d).view(-1, d)
        points = torch.stack([axis[index[:, i]] for i, axis in enumerate(axes)], 1)
        volumes = torch.stack([width[index[:, i]] for i, width in enumerate(widths)], 1).prod(1)
        return cls(axes, points, volumes, index)

    @property
    def outermost(self) -> Tensor:
        """Which points are at the ends of an axis, the last hundredth of its steps."""
        far = (self.index - self.index.amax(0) / 2).abs() > 0.49 * self.index.amax(0)
        return far.any(1)

    def distances(self, samples: Tensor, mass: Tensor) -> float:
        """Of the distribution functions along each axis, between samples and masses of the points, the largest."""
        largest = 0.0
        for i, axis in enumerate(self.axes):
            cumulative = torch.zeros_like(axis).index_add_(0, self.index[:, i], mass).cumsum(0)[:-1]
            middles = 0.5 * (axis[1:] + axis[:-1])
            found = torch.searchsorted(samples[:, i].sort().values, middles, right=True) / len(samples)
            largest = max(largest, (found - cumulative).abs().max().item())
        return largest


def assert_moments(found: Tensor, mean: Tensor, variance: Tensor, what: str) -> None:
    """Compare means with what is expected of them; the variance is that of the difference."""
    off = ((found - mean).abs() / variance.sqrt().clamp(min=1e-9)).max().item()
    assert off < STANDARD_ERRORS, f"{what}: a moment is {off:.1f} standard errors off"


def assert_samples_follow(density: Any, z: Tensor, heavy: bool = False) -> None:
    """Compare samples of a fitted density with its log-density."""
    grid, standard = Grid.around(z), Standard.of(z, heavy)
    log_prob = density.log_prob(grid.points)
    mass = log_prob.exp() * grid.volumes

    def functions(z: Tensor, log_prob: Tensor) -> Tensor:
        return torch.cat([standard.moments(z), log_prob.clamp(min=-50)[:, None]], 1)

    of_grid = functions(grid.points, log_prob)
    beyond = (mass[grid.outermost] @ of_grid[grid.outermost].square()).max()
    assert beyond < 1e-6, (
        f"'{density.name}' has heavy tails, its moments no standard errors; name it in HEAVY in {HERE}"
    )
    assert mass.sum().item() == pytest.approx(1, abs=1e-4)  # a density with a kink is 2e-5 off on this grid
    mean, square = mass @ of_grid, mass @ of_grid.square()
    for seed in SEEDS:
        samples = draw(density, seed)
        found = functions(samples, density.log_prob(samples)).mean(0)
        assert_moments(found, mean, (square - mean.square()) / DRAWS, f"{density.name}, seed {seed}")
        assert grid.distances(samples, mass) < DISTANCE


@each(TRACTABLE)
@pytest.mark.parametrize("d", [1, 2])
def test_samples_follow_the_log_density(name: str, options: dict[str, Any], d: int) -> None:
    z = make_codes(d)
    assert_samples_follow(make_density(name, **options).fit(z), z, name in HEAVY)


@each(list(NEED_LABELS))
@pytest.mark.parametrize("d", [1, 2])
def test_samples_of_all_labels_follow_the_log_density(name: str, options: dict[str, Any], d: int) -> None:
    z = make_codes(d)
    labels = (torch.arange(len(z)) < len(z) // 3).long()  # the clusters
    density = NEED_LABELS[name](**options).fit(z, labels)
    assert_samples_follow(density, z, name in HEAVY)
    for label in (0, 1):
        assert_samples_follow(Given(density, label), z[labels == label], name in HEAVY)


def test_no_reference_is_of_a_density_that_is_gone() -> None:
    assert OPTIONS.keys() | HEAVY <= {*DENSITIES, *NEED_LABELS}
    assert set(SAMPLERS) <= set(SAMPLED)


@each(SAMPLED)
def test_samples_follow_those_drawn_in_another_way(name: str, options: dict[str, Any]) -> None:
    other = reference_for(name, SAMPLERS, f"SAMPLERS in {HERE}")
    z = make_codes(2)
    density = make_density(name, **options).fit(z)
    standard = Standard.of(z, name in HEAVY)
    for seed in SEEDS:
        samples = draw(density, seed)
        expected = torch.from_numpy(other(density, DRAWS, np.random.default_rng(1000 + seed)))
        mine, theirs = standard.moments(samples), standard.moments(expected)
        assert_moments(mine.mean(0), theirs.mean(0), (mine.var(0) + theirs.var(0)) / DRAWS, f"{name}, seed {seed}")
        for axis in range(2):
            assert stats.ks_2samp(samples[:, axis], expected[:, axis], method="asymp").pvalue > 1e-9


def test_tails_without_an_eighth_moment_are_told_and_a_normal_sampler_does_not_pass_for_them() -> None:
    """Student's t with five degrees of freedom; once its sampler left out the mixing, and moments up to two passed."""

    class Student:
        name, mixed = "student", True

        def log_prob(self, z: Tensor) -> Tensor:
            return torch.distributions.StudentT(torch.tensor(5.0).double()).log_prob(z).sum(1)

        def sample(self, n: int, generator: torch.Generator) -> Tensor:
            normal = torch.randn(n, 1, generator=generator).double()
            squares = torch.randn(n, 5, generator=generator).double().square().sum(1, keepdim=True)
            return normal / (squares / 5).sqrt() if self.mixed else normal * math.sqrt(5 / 3)

    z, density = make_codes(1) - make_codes(1).mean(), Student()
    with pytest.raises(AssertionError, match="'student' has heavy tails.* name it in HEAVY in tests"):
        assert_samples_follow(density, z)
    assert_samples_follow(density, z, heavy=True)
    density.mixed = False  # with the right variance
    with pytest.raises(AssertionError, match="standard errors off"):
        assert_samples_follow(density, z, heavy=True)
