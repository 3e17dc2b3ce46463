"""Batch norm with second derivatives written down: torch's values, and derivatives of both orders."""

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck, gradgradcheck

from expost.networks.normalization import BatchNorm2d, GroupNorm


def layers(**options):
    """Return our layer and torch's, with the same weights, one of them zero and one negative."""
    torch.manual_seed(0)
    pair = BatchNorm2d(3, **options), nn.BatchNorm2d(3, **options)
    with torch.no_grad():
        pair[0].weight.copy_(torch.tensor([0.5, -1.5, 0.0]))
        pair[0].bias.normal_()
    pair[1].load_state_dict(pair[0].state_dict())
    return [layer.double() for layer in pair]


def examples(dtype=torch.float64):
    return torch.randn(4, 3, 2, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("options", [{}, {"eps": 1e-3}, {"momentum": None}, {"track_running_stats": False}], ids=str)
def test_values_and_running_averages_are_torchs(options):
    ours, theirs = layers(**options)
    for step in range(3):
        x = examples() + step
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-12, atol=1e-12)
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_derivatives_of_both_orders_are_right(memory):
    ours, _ = layers(eps=1e-2)
    x = examples().contiguous(memory_format=memory).requires_grad_()

    def function(x, weight, bias):
        return torch.func.functional_call(ours, {"weight": weight, "bias": bias}, (x,))

    assert gradcheck(function, (x, ours.weight, ours.bias))
    assert gradgradcheck(function, (x, ours.weight, ours.bias))
    # along one of the three derivatives alone
    for index in range(3):

        def one(*inputs, index=index):
            y = function(*inputs)
            return torch.autograd.grad(y.square().sum(), inputs, create_graph=True)[index]

        assert gradcheck(one, (x, ours.weight, ours.bias))


def test_second_derivatives_are_torchs_in_half_precision():
    found, some = [], torch.randn(4, 3, 2, 3, generator=torch.Generator().manual_seed(2))
    for layer in layers():
        layer.float()
        x = examples(torch.bfloat16).requires_grad_()
        (first,) = torch.autograd.grad((layer(x).float() * some).sum(), x, create_graph=True)
        assert first.dtype == torch.bfloat16
        found.append([each.float() for each in torch.autograd.grad(first.float().square().sum(), [x, layer.weight])])
    for a, b in zip(*found, strict=True):
        assert ((a - b).norm() / b.norm()).item() < 0.05


def test_what_torch_refuses_is_refused_and_forward_mode_is_torchs():
    ours, theirs = layers()
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        ours(examples()[:1, :, :1, :1])
    with pytest.raises(ValueError, match="expected 4D"):
        ours(examples()[0, 0])
    ours, theirs = layers(track_running_stats=False)
    x = examples()
    values = [torch.func.jvp(layer.train(), (x,), (x.cos(),)) for layer in (ours, theirs)]
    torch.testing.assert_close(*values)


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_group_norm_is_torchs_and_has_derivatives_of_both_orders_and_directions(memory):
    torch.manual_seed(0)
    ours = GroupNorm(2, 4, eps=1e-2).double()
    with torch.no_grad():
        ours.weight.copy_(torch.tensor([0.5, -1.5, 0.0, 2.0]))
        ours.bias.normal_()
    x = torch.randn(3, 4, 2, 3, dtype=torch.float64).contiguous(memory_format=memory).requires_grad_()
    expected = nn.functional.group_norm(x, 2, ours.weight, ours.bias, 1e-2)
    torch.testing.assert_close(ours(x), expected, rtol=1e-12, atol=1e-12)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), expected, rtol=1e-12, atol=1e-12)

    def function(x, weight, bias):
        return torch.func.functional_call(ours, {"weight": weight, "bias": bias}, (x,))

    assert gradcheck(function, (x, ours.weight, ours.bias), check_forward_ad=True)
    assert gradgradcheck(function, (x, ours.weight, ours.bias))
    assert gradgradcheck(lambda x: ours(x), (x,))
    (first,) = torch.autograd.grad(ours(x.detach()).square().sum(), ours.weight, create_graph=True)  # x is a constant
    assert first.requires_grad


def test_group_norm_of_half_precision_has_statistics_of_float32():
    layer = GroupNorm(2, 4)
    x = (torch.randn(2, 4, 5, 5) + 100).bfloat16()
    y = layer(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y, nn.functional.group_norm(x.float(), 2).bfloat16())


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_group_norm_takes_cut_and_turned_maps_and_gradients(memory):
    layer = GroupNorm(2, 4).double()
    whole = torch.randn(3, 4, 6, 8, dtype=torch.float64).contiguous(memory_format=memory)
    for x in (whole[..., ::2], whole[:, :, 1:5, 2:7], whole.transpose(2, 3), whole[:1, :, :1, :1].expand(3, 4, 5, 6)):
        ours, theirs = (x.detach().requires_grad_() for _ in range(2))
        g = torch.randn(x.shape[:2] + x.shape[:1:-1], dtype=torch.float64).transpose(2, 3)
        expected = nn.functional.group_norm(theirs, 2)
        torch.testing.assert_close(layer(ours), expected)
        by_ours, by_theirs = torch.autograd.grad(layer(ours), ours, g), torch.autograd.grad(expected, theirs, g)
        torch.testing.assert_close(by_ours, by_theirs)
