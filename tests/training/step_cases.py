"""Models on made-up examples, ready to take a step, for the tests of steps and of a GPU."""

import torch

from expost.models.autoencoder import build
from expost.models.presets import configure
from expost.models.zoo import ZOO
from expost.training.loop import Loop
from expost.types import Data, Split

SUMS = "S -> T '+' S | T '*' S | T\nT -> 'x' | '1' | '2' | '3'"
IMAGES = [name for name, row in ZOO.items() if row.codec is None]
#: Models of strings, and the networks that they are tried with.
STRINGS = [
    (name, network)
    for name, networks in {
        "grae": ("gru-expressions", "convnext-1d", "transformer", "gru-autoregressive"),
        "gvae": ("gru-expressions", "gru-autoregressive"),
        "gcvvae": ("convnext-1d",),
        "character-vae": ("gru-molecules", "gru-autoregressive"),
    }.items()
    for network in networks
]


def training(data, name, device, batch, precision="float32", options=None, **model):
    config, settings = configure(
        name, data.shape, "paper", model,
        {"batch_size": batch, "device": device, "tensorboard": False, "clip": 1.0, "precision": precision}, options,
    )  # fmt: skip
    torch.manual_seed(0)
    made = Loop(build(config), data.train.x, data.validation.x, settings)
    if device == "meta":  # for which there is no fused Adam, as it is tested on the CPU
        made.optimizer = torch.optim.SGD(made.model.parameters(), lr=made.config.lr)
    made.model.train()
    return made


def images(count, channels=1):
    x = torch.randint(0, 256, (count, channels, 32, 32), dtype=torch.uint8)
    return Data("made up", Split(x), Split(x[:2]), Split(x[:2]))


def strings(count, codec):
    x = codec.encode(["x+1*x", "2*3*x+1", "x", "1+1"]).indices.repeat(-(-count // 4), 1)[:count]
    return Data("sums", Split(x), Split(x[:2]), Split(x[:2]), codec=codec, domain="expressions")


class Ready:
    def __init__(self, x):
        self.x = x

    def take(self, indices, then=None):
        return self.x
