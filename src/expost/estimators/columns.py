"""Columns of a table: which vary, their standard units, and the refusal of values that are not finite."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from expost.errors import DataError


@dataclass(frozen=True)
class Columns:
    """The standardization t = (x - m) / s of the D columns of a table, of which d vary.

    Attributes:
        mean: m, the constant where constant; shape (D,).
        scale: s, 1 where constant; shape (D,).
        varying: Which columns vary, shape (D,).

    Example:
        >>> columns = Columns.of(np.array([[1.0, 5.0], [3.0, 5.0]]))
        >>> columns.standardize(np.array([[1.0, 5.0]]))
        tensor([[-1.]], dtype=torch.float64)
        >>> columns.restore(torch.tensor([[2.0]]))
        array([[4., 5.]])
    """

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    varying: NDArray[np.bool_]

    @classmethod
    def of(cls, rows: NDArray[Any]) -> Columns:
        """Return the columns of a table, shape (n, D).

        Raises:
            DataError: if none varies, or values are too large for their variance.
        """
        exact = rows.astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            mean, scale = exact.mean(0), exact.std(0)
        if not np.isfinite(scale).all():
            largest = np.abs(exact).max()
            raise DataError(f"X has values too large for their variance, up to {largest:.3g}; scale it down")
        # rounding leaves a constant column with a deviation of a few eps times its value
        varying = (np.ptp(exact, axis=0) > 0) & (scale > 10 * np.finfo(np.float64).eps * np.abs(mean))
        if not varying.any():
            raise DataError(f"none of the {rows.shape[1]} columns of X varies; give columns with different values")
        return cls(np.where(varying, mean, exact[0]), np.where(varying, scale, 1.0), varying)

    def standardize(self, rows: NDArray[Any]) -> Tensor:
        """Return the varying columns in standard units, float64, shape (n, d)."""
        t = (rows[:, self.varying].astype(np.float64) - self.mean[self.varying]) / self.scale[self.varying]
        return torch.from_numpy(t)

    def restore(self, t: Tensor) -> NDArray[np.float64]:
        """Return standardized columns in the units of the data, with the constant ones, shape (n, D)."""
        rows = np.tile(self.mean, (len(t), 1))
        rows[:, self.varying] += self.scale[self.varying] * t.numpy()
        return rows


def require_finite(rows: NDArray[Any], names: Sequence[Any] | None) -> None:
    """Refuse values that are missing or infinite.

    Args:
        rows: Shape (n, D).
        names: Of the columns; None where they have none.

    Raises:
        DataError: if there is one; the message says where.
    """
    bad = ~np.isfinite(rows)
    if bad.any():
        row, column = map(int, np.argwhere(bad)[0])
        which = column if names is None else repr(str(names[column]))
        value = "infinity (inf)" if np.isinf(rows[bad]).any() else "NaN"
        raise DataError(
            f"X has {int(bad.sum())} values that are missing or not finite ({value}), the first in row {row}, "
            f"column {which}; fill or drop them, e.g. make_pipeline(SimpleImputer(), RegularizedAutoencoder())"
        )
