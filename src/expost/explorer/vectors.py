"""Vectors, rows of a table, to be explored."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from markupsafe import Markup
from numpy.typing import NDArray
from torch import Tensor

from expost.errors import DataError
from expost.explorer.kinds import Compared, File, Given, Neighbours, TensorKind, array_of, npy, suffix_of
from expost.explorer.markup import facts, join, note, number
from expost.generators.generator import Generator
from expost.report import svg

#: Most entries that are written out in a table, where they have no names; longer vectors are only drawn.
WRITTEN = 64
#: Most columns of a table.
SHOWN = 200
#: Entries of a curve.
DRAWN = 256


class Vectors(TensorKind):
    """Vectors: floats, shape (N, d).

    Args:
        generator: From the trained model.
        train: Training vectors that others are compared with, float32, shape (N, d).
        columns: Names of the entries; default: their numbers.
    """

    accept = (".npy", ".csv", ".tsv", ".txt")

    def __init__(self, generator: Generator, train: Tensor, columns: Sequence[str] = ()) -> None:
        super().__init__(generator)
        self._train = Compared(train.float())
        self.dim = train.shape[1]
        self._names = set(columns)
        self.columns = list(columns) or [str(index) for index in range(self.dim)]
        #: Whether vectors are rows of a table; others are signals, and drawn as curves.
        self.rows = bool(columns) or self.dim <= WRITTEN
        self.noun = "row" if self.rows else "vector"
        low, high = float(train.min()), float(train.max())
        margin = 0.08 * (high - low) or 1.0
        self._reach = (low - margin, high + margin)
        self.typed = self.text(train[:1].float())

    def of_rows(self, x: Tensor) -> Tensor:
        """Return vectors of a data set as they are."""
        return x.float()

    def read(self, body: bytes, name: str) -> Given[Tensor]:
        """Read the first vector of a .npy file, or the first row of a .csv, .tsv or .txt file.

        Where the file names its columns, and the run's have names, each number goes to the column of its name.

        Raises:
            DataError: if there is none of this length, columns are missing, or it is not finite.
        """
        if suffix_of(name, self.accept) == ".npy":
            array = array_of(body)
            rows = array.reshape(1, -1) if array.ndim <= 1 else array.reshape(len(array), -1)
            return Given(self._checked(rows[0].astype(float).tolist()), _first(len(rows)))
        try:
            text = body.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise DataError("the file is not text; save it as UTF-8") from None
        lines = [line for line in text.splitlines() if line.strip()]
        first = next((index for index, line in enumerate(lines) if _numbers(line)), None)
        named = self._named(lines)
        if named is not None:
            return named
        if first is None:
            raise DataError("the file has no row of numbers; give one with numbers between commas")
        count = len(lines) - first
        order = ", in the order of the run's columns: the file names none of them" if self._names else ""
        return Given(self._checked(_numbers(lines[first]) or []), f"{_first(count)}{order}")

    def _named(self, lines: Sequence[str]) -> Given[Tensor] | None:
        """Read the row below a line that has names of the run's columns; None if there is no such line."""
        if not self._names or len(lines) < 2:
            return None
        delimiter = max(",;\t", key=lines[0].count)
        try:
            names, cells = (next(csv.reader([line], delimiter=delimiter)) for line in lines[:2])
        except csv.Error as error:
            raise DataError(f"the file is no table that can be read ({error}); save it as CSV") from None
        given = [each.strip() for each in names]
        if not set(given) & self._names:
            return None
        lacking = [each for each in self.columns if each not in given]
        if lacking:
            shown = ", ".join(f"'{_short(each, 30)}'" for each in lacking[:5]) + (", ..." if len(lacking) > 5 else "")
            raise DataError(f"the file lacks {len(lacking)} of the run's columns: {shown}; add them")
        twice = next((each for each in self.columns if given.count(each) > self.columns.count(each)), None)
        if twice is not None:
            raise DataError(f"the file has column '{_short(twice, 30)}' more than once; keep one of them")
        if len(cells) != len(given):
            raise DataError(f"the file names {len(given)} columns, and its first row has {len(cells)}; repair it")
        row = dict(zip(given, cells, strict=True))
        values = []
        for each in self.columns:
            try:
                values.append(float(row[each]))
            except ValueError:
                cell = _short(row[each].strip(), 30)
                raise DataError(f"column '{_short(each, 30)}' has '{cell}', which is no number; write one") from None
        others = [each for each in given if each not in self._names]
        left = f"; left out {len(others)} other columns ({_short(', '.join(others), 60)})" if others else ""
        return Given(self._checked(values), f"{_first(len(lines) - 1)}, columns by their names{left}")

    def parse(self, text: str) -> Tensor:
        """Read numbers between commas, semicolons or white space.

        Raises:
            DataError: if they are no numbers, not as many as the model takes, or not finite.
        """
        values = _numbers(text)
        if values is None:
            raise DataError(f"'{_short(text)}' is no row of numbers; write {self.dim:,} numbers between commas")
        return self._checked(values)

    def _checked(self, values: Sequence[float]) -> Tensor:
        if len(values) != self.dim:
            raise DataError(f"{len(values):,} numbers are given, the model takes {self.dim:,}")
        vector = torch.tensor([values], dtype=torch.float64).float()
        if not bool(vector.isfinite().all()):
            raise DataError("the numbers are not all finite, or too large for float32; correct them")
        return vector

    def text(self, items: Tensor) -> str:
        """Return the first vector, between commas."""
        return ", ".join(f"{value:.6g}" for value in items[0].tolist())

    def size(self, items: Tensor) -> int:
        """Return the bytes of the floats."""
        return items.numel() * 4

    def one(self, items: Tensor) -> Markup:
        """Show a row as a table, a signal as a curve."""
        return self._shown([("value", items[0], "made")])

    def small(self, items: Tensor) -> Markup:
        """Show a row as a table, a signal as a small curve."""
        if self.rows:
            return self._table([("value", items[0])])
        return self._curve([(items[0], "data")], (260, 110))

    def sheet(self, items: Tensor) -> Markup:
        """Show rows below each other, signals as curves between the same ordinates."""
        if self.rows:
            return self._table([(str(index + 1), item) for index, item in enumerate(items)], chosen=True)
        cells = (
            Markup('<button type="button" data-index="{}" aria-label="Sample {}">{}</button>').format(
                index, index + 1, self._curve([(item, "made")], (180, 90))
            )
            for index, item in enumerate(items)
        )
        return Markup('<div class="sheet curves">{}</div>{}').format(join(cells), self._axes())

    def pair(self, item: Tensor, back: Tensor) -> Markup:
        """Show a vector, its reconstruction and their mean squared error."""
        error = facts([("mean squared error", number(float((item - back).square().mean())))])
        return join([self._shown([(self.noun, item[0], "data"), ("reconstruction", back[0], "made")]), error])

    def path(self, items: Tensor) -> Markup:
        """Show the steps as rows below each other, or as curves in a row."""
        if self.rows:
            return self._table([(f"step {index}", each) for index, each in enumerate(items)])
        steps = join(Markup("<li>{}</li>").format(self._curve([(each, "made")], (150, 90))) for each in items)
        return Markup('<ol class="strip curves">{}</ol>{}').format(steps, self._axes())

    def row(self, items: Tensor, captions: Sequence[str]) -> Markup:
        """Show a few vectors with captions."""
        if self.rows:
            return self._table(list(zip(captions, items, strict=True)), "distance")
        figures = join(
            Markup("<figure>{}<figcaption>{}</figcaption></figure>").format(
                self._curve([(each, "data")], (130, 76)), caption
            )
            for each, caption in zip(items, captions, strict=True)
        )
        return Markup('<div class="few curves">{}</div>').format(figures)

    def nearest(self, item: Tensor, n: int) -> Neighbours:
        """Return the training vectors that are nearest by Euclidean distance."""
        return Neighbours("distance of entries", *self._train.nearest(item, n))

    def files(self, items: Tensor, stem: str) -> list[File]:
        """Return float32 as .npy, and numbers as text, a vector a line: as .csv under the names of the columns."""

        def lines(*head: Sequence[str]) -> bytes:
            out = io.StringIO()
            writer = csv.writer(out)
            writer.writerows(head)
            writer.writerows([f"{value:.9g}" for value in row] for row in items.tolist())
            return out.getvalue().encode()

        return [
            File(f"{stem}.npy", "application/octet-stream", lambda: npy(items.float())),
            File(f"{stem}.csv", "text/csv; charset=utf-8", lambda: lines(self.columns)),
            File(f"{stem}.txt", "text/plain; charset=utf-8", lines),
        ]

    def _shown(self, rows: Sequence[tuple[str, Tensor, str]]) -> Markup:
        """Show vectors, large."""
        if self.rows:
            return self._table([(name, vector) for name, vector, _ in rows])
        names = join(Markup('<span class="{}">{}</span> ').format(style, name) for name, _, style in rows)
        legend = Markup('<p class="legend">{}</p>').format(names) if len(rows) > 1 else Markup("")
        lines = [svg.Line(self._drawn, vector.double().numpy()[self._drawn], style) for _, vector, style in rows]
        return join([legend, svg.line_chart(lines, self._label, "entry", size=(420, 190)), note(self._saved)])

    @property
    def _drawn(self) -> NDArray[np.int64]:
        return np.unique(np.linspace(0, self.dim - 1, min(self.dim, DRAWN)).round().astype(int))

    @property
    def _label(self) -> str:
        return f"{self.dim:,} entries of a vector"

    @property
    def _saved(self) -> str:
        return f"{self.dim:,} entries; save them as .npy or .txt to see them all."

    def _axes(self) -> Markup:
        low, high = self._reach
        words = f"Across: entries 0 to {self.dim - 1:,}; up: values from {number(low)} to {number(high)}."
        return Markup('<p class="caption">{}</p>').format(words)

    def _curve(self, lines: Iterable[tuple[Tensor, str]], size: tuple[int, int]) -> Markup:
        drawn = [svg.Line(self._drawn, vector.double().numpy()[self._drawn], style) for vector, style in lines]
        return svg.spark(drawn, self._label, self._reach, size)

    def _table(self, rows: Sequence[tuple[str, Tensor]], corner: str = "", chosen: bool = False) -> Markup:
        """Return vectors under the names of the columns.

        Args:
            rows: Names and vectors.
            corner: What the names are.
            chosen: Whether a click on a row selects it.
        """
        head = join(Markup('<th scope="col">{}</th>').format(name) for name in self.columns[:SHOWN])
        body = join(
            Markup('<tr{}><th scope="row">{}</th>{}</tr>').format(
                Markup(' data-index="{}"').format(index) if chosen else "",
                Markup('<button type="button" aria-label="Sample {}">{}</button>').format(name, name)
                if chosen
                else name,
                join(Markup("<td>{}</td>").format(number(value)) for value in vector[:SHOWN].tolist()),
            )
            for index, (name, vector) in enumerate(rows)
        )
        more = (
            note(f"The first {SHOWN} of {self.dim:,} columns; save them to see them all.") if self.dim > SHOWN else ""
        )
        return Markup(
            '<div class="scroll {}" tabindex="0"><table><thead><tr><th scope="col">{}</th>{}</tr></thead>'
            "<tbody>{}</tbody></table></div>{}"
        ).format("rows" if chosen else "", corner, head, body, more)


def _numbers(text: str) -> list[float] | None:
    """Return the numbers of a line; None if there are none, or anything else."""
    parts = text.replace(",", " ").replace(";", " ").split()
    try:
        return [float(part) for part in parts] or None
    except ValueError:
        return None


def _first(count: int) -> str:
    return "one row" if count == 1 else f"the first of {count:,} rows"


def _short(text: str, length: int = 40) -> str:
    words = " ".join(text.split())
    return words if len(words) <= length else f"{words[: length - 1]}…"
