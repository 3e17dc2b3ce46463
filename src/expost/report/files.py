"""Files inside the page, which a link saves."""

from __future__ import annotations

import base64
import csv
import io
import re
from collections.abc import Iterable, Sequence

from expost.report.blocks import Download


def csv_file(name: str, head: Sequence[str], rows: Iterable[Sequence[str]], what: str) -> Download:
    r"""Return a link that saves a table as CSV in UTF-8.

    Args:
        name: The file's name; what file systems refuse in it becomes a hyphen.
        head: Names of the columns.
        rows: Of cells.
        what: What it holds.

    Example:
        >>> base64.b64decode(csv_file("a.csv", ["x", "y"], [["1", "a,b"]], "rows").address.partition(",")[2])
        b'x,y\n1,"a,b"\n'
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    text = base64.b64encode(out.getvalue().encode("utf-8", "replace")).decode()
    return Download(
        f"Save {what} as CSV", re.sub(r"[^\w.\-]+", "-", name), f"data:text/csv;charset=utf-8;base64,{text}"
    )
