"""The paper's Table 1 as text and as a picture."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from expost.errors import UsageError
from expost.examples import pictures
from expost.experiments.cells import comma_separated
from expost.experiments.published import COLUMNS, EXPECTED
from expost.run import Run
from expost.types import Split
from expost.utils.seeding import PAIRS, generator

#: Scores of samples that the second table shows, by the ending of their names.
_OTHERS = ("f8", "f1/8", "precision", "recall", "density", "coverage")
_FRECHET = ("fid", "fid-768", "frechet-")
#: Rows whose ex-post samples the paper compares with a VAE's own.
_REGULARIZED = ("rae-gp", "rae-l2", "rae-sn", "rae")


def columns(row: Mapping[str, Any], score: str | None = None) -> dict[str, list[float]]:
    """Return a row's values by column, one a seed; a column without values is left out.

    Args:
        row: From a table's record.
        score: Name of the score; None takes the Frechet distance.
    """
    subjects = _subjects(row)
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
    lines += _hardware(record["rows"])
    if expected:
        lines += ["Beside each value, in brackets, what the paper has.", ""]
    shown = record.get("columns", COLUMNS)
    lines += [
        "| model | " + " | ".join([*shown, "MSE", "training, s", "seeds"]) + " |",
        "|---" * (len(shown) + 4) + "|",
    ]
    for key, row in rows.items():
        values = columns(row)
        paper = dict(zip(COLUMNS, expected.get(key, ()), strict=False))
        cells = [_cell(values.get(column, []), paper.get(column)) for column in shown]
        error = _cell(columns(row, "mse").get("Rec", []), digits=3)
        seconds = _cell([cell["training seconds"] for cell in row["cells"] if "training seconds" in cell])
        lines.append(f"| {key} | " + " | ".join([*cells, error, seconds, str(len(row["cells"]))]) + " |")
    lines += ["", *_checks(record["rows"]), *_other_scores(rows)]
    return "\n".join(lines) + "\n"


def as_csv(record: Mapping[str, Any]) -> str:
    """Return the table as CSV: a line a run, and a column for every score of every column of the table."""
    lines = []
    for key, row in {**record["rows"], **record.get("peers", {})}.items():
        subjects = {subject: column for column, subject in _subjects(row).items()}
        for number, cell in enumerate(row["cells"]):
            hardware = cell.get("hardware", {})
            line = {"model": key, "own density": row["prior"], "seed": cell.get("seed", number)}
            for score in cell["scores"]:
                column = subjects.get(score["of"], score["of"])
                line[f"{column} {score['name']}"] = score["value"]
                if column == "GMM" and row["prior"] == "gmm":  # it is the model's own too
                    line[f"N {score['name']}"] = score["value"]
            line |= {"training seconds": cell.get("training seconds"), "scoring seconds": cell.get("scoring seconds")}
            line |= {f"{what} on": "; ".join(hardware.get(what, [])) for what in ("training", "scoring")}
            lines.append(line)
    return comma_separated(lines)


def _subjects(row: Mapping[str, Any]) -> dict[str, str]:
    return {"Rec": "reconstruction", "N": row["prior"], "GMM": "gmm", "Interp": "interpolation"}


def _hardware(rows: Mapping[str, Any]) -> list[str]:
    """List which runs were trained on which machine, if there were several kinds."""
    found: dict[str, list[str]] = {}
    for key, row in rows.items():
        for number, cell in enumerate(row["cells"]):
            for name in cell.get("hardware", {}).get("training", []):
                found.setdefault(name, []).append(f"{key}-{cell.get('seed', number)}")
    if len(found) < 2:
        return []
    return ["Trained on", "", *(f"- {name}: {', '.join(runs)}" for name, runs in found.items()), ""]


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
    """Return sentences on whether the paper's ordering holds in this table."""
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
    present = [name for name in _OTHERS if any({"N", "GMM"} & columns(row, name).keys() for row in rows.values())]
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
    """Draw a panel a model, with strips by the table's columns below the same test images, each under its caption.

    Args:
        runs: Own density and run, by name; evaluated.
        device: Where to decode.
        n: Images of each kind.
    """
    sections = []
    for name, (prior, run) in runs.items():
        model, data = run.generator(device), run.data()
        x = data.test.across(n).x
        strips = [("test images", x), ("Rec: their reconstructions", model.reconstruct(x))]
        for column, key in (("N", prior), ("GMM", "gmm")):
            if key in model.densities:
                strips.append((f"{column}: samples of {key}", model.sample(n, key, seed=0)))
        for first, second in distinct_pairs(data.test, 2):
            path = model.interpolate(first[None], second[None], torch.linspace(0, 1, n))[0]
            strips.append(("Interp: from one test image to another", path))
        drawn = [(caption, pictures.grid(pictures.to_bytes(images), n)) for caption, images in strips]
        sections.append((name.upper(), pictures.panel(drawn, columns=1, margin=6)))
    return pictures.panel(sections, columns=5)


def distinct_pairs(split: Split, count: int, seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    """Draw pairs of examples to interpolate between: no example twice, and as many classes as possible.

    Args:
        split: Where from.
        count: Pairs at most; a small split has fewer.
        seed: Seeds the draw.
    """
    order = torch.randperm(len(split), generator=generator(seed, PAIRS)).tolist()
    labels = list(range(len(split))) if split.y is None else split.y.tolist()
    ends: list[int] = []
    seen: set[int] = set()
    while order and len(ends) < 2 * count:
        if all(labels[index] in seen for index in order):
            seen = {labels[index] for index in ends[len(ends) // 2 * 2 :]}  # not the other end's class
        ends.append(next((index for index in order if labels[index] not in seen), order[0]))
        order.remove(ends[-1])
        seen.add(labels[ends[-1]])
    return [(split.x[first], split.x[second]) for first, second in zip(ends[::2], ends[1::2], strict=False)]
