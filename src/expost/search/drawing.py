"""Pictures of what was found: curves, molecules, or the strings themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from expost.examples.molecules import structures
from expost.examples.pictures import BACKGROUND, INK
from expost.metrics.expressions import ExpressionScore, evaluate
from expost.search.result import Found
from expost.utils.extras import require

_COLORS = ("#1f77b4", "#d95f02", "#2a9d5c", "#8e44ad")


def curves(score: ExpressionScore, found: Sequence[Found]) -> Image.Image:
    """Plot expressions over their target; the best is the thinnest line, on top.

    The vertical axis shows the target's range and half of it again on either side; curves are clipped there.

    Args:
        score: Its target and its points.
        found: At most four expressions, best first.
    """
    require("matplotlib", "molecules", "the picture of a search needs Matplotlib")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), dpi=120, layout="constrained")
    canvas: Any = FigureCanvasAgg(figure)
    axes = figure.subplots()
    x = score.grid
    target = _values(score.target, x)
    low, high = float(target.min()), float(target.max())
    margin = 0.5 * (high - low) or 1.0
    axes.plot(x, target, color="black", linewidth=3, alpha=0.35, label=_short(f"target: {score.target}"))
    for order, (item, color) in enumerate(zip(found, _COLORS, strict=False)):
        values = _values(item.string, x)
        # values far outside are left out, or a pole would be drawn as a vertical line
        values = np.where((values > low - 2 * margin) & (values < high + 2 * margin), values, np.nan)
        label = _short(f"{order + 1}. {item.string}") + f"   score {item.score:.3g}"
        axes.plot(x, values, color=color, linewidth=1.2 + order, label=label, zorder=10 - order)
    axes.set(xlabel="x", ylabel="f(x)", xlim=(x[0], x[-1]), ylim=(low - margin, high + margin))
    axes.grid(alpha=0.25)
    # strings are shown as they are: a dollar sign would start mathematics
    legend = axes.legend(loc="upper left", fontsize=9, framealpha=0.9)
    for text in legend.get_texts():
        text.set_parse_math(False)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def _values(expression: str, x: np.ndarray) -> np.ndarray:
    values = evaluate(expression, x)
    return np.full_like(x, np.nan) if values is None else values


def molecules(found: Sequence[Found], columns: int = 4) -> Image.Image | None:
    """Draw molecules with their scores below; None if one of the strings is no molecule.

    Args:
        found: SMILES, best first.
        columns: Drawings in a row.

    Raises:
        UsageError: if RDKit is not installed.
    """
    legends = [f"{order}.  {item.score:.4g}" for order, item in enumerate(found, 1)]
    return structures([item.string for item in found], legends, columns)


def text(found: Sequence[Found]) -> Image.Image:
    """Write strings and their scores, one a line."""
    font = ImageFont.load_default(size=18)
    rows = [(f"{order}.", f"{item.score:.4g}", _short(item.string, 90)) for order, item in enumerate(found, 1)]
    widths = [int(max(font.getlength(row[column]) for row in rows)) + 24 for column in range(3)]
    sheet = Image.new("RGB", (sum(widths) + 16, 28 * len(rows) + 32), BACKGROUND)
    pen = ImageDraw.Draw(sheet)
    for number, row in enumerate(rows):
        for column, cell in enumerate(row):
            pen.text((16 + sum(widths[:column]), 16 + 28 * number), cell, fill=INK, font=font)
    return sheet


def _short(text: str, length: int = 60) -> str:
    """Return text in one printable line of limited length."""
    plain = "".join(character if character.isprintable() else "?" for character in text)
    return plain if len(plain) <= length else plain[: length - 3] + "..."
