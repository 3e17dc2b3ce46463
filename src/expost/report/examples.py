"""Sections of images and vectors: reconstructions, samples, neighbours, interpolations."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from expost.report.blocks import Block, Drawing, Drawings, Heading, Key, Note, Pictures
from expost.report.pictures import LARGEST_TILE, stack, tiles
from expost.report.subject import Subject
from expost.report.svg import Line, spark
from expost.types import to_unit

RECONSTRUCTED, SAMPLES, NEIGHBOURS, PATHS, STEPS = 24, 64, 12, 8, 10
#: Numbers of vectors: fewer, since curves are larger than tiles.
CURVES, CURVE_PATHS, CURVE_STEPS = 12, 12, 6
#: Entries of a vector that are drawn.
ENTRIES = 256


def image_reconstructions(subject: Subject) -> list[Block]:
    """Return test images above their reconstructions."""
    test = subject.data.test
    x, labels = test.x[:RECONSTRUCTED], subject.data.labels(test)
    pairs = []
    for index, (image, back) in enumerate(zip(x, subject.generator.reconstruct(x), strict=True)):
        label = "" if labels is None else f", label {labels[index]},"
        pairs.append(
            stack(
                image,
                (back * 255).round().clamp(0, 255).to(torch.uint8),
                f"Test image {index}{label} above its reconstruction",
            )
        )
    caption = f"Above, the first {len(x)} test images; below each, its reconstruction.{_shrunk(x)}"
    return [Pictures(tuple(pairs), caption)]


def image_samples(subject: Subject) -> list[Block]:
    """Return a grid of samples from every density."""
    grids = [
        tiles(subject.sample(SAMPLES, name), 8, f"{SAMPLES} images sampled from {name}", name, tile=48)
        for name in subject.generator.densities
    ]
    return [Pictures(tuple(grids), "The first samples of the seed, not selected.", "wide")]


def image_neighbours(subject: Subject) -> list[Block]:
    """Return samples above their nearest training images."""
    assert subject.density is not None
    samples = subject.sample(NEIGHBOURS, subject.density)
    distances, indices = subject.nearest_training(samples)
    train = subject.data.train
    pairs = [
        stack(
            (sample * 255).round().clamp(0, 255).to(torch.uint8),
            train.x[index],
            f"Sample above its nearest training image, distance {distance:.2f}",
            f"{distance:.2f}",
        )
        for sample, distance, index in zip(samples, distances.tolist(), indices.tolist(), strict=True)
    ]
    caption = (
        f"Above, samples from {subject.density}; below each, the nearest of all {len(train):,} training images, with "
        f"the Euclidean distance of pixels in [0, 1]{_typical(subject)}."
    )
    return [Pictures(tuple(pairs), caption)]


def _typical(subject: Subject) -> str:
    """Return a phrase with the typical distance of test examples from training examples, as a yardstick."""
    distances, _ = subject.nearest_training(to_unit(subject.data.test.x[:100]))
    return f"; for test examples it is {distances.median():.2f} (median)"


def image_interpolations(subject: Subject) -> list[Block]:
    """Return decoded points between the codes of pairs of test images, a row each."""
    a, b = subject.ends(PATHS)
    if not len(a):
        return [Note("A path needs two test examples; there are fewer.")]
    steps = subject.generator.interpolate(a, b, torch.linspace(0, 1, STEPS))
    rows = [
        tiles(row, STEPS, f"Images decoded from {STEPS} points between the codes of two test images", tile=48)
        for row in steps
    ]
    return [Pictures(tuple(rows), "From left to right, linear paths between the codes of random test images.", "rows")]


def _shrunk(images: Tensor) -> str:
    side = max(images.shape[2:])
    return f" Shown at {LARGEST_TILE} pixels, they have {side}." if side > LARGEST_TILE else ""


def vector_reconstructions(subject: Subject) -> list[Block]:
    """Return test vectors as curves under their reconstructions."""
    x = subject.data.test.x[:CURVES]
    pairs = [
        (original, back, f"Test vector {index} and its reconstruction", "")
        for index, (original, back) in enumerate(zip(x, subject.generator.reconstruct(x), strict=True))
    ]
    return [
        _curves(pairs, "test vector", "reconstruction", f"The first {len(x)} test vectors, entry by entry.{_kept(x)}")
    ]


def vector_samples(subject: Subject) -> list[Block]:
    """Return samples from every density as curves."""
    blocks: list[Block] = []
    for name in subject.generator.densities:
        blocks.append(Heading(name))
        samples = subject.sample(CURVES, name)
        y = _reach(subject.data.test.x)
        drawn = tuple(
            Drawing(spark([_line(each, "made")], f"Vector {index} sampled from {name}", y))
            for index, each in enumerate(samples)
        )
        blocks.append(Drawings(drawn, size="small"))
    return blocks


def vector_neighbours(subject: Subject) -> list[Block]:
    """Return samples as curves over their nearest training vectors."""
    assert subject.density is not None
    samples = subject.sample(CURVES, subject.density)
    distances, indices = subject.nearest_training(samples)
    pairs = [
        (
            subject.data.train.x[index],
            sample,
            f"Sample and its nearest training vector, distance {distance:.3g}",
            f"{distance:.3g}",
        )
        for sample, distance, index in zip(samples, distances.tolist(), indices.tolist(), strict=True)
    ]
    caption = (
        f"Samples from {subject.density} and the nearest of all {len(subject.data.train):,} training vectors, with the "
        f"Euclidean distance{_typical(subject)}."
    )
    return [_curves(pairs, "nearest training vector", "sample", caption)]


def vector_interpolations(subject: Subject) -> list[Block]:
    """Return decoded points between the codes of pairs of test vectors."""
    a, b = subject.ends(CURVE_PATHS)
    if not len(a):
        return [Note("A path needs two test examples; there are fewer.")]
    steps = subject.generator.interpolate(a, b, torch.linspace(0, 1, CURVE_STEPS))
    y = _reach(subject.data.test.x)
    drawn = tuple(
        Drawing(
            spark([_line(each, f"s{step}") for step, each in enumerate(path)], f"Path {row} in {CURVE_STEPS} steps", y)
        )
        for row, path in enumerate(steps, 1)
    )
    legend = (Key("s0", "first end"), Key(f"s{CURVE_STEPS - 1}", "last end"))
    caption = f"Linear paths between the codes of random test vectors: {CURVE_STEPS} points of each, decoded."
    return [Drawings(drawn, legend, caption, "small")]


def _curves(pairs: list[tuple[Tensor, Tensor, str, str]], back: str, front: str, caption: str) -> Drawings:
    y = _reach(torch.stack([pair[0] for pair in pairs]))
    drawn = (
        Drawing(spark([_line(first, "data"), _line(second, "made")], label, y), caption=below)
        for first, second, label, below in pairs
    )
    return Drawings(tuple(drawn), (Key("data", back), Key("made", front)), caption, "small")


def _line(vector: Tensor, style: str) -> Line:
    values = vector.double().numpy()
    chosen = np.unique(np.linspace(0, len(values) - 1, min(len(values), ENTRIES)).round().astype(int))
    return Line(chosen, values[chosen], style)


def _reach(x: Tensor) -> tuple[float, float]:
    low, high = float(x.min()), float(x.max())
    margin = 0.08 * (high - low) or 1.0
    return low - margin, high + margin


def _kept(x: Tensor) -> str:
    return f" Of {x.shape[1]:,} entries {ENTRIES} are drawn." if x.shape[1] > ENTRIES else ""


Maker = Callable[[Subject], list[Block]]
#: The makers of the four sections: reconstructions, samples, neighbours, interpolations.
IMAGES: tuple[Maker, Maker, Maker, Maker] = (
    image_reconstructions,
    image_samples,
    image_neighbours,
    image_interpolations,
)
VECTORS: tuple[Maker, Maker, Maker, Maker] = (
    vector_reconstructions,
    vector_samples,
    vector_neighbours,
    vector_interpolations,
)
