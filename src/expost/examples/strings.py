"""Strings, encoded by a codec as rows of symbols."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from expost.config import DataConfig
from expost.errors import DataError
from expost.examples import pictures
from expost.examples.domains import DOMAINS
from expost.examples.domains import Strings as Texts
from expost.examples.kind import Examples, Pair, Wish
from expost.examples.outputs import PICTURE_SUFFIXES, TEXT_SUFFIXES, write_strings
from expost.generators.generator import Generator
from expost.generators.strings import StringGenerator
from expost.grammar.codec import CODECS
from expost.registry import construct
from expost.types import Data
from expost.utils.progress import say

#: With a smaller share of different strings among samples, the model makes the same few over and over.
ALIKE = 0.3


@final
class Strings(Examples):
    """Written one a line; what can be drawn, also as a picture."""

    name: ClassVar[str] = "strings"
    like: ClassVar[str] = "strings"
    symbols: ClassVar[bool] = True
    usual: ClassVar[str] = "samples.txt"
    pairs = paths = TEXT_SUFFIXES

    def __init__(self, data: DataConfig) -> None:
        super().__init__(data)
        self.domain = DOMAINS[data.domain or "text"]  # of a run without a domain nothing is known but that
        self.samples = (*TEXT_SUFFIXES, *(PICTURE_SUFFIXES if self.domain.picture else ()))

    @staticmethod
    def holds(shape: Sequence[int], coded: bool) -> bool:
        """Return whether a codec made them."""
        return coded

    @classmethod
    def slots(cls, data: Data) -> dict[str, Any]:
        """Return the groups of symbols among which the loss normalizes."""
        assert data.codec is not None
        return {"reconstruction.groups": data.codec.groups().tolist()}

    @classmethod
    def values(cls, data: Data, x: Tensor, name: str) -> Tensor | None:
        """Return a property of the strings that the domain has properties of."""
        assert data.codec is not None
        properties = DOMAINS[data.domain].properties
        return None if properties is None else torch.from_numpy(properties(data.codec.decode(x), name))

    def string_generator(self, generator: Generator) -> StringGenerator:
        """Return the generator with the codec of the data."""
        assert self.data.codec is not None
        return StringGenerator(generator, construct(CODECS, self.data.codec))

    def draw(self, generator: Generator, wish: Wish) -> list[str | None]:
        """Return strings; None where a derivation did not end."""
        return self.string_generator(generator).sample(
            wish.count, wish.density, wish.seed, wish.temperature, wish.label, wish.code_temperature
        )

    def write(self, drawn: list[str | None], path: Path) -> None:
        """Write a line a string, or a picture of those that can be drawn."""
        remark_on_alike(drawn, "samples")
        if path.suffix.lower() in PICTURE_SUFFIXES:
            assert self.domain.picture is not None
            picture = self.domain.picture(drawn)
            if picture is None:
                raise DataError(f"none of the {len(drawn)} samples can be drawn; train longer, or on more strings")
            pictures.save_picture(picture, path)
            return
        lost = write_strings(drawn, path)
        if lost:
            say(f"{lost} of {len(drawn)} derivations did not end within the model's length, and are left out")
        self.domain.remark(drawn)

    def write_pairs(self, generator: Generator, x: Tensor, path: Path) -> None:
        """Write originals and reconstructions with a tab between them."""
        strings = self.string_generator(generator)
        both = zip(strings.codec.decode(x), strings.reconstruct(x), strict=True)
        write_strings([f"{original}\t{back or ''}" for original, back in both], path)

    def write_paths(self, generator: Generator, ends: Pair, t: Tensor, method: str, path: Path) -> None:
        """Write a line a pair, with tabs between the steps."""
        strings = self.string_generator(generator)
        decoded = strings.decode(generator.path(*ends, t, method).flatten(0, 1))
        rows = [decoded[start : start + len(t)] for start in range(0, len(decoded), len(t))]
        write_strings(["\t".join(string or "" for string in row) for row in rows], path)


def remark_on_alike(strings: Texts, what: str) -> None:
    """Warn if few strings are different, valid or not; None, an unfinished derivation, does not count."""
    different = len(set(strings) - {None})
    if different < ALIKE * len(strings):
        say(f"{what}: {different} different strings among {len(strings)}; train longer, or on more strings")
