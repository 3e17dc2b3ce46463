"""The line that says what a data set is: what the user and expost agree on before anything is trained."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from expost.data.examples import Array

_LISTED = 10
"""Most classes, or names of columns, that are listed."""


def note(
    where: str,
    sizes: Sequence[int],
    how: str,
    *,
    examples: str = "",
    classes: str = "",
    prepared: str = "",
    limit: int | None = None,
    seed: int = 0,
    remarks: Iterable[str] = (),
) -> str:
    """Compose the line: every clause once, in this order.

    Args:
        where: What was read.
        sizes: Examples in training, validation and test.
        how: How they were divided.
        examples: What an example is, see `of_images`, `of_rows` and `of_strings`.
        classes: Which classes there are, see `of_classes`.
        prepared: What was done to the examples.
        limit: At most how many of each part were asked for.
        seed: Of that draw.
        remarks: What a reader of the files has to say: what was left out and why, what was assumed.

    Example:
        >>> note("photos", (8, 1, 1), "80/10/10 drawn with seed 0", examples="10 images of 64x64 pixels, RGB")
        'from photos; 10 images of 64x64 pixels, RGB; 8/1/1 for training/validation/test; 80/10/10 drawn with seed 0'
    """
    clauses = [
        f"from {where}",
        examples,
        classes,
        prepared,
        "/".join(f"{size:,}" for size in sizes) + " for training/validation/test",
        how,
        "" if limit is None else f"at most {limit:,} of each, drawn with seed {seed}",
        *remarks,
    ]
    return "; ".join(dict.fromkeys(filter(None, clauses)))


def of_images(count: int, shape: Sequence[int]) -> str:
    """Say how many images of which size there are.

    Example:
        >>> of_images(40, (1, 28, 28)), of_images(1000, (3, 64, 80))
        ('40 images of 28x28 pixels, grey', '1,000 images of 80x64 pixels (width x height), RGB')
    """
    channels, height, width = shape
    sides = f"{width}x{height} pixels" + ("" if width == height else " (width x height)")
    return f"{count:,} images of {sides}, {'grey' if channels == 1 else 'RGB'}"


def of_recordings(count: int, shape: Sequence[int]) -> str:
    """Say how many recordings there are, and how large their frames.

    Example:
        >>> of_recordings(1000, (1, 64, 48))
        '1,000 recordings as 48 frames of 64 bands'
    """
    return f"{count:,} recordings as {shape[2]} frames of {shape[1]} bands"


def of_strings(strings: Sequence[str], domain: str) -> str:
    """Say how many strings of which kind there are, and how long they are.

    Example:
        >>> of_strings(["CCO", "CCCCO"], "molecules"), of_strings(["a", "b"], "text")
        ('2 molecules of 3 to 5 characters', '2 strings of 1 character')
    """
    short, long = min(map(len, strings)), max(map(len, strings))
    lengths = f"{short:,} to {long:,}" if short < long else f"{long:,}"
    what = "strings" if domain == "text" else domain
    return f"{len(strings):,} {what} of {lengths} character{'s' * (long != 1)}"


def listing(names: Sequence[str], word: str = "") -> str:
    """List the first of some names, counted as so many of what `word` says.

    Example:
        >>> listing(["a", ""], "column"), listing([str(i) for i in range(12)])
        ('2 columns: a, (unnamed)', '0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more')
    """
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    count = f"{len(names):,} {word}{'s' * (len(names) > 1)}: " if word else ""
    return count + ", ".join(name or "(unnamed)" for name in names[:_LISTED]) + more


def of_rows(count: int, width: int, columns: Sequence[str] = ()) -> str:
    """Say how many rows of how many numbers there are, and what these are called.

    Example:
        >>> of_rows(150, 2, ("length", "width"))
        '150 rows of 2 numbers (length, width)'
    """
    return f"{count:,} rows of {width:,} number{'s' * (width != 1)}" + (f" ({listing(columns)})" if columns else "")


def of_classes(labels: Sequence[Array | None]) -> str:
    """Say which classes the labels of the parts are, and how many examples each has; empty if there are no labels.

    Example:
        >>> of_classes([np.array(["cat", "dog", "cat"]), np.array(["dog"]), None])
        '2 classes: cat (2), dog (2); some parts without labels'
    """
    given = [part for part in labels if part is not None]
    if not given:
        return ""
    names, counts = np.unique(np.concatenate(given), return_counts=True)
    head = f"{len(names):,} class{'es' * (len(names) != 1)}"
    lacking = "; some parts without labels" if len(given) < len(labels) else ""
    if len(names) <= _LISTED:
        return f"{head}: {', '.join(f'{name} ({count:,})' for name, count in zip(names, counts, strict=True))}{lacking}"
    sizes = (
        f"{counts.min():,} to {counts.max():,} examples each" if counts.min() < counts.max() else f"{counts[0]:,} each"
    )
    return f"{head} of {sizes}: {', '.join(map(str, names[: _LISTED - 2]))}, ..., {names[-1]}{lacking}"
