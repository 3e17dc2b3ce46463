"""What the single Gaussians, the kernels, the Bayesian mixture and the second stage estimate, against references."""

import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import gaussian_kde, multivariate_normal
from sklearn.mixture import BayesianGaussianMixture as SklearnBayesian
from sklearn.neighbors import KernelDensity as SklearnKernelDensity
from torch import Tensor
from torch.distributions import Normal, kl_divergence
from torch.utils._python_dispatch import TorchDispatchMode

from expost.densities import (
    BayesianGaussianMixture,
    Gaussian,
    GaussianMixture,
    KernelDensity,
    Reduced,
    SecondStageVAE,
    StandardNormal,
)
from expost.densities.drawing import draw_index
from expost.densities.linalg import stable_cholesky
from expost.densities.units import Units
from expost.errors import DataError
from references import bulk_units

pytestmark = pytest.mark.usefixtures("one_thread")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_codes(n: int = 120, d: int = 3, seed: int = 0) -> Tensor:
    """Two correlated clusters away from the origin, float32."""
    generator = seeded(seed)
    mix = torch.randn(d, d, generator=generator)
    side = torch.randint(2, (n, 1), generator=generator) * 4.0 - 2.0
    return torch.randn(n, d, generator=generator) @ mix + side + 1.0


# ------------------------------------------------------------------------------------------ single Gaussians


def test_gaussian_is_the_maximum_likelihood_estimate() -> None:
    z = make_codes(n=50, d=4).double()
    density = Gaussian(regularization=0.0).fit(z)
    covariance = np.cov(z.numpy().T, bias=True)
    factor = density.tensors["cholesky"]
    np.testing.assert_allclose((factor @ factor.T).numpy(), covariance, rtol=1e-10)
    np.testing.assert_allclose(density.tensors["mean"].numpy(), z.numpy().mean(0), rtol=1e-12)
    reference = multivariate_normal(z.numpy().mean(0), covariance)
    held_out = make_codes(n=20, d=4, seed=3).double()
    np.testing.assert_allclose(density.log_prob(held_out).numpy(), reference.logpdf(held_out.numpy()), rtol=1e-9)
    assert density.statistics["log_likelihood"] == pytest.approx(reference.logpdf(z.numpy()).mean(), rel=1e-10)


@pytest.mark.parametrize("unit", [1e-5, 1.0, 300.0])
def test_gaussian_ridge_is_added_to_every_variance_in_its_own_units(unit: float) -> None:
    """Of two codes the quartiles are the codes, so that the deviation is the unit; a constant has the mean variance."""
    z = unit * torch.tensor([[0.0, 5.0, 0.0], [2.0, 5.0, 4e-3]], dtype=torch.float64)
    factor = Gaussian(regularization=0.5).fit(z).tensors["cholesky"] / unit
    variances = torch.tensor([1.5, 0.5 * (1 + 4e-6) / 3, 1.5 * 4e-6], dtype=torch.float64)
    torch.testing.assert_close((factor @ factor.T).diagonal(), variances, rtol=1e-10, atol=0)


@pytest.mark.parametrize("far", [0.0, 1e5])
def test_the_ridge_is_that_of_the_bulk_however_far_one_code_lies(far: float) -> None:
    """One far code sets the deviation; taken for the unit, it would make every component a thousandth as wide as it."""
    z = torch.randn(1000, 2, generator=seeded(), dtype=torch.float64)
    z[0] += far
    quartiles = np.quantile(z.numpy(), [0.25, 0.75], axis=0)
    np.testing.assert_allclose(Units.of_bulk(z).scale, (quartiles[1] - quartiles[0]) / 1.349, rtol=0.02)
    samples = GaussianMixture(components=3).fit(z).sample(4000, generator=seeded())
    inner = samples[samples.norm(dim=1) < 10]
    assert len(inner) > 3900
    torch.testing.assert_close(inner.std(0), torch.ones(2), atol=0.1, rtol=0)


