"""The commands, as Python functions with the same names and options as on the command line.

Each takes a run folder (or an open `Run`), does one thing, and returns its result; nothing is printed on stdout.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from expost.commands.arguments import data_name, parse_options
    from expost.commands.exploring import explore
    from expost.commands.learning import fit, train
    from expost.commands.listing import data, zoo
    from expost.commands.scoring import evaluate, rank, score, score_run
    from expost.commands.searching import optimize
    from expost.commands.showing import interpolate, reconstruct, sample

_HOMES = {
    "data": "listing",
    "data_name": "arguments",
    "evaluate": "scoring",
    "explore": "exploring",
    "fit": "learning",
    "interpolate": "showing",
    "optimize": "searching",
    "parse_options": "arguments",
    "rank": "scoring",
    "reconstruct": "showing",
    "sample": "showing",
    "score": "scoring",
    "score_run": "scoring",
    "train": "learning",
    "zoo": "listing",
}

__all__ = [
    "data",
    "data_name",
    "evaluate",
    "explore",
    "fit",
    "interpolate",
    "optimize",
    "parse_options",
    "rank",
    "reconstruct",
    "sample",
    "score",
    "score_run",
    "train",
    "zoo",
]


def __getattr__(name: str) -> Any:
    """Import a command when it is first used, since each needs modules that take long to import."""
    if name not in _HOMES:
        raise AttributeError(f"module 'expost.commands' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(f"expost.commands.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """List the public names."""
    return [*globals(), *__all__]
