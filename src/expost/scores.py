"""Scores that carry their protocol."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Card:
    """How a score was computed; scores of different cards are not to be compared.

    Attributes:
        model: SHA-256 of the weights' file that was scored; empty for models that are not of a run.
        features: What turned images into vectors; "none" for scores of pixels.
        weights: SHA-256 of the features' weights; empty where there are none.
        reference: The data set and split that was compared with.
        reference_count: Its number of examples.
        count: Number of examples scored.
        preprocessing: Resize, channels, quantisation and precision, as the features state them.
        density: What the samples came from, with its options; empty where there is none.
        seed: What seeded samples and pairs.
        version: The expost version.
    """

    model: str
    features: str
    weights: str
    reference: str
    reference_count: int
    count: int
    preprocessing: dict[str, Any]
    density: dict[str, Any]
    seed: int
    version: str


@dataclass(frozen=True)
class Score:
    """One number with its protocol.

    Attributes:
        name: "fid", "fid-768", "frechet-digits", "mse", "psnr", "ssim".
        of: What was scored: "reconstruction", "interpolation", or a density's name.
        value: The number.
        card: How it was computed.
    """

    name: str
    of: str
    value: float
    card: Card
