"""Print the figures of gpu.py as tables: python benchmarks/gpu_report.py results/gpu/h200.jsonl"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

Figure = dict[str, Any]

#: Figures of the stage `speed` that go into the table of steps.
OF_STEPS = ("step", "share of the matrix product's rate", "Pythae's step", "Pythae's step over ours")


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table in Markdown."""
    lines = [list(head), *map(list, rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def number(value: Any) -> str:
    """Return a value as it is printed: three digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def steps(figures: list[Figure]) -> str:
    """Return the table of training steps."""
    found: dict[tuple[str, str, int], dict[str, float]] = {}
    for each in figures:
        given = each["settings"]
        if each["stage"] == "speed" and each["name"] in OF_STEPS and each["value"] is not None:
            found.setdefault((given["row"], given["arithmetic"], given["batch"]), {})[each["name"]] = each["value"]
    rows = [
        [row, kind, str(batch), *(number(values.get(name, "")) for name in _columns(values))]
        for (row, kind, batch), values in sorted(found.items(), key=lambda pair: (pair[0][1], pair[0][2], pair[0][0]))
    ]
    head = ["model", "arithmetic", "batch", "ms a step", "times Pythae", "share of the matrix product's rate"]
    return table(head, rows)


def _columns(values: dict[str, float]) -> Iterator[str]:
    values["ms"] = values["step"] * 1000
    yield from ("ms", "Pythae's step over ours", "share of the matrix product's rate")


def others(figures: list[Figure], stage: str) -> str:
    """Return all other figures of a stage, one a line."""
    rows = []
    for each in figures:
        if each["stage"] == stage and (stage != "speed" or each["name"] not in OF_STEPS):
            given = ", ".join(f"{key} {value}" for key, value in each["settings"].items() if key not in ("why", "note"))
            rows.append([each["name"], f"{number(each['value'])} {each['unit']}".strip(), given])
    return table(["figure", "value", "of"], rows)


def main(path: Path) -> None:
    """Print the tables."""
    figures = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    print(f"# {figures[0]['card']}, torch {figures[0]['torch']}\n")
    print(
        f"By `python benchmarks/gpu_report.py {path}`, of what `benchmarks/gpu.py` has measured (docs/howto/gpu.md).\n"
    )
    for stage in dict.fromkeys(each["stage"] for each in figures):
        print(f"## {stage}\n")
        if stage == "speed":
            print(steps(figures), end="\n\n")
        print(others(figures, stage), end="\n\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
