"""Several runs at a glance: the same test examples as each run reconstructs them, and samples of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from expost.report.blocks import Block, Cell, Picture, Strips, Table

#: A row of examples: one picture of several, or the cells of one.
Row = Picture | tuple[Cell, ...]


@dataclass(frozen=True)
class Glance:
    """What a run shows beside others.

    Attributes:
        noun: What examples are called, in the plural.
        originals: Test examples.
        reconstructions: A row for each of them.
        samples: The first samples of the seed.
        density: What the samples are from; None where no density is fitted.
        head: Names of the cells of a row; empty for pictures.
        note: What is left out.
    """

    noun: str
    originals: tuple[Row, ...]
    reconstructions: tuple[Row, ...]
    samples: tuple[Row, ...] = ()
    density: str | None = None
    head: tuple[str, ...] = ()
    note: str = ""


def side_by_side(runs: Mapping[str, tuple[str, Glance]]) -> list[Block]:
    """Return rows of examples of several runs; those on the same data share the test examples.

    Args:
        runs: By label, the fingerprint of its data and its glance.
    """
    groups: dict[str, dict[str, Glance]] = {}
    for label, (data, glance) in runs.items():
        groups.setdefault(data, {})[label] = glance
    return [_group(glances) for glances in groups.values()]


def _group(glances: Mapping[str, Glance]) -> Block:
    first = next(iter(glances.values()))
    rows: list[tuple[str, Row]] = []
    for index, original in enumerate(first.originals):
        alone = isinstance(original, Picture)  # of all examples at once
        rows.append((f"test {first.noun}" if alone else f"test {first.noun.removesuffix('s')} {index + 1}", original))
        rows += [(f"{label}, reconstructed", glance.reconstructions[index]) for label, glance in glances.items()]
    for label, glance in glances.items():
        rows += [(f"{label}, sampled from {glance.density}", each) for each in glance.samples]
    without = [label for label, glance in glances.items() if not glance.samples]
    caption = f"The same test {first.noun} in every run, and the first samples of the seed, not selected."
    caption += first.note
    if without:
        caption += f" No density is fitted, so there are no samples of: {', '.join(without)}."
    pictures = tuple((label, row) for label, row in rows if isinstance(row, Picture))
    if pictures:
        return Strips(pictures, caption)
    cells = tuple((Cell(label), *row) for label, row in rows if not isinstance(row, Picture))
    return Table(f"{', '.join(glances)} side by side", ("", *first.head), cells, caption)
