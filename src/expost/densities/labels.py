"""Labels: classes, or a property cut into bins, and finding the class that a label names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from expost.densities.checks import check_int
from expost.errors import DataError, UsageError

Label = int | str
#: How many labels an error message lists.
LISTED = 20


@dataclass(frozen=True)
class Classes:
    """The classes of a set of labels.

    Attributes:
        labels: Their names, in ascending order; of bins, their bounds in words.
        edges: The bins' bounds, ascending, one more than there are bins; empty where labels are classes themselves.
    """

    labels: tuple[Label, ...]
    edges: tuple[float, ...] = ()

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Self:
        """Read the classes from a record that `record` made, alone or among others.

        Raises:
            ValueError: if there are no labels, some are equal, or the bins are not ascending.
        """
        labels, edges = tuple(record["labels"]), tuple(map(float, record["edges"]))
        if not labels or len(set(labels)) != len(labels):
            raise ValueError("its labels are missing or not different")
        if edges and (len(edges) != len(labels) + 1 or list(edges) != sorted(edges)):
            raise ValueError("its bins are not ascending")
        return cls(labels, edges)

    def record(self) -> dict[str, Any]:
        """Return labels and edges, JSON-able."""
        return {"labels": list(self.labels), "edges": list(self.edges)}

    def find(self, label: object) -> int:
        """Return the number of the class called `label`, or whose bin holds the value `label`.

        Raises:
            UsageError: if there is none; the message lists the labels.
        """
        single = isinstance(label, np.generic) or (isinstance(label, Tensor) and label.numel() == 1)
        plain = label.item() if single else label  # type: ignore[attr-defined]
        if isinstance(self.labels[0], int) and isinstance(plain, bool | float) and float(plain).is_integer():
            plain = int(plain)  # as labels were read
        wanted = str(plain)
        names = [str(each) for each in self.labels]
        if wanted in names:
            return names.index(wanted)
        if self.edges:
            try:
                value = float(wanted)
            except ValueError:
                value = np.nan
            if self.edges[0] <= value <= self.edges[-1]:
                return int(self.assign(np.array([value]))[0])
            raise UsageError(
                f"label '{wanted}' is in no bin; give a value from {self.edges[0]:g} to {self.edges[-1]:g}"
            )
        more = f", and {len(names) - LISTED} more" if len(names) > LISTED else ""
        raise UsageError(f"unknown label '{wanted}'; choose one of: {', '.join(names[:LISTED])}{more}")

    def assign(self, values: NDArray[Any]) -> NDArray[np.int64]:
        """Return the numbers of the bins that hold `values`: [a, b), the last one [a, b]."""
        return np.searchsorted(np.array(self.edges[1:-1]), values, side="right").astype(np.int64)


def read_labels(
    labels: ArrayLike | Tensor, n: int, bins: int | Sequence[float] | None = None
) -> tuple[Classes, NDArray[np.int64]]:
    """Return the classes that labels name, and the number of each example's class.

    Args:
        labels: Shape (n,): whole numbers or strings, or, with `bins`, numbers.
        n: Number of codes, hence of labels.
        bins: Number of quantiles to cut a property into, or the bins' bounds; None where labels are classes.

    Raises:
        UsageError: if labels are fractional and `bins` is not given, or `bins` cannot be used.
        DataError: if labels are missing, too many or too few, or a bin is empty.

    Example:
        >>> read_labels(["b", "a", "b"], 3)
        (Classes(labels=('a', 'b'), edges=()), array([1, 0, 1]))
        >>> read_labels([0.0, 1.0, 2.0, 9.0], 4, bins=2)
        (Classes(labels=('0..1.5', '1.5..9'), edges=(0.0, 1.5, 9.0)), array([0, 0, 1, 1]))
    """
    values = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    if values.shape != (n,):
        raise DataError(f"labels have shape {values.shape} for {n} codes; give one for each, shape ({n},)")
    if values.dtype.kind == "O":
        if not all(isinstance(each, str) for each in values):
            odd = next(each for each in values if not isinstance(each, str))
            raise DataError(f"labels mix strings with {odd!r}; give all as strings, or whole numbers")
        values = values.astype(str)
    numeric = values.dtype.kind in "biuf"
    if not numeric and values.dtype.kind != "U":
        raise DataError(f"labels are of type {values.dtype}; give whole numbers, strings, or numbers with bins")
    if bins is None:
        if values.dtype.kind == "f":
            raise UsageError("labels are fractional numbers; give bins=10 for a property, or convert classes to int")
        found, index = np.unique(values, return_inverse=True)
        return Classes(tuple(int(each) if numeric else str(each) for each in found)), index.astype(np.int64)
    if not numeric:
        raise UsageError("bins are for numbers, the labels are strings; leave bins out")
    return _binned(values.astype(np.float64), bins)


def _binned(values: NDArray[np.float64], bins: int | Sequence[float]) -> tuple[Classes, NDArray[np.int64]]:
    missing = int((~np.isfinite(values)).sum())
    if missing:
        raise DataError(f"{missing} of {len(values)} labels are NaN or infinite; leave these examples out")
    if isinstance(bins, int | np.integer):
        check_int("bins", int(bins), minimum=2)
        edges = np.unique(np.quantile(values, np.linspace(0, 1, int(bins) + 1)))
        if len(edges) < 3:
            raise DataError(f"the property has too few different values for {bins} bins; give bounds, or use classes")
    else:
        edges = np.asarray(bins, dtype=np.float64)
        if edges.ndim != 1 or len(edges) < 2 or not (np.diff(edges) > 0).all():
            raise UsageError(f"bins={bins!r} must be a whole number, or at least 2 ascending bounds")
        outside = int(((values < edges[0]) | (values > edges[-1])).sum())
        if outside:
            raise DataError(
                f"{outside} labels lie outside the bins {edges[0]:g} to {edges[-1]:g}; widen them (values reach from "
                f"{values.min():g} to {values.max():g})"
            )
    # named with as many digits as tell all bounds apart
    digits = next((k for k in range(4, 17) if len({f"{edge:.{k}g}" for edge in edges}) == len(edges)), 17)
    words = [f"{edge:.{digits}g}" for edge in edges]
    classes = Classes(tuple(map("..".join, pairwise(words))), tuple(map(float, edges)))
    index = classes.assign(values)
    empty = [classes.labels[c] for c in np.flatnonzero(np.bincount(index, minlength=len(classes.labels)) == 0)]
    if empty:
        raise DataError(f"no example lies in bin {', '.join(map(str, empty[:LISTED]))}; take fewer bins")
    return classes, index
