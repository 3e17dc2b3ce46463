"""Functions over integer arrays, compiled by numba. Import their modules lazily: numba takes time to load."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from numba import njit

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """Compile `function` on its first call; keep the machine code on disk where numba finds a folder to write to.

    While it runs, other threads do too.
    """
    try:
        return cast(F, njit(cache=True, nogil=True)(function))
    except RuntimeError:  # numba found no such folder
        return cast(F, njit(nogil=True)(function))
