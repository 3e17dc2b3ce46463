"""A sweep's ranking, as records, as text and as CSV."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
from scipy.stats import t as student

from expost.errors import UsageError
from expost.evaluation.catalog import DIRECTIONS, direction_of
from expost.evaluation.ranking import places_of, shown_place
from expost.evaluation.scores import WIDTH, Score, differences, error_of_difference, score_from_json
from expost.experiments.cells import comma_separated

#: Scores or losses by seed; None where the score is missing.
BySeed: TypeAlias = dict[int, Score | float | None]

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

    Places are shared where chance may have decided: see `_better`.

    Args:
        runs: Model, options, seed and result.
        score: The score to rank by.
        of: What was scored.
    """
    rows: dict[str, dict[str, Any]] = {}
    scores: dict[str, BySeed] = {}
    for model, options, seed, result in runs:
        key = json.dumps([model, options], sort_keys=True)
        row = rows.setdefault(key, {"model": model, "options": dict(options), "runs": []})
        if "failed" not in result:
            scores.setdefault(key, {})[seed] = result["loss"] if score == LOSS else _score(result, score, of)
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

    keys = sorted(rows, key=lambda key: order(rows[key]))
    complete = [key for key in keys if not order(rows[key])[0]]
    noise = _noise([[run["validation"] for run in rows[key]["runs"]] for key in complete])
    places = places_of(complete, lambda a, b: _better(scores[a], scores[b], -sign, noise))
    for key in keys:
        rows[key]["place"] = places[complete.index(key)] if key in complete else None
    for row in rows.values():
        row["tied"] = places.count(row["place"]) > 1
    return [rows[key] for key in keys]


def _noise(values: Sequence[Sequence[float]]) -> float:
    """Return the least difference of the means of two settings that is beyond the chance of training, at 95 %.

    With S seeds each, it is t sqrt(2 v / S): v is the variance over seeds within a setting, averaged over settings, t
    the quantile of Student's distribution with as many degrees of freedom as v has. 0 with one seed: v is unknown.

    Args:
        values: A row a setting, of a value a seed.
    """
    freedom = sum(len(row) - 1 for row in values)
    if freedom < 1:
        return 0.0
    variance = sum(float(np.var(row)) * len(row) for row in values) / freedom
    seeds = min(len(row) for row in values)
    return float(student.ppf(0.975, freedom)) * math.sqrt(2 * variance / seeds)


def _better(a: BySeed, b: BySeed, sign: int, noise: float) -> bool:
    """Return whether a setting is better than another beyond chance, by its scores of several seeds.

    The mean of the differences has to exceed the chance of training, and 1.96 times the mean of their standard errors,
    paired as far as the scores share examples: seeds share them too, so that their errors do not average out.

    Args:
        a: Scores by seed, or losses, which have no error.
        b: Of another setting.
        sign: 1 where more is better, else -1.
        noise: The chance of training, see `_noise`.
    """
    leads, errors = [], []
    for seed in a.keys() & b.keys():
        one, other = a[seed], b[seed]
        if isinstance(one, Score) and isinstance(other, Score):
            leads.append(sign * (one.value - other.value))
            error = error_of_difference(one, other)
            errors += [] if error is None else [error]
        elif isinstance(one, float | int) and isinstance(other, float | int):
            leads.append(sign * (one - other))
    if not leads:
        return False
    drawn = WIDTH * float(np.mean(errors)) if len(errors) == len(leads) else 0.0
    return float(np.mean(leads)) > max(noise, drawn)


def _score(result: Mapping[str, Any], name: str, of: str) -> Score | None:
    """Return the validation score of a run; None for its loss."""
    found = (each for each in result["validation"] if each["name"] == name and each["of"] == of)
    return next((score_from_json(each, "a run of the sweep") for each in found), None)


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
        + (" = is a tie, within chance." if any(row["tied"] for row in rows) else "")
        + (" Mean ± standard deviation over seeds." if any(len(row["runs"]) > 1 for row in rows) else ""),
        "",
        "| " + " | ".join(heads) + " |",
        "|---" * len(heads) + "|",
    ]
    for row in rows:
        runs = row["runs"]
        place = "-" if row["place"] is None else shown_place(row["place"], row["tied"])
        cells = [place, row["model"], *(_option(row["options"].get(name)) for name in names)]
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
            line: dict[str, Any] = {"place": row["place"], "tied": row["tied"], "model": row["model"], **row["options"]}
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
