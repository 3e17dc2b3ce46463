"""The reconstruction slot: how far D(E(x)) is from x. Each is summed over an example, averaged over the batch.

| name | term L_REC |
|---|---|
| squared-error | ||x - x'||^2 |
| bernoulli | -sum x log x' + (1 - x) log(1 - x') |
| perceptual | ||x - x'||^2 + w N P(x, x'), P the distance of a network's features, N the numbers of an example |
| masked-categorical | -sum over positions of log softmax(x')[x], over the symbols that compete with x |
| masked-bernoulli | -sum over positions and symbols of x log p + (1 - x) log(1 - p), p = that softmax |
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Collection
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from expost.errors import UsageError
from expost.metrics.onet import OnetNetwork, load_onet
from expost.registry import Registry
from expost.types import Layout

#: Probabilities are kept so far from 0 and 1: Keras' constant.
_CLIP = 1e-7
#: Added to the squared length of features, which may be 0.
_TINY = 1e-8


class Reconstruction(ABC):
    """The distance of an output from its input.

    Attributes:
        groups: Group of each symbol, where symbols compete within groups alone; None elsewhere.
        layouts: Layouts of the examples that it compares.
    """

    groups: list[int] | None = None
    layouts: ClassVar[Collection[Layout]]

    @abstractmethod
    def __call__(self, x: Tensor, output: Tensor) -> Tensor:
        """Return the scalar term for inputs and outputs of shape (B, ...)."""

    @abstractmethod
    def each(self, x: Tensor, output: Tensor) -> Tensor:
        """Return the term of each example, shape (B,), whose mean is the scalar term."""


class SquaredError(Reconstruction):
    """L_REC = ||x - D(E(x))||^2 (Ghosh et al. 2020, eq. 10), without a factor 1/2.

    Example:
        >>> import torch
        >>> SquaredError()(torch.zeros(2, 1, 2, 2), torch.ones(2, 1, 2, 2))
        tensor(4.)
    """

    layouts = (Layout.IMAGE, Layout.VECTOR, Layout.OTHER)

    def __call__(self, x: Tensor, output: Tensor) -> Tensor:
        """Return the summed squared error, averaged over the batch."""
        return self.each(x, output).mean()

    def each(self, x: Tensor, output: Tensor) -> Tensor:
        """Return the summed squared error of each example."""
        return (x - output).square().flatten(1).sum(1)


class Bernoulli(Reconstruction):
    """Cross-entropy in nats of pixels in [0, 1] as Bernoulli means; outputs are probabilities in [0, 1]."""

    layouts = (Layout.IMAGE,)

    def __call__(self, x: Tensor, output: Tensor) -> Tensor:
        """Return the summed cross-entropy, averaged over the batch."""
        return functional.binary_cross_entropy(output, x, reduction="sum") / len(x)

    def each(self, x: Tensor, output: Tensor) -> Tensor:
        """Return the summed cross-entropy of each example."""
        return functional.binary_cross_entropy(output, x, reduction="none").flatten(1).sum(1)


class Perceptual(Reconstruction):
    """Squared error and the distance of a bundled network's features, which sees what blur takes away.

    L_REC = ||x - x'||^2 + w N P(x, x') with N the numbers of an example, and P the mean over layers l and positions p
    of || f_lp(x) / |f_lp(x)| - f_lp(x') / |f_lp(x')| ||^2, where f_lp are the channels of layer l at p (Zhang et al.
    2018, eq. 1, without learned weights of channels). 0 <= P <= 4, and P = 0 for equal images.

    The layers are three convolutions of MTCNN's output network, learned on faces (MIT; see `metrics.onet`), which are
    applied at the size of the images, padded by zeros. Images of other than three channels are gray ones, a channel
    each.

    Args:
        weight: w, at least 0.
    """

    layouts = (Layout.IMAGE,)

    def __init__(self, weight: float = 0.02) -> None:
        if not 0 <= weight < math.inf:
            raise UsageError(f"weight is {weight}; give the weight of the features' distance, at least 0")
        self.weight = weight
        self._error = SquaredError()
        self._network: OnetNetwork | None = None

    def __call__(self, x: Tensor, output: Tensor) -> Tensor:
        """Return the squared error and the weighted distance, averaged over the batch."""
        return self.each(x, output).mean()

    def each(self, x: Tensor, output: Tensor) -> Tensor:
        """Return the squared error and the weighted distance of each example."""
        return self._error.each(x, output) + self.weight * x[0].numel() * self.distance(x, output)

    def distance(self, x: Tensor, output: Tensor) -> Tensor:
        """Return P of each pair of images in [0, 1], shape (B,); gradients reach both.

        Args:
            x: Shape (B, C, H, W).
            output: Same shape.
        """
        network = self._at(x)
        layers = zip(network.maps(_as_colors(x)), network.maps(_as_colors(output)), strict=True)
        found = [(_directions(a) - _directions(b)).square().sum(1).flatten(1).mean(1) for a, b in layers]
        return torch.stack(found).mean(0).view(len(x), -1).mean(1)

    def _at(self, x: Tensor) -> OnetNetwork:
        """Return the network on the device, and in the precision, of some images."""
        if self._network is None:
            self._network = load_onet()
        weight = next(self._network.parameters())
        if weight.device != x.device or weight.dtype != x.dtype:
            self._network = self._network.to(x.device, x.dtype)
        return self._network


def _as_colors(x: Tensor) -> Tensor:
    """Return images in [0, 1] as the network takes them: three channels in [-1, 1]; others gray, a channel each."""
    x = 2 * x - 1
    return x if x.shape[1] == 3 else x.flatten(0, 1)[:, None].expand(-1, 3, -1, -1)


def _directions(features: Tensor) -> Tensor:
    """Return features (B, C, h, w) divided by their length at each position."""
    return features * torch.rsqrt(features.square().sum(1, keepdim=True) + _TINY)


class _Competition:
    """Which symbols compete at a position.

    Args:
        groups: Group of each of the V symbols; None puts all into one.
        term: Whose groups they are, for messages.
    """

    def __init__(self, groups: list[int] | None, term: str) -> None:
        if groups is not None and not groups:
            raise UsageError("groups is an empty list; give the group of each symbol, or none for a plain softmax")
        self._size = None if groups is None else len(groups)
        self._term = term
        self._competes: Tensor | None = None
        if groups is not None and len(set(groups)) > 1:
            group = torch.tensor(groups)
            self._competes = group.unsqueeze(1) == group  # (V, V)

    def of(self, x: Tensor, output: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits with -inf where a symbol does not compete with the true one, and the true symbols.

        Rows in which the true symbol is without a rival may be left out.

        Raises:
            UsageError: if the number of symbols is not that of the groups.
        """
        if self._size is not None and self._size != output.shape[-1]:
            raise UsageError(
                f"{self._term} has groups for {self._size} symbols, the logits {output.shape[-1]}; give the groups of "
                "the codec that encoded the examples"
            )
        true = x.argmax(-1)
        if self._competes is None:
            return output, true
        self._competes = self._competes.to(output.device)
        # a symbol without a rival costs nothing, and of a grammar's rows more than half is padding; elsewhere than
        # on a CPU their number would have to be waited for
        if output.device.type == "cpu":
            contested = (self._competes.sum(1) > 1)[true]
            output, true = output[contested], true[contested]
        # the true symbol competes with itself: no row is without a finite logit, and -inf is never multiplied
        return output.masked_fill(~self._competes[true], -math.inf), true

    def positions(self, x: Tensor, output: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the same with all rows, shapes (B, L, V) and (B, L), and whether each has a rival, as 0 or 1."""
        if self._competes is None:
            competing, true = self.of(x, output)
            return competing, true, torch.ones_like(true)
        true, competes = x.argmax(-1), self._competes.to(output.device)
        return output.masked_fill(~competes[true], -math.inf), true, (competes.sum(1) > 1).long()[true]


class MaskedCategorical(Reconstruction):
    """Cross-entropy in nats of one symbol a position, among those that may stand there.

    L_REC = -sum_t log( exp(l[t, x_t]) / sum_{i in G(x_t)} exp(l[t, i]) ), with G(x_t) the symbols that share a group
    with the true one: for a grammar, the productions of the same left side (Kusner, Paige & Hernandez-Lobato 2017,
    eq. 5 and 6, with the mask of the true production). Symbols of other groups get no gradient, and a group of one
    symbol, like a grammar's padding, costs nothing.

    Args:
        groups: Group of each of the V symbols, from `Codec.groups`; None puts all into one, a plain softmax.

    Example:
        Two symbols in one group, and a third, the padding, alone; the examples are one symbol and one padding:

        >>> x = torch.tensor([[[1.0, 0, 0], [0, 0, 1]]])
        >>> logits = torch.zeros(1, 2, 3)
        >>> MaskedCategorical([0, 0, 1])(x, logits)  # log 2
        tensor(0.6931)
        >>> MaskedCategorical()(x, logits)  # 2 log 3
        tensor(2.1972)
    """

    layouts = (Layout.SEQUENCE,)

    def __init__(self, groups: list[int] | None = None) -> None:
        self._competition = _Competition(groups, "masked-categorical")
        self.groups = groups

    def __call__(self, x: Tensor, output: Tensor) -> Tensor:
        """Return the summed cross-entropy, averaged over the batch, of one-hot symbols and logits (B, L, V)."""
        competing, true = self._competition.of(x, output)
        return (competing.logsumexp(-1) - competing.gather(-1, true.unsqueeze(-1)).squeeze(-1)).sum() / len(x)

    def each(self, x: Tensor, output: Tensor) -> Tensor:
        """Return the cross-entropy of each example."""
        competing, true, _ = self._competition.positions(x, output)
        return (competing.logsumexp(-1) - competing.gather(-1, true.unsqueeze(-1)).squeeze(-1)).sum(1)


class MaskedBernoulli(Reconstruction):
    """Cross-entropy in nats of every symbol at every position, present or not: the Grammar VAE's code.

    L_REC = -sum_t sum_i x[t, i] log p[t, i] + (1 - x[t, i]) log(1 - p[t, i]), with p the softmax over the symbols that
    compete with the true one (see `MaskedCategorical`), clipped to [1e-7, 1 - 1e-7]. The code of Kusner et al. 2017
    takes this sum divided by V; its weights are converted in `models.string_presets`. Next to `masked-categorical`,
    which is the bound that the paper states, it also pays for what is given to wrong symbols, up to twice in all. A
    group of one symbol costs nothing (there, 1e-7 a symbol).

    Args:
        groups: Group of each of the V symbols, from `Codec.groups`; None puts all into one, a plain softmax.

    Example:
        >>> x = torch.tensor([[[1.0, 0, 0], [0, 0, 1]]])
        >>> MaskedBernoulli([0, 0, 1])(x, torch.zeros(1, 2, 3))  # 2 log 2
        tensor(1.3863)
    """

    layouts = (Layout.SEQUENCE,)

    def __init__(self, groups: list[int] | None = None) -> None:
        self._competition = _Competition(groups, "masked-bernoulli")
        self.groups = groups

    def __call__(self, x: Tensor, output: Tensor) -> Tensor:
        """Return the summed cross-entropy, averaged over the batch, of one-hot symbols and logits (B, L, V)."""
        competing, true = self._competition.of(x, output)
        p = competing.softmax(-1).clamp(_CLIP, 1 - _CLIP)
        present = functional.one_hot(true, p.shape[-1]).to(p)
        return functional.binary_cross_entropy(p, present, reduction="sum") / len(x)

    def each(self, x: Tensor, output: Tensor) -> Tensor:
        """Return the cross-entropy of each example."""
        competing, true, contested = self._competition.positions(x, output)
        p = torch.softmax(competing, -1).clamp(_CLIP, 1 - _CLIP)
        costs = functional.binary_cross_entropy(p, functional.one_hot(true, p.shape[-1]).to(p), reduction="none")
        return (costs.sum(-1) * contested).sum(1)


#: The reconstruction slot. A new one is a class above and a line here.
RECONSTRUCTIONS: Registry[type[Reconstruction]] = Registry(
    "reconstruction",
    {
        "squared-error": SquaredError,
        "bernoulli": Bernoulli,
        "perceptual": Perceptual,
        "masked-categorical": MaskedCategorical,
        "masked-bernoulli": MaskedBernoulli,
    },
)
