"""Pythae's models around the same networks, built of torch's own layers: same initial weights, same data.

Users of Pythae write such layers, in torch's default memory layout. `channels_last` gives the peer's decoder the layout
of ours, which is not always faster for it.
"""

from __future__ import annotations

import copy
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from expost.models.autoencoder import Autoencoder, build
from expost.models.presets import configure
from expost.networks.layers import SameConv2d, SameConvTranspose2d

MNIST = (1, 32, 32)


def ours(model: str, width: int, **options: Any) -> Autoencoder:
    """Return our model with the paper's MNIST settings at some width; 128 is the paper's."""
    torch.manual_seed(0)
    return build(configure(model, MNIST, "paper", {"width": width}, options=options)[0])


class Crop(nn.Module):
    """Cut or fill up an image at its lower and right edges, as TensorFlow's "same" padding does."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, x: Tensor) -> Tensor:
        """Bring (B, C, H, W) to (B, C, side, side)."""
        missing = self.side - x.shape[2]
        return nn.functional.pad(x, (0, missing, 0, missing))


def plain(network: nn.Module) -> nn.Module:
    """Replace our layers in a network by torch's own, with the same weights."""
    for name, layer in list(network.named_children()):
        made: nn.Module | None = None
        if isinstance(layer, SameConv2d):
            made = nn.Conv2d(layer.in_channels, layer.out_channels, 4, 2, 1)
        elif isinstance(layer, SameConvTranspose2d):
            made = nn.ConvTranspose2d(layer.in_channels, layer.out_channels, 4, layer.stride, 1)
        elif isinstance(layer, nn.BatchNorm2d):
            made = nn.BatchNorm2d(layer.num_features, eps=layer.eps)
        elif isinstance(layer, nn.ReLU):
            made = nn.ReLU()
        if made is None:
            plain(layer)
        else:
            made.load_state_dict(layer.state_dict())
            setattr(network, name, made)
    return network


class PlainDecoder(nn.Module):
    """Our decoder's layers, in torch's default layout or in channels-last."""

    def __init__(self, decoder: nn.Module, channels_last: bool) -> None:
        super().__init__()
        self.first, self.layers = decoder.first, plain(decoder.layers)
        self.crop, self.channels_last = Crop(MNIST[1]), channels_last

    def forward(self, z: Tensor) -> Tensor:
        """Map codes to images."""
        first = self.first(z)
        if self.channels_last:
            first = first.contiguous(memory_format=torch.channels_last)
        return torch.sigmoid(self.crop(self.layers(first)))


def theirs(model: str, width: int, channels_last: bool = False) -> nn.Module:
    """Return Pythae's model of the same name."""
    warnings.filterwarnings("ignore")
    from pythae import models
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder

    made = copy.deepcopy(ours(model, width))
    encoder, decoder = plain(made.encoder), PlainDecoder(made.decoder, channels_last)

    class Encoder(BaseEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.network, self.latent = encoder, made.latent

        def forward(self, x: Tensor) -> ModelOutput:
            code = self.latent(self.network(x).flatten(1), False)
            return ModelOutput(embedding=code.mean, log_covariance=code.log_var)

    class Decoder(BaseDecoder):
        def __init__(self) -> None:
            super().__init__()
            self.network = decoder

        def forward(self, z: Tensor) -> ModelOutput:
            return ModelOutput(reconstruction=self.network(z))

    name = {"rae-l2": "RAE_L2", "rae-gp": "RAE_GP", "vae": "VAE", "wae-mmd": "WAE_MMD"}[model]
    options: dict[str, Any] = {"input_dim": MNIST, "latent_dim": 16}
    if model == "wae-mmd":
        options |= {"kernel_choice": "imq", "scales": [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0]}
    settings = getattr(models, f"{name}Config" if name == "VAE" else f"{name}_Config")
    return getattr(models, name)(settings(**options), encoder=Encoder(), decoder=Decoder())
