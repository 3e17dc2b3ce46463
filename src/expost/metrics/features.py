"""Features: fixed extractors that turn uint8 images into vectors, which the scores of distributions compare."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any, Protocol, TypeGuard

import torch
from torch import Tensor
from torch.nn import functional

from expost import distributed
from expost.errors import DataError, UsageError
from expost.metrics.frechet import RunningStatistics, Statistics
from expost.utils.hashing import hash_tensors
from expost.utils.precision import full_float32
from expost.utils.progress import progress

_STANDARDIZED_AT_ONCE = 2**22

QUANTIZATION = "uint8; floats in [0, 1] by round(255 x), clamped to 0..255"


class Features(ABC):
    """A fixed extractor: maps uint8 images to float32 vectors, one per image.

    Args:
        name: Its name in `FEATURES`.
        score_name: What the Frechet distance on these features is called. Only Inception's is an FID.
        dim: Number of features D.
        weights_hash: `hash_tensors` of its weights; empty where it has none.
        batch_size: Images taken at once unless a call says otherwise.
        device: Where it computes.
    """

    def __init__(
        self, name: str, score_name: str, dim: int, weights_hash: str, batch_size: int, device: str | torch.device
    ) -> None:
        self.name = name
        self.score_name = score_name
        self.dim = dim
        self.weights_hash = weights_hash
        self.batch_size = batch_size
        self.device = torch.device(device)

    @abstractmethod
    def protocol(self) -> dict[str, Any]:
        """Return how an image is preprocessed: `resize`, `quantization`, `channels`, `precision` and `weights`."""

    @abstractmethod
    def check(self, shape: tuple[int, int, int]) -> None:
        """Raise UsageError unless images of `shape` (C, H, W) can be used."""

    @abstractmethod
    def extract(self, images: Tensor) -> Tensor:
        """Map one batch, uint8 (B, C, H, W) on `device`, to float32 (B, D); called under `torch.inference_mode`."""

    def __call__(self, images: Tensor | Iterable[Tensor], batch_size: int | None = None) -> Tensor:
        """Return the features of all images.

        Args:
            images: Shape (N, C, H, W), or batches of that form. uint8 0..255; or floating point in [0, 1], which
                `quantize` rounds, so that a decoder's output and a saved picture of it get the same features.
            batch_size: Images taken at once; changes the result by rounding at most.

        Returns:
            float32, shape (N, D), on the CPU; (0, D) for no images.

        Raises:
            UsageError: for images of a shape that these features do not take, or a batch size below 1.
            DataError: for pixels that are NaN or far outside [0, 1].
        """
        parts = [torch.empty(0, self.dim)]
        mine = distributed.shard(images) if _shared(images) else images
        with progress(f"{self.name} features", len(mine) if isinstance(mine, Tensor) else 0) as bar:
            for part in self._batches(mine, batch_size):
                parts.append(part.cpu())
                bar.advance(len(part))
        features = torch.cat(parts)
        return distributed.gather(features, len(images)) if _shared(images) else features

    def statistics(self, images: Tensor | Iterable[Tensor], batch_size: int | None = None) -> Statistics:
        """Return mean and covariance of the images' features in one pass, keeping neither images nor features.

        Arguments and errors are those of a call.

        Raises:
            DataError: for fewer than 2 images.
        """
        running = RunningStatistics(self.device if self.device.type == "cuda" else "cpu")
        mine = distributed.shard(images) if _shared(images) else images
        with progress(f"{self.name} features", len(mine) if isinstance(mine, Tensor) else 0) as bar:
            for part in self._batches(mine, batch_size):
                running.add(part)
                bar.advance(len(part))
        if _shared(images):
            running.all_reduce(distributed.add_up)
        return running.result()

    def _batches(self, images: Tensor | Iterable[Tensor], batch_size: int | None) -> Iterator[Tensor]:
        size = self.batch_size if batch_size is None else batch_size
        if size < 1:
            raise UsageError(f"batch_size is {size}; give at least 1")
        for block in (images,) if isinstance(images, Tensor) else images:
            if block.dim() != 4:
                raise UsageError(f"images have shape {tuple(block.shape)}; give (N, C, H, W)")
            _, channels, height, width = block.shape
            self.check((channels, height, width))
            for part in block.detach().split(size):
                if len(part):
                    with torch.inference_mode(), full_float32():
                        features = self.extract(quantize(part).to(self.device))
                    yield features.clone()  # made outside, it is an ordinary tensor that autograd may save


def _shared(images: Tensor | Iterable[Tensor]) -> TypeGuard[Tensor]:
    """Return whether processes share the work: they do for a tensor, which all have, but not for batches."""
    return distributed.world() > 1 and isinstance(images, Tensor) and len(images) >= distributed.world()


def quantize(images: Tensor) -> Tensor:
    """Turn pixels into uint8: round(255 x), clamped to 0..255; uint8 is left as it is. Halves go to the even neighbour.

    Raises:
        UsageError: for integer types other than uint8, or values so far outside [0, 1] that they have another range.
        DataError: for NaN or infinity.

    Example:
        >>> quantize(torch.tensor([-0.1, 0.0, 0.25, 1.0, 1.2]))
        tensor([  0,   0,  64, 255, 255], dtype=torch.uint8)
    """
    if images.dtype == torch.uint8:
        return images
    if not images.is_floating_point():
        kind = str(images.dtype).removeprefix("torch.")
        raise UsageError(f"images are of type {kind}; give uint8 0..255 or floats in [0, 1]")
    if images.numel() == 0:
        return images.to(torch.uint8)
    values = images.float()
    if not bool(values.isfinite().all()):
        raise DataError("images hold NaN or infinity; check what made them")
    low, high = float(values.min()), float(values.max())
    if low < -0.5 or high > 1.5:  # an unbounded decoder may leave [0, 1] a little; this is another scale
        raise UsageError(f"floating-point pixels range from {low:g} to {high:g}; scale them to [0, 1]")
    return values.mul(255).round_().clamp_(0, 255).to(torch.uint8)


class Space(Protocol):
    """A space in which examples are compared as vectors: `Features` of images, or the values of vectors themselves."""

    name: str
    score_name: str
    weights_hash: str

    def protocol(self) -> dict[str, Any]:
        """Return how an example is preprocessed, for the card."""

    def __call__(self, x: Tensor, /) -> Tensor:
        """Map examples (N, ...) to float32 (N, D)."""


class StandardizedValues:
    """Vectors as they are, each dimension standardized by a training set's mean and standard deviation.

    Args:
        train: The training set, shape (N, d).
        by: Name of that set, for the protocol.

    Example:
        >>> StandardizedValues(torch.tensor([[0.0], [2.0]]))(torch.tensor([[1.0]]))
        tensor([[0.]])
    """

    name, score_name = "values", "frechet-values"

    def __init__(self, train: Tensor, by: str = "training split") -> None:
        self._mean, std = _mean_and_std(train)
        self._scale = std.clamp_min(1e-12)
        self._by = by
        self.weights_hash = hash_tensors({"mean": self._mean, "scale": self._scale})

    def protocol(self) -> dict[str, Any]:
        """Return how an example is preprocessed, for the card."""
        return {"values": f"standardized by the {self._by}"}

    def __call__(self, x: Tensor, /) -> Tensor:
        """Return the standardized vectors."""
        result = torch.empty(x.shape, dtype=torch.float32, device=x.device)
        rows = max(1, _STANDARDIZED_AT_ONCE // max(1, x.shape[1]))
        for start in range(0, len(x), rows):
            part = slice(start, start + rows)
            result[part] = ((x[part].to(self._mean) - self._mean) / self._scale).float()
        return result


def _mean_and_std(x: Tensor, elements: int = _STANDARDIZED_AT_ONCE) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of each column in two passes, converting a part at a time to float64."""
    parts = x.split(max(1, elements // max(1, x.shape[1])))  # type: ignore[no-untyped-call]
    if len(parts) <= 1:
        return x.double().mean(0), x.double().std(0)
    mean = sum((part.double().sum(0) for part in parts), x.new_zeros(x.shape[1]).double()) / len(x)
    squares = sum(((part.double() - mean).square().sum(0) for part in parts), torch.zeros_like(mean))
    return mean, (squares / (len(x) - 1)).sqrt()


class PixelFeatures(Features):
    """Images averaged over an 8x8 grid: 192 values in [0, 1]. Needs no weights, and takes images of any kind.

    The Frechet distance on them ("frechet-pixels") compares mean and covariance of the coarse layout. It is blind to
    sharpness and detail: use it only where no learned features are available.

    Args:
        device: Where it computes.

    Example:
        >>> half = torch.tensor([0, 255], dtype=torch.uint8).repeat_interleave(8).expand(1, 1, 16, 16)
        >>> PixelFeatures()(half)[0, :8]
        tensor([0., 0., 0., 0., 1., 1., 1., 1.])
    """

    side = 8

    def __init__(self, device: str | torch.device = "cpu") -> None:
        super().__init__("pixels", "frechet-pixels", 3 * self.side**2, "", 1024, device)

    def protocol(self) -> dict[str, Any]:
        """Return how an image is preprocessed, for the card."""
        return {
            "resize": f"area average to {self.side}x{self.side}",
            "quantization": QUANTIZATION,
            "channels": "RGB, gray repeated to three",
            "precision": "float32",
            "weights": "none",
        }

    def check(self, shape: tuple[int, int, int]) -> None:
        """Raise UsageError unless there are 1 or 3 channels and some pixels."""
        check_rgb_or_gray(self.name, shape)

    def extract(self, images: Tensor) -> Tensor:
        """Average over the grid; channels first, then rows, then columns."""
        means = functional.adaptive_avg_pool2d(images.float() / 255, self.side)
        return means.expand(-1, 3, -1, -1).flatten(1)


def check_rgb_or_gray(name: str, shape: tuple[int, int, int]) -> None:
    """Raise UsageError unless `shape` (C, H, W) has 1 or 3 channels and some pixels; `name` is for the message."""
    if shape[0] not in (1, 3) or min(shape) < 1:
        raise UsageError(f"{name} features take gray or RGB images, not (C, H, W) = {shape}; give 1 or 3 channels")