def test_gaussian_keeps_its_digits_far_from_the_origin() -> None:
    z = torch.randn(2000, 3, generator=seeded(), dtype=torch.float64)
    near, far = Gaussian().fit(z), Gaussian().fit(z + 1e6)
    torch.testing.assert_close(far.tensors["cholesky"], near.tensors["cholesky"], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e8, 1e15])
def test_rank_deficient_codes_of_any_scale_can_be_fitted(scale: float) -> None:
    z = make_codes(n=10, d=30) * scale
    density = Gaussian().fit(z)
    assert density.log_prob(z).isfinite().all()
    samples = density.sample(2000, generator=seeded()).double()
    assert samples.std(0, correction=0).mean().item() == pytest.approx(
        z.double().std(0, correction=0).mean().item(), rel=0.1
    )


def test_standard_normal_is_scipys() -> None:
    z = make_codes(n=20)
    expected = multivariate_normal(np.zeros(3), np.eye(3)).logpdf(z.double().numpy())
    density = StandardNormal().fit(z)
    np.testing.assert_allclose(density.log_prob(z).numpy(), expected, rtol=1e-12)
    assert density.statistics["log_likelihood"] == pytest.approx(expected.mean())


def test_stable_cholesky_repairs_rounding_and_refuses_the_rest() -> None:
    rank_one = torch.ones(3, 3, dtype=torch.float64) * 1e12
    good = torch.eye(3, dtype=torch.float64) * 4
    factors = stable_cholesky(torch.stack([rank_one, good]), "codes")
    torch.testing.assert_close(factors[0] @ factors[0].T, rank_one, rtol=1e-8, atol=0)
    assert torch.equal(factors[1], good.sqrt())
    for bad in (-good, torch.full_like(good, math.nan), torch.zeros_like(good)):
        with pytest.raises(DataError, match="covariance of codes is not positive definite"):
            stable_cholesky(bad, "codes")


def test_indices_are_drawn_by_weight_and_never_where_it_is_zero() -> None:
    weights = torch.tensor([0.0, 1.0, 0.0, 3.0, 0.0], dtype=torch.float64)
    counts = draw_index(40_000, weights, seeded()).bincount(minlength=5)
    assert counts[[0, 2, 4]].sum() == 0
    assert counts[3].item() / 40_000 == pytest.approx(0.75, abs=0.01)


# ------------------------------------------------------------------------------------------ kernels


@pytest.mark.parametrize("bandwidth", ["scott", "silverman", 0.37])
def test_kde_with_the_codes_covariance_is_scipys(bandwidth: str | float) -> None:
    z, held_out = make_codes(n=80).double(), make_codes(n=15, seed=4).double()
    reference = gaussian_kde(z.numpy().T, bw_method=bandwidth)
    density = KernelDensity(bandwidth=bandwidth, regularization=0.0).fit(z)
    np.testing.assert_allclose(density.log_prob(held_out).numpy(), reference.logpdf(held_out.numpy().T), rtol=1e-9)
    assert density.statistics["bandwidth"] == pytest.approx(reference.factor)


def test_isotropic_kde_is_sklearns() -> None:
    z, held_out = make_codes(n=80).double(), make_codes(n=15, seed=4).double()
    reference = SklearnKernelDensity(bandwidth=0.425).fit(z.numpy())
    density = KernelDensity(bandwidth=0.425, kernel="isotropic").fit(z)
    np.testing.assert_allclose(density.log_prob(held_out).numpy(), reference.score_samples(held_out.numpy()), rtol=1e-9)


def test_isotropic_rules_follow_the_scale_of_the_codes() -> None:
    z = make_codes()
    small = KernelDensity(kernel="isotropic", bandwidth="scott").fit(z).statistics["bandwidth"]
    large = KernelDensity(kernel="isotropic", bandwidth="scott").fit(100 * z).statistics["bandwidth"]
    assert large == pytest.approx(100 * small, rel=1e-6)


