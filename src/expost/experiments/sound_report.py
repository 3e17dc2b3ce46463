"""The comparison of autoencoders of sound as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import t as student

from expost.densities import DENSITIES
from expost.evaluation.catalog import INTENDED, KEPT, direction_of
from expost.evaluation.protocol import RECONSTRUCTION
from expost.evaluation.scores import WIDTH
from expost.experiments.cells import comma_separated
from expost.models.zoo import ZOO

#: The density that is fitted ex post.
EX_POST = "gmm"
#: The density that is fitted by label.
BY_LABEL = "gaussian"


def prior_of(row: str) -> str:
    """Return a model's own density."""
    return ZOO[row].prior.name


def of_symbols(row: str) -> bool:
    """Return whether a model's codes are symbols, whose density learns all labels together."""
    return DENSITIES[prior_of(row)].of_symbols


def ex_post_of(row: str) -> tuple[str, ...]:
    """Return the density that is compared ex post, if there is one of such codes beside the model's own."""
    return () if of_symbols(row) else (EX_POST,)


def by_label_of(row: str) -> str:
    """Return the density that is fitted by label."""
    return prior_of(row) if of_symbols(row) else BY_LABEL


def column(cells: Sequence[Mapping[str, Any]], name: str, of: str | None) -> list[tuple[float, float]]:
    """Return a score of every seed with its standard error, NaN where it has none.

    Args:
        cells: Of one model.
        name: The score; "frechet" for the Frechet distance, whatever the features.
        of: What it is a score of; None for none.
    """
    found = []
    for cell in cells:
        for score in cell["scores"]:
            named = score["name"] == name or (name == "frechet" and score["name"].startswith(("frechet-", "fid")))
            if score["of"] == of and named:
                found.append((float(score["value"]), float(score["error"] if score["error"] is not None else np.nan)))
    return found


def _columns(row: str) -> dict[str, tuple[str, str | None]]:
    """Return the table's columns: the score and its subject."""
    return {
        "Rec": ("frechet", RECONSTRUCTION),
        "N": ("frechet", prior_of(row)),
        "GMM": ("frechet", next(iter(ex_post_of(row)), None)),
        "kept digit": (KEPT, RECONSTRUCTION),
        "intended digit": (INTENDED, f"{by_label_of(row)} by label"),
        "MSE": ("mse", RECONSTRUCTION),
    }


def markdown(record: Mapping[str, Any]) -> str:
    """Return the table as Markdown: the command, the protocol, the rows, and what they say."""
    rows: Mapping[str, list[Mapping[str, Any]]] = record["rows"]
    first = next(iter(rows.values()))[0]["scores"]
    distance = next(score for score in first if score["name"].startswith(("frechet-", "fid")))
    card = distance["card"]
    right = next(
        (s["card"]["settings"].get("right about the test recordings") for s in first if s["name"] == KEPT), None
    )
    taken = [cell["training seconds"] for cells in rows.values() for cell in cells]
    shown = [
        name for name in _columns("vae") if any(column(cells, *_columns(row)[name]) for row, cells in rows.items())
    ]
    lines = [
        f"# Sound: {record['dataset']}, scale {record['scale']['name']}, equal training time",
        "",
        f"    {record['command']}",
        "",
        f"{record['hardware']}; expost {record['version']}. Every model was given {record['scale']['seconds']:g} s of "
        f"training by the pace of its first steps, and took {min(taken):.0f} to {max(taken):.0f} s. Rec, N, GMM: "
        f"{distance['name']} of reconstructions, of samples of the model's own density, of a mixture fitted ex post, "
        f"against {card['reference']} ({card['reference_count']:,}), lower is better, "
        + ("mean ± standard deviation over seeds." if len(next(iter(rows.values()))) > 1 else "± standard error."),
        "",
        f"For comparison, {distance['name']} of real recordings against the same test recordings: "
        + ", ".join(f"{value:.3g} of the {part} part" for part, value in record["recordings"].items())
        + ".",
        "",
        f"Data: {record['data']}.",
        "",
    ]
    if right is not None:
        lines += [
            f"The classifier that hears digits is right about {right:.1%} of the test recordings. Kept digit: "
            "the share of their reconstructions that it hears as what was spoken. Intended digit: the share of samples "
            "by label that it hears as their label.",
            "",
        ]
    lines += ["| model | " + " | ".join([*shown, "epochs", "training, s"]) + " |", "|---" * (len(shown) + 3) + "|"]
    for row, cells in rows.items():
        values = [_cell(column(cells, *_columns(row)[name])) for name in shown]
        epochs = ", ".join(str(cell["epochs"]) for cell in cells)
        seconds = np.mean([cell["training seconds"] for cell in cells])
        lines.append(f"| {row} | " + " | ".join([*values, epochs, f"{seconds:.0f}"]) + " |")
    return "\n".join([*lines, "", *findings(rows, shown)]) + "\n"


