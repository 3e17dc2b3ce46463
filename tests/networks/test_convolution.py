"""Convolutions for training: torch's values, and derivatives of both orders."""

import copy

import pytest
import torch
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch.nn import functional

from expost.models.regularizers import GradientPenalty
from expost.networks import convolution
from expost.networks.layers import SameConv2d, SameConvTranspose2d
from expost.types import LatentCode

GEOMETRIES = [(4, 2, 1, 6), (4, 2, 1, 7), (5, 2, 2, 7), (5, 2, 2, 8), (4, 1, 1, 5), (3, 2, 0, 8), (1, 1, 0, 4)]


def made(seed, *shapes, dtype=torch.float64):
    draw = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=draw, dtype=torch.float64).to(dtype).requires_grad_() for shape in shapes]


@pytest.mark.parametrize(("kernel", "stride", "padding", "side"), GEOMETRIES)
def test_convolution_and_its_derivatives_are_right(kernel, stride, padding, side):
    x, weight, bias = made(0, (2, 3, side, side + 1), (2, 3, kernel, kernel), (2,))

    def ours(x, weight, bias):
        return convolution.conv2d(x, weight, bias, stride, padding)

    torch.testing.assert_close(ours(x, weight, bias), functional.conv2d(x, weight, bias, stride, padding))
    assert gradcheck(ours, (x, weight, bias))
    assert gradgradcheck(ours, (x, weight, bias))


@pytest.mark.parametrize(("kernel", "stride", "padding", "side"), GEOMETRIES)
def test_transposed_convolution_and_its_derivatives_are_right(kernel, stride, padding, side):
    side = (side + 1) // 2
    x, weight, bias = made(1, (2, 3, side, side + 1), (3, 2, kernel, kernel), (2,))

    def ours(x, weight, bias):
        return convolution.conv_transpose2d(x, weight, bias, stride, padding)

    torch.testing.assert_close(ours(x, weight, bias), functional.conv_transpose2d(x, weight, bias, stride, padding))
    assert gradcheck(ours, (x, weight, bias))
    assert gradgradcheck(ours, (x, weight, bias))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("kernel", "side"), [(4, 6), (5, 7), (3, 4)])
def test_few_channels_by_a_matrix_product_are_right(channels, kernel, side):
    padding = (kernel - 1) // 2
    many = channels * kernel**2
    x, weight, bias = made(4, (1, many, side, side + 1), (many, channels, kernel, kernel), (channels,))

    def ours(x, weight, bias):
        return convolution.conv_transpose2d(x, weight, bias, 1, padding)

    expected = functional.conv_transpose2d(x, weight, bias, 1, padding)
    torch.testing.assert_close(ours(x, weight, bias), expected)
    torch.testing.assert_close(
        ours(x.to(memory_format=torch.channels_last), weight, None), expected - bias.view(-1, 1, 1)
    )
    assert gradcheck(ours, (x, weight, bias), fast_mode=True)
    assert gradgradcheck(ours, (x, weight, bias), fast_mode=True)


@pytest.mark.parametrize("kind", [SameConv2d, SameConvTranspose2d])
@pytest.mark.parametrize(
    ("kernel", "stride", "channels", "side"), [(4, 2, 6, 6), (5, 2, 6, 7), (4, 1, 1, 8), (5, 1, 3, 7)]
)
def test_layers_give_in_training_what_torch_gives_and_save_the_same_weights(kind, kernel, stride, channels, side):
    torch.manual_seed(0)
    layer = kind(8, channels, kernel, stride).to(memory_format=torch.channels_last)
    with torch.no_grad():
        layer.bias.normal_()
    (x,) = made(2, (5, 8, side, side + 1), dtype=torch.float32)
    inputs = [x, layer.weight, layer.bias]
    slow = layer.eval()(x)
    fast = layer.train()(x)
    assert "torch.nn.functional" not in str(fast.grad_fn)
    found = [[y, *torch.autograd.grad(y.square().sum(), inputs)] for y in (slow, fast)]
    for a, b in zip(*found, strict=True):
        assert a.shape == b.shape
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4 * float(a.detach().abs().max()))
    parent = kind.__mro__[1](8, channels, kernel, stride)
    assert {name: value.shape for name, value in layer.state_dict().items()} == {
        name: value.shape for name, value in parent.state_dict().items()
    }


def test_only_what_is_trained_in_reverse_mode_takes_it():
    x, weight = torch.zeros(1, 3, 4, 4), torch.zeros(3, 2, 4, 4, requires_grad=True)
    assert convolution.trains(x, weight)
    assert not convolution.trains(x, weight.detach())
    assert not convolution.trains(x.to("meta"), weight)
    with torch.no_grad():
        assert not convolution.trains(x, weight)
    with forward_ad.dual_level():
        assert not convolution.trains(x, weight)
    seen = []

    def look(each):
        seen.append(convolution.trains(each, weight))
        return each

    torch.vmap(look)(x[None])
    assert seen == [False]


