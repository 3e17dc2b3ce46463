"""The generator: an autoencoder and the densities fitted on its codes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from expost import distributed
from expost.data.intensities import unit_remedy
from expost.densities import Density, LabelledDensity, make_density, make_labelled
from expost.errors import UsageError
from expost.generators.interpolation import INTERPOLATIONS
from expost.models.autoencoder import Autoencoder
from expost.types import to_unit
from expost.utils.precision import full_float32
from expost.utils.process import freed_memory_kept
from expost.utils.progress import progress

#: How far beyond [0, 1] pixels may lie, as what interpolation of images leaves.
_BEYOND = 0.01

#: The density that is taken where none is named, if it is fitted.
USUAL = "gmm"


def usual_density(fitted: Iterable[str]) -> str | None:
    """Return which of the fitted densities is taken where none is named: gmm if it is among them, else the last.

    Example:
        >>> usual_density(["gmm", "kde"]), usual_density(["gaussian", "kde"]), usual_density([])
        ('gmm', 'kde', None)
    """
    names = list(fitted)
    return USUAL if USUAL in names else names[-1] if names else None


@dataclass
class Generator:
    """Encodes, decodes and samples: fit a density on the codes of a trained model, draw, decode (Ghosh et al., sec. 4).

    It works with any pair of functions, whoever trained them:

        generator = Generator(encode_batch=my_encoder, decode_batch=my_decoder)
        generator.fit("gmm", x)
        images = generator.sample(64)

    Inside of `distributed.together` several processes share encoding, decoding and fitting; each has all results.

    Attributes:
        encode_batch: Maps a batch of examples (images as floats in [0, 1]) to codes, (B, d) or maps (B, C, H, W), on
            `device`.
        decode_batch: Maps a batch of codes to examples, on `device`.
        densities: The fitted densities by name.
        by_label: Densities fitted with labels, by the name of their kind.
        device: Where batches are put.
        batch_size: Examples per batch.
        module: The network behind the two functions, if known. It must be in evaluation mode: in training mode, batch
            norm makes an example's output depend on its batch, which biases scores.
        weights: SHA-256 of the file that the network's weights were read from; empty if unknown.
    """

    encode_batch: Callable[[Tensor], Tensor]
    decode_batch: Callable[[Tensor], Tensor]
    densities: dict[str, Density] = field(default_factory=dict)
    by_label: dict[str, LabelledDensity] = field(default_factory=dict)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    batch_size: int = 500
    module: nn.Module | None = None
    weights: str = ""

    @classmethod
    def of(cls, model: Autoencoder, device: torch.device | None = None, weights: str = "") -> Generator:
        """Wrap a trained autoencoder; it is put into evaluation mode and stays there."""
        model.eval()
        device = device or next(model.parameters()).device
        return cls(model.encode, model.decode, device=device, module=model, weights=weights)

    def checked(self, x: Tensor, title: str) -> Tensor:
        """Return the input as a tensor, or refuse it.

        Raises:
            UsageError: if it is empty, or the model is in training mode.
        """
        x = torch.as_tensor(x)  # NumPy arrays will do
        if len(x) == 0:
            raise UsageError(f"nothing to do for {title}: the input has no examples; give at least one")
        if self.module is not None and any(part.training for part in self.module.modules()):
            raise UsageError(f"{title} requires evaluation mode, and the model is in training mode; call model.eval()")
        return x

    def examples(self, x: Tensor, title: str) -> Tensor:
        """Return examples as a tensor, or refuse them: `checked`, and images that are no floats in [0, 1].

        What is encoded by another's functions is not looked at: those may take any range.

        Raises:
            UsageError: as `checked` does, and for images of other ranges and types.
        """
        x = self.checked(x, title)
        if self.module is None or x.dim() != 4 or x.dtype == torch.uint8:
            return x
        if not x.is_floating_point():
            kind = str(x.dtype).removeprefix("torch.")
            raise UsageError(f"{title}: images of type {kind}; give uint8, 0..255, or floats in [0, 1]")
        low, high = float(x.amin()), float(x.amax())
        if not math.isfinite(low + high):
            raise UsageError(f"{title}: some pixels are NaN or infinite; repair or remove those images")
        if low < -_BEYOND or high > 1 + _BEYOND:
            raise UsageError(f"{title}: floating-point pixels from {low:g} to {high:g}; {unit_remedy(low, high)}")
        return x

    def _batched(self, function: Callable[[Tensor], Tensor], x: Tensor, title: str) -> Tensor:
        x = self.checked(x, title)
        mine = distributed.shard(x) if len(x) >= distributed.world() else x
        result = torch.empty(0)
        batches, done = torch.split(mine, self.batch_size), 0
        kept = freed_memory_kept() if len(batches) > 1 else nullcontext()
        with torch.inference_mode(), full_float32(), kept, progress(title, len(batches)) as bar:
            for batch in batches:
                part = torch.as_tensor(function(_as_input(batch.to(self.device)))).float()
                if not done:  # one place for all results: to join them at the end would take twice the memory
                    with torch.inference_mode(False):  # the result may be used in training
                        result = torch.empty((len(mine), *part.shape[1:]))
                result[done : done + len(part)] = part
                done += len(part)
                bar.advance()
        return result if len(x) < distributed.world() else distributed.gather(result, len(x))

    def encode(self, x: Tensor) -> Tensor:
        """Return noiseless codes, without running the decoder.

        Args:
            x: Examples (N, ...), uint8 images or floats (images in [0, 1]).

        Returns:
            float32 codes on the CPU, shape (N, d), or maps (N, C, H, W).
        """
        return self._batched(self.encode_batch, self.examples(x, "encoding"), "encoding")

    def decode(self, z: Tensor) -> Tensor:
        """Return decoded codes, float32 on the CPU, shape (N, ...); images in [0, 1]."""
        return self._batched(self.decode_batch, z, "decoding")

    def reconstruct(self, x: Tensor) -> Tensor:
        """Return D(E(x)), float32 on the CPU."""
        x = self.examples(x, "reconstructing")
        return self._batched(lambda batch: self.decode_batch(self.encode_batch(batch)), x, "reconstructing")

    def fit(self, density: str, x: Tensor | None = None, codes: Tensor | None = None, **options: Any) -> Density:
        """Fit a density on codes, and keep it under its name.

        Args:
            density: Entry of `DENSITIES`.
            x: Training examples, which are encoded; or
            codes: their codes (N, d), or maps (N, C, H, W), if at hand.
            **options: Options of the density.

        Raises:
            UsageError: if neither or both of `x` and `codes` are given, or the name or an option is unknown.
        """
        fresh = make_density(density, **options)
        if (x is None) == (codes is None):
            raise UsageError("fit needs either examples x or codes; give exactly one of them")
        z = self.encode(x) if x is not None else codes
        assert z is not None
        self.densities[density] = fresh.fit(z.to(self.device)).of_weights(self.weights)
        return self.densities[density]

    def fit_by_label(
        self, density: str, labels: ArrayLike | Tensor, codes: Tensor, bins: int | None = None, **options: Any
    ) -> LabelledDensity:
        """Fit a density with labels, and keep it: `sample` then takes a label.

        Args:
            density: Entry of `DENSITIES`. One that takes labels (flow, flow-matching) is fitted once, on all classes;
                of any other each class gets its own (`ConditionalDensity`), as with "conditional" and its option base.
            labels: Classes, or with `bins` values of a property, shape (N,).
            codes: Codes of the labelled examples, (N, d) or maps.
            bins: Into how many bins of equal counts a property is cut.
            **options: Options of the density.
        """
        fitted = make_labelled(density, **options).fit(codes.to(self.device), labels, bins)
        self.by_label[density] = fitted.of_weights(self.weights)
        return fitted

    def draw(
        self,
        n: int,
        density: str | None = None,
        label: object = None,
        source: torch.Generator | None = None,
        code_temperature: float = 1.0,
    ) -> Tensor:
        """Draw codes from a fitted density, or from that of one class.

        Args:
            n: How many, at least 1.
            density: Name of a fitted density; see `density`.
            label: A class, or a value of the property, that a density was fitted by; None for all.
            source: Of the draws; None is torch's global generator.
            code_temperature: See `Density.sample`: below 1 codes lie nearer to the density's centers, 1 is the density.

        Raises:
            UsageError: for n below 1, a density that is not fitted, or a label that it does not know.
        """
        if n < 1:
            raise UsageError(f"n is {n}; ask for at least 1 sample")
        if label is None:
            return self.density(density).sample(n, generator=source, temperature=code_temperature)
        return self.labelled(density).sample(n, label, generator=source, temperature=code_temperature)

    def labelled(self, name: str | None = None) -> LabelledDensity:
        """Return a density that is fitted by label; see `density`.

        Raises:
            UsageError: if it is not fitted.
        """
        return self.by_label[self.labelled_name(name)]

    def labelled_name(self, name: str | None = None) -> str:
        """Return the name of the density that `labelled` returns, or refuse it as that does."""
        name = name or usual_density(self.by_label) or USUAL
        if name not in self.by_label:
            raise UsageError(
                f"no '{name}' is fitted by label; fit it first: expost fit RUN --density {name} --by label"
            )
        return name

    def density(self, name: str | None = None) -> Density:
        """Return a fitted density.

        Args:
            name: Its name; None takes `gmm` if it is fitted, else the last in `densities`.

        Raises:
            UsageError: if it is not fitted.
        """
        return self.densities[self.density_name(name)]

    def density_name(self, name: str | None = None) -> str:
        """Return the name of the density that `density` returns, or refuse it as that does."""
        fitted = ", ".join(self.densities) or "none"
        name = usual_density(self.densities) if name is None else name
        if name is None or name not in self.densities:
            wanted = name or USUAL
            remedy = f"fit it first: expost fit RUN --density {wanted}, or generator.fit('{wanted}', x)"
            raise UsageError(f"density '{wanted}' is not fitted (fitted: {fitted}); {remedy}")
        return name

    def sample(
        self,
        n: int,
        density: str | None = None,
        seed: int | None = None,
        label: object = None,
        code_temperature: float = 1.0,
    ) -> Tensor:
        """Draw codes from a density and decode them.

        Args:
            n: How many, at least 1.
            density: Name of a fitted density; see `density`.
            seed: Seeds the draws; None makes every call differ.
            label: Draw from this class alone; see `draw`.
            code_temperature: Of the codes; see `draw`.

        Returns:
            float32 examples on the CPU, shape (n, ...); images in [0, 1].
        """
        source = None if seed is None else torch.Generator().manual_seed(seed)
        return self.decode(self.draw(n, density, label, source, code_temperature))

    def path(self, a: Tensor, b: Tensor, t: Tensor, method: str = "linear") -> Tensor:
        """Return points between the codes of examples, shape (N, T, ...); arguments are those of `interpolate`."""
        between, first, last = INTERPOLATIONS[method], self.encode(a), self.encode(b)
        return torch.stack([between(first, last, position) for position in t.reshape(-1)], 1)

    def interpolate(self, a: Tensor, b: Tensor, t: Tensor | float = 0.5, method: str = "linear") -> Tensor:
        """Decode points between the codes of examples `a` and `b`.

        Args:
            a: Examples at t = 0, shape (N, ...).
            b: Examples at t = 1, same shape.
            t: A position in [0, 1], or T of them.
            method: linear, linear-rescaled or spherical.

        Returns:
            float32 examples on the CPU, shape (N, ...), or (N, T, ...) for T positions.
        """
        positions = torch.as_tensor(t, dtype=torch.float32, device="cpu")  # where codes are
        points = self.path(a, b, positions, method)
        decoded = self.decode(points.flatten(0, 1))
        decoded = decoded.view(*points.shape[:2], *decoded.shape[1:])
        return decoded if positions.dim() else decoded[:, 0]


def _as_input(batch: Tensor) -> Tensor:
    batch = to_unit(batch)
    return batch.float() if batch.is_floating_point() else batch
