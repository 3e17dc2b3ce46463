"""The map of the codes, on which a person drags a point."""

from __future__ import annotations

from collections.abc import Mapping

from markupsafe import Markup

from expost.densities import Density
from expost.errors import DataError
from expost.explorer.markup import join
from expost.explorer.space import Space
from expost.report import svg
from expost.report.codes import DOTS, Codes, colored_dots, contours, frame_around
from expost.report.plane import reach, surface

#: What to do with the map.
HINT = "Drag the ring, click anywhere, or press the arrow keys: the code there is decoded."


def draw_map(
    space: Space, codes: Codes, densities: Mapping[str, Density], shown: str | None
) -> tuple[Markup, svg.Frame]:
    """Return a map with a point to drag, and its frame.

    Args:
        space: The frame of the codes, of at least two axes.
        codes: Codes of training examples, of which at most `DOTS` are drawn, with their labels.
        densities: Fitted ones; the contours of one at a time are visible.
        shown: The one that is visible at first; None for none.
    """
    plane = space.plane
    assert plane is not None
    points = plane.project(codes.z)[:DOTS]
    labels = None if codes.labels is None else codes.labels[:DOTS]
    frame = frame_around(points, [reach(density, plane, 0, codes.rows) for density in densities.values()])
    dots, legend = colored_dots(points, labels, frame)
    layers, names = [], []
    for name, density in densities.items():
        try:
            drawn = contours(surface(density, plane, frame.x, frame.y, 0, codes.rows), frame)
        except DataError:  # it has nothing to draw in this plane
            continue
        names.append(name)
        layers.append(
            Markup('<g data-layer="{}"{}>{}</g>').format(name, "" if name == shown else Markup(" hidden"), drawn)
        )
    marker = Markup('<g class="marker"><circle r="11"/><circle r="3.5"/></g>')
    label = f"Map of {len(points):,} codes in the plane of their first two principal axes"
    drawing = svg.drawing(frame.width, frame.height, label, join([*layers, dots, marker]), "chart map")
    keys = join(
        Markup('<span class="key"><i class="swatch {}"></i>{}</span>').format(key.style, key.label) for key in legend
    )
    choices = join(
        Markup('<option value="{}"{}>{}</option>').format(name, Markup(" selected") if name == shown else "", name)
        for name in names
    )
    select = (
        Markup('<label>Contours of <select>{}<option value="">nothing</option></select></label>').format(choices)
        if names
        else Markup("")
    )
    share = f"{100 * sum(plane.explained):.0f} % of the variance is in this plane"
    first, second = (
        f"Axis {number}: {100 * part:.1f} % of the variance" for number, part in enumerate(plane.explained, 1)
    )
    return (
        Markup(
            '<div class="ex"><p class="hint">{}</p><div class="plot"><span class="axis up">{}</span>'
            '<div class="board" tabindex="0" role="application" data-x0="{}" data-x1="{}" data-y0="{}" '
            'data-y1="{}" aria-label="{}; drag, or press the arrow keys">{}</div><span class="axis">{}</span></div>'
            '<div class="under-map">{}<span class="keys">{}</span><span class="share">{}</span></div></div>'
        ).format(HINT, second, *frame.x, *frame.y, label, drawing, first, select, keys, share),
        frame,
    )
