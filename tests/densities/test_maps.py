"""Codes that are maps or sequences: every density keeps their shape, and those that see vectors see them flattened."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from expost.densities import (
    DENSITIES,
    ConditionalDensity,
    Density,
    SecondStageVAE,
    TractableDensity,
    load_density,
    make_density,
)
from expost.errors import DataError
from expost.utils.hashing import hash_tensors
from expost.utils.store import read_tensors, write_tensors

pytestmark = pytest.mark.usefixtures("one_thread")

#: What makes a density quick enough for tests.
QUICK: dict[str, dict[str, Any]] = {
    "gmm": {"components": 2},
    "bayesian-gmm": {"components": 2},
    "second-stage-vae": {"width": 16, "epochs": 2},
    "flow": {"width": 8, "transforms": 1, "steps": 5},
    "flow-matching": {"width": 8, "depth": 1, "steps": 5},
    "reduced": {"rank": 3, "base": "gaussian"},
}
#: Densities whose network looks at the map as a map: what they estimate is not that of the flattened codes.
LOOK = {"flow-matching"}
#: Densities of numbers; `test_symbols` has those of symbols.
VECTORS = [name for name, kind in DENSITIES.items() if not kind.of_symbols]
SHAPES = [(2, 3, 4), (3, 5), (1, 1, 2)]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def quick(name: str) -> Density:
    return make_density(name, **QUICK.get(name, {}))


def make_maps(shape: tuple[int, ...], n: int = 80, seed: int = 0) -> Tensor:
    """Correlated codes away from the origin."""
    d = math.prod(shape)
    mix = torch.randn(d, d, generator=seeded(1)) / math.sqrt(d)
    return (torch.randn(n, d, generator=seeded(seed)) @ mix + 1.0).reshape(n, *shape)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", VECTORS)
def test_samples_likelihoods_and_files_keep_the_shape(name: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    z = make_maps(shape)
    density = quick(name).fit(z)
    assert density.shape == shape
    assert density.dim == math.prod(shape)
    assert density.statistics["shape"] == list(shape)
    samples = density.sample(5, generator=seeded())
    assert samples.shape == (5, *shape)
    assert density.sample(0).shape == (0, *shape)
    loaded = load_density(density.save(tmp_path))
    assert loaded.shape == shape
    assert torch.equal(loaded.sample(5, generator=seeded()), samples)
    assert json.loads(json.dumps(loaded.statistics)) == density.statistics
    if isinstance(density, TractableDensity) and isinstance(loaded, TractableDensity):
        assert density.log_prob(z).shape == density.log_prob_left_out(z).shape == (len(z),)
        torch.testing.assert_close(loaded.log_prob(z), density.log_prob(z), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", [name for name in VECTORS if name not in LOOK])
def test_a_density_of_vectors_sees_maps_flattened(name: str) -> None:
    z = make_maps((2, 3, 4))
    maps, vectors = quick(name).fit(z), quick(name).fit(z.flatten(1))
    assert vectors.shape == (24,)
    assert "shape" not in vectors.statistics
    assert torch.equal(maps.sample(9, generator=seeded()).flatten(1), vectors.sample(9, generator=seeded()))
    if isinstance(maps, TractableDensity) and isinstance(vectors, TractableDensity):
        assert torch.equal(maps.log_prob(z), vectors.log_prob(z.flatten(1)))
        assert torch.equal(maps.log_prob_left_out(z), vectors.log_prob_left_out(z.flatten(1)))


@pytest.mark.parametrize("name", [name for name in VECTORS if issubclass(DENSITIES[name], TractableDensity)])
def test_other_shapes_are_refused_in_one_line(name: str) -> None:
    density = quick(name).fit(make_maps((2, 3, 4)))
    assert isinstance(density, TractableDensity)
    for wrong in ((24,), (2, 4, 3), (2, 12), (3, 3, 4)):
        with pytest.raises(DataError, match=r"but the density was fitted on codes of shape \(2, 3, 4\)") as caught:
            density.log_prob(torch.zeros(2, *wrong))
        assert "\n" not in str(caught.value)
    density.fit(make_maps((24,)))
    with pytest.raises(DataError, match=r"codes have shape \(2, 3, 4\), but the density was fitted on .*24"):
        density.log_prob(torch.zeros(2, 2, 3, 4))


def test_maps_that_are_not_finite_are_named() -> None:
    z = make_maps((2, 3, 4))
    z[7, 1, 0, 2] = math.nan
    with pytest.raises(DataError, match="NaN or infinity, first in row 7"):
        make_density("gaussian").fit(z)


@pytest.mark.parametrize("shape", [[2, 3, 5], [24.0], "2x3x4", [], [2, 3, 4, 1], [-2, -3, 4], None], ids=str)
def test_a_file_of_an_impossible_shape_is_refused(shape: Any, tmp_path: Path) -> None:
    path = make_density("gaussian").fit(make_maps((2, 3, 4))).save(tmp_path)
    tensors, record = read_tensors(path)
    record["fit"]["shape"] = shape
    write_tensors(path, tensors, record | {"sha256": hash_tensors(tensors)})
    with pytest.raises(DataError, match=r"codes of 24 dimensions and shape .*restore the file or fit again"):
        load_density(path)


@pytest.mark.parametrize("base", ["gaussian", "flow-matching", "second-stage-vae"])
def test_a_class_has_a_density_of_maps(base: str, tmp_path: Path) -> None:
    z = torch.cat([make_maps((2, 3, 4)), make_maps((2, 3, 4), n=20, seed=3) + 9])
    labels = [0] * 80 + [1] * 20
    density = ConditionalDensity(base=base, base_options=QUICK.get(base, {}), min_codes=30).fit(z, labels)
    loaded = load_density(density.save(tmp_path))
    assert isinstance(loaded, ConditionalDensity)
    for each in (density, loaded):
        assert each.given(1).shape == each.shape == (2, 3, 4)
        assert each.given(1).statistics["shrunk"]
        assert each.sample(4, generator=seeded()).shape == (4, 2, 3, 4)
        assert each.sample(50, 1, generator=seeded()).mean() == pytest.approx(float(z[80:].mean()), abs=0.5)
    if base != "second-stage-vae":
        torch.testing.assert_close(density.posterior(z)[:, 1].round(), torch.tensor(labels).double())
        torch.testing.assert_close(density.log_prob(z, 1), loaded.log_prob(z, 1))


def test_a_second_stage_encodes_maps_to_vectors_and_back() -> None:
    z = make_maps((2, 3, 4))
    density, flat = SecondStageVAE(width=16, epochs=2).fit(z), SecondStageVAE(width=16, epochs=2).fit(z.flatten(1))
    u = density.encode(z)
    assert torch.equal(u, flat.encode(z.flatten(1)))
    assert torch.equal(density.decode(u), flat.decode(u).reshape(-1, 2, 3, 4))


@pytest.mark.parametrize("name", ["gaussian", "kde", "flow"])
def test_a_full_covariance_that_the_codes_leave_singular_is_not_tried(name: str) -> None:
    z = torch.randn(40, 4, 32, 32, generator=seeded())
    with pytest.raises(DataError, match=rf"^{name}: 40 codes cannot determine .*use density reduced \(base={name}\)"):
        quick(name).fit(z)
    options = {"base": name, "base_options": QUICK.get(name, {}), "rank": 2}
    density = make_density("reduced", **options).fit(z)
    assert density.sample(2).shape == (2, 4, 32, 32)
