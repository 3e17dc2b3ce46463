"""Networks: TensorFlow's padding, Keras' initialisation, every size that is promised."""

import itertools
import math
from typing import Any

import pytest
import torch
from scipy.signal import correlate2d
from torch import nn

from expost.errors import UsageError
from expost.models.autoencoder import build
from expost.models.presets import configure
from expost.models.regularizers import GradientPenalty
from expost.networks import NETWORKS
from expost.networks.layers import SameConv2d, SameConvTranspose2d
from expost.networks.residual import Attention, ResidualBlock
from expost.types import LatentCode


def tensorflow_same(image, kernel, stride):
    """TensorFlow's definition: ceil(n / s) outputs, half of the padding (rounded down) before, the rest after."""
    size, k = image.shape[0], kernel.shape[0]
    outputs = math.ceil(size / stride)
    total = max((outputs - 1) * stride + k - size, 0)
    padded = nn.functional.pad(image, (total // 2, total - total // 2) * 2)
    return correlate2d(padded.numpy(), kernel.numpy(), mode="valid")[::stride, ::stride][:outputs, :outputs]


@pytest.mark.parametrize("size", [7, 8, 13, 16])
@pytest.mark.parametrize(("kernel", "stride"), [(4, 2), (5, 2), (4, 1), (5, 1), (3, 2)])
def test_convolutions_are_padded_as_tensorflow_does(size, kernel, stride):
    torch.manual_seed(0)
    layer = SameConv2d(1, 1, kernel, stride, bias=False).double()
    image = torch.randn(size, size, dtype=torch.float64)
    expected = tensorflow_same(image, layer.weight.detach()[0, 0], stride)
    torch.testing.assert_close(layer(image[None, None]).detach()[0, 0], torch.from_numpy(expected.copy()))


@pytest.mark.parametrize("size", [4, 7])
@pytest.mark.parametrize(("kernel", "stride"), [(4, 2), (5, 2), (4, 1), (5, 1), (3, 2)])
def test_transposed_convolutions_are_the_adjoint_of_the_convolution(size, kernel, stride):
    """TensorFlow defines them so: <conv(x), y> = <x, conv_transpose(y)> with the same kernel."""
    torch.manual_seed(0)
    up = SameConvTranspose2d(2, 3, kernel, stride, bias=False).double()
    down = SameConv2d(3, 2, kernel, stride, bias=False).double()
    down.weight.data = up.weight.data
    y = torch.randn(1, 2, size, size, dtype=torch.float64)
    x = torch.randn(1, 3, size * stride, size * stride, dtype=torch.float64)
    assert up(y).shape == x.shape
    assert (down(x) * y).sum().item() == pytest.approx((x * up(y)).sum().item(), rel=1e-10)


def test_initialisation_is_keras_glorot_uniform():
    torch.manual_seed(0)
    layer = SameConvTranspose2d(64, 32, 4, 2)
    limit = math.sqrt(6 / (4 * 4 * (64 + 32)))
    assert layer.weight.abs().max() <= limit
    assert layer.weight.std().item() == pytest.approx(limit / math.sqrt(3), rel=0.02)
    assert layer.bias.abs().max() == 0


def shapes_of(network, kind):
    return [tuple(module.weight.shape) for module in network.modules() if isinstance(module, kind)]


@pytest.mark.parametrize(
    ("shape", "kernel", "latent_dim", "kernels"),
    [((1, 32, 32), 4, 16, 2), ((3, 32, 32), 4, 128, 2), ((3, 64, 64), 5, 64, 3)],
)
def test_the_paper_networks_have_the_published_layers(shape, kernel, latent_dim, kernels):
    config, _ = configure("rae-l2", shape, "paper")
    model = build(config)
    channels = [shape[0], 128, 256, 512, 1024]
    expected = [(out, into, kernel, kernel) for into, out in itertools.pairwise(channels)]
    assert shapes_of(model.encoder, nn.Conv2d) == expected
    channels = [*[1024, 512, 256, 128][: kernels + 1], shape[0]]
    expected = [(into, out, kernel, kernel) for into, out in itertools.pairwise(channels)]
    assert shapes_of(model.decoder, nn.ConvTranspose2d) == expected
    assert shapes_of(model.decoder, nn.Linear) == [(8 * 8 * 1024, latent_dim)]
    strides = [m.stride[0] for m in model.decoder.modules() if isinstance(m, nn.ConvTranspose2d)]
    assert strides == [2] * kernels + [1]


def test_the_celeba_pair_gets_pixels_as_they_are_and_the_others_centered():
    pairs = {}
    for name in ("conv5", "conv5-celeba"):
        torch.manual_seed(0)
        pairs[name] = NETWORKS[name]((3, 64, 64), 8, 4, False)[0].eval()
    x = torch.rand(2, 3, 64, 64)
    assert torch.equal(pairs["conv5"](x), pairs["conv5-celeba"](2 * x - 1))
    assert not torch.equal(pairs["conv5"](x), pairs["conv5-celeba"](x))


@pytest.mark.parametrize("name", ["conv4", "conv5", "conv5-celeba"])
@pytest.mark.parametrize(
    "shape", [(1, 28, 28), (3, 29, 31), (2, 48, 32), (3, 33, 65), (4, 96, 96), (1, 127, 100), (3, 128, 128)]
)
@pytest.mark.parametrize("spatial", [False, True])
def test_images_of_every_promised_size_go_through(name, shape, spatial):
    torch.manual_seed(0)
    encoder, decoder = NETWORKS[name](shape, 5, 4, spatial)
    x = torch.rand(2, *shape)
    features = encoder(x)
    z = torch.randn(2, 5, *features.shape[2:], requires_grad=True)
    y = decoder(z)
    assert y.shape == x.shape
    assert y.dtype == torch.float32
    assert y.min() >= 0
    assert y.max() <= 1
    y.sum().backward()
    assert z.grad.abs().sum() > 0


@pytest.mark.parametrize("shape", [(1, 4, 4), (3, 5, 31), (2, 28, 28), (5, 64, 9), (1, 256, 7), (4, 33, 130)])
@pytest.mark.parametrize("spatial", [False, True])
def test_the_residual_pair_takes_every_promised_size_and_sees_each_example_alone(shape, spatial):
    torch.manual_seed(0)
    encoder, decoder = NETWORKS["residual"](shape, 5, 3, spatial)
    x = torch.rand(2, *shape)
    features = encoder(x)
    torch.testing.assert_close(encoder(x[:1]), features[:1], rtol=1e-4, atol=1e-5)
    z = torch.randn(2, 5, *features.shape[2:], requires_grad=True)
    y = decoder(z)
    assert y.shape == x.shape
    assert y.dtype == torch.float32
    assert 0 <= y.min() < y.max() <= 1
    assert y.detach().flatten(1).std(1).min() > 0.01  # says something at the start
    y[0].sum().backward()
    assert z.grad[0].abs().sum() > 0
    assert z.grad[1].abs().sum() == 0


def test_the_residual_block_and_attention_are_their_formulas():
    torch.manual_seed(0)
    x = torch.randn(2, 8, 3, 5, dtype=torch.float64)
    block: Any = ResidualBlock(8).double()
    attention: Any = Attention(8).double()
    normalize = nn.functional.group_norm

    def half(x, norm, layer):
        h = nn.functional.silu(normalize(x, 8, norm.weight, norm.bias))
        return nn.functional.conv2d(h, layer.weight, layer.bias, padding=1)

    layers = block.layers
    expected = (x + half(half(x, layers[0], layers[2]), layers[3], layers[5])) / math.sqrt(2)
    torch.testing.assert_close(block(x), expected)

    rows = normalize(x, 8, attention.norm.weight, attention.norm.bias).flatten(2).transpose(1, 2)  # (B, positions, C)
    parts = rows @ attention.split.weight[:, :, 0, 0].T + attention.split.bias
    q, k, v = parts.chunk(3, -1)
    mixed = nn.functional.scaled_dot_product_attention(q, k, v)
    mixed = mixed @ attention.join.weight[:, :, 0, 0].T + attention.join.bias
    torch.testing.assert_close(attention(x), (x + mixed.transpose(1, 2).view(x.shape)) / math.sqrt(2))


@pytest.mark.parametrize("estimator", ["reverse", "forward", "exact"])
def test_the_gradient_penalty_of_the_residual_pair_has_the_right_gradient(estimator):
    torch.manual_seed(0)
    decoder: Any = NETWORKS["residual"]((1, 6, 5), 2, 2, False)[1].double()
    decoder.layers[-1].weight.data *= 4
    z = torch.randn(3, 2, dtype=torch.float64)
    penalty = GradientPenalty(estimator=estimator)
    codes = LatentCode(z=z, mean=z)

    def value():
        torch.manual_seed(3)
        return penalty.penalty(decoder, codes, None)

    weight = decoder.layers[1].layers[2].weight
    (found,) = torch.autograd.grad(value(), weight)
    direction = torch.randn_like(weight)
    with torch.no_grad():
        weight += 1e-3 * direction
    above = value().item()
    with torch.no_grad():
        weight -= 2e-3 * direction
    below = value().item()
    assert (found * direction).sum().item() == pytest.approx((above - below) / 2e-3, rel=5e-3)  # images are float32


def test_depth_adds_blocks_on_every_map_and_is_for_the_residual_pair_alone():
    for depth, maps in ((1, 3), (3, 3)):
        encoder, decoder = NETWORKS["residual"]((1, 28, 28), 4, 4, False, depth)
        for network in (encoder, decoder):
            assert sum(isinstance(each, ResidualBlock) for each in network.modules()) == depth * maps
    with pytest.raises(UsageError, match="depth=2 is for network residual"):
        build(configure("rae", (1, 28, 28), "small", {"depth": 2})[0])
    assert build(configure("rae", (1, 28, 28), "small", {"depth": 2, "network": "residual", "width": 4})[0])


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 200, 120), (2, 64, 64)])
def test_the_presets_of_the_residual_pair_take_images_of_any_size(shape):
    for preset, width, depth in (("residual", 32, 1), ("residual-gpu", 96, 2)):
        model, training = configure("rae-l2", shape, preset)
        assert (model.network, model.width, model.depth) == ("residual", width, depth)
        assert "scope" not in model.regularizer.options  # which is about the paper's kernels
        assert (training.schedule, training.clip) == ("cosine", 1.0)
        assert training.ema is not None
    with pytest.raises(UsageError, match="are for images"):
        configure("rae", (9,), "residual")


