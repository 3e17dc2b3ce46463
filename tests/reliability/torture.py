"""Size of the tests of reliability: short in `make test`, long in `make torture`; and the table of what they did.

`make torture` sets EXPOST_TORTURE to a file, to which each long test appends a line.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

#: The file of counts, in `make torture`; None in `make test`.
LONG: Path | None = Path(os.environ["EXPOST_TORTURE"]) if os.environ.get("EXPOST_TORTURE") else None


def times(short: int, long: int) -> int:
    """Return how often to do something: `short` in `make test`, `long` in `make torture`."""
    return short if LONG is None else long


def count(promise: str, tried: int, lost: int = 0) -> None:
    """Note what a test tried, for the table of `make torture`.

    Args:
        promise: What is promised, in words; counts of one promise are added up.
        tried: Faults injected, or inputs tried.
        lost: How many of them broke the promise.
    """
    if LONG is not None:
        with LONG.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"promise": promise, "tried": tried, "lost": lost}) + "\n")
