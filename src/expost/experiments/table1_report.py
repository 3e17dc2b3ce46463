"""The paper's Table 1 as text and as a picture."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from expost import pictures
from expost.errors import UsageError
from expost.experiments.published import COLUMNS, EXPECTED
from expost.run import Run

#: Scores of samples that the second table shows, by the ending of their names.
_OTHERS = ("f8", "f1/8", "precision", "recall", "density", "coverage")
_FRECHET = ("fid", "fid-768", "frechet-")
#: Rows whose ex-post samples the paper sets against a VAE's own.
_REGULARIZED = ("rae-gp", "rae-l2", "rae-sn", "rae")


def columns(row: Mapping[str, Any], score: str | None = None) -> dict[str, list[float]]:
    """Return a row's values by column, one a seed; a column without values is left out.

    Args:
        row: From a table's record.
        score: Name of the score; None takes the Frechet distance.
    """
    subjects = {"Rec": "reconstruction", "N": row["prior"], "GMM": "gmm", "Interp": "interpolation"}
    found: dict[str, list[float]] = {}
    for cell in row["cells"]:
        for each in cell["scores"]:
            wanted = each["name"] == score if score else each["name"].startswith(_FRECHET) and each["of"] != "codes"
            for column, subject in subjects.items():
                if each["of"] == subject and wanted:
                    found.setdefault(column, []).append(each["value"])
    return found


def markdown(record: Mapping[str, Any]) -> str:
    """Return the table as Markdown, with the command, the hardware and the protocol above it."""
    first = next(iter(record["rows"].values()))["cells"][0]["scores"][0]
    card, name = first["card"], first["name"]
    _refuse_unlike(record)
    expected = EXPECTED.get(record["dataset"], {}) if name == "fid" else {}
    rows = {**record["rows"], **record.get("peers", {})}
    own = ", ".join(f"{key} {row['prior']}" for key, row in rows.items())
    seeds = max(len(row["cells"]) for row in rows.values())
    lines = [
        f"# {record['dataset']}, scale {record['scale']['name']}: {name}, lower is better",
        "",
        f"    {record['command']}",
        "",
        f"{record['hardware']}; {record['seconds']:,.0f} s of training and scoring, summed over processes; "
        f"expost {record['version']}. Features: {card['features']} (weights {card['weights'][:12] or 'none'}), "
        f"{json.dumps(card['preprocessing'])}. {card['count']:,} reconstructions, "
        f"{record['scale']['samples'] or card['count']:,} samples, against {card['reference']} "
        f"({card['reference_count']:,}). N is each model's own density: {own}."
        + (" Mean ± standard deviation over seeds." if seeds > 1 else ""),
        "",
    ]
    if expected:
        lines += ["Beside each value, in brackets, what the paper has.", ""]
    lines += ["| model | " + " | ".join(COLUMNS) + " | MSE | training, s | seeds |", "|---" * 8 + "|"]
    for key, row in rows.items():
        values = columns(row)
        paper = dict(zip(COLUMNS, expected.get(key, ()), strict=False))
        cells = [_cell(values.get(column, []), paper.get(column)) for column in COLUMNS]
        error = _cell(columns(row, "mse").get("Rec", []), digits=3)
        seconds = _cell([cell["training seconds"] for cell in row["cells"] if "training seconds" in cell])
        lines.append(f"| {key} | " + " | ".join([*cells, error, seconds, str(len(row["cells"]))]) + " |")
    lines += ["", *_checks(record["rows"]), *_other_scores(rows)]
    return "\n".join(lines) + "\n"


def _refuse_unlike(record: Mapping[str, Any]) -> None:
    """Refuse to print distances in one column that were computed in different ways; the seed may differ.

    Raises:
        UsageError: that says which row, and in which field.
    """
    rows = {**record["rows"], **record.get("peers", {})}
    found = [
        (key, score["name"], score["card"])
        for key, row in rows.items()
        for cell in row["cells"]
        for score in cell["scores"]
        if score["name"].startswith(_FRECHET) and score["of"] != "codes"
    ]
    for key, name, card in found[1:]:
        first_key, first_name, first = found[0]
        ignored = ("model", "density", "seed", "settings", "count")
        for field, value in (("score", name), *((f, card.get(f)) for f in card if f not in ignored)):
            expected = first_name if field == "score" else first.get(field)
            if value != expected:
                raise UsageError(
                    f"rows {first_key} and {key} were scored in different ways ({field}: {expected}, {value}); "
                    "score them anew, or take one of them out of the table"
                )


def _checks(rows: Mapping[str, Any]) -> list[str]:
    """Say whether the paper's ordering holds in this table."""
    means = {name: {key: float(np.mean(v)) for key, v in columns(row).items()} for name, row in rows.items()}
    both = {name: mean for name, mean in means.items() if {"N", "GMM"} <= mean.keys()}
    if not both:
        return []
    not_below = [name for name, mean in both.items() if mean["GMM"] > mean["N"]]
    lines = [
        f"Ex-post mixture at or below the model's own density: {len(both) - len(not_below)} of {len(both)} rows"
        + (f" (not: {', '.join(not_below)})." if not_below else ".")
    ]
    if "vae" in both and (ours := [name for name in _REGULARIZED if name in both]):
        below = [name for name in ours if both[name]["GMM"] < both["vae"]["N"]]
        lines.append(f"RAE-family mixtures below the VAE's own prior: {len(below)} of {len(ours)}.")
    return lines


def _other_scores(rows: Mapping[str, Any]) -> list[str]:
    present = [name for name in _OTHERS if any(columns(row, name) for row in rows.values())]
    if not present:
        return []
    lines = ["", "Other scores of the samples, N / GMM; higher is better.", ""]
    lines += ["| model | " + " | ".join(present) + " |", "|---" * (len(present) + 1) + "|"]
    for key, row in rows.items():
        cells = []
        for name in present:
            values = columns(row, name)
            cells.append(" / ".join(_cell(values.get(column, [])) for column in ("N", "GMM")))
        lines.append(f"| {key} | " + " | ".join(cells) + " |")
    return lines


def _cell(values: Sequence[float], expected: float | None = None, digits: int = 3) -> str:
    beside = "" if expected is None else f" [{expected:g}]"
    if not values:
        return f"-{beside}"
    spread = f" ± {np.std(values, ddof=1):.2g}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}g}{spread}{beside}"


def figure(runs: Mapping[str, tuple[str | None, Run]], device: str = "auto", n: int = 8) -> Image.Image:
    """Draw a panel a model: test images, reconstructions, own samples, ex-post samples, an interpolation.

    Args:
        runs: Own density and run, by name; evaluated.
        device: Where to decode.
        n: Images of each kind.
    """
    sections = []
    for name, (prior, run) in runs.items():
        generator, data = run.generator(device), run.data()
        x = data.test.x[:n]
        ends = data.test.x[n : n + 2]
        parts = [pictures.to_bytes(generator.reconstruct(x))]
        parts += [
            pictures.to_bytes(generator.sample(n, key, seed=0)) for key in (prior, "gmm") if key in generator.densities
        ]
        parts.append(pictures.to_bytes(generator.interpolate(ends[:1], ends[1:], torch.linspace(0, 1, n))[0]))
        sections.append((name, pictures.grid(torch.cat([x, *parts]), n)))
    return pictures.panel(sections, columns=5)
