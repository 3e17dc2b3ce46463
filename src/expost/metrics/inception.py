"""TensorFlow's Inception network of 2015-12-05, the one that FID is defined on, in PyTorch."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from expost.errors import UsageError
from expost.metrics.features import QUANTIZATION, Features, check_rgb_or_gray
from expost.metrics.weights import PUBLIC, find_or_download, fold, read_state
from expost.utils.downloads import verify
from expost.utils.hashing import hash_tensors

Precision = Literal["float32", "bfloat16"]
Pool = Literal["average", "max", "max, stride 2"]

SIDE = 299
"""Side of the network's input, in pixels."""

LAST_LAYER = {768: "Mixed_6e", 2048: "Mixed_7c"}
"""The layer whose spatial mean has that many features."""

SCORE_NAME = {768: "fid-768", 2048: "fid"}
"""What the Frechet distance on that many features is called."""


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


def resize_tf1(x: Tensor, side: int = SIDE) -> Tensor:
    """Resize bilinearly as TensorFlow 1 does with align_corners=False: output pixel i lies at i * (in / out).

    There is no half-pixel shift, so the picture moves a little to the top left, and no smoothing when images shrink.
    Libraries differ in this, and FID with them (Parmar et al. 2022, "On Aliased Resizing and Surprising Subtleties in
    GAN Evaluation").

    Args:
        x: Images, float32, shape (B, C, H, W).
        side: Output side.

    Returns:
        float32, shape (B, C, side, side), in the range of `x`.

    Example:
        >>> resize_tf1(torch.tensor([[[[0.0, 4.0]]]]), 4)[0, 0, 0]
        tensor([0., 2., 4., 4.])
    """

    def grid(size: int) -> tuple[Tensor, Tensor, Tensor]:
        scale = torch.full((), size / side, device=x.device)  # filled there: a copy would be waited for
        at = torch.arange(side, dtype=torch.float32, device=x.device) * scale
        low = at.long()
        return low, (low + 1).clamp_max(size - 1), at - low

    # Columns before rows, as TensorFlow has it: the other order differs in the last bit. Rows are done once, not twice.
    low, high, weight = grid(x.shape[3])
    left = x[..., low]
    x = left + (x[..., high] - left) * weight
    low, high, weight = grid(x.shape[2])
    top = x[:, :, low]
    return top + (x[:, :, high] - top) * weight.view(-1, 1)


def _channels_last(x: Tensor) -> Tensor:
    """Lay out images and kernels with the channels innermost, which convolutions are faster on."""
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x


class InceptionFeatures(Features):
    """Spatial means of a layer of the 2015 Inception network: the features of FID (2048) and FID-768.

    uint8 pixels are resized to 299x299 by `resize_tf1`, then (x - 128) / 128 goes through the network, all in float32;
    gray images are repeated to three channels. This is torch-fidelity's protocol, and that of the TensorFlow original;
    features agree with torch-fidelity's to about 4e-7 in norm. (pytorch-fid resizes in PyTorch's manner, so its scores
    differ a little.)

    With `precision="bfloat16"` the convolutions run in bfloat16, about twice as fast on a CPU that has instructions for
    it. Features then change by about 1 % in norm, and FID-768 between 600 and 600 images (CIFAR-10 or MNIST, test
    against training or blurred training images) by 0.3 to 0.6 %; one set of images is at 0.002 to 0.003 from itself in
    the other precision. So do not mix the two: the precision is part of the protocol.

    Args:
        dim: 768 or 2048.
        device: Where it computes.
        precision: "float32" or "bfloat16".

    Raises:
        UsageError: for another `dim` or `precision`.
        DataError: if the weights are nowhere to be had, or are not those of this network.
    """

    def __init__(self, dim: int = 2048, device: str | torch.device = "cpu", precision: Precision = "float32") -> None:
        if dim not in LAST_LAYER:
            raise UsageError(f"dim is {dim}; Inception features have 768 or 2048")
        if precision not in ("float32", "bfloat16"):
            raise UsageError(f"precision is {precision!r}; choose float32 or bfloat16")
        path = find_or_download(LAST_LAYER[dim])
        self._verified = verify(path, PUBLIC)
        network = inception(dim)
        shapes = {name: value.shape for name, value in network.state_dict().items()}
        weights = fold(read_state(path), shapes, str(path))
        device = torch.device(device)
        # Small batches stay in a CPU's cache, and so are faster there.
        batch_size = 64 if device.type == "cuda" else 8
        super().__init__(f"inception-{dim}", SCORE_NAME[dim], dim, hash_tensors(weights), batch_size, device)
        self.precision = precision
        self._dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
        placed = {name: _channels_last(value.to(device, self._dtype)) for name, value in weights.items()}
        network.load_state_dict(placed, assign=True)
        self._network = network.eval().requires_grad_(False)

    def protocol(self) -> dict[str, Any]:
        """Say what is done to an image."""
        return {
            "resize": "bilinear to 299x299 as in TensorFlow 1 (align_corners=False, no half-pixel centers)",
            "quantization": QUANTIZATION,
            "channels": "RGB, gray repeated to three",
            "precision": self.precision,
            "weights": "published file, SHA-256 checked" if self._verified else "given by the user, origin not checked",
        }

    def check(self, shape: tuple[int, int, int]) -> None:
        """Raise UsageError unless there are 1 or 3 channels and some pixels."""
        check_rgb_or_gray(self.name, shape)

    def extract(self, images: Tensor) -> Tensor:
        """Run the network and average over space."""
        x = (resize_tf1(images.float()) - 128) / 128
        x = _channels_last(x.expand(-1, 3, -1, -1).to(self._dtype))
        return self._network(x).float().mean(dim=(2, 3))