@pytest.mark.parametrize("kernel", ["isotropic", "covariance"])
def test_cross_validated_bandwidth_maximizes_the_leave_one_out_likelihood(kernel: str) -> None:
    z = torch.cat([make_codes(n=40, d=2) * 0.1, make_codes(n=30, d=2, seed=5) * 0.1 + 6]).double()
    density = KernelDensity(bandwidth="cross-validated", kernel=kernel).fit(z)
    chosen = density.statistics["bandwidth"]
    metric = np.cov(z.numpy().T) if kernel == "covariance" else np.eye(2)

    def left_out(h: float) -> float:
        scores = []
        for i in range(70):
            others = np.delete(z.numpy(), i, 0)
            kernels = [multivariate_normal(other, h**2 * metric).pdf(z[i].numpy()) for other in others]
            scores.append(math.log(np.mean(kernels)))
        return sum(scores)

    step = 10 ** (2 / 24)
    assert left_out(chosen) > left_out(chosen * step)
    assert left_out(chosen) > left_out(chosen / step)
    # Two clusters: the rule of thumb takes their distance for spread.
    held_out = torch.cat([make_codes(n=40, d=2) * 0.1, make_codes(n=30, d=2, seed=5) * 0.1 + 6]).double() + 0.01
    assert density.log_prob(held_out).mean() > KernelDensity(kernel=kernel).fit(z).log_prob(held_out).mean() + 0.5


def test_cross_validation_may_score_a_part_of_the_codes() -> None:
    z = make_codes(n=400, d=2)
    every = KernelDensity(bandwidth="cross-validated").fit(z).statistics["bandwidth"]
    part = KernelDensity(bandwidth="cross-validated", cv_queries=100).fit(z).statistics["bandwidth"]
    assert part == pytest.approx(every, rel=0.5)


def test_a_code_left_out_is_told_as_by_a_density_that_has_not_seen_it() -> None:
    z = make_codes(n=60).double()
    z = torch.cat([z, z[:1]])  # one code twice: the other stays
    density = KernelDensity(bandwidth=0.7, kernel="isotropic").fit(z)
    without = [
        KernelDensity(bandwidth=0.7, kernel="isotropic").fit(torch.cat([z[:i], z[i + 1 :]])).log_prob(z[i : i + 1])
        for i in range(len(z))
    ]
    torch.testing.assert_close(density.log_prob_left_out(z), torch.cat(without), rtol=1e-9, atol=1e-9)
    assert (density.log_prob_left_out(z) < density.log_prob(z)).all()

    options: dict[str, Any] = {"bandwidth": 0.7, "kernel": "isotropic"}
    reduced = Reduced(rank=2, base="kde", base_options=options).fit(z)
    t = (z.double() - reduced.tensors["mean"]) / reduced.tensors["scale"]
    u = t @ reduced.tensors["basis"]
    base = KernelDensity(**options).fit(u)
    gap = base.log_prob(u) - base.log_prob_left_out(u)
    torch.testing.assert_close(reduced.log_prob(z) - reduced.log_prob_left_out(z), gap, rtol=1e-6, atol=1e-8)

    mixture = GaussianMixture(components=2).fit(z)
    assert torch.equal(mixture.log_prob_left_out(z), mixture.log_prob(z))


def test_kde_samples_are_training_codes_plus_noise() -> None:
    z = make_codes(n=30)
    exact = KernelDensity(bandwidth=1e-9).fit(z).sample(5000, generator=seeded())
    nearest = torch.cdist(exact, z, compute_mode="donot_use_mm_for_euclid_dist").min(1)
    assert nearest.values.max() < 1e-5
    counts = nearest.indices.bincount(minlength=30)
    assert counts.min() > 5000 / 30 - 6 * math.sqrt(5000 / 30)
    assert counts.max() < 5000 / 30 + 6 * math.sqrt(5000 / 30)
    wide = KernelDensity(bandwidth=0.5, kernel="isotropic").fit(z).sample(200_000, generator=seeded())
    expected = torch.cov(z.T, correction=0) + 0.25 * torch.eye(3)
    torch.testing.assert_close(torch.cov(wide.T), expected, atol=0.1, rtol=0.02)


