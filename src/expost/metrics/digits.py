"""Features of a small digit classifier that comes with the package, so that digits are scored without a download."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from expost.errors import UsageError
from expost.metrics.bundled import read_network
from expost.metrics.features import QUANTIZATION, Features
from expost.utils.hashing import hash_tensors

SIDE, DIM = 32, 64
"""Side of the classifier's input in pixels; number of its features."""

WEIGHTS = Path(__file__).with_name("digit_features.safetensors")
"""The trained weights; `scripts/train_digit_features.py` makes them."""


class DigitNetwork(nn.Module):
    """A classifier of gray 32x32 digits: three convolutions of stride 2, a hidden layer of 64, ten logits.

    Example:
        >>> with torch.random.fork_rng():
        ...     network = DigitNetwork()
        >>> x = torch.zeros(5, 1, 32, 32)
        >>> network.features(x).shape, network(x).shape
        (torch.Size([5, 64]), torch.Size([5, 10]))
    """

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.Sequential(
            nn.Conv2d(1, 16, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 32, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
        )
        self.hidden = nn.Linear(32 * 4 * 4, DIM)
        self.head = nn.Linear(DIM, 10)

    def features(self, x: Tensor) -> Tensor:
        """Map images in [0, 1], shape (B, 1, 32, 32), to the activations before the last layer, (B, 64), >= 0."""
        return functional.relu(self.hidden(self.convs(x)))

    def forward(self, x: Tensor) -> Tensor:
        """Map images in [0, 1], shape (B, 1, 32, 32), to logits, shape (B, 10)."""
        return self.head(self.features(x))


def load_digit_network(path: Path = WEIGHTS) -> tuple[DigitNetwork, dict[str, Any]]:
    """Read the trained classifier, in evaluation mode, and the record of how it was trained and how well it does.

    Raises:
        DataError: if the file is missing, truncated, or holds another network.
    """
    return read_network(path, DigitNetwork, "the digit classifier")


class DigitFeatures(Features):
    """The 64 activations before the last layer of the bundled digit classifier; their distance is "frechet-digits".

    The classifier is trained on the 4,000 training digits of `mnist-5k` alone, so it has seen neither validation nor
    test digits (its file records the accuracy). It is meant for digits, white on black; 28x28 images are zero-padded to
    32x32.

    Args:
        device: Where it computes.
    """

    def __init__(self, device: str | torch.device = "cpu") -> None:
        network, _ = load_digit_network()
        super().__init__("digits", "frechet-digits", DIM, hash_tensors(network.state_dict()), 256, device)
        self._network = network.to(self.device)

    def protocol(self) -> dict[str, Any]:
        """Return how an image is preprocessed, for the card."""
        return {
            "resize": "none; 28x28 zero-padded to 32x32",
            "quantization": QUANTIZATION,
            "channels": "gray",
            "precision": "float32",
            "weights": "bundled",
        }

    def check(self, shape: tuple[int, int, int]) -> None:
        """Raise UsageError unless images are (1, 32, 32) or (1, 28, 28)."""
        if shape not in ((1, SIDE, SIDE), (1, 28, 28)):
            raise UsageError(
                f"digits features take gray 28x28 or 32x32 digits, not (C, H, W) = {shape}; choose other features"
            )

    def extract(self, images: Tensor) -> Tensor:
        """Pad to 32x32 and run the classifier up to its hidden layer."""
        margin = (SIDE - images.shape[-1]) // 2
        return self._network.features(functional.pad(images.float() / 255, (margin,) * 4))
