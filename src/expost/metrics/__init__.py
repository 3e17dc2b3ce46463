"""Scores: features of images, the Frechet distance between their distributions, and errors pixel by pixel.

A score's name follows its features: only the 2048 of Inception make an FID. `FEATURES` lists them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

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
from expost.metrics.vision import ENCODERS, VisionFeatures, find_encoder
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
        load: Loads them onto a device, downloading weights if need be.
        find: Returns the file of their weights if it is on this machine; None for those that come with the package.
        caution: What they do not see, in a few words, for the line above scores; empty if nothing is to be said.
        sound: What recordings have to be brought to; None for features of any images.
    """

    name: str
    score_name: str
    dim: int
    summary: str
    load: Callable[[str | torch.device], Features]
    find: Callable[[], Path | None] | None = None
    caution: str = ""
    sound: SoundConfig | None = None

    def available(self) -> bool:
        """Return whether they can be loaded without a download.

        Raises:
            UsageError: if `$EXPOST_WEIGHTS` is set to what does not exist.
        """
        return self.find is None or self.find() is not None


def _inception(dim: int, summary: str, precision: Precision = "float32") -> FeatureSet:
    return FeatureSet(
        name=f"inception-{dim}" + ("-bf16" if precision == "bfloat16" else ""),
        score_name=SCORE_NAME[dim],
        dim=dim,
        summary=summary,
        load=lambda device: InceptionFeatures(dim, device, precision),
        find=lambda: find_weights(LAST_LAYER[dim]),
    )


def _vision(name: str, summary: str) -> FeatureSet:
    encoder = ENCODERS[name]
    return FeatureSet(
        name=name,
        score_name=encoder.score_name,
        dim=encoder.shape.dim,
        summary=summary,
        load=lambda device: VisionFeatures(ENCODERS[name], device),
        find=lambda: find_encoder(ENCODERS[name]),
        caution=f"{name} features, of images resized to {encoder.shape.side} x {encoder.shape.side}",
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
        DigitFeatures,
    ),
    FeatureSet(
        "pixels",
        "frechet-pixels",
        192,
        "an 8x8 thumbnail, blind to detail; any images",
        PixelFeatures,
        caution="8 x 8 thumbnails: blind to detail",
    ),
    FeatureSet(
        "onet",
        "frechet-onet",
        ONET_DIM,
        "early layers of a bundled face network (MIT); photos: tells sharp from blurred",
        OnetFeatures,
        caution="texture at 48 x 48: nearly blind to layout",
    ),
    _vision("dinov2", "DINOv2 ViT-B/14, photos of all kinds; 346 MB"),
    _vision("dinov2-s", "DINOv2 ViT-S/14, the smallest; 88 MB"),
    _vision("dinov2-l", "DINOv2 ViT-L/14, that of FD-DINOv2 (Stein et al. 2023); 1.2 GB"),
    _vision("clip", "CLIP ViT-B/32, trained with captions; 605 MB"),
    _vision("clip-l-336", "CLIP ViT-L/14@336px, that of CMMD; 1.7 GB"),
    FeatureSet(
        "spoken-digits",
        "frechet-spoken-digits",
        SPOKEN_DIGITS_DIM,
        "a bundled classifier of spoken digits; log-mel frames as fsdd has them",
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
    "VisionFeatures",
    "frechet_distance",
    "mse",
    "psnr",
    "quantize",
    "ssim",
]