def test_kde_memory_is_bounded_by_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    z, held_out = make_codes(n=100), make_codes(n=77, seed=1)
    density = KernelDensity(bandwidth="cross-validated").fit(z)
    expected = density.log_prob(held_out)
    monkeypatch.setattr("expost.densities.em._CPU_ELEMENTS", 1)
    chunked = KernelDensity(bandwidth="cross-validated").fit(z)
    assert chunked.statistics == density.statistics
    torch.testing.assert_close(chunked.log_prob(held_out), expected, rtol=1e-12, atol=1e-12)


# ------------------------------------------------------------------------------------------ Bayesian mixture


@pytest.mark.parametrize("covariance", ["full", "diag"])
def test_bayesian_mixture_is_sklearns_plug_in(covariance: str) -> None:
    z, held_out = make_codes(n=200).double(), make_codes(n=20, seed=3).double()
    unit = bulk_units(z)  # of this scale the ridge is scikit-learn's
    z, held_out = z / unit, held_out / unit
    options = {"n_init": 2, "max_iter": 60, "tol": 1e-4, "reg_covar": 1e-5, "random_state": 7}
    reference = SklearnBayesian(
        n_components=4, covariance_type=covariance, weight_concentration_prior=0.25, **options
    ).fit(z.numpy())
    density = BayesianGaussianMixture(
        components=4,
        covariance=covariance,
        n_init=2,
        max_iter=60,
        tol=1e-4,
        regularization=1e-5,
        seed=7,
    ).fit(z)
    parts = []
    for w, mean, s in zip(reference.weights_, reference.means_, reference.covariances_, strict=True):
        parts.append(np.log(w) + multivariate_normal(mean, s if covariance == "full" else np.diag(s)).logpdf(held_out))
    np.testing.assert_allclose(density.log_prob(held_out).numpy(), np.logaddexp.reduce(parts), rtol=1e-8)
    assert density.statistics["iterations"] == reference.n_iter_
    assert density.statistics["converged"] == reference.converged_


def test_bayesian_mixture_prunes_and_records_that_it_did_not_converge() -> None:
    z = torch.randn(600, 1, generator=seeded()) + torch.tensor([[-9.0], [9.0]]).repeat(300, 1)
    density = BayesianGaussianMixture(components=6).fit(z)
    assert density.statistics["active"] == 2
    assert density.statistics["converged"] is True
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        hasty = BayesianGaussianMixture(components=6, max_iter=1, tol=0.0).fit(z)
    assert hasty.statistics["converged"] is False
    assert hasty.statistics["iterations"] == 1


# ------------------------------------------------------------------------------------------ second-stage VAE


def ring(n: int, seed: int = 0) -> Tensor:
    """A noisy circle off the origin: its Gaussian fit fills the hole."""
    generator = seeded(seed)
    angle = 2 * math.pi * torch.rand(n, generator=generator)
    radius = 3 + 0.2 * torch.randn(n, generator=generator)
    return torch.stack([5 + radius * angle.cos(), 0.1 * radius * angle.sin()], 1)


def energy_distance(a: Tensor, b: Tensor) -> float:
    """Return 2 E|a - b| - E|a - a'| - E|b - b'|, 0 for equal distributions (Szekely & Rizzo 2013)."""
    return float(2 * torch.cdist(a, b).mean() - torch.cdist(a, a).mean() - torch.cdist(b, b).mean())


def test_second_stage_learns_a_shape_that_a_gaussian_cannot() -> None:
    z, held_out = ring(1500), ring(1500, seed=1)
    unit, center = torch.tensor([1.0, 10.0]), torch.tensor([5.0, 0.0])
    learned = SecondStageVAE(width=128, epochs=40).fit(z).sample(1500, generator=seeded())
    gaussian = Gaussian().fit(z).sample(1500, generator=seeded())
    ours, theirs = (energy_distance(samples * unit, held_out * unit) for samples in (learned, gaussian))
    assert ours < theirs / 2
    hollow, filled = (
        (((samples - center) * unit).norm(dim=1) < 1.5).float().mean().item() for samples in (learned, gaussian)
    )
    assert hollow < 0.1  # the circle has nothing there
    assert filled > 0.15


