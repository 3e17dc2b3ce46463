"""The generator: encoding, ex-post densities, interpolation, and other people's autoencoders."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import nn

from expost.densities import DENSITIES, Categorical
from expost.errors import UsageError
from expost.evaluation.evaluate import evaluate_generator
from expost.evaluation.protocol import Protocol, chosen_examples, pick_space
from expost.examples.pictures import pairs
from expost.generators.generator import Generator, own_densities
from expost.generators.interpolation import INTERPOLATIONS
from expost.models.autoencoder import build
from expost.models.presets import configure
from expost.types import Data, Split
from expost.utils.seeding import PAIRS, SAMPLES, stream_seed
from expost.utils.seeding import generator as seeded


def linear_generator(dim=6, latent=3):
    """A foreign autoencoder whose algebra is known: an orthonormal basis and its transpose."""
    basis = torch.linalg.qr(torch.randn(dim, latent, generator=torch.Generator().manual_seed(0)))[0]
    return Generator(encode_batch=lambda x: x @ basis, decode_batch=lambda z: z @ basis.t(), batch_size=7), basis


def test_a_foreign_autoencoder_is_sampled_through_its_own_functions():
    generator, basis = linear_generator()
    codes = torch.randn(500, 3, generator=torch.Generator().manual_seed(1)) * torch.tensor([1.0, 2.0, 3.0]) + 5
    x = codes @ basis.t()
    torch.testing.assert_close(generator.encode(x), codes, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(generator.reconstruct(x), x, atol=1e-4, rtol=1e-4)
    generator.fit("gaussian", x)
    samples = generator.sample(20_000, seed=0)
    torch.testing.assert_close(samples @ basis @ basis.t(), samples, atol=1e-4, rtol=1e-4)  # in the decoder's range
    mean, std = (samples @ basis).mean(0), (samples @ basis).std(0)
    torch.testing.assert_close(mean, codes.mean(0), atol=0.1, rtol=0)
    torch.testing.assert_close(std, codes.std(0), rtol=0.05, atol=0)


def test_encoding_never_runs_the_decoder_and_does_not_depend_on_the_batch():
    def forbidden(z):
        raise AssertionError("the decoder ran")

    torch.manual_seed(0)
    model = build(configure("vae", (1, 28, 28), "small", {"width": 4})[0]).eval()
    x = torch.randint(0, 256, (10, 1, 28, 28), dtype=torch.uint8)
    small = Generator(model.encode, forbidden, batch_size=3)
    large = Generator(model.encode, forbidden, batch_size=10)
    torch.testing.assert_close(small.encode(x), large.encode(x))
    small.fit("gaussian", x)  # neither does a fit


def test_wrapping_puts_a_model_into_evaluation_mode():
    model = build(configure("rae", (1, 28, 28), "small", {"width": 4})[0]).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    Generator.of(model).reconstruct(torch.rand(5, 1, 28, 28))
    assert not model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_samples_repeat_with_a_seed_and_differ_without():
    generator, _ = linear_generator()
    generator.fit("gmm", codes=torch.randn(200, 3), components=2)
    assert torch.equal(generator.sample(5, seed=3), generator.sample(5, seed=3))
    assert not torch.equal(generator.sample(5), generator.sample(5))
    assert not torch.equal(generator.sample(5, seed=3), generator.sample(5, seed=4))


def test_the_mixture_is_the_default_density_once_it_is_fitted():
    generator, _ = linear_generator()
    codes = torch.randn(200, 3)
    with pytest.raises(UsageError, match="not fitted"):
        generator.density()
    first = generator.fit("gmm", codes=codes, components=2)
    generator.fit("gaussian", codes=codes)
    assert generator.density() is first
    with pytest.raises(UsageError, match="density 'kde' is not fitted \\(fitted: gmm, gaussian\\)"):
        generator.density("kde")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda g: g.fit("gmm"), "exactly one"),
        (lambda g: g.fit("gm", codes=torch.randn(9, 3)), "unknown density 'gm'"),
        (lambda g: g.fit("gmm", codes=torch.randn(9, 3), k=3), "has no option 'k'"),
        (lambda g: g.sample(0), "at least 1 sample"),
        (lambda g: g.encode(torch.empty(0, 6)), "no examples"),
        (lambda g: g.interpolate(torch.rand(2, 6), torch.rand(2, 6), 0.5, "cubic"), "unknown interpolation"),
    ],
)
def test_wrong_calls_say_what_to_do(call, message):
    with pytest.raises(UsageError, match=message):
        call(linear_generator()[0])


@pytest.mark.parametrize("method", INTERPOLATIONS)
def test_paths_begin_and_end_at_their_codes(method):
    torch.manual_seed(0)
    a, b = torch.randn(5, 4), torch.randn(5, 4)
    path = INTERPOLATIONS[method]
    torch.testing.assert_close(path(a, b, torch.tensor(0.0)), a, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(path(a, b, torch.tensor(1.0)), b, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(path(a, b, torch.tensor(0.3)), path(b, a, torch.tensor(0.7)), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(path(a, a, torch.tensor(0.5)), a, atol=1e-5, rtol=1e-5)


def test_midpoints_have_their_closed_forms():
    a, b = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    half = torch.tensor(0.5)
    root = math.sqrt(2)
    torch.testing.assert_close(INTERPOLATIONS["linear"](a, b, half), torch.tensor([[1.0, 1.0]]))
    torch.testing.assert_close(INTERPOLATIONS["linear-rescaled"](a, b, half), torch.tensor([[root, root]]))
    torch.testing.assert_close(INTERPOLATIONS["spherical"](a, b, half), torch.tensor([[root, root]]))
    third = INTERPOLATIONS["spherical"](a, b, torch.tensor(1 / 3))
    torch.testing.assert_close(third, 2 * torch.tensor([[math.cos(math.pi / 6), math.sin(math.pi / 6)]]))


@pytest.mark.parametrize("method", INTERPOLATIONS)
def test_opposite_and_zero_codes_stay_finite(method):
    a = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    b = torch.tensor([[-1.0, 0.0], [0.0, 0.0], [1.0, 1.0]])
    assert INTERPOLATIONS[method](a, b, torch.tensor(0.5)).isfinite().all()


def test_interpolation_decodes_every_position_of_every_pair():
    generator, basis = linear_generator()
    a, b = torch.randn(4, 3) @ basis.t(), torch.randn(4, 3) @ basis.t()
    middle = generator.interpolate(a, b)
    torch.testing.assert_close(middle, (a + b) / 2, atol=1e-5, rtol=1e-5)
    path = generator.interpolate(a, b, torch.linspace(0, 1, 5))
    assert path.shape == (4, 5, 6)
    torch.testing.assert_close(path[:, 1], 0.75 * a + 0.25 * b, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("density", DENSITIES)
def test_every_density_samples_through_a_trained_shape(density):
    of_symbols = DENSITIES[density].of_symbols
    sizes = {"width": 2} if of_symbols else {"width": 2, "latent_dim": 3}
    model = build(configure("vq-vae" if of_symbols else "rae", (1, 28, 28), "small", sizes)[0])
    generator = Generator.of(model)
    quick = {"second-stage-vae": {"epochs": 2, "width": 16}, "flow": {"steps": 5}, "flow-matching": {"steps": 5}}
    quick["autoregressive"] = {"steps": 5, "width": 8}
    options: dict[str, Any] = quick.get(density, {})
    generator.fit(density, torch.randint(0, 256, (60, 1, 28, 28), dtype=torch.uint8), **options)
    samples = generator.sample(7, density, seed=0)
    assert samples.shape == (7, 1, 28, 28)
    assert np.isfinite(samples.numpy()).all()
    assert 0 <= samples.min() <= samples.max() <= 1


def test_models_of_any_library_can_be_wrapped():
    encoder, decoder = nn.Linear(10, 2), nn.Linear(2, 10)
    generator = Generator(encoder, decoder)
    generator.fit("kde", torch.randn(50, 10))
    assert generator.sample(3).shape == (3, 10)


def spread(n, seed, shift):
    return torch.randn(n, 6, generator=torch.Generator().manual_seed(seed)) * torch.arange(1, 7) + shift


def test_scores_compare_with_the_test_split_and_nothing_else():
    """A linear autoencoder over known Gaussians; every column is computed again by hand."""
    generator, basis = linear_generator()
    data = Data("known", Split(spread(400, 0, 0.0)), Split(spread(50, 1, 9.0)), Split(spread(300, 2, 2.0)))
    generator.fit("gaussian", data.train.x)
    subjects, protocol = ("reconstruction", "gaussian", "interpolation"), Protocol(("frechet",), samples=200)
    found = evaluate_generator(generator, data, pick_space("auto", data), subjects, protocol)
    scores = {(s.name, s.of): s.value for s in found}
    mean, std = data.train.x.double().mean(0), data.train.x.double().std(0)

    def distance(x):
        a, b = ((v.double() - mean) / std for v in (x, data.test.x))
        cov = [torch.cov(v.T).numpy() for v in (a, b)]
        root = scipy.linalg.sqrtm(cov[0] @ cov[1]).real
        gap = (a.mean(0) - b.mean(0)).square().sum().item()
        return gap + np.trace(cov[0] + cov[1] - 2 * root)

    # 200 of the 300 test examples, drawn and not the first: files are often in order
    x = chosen_examples(data.test.x, protocol)
    assert len(x) == 200
    assert len({tuple(row) for row in x.tolist()} & {tuple(row) for row in data.test.x.tolist()}) == 200
    assert not torch.equal(x, data.test.x[:200])
    projected = x @ basis @ basis.t()
    assert scores["frechet-values", "reconstruction"] == pytest.approx(distance(projected), rel=1e-4)
    assert scores["mse", "reconstruction"] == pytest.approx((x - projected).square().mean().item(), rel=1e-5)
    order = torch.randperm(200, generator=seeded(0, PAIRS))
    middle = (projected[order] + projected[order].roll(1, 0)) / 2
    assert scores["frechet-values", "interpolation"] == pytest.approx(distance(middle), rel=1e-4)
    drawn = generator.sample(200, "gaussian", stream_seed(0, SAMPLES))
    assert scores["frechet-values", "gaussian"] == pytest.approx(distance(drawn), rel=1e-4)


def test_reconstructions_are_drawn_below_their_images():
    images = torch.randint(0, 256, (15, 1, 8, 8), dtype=torch.uint8)
    sheet = np.asarray(pairs(images, images.float() / 255, 10).convert("L"))
    side = 8 * 8 + 2  # every pixel eight times, and the gap
    for index in range(15):
        row, column = 2 * (index // 10), index % 10
        for below in (0, 1):
            top, left = (row + below) * side, column * side
            tile = sheet[top : top + 64 : 8, left : left + 64 : 8]
            assert np.array_equal(tile, images[index, 0].numpy())
    assert (sheet[2 * side : 2 * side + 64, 5 * side : 5 * side + 64] == 255).all()  # blank where there is no image


def test_numpy_arrays_will_do():
    generator, basis = linear_generator()
    plain = Generator(lambda x: (x @ basis).numpy(), lambda z: (z @ basis.t()).numpy())
    x = torch.randn(50, 6)
    torch.testing.assert_close(plain.encode(x.numpy()), generator.encode(x))
    plain.fit("gaussian", x.numpy())
    generator.fit("gaussian", x)
    torch.testing.assert_close(plain.sample(5, seed=0), generator.sample(5, seed=0))


def test_the_temperature_of_codes_scales_their_spread_and_none_is_the_center():
    generator, basis = linear_generator()
    codes = torch.randn(500, 3, generator=torch.Generator().manual_seed(1)) * torch.tensor([1.0, 2.0, 3.0]) + 5
    generator.fit("gaussian", codes=codes)
    generator.fit_by_label("gaussian", torch.arange(500) % 2, codes)
    for label in (None, 1):
        drawn = {
            t: generator.draw(4_000, "gaussian", label, torch.Generator().manual_seed(0), t) for t in (0.0, 0.25, 1.0)
        }
        center = drawn[0.0].mean(0)
        torch.testing.assert_close(drawn[0.0], center.expand_as(drawn[0.0]), atol=1e-5, rtol=0)
        torch.testing.assert_close(drawn[0.25] - center, 0.5 * (drawn[1.0] - center), atol=1e-4, rtol=1e-4)
    cold = generator.sample(3, "gaussian", seed=0, code_temperature=0.0)
    torch.testing.assert_close(cold, (codes.mean(0) @ basis.t()).expand_as(cold), atol=1e-3, rtol=0)
    with pytest.raises(UsageError, match="temperature"):
        generator.sample(3, "gaussian", code_temperature=-1.0)


@pytest.mark.parametrize("name", ["vq-vae", "fsq-vae"])
def test_symbols_are_codes_like_others(name):
    model = build(configure(name, (1, 28, 28), "small", {"width": 2})[0])
    generator = Generator.of(model)
    x = torch.rand(6, 1, 28, 28)
    z = generator.encode(x)
    assert z.shape == (6, 7, 7)
    assert torch.equal(z, z.round())
    assert 0 <= z.min() <= z.max() < generator.quantizer.symbols
    reconstructed = generator.reconstruct(x)
    torch.testing.assert_close(generator.decode(z), reconstructed)
    torch.testing.assert_close(model(x).detach(), reconstructed)
    points = generator.points(z)
    assert points.shape == (6, {"vq-vae": 16, "fsq-vae": 4}[name], 7, 7)
    assert torch.equal(generator.codes_at(points), z)
    torch.testing.assert_close(generator.decode(points), reconstructed)
    path = generator.interpolate(x[:2], x[2:4], torch.tensor([0.0, 0.4, 1.0]))
    torch.testing.assert_close(path[:, 0], reconstructed[:2])
    torch.testing.assert_close(path[:, 2], reconstructed[2:4])
    nearest = generator.codes_at(0.6 * points[:2] + 0.4 * points[2:4])
    torch.testing.assert_close(path[:, 1], generator.decode(nearest))
    fitted = generator.fit("categorical", codes=z)
    assert fitted.options["symbols"] == generator.quantizer.symbols
    assert generator.draw(5).shape == (5, 7, 7)


def test_densities_of_numbers_and_of_symbols_are_told_apart():
    symbols = Generator.of(build(configure("fsq-vae", (1, 28, 28), "small", {"width": 2})[0]))
    vectors = Generator.of(build(configure("rae", (1, 28, 28), "small", {"width": 2})[0]))
    with pytest.raises(UsageError, match="'gmm' does not suit.*codes are symbols.*one of: categorical, autoregressive"):
        symbols.fit("gmm", torch.rand(6, 1, 28, 28))
    with pytest.raises(UsageError, match="'autoregressive' does not suit.*codes are numbers.*gaussian, gmm"):
        vectors.fit("autoregressive", torch.rand(6, 1, 28, 28))
    x = torch.rand(40, 1, 28, 28)
    labels = torch.arange(40) % 2
    fitted = symbols.fit_by_label("categorical", labels, symbols.encode(x))
    assert isinstance(fitted, Categorical)  # takes labels itself
    assert symbols.draw(3, "categorical", 1).shape == (3, 7, 7)
    assert own_densities(configure("fsq-vae", (1, 28, 28))[0]) == ("autoregressive",)
    early = replace(configure("vq-vae", (1, 28, 28))[0], prior=None)  # as runs of early versions say
    assert own_densities(early) == ("autoregressive",)
    assert own_densities(configure("rae", (1, 28, 28))[0]) == ("gaussian", "gmm")
