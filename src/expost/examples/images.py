"""Images: uint8, shape (C, H, W)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, final

from torch import Tensor

from expost.examples import pictures
from expost.examples.kind import Examples, Pair, Wish
from expost.examples.outputs import PICTURE_SUFFIXES, write_examples
from expost.generators.generator import Generator
from expost.types import Layout, layout_of


@final
class Images(Examples):
    """Written as a grid, an array or a folder; reconstructions in rows below their originals."""

    name: ClassVar[str] = "images"
    like: ClassVar[str] = "images"
    pixels: ClassVar[bool] = True
    usual: ClassVar[str] = "samples.png"
    samples = (*PICTURE_SUFFIXES, ".npy", "")
    pairs = paths = PICTURE_SUFFIXES

    @staticmethod
    def holds(shape: Sequence[int], coded: bool) -> bool:
        """Return whether there are channels, height and width."""
        return not coded and layout_of(shape) is Layout.IMAGE

    def draw(self, generator: Generator, wish: Wish) -> Tensor:
        """Return images in [0, 1]."""
        return generator.sample(wish.count, wish.density, wish.seed, wish.label, wish.code_temperature)

    def write(self, drawn: Tensor, path: Path) -> None:
        """Write a grid, an array of bytes, or a folder of pictures, as the path's suffix says."""
        write_examples(drawn, path)

    def write_pairs(self, generator: Generator, x: Tensor, path: Path) -> None:
        """Write rows of originals, each above its reconstructions."""
        back = pictures.to_bytes(generator.reconstruct(x))
        pictures.save_picture(pictures.pairs(x, back, 10), path)

    def write_paths(self, generator: Generator, ends: Pair, t: Tensor, method: str, path: Path) -> None:
        """Write a row a pair."""
        images = generator.interpolate(*ends, t, method)
        pictures.save_picture(pictures.grid(images.flatten(0, 1), len(t)), path)
