"""The map of the codes: a dot an example in the plane of largest variance, with the contours of a density."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from contourpy import FillType, LineType, contour_generator
from markupsafe import Markup
from numpy.typing import NDArray
from torch import Tensor

from expost.densities import Density
from expost.errors import DataError
from expost.report import svg
from expost.report.blocks import Block, Drawing, Drawings, Key, Note
from expost.report.plane import Array, Plane, Rows, Surface, flat, reach, surface

#: Contours enclose these parts of a density's mass.
MASSES = (0.9, 0.7, 0.5, 0.3, 0.1)
#: Dots at most.
DOTS = 1_500
#: Labels that have a color of their own; more share a wheel of hues.
COLORS = 10
WIDTH = 460


@dataclass(frozen=True, eq=False)
class Codes:
    """Codes with their labels.

    Attributes:
        z: Shape (N, d); maps of codes are flattened.
        labels: Numbers or names, shape (N,), or None.
        rows: Turns codes of a density into points like `z`: of symbols it takes their vectors.
    """

    z: Tensor
    labels: NDArray[Any] | None
    rows: Rows = flat


def code_map(codes: Codes, densities: Mapping[str, Density], seed: int) -> list[Block]:
    """Return a map for every density, all with the same dots and axes; without densities, one with dots only.

    Args:
        codes: The codes.
        densities: Fitted ones by name.
        seed: Seeds the samples of those that cannot be projected exactly.

    Raises:
        DataError: if there is no plane to draw them in.
    """
    plane = Plane.of(codes.z)
    points = plane.project(codes.z)[:DOTS]
    labels = None if codes.labels is None else codes.labels[:DOTS]
    frame = frame_around(points, [reach(density, plane, seed, codes.rows) for density in densities.values()])
    colored, legend = colored_dots(points, labels, frame)
    share = f"{sum(plane.explained):.0%}"
    what = f"{len(points):,} codes of training examples in the plane of their two principal axes"
    maps, missing, estimated = [], [], []
    for name, density in densities.items():
        try:
            found = surface(density, plane, frame.x, frame.y, seed, codes.rows)
        except DataError as error:
            missing.append(Note(f"No contours of {name}: {error}."))
            continue
        if not found.exact:
            estimated.append(name)
        body = svg.group([contours(found, frame), colored])
        maps.append(Drawing(_map(frame, f"Map of {what}, with the contours of {name}", body), name))
    if not maps:
        maps.append(Drawing(_map(frame, f"Map of {what}", colored)))
    caption = (
        f"{what}, which holds {share} of their variance (horizontally {plane.explained[0]:.0%}); both axes are to "
        "one scale."
    )
    if labels is not None:
        caption += " Colored by label" + ("." if legend else f", of which there are {len(np.unique(labels))}.")
    if densities:
        caption += " Contours enclose 10, 30, 50, 70 and 90 % of a density's marginal in this plane"
        caption += f"; those of {', '.join(estimated)} are estimated from samples." if estimated else ", exactly."
    # one map may be large; several are to be compared side by side
    return [Drawings(tuple(maps), legend, caption, "large" if len(maps) < 3 else "medium"), *missing]


def _map(frame: svg.Frame, label: str, body: Markup) -> Markup:
    return svg.drawing(frame.width, frame.height, label, body, "chart map")


def frame_around(points: Array, boxes: list[tuple[Array, Array]]) -> svg.Frame:
    """Return a frame with equal scales that holds the codes and the nearby parts of the densities."""
    low, high = np.quantile(points, 0.002, 0), np.quantile(points, 0.998, 0)
    size = np.maximum(high - low, 1e-9 + 0.05 * float((high - low).max()))
    wide_low = np.min([low, *(box[0] for box in boxes)], axis=0)
    wide_high = np.max([high, *(box[1] for box in boxes)], axis=0)
    low = np.maximum(wide_low, low - size) - 0.06 * size
    high = np.minimum(wide_high, high + size) + 0.06 * size
    # neither flat nor tall: the shorter side gets more room
    width, height = high - low
    room = np.array([max(0.0, height - width), max(0.0, 0.62 * width - height)]) / 2
    low, high = low - room, high + room
    width, height = high - low
    return svg.Frame((low[0], high[0]), (low[1], high[1]), WIDTH, float(WIDTH * height / width))


def colored_dots(points: Array, labels: Array | None, frame: svg.Frame) -> tuple[Markup, tuple[Key, ...]]:
    """Return the dots, a path for each label, and the legend."""
    x, y = frame.across(points[:, 0]), frame.down(points[:, 1])
    if labels is None:
        return svg.stroke(svg.dots(x, y), "dot plain"), ()
    classes = np.unique(labels)
    body, keys = [], []
    for order, label in enumerate(classes):
        mine = labels == label
        data = svg.dots(x[mine], y[mine])
        if len(classes) <= COLORS:
            body.append(svg.stroke(data, f"dot c{order}"))
            keys.append(Key(f"c{order}", str(label)))
        else:
            hue = f"hsl({360 * order / len(classes):.0f} 60% var(--tone))"
            body.append(Markup('<path class="dot" style="color:{}" d="{}"/>').format(hue, data))
    return svg.group(body), tuple(keys)


def contours(found: Surface, frame: svg.Frame) -> Markup:
    """Return the regions that hold parts of a density's mass: filled, and with lines around them."""
    lines = contour_generator(
        found.x, found.y, found.values, line_type=LineType.Separate, fill_type=FillType.OuterOffset
    )
    top = float(found.values.max())
    body = []
    for mass in MASSES:
        level = found.level(mass)
        if not 0 < level < top:
            continue
        filling: Any = lines.filled(level, 2 * top)
        polygons, offsets = filling
        rings = [
            ring
            for polygon, ends in zip(polygons, offsets, strict=True)
            for ring in np.split(np.asarray(polygon), np.asarray(ends)[1:-1])
        ]
        filled = "".join(svg.path(frame.across(ring[:, 0]), frame.down(ring[:, 1])) + "Z" for ring in rings)
        edges = "".join(
            svg.path(frame.across(line[:, 0]), frame.down(line[:, 1])) for line in map(np.asarray, lines.lines(level))
        )
        body += [svg.stroke(filled, "level"), svg.stroke(edges, "contour")]
    return svg.group(body)
