"""TensorFlow's Inception network of 2015-12-05, the one that FID is defined on, in PyTorch: its layers."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Pool = Literal["average", "max", "max, stride 2"]

LAST_LAYER = {768: "Mixed_6e", 2048: "Mixed_7c"}
"""The layer whose spatial mean has that many features."""


@dataclass(frozen=True)
class Conv:
    """One convolution with bias and ReLU: its name in the state dictionary, output channels, kernel (h, w) and stride.

    In the mixed blocks, stride 1 keeps the size ("same") and stride 2 does not pad ("valid").
    """

    name: str
    out: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1


@dataclass(frozen=True)
class Fork:
    """Two convolutions on the same input, their outputs concatenated."""

    first: Conv
    second: Conv


Step = Conv | Fork | Pool
Block = tuple[tuple[Step, ...], ...]
"""A block: branches, each a chain of steps, all on the same input, their outputs concatenated in order."""


def _block_a(pooled: int) -> Block:
    return (
        (Conv("branch1x1", 64),),
        (Conv("branch5x5_1", 48), Conv("branch5x5_2", 64, (5, 5))),
        (Conv("branch3x3dbl_1", 64), Conv("branch3x3dbl_2", 96, (3, 3)), Conv("branch3x3dbl_3", 96, (3, 3))),
        ("average", Conv("branch_pool", pooled)),
    )


def _block_b() -> Block:
    return (
        (Conv("branch3x3", 384, (3, 3), 2),),
        (Conv("branch3x3dbl_1", 64), Conv("branch3x3dbl_2", 96, (3, 3)), Conv("branch3x3dbl_3", 96, (3, 3), 2)),
        ("max, stride 2",),
    )


def _block_c(inner: int) -> Block:
    row, column = (1, 7), (7, 1)
    return (
        (Conv("branch1x1", 192),),
        (Conv("branch7x7_1", inner), Conv("branch7x7_2", inner, row), Conv("branch7x7_3", 192, column)),
        (
            Conv("branch7x7dbl_1", inner),
            Conv("branch7x7dbl_2", inner, column),
            Conv("branch7x7dbl_3", inner, row),
            Conv("branch7x7dbl_4", inner, column),
            Conv("branch7x7dbl_5", 192, row),
        ),
        ("average", Conv("branch_pool", 192)),
    )


def _block_d() -> Block:
    return (
        (Conv("branch3x3_1", 192), Conv("branch3x3_2", 320, (3, 3), 2)),
        (
            Conv("branch7x7x3_1", 192),
            Conv("branch7x7x3_2", 192, (1, 7)),
            Conv("branch7x7x3_3", 192, (7, 1)),
            Conv("branch7x7x3_4", 192, (3, 3), 2),
        ),
        ("max, stride 2",),
    )


def _block_e(pool: Pool) -> Block:
    row, column = (1, 3), (3, 1)
    return (
        (Conv("branch1x1", 320),),
        (Conv("branch3x3_1", 384), Fork(Conv("branch3x3_2a", 384, row), Conv("branch3x3_2b", 384, column))),
        (
            Conv("branch3x3dbl_1", 448),
            Conv("branch3x3dbl_2", 384, (3, 3)),
            Fork(Conv("branch3x3dbl_3a", 384, row), Conv("branch3x3dbl_3b", 384, column)),
        ),
        (pool, Conv("branch_pool", 192)),
    )


#: The mixed blocks with their input channels, in order.
BLOCKS: dict[str, tuple[int, Block]] = {
    "Mixed_5b": (192, _block_a(32)),
    "Mixed_5c": (256, _block_a(64)),
    "Mixed_5d": (288, _block_a(64)),
    "Mixed_6a": (288, _block_b()),
    "Mixed_6b": (768, _block_c(128)),
    "Mixed_6c": (768, _block_c(160)),
    "Mixed_6d": (768, _block_c(160)),
    "Mixed_6e": (768, _block_c(192)),
    "Mixed_7a": (768, _block_d()),
    "Mixed_7b": (1280, _block_e("average")),
    "Mixed_7c": (2048, _block_e("max")),  # the 2015 graph pools by maximum here, unlike the paper; FID inherits it
}

_POOLS: dict[Pool, Callable[[Tensor], Tensor]] = {
    # TensorFlow divides by the number of pixels inside the image, not by 9, at the border.
    "average": lambda x: functional.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False),
    "max": lambda x: functional.max_pool2d(x, 3, stride=1, padding=1),
    "max, stride 2": lambda x: functional.max_pool2d(x, 3, stride=2),
}


class ConvReLU(nn.Module):
    """relu(conv(x) + bias), batch normalisation being folded into weight and bias."""

    def __init__(self, channels: int, spec: Conv, padding: tuple[int, int]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, spec.out, spec.kernel, spec.stride, padding)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', H', W')."""
        return functional.relu_(self.conv(x))


class Mixed(nn.Module):
    """A mixed block: it runs the branches of `block` and concatenates their outputs."""

    def __init__(self, channels: int, block: Block) -> None:
        super().__init__()
        self.block = block
        for branch in block:
            width = channels
            for step in branch:
                if isinstance(step, Conv | Fork):
                    width = self._add(width, step)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', H', W')."""
        return torch.cat([self._run(branch, x) for branch in self.block], dim=1)

    def _add(self, channels: int, step: Conv | Fork) -> int:
        convs = (step,) if isinstance(step, Conv) else (step.first, step.second)
        for conv in convs:
            same = (conv.kernel[0] // 2, conv.kernel[1] // 2)
            self.add_module(conv.name, ConvReLU(channels, conv, same if conv.stride == 1 else (0, 0)))
        return sum(conv.out for conv in convs)

    def _run(self, branch: tuple[Step, ...], x: Tensor) -> Tensor:
        for step in branch:
            if isinstance(step, Conv):
                x = self.get_submodule(step.name)(x)
            elif isinstance(step, Fork):
                x = torch.cat([self.get_submodule(conv.name)(x) for conv in (step.first, step.second)], dim=1)
            else:
                x = _POOLS[step](x)
        return x


def inception(dim: int) -> nn.Sequential:
    """Return the network up to the layer with `dim` (768 or 2048) channels, layers named as in pytorch-fid.

    Its input is (B, 3, 299, 299) in [-1, 1); its output (B, 768, 17, 17) or (B, 2048, 8, 8). Weights are on the meta
    device, to be put in by `load_state_dict(..., assign=True)`: building it draws no random numbers.

    Source: Szegedy et al. 2015, "Rethinking the Inception Architecture", Table 1, in the form that TensorFlow's graph
    of 2015-12-05 gives it.
    """
    with torch.device("meta"):
        layers: OrderedDict[str, nn.Module] = OrderedDict(
            Conv2d_1a_3x3=ConvReLU(3, Conv("", 32, (3, 3), 2), (0, 0)),
            Conv2d_2a_3x3=ConvReLU(32, Conv("", 32, (3, 3)), (0, 0)),
            Conv2d_2b_3x3=ConvReLU(32, Conv("", 64, (3, 3)), (1, 1)),
            MaxPool_1=nn.MaxPool2d(3, 2),
            Conv2d_3b_1x1=ConvReLU(64, Conv("", 80), (0, 0)),
            Conv2d_4a_3x3=ConvReLU(80, Conv("", 192, (3, 3)), (0, 0)),
            MaxPool_2=nn.MaxPool2d(3, 2),
        )
        for name, (channels, block) in BLOCKS.items():
            layers[name] = Mixed(channels, block)
            if name == LAST_LAYER[dim]:
                break
        return nn.Sequential(layers)
