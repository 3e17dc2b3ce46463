"""Keyword options that belong together: declared and documented once, in typed records.

A command takes a record's keys as flat keywords (PEP 692); the command line lists them under one heading.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar

from expost.errors import DataError, UsageError, suggestion

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Group:
    """Options that belong together.

    Attributes:
        record: A TypedDict whose keys are the options; its docstring says what each of them is.
        defaults: Defaults of the options; None for those that are not among them.
    """

    record: type
    defaults: Mapping[str, Any] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the options, in the order of the record."""
        return tuple(self.record.__annotations__)

    @property
    def unset(self) -> dict[str, Any]:
        """The default of each option, by name."""
        return {name: self.defaults.get(name) for name in self.names}

    def of(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return those of the given options that are in the group and not None."""
        return {name: given[name] for name in self.names if given.get(name) is not None}


_GROUPS: dict[Callable[..., Any], Mapping[str, Group]] = {}
_WORDED: dict[Callable[..., Any], Callable[..., Any]] = {}


def takes(**groups: Group) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate a command that takes groups of keyword options, given by their headings; refuse unknown keywords.

    Its errors name its options as Python does; those of the function that `worded` returns, as the command line does.

    Raises:
        UsageError: when the command is called with an unknown keyword.
    """

    def decorate(command: Callable[P, R]) -> Callable[P, R]:
        named = inspect.signature(command).parameters.values()
        known = [each.name for each in named if each.kind is not inspect.Parameter.VAR_KEYWORD]
        known += [name for group in groups.values() for name in group.names]

        @functools.wraps(command)
        def checked(*args: P.args, **options: P.kwargs) -> R:
            _refuse_unknown(command.__name__, options, known)
            try:
                return command(*args, **options)
            except (UsageError, DataError) as error:
                error.args = (as_python(str(error), known),)
                raise

        _GROUPS[inspect.unwrap(command)] = groups
        _WORDED[checked] = command
        return checked

    return decorate


def worded(command: Callable[..., Any]) -> Callable[..., Any]:
    """Return a command whose errors name its options as they are typed, for callers that give none unknown."""
    return _WORDED.get(command, command)


def as_python(text: str, known: Iterable[str]) -> str:
    """Return an error with its options as keywords; words of a command line that it quotes stay.

    Example:
        >>> as_python("lower --batch-size, or give --no-browser; try: expost fit R --by x", ["batch_size", "browser"])
        'lower batch_size, or give browser=False; try: expost fit R --by x'
    """
    names = {"set": "options", **{name.replace("_", "-"): name for name in known}}
    quoted = r"expost [a-z]+ [^;)]*"

    def keyword(found: re.Match[str]) -> str:
        if found["option"] is None:
            return found[0]
        off = found["option"].removeprefix("no-")
        if found["option"] not in names and off in names:
            return f"{names[off]}=False"
        return names.get(found["option"], found[0])

    return re.sub(rf"{quoted}|(?<![\w-])--(?P<option>[a-z][a-z-]*)", keyword, text)


def as_typed(text: str, known: Iterable[str]) -> str:
    """Return an error with its keywords of several words as options.

    Example:
        >>> as_typed("latent_dim is 0; training.batch_size is another", ["latent_dim", "batch_size"])
        '--latent-dim is 0; training.batch_size is another'
    """
    several = [re.escape(name) for name in known if "_" in name]
    if not several:
        return text
    pattern = rf"(?<![\w.'/-])({'|'.join(several)})(?![\w.=/'-])"
    return re.sub(pattern, lambda found: "--" + found[1].replace("_", "-"), text)


def groups_of(command: Callable[..., Any]) -> Mapping[str, Group]:
    """Return the groups of a command's keyword options by their headings; empty where it has none."""
    return _GROUPS.get(inspect.unwrap(command), {})


def _refuse_unknown(command: str, given: Iterable[str], known: list[str]) -> None:
    for name in given:
        if name not in known:
            raise UsageError(
                f"{command} has no option '{name}'{suggestion(name, known)} its options: {', '.join(known) or 'none'}"
            )
