"""The features of FID: resized images through the Inception network of 2015-12-05."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from expost.errors import UsageError
from expost.metrics.features import QUANTIZATION, Features, check_rgb_or_gray
from expost.metrics.inception_network import LAST_LAYER, inception
from expost.metrics.weights import PUBLIC, find_or_download, fold, read_state
from expost.utils.downloads import verify
from expost.utils.hashing import hash_tensors

Precision = Literal["float32", "bfloat16"]

SIDE = 299
"""Side of the network's input, in pixels."""

SCORE_NAME = {768: "fid-768", 2048: "fid"}
"""What the Frechet distance on that many features is called."""


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
        scale = torch.full((), size / side, device=x.device)  # made on the device: a copy would wait
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
    """Lay out images and kernels with the channels innermost, which makes convolutions faster."""
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
        DataError: if the weights are neither here nor can be downloaded, or are not those of this network.
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
        """Return how an image is preprocessed, for the card."""
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
