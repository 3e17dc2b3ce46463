"""The options of commands that make pictures: title, labels, columns, scale."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from expost.commands.groups import Group
from expost.errors import UsageError

if TYPE_CHECKING:
    from expost.examples.figures import Look
    from expost.run import Run

#: What leaves a title or labels out.
NONE = "none"


class PictureOptions(TypedDict, total=False):
    """How a picture looks: FILE.png, .jpg, .webp, .svg or .pdf.

    Attributes:
        title: Above the picture; none for no title. Default: how many of what these are, of which model, density, data.
        row_labels: Left of the rows, one each; none for no labels.
        column_labels: Above the columns, one each; none for no labels.
        columns: Images in a row.
        scale: Pixels of the picture for each pixel of an image, a side; default: images have 64 pixels or more.
    """

    title: str | None
    row_labels: tuple[str, ...] | None
    column_labels: tuple[str, ...] | None
    columns: int | None
    scale: int | None


PICTURE = Group(PictureOptions)


def look_of(options: Mapping[str, Any], path: Path, title: str) -> Look:
    """Return how a picture looks; refuse options that the file has no use for.

    Args:
        options: Those of `PictureOptions` that were given.
        path: Where the picture goes.
        title: The title, unless one is given.

    Raises:
        UsageError: for options that have no effect on such a file, or are out of range.
    """
    from expost.examples.figure_files import PICTURE_SUFFIXES
    from expost.examples.figures import Look

    found = PICTURE.of(options)
    if path.suffix.lower() not in PICTURE_SUFFIXES:
        if found:
            name = next(iter(found))
            listed = ", ".join(PICTURE_SUFFIXES)
            raise UsageError(f"{name} is for pictures, and {path.name} is none; leave it out, or give one of: {listed}")
        return Look()
    labels = {name: _texts(name, found.get(name)) for name in ("row_labels", "column_labels")}
    said = found.get("title", title)
    return Look(
        "" if said == NONE else said,
        labels["row_labels"],
        labels["column_labels"],
        found.get("columns"),
        found.get("scale"),
    )


def _texts(name: str, labels: Any) -> tuple[str, ...] | None:
    if labels is None:
        return None
    if isinstance(labels, str):
        labels = (labels,)
    texts = tuple(map(str, labels))
    return () if texts in ((NONE,), ("",)) else texts


def data_words(run: Run) -> str:
    """Return what a run's data are called in a caption: their name, or the last part of their path."""
    name = run.config.data.name
    return Path(name).name or name
