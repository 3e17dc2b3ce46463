"""Lines of text files, plain or gzipped, read strictly: UTF-8, no zero bytes, no endless lines."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path

from expost.errors import DataError

LONGEST = 100_000
"""Longest line that is read, in characters; no model here could learn longer strings."""


def lines_of(path: Path) -> Iterator[str]:
    r"""Yield the lines of a text file, ended by "\n" on all systems; the last may lack its end.

    Gzip is recognized by content; a byte order mark is left out. No more than one line is in memory.

    Raises:
        DataError: for damaged gzip, for what is not UTF-8 text, and, at the end, if there were lines of more than
            `LONGEST` characters, which are not yielded.
        OSError: if the file cannot be read.
    """
    number, long, first = 0, 0, 0
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
        with gzip.open(path, "rt", encoding="utf-8-sig") if packed else path.open(encoding="utf-8-sig") as file:
            while line := file.readline(LONGEST + 2):
                number += 1
                if "\0" in line:
                    raise DataError(f"{path} is no text: it has a zero byte in line {number}; save it as UTF-8 text")
                if len(line) - line.endswith("\n") <= LONGEST:
                    yield line
                    continue
                long, first = long + 1, first or number
                while line and not line.endswith("\n"):
                    line = file.readline(LONGEST + 2)
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise DataError(f"{path} is no UTF-8 text (byte 0x{byte:02x} after line {number}); save it as UTF-8") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path} is no complete gzip file ({error}); download or pack it again") from None
    if long:
        which = "1 line has" if long == 1 else f"{long:,} lines have"
        raise DataError(
            f"{path}: {which} more than {LONGEST:,} characters, the first is line {first}; give one string a line"
        )


def kind_of(path: Path) -> str:
    """Return the suffix of a file, or of what is packed in it, lower case.

    Example:
        >>> kind_of(Path("Molecules.SMI.gz"))
        '.smi'
    """
    return Path(path.name.lower().removesuffix(".gz")).suffix


def stem_of(path: Path) -> str:
    """Return the name of a file without `kind_of` it, lower case."""
    return Path(path.name.lower().removesuffix(".gz")).stem


def plain(text: str) -> str:
    """Return a word in lower case without white space around it, for comparing names."""
    return text.strip().lower()
