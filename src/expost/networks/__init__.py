"""The network slot: named encoder/decoder pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import nn

from expost.errors import UsageError
from expost.networks.autoregressive import AutoregressiveGRU
from expost.networks.image import LARGEST_SIDE, SMALLEST_SIDE, ConvDecoder, ConvEncoder
from expost.networks.residual import LARGEST, SMALLEST, ResidualDecoder, ResidualEncoder
from expost.networks.sequence import (
    EXPRESSIONS,
    MOLECULES,
    Block,
    ConvNeXtBlock,
    PositionwiseDecoder,
    PositionwiseEncoder,
    RecurrentDecoder,
    RecurrentSizes,
    SequenceConvEncoder,
    TransformerBlock,
)
from expost.networks.vector import VectorDecoder, VectorEncoder
from expost.registry import Registry
from expost.types import Layout

#: Builds (encoder, decoder) from the shape of one example, the code's dimension, the width, and whether codes are maps.
Build = Callable[[Sequence[int], int, int, bool], tuple[nn.Module, nn.Module]]
#: The same for any depth.
BuildDeep = Callable[[int], Build]


@dataclass(frozen=True)
class NetworkPair:
    """An entry of the network slot; a call builds (encoder, decoder).

    Attributes:
        build: Builds the pair.
        layout: Layout of the examples that it takes; None for any, which it flattens.
        sides: Least and largest side of the images that it takes, or that presets let it take.
        official: Whether it is of the paper, so that what presets take from it (which kernels are decayed) applies.
        deep: Builds the pair of another depth than `build` does; None where depth is no choice.
    """

    build: Build
    layout: Layout | None
    sides: tuple[int, int] = (1, LARGEST_SIDE)
    official: bool = False
    deep: BuildDeep | None = None

    def __call__(
        self, shape: Sequence[int], latent_dim: int, width: int, spatial: bool, depth: int | None = None
    ) -> tuple[nn.Module, nn.Module]:
        """Build encoder and decoder with fresh weights.

        Args:
            shape: Shape of one example.
            latent_dim: Dimension of a code, or channels of a map.
            width: Channels of the first convolution, or units of a hidden layer.
            spatial: Whether codes are maps.
            depth: Blocks on each map; None: the pair's own.

        Raises:
            UsageError: if the pair does not take such a shape, or has no maps, or no choice of depth.
        """
        build = self.build
        if depth is not None:
            if self.deep is None:
                raise UsageError(f"depth={depth} is for network residual; leave it out, or take that network")
            build = self.deep(depth)
        return build(shape, latent_dim, width, spatial)


def _convolutional(kernel: int, centered: bool = True) -> NetworkPair:
    def build(shape: Sequence[int], latent_dim: int, width: int, spatial: bool) -> tuple[nn.Module, nn.Module]:
        encoder = ConvEncoder(shape, width, kernel, spatial, centered)
        return encoder, ConvDecoder(shape, latent_dim, width, kernel, spatial)

    return NetworkPair(build, Layout.IMAGE, (SMALLEST_SIDE, LARGEST_SIDE), official=True)


def _residual(depth: int) -> Build:
    def build(shape: Sequence[int], latent_dim: int, width: int, spatial: bool) -> tuple[nn.Module, nn.Module]:
        encoder = ResidualEncoder(shape, width, depth, spatial)
        return encoder, ResidualDecoder(shape, latent_dim, width, depth, spatial)

    return build


def _refuse_maps(name: str, spatial: bool) -> None:
    if spatial:
        raise UsageError(
            f"network {name} has no feature map, which the vector-quantized latent needs; use residual, conv4 or conv5"
        )


def _vector(shape: Sequence[int], latent_dim: int, width: int, spatial: bool) -> tuple[nn.Module, nn.Module]:
    _refuse_maps("mlp", spatial)
    return VectorEncoder(shape, width), VectorDecoder(shape, latent_dim, width)


def _recurrent(name: str, sizes: RecurrentSizes) -> NetworkPair:
    def build(shape: Sequence[int], latent_dim: int, width: int, spatial: bool) -> tuple[nn.Module, nn.Module]:
        _refuse_maps(name, spatial)
        return SequenceConvEncoder(shape, width, sizes), RecurrentDecoder(shape, latent_dim, width)

    return NetworkPair(build, Layout.SEQUENCE)


def _positionwise(name: str, block: Block) -> NetworkPair:
    def build(shape: Sequence[int], latent_dim: int, width: int, spatial: bool) -> tuple[nn.Module, nn.Module]:
        _refuse_maps(name, spatial)
        return PositionwiseEncoder(shape, width, block), PositionwiseDecoder(shape, latent_dim, width, block)

    return NetworkPair(build, Layout.SEQUENCE)


def _autoregressive(shape: Sequence[int], latent_dim: int, width: int, spatial: bool) -> tuple[nn.Module, nn.Module]:
    _refuse_maps("gru-autoregressive", spatial)
    return PositionwiseEncoder(shape, width, ConvNeXtBlock), AutoregressiveGRU(shape, latent_dim, width)


#: Images: conv4, the paper's MNIST / CIFAR-10 pair; conv5-celeba, its CelebA pair, which gets pixels as they are;
#: conv5, the same for pixels in [-1, 1]; residual, blocks with group norm and attention. Any shape: mlp, of two hidden
#: layers.
#: Sequences: gru-expressions and gru-molecules, the paper's pairs, at width 100 and 501; convnext-1d and transformer,
#: parallel decoders that reconstruct better at equal parameters (width 64 is about the size of gru-expressions at 100);
#: gru-autoregressive, whose decoder reads the symbols that it has written, so that they fit each other.
NETWORKS: Registry[NetworkPair] = Registry(
    "network",
    {
        "conv4": _convolutional(4),
        "conv5": _convolutional(5),
        "conv5-celeba": _convolutional(5, centered=False),
        "residual": NetworkPair(_residual(1), Layout.IMAGE, (SMALLEST, LARGEST), deep=_residual),
        "mlp": NetworkPair(_vector, layout=None),
        "gru-expressions": _recurrent("gru-expressions", EXPRESSIONS),
        "gru-molecules": _recurrent("gru-molecules", MOLECULES),
        "convnext-1d": _positionwise("convnext-1d", ConvNeXtBlock),
        "transformer": _positionwise("transformer", TransformerBlock),
        "gru-autoregressive": NetworkPair(_autoregressive, Layout.SEQUENCE),
    },
)
