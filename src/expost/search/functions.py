"""The user's own objective: a function in a Python file of the working directory."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from PIL import Image

from expost.errors import UsageError
from expost.search import drawing
from expost.search.objective import Objective, finite, short
from expost.search.result import Found


class FunctionObjective(Objective):
    """The user's own function, `module:function`, imported from the working directory.

    The function maps a list of strings to as many numbers, or one string to one number. If its first parameter is
    annotated `str`, it gets one string at a time; otherwise it gets the list first, and what it returns decides.

    Args:
        spec: `module:function`; the module may have dots, the function too (an attribute of a class).
        minimize: Whether lower is better.

    Raises:
        UsageError: if the module cannot be imported, or has no such function.
    """

    name = "function"

    def __init__(self, spec: str, minimize: bool = False) -> None:
        self.spec = spec
        self._minimize = minimize
        self._function = _find(spec)
        self._single = _takes_one(self._function)

    @property
    def minimize(self) -> bool:
        """Whether lower is better, as it was given."""
        return self._minimize

    @property
    def label(self) -> str:
        """The function's name."""
        return self.spec

    def picture(self, found: Sequence[Found]) -> Image.Image:
        """Draw the strings as molecules if all are, else write them."""
        try:
            return drawing.molecules(found) or drawing.text(found)
        except UsageError:  # without RDKit nobody works with molecules
            return drawing.text(found)

    def _values(self, strings: list[str]) -> Sequence[object]:
        if self._single:
            return [self._function(string) for string in strings]
        try:
            values = self._function(list(strings))
            listed = None if isinstance(values, str | bytes | dict | set) else list(values)
            if listed is not None and len(listed) == len(strings):
                return listed
            raise ValueError(f"a list of {len(strings)} strings gave {short(values)}, not as many numbers")
        except Exception:
            if len(strings) > 1:
                raise  # `score` tries again with one at a time
            try:
                value = self._function(strings[0])
            except Exception:
                value = None
            if finite(value) is None:
                raise  # it fails for one string too: report the error for the list
            return [value]


def _find(spec: str) -> Callable[..., Any]:
    """Import `module:function`, with the working directory first on the path."""
    module_name, _, path = spec.partition(":")
    if not all(part.isidentifier() for part in (*module_name.split("."), *path.split("."))):
        raise UsageError(
            f"objective '{spec}' is not of the form module:function; for function f in scores.py give scores:f"
        )
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        importlib.invalidate_caches()
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not (module_name == error.name or module_name.startswith(error.name + ".")):
            raise UsageError(f"module {module_name} of objective '{spec}' needs {error.name}; install it") from None
        raise UsageError(
            f"no module '{module_name}' for objective '{spec}'; go to the folder of {module_name.split('.')[0]}.py"
        ) from None
    except (Exception, SystemExit) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise UsageError(f"importing module {module_name} of objective '{spec}' failed: {reason}") from None
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(here)
    for part in path.split("."):
        owner, found = found, getattr(found, part, None)
        if found is None:
            names = [n for n, v in vars(owner).items() if callable(v) and not n.startswith("_")]
            raise UsageError(f"module {module_name} has no function '{path}'; it has: {', '.join(names) or 'none'}")
    if not callable(found):
        raise UsageError(f"{spec} is of type {type(found).__name__}, not a function; name a function")
    return found


def _takes_one(function: Callable[..., Any]) -> bool:
    """Return whether the first parameter is annotated `str`."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # some built-in functions have no signature
        return False
    return bool(parameters) and parameters[0].annotation in (str, "str")
