"""Networks for sequences: one-hot symbols (B, L, V) to features, and codes to logits (B, L, V) in one pass.

| name | encoder | decoder |
|---|---|---|
| gru-expressions | Conv1d 2, 3, 4 channels, batch norm; Linear | 3 x GRU over the repeated code |
| gru-molecules | Conv1d 9, 9, 10 channels; Linear | 3 x GRU over the repeated code |
| convnext-1d | 2 residual blocks of depthwise convolutions | 2 such blocks over a position's share of the code |
| transformer | 2 residual blocks of self-attention | 2 such blocks over a position's share of the code |

The first two are the networks of the Grammar VAE (Kusner, Paige & Hernandez-Lobato 2017, section 4) as Ghosh et al.
2020 describe them, at width 100 and 501; docs/differences.md says where the code of the former differs. No decoder here
is autoregressive: each is a function from a code to logits (see `autoregressive` for the others). In the last two each
position reads its own linear map of the code: at equal parameters they learn to reconstruct in a fraction of the steps,
and all positions are computed in parallel. Attention compares all pairs of positions, so its cost grows faster with the
length than that of convolutions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from expost.errors import UsageError
from expost.networks.image import BATCH_NORM_EPS
from expost.networks.layers import glorot
from expost.types import Layout, layout_of

#: Residual blocks of each encoder and decoder of the `convnext-1d` and `transformer` pairs.
LAYERS: Final = 2


def check_sequence_shape(shape: Sequence[int]) -> tuple[int, int]:
    """Return the length L and the number of symbols V of one example.

    Raises:
        UsageError: unless `shape` is (L, V), both at least 1.
    """
    if layout_of(shape) is not Layout.SEQUENCE or min(shape) < 1:
        raise UsageError(
            f"sequence networks need examples of shape (L, V), got {tuple(shape)}; use mlp, or conv4 for images"
        )
    return shape[0], shape[1]


@dataclass(frozen=True)
class RecurrentSizes:
    """Sizes of a convolutional encoder and recurrent decoder, as published.

    Attributes:
        channels: Output channels of each convolution.
        kernels: Their kernel lengths; no padding, so the sequence must have sum(kernels - 1) + 1 symbols or more.
        batch_norm: Whether each convolution is followed by batch norm.
        features: Units of the encoder's last layer at the published width; in proportion at another.
        width: The published width of the GRU layers.
    """

    channels: tuple[int, ...]
    kernels: tuple[int, ...]
    batch_norm: bool
    features: int
    width: int


#: Sizes for arithmetic expressions (L = 15, d = 25) and for molecules (L = 277, d = 56).
EXPRESSIONS: Final = RecurrentSizes((2, 3, 4), (2, 3, 4), True, 100, 100)
MOLECULES: Final = RecurrentSizes((9, 9, 10), (9, 9, 11), False, 435, 501)


class SequenceConvEncoder(nn.Module):
    """x -> [Conv1d, BN, ReLU] three times -> flatten -> Linear, ReLU -> features.

    Args:
        shape: (L, V) of one example.
        width: Width of the pair; the features are in proportion to it.
        sizes: The published sizes.

    Raises:
        UsageError: if the sequence is shorter than the kernels together.
    """

    def __init__(self, shape: Sequence[int], width: int, sizes: RecurrentSizes) -> None:
        super().__init__()
        length, inputs = check_sequence_shape(shape)
        needed = sum(kernel - 1 for kernel in sizes.kernels) + 1
        if length < needed:
            raise UsageError(f"this network needs at least {needed} symbols, got {length}; use network convnext-1d")
        layers: list[nn.Module] = []
        for channels, kernel in zip(sizes.channels, sizes.kernels, strict=True):
            layers.append(glorot(nn.Conv1d(inputs, channels, kernel)))
            if sizes.batch_norm:
                layers.append(nn.BatchNorm1d(channels, eps=BATCH_NORM_EPS))
            layers.append(nn.ReLU())
            inputs = channels
        features = max(1, round(sizes.features * width / sizes.width))
        flat = inputs * (length - needed + 1)
        self.layers = nn.Sequential(*layers, nn.Flatten(), glorot(nn.Linear(flat, features)), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        """Map one-hot symbols (B, L, V) to features (B, F)."""
        return self.layers(x.transpose(1, 2))


class GRU(nn.GRU):
    """`torch.nn.GRU`, always in float32 on a GPU: under autocast to bfloat16, cuDNN would compute in float16.

    Small gradients vanish in float16. Without cuDNN the layer computes in float32, too.
    """

    def forward(self, input: Tensor, hx: Tensor | None = None) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Map a sequence, batch first, and a first state to the states and the last of them."""
        if input.device.type != "cuda":
            return super().forward(input, hx)
        with torch.autocast("cuda", enabled=False):
            return super().forward(input.float(), None if hx is None else hx.float())


class RecurrentDecoder(nn.Module):
    """z -> Linear d, ReLU -> repeated L times -> 3 x GRU -> Linear V: logits.

    The GRU is torch's: its reset gate acts after the recurrent product and its gates are logistic, where the Keras of
    the official code resets before and takes a piecewise-linear gate; sizes and initialisation (Glorot for inputs,
    orthogonal for the recurrence, zero biases) are the same.

    Args:
        shape: (L, V) of one example.
        latent_dim: Dimension d of the code.
        width: Units of each GRU layer.
    """

    def __init__(self, shape: Sequence[int], latent_dim: int, width: int) -> None:
        super().__init__()
        self.length, symbols = check_sequence_shape(shape)
        self.read = nn.Sequential(glorot(nn.Linear(latent_dim, latent_dim)), nn.ReLU())
        self.gru = GRU(latent_dim, width, num_layers=3, batch_first=True)
        for name, parameter in self.gru.named_parameters():
            if name.startswith("bias"):
                nn.init.zeros_(parameter)
                continue
            for gate in parameter.detach().chunk(3):  # a view of each gate's matrix
                nn.init.orthogonal_(gate) if name.startswith("weight_hh") else nn.init.xavier_uniform_(gate)
        self.write = glorot(nn.Linear(width, symbols))

    def forward(self, z: Tensor) -> Tensor:
        """Map codes (B, d) to logits (B, L, V), float32."""
        repeated = self.read(z).unsqueeze(1).expand(-1, self.length, -1)
        return self.write(self.gru(repeated)[0]).float()


