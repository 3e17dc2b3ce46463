"""Other people's autoencoders: real classes of diffusers, Pythae and transformers, small and with random weights."""

import sys

import numpy as np
import pytest
import torch
from torch import nn

from expost.densities import TractableDensity, load_density
from expost.errors import DataError, UsageError
from expost.evaluation.evaluate import evaluate_generator
from expost.evaluation.protocol import Protocol
from expost.generators.foreign import (
    Adapter,
    from_diffusers,
    from_pythae,
    load_decoder,
    save_decoder,
    train_decoder,
    wrap,
)
from expost.metrics import FEATURES
from expost.networks.features import FeatureDecoder
from expost.types import Data, Split
from expost.utils.store import read_tensors, write_tensors

pytestmark = pytest.mark.usefixtures("one_thread")

_OPERATORS = []


@pytest.fixture(scope="module", autouse=True)
def _torchvision_or_none():
    """Let packages import torchvision beside a CPU build of torch, where its compiled operators are missing."""
    try:
        import torchvision  # noqa: F401
    except ImportError:
        return
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        library = torch.library.Library("torchvision", "FRAGMENT")  # declared, never called
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _OPERATORS.append(library)  # the declarations live as long as this does
        for module in [each for each in sys.modules if each.partition(".")[0] == "torchvision"]:
            del sys.modules[module]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def images(n=6, size=16, channels=3):
    return torch.randint(0, 256, (n, channels, size, size), dtype=torch.uint8, generator=seeded())


@pytest.fixture(scope="module")
def vae():
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    return diffusers.AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        latent_channels=2,
        norm_num_groups=4,
        sample_size=16,
    )


# --------------------------------------------------------------------------------------------------------- diffusers


