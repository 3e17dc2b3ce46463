"""Types of arguments that several commands share, and how they are parsed.

The command line reads the signatures of the commands, and imports neither torch nor a model for that: what only a
function's body needs is imported there, and what only a type checker needs under TYPE_CHECKING.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec, TypeAlias, TypeVar

import tyro

from expost.errors import UsageError

if TYPE_CHECKING:
    from torch import nn

    from expost.run import Run

    #: A run: its folder, or an open `Run`.
    RunLike: TypeAlias = "Run | Path | str"
    #: The same, or none.
    RunIfAny: TypeAlias = "RunLike | None"
    #: Your own encoder and decoder.
    Networks: TypeAlias = "tuple[nn.Module, nn.Module] | None"
else:
    RunLike = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    RunIfAny = Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="[RUN]")]
    Networks = Annotated[object, tyro.conf.Suppress]

P = ParamSpec("P")
R = TypeVar("R")

#: A data set: its name, or a path.
DataLike = Annotated[str | Path, tyro.conf.arg(constructor=str, metavar="NAME|PATH")]
#: An output: a file or a folder.
Output = Annotated[Path | str, tyro.conf.arg(constructor=Path, metavar="PATH")]
#: Options of a slot, density or objective: a mapping, or NAME=VALUE words as on the command line.
Options = Annotated[
    Sequence[str] | Mapping[str, Any],
    tyro.conf.arg(name="set", metavar="NAME=VALUE", constructor=tuple[str, ...]),
]
Count = Annotated[int, tyro.conf.arg(aliases=["-n"])]


def together(command: Callable[P, R]) -> Callable[P, R]:
    """Decorate a command that several launched processes run side by side: see `distributed.together`."""

    @functools.wraps(command)
    def side_by_side(*args: P.args, **options: P.kwargs) -> R:
        from expost import distributed

        with distributed.together():
            return command(*args, **options)

    return side_by_side


def data_name(data: str | Path) -> str:
    """Return a data set's name unchanged, a path as absolute, so that the run finds it from any working directory."""
    from expost.data import DATASETS
    from expost.data.named_strings import STRING_DATASETS

    if isinstance(data, str) and (data in DATASETS or data in STRING_DATASETS):
        return data
    path = Path(os.path.expanduser(data))  # Path.expanduser fails for an unknown user
    return str(path.resolve()) if path.exists() else str(data)


def refuse_for_strings(data: str | Path, options: Mapping[str, Any]) -> None:
    """Refuse options of how images and arrays are read, where the data are strings.

    Raises:
        UsageError: for the first of them.
    """
    for name in ("size", "range", "layout", "parts"):
        if options.get(name):
            raise UsageError(f"{name} is for images and arrays, and {data} holds strings; leave it out")
    for name in ("rate", "seconds", "mels"):
        if options.get(name):
            raise UsageError(f"{name} is for sound, and {data} holds strings; leave it out")


def prior_options(run: Run, density: str) -> dict[str, Any]:
    """Return the options that the run's configuration sets for its own density."""
    prior = run.config.model.prior
    return dict(prior.options) if prior is not None and prior.name == density else {}


def parse_options(options: Sequence[str] | Mapping[str, Any]) -> dict[str, Any]:
    """Parse NAME=VALUE options: a value is JSON if it parses, else a string. A mapping is returned as it is.

    Example:
        >>> parse_options(["latent.sigma=0.5", "covariance=diag"])
        {'latent.sigma': 0.5, 'covariance': 'diag'}
    """
    if isinstance(options, Mapping):
        return dict(options)
    parsed: dict[str, Any] = {}
    for text in options:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise UsageError(f"option '{text}' has no value; write NAME=VALUE")
        try:
            parsed[name] = json.loads(value)
        except json.JSONDecodeError:
            parsed[name] = value
    return parsed
