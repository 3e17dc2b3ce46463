"""Sections of vectors: rows of a table under the names of its columns; long rows without names as curves with axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from expost.report.blocks import Block, Cell, Drawing, Drawings, Heading, Key, Note, Table, rounded
from expost.report.files import csv_file
from expost.report.glance import Glance
from expost.report.subject import Makers, Subject
from expost.report.svg import Line, line_chart, matrix, step_chart
from expost.types import Split
from expost.utils.seeding import PAIRS, generator

Array = NDArray[np.float64]
#: Rows of the tables, paths with their steps, and rows of each run that stands beside others.
ROWS, PATHS, STEPS, GLANCED = 8, 4, 6, 2
#: Columns that are shown, and beside other runs.
COLUMNS, GLANCED_COLUMNS = 24, 8
#: Longer vectors whose entries have no names are signals rather than rows of a table.
LONGEST_ROW = 64
#: Entries of a signal that are drawn, and signals.
ENTRIES, CURVES = 256, 9
#: Samples that histograms and files hold, and most numbers in them.
SAMPLED, NUMBERS = 1_000, 200_000
#: With fewer test rows, histograms are of all rows.
ENOUGH = 200
#: Most real rows in a histogram.
COUNTED = 2_000
BINS = 20


def names_of(subject: Subject) -> list[str]:
    """Return the names of a vector's entries: the columns', or x0, x1, ... where they have none."""
    return list(subject.data.columns) or [f"x{index}" for index in range(subject.data.shape[0])]


def is_signal(subject: Subject) -> bool:
    """Return whether vectors are drawn as curves."""
    return not subject.data.columns and subject.data.shape[0] > LONGEST_ROW


def reconstructions(subject: Subject) -> list[Block]:
    """Return test rows, each above its reconstruction."""
    test = subject.data.test
    if is_signal(subject):
        chosen = test.spread(CURVES)
        x = test.x[chosen]
        pairs = [
            (original, back, f"Test vector {index} and its reconstruction", f"test vector {index}")
            for index, original, back in zip(chosen.tolist(), x, subject.generator.reconstruct(x), strict=True)
        ]
        return [
            _curves(pairs, "test vector", "reconstruction", f"{len(x)} test vectors from all over the part.{_kept(x)}")
        ]
    chosen = test.spread(ROWS)
    x = test.x[chosen]
    rows = []
    for index, original, back in zip(chosen.tolist(), x, subject.generator.reconstruct(x), strict=True):
        rows += [(f"test row {index + 1}", original, ""), ("reconstructed", back, "made")]
    return [_table(f"{len(x)} test rows from all over the part, and their reconstructions", rows, names_of(subject))]


def samples(subject: Subject) -> list[Block]:
    """Return samples from every density, and a file of them."""
    blocks: list[Block] = []
    names = names_of(subject)
    for density in subject.generator.densities:
        drawn = _drawn(subject, density)
        blocks.append(Heading(density))
        if is_signal(subject):
            lines = [(each, None, f"Vector {i} sampled from {density}", f"sample {i}") for i, each in enumerate(drawn)]
            blocks.append(_curves(lines[:CURVES], f"sample from {density}", "", _kept(drawn).strip()))
        else:
            rows = [(f"sample {index}", each, "") for index, each in enumerate(drawn[:ROWS], 1)]
            blocks.append(_table(f"The first {len(rows)} samples from {density}", rows, names))
        cells = drawn.numpy().astype(np.str_).tolist()
        blocks.append(csv_file(f"samples-{density}.csv", names, cells, f"{len(drawn):,} samples from {density}"))
    return blocks


def _drawn(subject: Subject, density: str) -> Tensor:
    """Return the samples that everything on the page shows, so that its parts and the file agree."""
    return subject.sample(max(ROWS, min(SAMPLED, NUMBERS // subject.data.shape[0])), density)


def neighbours(subject: Subject) -> list[Block]:
    """Return samples, each above its nearest training row."""
    assert subject.density is not None
    count = CURVES if is_signal(subject) else ROWS
    drawn = _drawn(subject, subject.density)[:count]
    distances, indices = subject.nearest_training(drawn)
    train = subject.data.train.x
    caption = (
        f"Samples from {subject.density} and the nearest of all {len(train):,} training rows, by the Euclidean "
        f"distance of the values as they are; for test rows it is {subject.typical_distance:.3g} (median)."
    )
    found = list(zip(drawn, distances.tolist(), indices.tolist(), strict=True))
    if is_signal(subject):
        pairs = [
            (train[index], each, f"Sample and its nearest training vector, distance {far:.3g}", f"distance {far:.3g}")
            for each, far, index in found
        ]
        return [_curves(pairs, "nearest training vector", "sample", caption)]
    rows = []
    for number, (each, far, index) in enumerate(found, 1):
        rows += [(f"sample {number}", each, ""), (f"nearest, distance {far:.3g}", train[index], "made")]
    return [_table("Samples and their nearest training rows", rows, names_of(subject), caption)]


def interpolations(subject: Subject) -> list[Block]:
    """Return decoded points between the codes of pairs of test rows."""
    a, b = subject.ends(PATHS)
    if not len(a):
        return [Note("A path needs two test examples; there are fewer.")]
    steps = subject.generator.interpolate(a, b, torch.linspace(0, 1, STEPS))
    caption = f"Linear paths between the codes of random test rows: {STEPS} points of each, decoded."
    if is_signal(subject):
        drawn = tuple(
            Drawing(
                line_chart(
                    [_line(each, f"s{step}") for step, each in enumerate(path)], f"Path {row} in {STEPS} steps", "entry"
                ),
                f"path {row}",
            )
            for row, path in enumerate(steps, 1)
        )
        return [Drawings(drawn, (Key("s0", "first end"), Key(f"s{STEPS - 1}", "last end")), caption, "charts")]
    rows = []
    for number, path in enumerate(steps, 1):
        rows += [
            (f"path {number}, {100 * step / (STEPS - 1):.0f} %", each, "" if step in (0, STEPS - 1) else "made")
            for step, each in enumerate(path)
        ]
    return [_table("Paths between test rows", rows, names_of(subject), caption)]


def glance(subject: Subject) -> Glance:
    """Return a few test rows, their reconstructions and samples."""
    x = subject.data.test.across(GLANCED).x
    density = subject.density
    drawn = () if density is None else tuple(_cells(each) for each in _drawn(subject, density)[:GLANCED])
    names = names_of(subject)
    left = f" The first {GLANCED_COLUMNS} of {len(names)} columns." if len(names) > GLANCED_COLUMNS else ""
    back = tuple(_cells(each) for each in subject.generator.reconstruct(x))
    return Glance("rows", tuple(map(_cells, x)), back, drawn, density, tuple(names[:GLANCED_COLUMNS]), left)


def _cells(row: Tensor, most: int = GLANCED_COLUMNS, style: str = "") -> tuple[Cell, ...]:
    return tuple(Cell(_number(value), "", f"number {style}".strip()) for value in row[:most].tolist())


def _number(value: float) -> str:
    return rounded(value, 4)


def _table(title: str, rows: Sequence[tuple[str, Tensor, str]], names: Sequence[str], note: str = "") -> Table:
    if len(names) > COLUMNS:
        note = f"{note} The first {COLUMNS} of {len(names):,} columns are shown.".strip()
    body = tuple((Cell(label), *_cells(row, COLUMNS, style)) for label, row, style in rows)
    return Table(title, ("", *names[:COLUMNS]), body, note)


@dataclass(frozen=True, eq=False)
class Marginal:
    """A column's histograms over the same bins.

    Attributes:
        edges: Of the bins, shape (B + 1,).
        shares: Of the values of each set that lie in a bin, shape (B,); what lies outside all bins is missing.
    """

    edges: Array
    shares: tuple[Array, ...]


def marginal(real: Array, others: Sequence[Array], bins: int = BINS) -> Marginal:
    """Return histograms of a column: equal bins that hold all real values, and the middle 98 % of every other set.

    Args:
        real: Shape (N,).
        others: Other sets of values, each of any number.
        bins: How many.
    """
    low, high = float(real.min()), float(real.max())
    for each in others:
        low, high = min(low, float(np.quantile(each, 0.01))), max(high, float(np.quantile(each, 0.99)))
    if not high > low:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, bins + 1)
    return Marginal(edges, tuple(np.histogram(each, edges)[0] / len(each) for each in (real, *others)))


def correlations(x: Array) -> Array:
    """Return Pearson's correlations of columns, shape (d, d); NaN where a column does not vary."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.atleast_2d(np.corrcoef(x, rowvar=False))


