"""The parts of a page: sections of blocks, each drawn by the template according to its kind.

Text is plain text: the template escapes it. Only `Drawing.svg` is markup, made by `expost.report.svg`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from markupsafe import Markup

from expost.errors import Symptom


def rounded(value: float, digits: int) -> str:
    """Return a number with so many digits, as people write it: from 1,000 to 10 million without an exponent.

    Example:
        >>> rounded(0.0123456, 3), rounded(-24563.7, 3), rounded(3e9, 3), rounded(12, 4)
        ('0.0123', '−24,564', '3e+09', '12')
    """
    text = f"{value:,.0f}" if 1e3 <= abs(value) < 1e7 else f"{value:.{digits}g}"
    return text.replace("-", "−")


@dataclass(frozen=True)
class Note:
    """A remark, such as what is missing, and the command that mends it.

    Attributes:
        text: One or two sentences.
        command: A command line that mends it; empty where there is none.
    """

    kind: ClassVar[str] = "note"
    text: str
    command: str = ""


@dataclass(frozen=True)
class Verdict:
    """What the figures say of a run, in a sentence.

    Attributes:
        text: The sentence.
        grounds: The figures, with the thresholds of every word.
        remedies: What it says that has a remedy; the page links to each.
    """

    text: str
    grounds: str = ""
    remedies: tuple[Symptom, ...] = ()


@dataclass(frozen=True)
class Verdicts:
    """The sentences of several runs.

    Attributes:
        items: Runs and sentences.
    """

    kind: ClassVar[str] = "verdicts"
    items: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Download:
    """A link that saves a file which is inside the page.

    Attributes:
        label: What is saved.
        name: The file's name.
        address: A data URI.
    """

    kind: ClassVar[str] = "download"
    label: str
    name: str
    address: str


@dataclass(frozen=True)
class Heading:
    """A heading inside a section.

    Attributes:
        title: The heading.
        text: A sentence below it.
    """

    kind: ClassVar[str] = "heading"
    title: str
    text: str = ""


@dataclass(frozen=True)
class Fact:
    """A value with its name.

    Attributes:
        label: The name.
        value: The value, shown large.
        detail: Small text below.
    """

    label: str
    value: str
    detail: str = ""


@dataclass(frozen=True)
class Facts:
    """Facts side by side.

    Attributes:
        items: The facts.
        style: "choices" for the row of choices, "tiles" for large numbers.
    """

    kind: ClassVar[str] = "facts"
    items: tuple[Fact, ...]
    style: str = "choices"


@dataclass(frozen=True)
class Picture:
    """An image inside the page.

    Attributes:
        source: A data URI.
        alt: Text that replaces the image for screen readers.
        width: Width in CSS pixels; narrower screens shrink it.
        height: Height in CSS pixels.
        pixelated: Whether it is enlarged by whole pixels.
        caption: Below it.
        sounds: What can be played below it: a name and a data URI each.
    """

    source: str
    alt: str
    width: int
    height: int
    pixelated: bool = False
    caption: str = ""
    sounds: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Pictures:
    """Images side by side, as many as fit.

    Attributes:
        items: The images.
        caption: Below all of them.
        layout: "flow" for small ones, "wide" for few large ones, "rows" for strips.
    """

    kind: ClassVar[str] = "pictures"
    items: tuple[Picture, ...]
    caption: str = ""
    layout: str = "flow"


@dataclass(frozen=True)
class Strips:
    """Rows of examples below each other, in columns: what stands in one column belongs together.

    Attributes:
        items: What a row holds, and the row as one picture.
        caption: Below all of them.
    """

    kind: ClassVar[str] = "strips"
    items: tuple[tuple[str, Picture], ...]
    caption: str = ""


@dataclass(frozen=True)
class Drawing:
    """A chart.

    Attributes:
        svg: Its markup, with a description inside.
        title: Above it.
        caption: Below it.
        code: Below it, before the caption, as code.
    """

    svg: Markup
    title: str = ""
    caption: str = ""
    code: str = ""


@dataclass(frozen=True)
class Key:
    """An entry of a legend: a CSS class of the drawing, and what it stands for."""

    style: str
    label: str


@dataclass(frozen=True)
class Drawings:
    """Charts side by side.

    Attributes:
        items: The charts.
        legend: What their colors mean.
        caption: Below all of them.
        size: "small", "medium", "large", or "charts" for those with axes.
    """

    kind: ClassVar[str] = "drawings"
    items: tuple[Drawing, ...]
    legend: tuple[Key, ...] = ()
    caption: str = ""
    size: str = "medium"


@dataclass(frozen=True)
class Cell:
    """A table's cell.

    Attributes:
        text: What it says.
        detail: Small text after it.
        style: CSS classes: "number", "code", "best", "missing", "tag".
    """

    text: str
    detail: str = ""
    style: str = ""


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        caption: What it holds.
        head: The columns' names.
        rows: Cells; the first of a row names it.
        note: Below.
        folded: Whether it starts folded, with only its caption visible.
    """

    kind: ClassVar[str] = "table"
    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""
    folded: bool = False


@dataclass(frozen=True)
class Card:
    """How scores were computed, folded away.

    Attributes:
        title: What was scored.
        fields: Names and values.
        open: Whether it starts unfolded.
    """

    title: str
    fields: tuple[tuple[str, str], ...]
    open: bool = False


@dataclass(frozen=True)
class Cards:
    """Cards below each other.

    Attributes:
        items: The cards.
        caption: Above.
    """

    kind: ClassVar[str] = "cards"
    items: tuple[Card, ...]
    caption: str = ""


@dataclass(frozen=True)
class Path:
    """Strings along a path between two codes."""

    steps: tuple[str, ...]


@dataclass(frozen=True)
class Paths:
    """Paths below each other."""

    kind: ClassVar[str] = "paths"
    items: tuple[Path, ...]
    caption: str = ""


Block = Note | Verdicts | Download | Heading | Facts | Pictures | Strips | Drawings | Table | Cards | Paths


@dataclass(frozen=True)
class Section:
    """A heading with blocks below it.

    Attributes:
        slug: Its anchor, lower-case letters and hyphens.
        title: The heading.
        blocks: What is below.
        lead: A sentence that says how to read it.
        small: Whether the navigation leaves it out.
    """

    slug: str
    title: str
    blocks: tuple[Block, ...]
    lead: str = ""
    small: bool = False


@dataclass(frozen=True)
class RunPage:
    """All about a run.

    Attributes:
        title: Its name.
        anchor: Its anchor on the page.
        subtitle: Model, data and size in one line.
        status: What is unfinished; empty if nothing is.
        facts: Large numbers.
        sections: The rest.
        verdict: The run in a sentence; None where no figure says anything.
    """

    title: str
    anchor: str
    subtitle: str
    status: str
    facts: Facts | None
    sections: tuple[Section, ...]
    verdict: Verdict | None = None


@dataclass(frozen=True)
class Page:
    """The whole document.

    Attributes:
        title: Of the document.
        runs: The runs.
        comparison: Sections that compare them; none for one run.
        version: The expost version.
        made: When, in words.
        shortened: Words that are shown in a shorter form everywhere: where data lie is no business of the reader.
    """

    title: str
    runs: tuple[RunPage, ...]
    version: str
    made: str
    comparison: tuple[Section, ...] = field(default=())
    shortened: Mapping[str, str] = field(default_factory=dict)
