"""Histograms of columns of numbers, on a sheet."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from expost.examples.figures import FAINT, Bar, Color, Mark, Sheet, Text
from expost.examples.lettering import line_height, text_width

Values = NDArray[np.floating]

#: Colors of the real values' bars, and of the outlines over them: they differ in brightness as well.
REAL: Color = (206, 210, 217)
OUTLINES: tuple[Color, ...] = ((20, 90, 170), (214, 84, 24), (20, 140, 96), (140, 60, 150), (120, 90, 20))
#: Pixels of a histogram, and of its outlines.
WIDTH, HEIGHT, STROKE = 240, 120, 2
#: Columns with at most so many values get a bar for each of them.
FEW, BINS = 12, 24
_SIZE = 12


def edges_of(real: Values, others: Sequence[Values] = ()) -> NDArray[np.float64]:
    """Return the bounds of bins: of each different real value if they are few and evenly apart, else of their range.

    That grows towards other values, by half of itself at most on either side, but not for the outermost 1 % of them.

    Example:
        >>> edges_of(np.array([0.0, 1.0, 1.0, 2.0])).tolist()
        [-0.5, 0.5, 1.5, 2.5]
    """
    values = np.unique(real).astype(np.float64)
    if len(values) == 1:
        return np.array([values[0] - 0.5, values[0] + 0.5])
    if len(values) <= FEW:
        steps = np.diff(values)
        if np.allclose(steps, steps[0]):
            return np.concatenate([values - steps[0] / 2, [values[-1] + steps[0] / 2]])
    low, high = values[0], values[-1]
    room = (high - low) / 2
    for other in others:
        ends = np.quantile(other.astype(np.float64), (0.01, 0.99))
        low, high = min(low, max(ends[0], values[0] - room)), max(high, min(ends[1], values[-1] + room))
    bins = min(max(round(len(real) ** 0.5), BINS // 2), BINS)
    return np.linspace(low, high, bins + 1)


def shares(values: Values, edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the share of the values in each bin; those outside count for the first and the last bin.

    Example:
        >>> shares(np.array([-9.0, 0.5, 1.5, 1.5]), np.array([0.0, 1.0, 2.0])).tolist()
        [0.5, 0.5]
    """
    inside = np.clip(values.astype(np.float64), edges[0], edges[-1])
    return np.histogram(inside, edges)[0] / max(1, len(values))


def marginal(real: Values, drawn: Sequence[tuple[Values, Color]]) -> Sheet:
    """Return a histogram of real values, and outlines of others over it, with the ends of the axis below.

    Values beyond the ends are counted in the first and in the last bin.

    Args:
        real: The values, shape (N,).
        drawn: Others with the colors of their outlines.
    """
    edges = edges_of(real, [values for values, _ in drawn])
    counted = [shares(real, edges), *(shares(values, edges) for values, _ in drawn)]
    highest = max(float(each.max()) for each in counted) or 1.0
    at = (edges - edges[0]) / (edges[-1] - edges[0]) * WIDTH
    marks: list[Mark] = []
    tops = HEIGHT - counted[0] / highest * (HEIGHT - STROKE)
    for left, right, top in zip(at, at[1:], tops, strict=False):
        marks.append(Bar(left, top, max(1.0, right - left - 1), HEIGHT - top, REAL))
    for (_, ink), each in zip(drawn, counted[1:], strict=True):
        tops = HEIGHT - each / highest * (HEIGHT - STROKE) - STROKE
        before = float(HEIGHT)
        for left, right, top in zip(at, at[1:], tops, strict=False):
            marks.append(Bar(left, top, right - left + STROKE, STROKE, ink))
            marks.append(Bar(left, min(before, top), STROKE, abs(before - top) + STROKE, ink))
            before = float(top)
        marks.append(Bar(WIDTH, before, STROKE, HEIGHT - before, ink))
    marks.append(Bar(0, HEIGHT, WIDTH + STROKE, 1, FAINT))
    below = HEIGHT + 4
    marks.append(Text(0, below, f"{edges[0]:.4g}", _SIZE, "l", FAINT))
    marks.append(Text(WIDTH + STROKE, below, f"{edges[-1]:.4g}", _SIZE, "r", FAINT))
    return Sheet(WIDTH + STROKE, below + line_height(_SIZE), tuple(marks))


def key(entries: Sequence[tuple[str, Color]], width: int = 2 * WIDTH) -> Sheet:
    """Return a legend: a swatch and a text for each, one below the other.

    Args:
        entries: Texts and colors.
        width: Of the sheet at least, in pixels.
    """
    size, step = 14, line_height(14)
    marks: list[Mark] = []
    for number, (label, ink) in enumerate(entries):
        marks.append(Bar(0, step * number + 3, 22, size - 2, ink))
        marks.append(Text(32, step * number, label, size))
    widest = max(text_width(label, size) for label, _ in entries)
    return Sheet(max(width, round(widest) + 33), step * len(entries), tuple(marks))
