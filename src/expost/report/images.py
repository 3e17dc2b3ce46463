"""Sections of images: reconstructions, samples, neighbours, interpolations."""

from __future__ import annotations

import torch
from torch import Tensor

from expost.report.blocks import Block, Note, Picture, Pictures
from expost.report.glance import Glance
from expost.report.pictures import LARGEST_TILE, stack, tiles
from expost.report.subject import Makers, Subject

RECONSTRUCTED, SAMPLES, NEIGHBOURS, PATHS, STEPS = 24, 64, 12, 8, 10
#: Images of a row where runs are side by side.
GLANCED = 12


def image_reconstructions(subject: Subject) -> list[Block]:
    """Return test images above their reconstructions."""
    test = subject.data.test
    rows = test.spread(RECONSTRUCTED)
    x, labels = test.x[rows], subject.data.labels(test)
    pairs = []
    for index, image, back in zip(rows.tolist(), x, subject.generator.reconstruct(x), strict=True):
        label = "" if labels is None else f", label {labels[index]},"
        pairs.append(
            stack(
                image,
                (back * 255).round().clamp(0, 255).to(torch.uint8),
                f"Test image {index}{label} above its reconstruction",
                scale=subject.scale,
            )
        )
    caption = f"Above, {len(x)} test images from all over the part; below each, its reconstruction."
    return [Pictures(tuple(pairs), caption + _shrunk(x, subject.scale))]


def image_samples(subject: Subject) -> list[Block]:
    """Return a grid of samples from every density."""
    grids = [
        tiles(
            subject.sample(SAMPLES, name),
            8,
            f"{SAMPLES} images sampled from {name}",
            name,
            tile=48,
            scale=subject.scale,
        )
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
            subject.scale,
        )
        for sample, distance, index in zip(samples, distances.tolist(), indices.tolist(), strict=True)
    ]
    caption = (
        f"Above, samples from {subject.density}; below each, the nearest of all {len(train):,} training images, with "
        f"the Euclidean distance of pixels in [0, 1]; for test examples it is {subject.typical_distance:.2f} (median)."
    )
    return [Pictures(tuple(pairs), caption)]


def image_interpolations(subject: Subject) -> list[Block]:
    """Return decoded points between the codes of pairs of test images, a row each."""
    a, b = subject.ends(PATHS)
    if not len(a):
        return [Note("A path needs two test examples; there are fewer.")]
    steps = subject.generator.interpolate(a, b, torch.linspace(0, 1, STEPS))
    rows = [
        tiles(
            row,
            STEPS,
            f"Images decoded from {STEPS} points between the codes of two test images",
            tile=48,
            scale=subject.scale,
        )
        for row in steps
    ]
    return [Pictures(tuple(rows), "From left to right, linear paths between the codes of random test images.", "rows")]


def _shrunk(images: Tensor, scale: int | None) -> str:
    side = max(images.shape[2:])
    if side <= LARGEST_TILE or scale is not None:
        return ""
    return f" Shown at {LARGEST_TILE} pixels, they have {side}; --scale 1 shows them as they are."


def image_glance(subject: Subject) -> Glance:
    """Return strips of test images, their reconstructions and samples."""
    x = subject.data.test.across(GLANCED).x
    density = subject.density
    samples: tuple[Picture, ...] = ()
    if density is not None:
        drawn = f"images sampled from {density}, the first of the seed"
        samples = (_strip(subject, subject.sample(GLANCED, density), drawn),)
    back = _strip(subject, subject.generator.reconstruct(x), "reconstructions of test images")
    return Glance("images", (_strip(subject, x, "test images"),), (back,), samples, density)


def _strip(subject: Subject, images: Tensor, what: str) -> Picture:
    return tiles(images, GLANCED, f"{len(images)} {what}", scale=subject.scale)


IMAGES = Makers(image_reconstructions, image_samples, image_neighbours, image_interpolations, image_glance)
