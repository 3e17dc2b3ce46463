"""Other people's autoencoders: real classes of diffusers, Pythae and transformers, small and with random weights."""

import sys

import numpy as np
import pytest
import torch
from torch import nn

from expost.errors import DataError, UsageError
from expost.generators.foreign import Adapter, from_diffusers, from_pythae, wrap

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
    torch.testing.assert_close(generator.encode(x), latents.flatten(1), rtol=1e-4, atol=1e-4)
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
        assert float(samples.min()) >= 0
        assert float(samples.max()) <= 1
        codes = generator.densities[name].sample(7, generator=seeded(1))
        torch.testing.assert_close(samples, generator.decode(codes))
        drawn = generator.densities[name].sample(20_000, generator=seeded(1))
        torch.testing.assert_close(drawn.mean(0), generator.encode(x).mean(0), atol=0.05, rtol=0)


def test_the_images_may_have_two_sides_and_must_have_the_size_asked_for(vae):
    generator = from_diffusers(vae, size=(16, 8))
    assert generator.encode(images()[:, :, :, :8]).shape == (6, 2 * 8 * 4)
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


def test_codes_are_flattened_in_the_order_in_which_they_are_put_back():
    adapter = Adapter(lambda x: x, lambda z: z, (), code_shape=(2, 3, 4))
    x = torch.arange(48.0).reshape(2, 2, 3, 4)
    assert torch.equal(adapter.encode(x), torch.arange(48.0).reshape(2, 24))
    assert torch.equal(adapter.decode(adapter.encode(x)), x)


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
    with pytest.raises(UsageError, match=r"codes have shape \(5,\), this model's \(4,\)"):
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
    codes = torch.randn(30, 4096, generator=seeded())
    with pytest.raises(DataError, match=rf"use density reduced \(base={name}\), covariance=diag"):
        generator.fit(name, codes=codes)
    density = generator.fit("reduced", codes=codes, base=name, base_options={"components": 2}, rank=3)
    assert density.sample(2).shape == (2, 4096)