def columns(subject: Subject) -> list[Block]:
    """Return the columns one by one, as histograms, and two by two, as correlations."""
    if is_signal(subject):
        return [Note(f"These vectors have {subject.data.shape[0]:,} entries without names: they are drawn as curves.")]
    x, what = _real(subject)
    names = names_of(subject)
    sets = {"reconstructed": subject.generator.reconstruct(x).double().numpy()}
    for density in subject.generator.densities:
        sets[density] = _drawn(subject, density).double().numpy()
    real, usual = x.double().numpy(), subject.density
    shown = {"reconstructed": sets["reconstructed"]} | ({} if usual is None else {usual: sets[usual]})
    distances = {name: _distances(real, values) for name, values in shown.items()}
    order = np.arange(len(names))
    if len(names) > COLUMNS:
        order = np.sort(np.argsort(-distances[list(distances)[-1]], kind="stable")[:COLUMNS])
    left = (
        f" Of {len(names):,} columns, the {COLUMNS} whose {'samples' if usual else 'reconstructions'} are farthest "
        "from the real values."
        if len(names) > COLUMNS
        else ""
    )
    drawn = [_histogram(names[index], index, real, shown, distances) for index in order.tolist()]
    legend = [Key("data area", f"real: {what}"), Key("second", "their reconstructions")]
    if usual is not None:
        legend.append(Key("made", f"{len(sets[usual]):,} samples from {usual}"))
    caption = (
        "Each chart: the share of rows, in %, by value. Below it the largest difference of the distribution functions "
        "from the real values (Kolmogorov and Smirnov's distance): 0 is alike, 1 is apart. Bins hold all real values "
        f"and the middle 98 % of the others.{left}"
    )
    blocks: list[Block] = [Drawings(tuple(drawn), tuple(legend), caption, "charts")]
    if len(order) > 1:
        blocks += _correlations(real, sets, names, order)
    return blocks


