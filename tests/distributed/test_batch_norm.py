"""Batch norm written out: torch's own values, and derivatives that torch's own gets wrong."""

import pytest
import torch
from torch import nn

from expost.distributed.batch_norm import elementary_batch_norm
from expost.errors import UsageError


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("affine", [True, False])
def test_it_is_torchs_layer_forward_and_backward(momentum, affine):
    torch.manual_seed(0)
    x = 50 + torch.randn(7, 3, 5, 4, dtype=torch.float64)
    layers = [nn.BatchNorm2d(3, momentum=momentum, affine=affine).double() for _ in range(2)]
    outputs, gradients = [], []
    for layer in layers:
        if affine:
            nn.init.uniform_(layer.weight, generator=torch.Generator().manual_seed(1))
    for index, layer in enumerate(layers):
        leaf = x.clone().requires_grad_()
        for _ in range(3):
            if index:
                with elementary_batch_norm(layer):
                    output = layer(leaf)
            else:
                output = layer(leaf)
        output.pow(3).sum().backward()
        outputs.append(output.detach())
        gradients.append([leaf.grad, *(parameter.grad for parameter in layer.parameters())])
    torch.testing.assert_close(*outputs)
    torch.testing.assert_close(*gradients)
    torch.testing.assert_close(*(dict(layer.named_buffers()) for layer in layers))
    for layer in layers:
        layer.eval()
    with elementary_batch_norm(layers[1]):
        assert torch.equal(layers[1](x), type(layers[1]).forward(layers[1], x))
    assert "forward" not in vars(layers[1])


def test_a_single_value_a_channel_is_refused_as_torch_does():
    layer = nn.BatchNorm1d(3)
    with elementary_batch_norm(layer), pytest.raises(UsageError, match="one value a channel; give at least 2"):
        layer(torch.randn(1, 3))
    assert torch.equal(layer.running_var, torch.ones(3))


def test_without_running_averages_evaluation_takes_the_batch_as_torch_does():
    layer, x = nn.BatchNorm1d(3, track_running_stats=False).eval(), torch.randn(5, 3)
    with elementary_batch_norm(layer):
        ours = layer(x)
    torch.testing.assert_close(ours, layer(x))


def test_a_layer_without_a_shift_is_written_out_too():
    layer = nn.BatchNorm2d(3)
    layer.bias = None  # as newer releases of torch can make it
    x = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    expected = layer(x)
    with elementary_batch_norm(layer):
        torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-5)
