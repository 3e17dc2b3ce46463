"""A generator of strings: codes to strings and back, through a codec."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from expost.errors import DataError
from expost.generators.generator import Generator
from expost.grammar.codec import Codec
from expost.grammar.decode import most_frequent
from expost.grammar.stepwise import Stepwise
from expost.models.autoencoder import Autoencoder
from expost.utils.progress import progress
from expost.utils.seeding import SAMPLES, generator

#: Codes decoded at once, which bounds the memory of the logits.
BATCH = 250
#: The same for a decoder that reads its own output: few codes take as many steps as many, and memory holds one step.
BATCH_STEPWISE = 2_000


@dataclass
class StringGenerator:
    """Encodes and decodes strings; densities and codes are the generator's, which it wraps.

        strings = run.string_generator()
        strings.reconstruct(["x+1", "sin(x)"])
        strings.sample(10, seed=0)

    A decode is None if its derivation did not end within the codec's length: it is never cut to something that looks
    like a string. Several processes share decoding, unless the decoder reads its own output: then each does all of it.

    Attributes:
        generator: The trained model.
        codec: The codec that the model was trained with.
    """

    generator: Generator
    codec: Codec

    def encode(self, strings: Sequence[str]) -> Tensor:
        """Return the noiseless codes of strings, float32, shape (N, d).

        Raises:
            DataError: if one of them cannot be encoded; the message says which, where and why.
        """
        encoded = self.codec.encode(strings)
        if encoded.rejected:
            raise DataError(f"{encoded.rejected[0]}; leave it out")
        return self.generator.encode(encoded.indices)

    def decode(self, z: Tensor, temperature: float = 0.0, seed: int = 0) -> list[str | None]:
        """Return a string, or None, for each code.

        Args:
            z: Codes, shape (N, d).
            temperature: 0 takes the most likely symbol at each step; otherwise symbols are drawn.
            seed: Seeds the draws.
        """
        source = generator(seed, SAMPLES, 1) if temperature else None
        found: list[str | None] = []
        with progress("decoding strings", len(z)) as bar:
            for logits in self._logits(z):
                found += self.codec.decode(self.codec.generate(logits, temperature, source))
                bar.advance(len(logits))
        return found

    def best_of(
        self,
        z: Tensor,
        k: int,
        valid: Callable[[str], bool],
        temperature: float = 1.0,
        source: torch.Generator | None = None,
    ) -> tuple[list[str | None], Tensor]:
        """Return the most frequent valid of k decodes of each code, and the share of its decodes that are valid, (N,).

        Args:
            z: Codes, shape (N, d).
            k: Decodes of each, at least 1.
            valid: Whether a string counts.
            temperature: Temperature of the draws, positive.
            source: Generator of the draws; None is torch's global one.
        """
        strings: list[str | None] = []
        shares: list[Tensor] = []
        with progress(f"decoding strings {k} times", len(z)) as bar:
            for logits in self._logits(z):
                found = most_frequent(logits, k, self.codec, valid, temperature, source)
                strings += found.strings
                shares.append(found.valid)
                bar.advance(len(logits))
        return strings, torch.cat(shares)

    def reconstruct(self, x: Tensor | Sequence[str]) -> list[str | None]:
        """Return the most likely decode of the code of each example: rows of symbols, or strings."""
        codes = self.generator.encode(x) if isinstance(x, Tensor) else self.encode(x)
        return self.decode(codes)

    def sample(
        self,
        n: int,
        density: str | None = None,
        seed: int = 0,
        temperature: float = 0.0,
        label: object = None,
        code_temperature: float = 1.0,
    ) -> list[str | None]:
        """Draw codes from a density and decode them; see `Generator.sample` and `decode`."""
        return self.decode(self.codes(n, density, seed, label, code_temperature), temperature, seed)

    def codes(
        self, n: int, density: str | None = None, seed: int = 0, label: object = None, code_temperature: float = 1.0
    ) -> Tensor:
        """Draw codes from a fitted density; see `Generator.draw`."""
        return self.generator.draw(n, density, label, generator(seed, SAMPLES), code_temperature)

    def _logits(self, z: Tensor) -> Iterator[Tensor | Stepwise]:
        model = self.generator.module
        if isinstance(model, Autoencoder) and model.autoregressive:
            z = self.generator.checked(z, "decoding").float()
            for batch in z.split(BATCH_STEPWISE):  # type: ignore[no-untyped-call]
                yield model.stepwise(batch.to(self.generator.device))
            return
        for batch in z.split(BATCH):  # type: ignore[no-untyped-call]
            yield self.generator.decode(batch)
