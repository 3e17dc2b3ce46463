"""Print what `make torture` tried: a Markdown table of promises, with the faults and inputs tried, and those lost.

python scripts/torture_table.py build/torture.jsonl [PAGE]

The table also replaces the one in PAGE (docs/reliability.md), between the comments `torture` and `/torture`.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path


def table(path: Path) -> tuple[str, int]:
    """Return the table, and how often a promise was broken."""
    tried: Counter[str] = Counter()
    lost: Counter[str] = Counter()
    for line in path.read_text(encoding="utf-8").splitlines():
        noted = json.loads(line)
        tried[noted["promise"]] += noted["tried"]
        lost[noted["promise"]] += noted["lost"]
    rows = ["| promise | tried | lost |", "|---|---|---|"]
    rows += [f"| {promise} | {tried[promise]:,} | {lost[promise]:,} |" for promise in sorted(tried)]
    return "\n".join([*rows, f"| all | {tried.total():,} | {lost.total():,} |"]), lost.total()


def main(path: Path, page: Path | None = None) -> int:
    """Print the table, and write it to a page; return 1 if a promise was broken."""
    rows, lost = table(path)
    print(rows)
    if page is not None:
        before, _, rest = page.read_text(encoding="utf-8").partition("<!-- torture -->\n")
        after = rest.partition("<!-- /torture -->")[2]
        page.write_text(f"{before}<!-- torture -->\n{rows}\n<!-- /torture -->{after}", encoding="utf-8")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:])))