class ConvNeXtBlock(nn.Module):
    """h -> h + Linear(ReLU(Linear(LayerNorm(depthwise Conv1d(h))))), the hidden layer four times as wide, kernel 7.

    (Liu et al. 2022, section 2.6, in one dimension, with ReLU for GELU and without the layer scale of deep networks.)

    Args:
        width: Channels.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mix = nn.Conv1d(width, width, 7, padding=3, groups=width)
        self.layers = nn.Sequential(
            nn.LayerNorm(width), glorot(nn.Linear(width, 4 * width)), nn.ReLU(), glorot(nn.Linear(4 * width, width))
        )

    def forward(self, h: Tensor) -> Tensor:
        """Map (B, L, width) to the same shape."""
        # as an image one pixel wide, its channels last in memory: so the CPU's backward pass is several times faster
        image = h.transpose(1, 2).unsqueeze(3)
        mixed = functional.conv2d(image, self.mix.weight.unsqueeze(3), self.mix.bias, padding=(3, 0), groups=h.shape[2])
        return h + self.layers(mixed.squeeze(3).transpose(1, 2))


class TransformerBlock(nn.Module):
    """h -> h + Attention(LayerNorm(h)), then h -> h + MLP(LayerNorm(h)), the hidden layer twice as wide.

    (Vaswani et al. 2017, section 3, with the norm before each branch as in Xiong et al. 2020.) Attention is
    written out, not fused: the fused kernels cannot be differentiated twice, which the gradient penalty needs.

    Args:
        width: Channels.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        # as many heads as leave each 16 channels or more
        self.heads = max(heads for heads in range(1, max(1, width // 16) + 1) if width % heads == 0)
        self.norm = nn.LayerNorm(width)
        self.queries, self.keys, self.values, self.merge = (glorot(nn.Linear(width, width)) for _ in range(4))
        self.layers = nn.Sequential(
            nn.LayerNorm(width), glorot(nn.Linear(width, 2 * width)), nn.ReLU(), glorot(nn.Linear(2 * width, width))
        )

    def forward(self, h: Tensor) -> Tensor:
        """Map (B, L, width) to the same shape."""
        normed = self.norm(h)
        queries, keys, values = (
            layer(normed).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for layer in (self.queries, self.keys, self.values)
        )
        scores = (queries * queries.shape[3] ** -0.5) @ keys.transpose(2, 3)
        # softmax by hand: forward-mode differentiation of torch's own overwrites what a backward pass after it needs
        weights = (scores - scores.amax(3, keepdim=True).detach()).exp()
        attended = (weights @ values) / weights.sum(3, keepdim=True)
        h = h + self.merge(attended.transpose(1, 2).flatten(2))
        return h + self.layers(h)


#: Makes a residual block over positions from the width.
Block = Callable[[int], nn.Module]


def _share(width: int) -> int:
    """Return how many numbers of the code's linear map each position reads (or writes)."""
    return max(4, width // 8)


class PositionwiseEncoder(nn.Module):
    """x -> Linear + positions -> blocks -> LayerNorm -> Linear to a few numbers a position -> flatten: features.

    Features are flattened, not averaged, so that positions stay distinguishable.

    Args:
        shape: (L, V) of one example.
        width: Channels of the blocks.
        block: Makes a block.
    """

    def __init__(self, shape: Sequence[int], width: int, block: Block) -> None:
        super().__init__()
        length, symbols = check_sequence_shape(shape)
        self.embed = glorot(nn.Linear(symbols, width))
        self.positions = nn.Parameter(0.02 * torch.randn(length, width))
        self.blocks = nn.Sequential(*(block(width) for _ in range(LAYERS)))
        self.write = nn.Sequential(nn.LayerNorm(width), glorot(nn.Linear(width, _share(width))), nn.Flatten())

    def forward(self, x: Tensor) -> Tensor:
        """Map one-hot symbols (B, L, V) to features (B, F)."""
        return self.write(self.blocks(self.embed(x) + self.positions))


class PositionwiseDecoder(nn.Module):
    """z -> Linear to a few numbers a position -> Linear -> blocks -> LayerNorm -> Linear V: logits.

    The first layer's bias tells the positions apart, so that there is no further embedding of them.

    Args:
        shape: (L, V) of one example.
        latent_dim: Dimension d of the code.
        width: Channels of the blocks.
        block: Makes a block.
    """

    def __init__(self, shape: Sequence[int], latent_dim: int, width: int, block: Block) -> None:
        super().__init__()
        length, symbols = check_sequence_shape(shape)
        share = _share(width)
        # torch's own initialisation here: it keeps the code's scale and draws the biases too
        self.read = nn.Sequential(nn.Linear(latent_dim, length * share), nn.Unflatten(1, (length, share)))
        self.blocks = nn.Sequential(
            glorot(nn.Linear(share, width)), *(block(width) for _ in range(LAYERS)), nn.LayerNorm(width)
        )
        self.write = glorot(nn.Linear(width, symbols))

    def forward(self, z: Tensor) -> Tensor:
        """Map codes (B, d) to logits (B, L, V), float32."""
        return self.write(self.blocks(self.read(z))).float()