def _real(subject: Subject) -> tuple[Tensor, str]:
    """Return the real rows that are compared, and what they are."""
    data = subject.data
    parts: list[Split] = [data.test] if len(data.test) >= ENOUGH else [data.train, data.validation, data.test]
    x = torch.cat([part.x for part in parts])
    what = "test rows" if len(parts) == 1 else "rows of all parts, training rows too"
    if len(x) > COUNTED:
        x = x[torch.randperm(len(x), generator=generator(subject.seed, PAIRS, 6))[:COUNTED]]
    return x, f"{len(x):,} {what}"


def _distances(real: Array, other: Array) -> Array:
    from scipy.stats import ks_2samp  # slow to import

    return np.array([ks_2samp(real[:, i], other[:, i], method="asymp").statistic for i in range(real.shape[1])])


def _histogram(name: str, index: int, real: Array, others: dict[str, Array], distances: dict[str, Array]) -> Drawing:
    found = marginal(real[:, index], [each[:, index] for each in others.values()])
    styles = ("data", "second", "made")
    series = [(100 * shares, style) for shares, style in zip(found.shares, styles, strict=False)]
    words = ", ".join(f"{other} {distances[other][index]:.2f}" for other in others)
    label = f"Histograms of {name}, real and {' and '.join(others)}; distances: {words}"
    return Drawing(step_chart(found.edges, series, label), name, words)


def _correlations(real: Array, sets: dict[str, Array], names: Sequence[str], order: NDArray[np.intp]) -> list[Block]:
    chosen = [names[index] for index in order]
    truth = correlations(real[:, order])
    drawn = [Drawing(matrix(truth, chosen, "Correlations of the real columns"), "real")]
    pairs = ~np.eye(len(order), dtype=bool)
    for name, values in sets.items():
        found = correlations(values[:, order])
        gaps = np.abs(found - truth)[pairs]
        gaps = gaps[np.isfinite(gaps)]
        words = f"{gaps.mean():.2f} from the real ones, on average" if len(gaps) else "no column varies"
        drawn.append(Drawing(matrix(found, chosen, f"Correlations of the columns, {name}: {words}"), name, words))
    legend = (Key("positive", "positive"), Key("negative", "negative"))
    caption = (
        "Pearson's correlations of columns, in the same order across and down: the stronger, the fuller the color."
    )
    caption += " A column that does not vary has none, and stays empty."
    return [Heading("Correlations"), Drawings(tuple(drawn), legend, caption, "medium")]


def _curves(pairs: Sequence[tuple[Tensor, Tensor | None, str, str]], back: str, front: str, caption: str) -> Drawings:
    drawn = []
    for first, second, label, title in pairs:
        lines = [_line(first, "made" if second is None else "data")]
        lines += [] if second is None else [_line(second, "made")]
        drawn.append(Drawing(line_chart(lines, label, "entry"), title))
    legend = (Key("data", back), Key("made", front)) if front else (Key("made", back),)
    return Drawings(tuple(drawn), legend, caption, "charts")


def _line(vector: Tensor, style: str) -> Line:
    values = vector.double().numpy()
    chosen = np.unique(np.linspace(0, len(values) - 1, min(len(values), ENTRIES)).round().astype(int))
    return Line(chosen, values[chosen], style)


def _kept(x: Tensor) -> str:
    return f" Of {x.shape[1]:,} entries {ENTRIES} are drawn." if x.shape[1] > ENTRIES else ""


#: What makes the sections of vectors.
VECTORS = Makers(reconstructions, samples, neighbours, interpolations, glance, columns)