def _cell(values: Sequence[tuple[float, float]]) -> str:
    if not values:
        return "-"
    found = [value for value, _ in values]
    spread = np.std(found, ddof=1) if len(found) > 1 else values[0][1]
    return f"{np.mean(found):.3g}" + ("" if np.isnan(spread) else f" ± {spread:.2g}")


def interval(values: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return the mean over seeds, and half the width of its 95 % interval.

    The width is that of the score itself where there is one seed, or 0 if it has no standard error. Of S seeds with
    standard deviation s it is t s / sqrt(S), t the quantile of Student's distribution with S - 1 degrees of freedom.

    Args:
        values: The score of each seed, with its standard error.

    Example:
        >>> interval([(5.0, 0.1)])
        (5.0, 0.196)
        >>> [round(x, 3) for x in interval([(5.0, 0.1), (5.2, 0.1), (5.4, 0.1)])]
        [5.2, 0.497]
    """
    found = [value for value, _ in values]
    if len(found) == 1:
        return found[0], WIDTH * float(np.nan_to_num(values[0][1]))
    quantile = float(student.ppf(0.975, len(found) - 1))
    return float(np.mean(found)), quantile * float(np.std(found, ddof=1)) / len(found) ** 0.5


def findings(rows: Mapping[str, list[Mapping[str, Any]]], shown: Sequence[str]) -> list[str]:
    """Say which model is best in each column, and which are as good: those whose 95 % interval meets the best one's.

    Args:
        rows: Cells by model.
        shown: The columns.
    """
    lines = []
    for name in shown:
        found = {
            row: interval(values) for row, cells in rows.items() if (values := column(cells, *_columns(row)[name]))
        }
        if len(found) < 2:
            continue
        higher = direction_of(_columns("vae")[name][0]).sign > 0
        best = (max if higher else min)(found, key=lambda row: found[row][0])
        value, width = found[best]
        near = [row for row, (other, own) in found.items() if row != best and abs(other - value) <= width + own]
        alike = (
            f"; not told apart from it: {', '.join(near)}" if near else "; all others are worse beyond the intervals"
        )
        lines.append(f"- {name}: best is {best} ({value:.3g}){alike}.")
    if (vae := column(rows.get("vae", ()), *_columns("vae")["N"])) and "GMM" in shown:
        ours = {row: column(cells, *_columns(row)["GMM"]) for row, cells in rows.items() if row.startswith("rae")}
        below = [row for row, values in ours.items() if values and interval(values)[0] < interval(vae)[0]]
        if ours:
            named = f" ({', '.join(below)})" if below else ""
            lines.append(f"- RAE with a mixture ex post below the VAE's own prior: {len(below)} of {len(ours)}{named}.")
    return ["What the comparison says:", "", *lines] if lines else []


def as_csv(record: Mapping[str, Any]) -> str:
    """Return the table as CSV: a line a run."""
    lines = []
    for row, cells in record["rows"].items():
        for cell in cells:
            line = {"model": row, "seed": cell["seed"]}
            line |= {f"{score['of']} {score['name']}": score["value"] for score in cell["scores"]}
            lines.append(line | {"epochs": cell["epochs"], "training seconds": cell["training seconds"]})
    return comma_separated(lines)
