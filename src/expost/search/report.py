"""A search's results to look at: a table of the best strings, and a picture of them."""

from __future__ import annotations

import re
from pathlib import Path

from expost.errors import DataError
from expost.outputs import PICTURE_SUFFIXES, check_output
from expost.pictures import save_picture
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
        lines.append(
            f"{len(result.scores)} points in {len(result.rounds)} round{'' if len(result.rounds) == 1 else 's'}: "
            f"{result.valid:.1%} valid, {result.skipped} without a score, average {result.average():.4g} "
            f"(invalid and unscored ones at {result.worst:.4g}). "
            f"{different(result)}. Best score begun with {result.start:.4g}."
        )
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


def different(result: SearchResult) -> str:
    """Return how many different strings were found, and how many of them are new, without a full stop."""
    count = len(result.strings)
    text = f"{count} different string{'' if count == 1 else 's'}"
    return text if result.new is None else f"{text}, {result.new} of them not in the training set"


def _cell(text: str) -> str:
    """Return text as code in a table's cell, whatever it holds of the characters that divide cells or end code."""
    plain = "".join(character if character.isprintable() else "?" for character in text).replace("|", "\\|")
    fence = "`" * (1 + max(map(len, re.findall("`+", plain)), default=0))
    pad = " " if plain.startswith("`") or plain.endswith("`") else ""
    return f"{fence}{pad}{plain}{pad}{fence}"


def draw(result: SearchResult, objective: Objective, path: Path, count: int = 8) -> Path:
    """Draw the best strings: curves of the best three over the target, molecules with their scores, or text.

    Args:
        result: A search.
        objective: The one that was searched by; it knows what its strings are.
        path: A picture file, `.png`, `.jpg` or `.webp`.
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