def random_weights(density: SecondStageVAE, d: int) -> dict[str, Tensor]:
    weights = density._initial_weights(d, seeded(1), torch.device("cpu"))
    return {name: tensor + 0.1 * torch.randn(tensor.shape, generator=seeded(2)) for name, tensor in weights.items()}


def test_second_stage_loss_is_the_negative_elbo() -> None:
    density = SecondStageVAE(width=8, depth=1)
    weights = random_weights(density, 3)
    t, noise = torch.randn(6, 3, generator=seeded()), torch.randn(6, 3, generator=seeded(4))
    hidden = (t @ weights["encoder.0.weight"].T + weights["encoder.0.bias"]).relu()
    mu = hidden @ weights["mu.weight"].T + weights["mu.bias"]
    sigma = (5 * (hidden @ weights["log_sigma.weight"].T + weights["log_sigma.bias"]).tanh()).exp()
    u = mu + sigma * noise
    output = (u @ weights["decoder.0.weight"].T + weights["decoder.0.bias"]).relu()
    output = output @ weights["decoder.1.weight"].T + weights["decoder.1.bias"]
    likelihood = Normal(output, weights["log_gamma"].exp()).log_prob(t).sum(1)
    divergence = kl_divergence(Normal(mu, sigma), Normal(0.0, 1.0)).sum(1)
    torch.testing.assert_close(density._loss(t, noise, weights), (divergence - likelihood).mean())


@pytest.mark.parametrize("kl_weight", [1.5e-3, 1e-3, 0.2])
def test_a_fixed_kl_weight_is_the_official_loss_up_to_scale_and_constant(kl_weight: float) -> None:
    """Official: mean over dimensions of the squared error + k KL. Ours must be 1/k of it plus a constant."""
    density, d = SecondStageVAE(width=8, depth=1, kl_weight=kl_weight), 5
    t, noise = (torch.randn(6, d, generator=seeded(seed), dtype=torch.float64) for seed in (0, 4))
    constants = []
    for seed in (1, 2):
        initial = density._initial_weights(d, seeded(seed), torch.device("cpu"))
        weights = {name: tensor.double() for name, tensor in initial.items()}
        exact = 0.5 * math.log(kl_weight * d / 2)
        assert weights["log_gamma"].item() == pytest.approx(exact, rel=1e-6)
        weights["log_gamma"] = torch.tensor(exact, dtype=torch.float64)  # 1/gamma^2 would magnify float32's rounding
        hidden = (t @ weights["encoder.0.weight"].T).relu()
        mu, log_sigma = hidden @ weights["mu.weight"].T, 5 * (hidden @ weights["log_sigma.weight"].T).tanh()
        output = ((mu + log_sigma.exp() * noise) @ weights["decoder.0.weight"].T).relu() @ weights["decoder.1.weight"].T
        divergence = 0.5 * (log_sigma.mul(2).exp() + mu**2 - 1 - 2 * log_sigma).sum(1)
        official = (((t - output) ** 2).mean(1) + kl_weight * divergence).mean()
        constants.append(float(density._loss(t, noise, weights) - official / kl_weight))
    expected = d / 2 * math.log(2 * math.pi * kl_weight * d / 2)
    assert constants == pytest.approx([expected, expected], rel=1e-9)


