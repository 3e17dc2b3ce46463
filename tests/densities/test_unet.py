"""Flow matching on maps: the network's geometry, its standardization, planted fields recovered, exact likelihoods."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from expost.densities import FlowMatching, Gaussian
from expost.densities.standards import PerChannel
from expost.densities.unet import UNet
from expost.errors import DataError, UsageError

pytestmark = pytest.mark.usefixtures("one_thread")

SHAPES = [(1, 1, 1), (3, 1, 2), (1, 5, 7), (2, 3), (1, 1, 300), (2, 70), (1, 18, 21), (2, 40, 1)]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network(shape: tuple[int, ...], **options: Any) -> UNet:
    sizes: dict[str, Any] = {"shape": shape, "width": 8, "depth": 1, "attention": True}
    return UNet(**sizes | options)


def _idle(gradient: Tensor) -> bool:
    """Whether an output of a layer gets no gradient at all."""
    return not bool((gradient.reshape(len(gradient), -1).abs().sum(1) > 0).all())


def random_weights(velocity: UNet) -> dict[str, Tensor]:
    """Weights of which none is 0, so that what does not reach the output is seen."""
    return {name: 0.3 * torch.randn(shape, generator=seeded(1)) for name, shape in velocity.shapes().items()}


# ---------------------------------------------------------------------------------------------------------- the network


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_positions_are_mapped_one_by_one_and_every_weight_matters(shape: tuple[int, ...]) -> None:
    velocity = network(shape)
    weights = random_weights(velocity)
    for weight in weights.values():
        weight.requires_grad_()
    y, t = torch.randn(4, math.prod(shape), generator=seeded()), torch.rand(4, 1, generator=seeded())
    together = velocity.evaluate(y, t, weights)
    assert together.shape == y.shape
    alone = torch.cat([velocity.evaluate(y[i : i + 1], t[i : i + 1], weights) for i in range(4)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)
    together.square().sum().backward()  # type: ignore[no-untyped-call]
    del weights["pairs.bias"]  # all keys may move alike, and a softmax does not see it
    idle = {name for name, weight in weights.items() if weight.grad is None or _idle(weight.grad)}
    if math.prod(velocity._grids[-1]) == 1:  # one position looks at itself alone
        assert not {name for name in idle if not name.startswith("pairs")}
    else:
        assert not idle
    other = velocity.evaluate(y, t, random_weights(velocity), 0.1 * torch.ones(4, 64))
    assert (other - together).abs().max() > 1e-4


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_training_starts_from_zero_velocity(shape: tuple[int, ...]) -> None:
    velocity = network(shape)
    weights = velocity.initial(seeded(), torch.device("cpu"))
    assert {name: tuple(weight.shape) for name, weight in weights.items()} == velocity.shapes()
    y = torch.randn(2, math.prod(shape), generator=seeded())
    assert torch.equal(velocity.evaluate(y, torch.ones(1, 1), weights), torch.zeros_like(y))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_patches_are_put_back_where_they_were_cut(shape: tuple[int, ...]) -> None:
    velocity = network(shape)
    y = torch.arange(2.0 * math.prod(shape)).reshape(2, -1)
    cut = velocity._cut(y)
    assert torch.equal(velocity._join(cut), y)
    assert cut.shape[2:] == velocity._grids[0]
    assert math.prod(velocity._grids[0]) <= 256
    assert math.prod(velocity._grids[-1]) <= 16


def test_a_patch_is_two_by_two_pixels_of_each_channel() -> None:
    velocity = network((2, 32, 31))
    y = torch.arange(2.0 * 32 * 31).reshape(1, 2, 32, 31)
    cut = velocity._cut(y.flatten(1))
    assert cut.shape == (1, 8, 16, 16)
    assert torch.equal(cut[0, :, 3, 5], y[0, :, 6:8, 10:12].flatten())
    assert torch.equal(cut[0, :, 3, 15].reshape(2, 2, 2)[:, :, 1], torch.zeros(2, 2))  # beyond the edge


def test_neighbours_are_seen_at_first_and_all_positions_in_the_end() -> None:
    """A block sees 3 x 3 positions twice; from one corner to the other only coarser grids and attention lead."""

    def reach(**options: Any) -> Tensor:
        velocity = network((1, 8, 8), **options)
        weights = random_weights(velocity)
        base = torch.randn(1, 64, generator=seeded())
        moved = base.clone()
        moved[0, 0] += 1
        one = torch.ones(1, 1)
        change = velocity.evaluate(moved, one, weights) - velocity.evaluate(base, one, weights)
        return change.reshape(8, 8).abs()

    assert float(reach()[7, 7]) > 1e-3
    assert float(reach(attention=False)[7, 7]) != float(reach()[7, 7])


def test_what_the_finest_grid_holds_is_kept_beside_what_the_coarser_ones_say() -> None:
    velocity = network((1, 8, 8))
    weights = random_weights(velocity) | {"0.widen.weight": torch.zeros(8, 16, 3, 3)}
    y, one = torch.randn(2, 64, generator=seeded()), torch.ones(1, 1)
    found = velocity.evaluate(y, one, weights)
    assert (found[0] - found[1]).abs().max() > 1e-2


def test_a_map_of_one_row_has_the_weights_and_values_of_a_sequence() -> None:
    rows, line = network((2, 1, 30)), network((2, 30))
    assert rows.shapes() == line.shapes()
    y = torch.randn(3, 60, generator=seeded())
    weights, one = random_weights(line), torch.ones(1, 1)
    assert torch.equal(rows.evaluate(y, one, weights), line.evaluate(y, one, weights))


# ------------------------------------------------------------------------------------------------------ standardization


def test_channels_are_standardized_about_the_mean_of_each_position() -> None:
    z = torch.randn(500, 2, 3, 3, generator=seeded(), dtype=torch.float64) * torch.tensor([2.0, 0.01])[:, None, None]
    z = z + 100 * torch.arange(18.0).reshape(2, 3, 3)
    centered = (z - z.mean(0)).flatten(1)
    standard = PerChannel.of(z.flatten(1), centered, len(z), (2, 3, 3), 1e-6)
    x = standard.whiten(centered)
    spread = x.reshape(500, 2, 9).square().mean((0, 2))
    torch.testing.assert_close(spread, torch.ones(2).double(), atol=1e-5, rtol=0)
    torch.testing.assert_close(standard.color(x), centered)
    jacobian = torch.autograd.functional.jacobian(lambda each: standard.color(each[None])[0], x[0])
    torch.testing.assert_close(standard.log_volume, torch.linalg.slogdet(jacobian)[1])


def test_positions_are_standardized_about_their_own_means() -> None:
    z = torch.randn(200, 1, 3, 3, generator=seeded()) + 1_000 * torch.arange(9.0).reshape(3, 3)
    density = FlowMatching(width=8, steps=2, ode_steps=2).fit(z)
    samples = density.sample(2_000, generator=seeded()).double()
    torch.testing.assert_close(samples.mean(0), z.double().mean(0), atol=0.15, rtol=0)
    torch.testing.assert_close(samples.std(0), torch.ones(1, 3, 3).double(), atol=0.1, rtol=0)


def test_a_constant_channel_is_sampled_as_that_constant() -> None:
    z = torch.cat([torch.randn(60, 1, 4, 4, generator=seeded()), torch.full((60, 1, 4, 4), 7.5)], 1)
    density = FlowMatching(width=8, steps=5, ode_steps=2).fit(z)
    samples = density.sample(50, generator=seeded())
    torch.testing.assert_close(samples[:, 1], z[:50, 1], atol=5e-3, rtol=0)
    assert density.log_prob(z[:3]).isfinite().all()
    assert torch.equal(FlowMatching(**density.options).fit(z).sample(50, generator=seeded()), samples)


def test_maps_of_classes_share_one_network(tmp_path: Path) -> None:
    """Classes are told apart by their means from the start; a guided path leads on from them."""
    labels = [0, 1] * 60
    z = torch.randn(120, 2, 3, 3, generator=seeded()) + 5 * torch.tensor(labels)[:, None, None, None]
    density = FlowMatching(width=8, steps=5, ode_steps=2).fit(z, labels)
    loaded = FlowMatching.load(density.save(tmp_path))
    for each in (density, loaded):
        assert each.shape == (2, 3, 3)
        samples = each.sample(300, 1, generator=seeded())
        assert samples.shape == (300, 2, 3, 3)
        torch.testing.assert_close(samples.mean((0, 2, 3)), torch.full((2,), 5.0), atol=0.3, rtol=0)
        assert each.posterior(z[:4]).argmax(1).tolist() == labels[:4]
        assert each.sample(7, generator=seeded()).shape == (7, 2, 3, 3)
    assert density.guided(2.0).sample(50, 1, generator=seeded()).mean() > 4


@pytest.mark.parametrize("unit", [1e-5, 1e5])
def test_the_fit_knows_no_scale(unit: float) -> None:
    z = torch.randn(60, 2, 3, 3, generator=seeded()).double()
    plain, scaled = (FlowMatching(width=8, steps=8, ode_steps=2).fit(each) for each in (z, unit * z))
    mine, its = (each.sample(20, generator=seeded()) for each in (plain, scaled))
    torch.testing.assert_close(its / unit, mine, rtol=1e-3, atol=1e-3)
    expected = plain.log_prob(z[:5]) - 18 * math.log(unit)
    torch.testing.assert_close(scaled.log_prob(unit * z[:5]), expected, rtol=0, atol=1e-2)


# ------------------------------------------------------------------------------------------------------ planted fields


@dataclass(frozen=True)
class Field:
    """A stationary Gaussian field on a torus: the covariance of two positions depends on where one lies from the other.

    Its eigenvalues are products of the spectra of the two axes, 1 / (1 + f^2), scaled to variance 1.
    """

    rows: int
    columns: int

    @property
    def covariance(self) -> Tensor:
        return torch.kron(*(self._along(side) for side in (self.rows, self.columns)))

    @staticmethod
    def _along(side: int) -> Tensor:
        frequency = torch.fft.fftfreq(side, dtype=torch.float64) * side
        line = torch.fft.ifft(1 / (1 + frequency.square())).real
        places = torch.arange(side)
        return line[(places[:, None] - places) % side] / line[0]

    def draw(self, n: int, seed: int) -> Tensor:
        noise = torch.randn(n, self.rows * self.columns, generator=seeded(seed), dtype=torch.float64)
        return (noise @ torch.linalg.cholesky(self.covariance).T).reshape(n, 1, self.rows, self.columns)

    def log_prob(self, z: Tensor) -> Tensor:
        return torch.distributions.MultivariateNormal(
            torch.zeros(self.rows * self.columns, dtype=torch.float64), self.covariance
        ).log_prob(z.flatten(1))


def test_a_planted_field_is_recovered() -> None:
    field = Field(4, 3)
    density = FlowMatching(width=16, steps=500, lr=5e-3, ode_steps=4).fit(field.draw(3_000, 0))
    test = field.draw(80, 1)
    ratio = field.log_prob(test) - density.log_prob(test)
    independent = field.log_prob(test) + 0.5 * (test.flatten(1).square().sum(1) + 12 * math.log(2 * math.pi))
    assert independent.mean() > 1.2  # that is where training starts
    assert ratio.mean() < 0.15 + 3 * ratio.std() / math.sqrt(len(test))
    samples = density.sample(2_000, generator=seeded(2)).flatten(1).double()
    torch.testing.assert_close(samples.mean(0), torch.zeros(12).double(), atol=0.15, rtol=0)
    torch.testing.assert_close(torch.cov(samples.T), field.covariance, atol=0.25, rtol=0)


def blobs(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """A blob at a random place of 4 x 4 on a torus, with noise; the log-density is that of 16 Gaussians."""
    shape = torch.tensor([2.0, 1.0, 0.0, 1.0], dtype=torch.float64)
    blob = torch.outer(shape, shape) / 2
    centers = torch.stack([blob.roll((i, j), (0, 1)).flatten() for i in range(4) for j in range(4)])
    chosen = torch.randint(16, (n,), generator=seeded(seed))
    z = centers[chosen] + 0.3 * torch.randn(n, 16, generator=seeded(seed + 1), dtype=torch.float64)
    squared = torch.cdist(z, centers).square() / 0.09
    log = torch.logsumexp(-0.5 * squared, 1) - math.log(16) - 8 * math.log(2 * math.pi * 0.09)
    return z.reshape(n, 1, 4, 4), log


def test_a_blob_at_a_random_place_is_told_from_its_gaussian() -> None:
    z, _ = blobs(3_000, 0)
    test, log = blobs(60, 10)
    density = FlowMatching(width=16, steps=350, lr=5e-3, ode_steps=4).fit(z)
    away = (log - density.log_prob(test)).mean()
    gaussian = (log - Gaussian().fit(z).log_prob(test)).mean()
    assert gaussian > 3
    assert away < 0.4 * gaussian
    _, nearest = torch.cdist(density.sample(400, generator=seeded()).flatten(1), z[:400].flatten(1).float()).min(1)
    assert len(nearest.unique()) > 100


# --------------------------------------------------------------------------------------------------------- likelihoods


@pytest.fixture(scope="module")
def small() -> FlowMatching:
    z = torch.randn(800, 1, 2, 2, generator=seeded()).double()
    z[:, 0, 0, 0] = z[:, 0, 0, 0] + z[:, 0, 1, 1].square()
    return FlowMatching(width=8, steps=150, ode_steps=16, lr=5e-3).fit(z)


def test_the_density_is_that_of_the_path_that_samples_take(small: FlowMatching) -> None:
    """Against the determinant of the whole map from noise to code, by differences of samples."""
    generator = seeded(4)
    noise = torch.randn(6, 4, generator=seeded(4))
    samples = small.sample(6, generator=generator)
    standard = PerChannel.among(small.tensors, (1, 2, 2))

    def arrive(x: Tensor) -> Tensor:
        return small.tensors["mean"] + standard.color(small._follow(x.float(), None).double())

    torch.testing.assert_close(arrive(noise).float().reshape(6, 1, 2, 2), samples)
    step = 2e-2
    columns = [(arrive(noise + step * e) - arrive(noise - step * e)) / (2 * step) for e in torch.eye(4)]
    expected = -0.5 * (noise.double().square().sum(1) + 4 * math.log(2 * math.pi))
    log_determinant = torch.linalg.slogdet(torch.stack(columns, 2))[1]
    assert small.statistics["best_step"] > 0
    assert (log_determinant - standard.log_volume).abs().max() > 0.05
    torch.testing.assert_close(small.log_prob(samples), expected - log_determinant, atol=2e-2, rtol=0)


def test_the_density_of_a_map_of_two_positions_integrates_to_one() -> None:
    z = torch.randn(300, 1, 1, 2, generator=seeded()).double()
    z = torch.cat([z[..., :1], 0.8 * z[..., 1:] + 0.5 * z[..., :1].square()], 3)
    density = FlowMatching(width=8, steps=120, lr=5e-3, network="convolutional").fit(z)
    assert density.statistics["best_step"] > 0
    across, up = (torch.arange(low, high, 0.2).double() for low, high in ((-4.5, 4.6), (-4, 8)))
    grid = torch.cartesian_prod(across, up).reshape(-1, 1, 1, 2)
    assert density.log_prob(grid).exp().sum() * 0.2**2 == pytest.approx(1, abs=0.02)


def test_an_estimated_divergence_is_right_on_average(small: FlowMatching) -> None:
    z = small.sample(40, generator=seeded(5))
    exact = small.log_prob(z)
    estimates = []
    for seed in range(4):
        estimate = FlowMatching(**small.options | {"exact_divergence": 3, "probes": 4, "seed": seed, "ode_steps": 4})
        estimate._state.fit, estimate._state.shape = small._state.fit, small._state.shape
        estimates.append(estimate.log_prob(z))
    assert (torch.stack(estimates).std(0) > 1e-4).all()  # it is an estimate
    difference = torch.stack(estimates).mean(0) - exact
    assert difference.mean().abs() < 0.1
    assert difference.abs().mean() < 0.3


# --------------------------------------------------------------------------------------------------------- the options


def test_the_network_follows_the_codes_unless_it_is_named() -> None:
    z = torch.randn(40, 2, 3, 3, generator=seeded())
    quick: dict[str, Any] = {"width": 8, "depth": 1, "steps": 2}
    maps, vectors = FlowMatching(**quick).fit(z), FlowMatching(**quick).fit(z.flatten(1))
    assert "scale" in maps.tensors
    assert "cholesky" in vectors.tensors
    named = FlowMatching(network="perceptron", **quick).fit(z)
    assert torch.equal(named.sample(5, generator=seeded()).flatten(1), vectors.sample(5, generator=seeded()))
    assert "cholesky" in FlowMatching(**quick).fit(torch.randn(40, 3, 1, 1, generator=seeded())).tensors
    assert "pairs.weight" not in FlowMatching(attention=False, **quick).fit(z).tensors
    with pytest.raises(UsageError, match=r"network=convolutional needs codes that are maps .*vectors of 18"):
        FlowMatching(network="convolutional", **quick).fit(z.flatten(1))
    with pytest.raises(UsageError, match="network='unet' is unknown; choose one of: auto, perceptron, convolutional"):
        FlowMatching(network="unet")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="attention=1 must be True or False"):
        FlowMatching(attention=1)  # type: ignore[arg-type]


def test_large_maps_take_no_full_covariance() -> None:
    z = torch.randn(6, 3, 40, 40, generator=seeded())
    density = FlowMatching(width=4, steps=1).fit(z)
    assert sum(tensor.numel() for tensor in density.tensors.values()) < 50_000
    assert density.sample(2, generator=seeded()).shape == (2, 3, 40, 40)
    with pytest.raises(DataError, match=r"flow-matching: 6 codes cannot determine .*base=flow-matching"):
        FlowMatching(network="perceptron", steps=1).fit(z)
