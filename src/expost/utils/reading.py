"""Reading files that strangers made: what is no file is refused before it is opened, and the error names it."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

from expost.errors import DataError

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}

_TOO_DEEP = "it is nested too deeply"


def size_of(path: Path, missing: str = "check the path") -> int:
    """Return the size in bytes of a regular file; reading of a pipe or a device might never end.

    Args:
        path: The file; a link is followed.
        missing: What to do if it is not there.

    Raises:
        DataError: if it is not there, may not be looked at, or is no regular file.
    """
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"no file {path}; {missing}") from None
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        raise unreadable(path, error) from None
    if not stat.S_ISREG(found.st_mode):
        raise DataError(f"{path} is {_KINDS.get(stat.S_IFMT(found.st_mode), 'no regular file')}; give a file")
    return found.st_size


def contents(path: Path, missing: str = "check the path") -> bytes:
    """Return the bytes of a regular file; arguments and errors as of `size_of`."""
    size_of(path, missing)
    try:
        return path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from None


def unreadable(path: Path | str, error: Exception) -> DataError:
    """Return the error to raise for a file that the system does not let us read."""
    reason = (error.strerror if isinstance(error, OSError) else "") or str(error) or type(error).__name__
    return DataError(f"cannot read {path}: {reason}; make it readable")


#: Most digits of a whole number: it fits into a float, as numbers of JSON are expected to.
_DIGITS = 308

DEEPEST = 64
"""Levels of JSON that are read; no file of expost has ten."""


def parsed(text: str | bytes) -> Any:
    """Return what JSON says.

    Raises:
        ValueError: if it is none, nested too deeply, or has a whole number that no float holds; it says which.

    Example:
        >>> parsed("[" * 10_000)
        Traceback (most recent call last):
        ...
        ValueError: it is nested too deeply
    """
    try:
        value = json.loads(text, parse_int=_whole)
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    level = [value]
    for _ in range(DEEPEST):
        level = [each for holder in level if isinstance(holder, dict | list) for each in _inside(holder)]
        if not level:
            return value
    raise ValueError(_TOO_DEEP)


def _whole(digits: str) -> int:
    if len(digits) > _DIGITS:  # some thousands also take a time that is quadratic in them
        raise ValueError(f"it holds a whole number of {len(digits):,} digits")
    return int(digits)


def _inside(holder: dict[str, Any] | list[Any]) -> list[Any]:
    values = holder.values() if isinstance(holder, dict) else holder
    return [each for each in values if isinstance(each, dict | list)]
