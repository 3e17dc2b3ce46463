"""Scores: features of images, the Frechet distance between their distributions, and errors pixel by pixel.

A score's name follows its features: only the 2048 of Inception make an FID. `FEATURES` lists them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from expost.config import SoundConfig
from expost.metrics.digits import DIM as DIGITS_DIM
from expost.metrics.digits import DigitFeatures
from expost.metrics.features import Features, PixelFeatures, Space, StandardizedValues, quantize
from expost.metrics.frechet import RunningStatistics, Statistics, frechet_distance
from expost.metrics.image import mse, psnr, ssim
from expost.metrics.inception import SCORE_NAME, InceptionFeatures, Precision
from expost.metrics.inception_network import LAST_LAYER
from expost.metrics.onet import DIM as ONET_DIM
from expost.metrics.onet import OnetFeatures
from expost.metrics.spoken_digits import DIM as SPOKEN_DIGITS_DIM
from expost.metrics.spoken_digits import HEARD, SpokenDigitFeatures
from expost.metrics.weights import find_weights
from expost.registry import Registry


@dataclass(frozen=True)
class FeatureSet:
    """A set of features: what is known before they are loaded, and how to load them.

    Attributes:
        name: Their name.
        score_name: What the Frechet distance on them is called.
        dim: Number of features.
        summary: One line on what they are for.
        available: Returns whether they can be loaded without a download.
        load: Loads them onto a device, downloading weights if need be.
        caution: What they do not see, in a few words, for the line above scores; empty if nothing is to be said.
        sound: What recordings have to be brought to; None for features of any images.
    """

    name: str
    score_name: str
    dim: int
    summary: str
    available: Callable[[], bool]
    load: Callable[[str | torch.device], Features]
    caution: str = ""
    sound: SoundConfig | None = None


def _inception(dim: int, summary: str, precision: Precision = "float32") -> FeatureSet:
    return FeatureSet(
        name=f"inception-{dim}" + ("-bf16" if precision == "bfloat16" else ""),
        score_name=SCORE_NAME[dim],
        dim=dim,
        summary=summary,
        available=lambda: find_weights(LAST_LAYER[dim]) is not None,
        load=lambda device: InceptionFeatures(dim, device, precision),
    )


_SETS = (
    _inception(2048, "the features of FID; color and gray images"),
    _inception(768, "an earlier layer of the same network, FID-768; color and gray images"),
    _inception(2048, "the same in bfloat16: about twice as fast, not to be mixed with float32", "bfloat16"),
    _inception(768, "the same in bfloat16: about twice as fast, not to be mixed with float32", "bfloat16"),
    FeatureSet(
        "digits",
        "frechet-digits",
        DIGITS_DIM,
        "a bundled classifier; 28x28 or 32x32 digits",
        lambda: True,
        DigitFeatures,
    ),
    FeatureSet(
        "pixels",
        "frechet-pixels",
        192,
        "an 8x8 thumbnail, blind to detail; any images",
        lambda: True,
        PixelFeatures,
        caution="8 x 8 thumbnails: blind to detail",
    ),
    FeatureSet(
        "onet",
        "frechet-onet",
        ONET_DIM,
        "early layers of a bundled face network (MIT); photos: tells sharp from blurred",
        lambda: True,
        OnetFeatures,
        caution="texture at 48 x 48: nearly blind to layout",
    ),
    FeatureSet(
        "spoken-digits",
        "frechet-spoken-digits",
        SPOKEN_DIGITS_DIM,
        "a bundled classifier of spoken digits; log-mel frames as fsdd has them",
        lambda: True,
        SpokenDigitFeatures,
        sound=HEARD,
    ),
)

FEATURES: Registry[FeatureSet] = Registry("features", {each.name: each for each in _SETS})
"""The features by name: `FEATURES["inception-2048"].load("cpu")`."""

__all__ = [
    "FEATURES",
    "DigitFeatures",
    "FeatureSet",
    "Features",
    "InceptionFeatures",
    "OnetFeatures",
    "PixelFeatures",
    "Precision",
    "RunningStatistics",
    "Space",
    "SpokenDigitFeatures",
    "StandardizedValues",
    "Statistics",
    "frechet_distance",
    "mse",
    "psnr",
    "quantize",
    "ssim",
]
