"""The paper's Table 2 as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from expost.experiments.cells import comma_separated
from expost.experiments.published import TABLE2

_COLUMNS = (
    *("row", "region", "valid", "score, corrected", "score, original"),
    *("different", "new", "best found", "begun with", "better", "use of codes", "KL", "mode", "surrogate"),
)
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
        "*Different*: strings among the points of a search, and *new*: those of them that are not in the training set; "
        "means over searches. *Begun with*: the best score among the codes that each search began with, if these "
        "differ from the least to the greatest; *better*: searches that found a better one. In the box, improvement is "
        "counted from the best score observed; in the density's region, from the best that the surrogate expects at an "
        "observed code.",
        "",
        "*Use of codes*: how much worse the reconstruction gets with the code of another string: near 0 the codes say "
        "nothing. *KL*: divergence of the posterior from N(0, I), nats a string. *Mode*: mean share of the most "
        "frequent among 25 decodes of a code. *Surrogate*: its error on held-out codes over that of the mean score. "
        + _division(record),
        "",
        f"| {' | '.join(_COLUMNS)} |",
        "|---" * len(_COLUMNS) + "|",
    ]
    for name, row in record["rows"].items():
        valid, score = expected.get(name, (None, None))
        corrected, original = row["corrected"], row["original"]
        lines.append(
            f"| {name} | {row['model']['region']} | {_cell(corrected['valid'], valid)} | {_cell(corrected['score'])} | "
            f"{_cell(original['score'], score)} | {_count(row['different'])} | {_count(row['new'])} | "
            f"{_best(row['best'])} | {_range(row['starts'])} | {row['improved']} of {len(row['starts'])} | "
            f"{_codes(row['codes'])} |"
        )
    return "\n".join(lines) + "\n"


def _division(record: Mapping[str, Any]) -> str:
    """Return how what is found was scored, where the published search does it otherwise."""
    rows = record["rows"].items()
    options = {name: row["model"]["scoring"] for name, row in rows if row["model"]["scoring"]}
    if not options:
        return ""
    words = "; ".join(sorted({", ".join(f"{key}={value}" for key, value in each.items()) for each in options.values()}))
    return f"Found strings are scored as in the published scripts ({words}) in the rows {', '.join(options)}."


def _codes(codes: Mapping[str, float | None]) -> str:
    values = (codes[name] for name in ("use", "kl", "mode", "surrogate"))
    return " | ".join("-" if value is None else f"{value:.2g}" for value in values)


def as_csv(record: Mapping[str, Any]) -> str:
    """Return the table as CSV: a line a row, both aggregations with their standard errors."""
    lines = []
    for name, row in record["rows"].items():
        best = row["best"] or {"score": None, "string": None, "new": None}
        scoring = " ".join(f"{key}={value}" for key, value in row["model"]["scoring"].items())
        line: dict[str, Any] = {"row": name, **row["model"], "scoring": scoring}
        for way in ("corrected", "original"):
            for what, estimate in row[way].items():
                if isinstance(estimate, Mapping):
                    line |= {f"{what}, {way}": estimate["mean"], f"{what}, {way}, error": estimate["error"]}
        line |= {"different": row["different"], "new": row["new"]}
        line |= {"best found": best["score"], "best string": best["string"], "best is new": best["new"]}
        line |= {"begun with, lowest": min(row["starts"]), "begun with, highest": max(row["starts"])}
        line |= {"better searches": row["improved"]}
        line |= {f"codes, {name}": value for name, value in row["codes"].items()}
        line |= {key: row[key] for key in ("training seconds", "search seconds")}
        line |= {f"{what} on": "; ".join(names) for what, names in row.get("hardware", {}).items()}
        lines.append(line)
    return comma_separated(lines)


def _searches(count: int, wanted: int) -> str:
    if count < wanted:
        return f"{count} of {wanted} searches"
    return "One search" if count == 1 else f"{count} searches"


def _best(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "-"
    kind = {True: ", new", False: ", a training string", None: ""}[found["new"]]
    return f"{found['score']:.3g}: `{found['string']}`{kind}"


def _count(mean: float | None) -> str:
    return "-" if mean is None else f"{mean:.3g}"


def _range(values: Sequence[float]) -> str:
    low, high = f"{min(values):.3g}", f"{max(values):.3g}"
    return low if low == high else f"{low} to {high}"


def _cell(estimate: Mapping[str, float | None], paper: tuple[float, float] | None = None) -> str:
    error = "" if estimate["error"] is None else f" ± {estimate['error']:.2g}"
    beside = "" if paper is None else f" [{paper[0]:g} ± {paper[1]:g}]"
    return f"{estimate['mean']:.3g}{error}{beside}"
