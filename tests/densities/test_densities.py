"""The contract that every density keeps, run over the registry.

What each one estimates is in test_density_fits, what it draws in test_samplers.
"""

import json
import math
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import pytest
import torch
from torch import Tensor

from expost.densities import (
    DENSITIES,
    NEED_LABELS,
    Density,
    Fit,
    Gaussian,
    KernelDensity,
    TractableDensity,
    load_density,
    make_density,
)
from expost.errors import DataError, UsageError
from expost.utils.hashing import hash_tensors
from expost.utils.store import read_json, read_tensors, write_tensors

pytestmark = pytest.mark.usefixtures("one_thread")

# What makes a density quick enough for tests; a new one needs a row here only if its defaults are slow.
QUICK: dict[str, dict[str, Any]] = {
    "gmm": {"components": 3},
    "bayesian-gmm": {"components": 3},
    "second-stage-vae": {"width": 24, "epochs": 3},
    "flow": {"width": 16, "transforms": 2, "steps": 20},
    "flow-matching": {"width": 24, "depth": 1, "steps": 20},
    "reduced": {"rank": 2, "base": "gaussian"},
    "conditional": {"base": "gaussian", "min_codes": 2},
}
#: Of vectors; `test_symbols` has the contract of those of symbols.
KINDS: dict[str, type[Density]] = {
    name: kind for name, kind in {**DENSITIES, **NEED_LABELS}.items() if not kind.of_symbols
}
NAMES = list(KINDS)
TRACTABLE = [name for name, kind in KINDS.items() if issubclass(kind, TractableDensity)]
#: Densities that are not affine in their noise; `test_flows` has what a temperature does to them.
BENT = {"flow", "flow-matching"}
D = TypeVar("D", bound=Density)
every_density = pytest.mark.parametrize("name", NAMES)
every_tractable = pytest.mark.parametrize("name", TRACTABLE)


def quick(name: str, **options: Any) -> Density:
    return KINDS[name](**QUICK.get(name, {}) | options)


def fit(density: D, z: Any) -> D:
    """Fit a density, with two labels if it needs any and there are codes enough for two."""
    if density.name not in NEED_LABELS:
        return density.fit(z)
    n = len(z) if isinstance(z, Tensor) and z.dim() else 2
    return density.fit(z, torch.arange(n) % (2 if n >= 40 else 1))


def tractable(name: str, **options: Any) -> TractableDensity:
    density = quick(name, **options)
    assert isinstance(density, TractableDensity)
    return density


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_codes(n: int = 120, d: int = 3, seed: int = 0) -> Tensor:
    """Two correlated clusters away from the origin, float32."""
    generator = seeded(seed)
    mix = torch.randn(d, d, generator=generator)
    side = torch.randint(2, (n, 1), generator=generator) * 4.0 - 2.0
    return torch.randn(n, d, generator=generator) @ mix + side + 1.0


@pytest.fixture(scope="module")
def fitted() -> dict[str, Density]:
    return {name: fit(quick(name), make_codes()) for name in NAMES}


# ------------------------------------------------------------------------------------------------------- the registry


def test_registry_has_the_promised_densities() -> None:
    promised = {
        "standard-normal",
        "gaussian",
        "gmm",
        "bayesian-gmm",
        "kde",
        "second-stage-vae",
        "flow",
        "flow-matching",
    }
    promised.add("reduced")
    assert promised <= set(DENSITIES)
    assert promised - set(TRACTABLE) == {"second-stage-vae"}


def test_unknown_name_and_option_are_refused_with_the_choices() -> None:
    with pytest.raises(UsageError, match="did you mean 'gmm'"):
        make_density("gmn")
    with pytest.raises(UsageError, match="no option 'n_components'.*components, covariance, n_init"):
        make_density("gmm", n_components=5)
    with pytest.raises(UsageError, match="no option '_state'"):
        make_density("gmm", _state=1)


