"""A search's results: a table of the best strings, and a picture of them."""

from __future__ import annotations

import re
from pathlib import Path

from expost.errors import DataError
from expost.examples.figure_files import PICTURE_SUFFIXES
from expost.examples.outputs import check_output
from expost.examples.pictures import save_picture
from expost.search.objective import Objective
from expost.search.result import SearchResult


def markdown(result: SearchResult, count: int = 10) -> str:
    """Return a Markdown table of the best different strings, with a line on the whole search above it.

    Args:
        result: A search.
        count: Rows at most.
    """
    direction, looked = "lower" if result.minimize else "higher", result.known is not None
    lines = [f"Objective {_cell(result.objective)} ({direction} is better), region {result.region}."]
    if result.rounds:
        lines.append(f"{overview(result)} Best training score at the start: {result.start:.4g}.")
    found = result.best(count)
    if not found:
        return "\n".join([*lines, "", "No valid string with a score was found.", ""])
    rows = [
        f"| {i} | {item.score:.5g} | {_cell(item.string)} | {item.round} |"
        + looked * f" {'yes' if item.new else 'no'} |"
        for i, item in enumerate(found, 1)
    ]
    head = ["| rank | score | string | round |" + looked * " new |", "|---:|---:|---|---:|" + looked * "---|"]
    return "\n".join([*lines, "", *head, *rows, ""])


def overview(result: SearchResult) -> str:
    """Return two sentences on a search with a finished round: its points, and how many strings differ or are new."""
    new = "" if result.new is None else f", {result.new} of them not in the training set"
    return (
        f"{len(result.scores)} points in {_counted(len(result.rounds), 'round')}, {result.valid:.1%} valid, "
        f"{result.skipped} without a score; average {result.average():.4g}, invalid and unscored ones at "
        f"{result.worst:.4g}. {_counted(len(result.strings), 'different string')}{new}."
    )


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _cell(text: str) -> str:
    """Return text as code in a table's cell; characters that divide cells or end code are made safe."""
    plain = "".join(character if character.isprintable() else "?" for character in text).replace("|", "\\|")
    fence = "`" * (1 + max(map(len, re.findall("`+", plain)), default=0))
    pad = " " if plain.startswith("`") or plain.endswith("`") else ""
    return f"{fence}{pad}{plain}{pad}{fence}"


def draw(result: SearchResult, objective: Objective, path: Path, count: int = 8) -> Path:
    """Draw the best strings: curves of the best three over the target, molecules with their scores, or text.

    Args:
        result: A search.
        objective: The objective of the search, which knows how to draw its strings.
        path: A picture file, `.png`, `.jpg`, `.webp`, `.svg` or `.pdf`.
        count: Strings at most.

    Returns:
        The path.

    Raises:
        UsageError: if the suffix is no picture's.
        DataError: if nothing was found that could be drawn.
    """
    check_output(path, PICTURE_SUFFIXES)
    found = result.best(count)
    if not found:
        raise DataError("no valid string with a score was found, so there is nothing to draw")
    save_picture(objective.picture(found), path)
    return path
