"""Densities that learn codes with and without labels by one network, which is told the class."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from expost.densities.drawing import draw_index
from expost.densities.grouped import read_counts
from expost.densities.labelled import LabelledDensity


@dataclass(frozen=True, kw_only=True, eq=False)
class JointDensity(LabelledDensity):
    """q(z), or with labels q(z | c) for every class and q(z) = sum_c N_c / N q(z | c), by one network.

    A new one has `_fit`, `_fit_labelled`, `_arrive` and `_log_density`. The statistics of a fit with labels hold
    `counts`, and its tensors the classes' "mean", shape (C, d).
    """

    @final
    @property
    def counts(self) -> tuple[int, ...]:
        """The number of codes in each class, in the order of `labels`."""
        _ = self.labels  # refuses a fit without
        return read_counts(self.statistics)

    @final
    def _draw(self, n: int, generator: torch.Generator | None, temperature: float) -> Tensor:
        if not self.labelled:
            return self._arrive(n, None, generator, temperature)
        drawn = draw_index(n, torch.tensor(self.counts, dtype=torch.float64), generator)
        return self._arrive(n, drawn.to(self.tensors["mean"].device), generator, temperature)

    @final
    def _draw_given(self, c: int, n: int, generator: torch.Generator | None, temperature: float) -> Tensor:
        return self._arrive(n, torch.full((n,), c, device=self.tensors["mean"].device), generator, temperature)

    @final
    def _log_prob(self, z: Tensor) -> Tensor:
        return torch.logsumexp(self._log_joint(z), 1) if self.labelled else self._log_density(z, None)

    @final
    def _log_prob_given(self, c: int, z: Tensor) -> Tensor:
        return self._log_density(z, c)

    @abstractmethod
    def _arrive(self, n: int, index: Tensor | None, generator: torch.Generator | None, temperature: float) -> Tensor:
        """Return the codes of n draws of noise, of the classes `index` (n,); None without labels."""

    @abstractmethod
    def _log_density(self, z: Tensor, c: int | None) -> Tensor:
        """Return the log-density of codes, shape (N,), float64, of class number c; None without labels."""