def test_import_trains_nothing_and_touches_no_autoencoder() -> None:
    code = "import sys, torch; state = torch.get_rng_state(); import expost.densities"
    code += "; assert torch.equal(state, torch.get_rng_state())"
    code += "; assert not any('autoencoder' in m for m in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("gaussian", {"regularization": -1e-6}),
        ("gaussian", {"regularization": math.nan}),
        ("gaussian", {"regularization": "small"}),
        ("gmm", {"components": 0}),
        ("gmm", {"components": 2.0}),
        ("gmm", {"components": True}),
        ("gmm", {"components": "10"}),
        ("gmm", {"covariance": "tied"}),
        ("gmm", {"covariance": None}),
        ("gmm", {"n_init": 0}),
        ("gmm", {"max_iter": 0}),
        ("gmm", {"tol": -1.0}),
        ("gmm", {"seed": -1}),
        ("gmm", {"seed": 2**32}),
        ("bayesian-gmm", {"weight_concentration": 0.0}),
        ("bayesian-gmm", {"weight_prior": "uniform"}),
        ("kde", {"bandwidth": "scot"}),
        ("kde", {"bandwidth": 0.0}),
        ("kde", {"bandwidth": None}),
        ("kde", {"kernel": "tophat"}),
        ("kde", {"cv_queries": 1}),
        ("second-stage-vae", {"width": 0}),
        ("second-stage-vae", {"epochs": 0}),
        ("second-stage-vae", {"lr": 0.0}),
        ("second-stage-vae", {"kl_weight": 0.0}),
        ("second-stage-vae", {"kl_weight": "learnt"}),
        ("second-stage-vae", {"noise": 1}),
    ],
)
def test_options_outside_their_range_are_refused_in_one_line(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as caught:
        DENSITIES[name](**options)
    message = str(caught.value)
    assert message.startswith(f"{next(iter(options))}=")
    assert "\n" not in message
    with pytest.raises(UsageError, match=next(iter(options))):
        make_density(name, **options)


def test_options_are_listed_and_cannot_change() -> None:
    density = make_density("gmm", components=np.int64(4), tol=np.float32(0.5))
    assert density.options["components"] == 4
    assert type(density.options["components"]) is int
    assert type(density.options["tol"]) is float
    assert density.options["seed"] == 0
    with pytest.raises(AttributeError):
        density.components = 5  # type: ignore[attr-defined]


# ------------------------------------------------------------------------------------------------------- fit and sample


@every_density
def test_samples_are_float32_finite_codes_that_follow_the_data(name: str) -> None:
    # Roughly: a density of another family (a Laplace, say) has another variance than normal codes by a half.
    z = torch.randn(600, 2, generator=seeded(1))
    density = quick(name, **({"epochs": 60, "width": 48} if name == "second-stage-vae" else {}))
    assert fit(density, z) is density
    samples = density.sample(4000, generator=seeded())
    assert samples.shape == (4000, 2)
    assert samples.dtype == torch.float32
    assert samples.isfinite().all()
    torch.testing.assert_close(samples.mean(0), torch.zeros(2), atol=0.2, rtol=0)
    torch.testing.assert_close(torch.cov(samples.T), torch.eye(2), atol=0.6, rtol=0)
    assert density.statistics["n"] == 600
    assert density.statistics["d"] == density.dim == 2


@every_density
def test_draws_depend_on_the_generator_alone(name: str, fitted: dict[str, Density]) -> None:
    density = fitted[name]
    first, again = density.sample(7, generator=seeded(5)), density.sample(7, generator=seeded(5))
    assert torch.equal(first, again)
    assert not torch.equal(first, density.sample(7, generator=seeded(6)))
    generator = seeded(5)
    assert torch.equal(first, density.sample(7, generator=generator))
    assert not torch.equal(first, density.sample(7, generator=generator))


@every_density
def test_without_a_generator_calls_differ_and_follow_the_global_seed(name: str, fitted: dict[str, Density]) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        first, second = fitted[name].sample(5), fitted[name].sample(5)
        torch.manual_seed(3)
        assert torch.equal(first, fitted[name].sample(5))
    assert not torch.equal(first, second)


@every_density
def test_fitting_is_reproducible_and_leaves_the_global_random_state_alone(name: str) -> None:
    state, np_state = torch.get_rng_state(), np.random.get_state(legacy=False)["state"]["key"].copy()  # noqa: NPY002 (it is what must not move)
    first = fit(quick(name), make_codes())
    torch.randn(3)  # whatever happens in between must not matter
    second = fit(quick(name), make_codes())
    torch.set_rng_state(state)
    third = fit(quick(name), make_codes())
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state(legacy=False)["state"]["key"], np_state)  # noqa: NPY002
    for other in (second, third):
        for key, tensor in first.tensors.items():
            torch.testing.assert_close(other.tensors[key], tensor, rtol=1e-9, atol=1e-12)