def test_a_diffusers_autoencoder_keeps_its_own_values(vae):
    generator = from_diffusers(vae, size=16, batch_size=4)
    x = images()
    with torch.no_grad():
        latents = vae.encode(x.float() / 127.5 - 1).latent_dist.mean
        pixels = (vae.decode(latents).sample / 2 + 0.5).clamp(0, 1)
    assert latents.shape == (6, 2, 8, 8)
    torch.testing.assert_close(generator.encode(x), latents, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(generator.decode(latents), pixels, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(generator.decode(latents.flatten(1)), pixels, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(generator.reconstruct(x), pixels, rtol=1e-4, atol=1e-4)
    assert not any(weight.grad is not None for weight in vae.parameters())


def test_every_density_kind_samples_maps_of_codes(vae):
    generator = from_diffusers(vae, size=16)
    x = images(40)
    generator.fit("reduced", x, rank=5, base="gaussian")
    generator.fit("gmm", x, components=2, covariance="diag")
    for name in ("reduced", "gmm"):
        samples = generator.sample(7, name, seed=1)
        assert samples.shape == (7, 3, 16, 16)
        assert generator.densities[name].shape == (2, 8, 8)
        assert float(samples.min()) >= 0
        assert float(samples.max()) <= 1
        codes = generator.densities[name].sample(7, generator=seeded(1))
        torch.testing.assert_close(samples, generator.decode(codes))
        drawn = generator.densities[name].sample(20_000, generator=seeded(1))
        torch.testing.assert_close(drawn.mean(0), generator.encode(x).mean(0), atol=0.05, rtol=0)


def test_the_images_may_have_two_sides_and_must_have_the_size_asked_for(vae):
    generator = from_diffusers(vae, size=(16, 8))
    assert generator.encode(images()[:, :, :, :8]).shape == (6, 2, 8, 4)
    with pytest.raises(UsageError, match=r"codes have shape \(2, 8, 8\), not \(2, 8, 4\)"):
        generator.encode(images())
    with pytest.raises(UsageError, match="does not take images of 0x0 pixels"):
        from_diffusers(vae, size=0)


def test_a_model_in_half_precision_gets_and_gives_what_it_can(vae):
    import copy

    half = from_diffusers(copy.deepcopy(vae).to(torch.bfloat16), size=16)
    full = from_diffusers(vae, size=16)
    x = images()
    assert half.encode(x).dtype == torch.float32
    torch.testing.assert_close(half.encode(x), full.encode(x), rtol=0.1, atol=0.1)
    torch.testing.assert_close(half.reconstruct(x), full.reconstruct(x), rtol=0.1, atol=0.1)


# ------------------------------------------------------------------------------------------------------------ Pythae


@pytest.mark.parametrize("kind", ["AE", "VAE"])
def test_a_pythae_model_is_sampled_through_its_encoder_and_decoder(kind):
    models = pytest.importorskip("pythae.models")
    torch.manual_seed(0)
    config = getattr(models, f"{kind}Config")(input_dim=(1, 8, 8), latent_dim=3)
    model = getattr(models, kind)(config)
    generator = from_pythae(model, batch_size=7)
    x = images(30, 8, 1)
    with torch.no_grad():
        embedding = model.encoder(x / 255).embedding
        reconstruction = model.decoder(embedding)["reconstruction"]
    torch.testing.assert_close(generator.encode(x), embedding)
    torch.testing.assert_close(generator.reconstruct(x), reconstruction)
    density = generator.fit("gaussian", x)
    torch.testing.assert_close(density.tensors["mean"].float(), embedding.mean(0))
    samples = generator.sample(4, seed=0)
    with torch.no_grad():
        expected = model.decoder(density.sample(4, generator=seeded(0))).reconstruction
    torch.testing.assert_close(samples, expected)


# ------------------------------------------------------------------------------------------------------ transformers


def test_a_transformers_encoder_with_a_decoder_of_ones_own():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=16,
        patch_size=8,
        hidden_dropout_prob=0.5,
    )
    vit = transformers.ViTModel(config).train()
    decoder = nn.Sequential(nn.Linear(16, 3 * 16 * 16), nn.Unflatten(1, (3, 16, 16)), nn.Tanh())
    generator = wrap(lambda x: vit(pixel_values=x).pooler_output, decoder, vit, decoder, code_shape=16, pixels=(-1, 1))
    x = images(30)
    codes = generator.encode(x)
    assert torch.equal(codes, generator.encode(x)), "dropout is on"
    with torch.no_grad():
        torch.testing.assert_close(codes, vit.eval()(pixel_values=x / 127.5 - 1).pooler_output, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(generator.decode(codes), decoder(codes) / 2 + 0.5, rtol=1e-4, atol=1e-5)
    generator.fit("gmm", x, components=2)
    assert generator.sample(4).shape == (4, 3, 16, 16)


# ------------------------------------------------------------------------------------------------ any pair of functions


def test_evaluation_mode_holds_even_if_somebody_trains_on():
    network = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5))
    generator = wrap(network, network, network, code_shape=4)
    x = torch.randn(8, 4)
    first = generator.encode(x)
    network.train()
    assert torch.equal(generator.encode(x), first)
    assert torch.equal(generator.decode(x), first)
    assert not network.training


def test_codes_keep_their_shape_and_flattened_ones_are_decoded_too():
    adapter = Adapter(lambda x: x, lambda z: z, (), code_shape=(2, 3, 4))
    x = torch.arange(48.0).reshape(2, 2, 3, 4)
    assert torch.equal(adapter.encode(x), x)
    assert torch.equal(adapter.decode(x), x)
    assert torch.equal(adapter.decode(torch.arange(48.0).reshape(2, 24)), x)


def test_pixels_are_mapped_there_and_back_and_cut():
    seen = []

    def encode(x):
        seen.append(x)
        return x

    adapter = Adapter(encode, lambda z: z, (), code_shape=(1, 1, 2), pixels=(-1, 1))
    adapter.encode(torch.tensor([[[[0.0, 1.0]]]]))
    assert seen[0].flatten().tolist() == [-1.0, 1.0]
    assert adapter.decode(torch.tensor([[0.0, 3.0]])).flatten().tolist() == [0.5, 1.0]


def test_numpy_arrays_will_do():
    generator = wrap(lambda x: x, lambda z: z, code_shape=3)
    np.testing.assert_allclose(generator.encode(np.ones((2, 3))), 1.0)


class Output(dict):
    pass


@pytest.mark.parametrize(
    ("encode", "message"),
    [
        (lambda x: Output(z=x), "encode returned Output; return the tensor in it"),
        (lambda x: x.sum(), r"returned shape \(\) for 5 examples"),
        (lambda x: x[:2], r"returned shape \(2, 3\) for 5 examples"),
        (lambda x: x[:, :2], r"codes have shape \(2,\), not \(3,\)"),
    ],
)
def test_functions_that_return_something_else_are_told_what_to_return(encode, message):
    with pytest.raises(UsageError, match=message):
        wrap(encode, lambda z: z, code_shape=3).encode(torch.ones(5, 3))


def test_codes_of_another_model_are_refused():
    generator = wrap(lambda x: x, lambda z: z, code_shape=(1, 2, 2))
    with pytest.raises(UsageError, match=r"codes have shape \(5,\), this model's \(1, 2, 2\)"):
        generator.decode(torch.ones(2, 5))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"code_shape": 0}, "code_shape=0"),
        ({"code_shape": ()}, "code_shape"),
        ({"code_shape": (4, -1, 2)}, "code_shape"),
        ({"code_shape": 2, "pixels": (1, -1)}, "pixels"),
        ({"code_shape": 2, "pixels": (0, float("inf"))}, "pixels"),
        ({"code_shape": 2, "batch_size": 0}, "batch_size=0"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        wrap(lambda x: x, lambda z: z, **options)


@pytest.mark.parametrize("name", ["gmm", "bayesian-gmm"])
def test_full_covariances_of_thousands_of_dimensions_are_refused_with_the_remedy(name):
    generator = wrap(lambda x: x, lambda z: z, code_shape=(4, 32, 32))
    codes = torch.randn(30, 4, 32, 32, generator=seeded())
    with pytest.raises(DataError, match=rf"use density reduced \(base={name}\), covariance=diag"):
        generator.fit(name, codes=codes)
    density = generator.fit("reduced", codes=codes, base=name, base_options={"components": 2}, rank=3)
    assert density.sample(2).shape == (2, 4, 32, 32)


# ------------------------------------------------------------------------------- a generative model of latent maps


def test_a_diffusers_autoencoder_and_flow_matching_are_a_generative_model(vae, tmp_path):
    x, held_out = images(60), images(75)[60:]
    generator = from_diffusers(vae, size=16)
    density = generator.fit("flow-matching", x, width=8, steps=20, ode_steps=2, probes=2)
    assert isinstance(density, TractableDensity)
    samples = generator.sample(5, seed=0)
    assert samples.shape == (5, 3, 16, 16)
    assert density.log_prob(generator.encode(held_out)).isfinite().all()
    generator.densities["flow-matching"] = load_density(density.save(tmp_path))
    assert torch.equal(generator.sample(5, seed=0), samples)
    middle = generator.interpolate(x[:2], x[2:4], 0.5, "spherical")
    assert middle.shape == (2, 3, 16, 16)
    data = Data("mine", Split(x, None), Split(held_out, None), Split(held_out, None))
    protocol = Protocol(measures=("kid", "latent"))
    scores = evaluate_generator(
        generator, data, FEATURES["pixels"].load(torch.device("cpu")), ["flow-matching"], protocol
    )
    found = {score.name: score for score in scores}
    expected = density.log_prob(generator.encode(held_out)).mean().item()
    assert found["log-likelihood"].value == pytest.approx(expected)
    assert found["log-likelihood"].card.density["name"] == "flow-matching"


def timm_features():
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    net = timm.create_model("resnet18", pretrained=False, features_only=True, out_indices=(1,))
    return net, lambda x: net(x)[0]


def vit_tokens():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    vit = transformers.ViTModel(transformers.ViTConfig(**sizes, image_size=16, patch_size=4))
    return vit, lambda x: vit(pixel_values=x).last_hidden_state[:, 1:].mT.unflatten(2, (4, 4))


# ---------------------------------------------------------------------------------- an encoder that has no decoder yet


def bars(n=90, size=16, seed=0):
    """Images of one bright column and one bright row, uint8: three numbers say all of an image."""
    generator = seeded(seed)
    x = torch.zeros(n, 3, size, size)
    rows, columns = (torch.randint(size // 4, (n,), generator=generator) * 4 for _ in range(2))
    for i in range(n):
        x[i, 0, rows[i] : rows[i] + 4] = 1.0
        x[i, 1:, :, columns[i] : columns[i] + 4] = 0.8
    return (255 * x).round().to(torch.uint8)


@pytest.mark.parametrize("frozen", [timm_features, vit_tokens])
def test_a_frozen_encoder_and_a_trained_decoder_are_a_generative_model(frozen, tmp_path):
    net, encode = frozen()
    before = {name: weight.clone() for name, weight in net.state_dict().items()}
    x = bars()
    state = torch.get_rng_state()
    decoder = train_decoder(encode, x, net, pixels=(-1, 1), width=8, epochs=8, lr=5e-3, batch_size=16)
    assert torch.equal(state, torch.get_rng_state())
    assert not decoder.training
    assert all(torch.equal(weight, before[name]) for name, weight in net.state_dict().items()), "it is not frozen"
    assert all(weight.grad is None for weight in net.parameters())
    generator = wrap(encode, decoder, net, decoder, code_shape=decoder.code_shape, pixels=(-1, 1))
    error = (generator.reconstruct(x) - x / 255).square().mean()
    assert error < 0.6 * (x / 255).var(0, correction=0).mean()
    generator.fit("flow-matching", x, width=8, steps=5, ode_steps=2)
    samples = generator.sample(4, seed=0)
    assert samples.shape == (4, 3, 16, 16)
    assert samples.amin() >= 0
    assert samples.amax() <= 1
    loaded = load_decoder(save_decoder(decoder, tmp_path / "decoder.safetensors"))
    codes = generator.encode(x)
    assert torch.equal(loaded(codes), decoder(codes))
    assert not loaded.training


def linear(n=300, d=6, seed=0):
    basis = torch.linalg.qr(torch.randn(8, d, generator=seeded()))[0]
    return basis, torch.randn(n, d, generator=seeded(seed)) @ basis.T


def test_the_decoder_learns_the_inverse_and_keeps_the_best_epoch(capsys):
    basis, x = linear(n=2_000)
    network = nn.Linear(6, 8)
    assert train_decoder(lambda x: x @ basis, x, decoder=network, epochs=30, lr=2e-2) is network
    torch.testing.assert_close(network.weight, basis, atol=0.02, rtol=0)  # the least squares of z -> B z
    assert "of 30 is kept: mean squared error of held-out examples" in capsys.readouterr().err
    fresh = linear(seed=5)[1]
    torch.testing.assert_close(network(fresh @ basis), fresh, atol=0.1, rtol=0)


class Worsening(nn.Linear):
    """Adds to its output what grows with every step of training, as overfitting does."""

    steps: torch.Tensor

    def __init__(self):
        super().__init__(6, 8)
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, z):
        if self.training:
            self.steps += 1
        return super().forward(z) + self.steps**2


def test_the_weights_of_the_epoch_that_held_out_examples_like_best_are_kept():
    basis, x = linear(n=60)
    decoder = train_decoder(lambda x: x @ basis, x, decoder=Worsening(), epochs=3, batch_size=9)
    assert decoder.steps == 6  # those of the first epoch: 54 examples, 9 a step


def test_noise_on_codes_shrinks_a_linear_decoder_as_a_ridge_does():
    """Least squares with noise of variance v on codes of variance 1 has the weights B / (1 + v)."""
    basis, x = linear(n=4_000)
    network = nn.Linear(6, 8)
    train_decoder(lambda x: x @ basis, x, decoder=network, epochs=15, lr=2e-2, noise=1.0)
    torch.testing.assert_close(network.weight, basis / 2, atol=0.05, rtol=0)


def test_the_weights_follow_from_the_seed():
    basis, x = linear(n=100)

    def trained(seed, **options):
        return train_decoder(lambda x: x @ basis, x, width=4, epochs=2, seed=seed, noise=0.1, **options)(x @ basis)

    torch.manual_seed(1)
    first = trained(0)
    torch.manual_seed(2)
    assert torch.equal(trained(0), first)
    assert not torch.equal(trained(1), first)
    assert not torch.equal(trained(0, weight_decay=0.5), first)


@pytest.mark.parametrize("code_shape", [(5,), (5, 7), (5, 3, 4), (2, 20, 20)])
@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 30, 17), (1, 1, 1), (9,)])
def test_codes_of_any_shape_are_decoded_to_examples_of_any_shape(code_shape, shape):
    decoder = FeatureDecoder(code_shape, shape, width=4, pixels=(-1, 1))
    z = torch.randn(2, *code_shape, generator=seeded())
    output = decoder(z)
    assert output.shape == (2, *shape)
    torch.testing.assert_close(decoder(z[1:]), output[1:], rtol=1e-4, atol=1e-5)
    assert len(shape) == 1 or float(output.detach().abs().max()) <= 1
    output.sum().backward()
    assert all(weight.grad is not None for weight in decoder.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs=0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"lr": float("nan")}, "lr=nan"),
        ({"noise": -1.0}, "noise=-1.0"),
        ({"weight_decay": -1.0}, "weight_decay=-1.0"),
        ({"seed": -1}, "seed=-1"),
        ({"width": 0}, "width=0"),
        ({"decoder": nn.Linear(6, 7)}, r"the decoder gives shape \(7,\) for examples \(8,\)"),
    ],
)
def test_options_that_train_no_decoder_are_refused(options, message):
    basis, x = linear(n=20)
    with pytest.raises(UsageError, match=message):
        train_decoder(lambda x: x @ basis, x, **options)


