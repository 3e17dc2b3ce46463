"""A sweep's ranking, as records, as text and as CSV."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from expost.errors import UsageError
from expost.evaluation.catalog import DIRECTIONS, direction_of
from expost.evaluation.scores import differences, score_from_json
from expost.experiments.cells import comma_separated

#: The training's own loss on the validation split, by its best epoch.
LOSS = "loss"


#: Scores that may rank. The likelihood of codes may not: codes of half the size have a higher density.
RANKING = frozenset({LOSS, *(name for name, each in DIRECTIONS.items() if each.sign and not each.within_model)})


def choose_score(results: Sequence[Mapping[str, Any]], name: str | None, of: str) -> str:
    """Return the score to rank by: the one that is asked for, or the first of its subject that may rank.

    Args:
        results: Of runs.
        name: The score asked for; None takes the first that may rank.
        of: What was scored.

    Raises:
        UsageError: if none of the runs has it.
    """
    have = dict.fromkeys(score["name"] for each in results for score in each["validation"] if score["of"] == of)
    rankable = [each for each in have if each in RANKING]
    if name is not None and name in (LOSS, *rankable):
        return name
    unasked = [each for each in rankable if not direction_of(each).gameable]
    if name is None and unasked:
        return unasked[0]
    raise UsageError(
        f"the runs have no {name or 'score'} of {of} to rank by (they have: {', '.join(rankable) or 'none'}); choose "
        f"another --by, or other --measures: what is trained is kept"
    )


def check_comparable(results: Sequence[Mapping[str, Any]], name: str, of: str) -> None:
    """Refuse to rank validation scores that were computed in different ways, seeds apart.

    Raises:
        UsageError: if two differ; the message says in which field.
    """
    cards = [
        score_from_json(s, "a run of the sweep").card
        for each in results
        for s in each["validation"]
        if (s["name"], s["of"]) == (name, of)
    ]
    # the seed draws the examples to compare with, if there are more of them than samples
    cards = [replace(c, settings={k: v for k, v in c.settings.items() if k != "held-out hash"}) for c in cards]
    for card in cards[1:]:
        unlike = differences(cards[0], card, ignoring=("seed",))
        if unlike:
            field, (one, other) = next(iter(unlike.items()))
            raise UsageError(f"the runs' {name} cannot be ranked: {field} is {one} in one, {other} in another")


def ranked(
    runs: Sequence[tuple[str, Mapping[str, Any], int, Mapping[str, Any]]], score: str, of: str
) -> list[dict[str, Any]]:
    """Put the runs of each setting together, best mean over seeds first; settings with a run that failed come last.

    Args:
        runs: Model, options, seed and result.
        score: The score to rank by.
        of: What was scored.
    """
    rows: dict[str, dict[str, Any]] = {}
    for model, options, seed, result in runs:
        key = json.dumps([model, options], sort_keys=True)
        row = rows.setdefault(key, {"model": model, "options": dict(options), "runs": []})
        own = {"seed": seed, **{k: v for k, v in result.items() if k not in ("validation", "test")}}
        if "failed" not in result:
            own |= {split: _value(result, split, score, of) for split in ("validation", "test")}
        row["runs"].append(own)
    for row in rows.values():
        for split in ("validation", "test"):
            values = [run[split] for run in row["runs"] if run.get(split) is not None]
            row[split] = _mean(values)
        row["loss"] = _mean([run["loss"] for run in row["runs"] if "loss" in run])
        row["failed"] = sum("failed" in run for run in row["runs"])
    sign = -1 if direction_of(score).sign > 0 else 1  # the loss, which no measure gives, is better if low

    def order(row: Mapping[str, Any]) -> tuple[bool, float]:
        mean = row["validation"]
        return row["failed"] > 0 or mean is None, sign * mean["mean"] if mean else 0.0

    found = sorted(rows.values(), key=order)
    for place, row in enumerate(found, 1):
        row["place"] = None if order(row)[0] else place
    return found


def _value(result: Mapping[str, Any], split: str, score: str, of: str) -> float | None:
    if score == LOSS:
        return result["loss"] if split == "validation" else None
    return next((s["value"] for s in result[split] if s["name"] == score and s["of"] == of), None)


def _mean(values: Sequence[float]) -> dict[str, float | None] | None:
    if not values:
        return None
    return {"mean": float(np.mean(values)), "deviation": float(np.std(values, ddof=1)) if len(values) > 1 else None}


def markdown(record: Mapping[str, Any]) -> str:
    """Return the ranking as Markdown, with the command and the hardware above it."""
    score, rows = record["score"], record["rows"]
    what = score["name"] if score["of"] is None else f"{score['name']} of {score['of']}"
    better = "higher" if direction_of(score["name"]).sign > 0 else "lower"
    names = list(dict.fromkeys(name for row in rows for name in row["options"]))
    test = score["name"] != LOSS
    heads = ["", "model", *names, f"{what}, validation", *(["test"] if test else [])]
    heads += [] if score["name"] == LOSS else ["loss, validation"]
    heads += ["training, s", "runs"]
    lines = [
        f"# Sweep on {record['data']} by {what}, {better} is better",
        "",
        f"    {record['command']}",
        "",
        f"{record['hardware']}; {record['seconds']:,} s of training and scoring, summed over processes; expost "
        f"{record['version']}. Ranked by the validation split; the test split chose nothing."
        + (" Mean ± standard deviation over seeds." if any(len(row["runs"]) > 1 for row in rows) else ""),
        "",
        "| " + " | ".join(heads) + " |",
        "|---" * len(heads) + "|",
    ]
    for row in rows:
        runs = row["runs"]
        cells = [str(row["place"] or "-"), row["model"], *(_option(row["options"].get(name)) for name in names)]
        cells += [_cell(row["validation"]), *([_cell(row["test"]), _cell(row["loss"])] if test else [])]
        seconds = float(np.mean([run["training seconds"] for run in runs]))
        cells += [f"{seconds:.3g}", str(len(runs)) + (f", {row['failed']} failed" if row["failed"] else "")]
        lines.append("| " + " | ".join(cells) + " |")
    failed = [
        f"- {row['model']}, {', '.join(f'{k}={_option(v)}' for k, v in row['options'].items()) or 'as it is'}, "
        f"seed {run['seed']}: {run['failed']}"
        for row in rows
        for run in row["runs"]
        if "failed" in run
    ]
    return (
        "\n".join([*lines, *(["", "Failed, and tried again by the same command:", "", *failed] if failed else [])])
        + "\n"
    )


def as_csv(record: Mapping[str, Any]) -> str:
    """Return the ranking as CSV: a line a run."""
    lines = []
    for row in record["rows"]:
        for run in row["runs"]:
            line: dict[str, Any] = {"place": row["place"], "model": row["model"], **row["options"]}
            line |= {"seed": run["seed"], "run": run.get("run"), "score": record["score"]["name"]}
            line |= {key: run.get(key) for key in ("validation", "test", "loss")}
            line |= {"training seconds": run["training seconds"], "scoring seconds": run["seconds"]}
            line |= {f"{what} on": "; ".join(names) for what, names in run["hardware"].items()}
            line |= {"failed": run.get("failed")}
            lines.append(line)
    return comma_separated(lines)


def _option(value: Any) -> str:
    return "-" if value is None else value if isinstance(value, str) else json.dumps(value)


def _cell(found: Mapping[str, float | None] | None) -> str:
    if found is None:
        return "-"
    spread = "" if found["deviation"] is None else f" ± {found['deviation']:.2g}"
    return f"{found['mean']:.4g}{spread}"
