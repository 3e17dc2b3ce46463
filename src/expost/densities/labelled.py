"""Densities that take labels: q(z | c) for every class c beside q(z)."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from expost.densities.base import Fit
from expost.densities.labels import Classes, Label
from expost.densities.tractable import TractableDensity
from expost.errors import UsageError


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelledDensity(TractableDensity):
    """A density that can be fitted with labels, then sampled and evaluated for one of them.

    A new one has, beside the methods of a density without labels, `counts`, `_fit_labelled`, `_draw_given` and
    `_log_prob_given`. The statistics of a fit with labels hold `Classes.record`.
    """

    @final
    @property
    def labelled(self) -> bool:
        """Whether it was fitted with labels."""
        return "labels" in self.statistics

    @final
    @property
    def labels(self) -> tuple[Label, ...]:
        """The classes' labels in ascending order; of bins, their bounds in words."""
        return self._classes.labels

    @final
    @property
    def edges(self) -> tuple[float, ...]:
        """The bins' bounds, ascending; empty where labels are classes themselves."""
        return self._classes.edges

    @property
    @abstractmethod
    def counts(self) -> tuple[int, ...]:
        """The number of codes in each class, in the order of `labels`."""

    @final
    def class_index(self, label: object) -> int:
        """Return the position in `labels` of a class, or of the bin that holds a value.

        Raises:
            UsageError: if there is none (the message lists the labels), or the density was not fitted with labels.
        """
        return self._classes.find(label)

    @final
    @property
    def _classes(self) -> Classes:
        statistics = self.statistics
        if "labels" not in statistics:
            raise UsageError(f"density '{self.name}' was fitted without labels; give them to fit: fit(z, labels)")
        return Classes.of(statistics)

    @final
    def posterior(self, z: Tensor) -> Tensor:
        """Return p(c | z), shape (N, classes) in the order of `labels`, float64; rows sum to 1.

        Raises:
            DataError: if the codes are not finite or not (N, d).
            UsageError: if the density was not fitted with labels, or can only be sampled.
        """
        _ = self._classes  # refuses a fit without
        return self._evaluate(z, lambda codes: torch.softmax(self._log_joint(codes), 1))

    @final
    def _log_joint(self, z: Tensor) -> Tensor:
        """Return log pi_c + log q(z | c), shape (N, classes), for checked codes; pi_c is the share of class c."""
        counts = torch.tensor(self.counts, dtype=torch.float64)
        values = torch.stack([self._log_prob_given(c, z) for c in range(len(counts))], 1)
        return values + (counts / counts.sum()).log().to(values.device)

    @abstractmethod
    def _fit_labelled(self, z: Tensor, classes: Classes, index: NDArray[np.int64]) -> Fit:
        """Estimate from checked codes and the number of each one's class, shape (N,); see `_fit`."""

    @abstractmethod
    def _draw_given(self, c: int, n: int, generator: torch.Generator | None, temperature: float) -> Tensor:
        """Draw n codes of class number c; see `_draw`."""

    @abstractmethod
    def _log_prob_given(self, c: int, z: Tensor) -> Tensor:
        """Evaluate log q(z | c) at checked codes, shape (N,); see `_log_prob`."""
