"""A registry: names to parts, with an error that lists what exists."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from expost.errors import UsageError, suggestion

T = TypeVar("T")


class Registry(Mapping[str, T]):
    """A read-only mapping from a name to a part.

    Args:
        kind: What the entries are, in the singular ("density"); used in error messages.
        entries: The parts by name, in the order in which they are listed.

    Raises:
        UsageError: on look-up of a name that does not exist; the message lists the names that do.

    Example:
        >>> Registry("fruit", {"apple": 1, "pear": 2})["aple"]
        Traceback (most recent call last):
        ...
        expost.errors.UsageError: unknown fruit 'aple', did you mean 'apple'? choose one of: apple, pear
    """

    def __init__(self, kind: str, entries: Mapping[str, T]) -> None:
        self.kind = kind
        self._entries = dict(entries)

    def __getitem__(self, name: str) -> T:
        """Return the part called `name`."""
        try:
            return self._entries[name]
        except KeyError:
            hint = suggestion(str(name), self)
            raise UsageError(f"unknown {self.kind} '{name}'{hint} choose one of: {', '.join(self)}") from None

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names, in order."""
        return iter(self._entries)

    def __len__(self) -> int:
        """Return the number of entries."""
        return len(self._entries)

    def __contains__(self, name: object) -> bool:
        """Return whether `name` is known."""
        return name in self._entries


@dataclass(frozen=True)
class Part:
    """A choice for a slot: the name of a registry's entry and the options that differ from its defaults.

    Attributes:
        name: Name in the slot's registry.
        options: Keyword arguments of the entry, JSON-able.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)


def construct(registry: Registry[type[T]], part: Part, **given: Any) -> T:
    """Build the entry that `part` names, from its options and the caller's arguments.

    Raises:
        UsageError: if the name, or an option of that entry, is unknown; the message lists what exists.
    """
    entry = registry[part.name]
    accepted = [name for name in inspect.signature(entry).parameters if name not in given]
    for name in part.options:
        if name not in accepted:
            listing = ", ".join(accepted) or "none"
            raise UsageError(f"{registry.kind} '{part.name}' has no option '{name}'; its options: {listing}")
    hints = get_type_hints(entry.__init__)
    for name, value in part.options.items():
        try:
            TypeAdapter(hints[name], config=ConfigDict(allow_inf_nan=False)).validate_python(value)
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise UsageError(f"{name}={value!r} of {registry.kind} '{part.name}': {reason}") from None
    return entry(**given, **part.options)
