"""Densities of grids of symbols: probabilities of whole numbers, of discrete latents for example."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from expost.densities.base import Fit, code_shape
from expost.densities.checks import check_int
from expost.densities.drawing import draw_index
from expost.densities.labelled import LabelledDensity
from expost.densities.labels import Classes
from expost.errors import DataError

#: Most symbols that a grid is taken to have; beyond, numbers are hardly symbols.
MOST_SYMBOLS = 2**16
#: Weights of the pooled frequencies that `Categorical` chooses from, in codes.
_SHARES = tuple(10.0**k for k in range(-1, 5))


@dataclass(frozen=True, kw_only=True, eq=False)
class SymbolDensity(LabelledDensity):
    """P(z) of grids z of S symbols, whole numbers from 0 to K - 1, shape (N, h, w), (N, L) or any other, as floats.

    It is a mass function: probabilities of all K^S grids sum to 1, and log P is at most 0. It is not to be compared
    with a density of vectors.

    A new one has, beside the methods of any density, `_fit_grids`, `_log_prob_of` and `_draw_of`. Statistics hold
    `symbols` (K) and `counts` (codes of each class, one class without labels).

    Attributes:
        symbols: K; None takes the largest symbol of the codes, and 1.
    """

    of_symbols: ClassVar[bool] = True
    symbols: int | None = None

    def _check(self) -> None:
        if self.symbols is not None:
            check_int("symbols", self.symbols, minimum=2)
        self._check_own()

    @property
    def counts(self) -> tuple[int, ...]:
        """The number of codes in each class, in the order of `labels`; all of them without labels."""
        return tuple(self.statistics["counts"])

    @final
    @property
    def known(self) -> int:
        """The number K of symbols of the fit."""
        return int(self.statistics["symbols"])

    def _fit(self, z: Tensor) -> Fit:
        return self._fit_classes(z, torch.zeros(len(z), dtype=torch.int64, device=z.device), {})

    def _fit_labelled(self, z: Tensor, classes: Classes, index: NDArray[np.int64]) -> Fit:
        return self._fit_classes(z, torch.from_numpy(index).to(z.device), classes.record())

    def _fit_classes(self, z: Tensor, classes: Tensor, record: Mapping[str, Any]) -> Fit:
        largest = MOST_SYMBOLS if self.symbols is None else self.symbols
        grids = _read(z, largest, self.name)
        symbols = int(grids.max()) + 1 if self.symbols is None else self.symbols
        counts = classes.bincount(minlength=max(1, len(record.get("labels", ())))).tolist()
        fit = self._fit_grids(grids, classes, len(counts), symbols)
        return Fit(fit.tensors, {"symbols": symbols, "counts": counts, **record, **fit.statistics})

    def _draw(self, n: int, generator: torch.Generator | None, temperature: float) -> Tensor:
        counts = torch.tensor(self.counts, dtype=torch.float64)
        classes = draw_index(n, counts, generator) if self.labelled else torch.zeros(n, dtype=torch.int64)
        return self._draw_of(classes.to(self.device), generator, temperature)

    def _draw_given(self, c: int, n: int, generator: torch.Generator | None, temperature: float) -> Tensor:
        return self._draw_of(torch.full((n,), c, device=self.device), generator, temperature)

    def _log_prob(self, z: Tensor) -> Tensor:
        return torch.logsumexp(self._log_joint(z), 1) if self.labelled else self._log_prob_given(0, z)

    def _log_prob_given(self, c: int, z: Tensor) -> Tensor:
        grids = _read(z, self.known, self.name)
        return self._log_prob_of(grids, torch.full((len(grids),), c, device=z.device))

    def _check_counts(self, statistics: Mapping[str, Any]) -> tuple[int, int, tuple[int, ...]]:
        """Return the number of classes, of symbols, and the shape of a code, of a fit with these statistics.

        Raises:
            ValueError: if they contradict each other.
        """
        counts, symbols, shape = statistics["counts"], statistics["symbols"], code_shape(statistics)
        labels = Classes.of(statistics).labels if "labels" in statistics else (0,)
        if not all(type(count) is int and count > 0 for count in counts) or len(counts) != len(labels):
            raise ValueError("its classes and their counts do not match")
        if type(symbols) is not int or not 1 <= symbols <= max(MOST_SYMBOLS, self.symbols or 0):
            raise ValueError(f"it has {symbols} symbols")
        return len(counts), symbols, shape

    @abstractmethod
    def _check_own(self) -> None:
        """Raise UsageError for an option of this kind outside its range."""

    @abstractmethod
    def _fit_grids(self, grids: Tensor, classes: Tensor, count: int, symbols: int) -> Fit:
        """Estimate from symbols, int64, shape (N, S), with the number of each one's class, below `count`."""

    @abstractmethod
    def _log_prob_of(self, grids: Tensor, classes: Tensor) -> Tensor:
        """Return log P(z | c) of symbols, int64, shape (N, S), each with its class, shape (N,)."""

    @abstractmethod
    def _draw_of(self, classes: Tensor, generator: torch.Generator | None, temperature: float) -> Tensor:
        """Draw a grid for each of n classes, shape (n, S)."""


def _read(z: Tensor, symbols: int, name: str) -> Tensor:
    """Return codes as symbols, int64, or refuse them.

    Raises:
        DataError: if a number is not whole, below 0, or at least `symbols`.
    """
    wrong = (z != z.round()) | (z < 0) | (z >= symbols)
    if bool(wrong.any()):
        row, site = (int(each) for each in wrong.nonzero()[0])
        raise DataError(
            f"code {row} has {z[row, site].item():g} at site {site}, and density '{name}' is of symbols, whole numbers "
            f"from 0 to {symbols - 1}; give the codes of a discrete latent, or fit gaussian or gmm on vectors"
        )
    return z.long()


