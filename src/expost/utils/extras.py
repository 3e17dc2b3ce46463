"""Optional packages: imported where they are used; where one is missing, the error names the extra to install."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from expost.errors import UsageError


def installed(module: str) -> bool:
    """Return whether a package is installed, without importing it."""
    return importlib.util.find_spec(module) is not None


def require(module: str, extra: str, need: str) -> Any:
    """Import an optional package, or a module of one.

    Args:
        module: Its name.
        extra: The extra of expost that it comes with.
        need: What needs it, for the error: "molecules need RDKit".

    Returns:
        The module.

    Raises:
        UsageError: if the package is not installed.
    """
    package = module.partition(".")[0]
    try:
        importlib.import_module(package)
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != package:
            raise  # it is installed, but a package that it needs is not
        raise missing(extra, need) from None


def missing(extra: str, need: str) -> UsageError:
    """Return the error of an optional package that is not installed; the arguments are those of `require`."""
    return UsageError(f"{need}; install it with: pip install 'expost[{extra}]'")
