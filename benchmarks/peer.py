"""Pythae's models around expost's networks: same modules, same initial weights, same data."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from expost.autoencoder import Autoencoder, build
from expost.presets import configure

MNIST = (1, 32, 32)


def ours(model: str, width: int, **options: Any) -> Autoencoder:
    """Return our model with the paper's MNIST settings at some width; 128 is the paper's."""
    torch.manual_seed(0)
    return build(configure(model, MNIST, "paper", {"width": width}, options=options)[0])


def theirs(model: str, width: int) -> nn.Module:
    """Return Pythae's model of the same name."""
    warnings.filterwarnings("ignore")
    from pythae import models
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder

    made = copy.deepcopy(ours(model, width))

    class Encoder(BaseEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.network, self.latent = made.encoder, made.latent

        def forward(self, x: Tensor) -> ModelOutput:
            code = self.latent(self.network(x).flatten(1), False)
            return ModelOutput(embedding=code.mean, log_covariance=code.log_var)

    class Decoder(BaseDecoder):
        def __init__(self) -> None:
            super().__init__()
            self.network = made.decoder

        def forward(self, z: Tensor) -> ModelOutput:
            return ModelOutput(reconstruction=self.network(z))

    name = {"rae-l2": "RAE_L2", "rae-gp": "RAE_GP", "vae": "VAE", "wae-mmd": "WAE_MMD"}[model]
    options: dict[str, Any] = {"input_dim": MNIST, "latent_dim": 16}
    if model == "wae-mmd":
        options |= {"kernel_choice": "imq", "scales": [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0]}
    settings = getattr(models, f"{name}Config" if name == "VAE" else f"{name}_Config")
    return getattr(models, name)(settings(**options), encoder=Encoder(), decoder=Decoder())
