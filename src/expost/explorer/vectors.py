"""Vectors, rows of a table, to be explored."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from markupsafe import Markup
from torch import Tensor

from expost.errors import DataError
from expost.explorer.kinds import Compared, File, Neighbours, TensorKind, npy, suffix_of
from expost.explorer.markup import facts, join, note, number
from expost.generators.generator import Generator
from expost.report import svg

#: Most entries that are written out in a table; longer vectors are only drawn.
WRITTEN = 64
#: Entries of a curve.
DRAWN = 256


class Vectors(TensorKind):
    """Vectors: floats, shape (N, d).

    Args:
        generator: From the trained model.
        train: Training vectors that others are compared with, float32, shape (N, d).
        columns: Names of the entries; default: their numbers.
    """

    noun = "vector"
    accept = (".npy", ".csv", ".tsv", ".txt")

    def __init__(self, generator: Generator, train: Tensor, columns: Sequence[str] = ()) -> None:
        super().__init__(generator)
        self._train = Compared(train.float())
        self.dim = train.shape[1]
        self.columns = list(columns) or [str(index) for index in range(self.dim)]
        low, high = float(train.min()), float(train.max())
        margin = 0.08 * (high - low) or 1.0
        self._reach = (low - margin, high + margin)
        self.typed = self.text(train[:1].float())

    def of_rows(self, x: Tensor) -> Tensor:
        """Return vectors of a data set as they are."""
        return x.float()

    def read(self, body: bytes, name: str) -> Tensor:
        """Read the first vector of a .npy file, or the first row of numbers of a .csv, .tsv or .txt file.

        Raises:
            DataError: if there is none of this length, or it is not finite.
        """
        if suffix_of(name, self.accept) == ".npy":
            return self._checked(_first_row(body))
        try:
            text = body.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise DataError("the file is not text; save it as UTF-8") from None
        for line in text.splitlines():
            values = _numbers(line)
            if values:
                return self._checked(values)
        raise DataError("the file has no row of numbers; give one with numbers between commas")

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
        """Show a vector as a curve and a table."""
        return join([self._curve([(items[0], "made")], (420, 170)), self._table([("value", items[0])])])

    def small(self, items: Tensor) -> Markup:
        """Show a vector as a curve."""
        return self._curve([(items[0], "data")], (260, 110))

    def sheet(self, items: Tensor) -> Markup:
        """Show vectors as curves, all between the same ordinates."""
        cells = (
            Markup('<button type="button" data-index="{}" aria-label="Sample {}">{}</button>').format(
                index, index + 1, self._curve([(item, "made")], (180, 90))
            )
            for index, item in enumerate(items)
        )
        return Markup('<div class="sheet curves">{}</div>').format(join(cells))

    def pair(self, item: Tensor, back: Tensor) -> Markup:
        """Show a vector, its reconstruction and their mean squared error."""
        legend = Markup(
            '<p class="legend"><span class="data">vector</span> <span class="made">reconstruction</span></p>'
        )
        curves = self._curve([(item[0], "data"), (back[0], "made")], (420, 170))
        error = facts([("mean squared error", number(float((item - back).square().mean())))])
        return join([legend, curves, error, self._table([("vector", item[0]), ("reconstruction", back[0])])])

    def path(self, items: Tensor) -> Markup:
        """Show the steps as curves in a row, and in a table."""
        steps = join(Markup("<li>{}</li>").format(self._curve([(each, "made")], (150, 90))) for each in items)
        table = self._table([(str(index), each) for index, each in enumerate(items)])
        return Markup('<ol class="strip curves">{}</ol>{}').format(steps, table)

    def row(self, items: Tensor, captions: Sequence[str]) -> Markup:
        """Show a few vectors with captions."""
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
        """Return float32 as .npy, and numbers as text, a vector a line."""

        def lines() -> bytes:
            out = io.StringIO()
            csv.writer(out).writerows([f"{value:.9g}" for value in row] for row in items.tolist())
            return out.getvalue().encode()

        return [
            File(f"{stem}.npy", "application/octet-stream", lambda: npy(items.float())),
            File(f"{stem}.txt", "text/plain; charset=utf-8", lines),
        ]

    def _curve(self, lines: Iterable[tuple[Tensor, str]], size: tuple[int, int]) -> Markup:
        drawn = []
        for vector, style in lines:
            chosen = np.unique(np.linspace(0, self.dim - 1, min(self.dim, DRAWN)).round().astype(int))
            drawn.append(svg.Line(chosen, vector.double().numpy()[chosen], style))
        return svg.spark(drawn, f"{self.dim:,} entries of a vector", self._reach, size)

    def _table(self, rows: Sequence[tuple[str, Tensor]]) -> Markup:
        if self.dim > WRITTEN:
            return note(f"{self.dim:,} entries; save them as .npy or .txt to see them all.")
        head = join(Markup('<th scope="col">{}</th>').format(name) for name in self.columns)
        body = join(
            Markup('<tr><th scope="row">{}</th>{}</tr>').format(
                name, join(Markup("<td>{}</td>").format(number(value)) for value in vector.tolist())
            )
            for name, vector in rows
        )
        return Markup(
            '<div class="scroll" tabindex="0"><table><thead><tr><th scope="col">entry</th>{}</tr></thead>'
            "<tbody>{}</tbody></table></div>"
        ).format(head, body)


def _numbers(text: str) -> list[float] | None:
    """Return the numbers of a line; None if there are none, or anything else."""
    parts = text.replace(",", " ").replace(";", " ").split()
    try:
        return [float(part) for part in parts] or None
    except ValueError:
        return None


def _first_row(body: bytes) -> list[float]:
    """Return the first row of a .npy file, without taking the memory that its header claims."""
    file = io.BytesIO(body)
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
        if dtype.kind not in "buif" or int(np.prod(shape, dtype=object)) * dtype.itemsize > len(body):
            raise ValueError("its header does not match what it holds")
        array = np.load(io.BytesIO(body), allow_pickle=False)
    except Exception as error:  # NumPy's header is Python for its own tokenizer, which can fail in any way
        reason = " ".join(str(error).split())[:100]
        raise DataError(
            f"the file is no array of numbers that can be read ({reason}); save it with numpy.save"
        ) from None
    rows = array.reshape(1, -1) if array.ndim <= 1 else array.reshape(len(array), -1)
    if not rows.size:
        raise DataError("the array is empty; save at least one vector")
    return [float(value) for value in rows[0]]


def _short(text: str, length: int = 40) -> str:
    words = " ".join(text.split())
    return words if len(words) <= length else f"{words[: length - 1]}…"