def test_codes_that_train_no_decoder_are_refused():
    _, x = linear(n=20)
    with pytest.raises(UsageError, match="encode returned Output; return the tensor in it"):
        train_decoder(lambda x: Output(z=x), x)  # type: ignore[return-value]
    with pytest.raises(UsageError, match=r"codes have shape \(\); return vectors"):
        train_decoder(lambda x: x.sum(1), x)
    with pytest.raises(DataError, match="NaN or infinity, first for example 0"):
        train_decoder(lambda x: x / 0, x)
    with pytest.raises(DataError, match=r"1 example\(s\) are too few"):
        train_decoder(lambda x: x, x[:1])
    with pytest.raises(DataError, match="the decoder's loss is (nan|inf) at step .* lower lr"):
        train_decoder(lambda x: x, x, lr=1e30, epochs=9)


def test_files_that_hold_no_decoder_are_refused(tmp_path):
    path = save_decoder(FeatureDecoder((3,), (1, 4, 4), width=2), tmp_path / "a.safetensors")
    tensors, record = read_tensors(path)
    changes: list[tuple[dict[str, object], str]] = [
        ({"format": "expost-density"}, "holds no decoder"),
        ({"version": 2}, "format version 2, not 1"),
        ({"width": 4}, "the weights are not those of its record"),
        ({"width": 2**40}, "incomplete record"),
        ({"width": True}, "incomplete record"),
        ({"code_shape": "3"}, "incomplete record"),
        ({"code_shape": [3, 1, 1, 1]}, "describes no decoder"),
        ({"shape": []}, "incomplete record"),
        ({"pixels": [0]}, "incomplete record"),
    ]
    for change, message in changes:
        write_tensors(path, tensors, record | change)
        with pytest.raises(DataError, match=message) as caught:
            load_decoder(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="no file"):
        load_decoder(tmp_path / "b.safetensors")
    with pytest.raises(UsageError, match="Linear is no decoder of train_decoder's"):
        save_decoder(nn.Linear(2, 2), path)
