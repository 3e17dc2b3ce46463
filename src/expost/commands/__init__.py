"""The commands, as Python functions with the same names and options as on the command line.

Each takes a run folder (or an open `Run`), does one thing, and returns its result; nothing is printed on stdout.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from expost.utils.lazy import lazy

if TYPE_CHECKING:
    from expost.commands.arguments import data_name, parse_options
    from expost.commands.exploring import explore
    from expost.commands.fitting import fit
    from expost.commands.listing import data, zoo
    from expost.commands.scoring import evaluate, rank, score, score_run
    from expost.commands.searching import optimize
    from expost.commands.showing import interpolate, panel, reconstruct, sample
    from expost.commands.training import train

__all__ = [
    "data",
    "data_name",
    "evaluate",
    "explore",
    "fit",
    "interpolate",
    "optimize",
    "panel",
    "parse_options",
    "rank",
    "reconstruct",
    "sample",
    "score",
    "score_run",
    "train",
    "zoo",
]

__getattr__, __dir__ = lazy(
    __name__,
    {
        "arguments": ["data_name", "parse_options"],
        "exploring": ["explore"],
        "fitting": ["fit"],
        "training": ["train"],
        "listing": ["data", "zoo"],
        "scoring": ["evaluate", "rank", "score", "score_run"],
        "searching": ["optimize"],
        "showing": ["interpolate", "panel", "reconstruct", "sample"],
    },
)
