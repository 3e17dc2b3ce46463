"""Sections of strings: reconstructions, samples with scores and drawings, neighbours, interpolations."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from expost.generators.interpolation import linear
from expost.generators.strings import StringGenerator
from expost.grammar.codec import Codec
from expost.report.blocks import Block, Cell, Download, Drawing, Drawings, Heading, Note, Path, Paths, Table
from expost.report.files import csv_file
from expost.report.glance import Glance
from expost.report.structures import STRUCTURES, Structure, available
from expost.report.subject import Makers, Subject
from expost.utils.seeding import PAIRS, generator

RECONSTRUCTED, SAMPLES, DRAWN, NEIGHBOURS, PATHS, STEPS = 12, 16, 12, 10, 6, 8
#: Strings of a run that stands beside others.
GLANCED = 3
#: Samples from which drawings are chosen.
CANDIDATES = 200
#: Training strings that samples are compared with.
POOL = 20_000
#: Test strings whose distance to training strings is the yardstick.
HELD_OUT = 20
#: Styles of reconstructions that differ, and that do not.
_MARKS = ("bad", "good")
UNFINISHED = Cell("unfinished", "", "missing")


def _generator(subject: Subject) -> StringGenerator:
    return StringGenerator(subject.generator, _codec(subject))


def _codec(subject: Subject) -> Codec:
    assert subject.data.codec is not None
    return subject.data.codec


def _structure(subject: Subject) -> Structure:
    return STRUCTURES[subject.data.domain]


def string_reconstructions(subject: Subject) -> list[Block]:
    """Return test strings beside their reconstructions."""
    rows = subject.data.test.across(RECONSTRUCTED).x
    originals, back = _codec(subject).decode(rows), _generator(subject).reconstruct(rows)
    table = []
    for first, second in zip(originals, back, strict=True):
        table.append((_code(first), _compared(first, second)))
    head = ("test string", "reconstruction")
    note = "Greedy decodes: the most likely symbol at each step."
    return [
        Table(f"{len(table)} test strings from all over the part, and their reconstructions", head, tuple(table), note)
    ]


def _compared(first: str | None, second: str | None) -> Cell:
    same = first == second
    return UNFINISHED if second is None else Cell(second, "same" if same else "differs", f"code {_MARKS[same]}")


def string_samples(subject: Subject) -> list[Block]:
    """Return samples from every density: drawings of different valid ones, and a table with scores."""
    structure, strings = _structure(subject), _generator(subject)
    problem = available(structure)
    blocks: list[Block] = [Note(f"Neither drawn nor scored: {problem}.")] if problem else []
    for name in subject.generator.densities:
        found = strings.decode(subject.sample_codes(CANDIDATES, name))
        finished = [text for text in found if text is not None]
        valid = [] if problem else [text for text in finished if structure.standard(text) is not None]
        counts = f"Of {len(found)} samples, {len(finished) or 'none'} are finished strings"
        blocks.append(
            Heading(
                name, counts + ("." if problem or not finished else f", {len(valid)} of them valid {structure.noun}.")
            )
        )
        drawings = _drawings(list(dict.fromkeys(valid))[:DRAWN], structure, name)
        blocks += drawings
        if finished:
            blocks.append(_scored(finished[:SAMPLES], structure, name, problem, bool(drawings)))
            blocks.append(_saved(finished, structure, name, problem))
    return blocks


def _saved(found: Sequence[str], structure: Structure, name: str, problem: str) -> Download:
    """Return a link that saves finished samples with their scores."""
    scores = {} if problem else structure.scores(found)
    valid = ["" if problem else "yes" if structure.standard(text) is not None else "no" for text in found]
    rows = [
        [
            text,
            valid[index],
            *(f"{column[index]:.6g}" if math.isfinite(column[index]) else "" for column in scores.values()),
        ]
        for index, text in enumerate(found)
    ]
    return csv_file(
        f"samples-{name}.csv", ("sample", "valid", *scores), rows, f"{len(rows)} finished samples from {name}"
    )


def _drawings(texts: Sequence[str], structure: Structure, name: str) -> list[Block]:
    scores = structure.scores(texts) if texts else {}
    drawn = []
    for index, text in enumerate(texts):
        svg = structure.draw(text)
        if svg is not None:
            values = (f"{key}\N{NO-BREAK SPACE}{_value(column[index])}" for key, column in scores.items())
            drawn.append(Drawing(svg, caption=", ".join(values), code=_short(text)))
    if not drawn:
        return []
    caption = f"The first {len(drawn)} different valid {structure.noun} from {name}. {structure.explained}"
    return [Drawings(tuple(drawn), structure.legend, caption.strip(), structure.size)]


def _scored(found: Sequence[str], structure: Structure, name: str, problem: str, folded: bool) -> Table:
    scores = {} if problem else structure.scores(found)
    rows = []
    for index, text in enumerate(found):
        values = [Cell(_value(column[index]), "", "number") for column in scores.values()]
        rows.append((_code(text), Cell("–") if problem else _valid(text, structure), *values))
    title = f"The first {len(rows)} finished samples from {name}, with scores"
    return Table(title, ("sample", "valid", *scores), tuple(rows), structure.explained if scores else "", folded)


def _valid(text: str, structure: Structure) -> Cell:
    return Cell("yes") if structure.standard(text) is not None else Cell("no", "", "bad")


def _short(text: str, length: int = 90) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _value(value: float) -> str:
    return f"{value:.3g}".replace("-", "−") if math.isfinite(value) else "–"


def _code(text: str | None) -> Cell:
    return UNFINISHED if text is None else Cell(text, "", "code")


def string_neighbours(subject: Subject) -> list[Block]:
    """Return samples beside the nearest training strings by edit distance."""
    assert subject.density is not None
    samples = _generator(subject).decode(subject.sample_codes(SAMPLES, subject.density))
    texts = list(dict.fromkeys(text for text in samples if text))[:NEIGHBOURS]
    if not texts:
        return [Note(f"None of {len(samples)} samples from {subject.density} is a finished string.")]
    train = subject.data.train.x
    chosen = torch.randperm(len(train), generator=generator(subject.seed, PAIRS, 3))[:POOL]
    pool = [text for text in _codec(subject).decode(train[chosen]) if text]
    rows = []
    for text in texts:
        distances = edit_distances(text, pool)
        index = int(distances.argmin())
        distance = int(distances[index])
        rows.append((_code(text), _code(pool[index]), Cell(str(distance), "a copy" if distance == 0 else "", "number")))
    held_out = [text for text in _codec(subject).decode(subject.data.test.across(HELD_OUT).x) if text]
    typical = np.median([edit_distances(text, pool).min() for text in held_out]) if held_out else float("nan")
    part = "all" if len(pool) == len(train) else f"{len(pool):,} of"
    note = (
        f"Among {part} {len(train):,} training strings; edits are characters inserted, deleted or replaced. "
        f"For test strings it takes {typical:g} (median of {len(held_out)})."
    )
    title = f"Samples from {subject.density} and their nearest training strings"
    return [Table(title, ("sample", "nearest training string", "edits"), tuple(rows), note)]


def edit_distances(query: str, pool: Sequence[str]) -> NDArray[np.int32]:
    """Return the Levenshtein distances of one string to many, shape (N,).

    Computes Wagner and Fischer's table (1974) row by row, for all strings at once. Along a row, D_j = min over k <= j
    of (T_k + j - k) with T the cheapest way from the row above, which is a running minimum of T_k - k.

    Args:
        query: The string.
        pool: N strings, at least one.

    Example:
        >>> edit_distances("kitten", ["sitting", "kitten", ""])
        array([3, 0, 6], dtype=int32)
    """
    longest = max(map(len, pool))
    letters = np.zeros((len(pool), max(longest, 1)), dtype=np.int32)
    for row, text in enumerate(pool):
        letters[row, : len(text)] = [ord(char) + 1 for char in text]
    steps = np.arange(letters.shape[1] + 1, dtype=np.int32)
    table = np.broadcast_to(steps, (len(pool), len(steps))).copy()
    for char in query:
        cheapest = table + 1
        np.minimum(cheapest[:, 1:], table[:, :-1] + (letters != ord(char) + 1), out=cheapest[:, 1:])
        table = np.minimum.accumulate(cheapest - steps, axis=1) + steps
    return table[np.arange(len(pool)), [len(text) for text in pool]].astype(np.int32)


def string_interpolations(subject: Subject) -> list[Block]:
    """Return decoded points between the codes of pairs of test strings."""
    a, b = subject.ends(PATHS)
    if not len(a):
        return [Note("A path needs two test examples; there are fewer.")]
    first, last = subject.generator.encode(a), subject.generator.encode(b)
    paths = []
    for start, end in zip(first, last, strict=True):
        points = torch.stack([linear(start, end, t) for t in torch.linspace(0, 1, STEPS)])
        paths.append(Path(tuple(text or "" for text in _generator(subject).decode(points))))
    return [Paths(tuple(paths), "From top to bottom, linear paths between the codes of random test strings.")]


def string_glance(subject: Subject) -> Glance:
    """Return a few test strings, their reconstructions and samples."""
    rows = subject.data.test.across(GLANCED).x
    strings, density = _generator(subject), subject.density
    samples: tuple[tuple[Cell, ...], ...] = ()
    if density is not None:
        samples = tuple((_code(text),) for text in strings.decode(subject.sample_codes(CANDIDATES, density))[:GLANCED])
    pairs = zip(_codec(subject).decode(rows), strings.reconstruct(rows), strict=True)
    originals, back = zip(*(((_code(first),), (_compared(first, second),)) for first, second in pairs), strict=True)
    noun = _structure(subject).noun
    return Glance(noun, originals, back, samples, density, (noun.removesuffix("s"),))


#: What makes the sections of strings.
STRINGS = Makers(string_reconstructions, string_samples, string_neighbours, string_interpolations, string_glance)