def test_larger_images_are_told_of_the_network_that_takes_them():
    with pytest.raises(UsageError, match="larger than 128; .* or take --network residual"):
        configure("rae", (3, 200, 200), "small")
    assert configure("rae", (3, 200, 200), "small", {"network": "residual"})[0].width == 32
    with pytest.raises(UsageError, match="larger than 256; bring them to size, e.g. --size 64$"):
        configure("rae", (3, 300, 200), "small", {"network": "residual"})


def test_the_vector_pair_bounds_images_only():
    torch.manual_seed(0)
    _, image = NETWORKS["mlp"]((1, 8, 8), 4, 32, False)
    _, table = NETWORKS["mlp"]((10,), 4, 32, False)
    z = torch.randn(50, 4) * 100
    assert image(z).shape == (50, 1, 8, 8)
    assert 0 <= image(z).min() <= image(z).max() <= 1
    assert table(z).min() < -1


@pytest.mark.parametrize(
    ("shape", "changes", "message"),
    [
        ((3, 20, 32), {"network": "conv4"}, "image sides of 28 to 128, got 20x32"),
        ((3, 32, 200), {"network": "conv4"}, "32x200"),
        ((10,), {"network": "conv5"}, "use network mlp"),
        ((10,), {"latent_dim": 11}, "more than the 10 numbers"),
        ((1, 32, 32), {"network": "resnet"}, "choose one of: conv4, conv5, conv5-celeba, residual, mlp"),
        ((1, 32, 32), {"network": "residual", "depth": 0}, "at least 1"),
        ((1, 32, 32), {"network": "residual", "depth": 10**9}, "at most 64"),
        ((3, 3, 32), {"network": "residual"}, "image sides of 4 to 256, got 3x32"),
        ((1, 32, 32), {"latent_dim": 0}, "at least 1"),
        ((1, 32, 32), {"width": -3}, "at least 1"),
        ((1, 32, 32), {"beta": -1.0}, "at least 0"),
        ((1, 32, 32), {"beta": float("nan")}, "at least 0"),
    ],
)
def test_what_cannot_work_is_refused_when_the_model_is_built(shape, changes, message):
    with pytest.raises(UsageError, match=message):
        build(configure("rae", shape, "small", changes)[0])


def test_own_networks_are_checked_against_the_data():
    config, _ = configure("rae", (10,), "small", {"latent_dim": 3})
    encoder, decoder = nn.Linear(10, 7), nn.Linear(3, 10)
    model = build(config, (encoder, decoder))
    assert model(torch.randn(4, 10)).shape == (4, 10)
    with pytest.raises(UsageError, match="the decoder gives shape \\(9,\\)"):
        build(config, (encoder, nn.Linear(3, 9)))
    with pytest.raises(UsageError, match="the encoder does not accept shape"):
        build(config, (nn.Linear(11, 7), decoder))


def test_building_leaves_own_networks_as_they_were():
    config, _ = configure("ae", (10,), "small", {"latent_dim": 3})
    encoder = nn.Sequential(nn.Linear(10, 7), nn.BatchNorm1d(7))
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    build(config, (encoder, nn.Linear(3, 10)))
    assert encoder.training
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
