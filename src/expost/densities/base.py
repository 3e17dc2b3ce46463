"""The density slot: a distribution q(z) fitted on codes after training (Ghosh et al. 2020, section 4).

A density sees nothing but codes: vectors (N, d), sequences (N, C, L) or maps (N, C, H, W). `fit` estimates it, `sample`
draws new codes of that shape, and where the density can be evaluated (`TractableDensity`) `log_prob` does so. What
follows a method's underscore gets and gives each code as one row: a map flattened, d = C H W. All arithmetic of the fit
is float64, whatever the codes are.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar, final

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from expost import distributed
from expost.densities import files
from expost.densities.checks import check_codes, check_float, check_int
from expost.densities.choice import HeldOut
from expost.densities.labels import read_labels
from expost.densities.linalg import precise_device
from expost.errors import DataError, UsageError

if TYPE_CHECKING:
    from expost.densities.labelled import LabelledDensity


@dataclass(frozen=True)
class Fit:
    """The result of an estimation: the parameters that sampling needs, and facts for people.

    Attributes:
        tensors: The parameters by name; they are what `save` writes.
        statistics: JSON-able facts such as seed, iterations, converged, log_likelihood (natural log, mean per example).
    """

    tensors: Mapping[str, Tensor]
    statistics: Mapping[str, Any] = field(default_factory=dict)


class _State:
    """The fit that a density holds, if any; the one part of a density that changes."""

    def __init__(self) -> None:
        self.fit: Fit | None = None
        self.shape: tuple[int, ...] = ()
        self.device = torch.device("cpu")
        self.weights = ""
        self.held_out: HeldOut | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Density(ABC):
    """A distribution of codes. Options are the keyword arguments; they never change, the fit may be made again.

    A new density is a frozen, keyword-only dataclass with a `name`, `words` that call it so in a sentence, its options
    as fields, `_check`, `_fit`, `_draw` and `_layout`, and one line in the registry. Where some options may be chosen
    by held-out likelihood (`auto`), `grids` has a function for each, from codes and the other options to the values
    that are tried; `tried` are the options with which `--density auto` tries the density, None leaves it out.
    """

    name: ClassVar[str]
    words: ClassVar[str]
    #: Whether codes are symbols, whole numbers, and the density a probability; see `SymbolDensity`.
    of_symbols: ClassVar[bool] = False
    grids: ClassVar[Mapping[str, Callable[[Tensor, Mapping[str, Any]], Sequence[Any]]]] = {}
    tried: ClassVar[Mapping[str, Any] | None] = {}
    _state: _State = field(init=False, repr=False, default_factory=_State)

    def __post_init__(self) -> None:
        """Turn NumPy's numbers into Python's, so that the options can be written down, and check the ranges."""
        for key, value in self.options.items():
            if isinstance(value, np.integer):
                object.__setattr__(self, key, int(value))
            elif isinstance(value, np.floating):
                object.__setattr__(self, key, float(value))
        self._check()

    @property
    def options(self) -> dict[str, Any]:
        """The options by name, as they were given or by default."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.init}

    @final
    def fit(
        self, z: Tensor, labels: ArrayLike | Tensor | None = None, bins: int | Sequence[float] | None = None
    ) -> Self:
        """Estimate the density of codes.

        The same codes, options and device give the same fit (on a GPU up to rounding). PyTorch's global random state is
        neither used nor changed.

        Args:
            z: Codes, shape (N, d), or maps (N, C, H, W) or (N, C, L), any floating dtype, finite, at least two that
                differ.
            labels: For a `LabelledDensity`: a class for each code, shape (N,), whole numbers or strings; or, with
                `bins`, a property, numbers.
            bins: For a property: the number of bins of nearly equal counts (quantiles), or the bins' bounds, ascending,
                which must span all values.

        Returns:
            The density itself, fitted; its samples are on the device of `z` until `to` moves them.

        Raises:
            UsageError: if the density takes no labels or needs them, they are fractional and `bins` is not given, or
                `bins` cannot be used.
            DataError: if codes or labels are unusable or the estimation fails; the density is then not fitted.
        """
        if labels is None:
            return self._accept(z, self._fit)
        fit = self._labelled()._fit_labelled
        return self._accept(z, lambda codes: fit(codes, *read_labels(labels, len(codes), bins)))

    @final
    def sample(
        self, n: int, label: object = None, *, generator: torch.Generator | None = None, temperature: float = 1.0
    ) -> Tensor:
        """Draw codes independently of one another.

        Every density of vectors turns standard normal noise into codes. A temperature T multiplies that noise's
        variance: N(0, T I) takes the place of N(0, I); what is drawn beside it, such as a mixture's component, stays.

        | density | at temperature T | as T goes to 0 |
        |---|---|---|
        | a Gaussian N(m, S) | N(m, T S) | m |
        | a mixture of w_k N(m_k, S_k) | w_k N(m_k, T S_k) | the means, as often as their weights say |
        | kernels of bandwidth h | bandwidth sqrt(T) h | training codes |
        | a second stage, u and noise normal | u and noise of variance T | the code of u = 0 |
        | a flow from N(0, I), or a mixture | N(0, T I), or the mixture at T | the codes of its means |
        | symbols of probability p | probability proportional to p^(1/T), symbol by symbol | the likeliest symbols |

        Below 1 samples are more typical and less varied, above 1 it is the other way round. With the same generator the
        noise is the same at every temperature, so that samples move on paths as it changes.

        Args:
            n: How many, 0 or more.
            label: For a `LabelledDensity`: a class, or a value of the property, to draw from q(z | label); None draws
                from q(z).
            generator: Source of randomness, on any device; without one PyTorch's global state is used.
            temperature: T, at least 0; 1 draws from the density itself.

        Returns:
            Codes, shape (n, d), or the maps' (n, C, H, W), float32, in random order.

        Raises:
            UsageError: if `n` is no whole number of at least 0, the temperature is negative or not finite, the
                density was not fitted, or it does not know the label.
        """
        check_int("n", n, minimum=0)
        check_float("temperature", temperature, minimum=0)
        self._require_fit()
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            if label is None:
                z = self._draw(int(n), generator, float(temperature))
            else:
                labelled = self._labelled()
                z = labelled._draw_given(labelled.class_index(label), int(n), generator, float(temperature))
            return z.to(torch.float32).to(self.device).reshape(-1, *self.shape)

    @final
    @property
    def fitted(self) -> bool:
        """Whether `fit` or `load` has succeeded."""
        return self._state.fit is not None

    @final
    @property
    def dim(self) -> int:
        """Dimension d of the codes it was fitted on; of maps C H W."""
        return int(self.statistics["d"])

    @final
    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a code: (d,), or of maps (C, H, W) or (C, L)."""
        self._require_fit()
        return self._state.shape

    @final
    @property
    def device(self) -> torch.device:
        """Where samples are returned."""
        return self._state.device

    @final
    @property
    def weights(self) -> str:
        """SHA-256 of the file of the weights that encoded the codes, where `of_weights` said so; else empty."""
        return self._state.weights

    @final
    def of_weights(self, weights: str) -> Self:
        """Note the hash of the weights that encoded the codes, under which a run files the density."""
        self._state.weights = weights
        return self

    @final
    @property
    def held_out(self) -> HeldOut | None:
        """Log-likelihoods of codes that it was not fitted on, where `judged` gave them; else None."""
        return self._state.held_out

    @final
    def judged(self, held_out: HeldOut | None) -> Self:
        """Note how likely held-out codes are under it, by which it is compared with others (`usual_density`)."""
        self._state.held_out = held_out
        return self

    @final
    @property
    def size(self) -> int:
        """How many numbers were fitted: of two that describe codes alike, the one with fewer is simpler."""
        return sum(tensor.numel() for tensor in self._require_fit().tensors.values())

    @final
    @property
    def statistics(self) -> dict[str, Any]:
        """Facts about the fit: n and d always, of maps their shape; seed, iterations, converged where they apply."""
        return dict(self._require_fit().statistics)

    @final
    @property
    def tensors(self) -> dict[str, Tensor]:
        """The fitted parameters by name (not copies)."""
        return dict(self._require_fit().tensors)

    @final
    def to(self, device: str | torch.device) -> Self:
        """Move the fitted parameters; samples are returned there from now on.

        Raises:
            UsageError: if the device does not exist, or the density was not fitted.
        """
        fit = self._require_fit()
        try:
            target = torch.empty(0, device=device).device
            moved = {name: tensor.to(precise_device(target)) for name, tensor in fit.tensors.items()}
            if target.type == "meta":
                raise RuntimeError("it holds no numbers")
        except (RuntimeError, AssertionError) as error:  # torch's words for a device that is not there
            reason = str(error).splitlines()[0]
            raise UsageError(
                f"cannot use device '{device}': {reason}; choose cpu or a device of this machine"
            ) from None
        self._state.fit, self._state.device = Fit(moved, fit.statistics), target
        return self

    @final
    def save(self, path: str | Path) -> Path:
        """Write the fit: one safetensors file, tensors and record, and beside it the record alone as JSON to read.

        Args:
            path: A file name that ends in `.safetensors`, or a folder, in which `density.safetensors` is written.

        Returns:
            The safetensors file. `expost.densities.load_density` reads it back exactly, without the JSON.

        Raises:
            UsageError: if the density was not fitted.
            OSError: if the folder cannot be written.
        """
        fit = self._require_fit()
        held_out = None if self.held_out is None else self.held_out.record()
        return files.write(Path(path), self.name, self.options, fit.statistics, fit.tensors, self.weights, held_out)

    @final
    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote, onto the CPU.

        Raises:
            DataError: if the file is missing, truncated, of a newer format, of another density, or inconsistent.
        """
        density = cls.restore(files.read(Path(path)))
        density._require_sound(Path(path))
        return density

    @final
    @classmethod
    def restore(cls, saved: files.Saved) -> Self:
        """Make a fitted density of what a file holds, or a part of a file.

        Raises:
            DataError: if it is of another density, or inconsistent.
        """
        if saved.density != cls.name:
            raise DataError(f"{saved.path} holds density '{saved.density}', not '{cls.name}'; use load_density")
        try:
            density = cls(**saved.options)
        except (UsageError, TypeError) as error:
            raise DataError(f"{saved.path} has unusable options ({error}); restore it or fit again") from None
        files.check_size(saved)
        try:
            layout = density._layout(saved.statistics)
            held_out = None if saved.held_out is None else HeldOut.read(saved.held_out)
        except (ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:  # of any JSON
            raise DataError(f"{saved.path} is inconsistent ({error}); restore it or fit again") from None
        saved.require(layout)
        density._state.fit, density._state.weights = Fit(saved.tensors, saved.statistics), saved.weights
        density._state.shape = code_shape(saved.statistics)
        return density.judged(held_out)

    def _accept(self, z: Tensor, estimate: Callable[[Tensor], Fit]) -> Self:
        """Check the codes, estimate in float64, and keep the result; the frame around every way to fit."""
        self._state.fit = None  # a failed second fit must not leave the first one in use
        self._state.weights = ""
        self._state.held_out = None
        check_codes(z)
        # A caller may encode under inference_mode or autocast; neither may reach the arithmetic (or the training) in
        # here.
        with torch.inference_mode(False), torch.autocast(z.device.type, enabled=False):
            codes = z.detach().to(precise_device(z.device)).to(torch.float64, copy=True).flatten(1)
            self._state.shape = tuple(z.shape[1:])
            with torch.no_grad(), distributed.all_or_none():
                fit = estimate(codes)
            distributed.copy_from_main(*fit.tensors.values())  # several processes hold one fit, to the last bit
            if not all(bool(tensor.isfinite().all()) for tensor in fit.tensors.values()):
                raise DataError(
                    f"{self.name}: the fit is not finite; standardize the codes or look for outliers in them"
                )
        statistics = {"n": codes.shape[0], "d": codes.shape[1], **fit.statistics}
        if z.dim() > 2:
            statistics["shape"] = list(z.shape[1:])
        self._state.fit = Fit(dict(fit.tensors), statistics)
        self._state.device = z.device
        return self

    def _require_fit(self) -> Fit:
        if self._state.fit is None:
            raise UsageError(f"density '{self.name}' is not fitted; call fit, or load_density(path), first")
        return self._state.fit

    def _require_sound(self, path: Path) -> None:
        """Refuse parameters that are finite and of the right shapes, but make no density: a scale of 0 or 1e-310, say.

        Raises:
            DataError: if a sample is not finite, or has no finite density, or a point beside it has NaN.
        """
        from expost.densities.tractable import TractableDensity  # derives from this class

        try:
            z = self.sample(2, generator=torch.Generator().manual_seed(0))
            sound = bool(z.isfinite().all())
            if sound and isinstance(self, TractableDensity):
                with suppress(UsageError):  # by label, of a kind that can only be sampled
                    beside = z if self.of_symbols else z + 1
                    sound = bool(self.log_prob(z).isfinite().all()) and not bool(self.log_prob(beside).isnan().any())
        except (DataError, IndexError, RuntimeError) as error:
            raise DataError(f"{path} holds no density ({error}); restore it or fit again") from None
        if not sound:
            raise DataError(f"{path} holds no density: its samples or their densities are not finite; fit again")

    def _labelled(self) -> LabelledDensity:
        from expost.densities.labelled import LabelledDensity  # derives from this class

        if not isinstance(self, LabelledDensity):
            raise UsageError(
                f"density '{self.name}' takes no labels; fit one for each class: ConditionalDensity(base='{self.name}')"
            )
        return self

    @abstractmethod
    def _check(self) -> None:
        """Raise UsageError for an option outside its range."""

    @abstractmethod
    def _fit(self, z: Tensor) -> Fit:
        """Estimate from checked codes, float64, shape (N, d), without gradients; raise DataError on failure.

        Maps arrive flattened; `self._state.shape` is their shape.
        """

    @abstractmethod
    def _draw(self, n: int, generator: torch.Generator | None, temperature: float) -> Tensor:
        """Draw n codes, shape (n, d), in random order, from noise whose variance is multiplied by the temperature."""

    @abstractmethod
    def _layout(self, statistics: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the tensors of a fit with these statistics (n and d always); loading checks them."""


def code_shape(statistics: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the shape of the codes of a fit with these statistics: (d,), or that of maps.

    Example:
        >>> code_shape({"n": 9, "d": 5}), code_shape({"n": 9, "d": 64, "shape": [4, 4, 4]})
        ((5,), (4, 4, 4))
    """
    return tuple(statistics.get("shape", (statistics["d"],)))


D = TypeVar("D", bound=Density)


def restore_part(
    fresh: D, statistics: Mapping[str, Any], tensors: Mapping[str, Tensor], prefix: str, device: torch.device
) -> D:
    """Return `fresh` with a fit that another density's fit holds under `prefix`, on a device that computes in float64.

    Raises:
        DataError: if the fit is inconsistent.
    """
    if not isinstance(statistics, Mapping):
        raise DataError(f"the fit of its {fresh.name} is {statistics!r}, no record; restore the file or fit again")
    own = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    saved = files.Saved(Path("memory"), fresh.name, fresh.options, dict(statistics), own)
    return type(fresh).restore(saved).to(precise_device(device))
