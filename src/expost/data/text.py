"""Lines of text files, plain or gzipped, read strictly: UTF-8 or UTF-16, no zero bytes, no endless lines."""

from __future__ import annotations

import codecs
import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path

from expost.data.packing import TEXT, check_unpacked
from expost.errors import DataError

LONGEST = 100_000
"""Longest line that is read, in characters; no model here could learn longer strings."""

_AT_ONCE = 2**20

_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def lines_of(path: Path, longest: int | None = LONGEST) -> Iterator[str]:
    r"""Yield the lines of a text file, ended by "\n" on all systems; the last may lack its end.

    Gzip is recognized by content, UTF-16 by its byte order mark or its zero bytes; a byte order mark is left out. No
    more than one line is in memory.

    Args:
        path: The file.
        longest: Characters of the longest line; None for any.

    Raises:
        DataError: for damaged gzip, for what is not UTF-8 or UTF-16 text, and, at the end, if there were lines of more
            than `longest` characters, which are not yielded.
        OSError: if the file cannot be read.
    """
    most = _AT_ONCE if longest is None else longest + 2
    number, long, first = 0, 0, 0
    checked = [TEXT]
    try:
        packed, encoding = _looked_at(path)
        raw = gzip.open(path) if packed else path.open("rb")  # noqa: SIM115 (closed with the text around it)
        with io.TextIOWrapper(raw, encoding=encoding) as file:

            def read() -> str:
                if isinstance(raw, gzip.GzipFile) and raw.tell() > checked[0]:
                    check_unpacked(path, raw.tell(), path.stat().st_size, TEXT)
                    checked[0] = raw.tell() + _AT_ONCE
                return file.readline(most)

            while line := read():
                number += 1
                while longest is None and line[-1] != "\n" and (more := read()):
                    line += more
                if "\0" in line:
                    raise DataError(f"{path} is no text: it has a zero byte in line {number}; save it as UTF-8 text")
                if longest is None or len(line) - line.endswith("\n") <= longest:
                    yield line
                    continue
                long, first = long + 1, first or number
                while line and not line.endswith("\n"):
                    line = read()
    except UnicodeDecodeError as error:
        byte = error.object[error.start : error.start + 1]
        meant = f", {byte.decode('latin-1')!r} in Latin-1" if byte.decode("latin-1").isalpha() else ""
        raise DataError(
            f"{path} is no UTF-8 text (byte 0x{byte[0]:02x} after line {number}{meant}); save it as UTF-8"
        ) from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path} is no complete gzip file ({error}); download or pack it again") from None
    if long:
        which = "1 line has" if long == 1 else f"{long:,} lines have"
        raise DataError(
            f"{path}: {which} more than {longest:,} characters, the first is line {first}; give one string a line"
        )


def encoding_of(path: Path) -> str:
    """Return in words the encoding that `lines_of` reads a file in; empty for the usual UTF-8."""
    try:
        found = _looked_at(path)[1]
    except (OSError, EOFError, zlib.error):
        return ""
    return "" if found == "utf-8-sig" else found[:6].upper()


def _looked_at(path: Path) -> tuple[bool, str]:
    """Return whether a file is gzipped, and the encoding that its first bytes show."""
    with path.open("rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
    with gzip.open(path) if packed else path.open("rb") as file:
        head = file.read(1024)
    for mark, encoding in _MARKS.items():
        if head.startswith(mark):
            return packed, encoding
    even, odd = head[0::2], head[1::2]
    if odd and odd.count(0) > 0.8 * len(odd) and not even.count(0):  # ASCII without a mark
        return packed, "utf-16-le"
    if odd and even.count(0) > 0.8 * len(even) and not odd.count(0):
        return packed, "utf-16-be"
    return packed, "utf-8-sig"


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