@every_density
def test_fitting_again_replaces_the_fit(name: str, fitted: dict[str, Density]) -> None:
    density = fit(quick(name), make_codes(n=50, d=5))
    fit(density, make_codes())
    assert torch.equal(density.sample(9, generator=seeded()), fitted[name].sample(9, generator=seeded()))


@every_density
def test_draws_are_in_random_order(name: str) -> None:
    """Of two far clusters, neighbors in the sample come from the same one half of the time, not nearly always."""
    z = torch.randn(300, 2, generator=seeded()) * 0.1 + torch.tensor([[-1.0, -1.0], [1.0, 1.0]]).repeat(150, 1)
    side = fit(quick(name), z).sample(4000, generator=seeded()).sum(1) > 0
    same = (side[1:] == side[:-1]).float().mean().item()
    expected = side.float().mean().item() ** 2 + (1 - side.float().mean().item()) ** 2
    assert abs(same - expected) < 5 / math.sqrt(4000)


@every_density
def test_zero_samples_are_allowed_other_counts_are_refused(name: str, fitted: dict[str, Density]) -> None:
    assert fitted[name].sample(0).shape == (0, 3)
    assert fitted[name].sample(1).shape == (1, 3)
    for bad in (-1, 2.0, "3", True):
        with pytest.raises(UsageError, match="^n="):
            fitted[name].sample(bad)  # type: ignore[arg-type]


@every_density
def test_temperature_one_is_the_density_itself(name: str, fitted: dict[str, Density]) -> None:
    plain = fitted[name].sample(50, generator=seeded())
    assert torch.equal(fitted[name].sample(50, generator=seeded(), temperature=1.0), plain)
    assert torch.equal(fitted[name].sample(50, generator=seeded(), temperature=1), plain)
    assert not torch.equal(fitted[name].sample(50, generator=seeded(), temperature=0.5), plain)


@pytest.mark.parametrize("name", [name for name in TRACTABLE if name not in BENT])
@pytest.mark.parametrize("temperature", [0.25, 4.0])
def test_temperature_multiplies_the_noise_by_its_square_root(
    name: str, temperature: float, fitted: dict[str, Density]
) -> None:
    """Given what is drawn beside the noise, these densities are affine in it: deviations from T = 0 tell."""

    def draw(t: float) -> Tensor:
        return fitted[name].sample(200, generator=seeded(), temperature=t)

    center = draw(0.0)
    expected = center + math.sqrt(temperature) * (draw(1.0) - center)
    torch.testing.assert_close(draw(temperature), expected, rtol=1e-4, atol=1e-4)


def test_temperature_scales_the_variance_of_a_gaussian(fitted: dict[str, Density]) -> None:
    factor = fitted["gaussian"].tensors["cholesky"]
    covariance = (factor @ factor.T).float()
    for temperature in (0.1, 1.0, 3.0):
        samples = fitted["gaussian"].sample(20_000, generator=seeded(), temperature=temperature)
        torch.testing.assert_close(
            torch.cov(samples.T) / temperature, covariance, atol=0.04 * covariance.max().item(), rtol=0
        )
    generator, temperature = seeded(), 0.3
    by_hand = torch.randn(5, 3, generator=generator).double() * math.sqrt(temperature)
    by_hand = fitted["gaussian"].tensors["mean"] + by_hand @ factor.T
    drawn = fitted["gaussian"].sample(5, generator=seeded(), temperature=temperature)
    torch.testing.assert_close(drawn, by_hand.float())


