"""Features of a small classifier of spoken digits that comes with the package: distances and intended digits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from expost.config import SoundConfig
from expost.errors import UsageError
from expost.metrics.bundled import read_network
from expost.metrics.features import QUANTIZATION, Features
from expost.utils.hashing import hash_tensors

DIM = 64
"""Number of features."""

HEARD = SoundConfig(rate=8000, frames=64, mels=64, hop=80, window=256)
"""What recordings are brought to for the classifier: as the named set `fsdd` has them."""

WEIGHTS = Path(__file__).with_name("spoken_digit_features.safetensors")
"""The trained weights; `scripts/train_spoken_digit_features.py` makes them."""


class SpokenDigitNetwork(nn.Module):
    """A classifier of 64x64 log-mel frames: four convolutions of stride 2, a hidden layer of 64, ten logits.

    Example:
        >>> with torch.random.fork_rng():
        ...     network = SpokenDigitNetwork()
        >>> x = torch.zeros(5, 1, 64, 64)
        >>> network.features(x).shape, network(x).shape
        (torch.Size([5, 64]), torch.Size([5, 10]))
    """

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after, kernel in ((1, 16, 5), (16, 32, 3), (32, 48, 3), (48, 64, 3)):
            layers += [nn.Conv2d(before, after, kernel, stride=2, padding=kernel // 2), nn.ReLU()]
        self.convs = nn.Sequential(*layers, nn.Flatten())
        self.hidden = nn.Linear(64 * 4 * 4, DIM)
        self.head = nn.Linear(DIM, 10)

    def features(self, x: Tensor) -> Tensor:
        """Map frames in [0, 1], shape (B, 1, 64, 64), to the activations before the last layer, (B, 64), >= 0."""
        return functional.relu(self.hidden(self.convs(x)))

    def forward(self, x: Tensor) -> Tensor:
        """Map frames in [0, 1], shape (B, 1, 64, 64), to logits, shape (B, 10)."""
        return self.head(self.features(x))


def load_spoken_digit_network(path: Path = WEIGHTS) -> tuple[SpokenDigitNetwork, dict[str, Any]]:
    """Read the trained classifier, in evaluation mode, and the record of how it was trained and how well it does.

    Raises:
        DataError: if the file is missing, truncated, or holds another network.
    """
    return read_network(path, SpokenDigitNetwork, "the classifier of spoken digits")


class SpokenDigitFeatures(Features):
    """The 64 activations before the last layer of the bundled classifier; their distance is "frechet-spoken-digits".

    The classifier is trained on the four training speakers of `fsdd`; it has not heard the two others (its file records
    its accuracy on them). It is meant for log-mel frames as that set has them.

    Args:
        device: Where it computes.
    """

    def __init__(self, device: str | torch.device = "cpu") -> None:
        network, _ = load_spoken_digit_network()
        super().__init__("spoken-digits", "frechet-spoken-digits", DIM, hash_tensors(network.state_dict()), 256, device)
        self._network = network.to(self.device)

    def protocol(self) -> dict[str, Any]:
        """Return how frames are prepared, for the card."""
        return {
            "resize": "none",
            "quantization": QUANTIZATION,
            "channels": "gray",
            "precision": "float32",
            "weights": "bundled",
        }

    def check(self, shape: tuple[int, int, int]) -> None:
        """Raise UsageError unless frames are (1, 64, 64)."""
        if shape != (1, HEARD.mels, HEARD.frames):
            raise UsageError(
                f"spoken-digits features take {HEARD.frames} log-mel frames of {HEARD.mels} bands, as fsdd has them, "
                f"not (C, H, W) = {shape}; choose other features"
            )

    def extract(self, images: Tensor) -> Tensor:
        """Run the classifier up to its hidden layer."""
        return self._network.features(images.float() / 255)


@torch.inference_mode()
def recognized(images: Tensor, network: SpokenDigitNetwork | None = None) -> Tensor:
    """Return the digits that the bundled classifier hears, int64, shape (N,).

    Args:
        images: uint8, or floats in [0, 1], shape (N, 1, 64, 64).
        network: Another classifier instead.
    """
    network = network or load_spoken_digit_network()[0]
    heard = [
        network((batch.float() / 255 if batch.dtype == torch.uint8 else batch.float()).cpu()).argmax(1)
        for batch in torch.split(images, 256)
    ]
    return torch.cat(heard)
