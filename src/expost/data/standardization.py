"""Columns of a table: which vary, and their standard units."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from expost.errors import DataError

#: Numbers looked at together, so that a mapped table is never copied whole.
_AT_ONCE = 2**22


@dataclass(frozen=True)
class Columns:
    """The standardization t = (x - m) / s of the D columns of a table.

    A column that does not vary carries no information: its t is 0 whatever x is, and it comes back as its constant m.

    Attributes:
        mean: m, the constant where constant; shape (D,).
        scale: s, the standard deviation (over n, not n - 1), 0 where constant; shape (D,).

    Example:
        >>> columns = Columns.of(np.array([[1.0, 5.0], [3.0, 5.0]]))
        >>> columns.mean, columns.scale, columns.varying
        (array([2., 5.]), array([1., 0.]), array([ True, False]))
    """

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]

    @property
    def varying(self) -> NDArray[np.bool_]:
        """Which columns vary, shape (D,)."""
        return self.scale > 0

    @classmethod
    def of(cls, rows: NDArray[Any]) -> Columns:
        """Return the columns of a table, shape (n, D), at least one row.

        Raises:
            DataError: if values are too large for their variance.
        """
        n, d = rows.shape
        step = max(1, _AT_ONCE // d)
        parts = [slice(start, start + step) for start in range(0, n, step)]
        exact = rows[0].astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            mean = sum((rows[part].astype(np.float64).sum(0) for part in parts), np.zeros(d)) / n
            squares = (np.square(rows[part].astype(np.float64) - mean).sum(0) for part in parts)
            scale = np.sqrt(sum(squares, np.zeros(d)) / n)
        if not np.isfinite(scale).all():
            largest = max(float(np.abs(rows[part].astype(np.float64)).max()) for part in parts)
            raise DataError(f"the table has values too large for their variance, up to {largest:.3g}; scale it down")
        differs = np.any([(rows[part] != rows[:1]).any(0) for part in parts], axis=0)
        # rounding leaves a constant column with a deviation of a few eps times its value
        varying = differs & (scale > 10 * np.finfo(np.float64).eps * np.abs(mean))
        return cls(np.where(varying, mean, exact), np.where(varying, scale, 0.0))
