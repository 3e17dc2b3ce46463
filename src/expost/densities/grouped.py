"""Codes of classes in common coordinates, and what a network is told of a class: an embedding that it learns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from expost.densities.labels import Classes
from expost.densities.standards import Standard
from expost.densities.units import Units
from expost.errors import DataError

#: Initial deviation of an embedding's numbers: classes begin alike, so that one of few codes stays near the others.
_APART = 0.1


@final
@dataclass(frozen=True)
class Grouped:
    """Codes by class, each class about its own mean, all in units of the spread within classes.

        x = A^-1 (z - m_c),    A a `Standard`; if whitened,
        A A^T = 1/(N - C) sum over codes of (z - m_c)(z - m_c)^T + eps diag(s)^2

    with s the unit of each dimension of all the codes (`Units`). So x of N(0, I) is C Gaussians of one covariance.

    Attributes:
        means: m_c, shape (C, d), float64.
        standard: A.
        x: Codes in these coordinates, shape (N, d), float32.
        index: Number of each code's class, shape (N,), int64.
        classes: The classes.
    """

    means: Tensor
    standard: Standard
    x: Tensor
    index: Tensor
    classes: Classes

    @classmethod
    def of(
        cls,
        z: Tensor,
        classes: Classes,
        index: NDArray[np.int64],
        kind: type[Standard],
        shape: tuple[int, ...],
        regularization: float,
    ) -> Self:
        """Group codes (N, d), float64, of a shape of product d, in a kind of standardization with a ridge eps.

        Raises:
            DataError: if no class has two codes, or the codes of each are all equal.
        """
        rows = torch.from_numpy(index).to(z.device)
        counts = torch.bincount(rows, minlength=len(classes.labels)).to(z)
        spare = len(z) - len(counts)
        means = torch.zeros(len(counts), z.shape[1], dtype=z.dtype, device=z.device).index_add_(0, rows, z)
        means /= counts[:, None]
        centered = z - means[rows]
        units = Units.of_bulk(z)
        if spare < 1 or bool((centered / units.scale).abs().max() < torch.finfo(torch.float32).eps):
            raise DataError(f"{len(z)} codes in {len(counts)} classes do not differ within a class; merge classes")
        standard = kind.of(z, centered, spare, shape, regularization)
        return cls(means, standard, standard.whiten(centered).float(), rows, classes)

    @property
    def counts(self) -> tuple[int, ...]:
        """The number of codes in each class."""
        return tuple(torch.bincount(self.index, minlength=len(self.means)).tolist())

    @property
    def record(self) -> dict[str, Any]:
        """Labels, edges and `counts`, JSON-able: what the statistics of a fit hold."""
        return {**self.classes.record(), "counts": list(self.counts)}


def read_counts(statistics: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the number of codes in each class that the statistics of a fit hold.

    Raises:
        ValueError: if they do not go with the labels.
    """
    counts = tuple(statistics["counts"])
    if len(counts) != len(Classes.of(statistics).labels) or not all(isinstance(n, int) and n > 0 for n in counts):
        raise ValueError("its labels and counts do not match")
    return counts


def centers_of(means: Tensor, standard: Standard, counts: Sequence[int]) -> Tensor:
    """Return where the classes are about the mean m of all codes: A^-1 (m_c - m), shape (C, d), float32."""
    shares = torch.tensor(counts, dtype=means.dtype, device=means.device)
    return standard.whiten(means - shares @ means / shares.sum()).float()


def spread_of(centers: Tensor, counts: Sequence[int]) -> Tensor:
    """Return the variance of each coordinate of all the codes, 1 + sum_c N_c / N (A^-1 (m_c - m))^2, shape (d,)."""
    shares = torch.tensor(counts, dtype=centers.dtype, device=centers.device)
    return 1 + shares @ centers.square() / shares.sum()


def initial_embedding(classes: Classes, size: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """Return what an embedding of classes is learned from, shape (C, size); see `embed`."""
    return (_APART * torch.randn(len(classes.labels), size, generator=generator)).to(device)


def embed(learned: Tensor, classes: Classes) -> Tensor:
    """Return the embedding of every class, shape (C, e), of what is learned of it.

    Classes learn it alone. Bins are in order: each learns its step from the one below, so that neighbours are alike
    and a bin of few codes stays near them.
    """
    return learned.cumsum(0) if classes.edges else learned
