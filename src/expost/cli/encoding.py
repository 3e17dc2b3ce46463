"""Output on terminals that cannot show every character: signs fall back to ASCII, and nothing fails for want of one."""

from __future__ import annotations

import codecs
import io
import sys
from typing import TextIO

#: What stands for a sign where the output's encoding lacks it.
FALLBACKS = {
    "±": "+-",
    "↑": "(higher)",
    "↓": "(lower)",
    "→": "->",
    "−": "-",
    "–": "-",
    "—": "-",
    "×": "x",
    "…": "...",
    "•": "*",
    "≥": ">=",
    "≤": "<=",
    "²": "^2",
    "’": "'",
    "‘": "'",
    "“": '"',
    "”": '"',
    "\u00a0": " ",
}
_HANDLER = "expost"


def fall_back() -> None:
    """Let stdout and stderr replace what they cannot encode, instead of failing."""
    codecs.register_error(_HANDLER, _replaced)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_HANDLER)


def shown(text: str, stream: TextIO | None = None) -> str:
    """Return a text as a stream can show it, so that the columns of a table are as wide as what is printed.

    Args:
        text: Any text.
        stream: Where it will be printed; None is stdout.
    """
    if encodes(text, stream):
        return text
    return "".join(each if encodes(each, stream) else FALLBACKS.get(each, each) for each in text)


def encodes(text: str, stream: TextIO | None = None) -> bool:
    """Return whether a stream, by default stdout, has every character of a text."""
    try:
        text.encode((stream or sys.stdout).encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _replaced(error: UnicodeError) -> tuple[str | bytes, int]:
    """Replace signs by `FALLBACKS`, bytes of undecodable file names by themselves, anything else by its escape."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    parts = []
    for each in error.object[error.start : error.end]:
        if "\udc80" <= each <= "\udcff":  # a byte of a file name that is not in the file system's encoding
            parts.append(bytes([ord(each) - 0xDC00]))
        else:
            parts.append(FALLBACKS.get(each, each.encode("ascii", "backslashreplace").decode()).encode("ascii"))
    return b"".join(parts), error.end
