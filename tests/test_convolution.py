"""Convolutions with the weights' gradient by matrix products: torch's values, and derivatives of both orders."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional

from expost.networks import convolution
from expost.networks.layers import SameConv2d, SameConvTranspose2d
from expost.regularizers import GradientPenalty
from expost.types import LatentCode

GEOMETRIES = [(4, 2, 1, 6), (4, 2, 1, 7), (5, 2, 2, 7), (5, 2, 2, 8), (4, 1, 1, 5), (3, 2, 0, 8), (1, 1, 0, 4)]


def made(seed, *shapes, dtype=torch.float64):
    draw = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=draw, dtype=torch.float64).to(dtype).requires_grad_() for shape in shapes]


@pytest.mark.parametrize(("kernel", "stride", "padding", "side"), GEOMETRIES)
def test_convolution_and_its_derivatives_are_right(kernel, stride, padding, side):
    x, weight, bias = made(0, (2, 3, side, side + 1), (2, 3, kernel, kernel), (2,))

    def ours(*inputs):
        return convolution.conv2d(*inputs, stride, padding)

    torch.testing.assert_close(ours(x, weight, bias), functional.conv2d(x, weight, bias, stride, padding))
    assert gradcheck(ours, (x, weight, bias))
    assert gradgradcheck(ours, (x, weight, bias))


@pytest.mark.parametrize(("kernel", "stride", "padding", "side"), GEOMETRIES)
def test_transposed_convolution_and_its_derivatives_are_right(kernel, stride, padding, side):
    side = (side + 1) // 2
    x, weight, bias = made(1, (2, 3, side, side + 1), (3, 2, kernel, kernel), (2,))

    def ours(*inputs):
        return convolution.conv_transpose2d(*inputs, stride, padding)

    torch.testing.assert_close(ours(x, weight, bias), functional.conv_transpose2d(x, weight, bias, stride, padding))
    assert gradcheck(ours, (x, weight, bias))
    assert gradgradcheck(ours, (x, weight, bias))


def gradients(layer, x, fast, monkeypatch):
    """Return the output and the gradients of x, weight and bias in bf16 by one of the two ways."""
    monkeypatch.setattr(convolution, "FEWEST_PAIRS", 1 if fast else 2**62)
    called = []
    for name in ("conv2d", "conv_transpose2d"):
        ours = getattr(convolution, name)
        monkeypatch.setattr(convolution, name, lambda *given, ours=ours: called.append(1) or ours(*given))
    inputs = [x, layer.weight, layer.bias]
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
        found = torch.autograd.grad(y.float().square().sum(), inputs)
    monkeypatch.undo()
    assert len(called) == fast
    return [y, *found]


@pytest.mark.parametrize("kernel", [4, 5])
@pytest.mark.parametrize("kind", [SameConv2d, SameConvTranspose2d])
@pytest.mark.parametrize("side", [6, 7])
def test_layers_give_the_same_either_way_within_bf16(kind, kernel, side, monkeypatch):
    torch.manual_seed(0)
    layer = kind(16, 24, kernel, 2).to(memory_format=torch.channels_last)
    (x,) = made(2, (5, 16, side, side), dtype=torch.float32)
    slow, fast = (gradients(layer, x, way, monkeypatch) for way in (False, True))
    for a, b in zip(slow, fast, strict=True):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        assert ((a - b).float().norm() / a.float().norm()).item() < 0.01


def test_only_large_layers_that_are_trained_in_bf16_take_it():
    x = torch.zeros(1, 512, 4, 4)
    large = SameConvTranspose2d(512, 256, 4, 2)
    assert not convolution.pays(x, large.weight)
    with torch.autocast("cpu", torch.bfloat16):
        assert convolution.pays(x, large.weight)
        assert not convolution.pays(x, SameConvTranspose2d(512, 128, 4, 2).weight)
        assert not convolution.pays(x, large.weight.detach())
        with torch.no_grad():
            assert not convolution.pays(x, large.weight)
    with torch.autocast("cpu", torch.float16):
        assert not convolution.pays(x, large.weight)


def test_the_weights_gradient_lies_as_the_weights_do(monkeypatch):
    monkeypatch.setattr(convolution, "FEWEST_PAIRS", 1)
    layer = SameConvTranspose2d(8, 6, 4, 2).to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        layer(torch.randn(3, 8, 5, 5)).float().sum().backward()
    assert layer.weight.grad.stride() == layer.weight.stride()


def test_the_gradient_penalty_trains_the_same_weights_either_way(monkeypatch):
    torch.manual_seed(0)
    decoder = torch.nn.Sequential(
        SameConvTranspose2d(12, 10, 4, 2), torch.nn.BatchNorm2d(10), torch.nn.ReLU(), SameConvTranspose2d(10, 4, 4, 2)
    )
    (z,) = made(3, (6, 12, 3, 3), dtype=torch.float32)
    found = []
    for fewest in (2**62, 1):
        monkeypatch.setattr(convolution, "FEWEST_PAIRS", fewest)
        decoder.zero_grad()
        torch.manual_seed(5)
        with torch.autocast("cpu", torch.bfloat16):
            GradientPenalty(estimator="reverse").penalty(decoder, LatentCode(z=z, mean=z)).backward()
        found.append([parameter.grad.clone() for parameter in decoder.parameters() if parameter.grad is not None])
    assert len(found[0]) == len(found[1]) > 2
    scale = max(a.norm() for a in found[0])
    for a, b in zip(*found, strict=True):
        assert ((a - b).norm() / scale).item() < 0.02
