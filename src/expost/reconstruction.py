"""The reconstruction slot: how far D(E(x)) is from x. Each is summed over an example, averaged over the batch.

| name | term L_REC |
|---|---|
| squared-error | ||x - x'||^2 |
| bernoulli | -sum x log x' + (1 - x) log(1 - x') |
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor
from torch.nn import functional

from expost.registry import Registry


class Reconstruction(ABC):
    """The distance of an output from its input."""

    @abstractmethod
    def __call__(self, x: Tensor, output: Tensor) -> Tensor:
        """Return the scalar term for inputs and outputs of shape (B, ...)."""


class SquaredError(Reconstruction):
    """L_REC = ||x - D(E(x))||^2 (Ghosh et al. 2020, eq. 10), without a factor 1/2.

    Example:
        >>> import torch
        >>> SquaredError()(torch.zeros(2, 1, 2, 2), torch.ones(2, 1, 2, 2))
        tensor(4.)
    """

    def __call__(self, x: Tensor, output: Tensor) -> Tensor:
        """Return the summed squared error, averaged over the batch."""
        return (x - output).square().flatten(1).sum(1).mean()


class Bernoulli(Reconstruction):
    """Cross-entropy in nats of pixels in [0, 1] as Bernoulli means; outputs are probabilities in [0, 1]."""

    def __call__(self, x: Tensor, output: Tensor) -> Tensor:
        """Return the summed cross-entropy, averaged over the batch."""
        return functional.binary_cross_entropy(output, x, reduction="sum") / len(x)


#: The reconstruction slot. A new one is a class above and a line here.
RECONSTRUCTIONS: Registry[type[Reconstruction]] = Registry(
    "reconstruction", {"squared-error": SquaredError, "bernoulli": Bernoulli}
)
