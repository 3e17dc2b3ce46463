"""Vectors: float32, shape (d,); rows of a table of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, final

import torch
from torch import Tensor

from expost.examples.figures import PLAIN, Look, Sheet, arranged, titled
from expost.examples.histograms import OUTLINES, REAL, key, marginal
from expost.examples.kind import Examples, Labels, Pair, PanelWish, Wish
from expost.examples.lettering import shortened
from expost.examples.outputs import VECTOR_SUFFIXES, write_vectors
from expost.generators.generator import Generator
from expost.types import Data, Layout, layout_of

#: Columns of a table in a panel; rows of its histograms, and how many a histogram needs.
MOST_COLUMNS, MOST_ROWS, ENOUGH = 24, 10_000, 200


@final
class Vectors(Examples):
    """Written as CSV with the columns' names, or as an array."""

    name: ClassVar[str] = "vectors"
    like: ClassVar[str] = "vectors"
    usual: ClassVar[str] = "samples.csv"
    samples = pairs = VECTOR_SUFFIXES
    paths = (".csv",)

    @staticmethod
    def holds(shape: Sequence[int], coded: bool, sound: bool) -> bool:
        """Return whether there is one axis."""
        return not (coded or sound) and layout_of(shape) is Layout.VECTOR

    def draw(self, generator: Generator, wish: Wish) -> Tensor:
        """Return rows."""
        return generator.sample(wish.count, wish.density, wish.seed, wish.label, wish.code_temperature)

    def write(self, drawn: Tensor, path: Path, look: Look = PLAIN, labels: Labels = None) -> None:
        """Write rows under the columns' names."""
        write_vectors(drawn, path, self.data.columns, labels)

    def write_pairs(
        self, generator: Generator, x: Tensor, path: Path, look: Look = PLAIN, labels: Labels = None
    ) -> None:
        """Write each row with its reconstruction behind it."""
        names = self._names(x)
        both = torch.cat([x, generator.reconstruct(x)], dim=1)
        write_vectors(both, path, [*names, *(f"{name}, reconstructed" for name in names)], labels)

    def write_paths(
        self, generator: Generator, ends: Pair, t: Tensor, method: str, path: Path, look: Look = PLAIN
    ) -> None:
        """Write the rows of all paths, numbered by pair and position."""
        rows = generator.interpolate(*ends, t, method)
        pair = torch.arange(len(rows)).repeat_interleave(len(t))
        columns = torch.stack([pair.to(rows.dtype), t.to(rows.dtype).repeat(len(rows))], dim=1)
        names = self._names(rows[0])
        write_vectors(torch.cat([columns, rows.flatten(0, 1)], dim=1), path, ["pair", "position", *names])

    def parts(self, generator: Generator, data: Data, wish: PanelWish) -> list[tuple[str, Sheet]]:
        """Return a histogram of each column: real rows as bars, reconstructions and samples as outlines over them."""
        part = "test" if len(data.test) >= ENOUGH else "training"
        real = (data.test.x if len(data.test) >= ENOUGH else data.train.x)[:MOST_ROWS]
        count = max(len(real), 1000)
        drawn = {"their reconstructions": generator.reconstruct(real)}
        drawn |= {f"{count:,} samples: {name}": generator.sample(count, name, wish.seed) for name in wish.densities}
        for name in wish.by_label:
            by_label = generator.labelled(name)
            asked = [max(1, round(count * n / sum(by_label.counts))) for n in by_label.counts]  # as in the data
            each = [generator.sample(n, name, wish.seed, a) for n, a in zip(asked, by_label.labels, strict=True)]
            drawn[f"{sum(asked):,} samples: {name} by label"] = torch.cat(each)
        outlines = [(label, rows.numpy(), OUTLINES[n % len(OUTLINES)]) for n, (label, rows) in enumerate(drawn.items())]
        names = self._names(real)
        shown = names[:MOST_COLUMNS]
        across = wish.look.across or min(4, len(shown))
        kept = "" if len(shown) == len(names) else f" (the first {len(shown)} of {len(names)} columns)"
        parts = [
            titled(
                marginal(real[:, n].numpy(), [(rows[:, n], ink) for _, rows, ink in outlines]),
                shortened(name, 15, 230),
                15,
            )
            for n, name in enumerate(shown)
        ]
        legend = key([(f"{len(real):,} {part} rows", REAL), *((label, ink) for label, _, ink in outlines)])
        return [(f"marginals of the columns{kept}", arranged([legend, arranged(parts, across, 28)], 1, 20))]

    def _names(self, x: Tensor) -> Sequence[str]:
        return self.data.columns or tuple(f"x{index}" for index in range(x.shape[1]))