def test_a_trained_decoder_can_be_mapped_over_and_differentiated_forwards():
    torch.manual_seed(0)
    layer = SameConvTranspose2d(3, 2, 4, 2)
    x = torch.randn(4, 1, 3, 5, 5)
    expected = torch.stack([layer(each) for each in x])
    torch.testing.assert_close(torch.vmap(layer)(x), expected)
    tangent = torch.func.jvp(layer, (x[0],), (x[1],))[1]
    torch.testing.assert_close(tangent, layer(x[1]) - layer.bias.view(-1, 1, 1))


@pytest.mark.parametrize("kind", [SameConv2d, SameConvTranspose2d])
def test_only_the_derivatives_that_are_asked_for_are_computed(kind, monkeypatch):
    layer = kind(4, 3, 4, 2)
    (x,) = made(5, (2, 4, 6, 6), dtype=torch.float32)
    computed = []
    correlate = convolution._correlate

    def counted(*given):
        computed.append(1)
        return correlate(*given)

    monkeypatch.setattr(convolution, "_correlate", counted)
    (first,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
    assert not computed
    by_both = torch.autograd.grad(layer(x).square().sum(), (x, layer.weight), create_graph=True)
    assert len(computed) == 1
    torch.testing.assert_close(first, by_both[0])
    (again,) = torch.autograd.grad(layer(x).square().sum(), layer.weight)
    torch.testing.assert_close(again, by_both[1])
    layer(x).square().sum().backward()
    assert len(computed) == 3
    torch.testing.assert_close(layer.weight.grad, again)
    (second,) = torch.autograd.grad(first.square().sum(), layer.weight)
    slow = layer.eval()(x)
    (reference,) = torch.autograd.grad(slow.square().sum(), x, create_graph=True)
    torch.testing.assert_close(second, torch.autograd.grad(reference.square().sum(), layer.weight)[0])


def relative(found, exact):
    """Return the distance of lists of gradients over all of them, relative to the exact ones."""
    a, b = (torch.cat([each.detach().double().flatten() for each in every]) for every in (found, exact))
    return ((a - b).norm() / b.norm()).item()


@pytest.mark.parametrize("kernel", [4, 5])
@pytest.mark.parametrize("kind", [SameConv2d, SameConvTranspose2d])
@pytest.mark.parametrize("side", [6, 7])
def test_in_bf16_both_ways_are_as_near_to_the_exact_gradients(kind, kernel, side, monkeypatch):
    """How near depends on the processor, on which of them is nearer too."""
    torch.manual_seed(0)
    layer = kind(16, 24, kernel, 2).to(memory_format=torch.channels_last)
    (x,) = made(2, (5, 16, side, side), dtype=torch.float32)
    exact_layer = copy.deepcopy(layer).double()
    exact_x = x.detach().double().requires_grad_()
    exact = torch.autograd.grad(exact_layer(exact_x).square().sum(), [exact_x, exact_layer.weight, exact_layer.bias])
    errors = []
    for fewest in (2**62, 1):
        monkeypatch.setattr(convolution, "FEWEST_PAIRS", fewest)
        with torch.autocast("cpu", torch.bfloat16):
            y = layer(x)
            assert y.dtype == torch.bfloat16
            found = torch.autograd.grad(y.float().square().sum(), [x, layer.weight, layer.bias])
        assert [each.dtype for each in found] == [torch.float32] * 3
        errors.append(max(relative([a], [b]) for a, b in zip(found, exact, strict=True)))
    assert max(errors) < 0.03
    assert errors[1] < 2 * errors[0] + 1e-3


def test_the_weights_gradient_lies_as_the_weights_do(monkeypatch):
    monkeypatch.setattr(convolution, "FEWEST_PAIRS", 1)
    layer = SameConvTranspose2d(8, 6, 4, 2)
    layer.weight.data = layer.weight.data.to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        layer(torch.randn(3, 8, 5, 5)).float().sum().backward()
    assert layer.weight.grad.stride() == layer.weight.stride()


def test_the_gradient_penalty_trains_the_same_weights_either_way(monkeypatch):
    torch.manual_seed(0)
    decoder = torch.nn.Sequential(
        SameConvTranspose2d(12, 10, 4, 2), torch.nn.BatchNorm2d(10), torch.nn.ReLU(), SameConvTranspose2d(10, 4, 4, 2)
    )
    (z,) = made(3, (6, 12, 3, 3), dtype=torch.float32)

    def penalized(network, codes, precise):
        torch.manual_seed(5)  # the same signs
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=not precise):
            GradientPenalty(estimator="reverse").penalty(network, LatentCode(z=codes, mean=codes)).backward()
        return [parameter.grad.clone() for parameter in network.parameters() if parameter.grad is not None]

    exact = penalized(copy.deepcopy(decoder).double(), z.detach().double(), True)
    errors = []
    for fewest in (2**62, 1):
        monkeypatch.setattr(convolution, "FEWEST_PAIRS", fewest)
        found = penalized(decoder, z.detach(), False)
        assert len(found) == len(exact) > 2
        errors.append(relative(found, exact))
    assert max(errors) < 0.1
    assert errors[1] < 2 * errors[0] + 0.01
    assert relative(penalized(decoder, z.detach(), True), exact) < 1e-5
