"""The command line: words are read, commands are called, results are printed."""

from typing import TYPE_CHECKING

from expost.utils.lazy import lazy

if TYPE_CHECKING:
    from expost.cli.parsing import main

__all__ = ["main"]

__getattr__, __dir__ = lazy(__name__, {"parsing": ["main"]})
