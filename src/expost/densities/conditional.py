"""A density per class: fitted on codes whose labels are known, so that a trained model can be asked for one class.

Nothing is trained again: any decoder that samples from q(z) samples class c from q(z | c).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, final

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from expost.densities import DENSITIES, Density, Gaussian, TractableDensity, make_density
from expost.densities import files as density_files
from expost.densities.base import draw_index, precise_device
from expost.densities.checks import check_choice, check_codes, check_compatible, check_int
from expost.densities.files import Saved
from expost.densities.labels import LISTED, Classes, Label, read_labels
from expost.densities.linalg import LOG_2PI, stable_cholesky
from expost.errors import DataError, UsageError

#: Ridge of a shrunk covariance, that of the other Gaussians.
_RIDGE = 1e-6


def default_components(n: int, d: int) -> int:
    """Return how many full Gaussians n codes of d dimensions support: one for every 5 (d + 1), from 1 to 10.

    Example:
        >>> default_components(400, 16), default_components(50, 16), default_components(10_000, 16)
        (4, 1, 10)
    """
    return min(10, max(1, n // (5 * (d + 1))))


@dataclass
class _State:
    """What a fit gives; the one part of the density that changes."""

    classes: Classes = field(default_factory=lambda: Classes(()))
    counts: tuple[int, ...] = ()
    densities: tuple[Density, ...] = ()


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class ConditionalDensity:
    """q(z | c) for every class c, with class probabilities pi_c = N_c / N: q(z) = sum_c pi_c q(z | c).

    `fit` takes a label for every code: a class (whole number or string), or, with `bins`, a property (a number), which
    is cut into bins. Each class gets its own density of the kind `base`. From these, by Bayes' rule, the probability of
    a class given a code,

        p(c | z) = pi_c q(z | c) / sum_k pi_k q(z | k).

    Where a class has fewer than `min_codes` codes, a covariance of its own would be noise. It gets one Gaussian, with
    its own mean and its covariance shrunk to the pooled one S_w of all classes (Friedman 1989, in the form of a
    posterior under an inverse-Wishart prior of weight nu = d + 1):

        S = (N_c S_c + nu S_w) / (N_c + nu) + 1e-6 I.

    Statistics: `n`, `d`, `labels`, `counts`, and per class `densities` ("shrunk" or the base's name).

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
    _state: _State = field(init=False, repr=False, default_factory=_State)

    def __post_init__(self) -> None:
        """Refuse what no fit could use."""
        make_density(self.base, **self.base_options)
        check_choice("small", self.small, ["shrink", "error"])
        if self.min_codes is not None:
            check_int("min_codes", self.min_codes, minimum=2)

    def fit(self, z: Tensor, labels: ArrayLike | Tensor, bins: int | Sequence[float] | None = None) -> Self:
        """Fit a density per class.

        Args:
            z: Codes, shape (N, d), any floating dtype, finite.
            labels: Shape (N,): whole numbers or strings, or, with `bins`, numbers.
            bins: For a property: into how many bins of nearly equal counts (quantiles) it is cut, or the bins' bounds,
                ascending, which must span all values.

        Raises:
            UsageError: if labels are fractional and `bins` is not given, or `bins` cannot be used.
            DataError: if codes or labels are unusable, or a class's density cannot be fitted.
        """
        self._state.densities = ()  # a failed second fit must not leave the first one in use
        check_codes(z)
        classes, index = read_labels(labels, len(z), bins)
        rows = [torch.from_numpy(np.flatnonzero(index == c)).to(z.device) for c in range(len(classes.labels))]
        least = self.min_codes or 2 * (z.shape[1] + 1)
        few = [c for c, each in enumerate(rows) if len(each) < least]
        if few and self.small == "error":
            listing = ", ".join(f"{classes.labels[c]} ({len(rows[c])})" for c in few[:LISTED])
            raise DataError(f"fewer than {least} codes in class {listing}; merge them, or take small='shrink'")
        groups = [z.detach()[each] for each in rows]
        pooled = _pooled_covariance(groups, classes) if few else None
        self._state.densities = tuple(
            self._fit_class(group, classes.labels[c]) if c not in few or pooled is None else _shrunk(group, pooled)
            for c, group in enumerate(groups)
        )
        self._state.classes, self._state.counts = classes, tuple(len(each) for each in rows)
        return self

    def sample(
        self, n: int, label: object = None, *, generator: torch.Generator | None = None, temperature: float = 1.0
    ) -> Tensor:
        """Draw codes of one class, or of all with the frequencies they were fitted with.

        Args:
            n: How many, 0 or more.
            label: The class, or a value of the property; None draws a class for every code.
            generator: Source of randomness; without one PyTorch's global state is used.
            temperature: Of each class's density; see `Density.sample`. Classes keep their frequencies.

        Returns:
            Codes, shape (n, d), float32, in random order.
        """
        check_int("n", n, minimum=0)
        if label is not None:
            return self.given(label).sample(n, generator=generator, temperature=temperature)
        densities = self._require_fit()
        drawn = draw_index(n, torch.tensor(self._state.counts, dtype=torch.float64), generator)
        z = torch.empty(n, self.dim, device=self.device)
        for c, density in enumerate(densities):
            rows = (drawn.cpu() == c).nonzero().squeeze(1)
            z[rows.to(z.device)] = density.sample(len(rows), generator=generator, temperature=temperature)
        return z

    def log_prob(self, z: Tensor, label: object = None) -> Tensor:
        """Evaluate log q(z | label), or log q(z) if no label is given; natural logarithm, shape (N,), float64.

        Raises:
            UsageError: if the base can only be sampled, or the label is unknown.
        """
        self._require_fit()
        if label is not None:
            return _tractable(self.given(label)).log_prob(z)
        return torch.logsumexp(self._log_joint(z), 1)

    def posterior(self, z: Tensor) -> Tensor:
        """Return p(c | z), shape (N, classes) in the order of `labels`, float64; rows sum to 1."""
        return torch.softmax(self._log_joint(z), 1)

    def given(self, label: object) -> Density:
        """Return the density of one class, or of the bin that holds a value.

        Raises:
            UsageError: if there is none; the message lists the labels.
        """
        densities = self._require_fit()
        return densities[self._state.classes.find(label)]

    @property
    def labels(self) -> tuple[Label, ...]:
        """The classes' labels in ascending order; of bins, their bounds in words."""
        self._require_fit()
        return self._state.classes.labels

    @property
    def edges(self) -> tuple[float, ...]:
        """The bins' bounds, ascending; empty where labels are classes themselves."""
        self._require_fit()
        return self._state.classes.edges

    @property
    def fitted(self) -> bool:
        """Whether `fit` or `load` has succeeded."""
        return bool(self._state.densities)

    @property
    def dim(self) -> int:
        """Dimension d of the codes it was fitted on."""
        return self._require_fit()[0].dim

    @property
    def device(self) -> torch.device:
        """Where samples are returned."""
        return self._require_fit()[0].device

    @property
    def options(self) -> dict[str, Any]:
        """The options by name."""
        names = ("base", "base_options", "min_codes", "small")
        return {name: getattr(self, name) for name in names} | {"base_options": dict(self.base_options)}

    @property
    def statistics(self) -> dict[str, Any]:
        """Facts about the fit, JSON-able: n, d, labels, counts, and the kind of density of each class."""
        densities = self._require_fit()
        kinds = ["shrunk" if density.statistics.get("shrunk") else density.name for density in densities]
        counts = list(self._state.counts)
        return {"n": sum(counts), "d": self.dim, "labels": list(self.labels), "counts": counts, "densities": kinds}

    def to(self, device: str | torch.device) -> Self:
        """Move the fitted densities; samples are returned there from now on."""
        for density in self._require_fit():
            density.to(device)
        return self

    def save(self, path: str | Path) -> Path:
        """Write the fit as `Density.save` does, one safetensors file and its record as JSON; return the former."""
        densities = self._require_fit()
        parts = [
            {"density": density.name, "options": density.options, "fit": density.statistics} for density in densities
        ]
        tensors = {
            f"{c}.{key}": tensor for c, density in enumerate(densities) for key, tensor in density.tensors.items()
        }
        fit = {"n": sum(self._state.counts), "d": self.dim, "labels": list(self.labels), "edges": list(self.edges)}
        return density_files.write(Path(path), self.name, self.options, fit | {"classes": parts}, tensors)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote, onto the CPU; it samples and evaluates exactly as before.

        Raises:
            DataError: if the file is missing, truncated, of another density, or inconsistent.
        """
        saved = density_files.read(Path(path))
        if saved.density != cls.name:
            raise DataError(f"{saved.path} holds density '{saved.density}', not densities by class; use load_density")
        try:
            density = cls(**saved.options)
            record = saved.statistics
            labels, edges, parts = (list(record[key]) for key in ("labels", "edges", "classes"))
            classes = Classes(tuple(labels), tuple(map(float, edges)))
            densities = tuple(_restore(saved, c, part) for c, part in enumerate(parts))
            names = {name.partition(".")[0] for name in saved.tensors}
            if not (0 < len(parts) == len(set(labels)) and names <= set(map(str, range(len(parts))))):
                raise ValueError("its labels, densities and tensors do not match")
            if edges and (len(edges) != len(labels) + 1 or edges != sorted(edges)):
                raise ValueError("its bins are not ascending")
            if len({each.dim for each in densities}) != 1 or densities[0].dim != record["d"]:
                raise ValueError("its densities differ in dimension")
        except (ValueError, TypeError, KeyError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{saved.path} is inconsistent ({error}); restore it or fit again") from None
        density._state.classes, density._state.densities = classes, densities
        density._state.counts = tuple(int(each.statistics["n"]) for each in densities)
        return density

    def _fit_class(self, z: Tensor, label: Label) -> Density:
        density = make_density(self.base, **self.base_options)
        if "components" in density.options and "components" not in self.base_options:
            density = make_density(self.base, **dict(self.base_options) | {"components": default_components(*z.shape)})
        try:
            return density.fit(z)
        except DataError as error:
            raise DataError(f"class {label}: {error}") from None

    def _log_joint(self, z: Tensor) -> Tensor:
        """Return log pi_c + log q(z | c), shape (N, classes)."""
        densities = self._require_fit()
        check_compatible(z, self.dim)
        counts = torch.tensor(self._state.counts, dtype=torch.float64)
        values = torch.stack([_tractable(density).log_prob(z) for density in densities], 1)
        return values + (counts / counts.sum()).log().to(values.device)

    def _require_fit(self) -> tuple[Density, ...]:
        if not self._state.densities:
            raise UsageError(
                "the densities by class are not fitted; call fit(z, labels) or ConditionalDensity.load first"
            )
        return self._state.densities


def _tractable(density: Density) -> TractableDensity:
    if isinstance(density, TractableDensity):
        return density
    names = ", ".join(name for name, kind in DENSITIES.items() if issubclass(kind, TractableDensity))
    raise UsageError(f"density '{density.name}' cannot be evaluated, only sampled; choose a base of: {names}")


def _restore(saved: Saved, c: int, part: Mapping[str, Any]) -> Density:
    """Return the density of class c from its part of the file."""
    prefix = f"{c}."
    tensors = {name.removeprefix(prefix): value for name, value in saved.tensors.items() if name.startswith(prefix)}
    name = str(part["density"])
    inner = Saved(saved.path, name, dict(part["options"]), dict(part["fit"]), tensors)
    return DENSITIES[name].restore(inner)


def _pooled_covariance(groups: Sequence[Tensor], classes: Classes) -> Tensor:
    """Return S_w = 1/(N - C) sum over classes and codes of (z - m_c)(z - m_c)^T, shape (d, d), float64."""
    n, d = sum(map(len, groups)), groups[0].shape[1]
    spare = n - len(groups)
    if spare < d + 1:
        raise DataError(
            f"{n} codes in {len(groups)} classes are too few for a covariance in {d} dimensions; give at least "
            f"{len(groups) + d + 1} codes, or fewer classes"
        )
    exact = [group.to(precise_device(group.device)).double() for group in groups]
    centered = torch.cat([group - group.mean(0) for group in exact])
    return centered.T @ centered / spare


def _shrunk(z: Tensor, pooled: Tensor) -> Density:
    """Return the Gaussian of a class with few codes (see `ConditionalDensity`)."""
    n, d = z.shape
    codes = z.to(precise_device(z.device)).double()
    mean = codes.mean(0)
    centered = codes - mean
    covariance = (centered.T @ centered + (d + 1) * pooled) / (n + d + 1)
    covariance.diagonal().add_(_RIDGE)
    factor = stable_cholesky(covariance, "a class")
    whitened = torch.linalg.solve_triangular(factor, centered.T, upper=False)
    log_likelihood = -0.5 * (whitened.square().sum(0).mean() + d * LOG_2PI) - factor.diagonal().log().sum()
    statistics = {"n": n, "d": d, "shrunk": True, "log_likelihood": log_likelihood.item()}
    tensors = {"mean": mean, "cholesky": factor}
    saved = Saved(Path("memory"), Gaussian.name, {"regularization": _RIDGE}, statistics, tensors)
    return Gaussian.restore(saved).to(z.device)
