"""Features of large networks that were trained on photos of all kinds: DINOv2's and CLIP's class tokens."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from expost.metrics.features import QUANTIZATION, Features, check_rgb_or_gray
from expost.metrics.vit import Shape, VisionTransformer, adapted, clip, dinov2
from expost.metrics.weights import VARIABLE, read_state, weight_places
from expost.utils.downloads import PublicFile, cache_folder, download, verify
from expost.utils.hashing import hash_tensors

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


@dataclass(frozen=True)
class Encoder:
    """A published network that describes images.

    Attributes:
        name: Name of its features.
        score_name: What the Frechet distance on them is called.
        shape: Its shape.
        mean: Mean of the channels that it was trained with, of pixels in [0, 1].
        std: Their standard deviation.
        public: The published weights.
        hub: Where the Hugging Face Hub's cache has that file, relative to it; empty if it is not from there.
    """

    name: str
    score_name: str
    shape: Shape
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    public: PublicFile
    hub: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """Names that are looked for in a folder, best first; safetensors are a user's own conversion."""
        return (self.public.name, *self.public.aliases, f"{Path(self.public.name).stem}.safetensors")

    def prepared(self, images: Tensor) -> Tensor:
        """Resize and normalize images for the network.

        Args:
            images: uint8, shape (B, C, H, W), C 1 or 3.

        Returns:
            float32, shape (B, 3, side, side), on their device.
        """
        size = (self.shape.side, self.shape.side)
        resized = functional.interpolate(images.float(), size=size, mode="bicubic", antialias=True)
        pixels = resized.clamp(0, 255).expand(-1, 3, -1, -1) / 255
        mean, std = (torch.tensor(values, device=images.device).view(3, 1, 1) for values in (self.mean, self.std))
        return (pixels - mean) / std


def _dinov2(letter: str, shape: Shape, name: str, sha256: str, size: int) -> Encoder:
    file = f"dinov2_vit{letter}14_pretrain.pth"
    url = f"https://dl.fbaipublicfiles.com/dinov2/dinov2_vit{letter}14/{file}"
    return Encoder(name, f"frechet-{name}", shape, *_IMAGENET, PublicFile(file, (url,), sha256, size))


def _clip(model: str, revision: str, shape: Shape, name: str, sha256: str, size: int) -> Encoder:
    url = f"https://huggingface.co/openai/{model}/resolve/{revision}/pytorch_model.bin"
    cached = f"models--openai--{model}/snapshots/{revision}/pytorch_model.bin"
    return Encoder(name, f"frechet-{name}", shape, *_CLIP, PublicFile(f"{model}.bin", (url,), sha256, size), cached)


#: The networks by the name of their features. Weights are Apache 2.0 (DINOv2) and MIT (CLIP).
ENCODERS: dict[str, Encoder] = {
    each.name: each
    for each in (
        _dinov2(
            "s",
            dinov2(384, 12, 6),
            "dinov2-s",
            "b938bf1bc15cd2ec0feacfe3a1bb553fe8ea9ca46a7e1d8d00217f29aef60cd9",
            88_283_115,
        ),
        _dinov2(
            "b",
            dinov2(768, 12, 12),
            "dinov2",
            "0b8b82f85de91b424aded121c7e1dcc2b7bc6d0adeea651bf73a13307fad8c73",
            346_378_731,
        ),
        _dinov2(
            "l",
            dinov2(1024, 24, 16),
            "dinov2-l",
            "d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428",
            1_217_586_395,
        ),
        _clip(
            "clip-vit-base-patch32",
            "3d74acf9a28c67741b2f4f2ea7635f0aaf6f0268",
            clip(768, 12, 12, 32, 224, 512),
            "clip",
            "a63082132ba4f97a80bea76823f544493bffa8082296d62d71581a4feff1576f",
            605_247_071,
        ),
        _clip(
            "clip-vit-large-patch14-336",
            "ce19dc912ca5cd21c8a653c79e251e808ccabcd1",
            clip(1024, 24, 16, 14, 336, 768),
            "clip-l-336",
            "c6032c2e0caae3dc2d4fba35535fa6307dbb49df59c7e182b1bc4b3329b81801",
            1_711_974_081,
        ),
    )
}


def find_encoder(encoder: Encoder) -> Path | None:
    """Return the file of a network's weights, or None; nothing is downloaded.

    Places, in this order: `$EXPOST_WEIGHTS` (that file, or a folder), the folder for downloads, `$EXPOST_DATA/vision/`,
    `torch.hub`'s folder, where torch-fidelity and dgm-eval keep DINOv2's, and the Hugging Face Hub's cache.

    Raises:
        UsageError: if `$EXPOST_WEIGHTS` is set to what does not exist.
    """
    for place in weight_places("vision"):
        for path in [place] if place.is_file() else [place / name for name in encoder.names]:
            if path.is_file() and path.name in encoder.names:
                return path
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface").expanduser()
    cached = home / "hub" / encoder.hub
    return cached if encoder.hub and cached.is_file() else None


class VisionFeatures(Features):
    """The class token of a large vision transformer: DINOv2's (Stein et al. 2023 score with it), or CLIP's, projected.

    uint8 pixels are resized bicubically with antialiasing, without cropping, as dgm-eval does, clamped to 0..255, and
    normalized by the channels' mean and deviation; gray images are repeated to three channels. (torch-fidelity resizes
    bilinearly in TensorFlow 1's manner instead: on images of the network's own size it gives the same features.)

    Args:
        encoder: The network.
        device: Where it computes.

    Raises:
        DataError: if the weights are neither here nor can be downloaded, or are not those of this network.
    """

    def __init__(self, encoder: Encoder, device: str | torch.device = "cpu") -> None:
        otherwise = (
            f"or set {VARIABLE} to its folder, or take features that need none (--features digits, pixels or onet)"
        )
        path = find_encoder(encoder) or download(cache_folder(), encoder.public, otherwise)
        # the Hub's cache has a file of that hash under a name that many files have
        public = encoder.public if path.name in encoder.names else replace(encoder.public, name=path.name)
        self._verified = verify(path, public)
        weights = adapted(read_state(path), encoder.shape, str(path))
        device = torch.device(device)
        super().__init__(
            encoder.name,
            encoder.score_name,
            encoder.shape.dim,
            hash_tensors(weights),
            64 if device.type == "cuda" else 8,
            device,
        )
        with torch.device("meta"):  # building it with its weights draws no random numbers
            network = VisionTransformer(encoder.shape)
        network.load_state_dict(weights, assign=True)
        self._network = network.to(device).eval().requires_grad_(False)
        self._encoder = encoder

    def protocol(self) -> dict[str, Any]:
        """Return how an image is preprocessed, for the card."""
        side = self._encoder.shape.side
        return {
            "resize": f"bicubic, antialiased, to {side}x{side}, not cropped; smaller images are enlarged",
            "quantization": QUANTIZATION,
            "channels": "RGB, gray repeated to three",
            "precision": "float32",
            "weights": "published file, SHA-256 checked" if self._verified else "given by the user, origin not checked",
        }

    def check(self, shape: tuple[int, int, int]) -> None:
        """Raise UsageError unless there are 1 or 3 channels and some pixels."""
        check_rgb_or_gray(self.name, shape)

    def extract(self, images: Tensor) -> Tensor:
        """Resize, normalize and run the network."""
        return self._network(self._encoder.prepared(images))
