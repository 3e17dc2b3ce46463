"""Small records that the parts pass to each other: codes, losses, splits, data sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    from expost.config import SoundConfig
    from expost.grammar.codec import Codec


@dataclass(frozen=True)
class LatentCode:
    """What a latent makes of the encoder's features, for a batch of B examples.

    Attributes:
        z: What the decoder gets, shape (B, d) or (B, d, h, w). Noisy for stochastic latents in training.
        mean: The noiseless code E(x), same shape as `z`; densities are fitted on it, or on `indices` if there are any.
        log_var: Log-variance of the Gaussian posterior, broadcastable to `mean`; None where there is none.
        quantized: The vectors of the symbols nearest to `mean`, with gradients to a codebook that is learned by them;
            None unless the latent is discrete.
        indices: These symbols, int64, shape (B, h, w); None unless the latent is discrete.
        prior_mean: Means of the posteriors of the pseudo-inputs, shape (K, d); None where there are none.
        prior_log_var: Their log-variances, same shape.
    """

    z: Tensor
    mean: Tensor
    log_var: Tensor | None = None
    quantized: Tensor | None = None
    indices: Tensor | None = None
    prior_mean: Tensor | None = None
    prior_log_var: Tensor | None = None


class Quantizer(Protocol):
    """The symbols of a discrete code, and their vectors: what a grid of whole numbers stands for."""

    @property
    def symbols(self) -> int:
        """Number of symbols K; they are numbered from 0."""

    def vectors(self, indices: Tensor) -> Tensor:
        """Return vectors, shape (B, d, h, w), of symbols, int64, shape (B, h, w)."""

    def nearest(self, z: Tensor) -> Tensor:
        """Return the symbols, int64, shape (B, h, w), whose vectors are nearest to those of a map (B, d, h, w)."""


@dataclass(frozen=True)
class Loss:
    """A training objective: the weighted total and its unweighted terms, so that logs compare across models.

    Attributes:
        total: Scalar, reconstruction + beta * penalty + lambda * regularizer.
        terms: Scalars by name ("reconstruction", and "penalty" / "regularizer" where the model has them), unweighted.
        symbols: How often each symbol of a discrete code occurs in the batch, int64, shape (K,); None in training,
            and for other codes.
    """

    total: Tensor
    terms: Mapping[str, Tensor] = field(default_factory=dict)
    symbols: Tensor | None = None

    def times(self, share: float) -> Loss:
        """Scale by this shard's share of the batch."""
        if share == 1:
            return self
        terms = {name: value * share for name, value in self.terms.items()}
        return Loss(self.total * share, terms, self.symbols)

    def detach(self) -> Loss:
        """Return the values without their graph of derivatives."""
        terms = {name: value.detach() for name, value in self.terms.items()}
        return Loss(self.total.detach(), terms, self.symbols)


@dataclass(frozen=True)
class Split:
    """One part of a data set.

    Attributes:
        x: Examples. Images: uint8, shape (N, C, H, W), 0..255. Vectors: float32, shape (N, d). Strings: rows of
            symbols, uint8 or int16, shape (N, L). A large data set may be mapped from a file: never write to it, or the
            system ends the process.
        y: Labels, int64, shape (N,), or None.
    """

    x: Tensor
    y: Tensor | None = None

    def __len__(self) -> int:
        """Return the number of examples."""
        return self.x.shape[0]

    def spread(self, n: int) -> Tensor:
        """Return the rows of n examples from all over it, int64, shape (min(n, N),): files are often sorted by class.

        Example:
            >>> Split(torch.zeros(9, 2)).spread(3)
            tensor([0, 4, 8])
        """
        return torch.linspace(0, len(self) - 1, min(n, len(self)), dtype=torch.float64).round().long()

    def across(self, n: int) -> Split:
        """Return the examples of `spread`, with their labels."""
        rows = self.spread(n)
        return Split(self.x[rows], None if self.y is None else self.y[rows])


@dataclass(frozen=True)
class Data:
    """A data set in three disjoint parts.

    Attributes:
        name: The name or path that it was loaded by.
        train: For fitting weights and densities.
        validation: For choosing: learning rate, checkpoint, hyperparameters.
        test: For scores only.
        note: One line on where it came from and how it was prepared.
        codec: Converts strings to rows of symbols and back; None for images and vectors.
        domain: What strings are: "molecules", "expressions" or "text"; empty for images and vectors.
        classes: Names of the labels 0, 1, ... where the data name them; empty where labels are numbers.
        columns: Names of a vector's entries where the data name them; empty otherwise.
        resized_by: Version of Pillow that resized the images, since versions do it differently; empty if none were.
        sound: How recordings became log-mel frames, which are images; None for other examples.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    note: str = ""
    codec: Codec | None = None
    domain: str = ""
    classes: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    resized_by: str = ""
    sound: SoundConfig | None = None

    def labels(self, split: Split) -> NDArray[Any] | None:
        """Return a split's labels as the data name them: int64, or strings, shape (N,); None if it has none."""
        if split.y is None:
            return None
        numbers = split.y.numpy()
        return np.array(self.classes)[numbers] if self.classes else numbers

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one example: (C, H, W) for images, (d,) for vectors, (L, V) one-hot for strings."""
        return (self.codec.length, self.codec.size) if self.codec else tuple(self.train.x.shape[1:])


class Layout(Enum):
    """How an example's numbers are arranged, which decides the networks and weights that suit it."""

    #: (d,): unbounded numbers.
    VECTOR = 1
    #: (L, V): one-hot symbols.
    SEQUENCE = 2
    #: (C, H, W): values in [0, 1].
    IMAGE = 3
    #: Any other number of axes, which only a network that flattens can take.
    OTHER = 0


def layout_of(shape: Sequence[int]) -> Layout:
    """Return the layout of examples of a shape, as a model sees them.

    Example:
        >>> layout_of((1, 28, 28)), layout_of((15, 76))
        (<Layout.IMAGE: 3>, <Layout.SEQUENCE: 2>)
    """
    axes = {1: Layout.VECTOR, 2: Layout.SEQUENCE, 3: Layout.IMAGE}
    return axes.get(len(shape), Layout.OTHER)


def to_unit(x: Tensor) -> Tensor:
    """Turn uint8 pixels 0..255 into float32 in [0, 1]; leave rows of symbols and floating-point examples as they are.

    Example:
        >>> to_unit(torch.tensor([[[[0, 255]]]], dtype=torch.uint8))
        tensor([[[[0., 1.]]]])
    """
    return x.float().div_(255) if x.dtype == torch.uint8 and x.dim() == 4 else x