def test_at_temperature_zero_only_centers_are_left(fitted: dict[str, Density]) -> None:
    def cold(name: str) -> Tensor:
        return fitted[name].sample(400, generator=seeded(), temperature=0)

    assert torch.equal(cold("standard-normal"), torch.zeros(400, 3))
    assert torch.equal(cold("gaussian"), fitted["gaussian"].tensors["mean"].float().expand(400, 3))
    for name in ("gmm", "bayesian-gmm"):
        means, weights = fitted[name].tensors["means"].float(), fitted[name].tensors["weights"]
        chosen = torch.cdist(cold(name), means).argmin(1)
        assert torch.equal(cold(name), means[chosen])
        assert chosen.bincount(minlength=3) / 400 == pytest.approx(weights, abs=5 / math.sqrt(400))
    distances = torch.cdist(cold("kde").double(), make_codes().double())
    assert distances.min(1).values.max() < 1e-5  # they are training codes
    assert len(cold("kde").unique(dim=0)) > 100
    assert len(cold("second-stage-vae").unique(dim=0)) == 1  # the code of u = 0
    base = fitted["reduced"].tensors["mean"].float()
    torch.testing.assert_close(cold("reduced"), base.expand(400, 3), atol=1e-5, rtol=0)


@every_density
def test_a_temperature_outside_its_range_is_refused_in_one_line(name: str, fitted: dict[str, Density]) -> None:
    for bad in (-1e-9, math.nan, math.inf, "1", True, None):
        with pytest.raises(UsageError, match=r"^temperature=.* must be a finite number, at least 0$"):
            fitted[name].sample(3, temperature=bad)  # type: ignore[arg-type]


@every_density
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_float_dtype_is_fitted_in_float64(name: str, dtype: torch.dtype) -> None:
    z = make_codes().to(dtype)
    reference = fit(quick(name), z.double())
    density = fit(quick(name), z)
    for key, tensor in density.tensors.items():
        torch.testing.assert_close(tensor, reference.tensors[key], rtol=1e-9, atol=1e-12)
    assert density.sample(2).dtype == torch.float32


