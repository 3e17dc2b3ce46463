"""A density per class: fitted on codes whose labels are known, so that a trained model can be asked for one class.

Nothing is trained again: any decoder that samples from q(z) samples class c from q(z | c).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from expost.densities.base import Density, Fit, code_shape, restore_part
from expost.densities.checks import check_choice, check_int
from expost.densities.drawing import draw_index
from expost.densities.gaussian import Gaussian
from expost.densities.kinds import DENSITIES, make_density
from expost.densities.labelled import LabelledDensity
from expost.densities.labels import LISTED, Classes, Label
from expost.densities.linalg import log_normal, stable_cholesky
from expost.densities.mixture import default_components
from expost.densities.tractable import TractableDensity
from expost.densities.units import Units
from expost.errors import DataError, UsageError

#: Ridge of a shrunk covariance, that of the other Gaussians, in squared units of each dimension of all the codes.
_RIDGE = 1e-6


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class ConditionalDensity(LabelledDensity):
    """q(z | c) for every class c, with class probabilities pi_c = N_c / N: q(z) = sum_c pi_c q(z | c).

    `fit` takes a label for every code: a class (whole number or string), or, with `bins`, a property (a number), which
    is cut into bins. Each class gets its own density of the kind `base`. From these, by Bayes' rule, the probability of
    a class given a code,

        p(c | z) = pi_c q(z | c) / sum_k pi_k q(z | k).

    Where a class has fewer than `min_codes` codes, a covariance of its own would be noise. It gets one Gaussian, with
    its own mean and its covariance shrunk to the pooled one S_w of all classes (Friedman 1989, in the form of a
    posterior under an inverse-Wishart prior of weight nu = d + 1):

        S = (N_c S_c + nu S_w) / (N_c + nu) + 1e-6 diag(s)^2,

    with s the unit of each dimension of all the codes (`Units`).

    Statistics: `n`, `d`, `labels`, `edges`, and `classes`: for each class its `density`, `options` and `fit`, the
    statistics of its own (with `shrunk` where that happened). Tensors: those of class c begin with "c.".

    Attributes:
        base: Name of a density in `DENSITIES`.
        base_options: Its options. Where a mixture's `components` are not among them, a class gets
            `default_components` of its codes.
        min_codes: Least number of codes for a density of the class's own; None is 2 (d + 1).
        small: What becomes of a class with fewer: "shrink" (see above), or "error".

    Example:
        >>> z = torch.randn(400, 2, generator=torch.Generator().manual_seed(0))
        >>> labels = torch.arange(400) % 2
        >>> density = ConditionalDensity(base="gaussian").fit(z + 9.0 * labels[:, None], labels)
        >>> density.labels, density.sample(3, label=1).round(decimals=-1)
        ((0, 1), tensor([[10., 10.],
                [10., 10.],
                [10., 10.]]))
        >>> density.posterior(torch.zeros(1, 2)).round(decimals=3)
        tensor([[1., 0.]], dtype=torch.float64)
    """

    name: ClassVar[str] = "conditional"
    base: str = "gmm"
    base_options: Mapping[str, Any] = field(default_factory=dict)
    min_codes: int | None = None
    small: Literal["shrink", "error"] = "shrink"

    def _check(self) -> None:
        make_density(self.base, **self.base_options)
        check_choice("small", self.small, ["shrink", "error"])
        if self.min_codes is not None:
            check_int("min_codes", self.min_codes, minimum=2)

    @property
    def counts(self) -> tuple[int, ...]:
        """The number of codes in each class, in the order of `labels`."""
        return tuple(part["fit"]["n"] for part in self.statistics["classes"])

    def given(self, label: object) -> Density:
        """Return the density of one class, or of the bin that holds a value.

        Raises:
            UsageError: if there is none; the message lists the labels.
        """
        return self._part(self.class_index(label))

    def _fit(self, z: Tensor) -> Fit:
        raise UsageError(f"density '{self.name}' needs a label for each code; call fit(z, labels)")

    def _fit_labelled(self, z: Tensor, classes: Classes, index: NDArray[np.int64]) -> Fit:
        rows = [torch.from_numpy(np.flatnonzero(index == c)).to(z.device) for c in range(len(classes.labels))]
        least = self.min_codes or 2 * (z.shape[1] + 1)
        few = [c for c, each in enumerate(rows) if len(each) < least]
        if few and self.small == "error":
            listing = ", ".join(f"{classes.labels[c]} ({len(rows[c])})" for c in few[:LISTED])
            raise DataError(f"fewer than {least} codes in class {listing}; merge them, or take small='shrink'")
        groups = [z[each] for each in rows]
        units = Units.of_bulk(z)
        pooled = _pooled_covariance([units.apply(group) for group in groups]) if few else None
        parts = [
            self._fit_class(group.reshape(-1, *self._state.shape), classes.labels[c])
            if c not in few or pooled is None
            else _shrunk(group, pooled, units, self._state.shape)
            for c, group in enumerate(groups)
        ]
        records = [{"density": part.name, "options": part.options, "fit": part.statistics} for part in parts]
        tensors = {f"{c}.{name}": tensor for c, part in enumerate(parts) for name, tensor in part.tensors.items()}
        return Fit(tensors, classes.record() | {"classes": records})

    def _fit_class(self, z: Tensor, label: Label) -> Density:
        density = make_density(self.base, **self.base_options)
        if "components" in density.options and "components" not in self.base_options:
            components = default_components(len(z), z[0].numel())
            density = make_density(self.base, **dict(self.base_options) | {"components": components})
        try:
            return density.fit(z)
        except DataError as error:
            raise DataError(f"class {label}: {error}") from None

    def _draw(self, n: int, generator: torch.Generator | None, temperature: float) -> Tensor:
        drawn = draw_index(n, torch.tensor(self.counts, dtype=torch.float64), generator)
        z = torch.empty(n, self.dim, device=self.device)
        for c in range(len(self.labels)):
            rows = (drawn.cpu() == c).nonzero().squeeze(1)
            z[rows.to(z.device)] = self._draw_given(c, len(rows), generator, temperature).to(z.device)
        return z

    def _draw_given(self, c: int, n: int, generator: torch.Generator | None, temperature: float) -> Tensor:
        return self._part(c).sample(n, generator=generator, temperature=temperature).flatten(1)

    def _log_prob(self, z: Tensor) -> Tensor:
        return torch.logsumexp(self._log_joint(z), 1)

    def _log_prob_given(self, c: int, z: Tensor) -> Tensor:
        part = self._part(c)
        if isinstance(part, TractableDensity):
            return part.log_prob(z.reshape(-1, *self.shape))
        names = ", ".join(name for name, kind in DENSITIES.items() if issubclass(kind, TractableDensity))
        raise UsageError(f"density '{part.name}' cannot be evaluated, only sampled; choose a base of: {names}")

    def _layout(self, statistics: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        classes, parts = Classes.of(statistics), statistics["classes"]
        if len(parts) != len(classes.labels):
            raise ValueError("its labels and densities do not match")
        for part in parts:
            if not all(isinstance(part["fit"].get(name), int) and part["fit"][name] > 0 for name in ("n", "d")):
                raise ValueError("a class does not say the shape of its codes")
        if any(code_shape(part["fit"]) != code_shape(statistics) for part in parts):
            raise ValueError("its densities differ in dimension")
        return {
            f"{c}.{name}": shape
            for c, part in enumerate(parts)
            for name, shape in _unfitted(part)._layout(part["fit"]).items()
        }

    def _part(self, c: int) -> Density:
        """Return the density of class c."""
        part = self.statistics["classes"][c]
        return restore_part(_unfitted(part), part["fit"], self.tensors, f"{c}.", self.device)


def _unfitted(part: Mapping[str, Any]) -> Density:
    """Return the density of a class without its fit."""
    return DENSITIES[part["density"]](**part["options"])


def _pooled_covariance(groups: Sequence[Tensor]) -> Tensor:
    """Return S_w = 1/(N - C) sum over classes and codes of (z - m_c)(z - m_c)^T, shape (d, d), float64."""
    n, d = sum(map(len, groups)), groups[0].shape[1]
    spare = n - len(groups)
    if spare < d + 1:
        raise DataError(
            f"{n} codes in {len(groups)} classes are too few for a covariance in {d} dimensions; give at least "
            f"{len(groups) + d + 1} codes, fewer classes, or the least codes of a class that has its own: min_codes"
        )
    centered = torch.cat([group - group.mean(0) for group in groups])
    return centered.T @ centered / spare


def _shrunk(z: Tensor, pooled: Tensor, units: Units, shape: tuple[int, ...]) -> Density:
    """Return the Gaussian of a class with few codes (see `ConditionalDensity`); `pooled` is of codes in units."""
    n, d = z.shape
    mean = z.mean(0)
    centered = (z - mean) / units.scale
    covariance = (centered.T @ centered + (d + 1) * pooled) / (n + d + 1)
    covariance.diagonal().add_(_RIDGE)
    factor = units.scale[:, None] * stable_cholesky(covariance, "a class")
    log_likelihood = log_normal(z, mean, factor).mean().item()
    statistics: dict[str, Any] = {"n": n, "d": d, "shrunk": True, "log_likelihood": log_likelihood}
    if len(shape) > 1:
        statistics["shape"] = list(shape)
    tensors = {"mean": mean, "cholesky": factor}
    return restore_part(Gaussian(regularization=_RIDGE), statistics, tensors, "", z.device)
