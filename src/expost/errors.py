"""The errors that users meet: a wrong request, unusable data, a requested stop, a failure in another process."""

from __future__ import annotations

import difflib
import re
import signal
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path

#: The page on troubles, in the repository.
TROUBLESHOOTING = "https://github.com/expost/expost/blob/main/docs/howto/troubleshooting.md"

#: Most characters of a message; of a longer one, which quotes a file, the middle is left out.
LONGEST = 1500
#: What would break the line, or steer the terminal: control characters, and marks that turn the order of letters.
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def one_line(text: str) -> str:
    r"""Return a message as one line of a bounded length, whatever it quotes: control characters are written out.

    Example:
        >>> one_line("no column 'a\nb\x1b[2J'")
        "no column 'a\\nb\\x1b[2J'"
    """
    text = _UNSEEN.sub(lambda found: repr(found[0])[1:-1], text)
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 :]}"


class _Line(ValueError):
    """An error whose message is one line.

    Args:
        message: What, which value, what to do.
    """

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class UsageError(_Line):
    """The request itself is wrong: an unknown name, an option outside its range (exit status 2 on the command line)."""


class DataError(_Line):
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
