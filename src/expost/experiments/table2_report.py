"""The paper's Table 2 as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from expost.experiments.cells import comma_separated
from expost.experiments.published import TABLE2

_DIRECTION = {"expressions": "lower", "molecules": "higher"}


def markdown(record: Mapping[str, Any]) -> str:
    """Return the table as Markdown: both aggregations, the paper's figures beside them."""
    domain, scale = record["domain"], record["scale"]
    expected = TABLE2[domain]
    searches = _searches(record["searches"], scale["repetitions"])
    lines = [
        f"# Bayesian optimisation of {domain}, scale {scale['name']}: average score, {_DIRECTION[domain]} is better",
        "",
        f"    {record['command']}",
        "",
        f"{record['hardware']}; {record['seconds']:,} s of training and search, summed over processes; expost "
        f"{record['version']}. Data: {record['data']}. {searches} a row, each of "
        f"{scale['rounds']} rounds of {scale['batch']} codes, begun with "
        f"{scale['codes'] or '90 % of the training'} codes.",
        "",
        "*Corrected*: mean over all points, an invalid one at the worst training score; standard error over searches. "
        "*Original*: as the published scripts do it, without the points at the worst score, and with the standard "
        "error that they print. In brackets the paper's.",
        "",
        "| row | region | valid | score, corrected | score, original | best found | best of training |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in record["rows"].items():
        valid, score = expected.get(name, (None, None))
        corrected, original = row["corrected"], row["original"]
        best = "-" if row["best"] is None else f"{row['best']['score']:.3g}: `{row['best']['string']}`"
        lines.append(
            f"| {name} | {row['model']['region']} | {_cell(corrected['valid'], valid)} | {_cell(corrected['score'])} | "
            f"{_cell(original['score'], score)} | {best} | {row['start']:.3g} |"
        )
    return "\n".join(lines) + "\n"


def as_csv(record: Mapping[str, Any]) -> str:
    """Return the table as CSV: a line a row, both aggregations with their standard errors."""
    lines = []
    for name, row in record["rows"].items():
        best = row["best"] or {"score": None, "string": None}
        line: dict[str, Any] = {"row": name, **row["model"]}
        for way in ("corrected", "original"):
            for what, estimate in row[way].items():
                if isinstance(estimate, Mapping):
                    line |= {f"{what}, {way}": estimate["mean"], f"{what}, {way}, error": estimate["error"]}
        line |= {"best found": best["score"], "best string": best["string"], "best of training": row["start"]}
        line |= {key: row[key] for key in ("training seconds", "search seconds")}
        line |= {f"{what} on": "; ".join(names) for what, names in row.get("hardware", {}).items()}
        lines.append(line)
    return comma_separated(lines)


def _searches(count: int, wanted: int) -> str:
    if count < wanted:
        return f"{count} of {wanted} searches"
    return "One search" if count == 1 else f"{count} searches"


def _cell(estimate: Mapping[str, float | None], paper: tuple[float, float] | None = None) -> str:
    error = "" if estimate["error"] is None else f" ± {estimate['error']:.2g}"
    beside = "" if paper is None else f" [{paper[0]:g} ± {paper[1]:g}]"
    return f"{estimate['mean']:.3g}{error}{beside}"
