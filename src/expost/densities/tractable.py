"""Densities that can be evaluated: log q(z) in float64."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import final

import torch
from torch import Tensor

from expost.densities.base import Density
from expost.densities.checks import check_compatible
from expost.densities.linalg import precise_device


class TractableDensity(Density):
    """A density that can be evaluated."""

    @final
    def log_prob(self, z: Tensor, label: object = None) -> Tensor:
        """Evaluate log q(z), or log q(z | label) of a `LabelledDensity`; natural logarithm.

        Each row is evaluated on its own, so the batch may hold any number of codes, held-out ones included.

        Args:
            z: Codes, shape (N, d), or maps of the shape that it was fitted on, any floating dtype, finite.
            label: A class, or a value of the property; None is all of them.

        Returns:
            Log-densities, shape (N,), float64, on the device of `z` (on the CPU if that has no float64).

        Raises:
            DataError: if the codes are not finite or of another shape.
            UsageError: if the density was not fitted, or does not know the label.
        """
        if label is None:
            return self._evaluate(z, self._log_prob)
        labelled = self._labelled()
        c = labelled.class_index(label)
        return self._evaluate(z, lambda codes: labelled._log_prob_given(c, codes))

    @final
    def log_prob_left_out(self, z: Tensor) -> Tensor:
        """Evaluate log q at training codes, each as if it had been left out of the fit.

        A kernel density has one kernel on each training code, which in many dimensions outweighs all others: there
        `log_prob` says nothing of unseen codes of the same kind. Such a density, also as the base of `reduced`, leaves
        the code's own kernel out, at the same bandwidth and covariance. Every other density returns `log_prob`: one
        code among many hardly changes its fit.

        Args:
            z: Training codes, any number, of the shape that it was fitted on, any floating dtype, finite.

        Returns:
            Log-densities, shape (N,), as from `log_prob`.

        Raises:
            DataError: if the codes are not finite or of another shape.
            UsageError: if the density was not fitted.
        """
        return self._evaluate(z, self._log_prob_left_out)

    def _evaluate(self, z: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        check_compatible(z, self.shape)
        with torch.no_grad(), torch.autocast(z.device.type, enabled=False):
            codes = z.detach().to(precise_device(self.device)).to(torch.float64).flatten(1)
            return function(codes).to(precise_device(z.device))

    @abstractmethod
    def _log_prob(self, z: Tensor) -> Tensor:
        """Evaluate checked codes, float64, shape (N, d), on the density's device."""

    def _log_prob_left_out(self, z: Tensor) -> Tensor:
        """Evaluate checked training codes, each as if left out of the fit."""
        return self._log_prob(z)