def test_gamma_is_fixed_by_the_weight_or_learned_and_is_the_noise_of_the_samples() -> None:
    z = make_codes(n=200, d=4)
    fixed = SecondStageVAE(width=16, epochs=3, kl_weight=0.02, noise=False).fit(z)
    assert fixed.statistics["gamma"] == pytest.approx(math.sqrt(0.02 * 4 / 2), rel=1e-6)
    # One dimension, standardized, of which u can explain all but the noise: gamma must come down to it from 0.3.
    line = torch.rand(400, 1, generator=seeded())
    learned = SecondStageVAE(width=16, epochs=40, lr=1e-2, batch_size=16).fit(line.expand(-1, 6))
    assert learned.statistics["gamma"] < 0.15
    quiet = SecondStageVAE(width=16, epochs=3, kl_weight=0.02, noise=False).fit(z)
    noisy = SecondStageVAE(width=16, epochs=3, kl_weight=0.02, noise=True).fit(z)
    difference = noisy.sample(20_000, generator=seeded()) - quiet.sample(20_000, generator=seeded())
    expected = noisy.statistics["gamma"] * z.std(0, correction=0)
    torch.testing.assert_close(difference.std(0), expected, rtol=0.03, atol=0)
    torch.testing.assert_close(difference.mean(0) / expected, torch.zeros(4), rtol=0, atol=0.04)


class Copies(TorchDispatchMode):
    """Counts copies from one device to another."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.count += function is torch.ops.aten._to_copy.default
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("batch_size", [5, 40])
def test_second_stage_brings_an_epoch_to_the_device_at_once(batch_size: int) -> None:
    density = SecondStageVAE(batch_size=batch_size)
    with Copies() as copies:
        batches = list(density._batches(torch.zeros(40, 2, device="meta"), seeded()))
    assert len(batches) == 40 // batch_size
    assert copies.count == 2  # rows and noise


def test_second_stage_draws_the_noise_of_a_batch_after_that_of_the_one_before() -> None:
    t, source = torch.arange(14.0).view(7, 2), seeded()
    order = torch.randperm(7, generator=source)
    for (batch, noise), rows in zip(SecondStageVAE(batch_size=3)._batches(t, seeded()), order.split(3), strict=True):
        assert torch.equal(batch, t[rows])
        assert torch.equal(noise, torch.randn(batch.shape, generator=source))


def test_second_stage_keeps_the_best_epoch_and_halves_the_rate() -> None:
    """So few codes are overfitted: the best epoch comes early, and a fit that stops there is the same fit."""
    z = make_codes(n=40, d=2)
    long = SecondStageVAE(width=64, epochs=60, lr=1e-2, patience=4).fit(z)
    best = long.statistics["best_epoch"]
    assert best < 60
    assert long.statistics["lr"] < 1e-2
    stopped = SecondStageVAE(width=64, epochs=best, lr=1e-2, patience=4).fit(z)
    assert stopped.statistics["best_epoch"] == best
    assert stopped.statistics["validation_loss"] == long.statistics["validation_loss"]
    assert torch.equal(stopped.sample(5, generator=seeded()), long.sample(5, generator=seeded()))


def test_second_stage_reproduces_constant_dimensions_exactly() -> None:
    z = make_codes(n=60, d=3)
    z[:, 1] = 0.1
    samples = SecondStageVAE(width=8, epochs=1).fit(z).sample(50, generator=seeded())
    assert torch.equal(samples[:, 1], torch.full((50,), 0.1))


def test_second_stage_does_not_depend_on_the_units_of_the_codes() -> None:
    z = make_codes(n=100, d=2).double()
    small = SecondStageVAE(width=8, epochs=2).fit(z).sample(10, generator=seeded())
    large = SecondStageVAE(width=8, epochs=2).fit(1e6 * z + 1e7).sample(10, generator=seeded())
    torch.testing.assert_close((large.double() - 1e7) / 1e6, small.double(), rtol=1e-4, atol=1e-4)


def test_a_diverging_second_stage_raises() -> None:
    density = SecondStageVAE(width=16, epochs=5, lr=1e6)
    with pytest.raises(DataError, match=r"second-stage-vae: the loss is (nan|inf) in epoch \d; lower lr=1e\+06"):
        density.fit(make_codes())
    assert not density.fitted


def test_seeds_matter() -> None:
    z = make_codes()
    draws = [SecondStageVAE(width=8, epochs=1, seed=seed).fit(z).sample(3, generator=seeded()) for seed in (0, 1)]
    assert not torch.allclose(draws[0], draws[1])