def choose_symbols(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """Draw symbols by inversion.

    Args:
        probabilities: Shape (..., K), float64; they need not sum to 1.
        uniform: In [0, 1), shape (...).

    Returns:
        The first symbols at which the sum of probabilities exceeds that share of the whole, int64, shape (...).

    Example:
        >>> choose_symbols(torch.tensor([[0.0, 1.0, 3.0]]).double(), torch.tensor([0.2]).double())
        tensor([1])
    """
    cumulative = probabilities.cumsum(-1)
    found = torch.searchsorted(cumulative, uniform[..., None] * cumulative[..., -1:], right=True)[..., 0]
    # where rounding in the sums could lead beyond the last that is possible
    last = probabilities.shape[-1] - 1 - (probabilities > 0).flip(-1).long().argmax(-1)
    return torch.minimum(found, last)


def tempered(logits: Tensor, temperature: float, top_k: int | None = None) -> Tensor:
    """Return probabilities proportional to exp(logit / T), of the k largest logits alone if `top_k` is given.

    Args:
        logits: Shape (..., K), float64.
        temperature: T; at 0 the largest logit takes all.
        top_k: k; of equal logits at its edge all stay.

    Example:
        >>> tempered(torch.tensor([0.0, 1.0, 2.0]), 0.5, top_k=2).round(decimals=3)
        tensor([0.0000, 0.1190, 0.8810])
        >>> tempered(torch.tensor([0.0, 1.0, 2.0]), 0.0)
        tensor([0., 0., 1.])
    """
    if top_k is not None and top_k < logits.shape[-1]:
        edge = logits.topk(top_k, -1).values[..., -1:]
        logits = logits.masked_fill(logits < edge, -math.inf)
    if temperature == 0:
        return torch.zeros_like(logits).scatter_(-1, logits.argmax(-1, keepdim=True), 1.0)
    return torch.softmax(logits / temperature, -1)


def frequencies(grids: Tensor, symbols: int) -> Tensor:
    """Return each symbol's probability at each site, as `Categorical` estimates it, shape (S, K), float64.

    Args:
        grids: Symbols, int64, shape (N, S).
        symbols: K.
    """
    n, sites = grids.shape
    at = torch.arange(sites, device=grids.device) * symbols
    occurred = (grids + at).flatten().bincount(minlength=sites * symbols).view(sites, symbols).double()
    pooled = occurred.sum(0) + 0.5
    pooled = pooled / pooled.sum()
    # each occurrence as if it had been left out of its own site
    likelihoods = [
        (occurred * ((occurred - 1).clamp_min(0) + share * pooled).log()).sum() - n * sites * math.log(n - 1 + share)
        for share in _SHARES
    ]
    share = _SHARES[int(torch.stack(likelihoods).argmax())]
    return (occurred + share * pooled) / (n + share)


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Categorical(SymbolDensity):
    """P(z) = prod_s p_s(z_s): each site draws its symbol by itself, whatever the others are.

    With n_sk the codes that have symbol k at site s, and g_k the share of k at all sites (1/2 added to every symbol's
    count, so that none is impossible),

        p_s(k) = (n_sk + a g_k) / (N + a),

    where a, of 0.1, 1, ..., 10,000, has the largest likelihood of each occurrence if it is left out of n_sk. With
    labels every class has its own table. It is what `autoregressive` starts from.

    Statistics: see `SymbolDensity`.

    Example:
        >>> z = torch.tensor([[0.0, 1.0]] * 75 + [[1.0, 0.0]] * 25)
        >>> density = Categorical().fit(z)
        >>> density.log_prob(z[[0, -1]]).exp().round(decimals=2)
        tensor([0.5600, 0.0600], dtype=torch.float64)
    """

    name: ClassVar[str] = "categorical"
    words: ClassVar[str] = "independent symbols"

    def _check_own(self) -> None:
        pass

    def _fit_grids(self, grids: Tensor, classes: Tensor, count: int, symbols: int) -> Fit:
        tables = [frequencies(grids[classes == c], symbols).log() for c in range(count)]
        return Fit({"log": torch.stack(tables)})

    def _log_prob_of(self, grids: Tensor, classes: Tensor) -> Tensor:
        table, sites = self.tensors["log"], torch.arange(grids.shape[1], device=grids.device)
        return table[classes[:, None], sites, grids].sum(1)

    def _draw_of(self, classes: Tensor, generator: torch.Generator | None, temperature: float) -> Tensor:
        table = self.tensors["log"]
        uniform = draw_uniform(len(classes), self.dim, generator, table.device)
        probabilities, drawn = tempered(table, temperature), []
        for rows, u in zip(*(torch.split(each, 256) for each in (classes.to(table.device), uniform)), strict=True):
            drawn.append(choose_symbols(probabilities[rows], u))
        return torch.cat(drawn) if drawn else uniform

    def _layout(self, statistics: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        classes, symbols, shape = self._check_counts(statistics)
        return {"log": (classes, math.prod(shape), symbols)}


def draw_uniform(n: int, sites: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
    """Draw numbers in [0, 1), shape (n, sites), float64 on `device`; the generator's own device draws them."""
    source = device if generator is None else generator.device
    return torch.rand(n, sites, generator=generator, device=source, dtype=torch.float64).to(device)
