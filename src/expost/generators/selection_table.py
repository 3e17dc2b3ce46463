"""The table of a choice among densities, as rows of text and as lines for a person."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

#: What a part of so many is called.
_PARTS = {2: "half", 3: "third", 4: "quarter", 5: "fifth"}


def options_in_words(options: Mapping[str, Any]) -> str:
    """Return options as they are given on the command line.

    Example:
        >>> options_in_words({"components": 5, "bandwidth": 0.123456})
        'components=5 bandwidth=0.1235'
    """
    return " ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in options.items())


#: The columns of `rows`.
HEAD = ("density", "options", "log-likelihood", "Frechet", "memorisation", "seconds", "")


def rows(record: Mapping[str, Any], full: bool = False) -> list[tuple[str, ...]]:
    """Return the table of a choice as rows of text, with the columns of `HEAD`; the last says what became of each.

    Args:
        record: From `Selection.record`.
        full: Whether every candidate has a row; else the best of each density, and the chosen one.
    """
    trials, chosen = record["trials"], record["chosen"]
    best_of: dict[str, int] = {}
    for i, trial in enumerate(trials):
        held = best_of.setdefault(trial["density"], i)
        if _shown_first(trial) > _shown_first(trials[held]):
            best_of[trial["density"]] = i
    best_of[trials[chosen]["density"]] = chosen
    return [
        (
            trial["density"],
            options_in_words(trial["options"]),
            _with_error(trial["log_likelihood"], trial["standard_error"]),
            "–" if trial["frechet"] is None else f"{trial['frechet']:.4g}",
            "–" if trial["memorisation"] is None else f"{trial['memorisation']:.2f}",
            f"{trial['seconds']:.1f}",
            "taken" if i == chosen else trial["reason"],
        )
        for i, trial in enumerate(trials)
        if full or i in best_of.values()
    ]


def _with_error(value: float | None, error: float | None) -> str:
    return "–" if value is None else f"{value:.3f}" + ("" if error is None else f" ± {error:.2g}")


def _shown_first(trial: Mapping[str, Any]) -> tuple[bool, float]:
    likelihood = trial["log_likelihood"]
    return not trial["reason"], -math.inf if likelihood is None else likelihood


def in_words(record: Mapping[str, Any]) -> list[str]:
    """Return the table of a choice as lines for a person, and why."""
    table = [HEAD, *rows(record)]
    widths = [max(len(row[column]) for row in table) for column in range(len(HEAD))]
    lines = ["  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in table]
    trial = record["trials"][record["chosen"]]
    options = options_in_words(trial["options"])
    name = f"{trial['density']} ({options})" if options else trial["density"]
    how = f"{record['fitted']:,} codes, compared on {record['held_out']:,} others"
    if record["folds"] > 1:
        how = f"{record['held_out']:,} codes, a {_PARTS[record['folds']]} of them held out in turn"
    return [
        f"candidates fitted on {how} (log-likelihood: nats a code, ± standard error):",
        *(line.rstrip() for line in lines),
        f"{name} is taken: {record['why']}",
    ]
