"""Print what `make torture` tried: a Markdown table of promises, with the faults and inputs tried, and those lost.

python scripts/torture_table.py build/torture.jsonl
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path


def main(path: Path) -> int:
    """Print the table; return 1 if a promise was broken."""
    tried: Counter[str] = Counter()
    lost: Counter[str] = Counter()
    for line in path.read_text(encoding="utf-8").splitlines():
        noted = json.loads(line)
        tried[noted["promise"]] += noted["tried"]
        lost[noted["promise"]] += noted["lost"]
    print("| promise | tried | lost |\n|---|---|---|")
    for promise in sorted(tried):
        print(f"| {promise} | {tried[promise]:,} | {lost[promise]:,} |")
    print(f"| all | {tried.total():,} | {lost.total():,} |")
    return 1 if lost.total() else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
