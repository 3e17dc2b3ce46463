"""Features of photos that come with the package: early layers of a small face network, which see sharpness."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from expost.metrics.bundled import read_network
from expost.metrics.features import QUANTIZATION, Features, check_rgb_or_gray
from expost.utils.hashing import hash_tensors

SIDE, WIDTHS = 48, (32, 64, 64)
"""Side of the network's input in pixels; channels of its first three convolutions."""

DIM = sum(WIDTHS)
"""Number of features: the mean of each channel."""

WEIGHTS = Path(__file__).with_name("onet_features.safetensors")
"""The weights (MIT); `scripts/pack_onet_features.py` makes the file."""


class OnetNetwork(nn.Module):
    """The first three convolutions of MTCNN's output network (Zhang et al. 2016, "Joint face detection and alignment").

    Example:
        >>> load_onet()(torch.zeros(2, 3, 48, 48)).shape
        torch.Size([2, 160])
    """

    def __init__(self) -> None:
        super().__init__()
        for number, (before, after) in enumerate(zip((3, *WIDTHS), WIDTHS, strict=False), 1):
            self.add_module(f"conv{number}", nn.Conv2d(before, after, 3))
            self.add_module(f"prelu{number}", nn.PReLU(after))

    def forward(self, x: Tensor) -> Tensor:
        """Map images in [-1, 1], shape (B, 3, 48, 48), to the mean of each channel of each layer, shape (B, 160)."""
        means = []
        for number in range(1, len(WIDTHS) + 1):
            x = self.get_submodule(f"prelu{number}")(self.get_submodule(f"conv{number}")(x))
            means.append(x.mean(dim=(2, 3)))
            x = functional.max_pool2d(x, 3, 2, ceil_mode=True)
        return torch.cat(means, dim=1)

    def maps(self, x: Tensor) -> list[Tensor]:
        """Return the activations of each layer, of images of any size in [-1, 1], shape (B, 3, H, W), padded by zeros.

        The maps have the sides of the image, half of them, and a quarter, rounded up.
        """
        found = []
        for number in range(1, len(WIDTHS) + 1):
            if number > 1:
                x = functional.max_pool2d(x, 2, 2, ceil_mode=True)
            x = self.get_submodule(f"prelu{number}")(self.get_submodule(f"conv{number}")(functional.pad(x, (1,) * 4)))
            found.append(x)
        return found


def load_onet(path: Path = WEIGHTS) -> OnetNetwork:
    """Read the network, in evaluation mode.

    Raises:
        DataError: if the file is missing, truncated, or holds another network.
    """
    return read_network(path, OnetNetwork, "these layers")[0]


class OnetFeatures(Features):
    """160 channel means of a bundled face network's first layers; their distance is "frechet-onet".

    They tell sharp images from blurred ones, unlike thumbnails, and say little of layout. They were learned on faces
    and are not Inception's: use them where its weights are not at hand. Detail finer than a 48th of the image is lost.

    Args:
        device: Where it computes.
    """

    def __init__(self, device: str | torch.device = "cpu") -> None:
        network = load_onet()
        super().__init__("onet", "frechet-onet", DIM, hash_tensors(network.state_dict()), 256, device)
        self._network = network.to(self.device)

    def protocol(self) -> dict[str, Any]:
        """Return how an image is preprocessed, for the card."""
        return {
            "resize": f"bilinear, antialiased, to {SIDE}x{SIDE}",
            "quantization": QUANTIZATION,
            "channels": "RGB, gray repeated to three",
            "precision": "float32",
            "weights": "bundled",
        }

    def check(self, shape: tuple[int, int, int]) -> None:
        """Raise UsageError unless there are 1 or 3 channels and some pixels."""
        check_rgb_or_gray(self.name, shape)

    def extract(self, images: Tensor) -> Tensor:
        """Resize, scale to [-1, 1], and average the channels of each layer."""
        resized = functional.interpolate(images.float(), size=SIDE, mode="bilinear", antialias=True)
        return self._network((resized.expand(-1, 3, -1, -1) - 127.5) / 128)