@every_density
def test_fit_works_wherever_the_codes_come_from(name: str, fitted: dict[str, Density]) -> None:
    expected = fitted[name].sample(4, generator=seeded())
    z = make_codes()
    before = z.clone()
    wide = torch.zeros(120, 6)
    wide[:, ::2] = z
    with torch.inference_mode():
        inferred = fit(quick(name), make_codes())
        inferred.sample(2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = fit(quick(name), z)
        torch.testing.assert_close(cast.sample(4, generator=seeded()), expected, rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        ungraded = fit(quick(name), z)
    variants = [inferred, cast, ungraded, fit(quick(name), wide[:, ::2]), fit(quick(name), z.clone().requires_grad_())]
    for density in variants:
        samples = density.sample(4, generator=seeded())
        torch.testing.assert_close(samples, expected, rtol=1e-5, atol=1e-5)
        assert not samples.requires_grad
        assert not samples.is_inference()
    assert torch.equal(z, before)


@every_density
def test_the_fit_does_not_alias_the_codes(name: str) -> None:
    z = make_codes().double()
    density = fit(quick(name), z)
    before = density.sample(5, generator=seeded())
    z.zero_()
    assert torch.equal(density.sample(5, generator=seeded()), before)


@every_density
def test_more_dimensions_than_codes_and_a_constant_dimension(name: str) -> None:
    z = torch.cat([make_codes(n=12, d=20), torch.full((12, 1), 7.5)], 1)
    density = fit(quick(name), z)
    samples = density.sample(200, generator=seeded())
    assert samples.isfinite().all()
    if name != "standard-normal":  # the only one that does not look at the codes
        ridge = (1e-6 * z.var(0, correction=0).mean()).sqrt().item()
        torch.testing.assert_close(samples[:, -1], torch.full((200,), 7.5), atol=5 * ridge, rtol=0)
    if isinstance(density, TractableDensity):
        assert density.log_prob(z).isfinite().all()


@pytest.mark.parametrize("unit", [1e-6, 3e-4, 1.0, 700.0, 1e6])
@every_density
def test_samples_spread_as_the_codes_do_whatever_their_scale(name: str, unit: float) -> None:
    """A floor that knows no scale would widen small codes: by 1e-6 added to variances, those of 1e-4 eleven times."""
    z = make_codes(n=300, d=4).double()
    z = (z - z.mean(0)) / z.std(0) * torch.tensor([1.0, 0.5, 0.2, 2.0]) + 0.3
    sizes = {"rank": 4} if name == "reduced" else {}
    drawn = fit(quick(name, **sizes), z * unit).sample(4000, generator=seeded()).double() / unit
    if name == "standard-normal":  # the only one that does not look at the codes
        torch.testing.assert_close(drawn.std(0) * unit, torch.ones(4).double(), rtol=0.1, atol=0)
        return
    at_unit = fit(quick(name, **sizes), z).sample(4000, generator=seeded()).double()
    torch.testing.assert_close(drawn.std(0), at_unit.std(0), rtol=0.02, atol=0)
    if name != "second-stage-vae":  # which is hardly trained here
        torch.testing.assert_close(drawn.std(0), z.std(0), rtol=0.2, atol=0)


@every_density
def test_two_codes_are_enough(name: str) -> None:
    options = {"components": 2} if "gmm" in name else {}
    density = fit(quick(name, **options), torch.tensor([[0.0, 1.0], [2.0, 5.0]]))
    assert density.sample(10, generator=seeded()).isfinite().all()


# ------------------------------------------------------------------------------------------------------- unusable input


BAD_CODES: list[tuple[Any, str]] = [
    (np.zeros((4, 2)), "got ndarray"),
    (torch.zeros(4), "shape"),
    (torch.zeros(4, 2, 2, 2, 2), "or be maps"),
    (torch.zeros(4, 0), "shape"),
    (torch.zeros(4, 2, 0, 3), "shape"),
    (torch.zeros(4, 2, dtype=torch.int64), "floating point, got int64"),
    (torch.randn(0, 2), "got 0"),
    (torch.randn(1, 2), "got 1"),
    (torch.ones(50, 2), "all 50 codes are equal"),
    (torch.tensor([[0.0, 1.0], [math.nan, 1.0]]), "first in row 1"),
    (torch.tensor([[0.0, math.inf], [2.0, 1.0]]), "first in row 0"),
    (torch.tensor([[0.0, 1e30], [2.0, 1.0]]), "standardize"),
]


@every_density
@pytest.mark.parametrize(("z", "words"), BAD_CODES, ids=[words for _, words in BAD_CODES])
def test_unusable_codes_are_refused_and_leave_no_fit(name: str, z: Any, words: str) -> None:
    density = fit(quick(name), make_codes())
    with pytest.raises(DataError, match=words) as caught:
        fit(density, z)
    assert "\n" not in str(caught.value)
    assert not density.fitted
    with pytest.raises(UsageError, match="not fitted"):
        density.sample(1)


@every_density
def test_use_before_fit_is_one_clear_error(name: str, tmp_path: Path) -> None:
    density = quick(name)
    attempts = [lambda: density.sample(1), lambda: density.save(tmp_path), lambda: density.to("cpu")]
    attempts += [lambda: density.dim, lambda: density.statistics, lambda: density.tensors]
    if isinstance(density, TractableDensity):
        attempts.append(lambda: density.log_prob(torch.zeros(1, 3)))
    for attempt in attempts:
        with pytest.raises(UsageError, match=f"density '{name}' is not fitted; call fit"):
            attempt()
    assert not list(tmp_path.iterdir())


@every_density
def test_devices(name: str) -> None:
    density = fit(quick(name), make_codes())
    before = density.sample(3, generator=seeded())
    assert density.to("cpu") is density
    assert density.device == before.device == torch.device("cpu")
    assert torch.equal(density.sample(3, generator=seeded()), before)
    for bad in ("warp", "cuda:99", "meta"):
        with pytest.raises(UsageError, match=f"cannot use device '{bad}'") as caught:
            density.to(bad)
        assert "\n" not in str(caught.value)
    assert torch.equal(density.sample(3, generator=seeded()), before)


@every_density
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def test_on_any_device_fit_and_samples_agree_with_the_cpu(name: str, device: str, tmp_path: Path) -> None:
    z = make_codes()
    on_cpu, on_gpu = fit(quick(name), z), fit(quick(name), z.to(device))
    samples = on_gpu.sample(50, generator=seeded())
    assert samples.device.type == device
    torch.testing.assert_close(samples.cpu(), on_cpu.sample(50, generator=seeded()), rtol=1e-2, atol=1e-2)
    assert on_gpu.sample(3, generator=torch.Generator(device).manual_seed(0)).device.type == device
    on_gpu.save(tmp_path)
    loaded = load_density(tmp_path)
    torch.testing.assert_close(loaded.to(device).sample(50, generator=seeded()), samples)
    if isinstance(on_gpu, TractableDensity) and isinstance(on_cpu, TractableDensity):
        torch.testing.assert_close(on_gpu.log_prob(z), on_cpu.log_prob(z), rtol=1e-6, atol=1e-6)
        assert on_gpu.log_prob(z.to(device)).device.type == device


# ------------------------------------------------------------------------------------------------------- log_prob


@every_tractable
def test_the_density_integrates_to_one(name: str) -> None:
    z = torch.tensor([[-1.0], [-0.8], [-0.7], [0.0], [1.4], [1.5], [2.0]], dtype=torch.float64)
    grid = torch.linspace(-30, 30, 60001, dtype=torch.float64)[:, None]
    mass = fit(tractable(name), z).log_prob(grid).exp().sum().item() * 1e-3
    # the path of flow matching is followed in float32, in eight steps
    assert mass == pytest.approx(1, abs=5e-4 if name == "flow-matching" else 1e-6)


@every_tractable
def test_log_prob_is_float64_and_the_same_for_any_batch(name: str, fitted: dict[str, Density]) -> None:
    density, held_out = fitted[name], make_codes(n=33, seed=9)
    assert isinstance(density, TractableDensity)
    together = density.log_prob(held_out)
    assert together.dtype == torch.float64
    assert together.shape == (33,)
    alone = torch.cat([density.log_prob(row[None]) for row in held_out])
    torch.testing.assert_close(together, alone, rtol=1e-9, atol=1e-9)
    assert density.log_prob(held_out[:0]).shape == (0,)
    assert torch.equal(density.log_prob(held_out.half()), density.log_prob(held_out.half().double()))
    assert not density.log_prob(held_out.requires_grad_()).requires_grad


@every_tractable
def test_log_prob_refuses_other_dimensions_and_nan(name: str, fitted: dict[str, Density]) -> None:
    density = fitted[name]
    assert isinstance(density, TractableDensity)
    with pytest.raises(DataError, match="codes have 2 dimensions, but the density was fitted on 3"):
        density.log_prob(torch.zeros(4, 2))
    with pytest.raises(DataError, match="NaN"):
        density.log_prob(torch.full((4, 3), math.nan))
    with pytest.raises(DataError, match="shape"):
        density.log_prob(torch.zeros(3))


# ------------------------------------------------------------------------------------------------------- save and load


@every_density
def test_save_and_load_are_exact(name: str, fitted: dict[str, Density], tmp_path: Path) -> None:
    density = fitted[name]
    path = density.save(tmp_path / "new" / "folder" / "mine.safetensors")
    assert path == tmp_path / "new" / "folder" / "mine.safetensors"
    loaded = load_density(path)
    assert type(loaded) is type(density)
    assert loaded.options == density.options
    assert loaded.statistics == density.statistics
    assert loaded.tensors.keys() == density.tensors.keys()
    for key, tensor in density.tensors.items():
        assert tensor.dtype == loaded.tensors[key].dtype
        assert torch.equal(tensor, loaded.tensors[key])
    assert torch.equal(loaded.sample(20, generator=seeded()), density.sample(20, generator=seeded()))
    if isinstance(density, TractableDensity):
        assert isinstance(loaded, TractableDensity)
        assert torch.equal(loaded.log_prob(make_codes(seed=2)), density.log_prob(make_codes(seed=2)))
    record = read_json(path.with_suffix(".json"))
    assert record["density"] == name
    assert record["version"] == 1
    assert record["options"] == density.options
    assert record["fit"] == density.statistics
    assert read_tensors(path)[1] == record


def test_save_to_a_folder_and_load_by_any_of_the_names(fitted: dict[str, Density], tmp_path: Path) -> None:
    path = fitted["gmm"].save(str(tmp_path))
    assert path.name == "density.safetensors"
    for given in (tmp_path, str(path), path.with_suffix(".json")):
        assert torch.equal(
            load_density(given).sample(3, generator=seeded()), fitted["gmm"].sample(3, generator=seeded())
        )
    path.with_suffix(".json").unlink()
    assert load_density(path).statistics == fitted["gmm"].statistics


def test_a_fit_can_be_saved_again_after_loading(fitted: dict[str, Density], tmp_path: Path) -> None:
    first = fitted["kde"].save(tmp_path / "a.safetensors")
    second = load_density(first).save(tmp_path / "b.safetensors")
    assert first.read_bytes() == second.read_bytes()


def rewrite(path: Path, record: dict[str, Any] | None = None, tensors: dict[str, Tensor] | None = None) -> None:
    """Change a saved density on disk, as a careless or hostile hand would."""
    old_tensors, old_record = read_tensors(path)
    new_tensors = old_tensors | (tensors or {})
    write_tensors(path, new_tensors, old_record | {"sha256": hash_tensors(new_tensors)} | (record or {}))


@pytest.mark.parametrize(
    ("record", "tensors", "words"),
    [
        ({"version": 2}, {}, "format version 2, newer than 1; update expost"),
        ({"sha256": None}, {}, "wrong checksum"),
        ({"version": "1"}, {}, "no valid format version"),
        ({"version": 0}, {}, "no valid format version"),
        ({"format": "checkpoint"}, {}, "holds no density"),
        ({"density": "diffusion"}, {}, "density 'diffusion', which this version does not have"),
        ({"density": ["gmm"]}, {}, "incomplete record"),
        ({"density": "kde"}, {}, "unusable options"),
        ({"options": {"components": 0}}, {}, "unusable options"),
        ({"options": {"componentz": 3}}, {}, "unusable options"),
        ({"options": {"components": 4}}, {}, "has shape"),
        ({"options": None}, {}, "incomplete record"),
        ({"fit": {"n": 120}}, {}, "does not say the codes' shape"),
        ({"fit": {"n": 120, "d": -3}}, {}, "does not say the codes' shape"),
        ({"fit": {"n": 120, "d": 4}}, {}, "has shape"),
        ({}, {"means": torch.zeros(3, 2, dtype=torch.float64)}, "tensor 'means' has shape"),
        ({}, {"extra": torch.zeros(1)}, "tensor 'extra' has shape"),
        ({}, {"means": torch.full((3, 3), math.nan, dtype=torch.float64)}, "tensor 'means' is not finite"),
        ({}, {"weights": torch.zeros(3, dtype=torch.int64)}, "tensor 'weights' is not finite"),
    ],
)
def test_damaged_or_newer_files_are_refused_in_one_line(
    record: dict[str, Any], tensors: dict[str, Tensor], words: str, fitted: dict[str, Density], tmp_path: Path
) -> None:
    path = fitted["gmm"].save(tmp_path)
    rewrite(path, record, tensors)
    with pytest.raises(DataError, match=words) as caught:
        load_density(path)
    assert "\n" not in str(caught.value)


def test_truncated_missing_and_foreign_files_are_refused(fitted: dict[str, Density], tmp_path: Path) -> None:
    path = fitted["gaussian"].save(tmp_path)
    whole = path.read_bytes()
    for size in (0, 7, 100, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(DataError, match="cannot read"):
            load_density(path)
    path.write_text("not a density")
    with pytest.raises(DataError, match="cannot read"):
        load_density(path)
    with pytest.raises(DataError, match="no file"):
        load_density(tmp_path / "nowhere")
    write_tensors(path, {"weight": torch.zeros(2)})
    with pytest.raises(DataError, match="holds no density"):
        load_density(path)


def test_one_flipped_bit_is_noticed(fitted: dict[str, Density], tmp_path: Path) -> None:
    path = fitted["gmm"].save(tmp_path)
    damaged = bytearray(path.read_bytes())
    damaged[-3] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(DataError, match="is damaged: its contents are not what was written"):
        load_density(path)


def test_loading_as_another_density_is_refused(fitted: dict[str, Density], tmp_path: Path) -> None:
    path = fitted["gaussian"].save(tmp_path)
    assert isinstance(Gaussian.load(path), Gaussian)
    with pytest.raises(DataError, match="holds density 'gaussian', not 'kde'"):
        KernelDensity.load(path)


# ------------------------------------------------------------------------------------------------------- a new density


@dataclass(frozen=True, kw_only=True, eq=False)
class Box(TractableDensity):
    """The smallest density there is: uniform over the bounding box."""

    name: ClassVar[str] = "box"
    margin: float = 0.0

    def _check(self) -> None:
        pass

    def _fit(self, z: Tensor) -> Fit:
        return Fit({"low": z.amin(0) - self.margin, "high": z.amax(0) + self.margin})

    def _draw(self, n: int, generator: torch.Generator | None, temperature: float) -> Tensor:
        low, high = self.tensors["low"], self.tensors["high"]
        return low + (high - low) * torch.rand(n, self.dim, generator=generator)

    def _log_prob(self, z: Tensor) -> Tensor:
        low, high = self.tensors["low"], self.tensors["high"]
        return torch.where(((z >= low) & (z <= high)).all(1), -(high - low).log().sum(), -math.inf)

    def _layout(self, statistics: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        d = statistics["d"]
        return {"low": (d,), "high": (d,)}


@dataclass(frozen=True, kw_only=True, eq=False)
class Broken(Density):
    """Fits to infinity."""

    name: ClassVar[str] = "broken"

    def _check(self) -> None:
        pass

    def _fit(self, z: Tensor) -> Fit:
        return Fit({"mean": z.mean(0) / 0})

    def _draw(self, n: int, generator: torch.Generator | None, temperature: float) -> Tensor:
        raise NotImplementedError

    def _layout(self, statistics: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        return {"mean": (statistics["d"],)}


def test_a_new_density_gets_checks_saving_and_loading_from_the_base(tmp_path: Path) -> None:
    density = Box(margin=0.5).fit(torch.tensor([[0.0], [3.0]]))
    assert density.log_prob(torch.tensor([[0.0], [9.0]])).tolist() == pytest.approx([-math.log(4), -math.inf])
    loaded = Box.load(density.save(tmp_path))
    assert loaded.options == {"margin": 0.5}
    assert torch.equal(loaded.sample(4, generator=seeded()), density.sample(4, generator=seeded()))


def test_a_fit_that_is_not_finite_raises() -> None:
    density = Broken()
    with pytest.raises(DataError, match="broken: the fit is not finite"):
        fit(density, make_codes())
    assert not density.fitted


def test_statistics_are_plain_json(fitted: dict[str, Density]) -> None:
    for density in fitted.values():
        assert json.loads(json.dumps(density.statistics, allow_nan=False)) == density.statistics
