"""SVG charts with colors from the page's style sheet, legible on light and dark.

Every piece of markup is made by `Markup.format`, which escapes what it is given.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
#: Ratio of largest to smallest value above which an axis is logarithmic.
LOG_FROM = 20.0


@dataclass(frozen=True)
class Line:
    """A curve.

    Attributes:
        x: Abscissae, shape (P,).
        y: Ordinates, shape (P,); the curve is broken where one is not finite.
        style: CSS class that colors it.
    """

    x: ArrayLike
    y: ArrayLike
    style: str


@dataclass(frozen=True)
class Frame:
    """A rectangle of data, and where it is drawn.

    Attributes:
        x: Lowest and highest abscissa.
        y: Lowest and highest ordinate; positive where `log`.
        width: Of the drawing.
        height: Of the drawing.
        margin: Left, top, right and bottom.
        log: Whether ordinates are on a logarithmic scale.
    """

    x: tuple[float, float]
    y: tuple[float, float]
    width: float
    height: float
    margin: tuple[float, float, float, float] = (0, 0, 0, 0)
    log: bool = False

    def across(self, x: ArrayLike) -> Array:
        """Return where abscissae are drawn."""
        left, _, right, _ = self.margin
        return left + self._share(np.asarray(x, dtype=np.float64), self.x) * (self.width - left - right)

    def down(self, y: ArrayLike) -> Array:
        """Return where ordinates are drawn; NaN for those that the scale does not have."""
        _, top, _, bottom = self.margin
        values, ends = np.asarray(y, dtype=np.float64), self.y
        if self.log:
            values = np.log10(np.where(values > 0, values, np.nan))
            ends = (math.log10(ends[0]), math.log10(ends[1]))
        return self.height - bottom - self._share(values, ends) * (self.height - top - bottom)

    @staticmethod
    def _share(values: Array, ends: tuple[float, float]) -> Array:
        return (values - ends[0]) / ((ends[1] - ends[0]) or 1.0)


def path(x: ArrayLike, y: ArrayLike) -> str:
    """Return path data through points, broken where one is not finite.

    Example:
        >>> path([0, 1, 2, 3], [0, 1, float("nan"), 2.25])
        'M0 0L1 1M3 2.2'
    """
    steps, pen = [], "M"
    for across, down in zip(np.asarray(x).tolist(), np.asarray(y).tolist(), strict=True):
        if not (math.isfinite(across) and math.isfinite(down)):
            pen = "M"
            continue
        steps.append(f"{pen}{_number(across)} {_number(down)}")
        pen = "L"
    return "".join(steps)


def dots(x: ArrayLike, y: ArrayLike) -> str:
    """Return path data of zero-length lines, drawn as dots by round line caps.

    Example:
        >>> dots([1, 2], [3, 4])
        'M1 3h0M2 4h0'
    """
    points = zip(np.asarray(x).tolist(), np.asarray(y).tolist(), strict=True)
    return "".join(f"M{_number(a)} {_number(b)}h0" for a, b in points if math.isfinite(a) and math.isfinite(b))


def _number(value: float) -> str:
    text = f"{value:.1f}"
    return text[:-2] if text.endswith(".0") else text


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return round numbers from low to high, about `count` of them.

    Example:
        >>> ticks(0, 7)
        [0.0, 2.0, 4.0, 6.0]
    """
    if not high > low:
        return [low]
    step = 10.0 ** math.floor(math.log10((high - low) / count))
    step *= next((factor for factor in (1, 2, 5) if (high - low) / (factor * step) <= count), 10)
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 12) for k in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Return powers of ten from low to high, or, where there are few, also their doubles and halves.

    Example:
        >>> log_ticks(3, 4000), log_ticks(3, 60)
        ([10.0, 100.0, 1000.0], [5.0, 10.0, 20.0, 50.0])
    """
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1,), (1, 2, 5)):
        found = [factor * 10.0**k for k in decades for factor in factors]
        found = [value for value in found if low * 0.999 <= value <= high * 1.001]
        if len(found) >= 3:
            break
    return found[:: -(-len(found) // 6)] if found else []


def tick_text(value: float) -> str:
    """Return a tick's label, short.

    Example:
        >>> tick_text(0.5), tick_text(25000), tick_text(3e6), tick_text(2e-5), tick_text(-3)
        ('0.5', '25k', '3M', '2e-5', '−3')
    """
    size = abs(value)
    if size >= 1e9 or 0 < size < 1e-3:
        text = f"{value:.2g}".replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")
    elif size >= 1e6:
        text = f"{value / 1e6:g}M"
    elif size >= 1e4:
        text = f"{value / 1e3:g}k"
    else:
        text = f"{value:g}"
    return text.replace("-", "−", 1) if value < 0 else text


def group(items: Iterable[Markup]) -> Markup:
    """Join pieces of markup."""
    return Markup("").join(items)


def stroke(data: str, style: str) -> Markup:
    """Return a path of a CSS class."""
    return Markup('<path class="{}" d="{}"/>').format(style, data) if data else Markup("")


def drawing(width: float, height: float, label: str, body: Markup, style: str = "chart") -> Markup:
    """Return a whole SVG image with a description.

    Args:
        width: Width of its coordinates; they are CSS pixels where there is room.
        height: Likewise.
        label: What it shows, for screen readers.
        body: What is in it.
        style: CSS class.
    """
    return Markup('<svg class="{}" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        style, _number(width), _number(height), label, body
    )


def line_chart(
    lines: Sequence[Line], label: str, x_label: str, mark: float | None = None, size: tuple[float, float] = (290, 190)
) -> Markup:
    """Return curves over one abscissa, with axes; the vertical one is logarithmic where values span orders.

    Args:
        lines: The curves.
        label: What is shown, for who cannot see it.
        x_label: What the abscissa is.
        mark: Abscissa of a vertical line.
        size: Width and height.
    """
    values = np.concatenate([np.asarray(line.y, dtype=np.float64) for line in lines])
    values = values[np.isfinite(values)]
    across = np.concatenate([np.asarray(line.x, dtype=np.float64) for line in lines])
    if not len(values):
        values = np.array([0.0, 1.0])
    low, high = float(values.min()), float(values.max())
    log = low > 0 and high / low > LOG_FROM
    if log:
        low, high = low / 1.15, high * 1.15
    else:
        margin = 0.06 * (high - low) or 0.5 * abs(high) or 1.0
        low, high = low - margin, high + margin
    frame = Frame((float(across.min()), float(across.max())), (low, high), *size, (46, 8, 12, 34), log)
    body = [axes(frame, x_label, whole=True)]
    if mark is not None:
        x = float(frame.across(mark))
        body.append(stroke(f"M{_number(x)} 8V{_number(size[1] - 34)}", "mark"))
    for line in lines:
        body.append(stroke(path(frame.across(line.x), frame.down(line.y)), f"line {line.style}"))
        if np.size(line.x) == 1:
            body.append(stroke(dots(frame.across(line.x), frame.down(line.y)), f"dot {line.style}"))
    return drawing(*size, label, group(body))


def axes(frame: Frame, x_label: str = "", whole: bool = False, x_count: int = 5) -> Markup:
    """Return grid lines, the ticks' labels, and the abscissa's name.

    Args:
        frame: Where.
        x_label: The abscissa's name; empty for none.
        whole: Whether ticks of the abscissa are whole numbers.
        x_count: About how many of them.
    """
    left, _, right, bottom = frame.margin
    floor = frame.height - bottom
    body = []
    for value in log_ticks(*frame.y) if frame.log else ticks(*frame.y, count=5):
        y = _number(float(frame.down(value)))
        body.append(stroke(f"M{_number(left)} {y}H{_number(frame.width - right)}", "grid"))
        body.append(_text(left - 8, float(frame.down(value)) + 4, "end", tick_text(value)))
    for value in ticks(*frame.x, count=x_count):
        if whole and value != round(value):
            continue
        body.append(_text(float(frame.across(value)), floor + 16, "middle", tick_text(value)))
    if x_label:
        body.append(_text((left + frame.width - right) / 2, frame.height - 3, "middle", x_label, "name"))
    return group(body)


def _text(x: float, y: float, anchor: str, text: str, style: str = "tick") -> Markup:
    return Markup('<text class="{}" x="{}" y="{}" text-anchor="{}">{}</text>').format(
        style, _number(x), _number(y), anchor, text
    )


def step_chart(
    edges: ArrayLike, series: Sequence[tuple[ArrayLike, str]], label: str, size: tuple[float, float] = (270, 150)
) -> Markup:
    """Return histograms over the same bins, with axes: the first is an area, the others are lines.

    Args:
        edges: Of the bins, ascending, shape (B + 1,).
        series: Heights, each of shape (B,), and CSS classes.
        label: What is shown, for who cannot see it.
        size: Width and height.
    """
    x = np.repeat(np.asarray(edges, dtype=np.float64), 2)
    top = max((float(np.max(heights)) for heights, _ in series), default=0.0)
    frame = Frame((float(x[0]), float(x[-1])), (0.0, 1.06 * top or 1.0), *size, (34, 8, 10, 22))
    body = [axes(frame, x_count=4)]
    for index, (heights, style) in enumerate(series):
        y = np.concatenate([[0.0], np.repeat(np.asarray(heights, dtype=np.float64), 2), [0.0]])
        drawn = path(frame.across(x), frame.down(y))
        body.append(stroke(drawn, f"area {style}" if index == 0 else f"line step {style}"))
    return drawing(*size, label, group(body))


def matrix(values: Array, names: Sequence[str], label: str) -> Markup:
    """Return a picture of a square matrix of values in [-1, 1]: the larger, the fuller its color; none if not finite.

    Args:
        values: Shape (d, d).
        names: Of the rows and columns, written beside the rows.
        label: What is shown, for who cannot see it.
    """
    room, cell = 104.0, max(12.0, 216.0 / len(names))
    body = []
    for row, name in enumerate(names):
        short = name if len(name) <= 15 else f"{name[:14]}…"
        body.append(_text(room - 6, (row + 0.5) * cell + 4, "end", short))
        for column, value in enumerate(values[row].tolist()):
            if math.isfinite(value):
                rect = Markup('<rect class="{}" x="{}" y="{}" width="{}" height="{}" fill-opacity="{:.2f}">').format(
                    "positive" if value >= 0 else "negative",
                    *map(_number, (room + column * cell, row * cell, cell, cell)),
                    min(1.0, abs(value)),
                )
                title = Markup("<title>{}, {}: {:.2f}</title></rect>").format(name, names[column], value)
                body.append(rect + title)
    side = len(names) * cell
    body.append(
        Markup('<rect class="frame" x="{}" y="0" width="{}" height="{}"/>').format(*map(_number, (room, side, side)))
    )
    return drawing(room + side, side, label, group(body), "chart matrix")


def spark(
    lines: Sequence[Line],
    label: str,
    y: tuple[float, float],
    size: tuple[float, float] = (180, 96),
    style: str = "",
    text: str = "",
) -> Markup:
    """Return small curves without axes, all between the same ordinates; they are clipped at the drawing's edge.

    Args:
        lines: The curves.
        label: What is shown, for who cannot see it.
        y: Ordinates of the lower and upper edge.
        size: Width and height.
        style: A CSS class beside "chart spark".
        text: Written into the lower right corner.
    """
    across = np.concatenate([np.asarray(line.x, dtype=np.float64) for line in lines])
    frame = Frame((float(across.min()), float(across.max())), y, *size, (4, 5, 4, 5))
    body = []
    if y[0] < 0 < y[1]:
        body.append(stroke(f"M0 {_number(float(frame.down(0.0)))}H{_number(size[0])}", "grid"))
    for line in lines:
        # points far outside are drawn just outside, which keeps the numbers short
        down = np.clip(frame.down(line.y), -size[1], 2 * size[1])
        single = np.size(line.x) == 1
        x = frame.across(line.x) if not single else np.array([size[0] / 2])
        body.append(stroke(dots(x, down) if single else path(x, down), f"{'dot' if single else 'line'} {line.style}"))
    if text:
        body.append(_text(size[0] - 6, size[1] - 7, "end", text, "off"))
    return drawing(*size, label, group(body), f"chart spark {style}".strip())
