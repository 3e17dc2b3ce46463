"""Packages whose public names are imported when they are first used, so that importing the package costs nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any


def lazy(package: str, homes: Mapping[str, Sequence[str]]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Make the `__getattr__` and `__dir__` of a package (PEP 562).

    Args:
        package: Its name.
        homes: Public names by the module that defines them, relative to the package. A name may also be a module in a
            folder.

    Example:
        >>> get, names = lazy("expost", {"models.presets": ["configure"]})
        >>> get("configure").__module__
        'expost.models.presets'
        >>> get("configur")
        Traceback (most recent call last):
        ...
        AttributeError: module 'expost' has no attribute 'configur'
    """
    modules = {name: module for module, names in homes.items() for name in names}

    def get(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module '{package}' has no attribute '{name}'")
        home = import_module(f"{package}.{modules[name]}")
        return getattr(home, name) if hasattr(home, name) else import_module(f"{home.__name__}.{name}")

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *modules})

    return get, names
