"""The network slot: named encoder/decoder pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from expost.errors import UsageError
from expost.networks.image import ConvDecoder, ConvEncoder
from expost.networks.vector import VectorDecoder, VectorEncoder
from expost.registry import Registry

#: Builds (encoder, decoder) from the shape of one example, the code's dimension, the width, and whether codes are maps.
NetworkPair = Callable[[Sequence[int], int, int, bool], tuple[nn.Module, nn.Module]]


def _convolutional(kernel: int) -> NetworkPair:
    def build(shape: Sequence[int], latent_dim: int, width: int, spatial: bool) -> tuple[nn.Module, nn.Module]:
        encoder = ConvEncoder(shape, width, kernel, spatial)
        return encoder, ConvDecoder(shape, latent_dim, width, kernel, spatial)

    return build


def _vector(shape: Sequence[int], latent_dim: int, width: int, spatial: bool) -> tuple[nn.Module, nn.Module]:
    if spatial:
        raise UsageError("network mlp has no feature map, which the vector-quantized latent needs; use conv4 or conv5")
    return VectorEncoder(shape, width), VectorDecoder(shape, latent_dim, width)


#: conv4: the paper's MNIST / CIFAR-10 pair; conv5: its CelebA pair; mlp: two hidden layers each way.
NETWORKS: Registry[NetworkPair] = Registry(
    "network", {"conv4": _convolutional(4), "conv5": _convolutional(5), "mlp": _vector}
)
