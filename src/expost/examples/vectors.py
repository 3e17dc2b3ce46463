"""Vectors: float32, shape (d,); rows of a table of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, final

import torch
from torch import Tensor

from expost.examples.kind import Examples, Pair, Wish
from expost.examples.outputs import VECTOR_SUFFIXES, write_vectors
from expost.generators.generator import Generator
from expost.types import Layout, layout_of


@final
class Vectors(Examples):
    """Written as CSV with the columns' names, or as an array."""

    name: ClassVar[str] = "vectors"
    like: ClassVar[str] = "vectors"
    usual: ClassVar[str] = "samples.csv"
    samples = pairs = VECTOR_SUFFIXES
    paths = (".csv",)

    @staticmethod
    def holds(shape: Sequence[int], coded: bool) -> bool:
        """Return whether there is one axis."""
        return not coded and layout_of(shape) is Layout.VECTOR

    def draw(self, generator: Generator, wish: Wish) -> Tensor:
        """Return rows."""
        return generator.sample(wish.count, wish.density, wish.seed, wish.label, wish.code_temperature)

    def write(self, drawn: Tensor, path: Path) -> None:
        """Write rows under the columns' names."""
        write_vectors(drawn, path, self.data.columns)

    def write_pairs(self, generator: Generator, x: Tensor, path: Path) -> None:
        """Write each row with its reconstruction behind it."""
        names = self.data.columns or tuple(f"x{index}" for index in range(x.shape[1]))
        both = torch.cat([x, generator.reconstruct(x)], dim=1)
        write_vectors(both, path, [*names, *(f"{name}, reconstructed" for name in names)])

    def write_paths(self, generator: Generator, ends: Pair, t: Tensor, method: str, path: Path) -> None:
        """Write the rows of all paths, numbered by pair and position."""
        rows = generator.interpolate(*ends, t, method)
        pair = torch.arange(len(rows)).repeat_interleave(len(t))
        columns = torch.stack([pair.to(rows.dtype), t.to(rows.dtype).repeat(len(rows))], dim=1)
        names = self.data.columns or tuple(f"x{index}" for index in range(rows.shape[2]))
        write_vectors(torch.cat([columns, rows.flatten(0, 1)], dim=1), path, ["pair", "position", *names])
