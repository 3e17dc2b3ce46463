"""Images: uint8, shape (C, H, W)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path
from typing import ClassVar, final

import torch
from torch import Tensor

from expost.examples import pictures
from expost.examples.figure_files import PICTURE_SUFFIXES
from expost.examples.figures import PLAIN, Look, Sheet
from expost.examples.kind import Examples, Labels, Pair, PanelWish, Wish, counted, ends_of
from expost.examples.outputs import write_examples
from expost.generators.generator import Generator
from expost.types import Data, Layout, layout_of

#: Labels of the rows of images and of their reconstructions.
PAIR = ("original", "reconstruction")
#: Rows of a part of a panel, rows of one by label, and about how many pixels wide its images are together.
ROWS, MOST_LABELS, PART = 6, 10, 640


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
    def holds(shape: Sequence[int], coded: bool, sound: bool) -> bool:
        """Return whether there are channels, height and width."""
        return not (coded or sound) and layout_of(shape) is Layout.IMAGE

    def draw(self, generator: Generator, wish: Wish) -> Tensor:
        """Return images in [0, 1]."""
        return generator.sample(wish.count, wish.density, wish.seed, wish.label, wish.code_temperature)

    def write(self, drawn: Tensor, path: Path, look: Look = PLAIN, labels: Labels = None) -> None:
        """Write a grid, an array of bytes, or a folder of pictures, as the path's suffix says."""
        write_examples(drawn, path, look)

    def write_pairs(
        self, generator: Generator, x: Tensor, path: Path, look: Look = PLAIN, labels: Labels = None
    ) -> None:
        """Write rows of originals, each above its reconstructions."""
        images, look, empty = _paired(x, generator.reconstruct(x), look, 10)
        pictures.save_picture(pictures.figure(images, look, empty), path)

    def write_paths(
        self, generator: Generator, ends: Pair, t: Tensor, method: str, path: Path, look: Look = PLAIN
    ) -> None:
        """Write a row a pair."""
        images = generator.interpolate(*ends, t, method)
        pictures.save_picture(pictures.figure(images.flatten(0, 1), _along(look, t)), path)

    def parts(self, generator: Generator, data: Data, wish: PanelWish) -> list[tuple[str, Sheet]]:
        """Return six rows each: test images above their reconstructions, paths, samples; a row a label by label."""
        x = data.test.x
        across = wish.look.across or max(3, min(8, PART // max(x.shape[2:])))
        look = replace(wish.look, across=across, title="", rows=None, columns=None)
        chosen = x[data.test.spread(ROWS // 2 * across)]
        images, beside, empty = _paired(chosen, generator.reconstruct(chosen), look, across)
        name = "its reconstruction" if len(chosen) == 1 else "their reconstructions"
        parts = [(f"{counted(len(chosen), 'test image')} and {name}", pictures.block(images, beside, empty))]
        a, b = ends_of(x, ROWS, wish.seed)
        if len(a):
            t = torch.linspace(0, 1, across)
            between = generator.interpolate(a, b, t).flatten(0, 1)
            parts.append((f"{counted(len(a), 'path')} between two codes", pictures.block(between, _along(look, t))))
        count = ROWS * across
        for name in wish.densities:
            drawn = generator.sample(count, name, wish.seed)
            parts.append((f"{counted(count, 'sample')}: {name}", pictures.block(drawn, look)))
        for name in wish.by_label:
            labels = generator.labelled(name).labels
            shown = labels[:MOST_LABELS]
            drawn = torch.cat([generator.sample(across, name, wish.seed, label) for label in shown])
            kept = "" if len(shown) == len(labels) else f", the first {len(shown)} of {len(labels)}"
            rows = replace(look, rows=tuple(map(str, shown)))
            parts.append((f"{counted(len(drawn), 'sample')}: {name} by label{kept}", pictures.block(drawn, rows)))
        return parts


def _paired(x: Tensor, back: Tensor, look: Look, across: int) -> tuple[Tensor, Look, set[int]]:
    """Return rows of images and of their reconstructions, how they are shown, and which places stay empty."""
    across = min(look.across or across, len(x))
    images, empty = pictures.paired(x, back, across)
    names = PAIR if look.rows is None else look.rows
    rows = tuple(islice(cycle(names), len(images) // across)) if 0 < len(names) <= 2 else names
    return images, replace(look, across=across, rows=rows), empty


def _along(look: Look, t: Tensor) -> Look:
    """Label the columns of paths with their positions."""
    positions = tuple(f"{value:.2g}" for value in t.tolist())
    columns = (f"t = {positions[0]}", *positions[1:]) if look.columns is None else look.columns
    return replace(look, across=len(t), columns=columns)
