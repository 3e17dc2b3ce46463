"""The errors that users meet: a wrong request, unusable data, a requested stop, a failure in another process."""

from __future__ import annotations

import difflib
import signal
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path

#: The page on troubles, in the repository.
TROUBLESHOOTING = "https://github.com/expost/expost/blob/main/docs/howto/troubleshooting.md"


class UsageError(ValueError):
    """The request itself is wrong: an unknown name, an option outside its range (exit status 2 on the command line)."""


class DataError(ValueError):
    """What was read cannot be used: a corrupt image, a truncated file, a NaN (exit status 1 on the command line)."""


class Symptom(StrEnum):
    """What goes wrong with models, each with a section of the page on troubles; the values are its anchors."""

    POOR = "reconstructions-are-poor"
    BAD_SAMPLES = "samples-are-far-from-the-data"
    NOISE = "samples-are-noise"
    ALIKE = "samples-are-all-alike"
    COPIES = "samples-are-copies"
    LOSS = "the-loss-rises"
    GAUSSIAN = "a-gaussian-is-better"
    MEMORY = "out-of-memory"

    @property
    def words(self) -> str:
        """The symptom in words."""
        return self.value.replace("-", " ")

    @property
    def address(self) -> str:
        """Where its section is."""
        return f"{TROUBLESHOOTING}#{self.value}"


class Interrupted(Exception):
    """Training was stopped by a signal, after saving a checkpoint.

    Args:
        folder: The run's, which goes on from there.
        number: The signal, SIGINT or SIGTERM.
    """

    def __init__(self, folder: Path | None = None, number: int = signal.SIGINT) -> None:
        super().__init__(folder, number)
        self.folder, self.number = folder, number


class Terminated(KeyboardInterrupt):
    """The command line got SIGTERM: what Ctrl-C ends, it ends in the same way."""


class OtherProcessError(RuntimeError):
    """Another process failed with an error from outside this library; it has printed that error."""


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return the part of an error between a misspelt name and the list of known names.

    Example:
        >>> suggestion("aple", ["apple", "pear"]), suggestion("xyz", ["apple", "pear"])
        (", did you mean 'apple'?", ';')
    """
    close = difflib.get_close_matches(name, list(known), n=1)
    return f", did you mean '{close[0]}'?" if close else ";"
