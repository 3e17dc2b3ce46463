"""Rows of a table in standard units, and the refusal of values that are not finite."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from expost.data.standardization import Columns
from expost.errors import DataError


class StandardRows:
    """Rows in standard units t = (x - m) / s and back, without the columns that do not vary.

    Args:
        columns: The standardization.

    Example:
        >>> rows = StandardRows(Columns.of(np.array([[1.0, 5.0], [3.0, 5.0]])))
        >>> rows.standardize(np.array([[1.0, 5.0]]))
        tensor([[-1.]], dtype=torch.float64)
        >>> rows.restore(torch.tensor([[2.0]]))
        array([[4., 5.]])
    """

    def __init__(self, columns: Columns) -> None:
        self._columns = columns

    def standardize(self, rows: NDArray[Any]) -> Tensor:
        """Return the d varying columns in standard units, float64, shape (n, d)."""
        columns, varying = self._columns, self._columns.varying
        t = (rows[:, varying].astype(np.float64) - columns.mean[varying]) / columns.scale[varying]
        return torch.from_numpy(t)

    def restore(self, t: Tensor) -> NDArray[np.float64]:
        """Return standardized columns in the units of the data, with the constant ones, shape (n, D)."""
        columns = self._columns
        rows = np.tile(columns.mean, (len(t), 1))
        rows[:, columns.varying] += columns.scale[columns.varying] * t.numpy()
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
