"""A grid of runs: models, settings and seeds, trained, fitted and scored, and ranked by a score on validation data."""

from __future__ import annotations

import itertools
import shlex
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Unpack, get_type_hints

import tyro
from pydantic import TypeAdapter, ValidationError

from expost._version import __version__
from expost.commands import data_name, parse_options, train
from expost.commands.arguments import DataLike, Output
from expost.commands.groups import takes
from expost.commands.outputs import RUNS, label_of
from expost.commands.train_options import DATA, STRINGS, TrainOptions
from expost.errors import DataError, UsageError
from expost.experiments.engines import RESOURCES, ResourceOptions, Resources, open_engine
from expost.utils.progress import say

#: Options of `train` that a sweep sets itself.
_NOT_SET = ("seed", "device", "tensorboard")
#: Options that change the data scored against: they take one value, not several.
_OF_DATA = (*DATA.names, *STRINGS.names)


@takes(grid=RESOURCES)
def sweep(
    models: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")],
    data: DataLike,
    out: Output | None = None,
    options: Annotated[tuple[str, ...], tyro.conf.arg(name="set", metavar="NAME=VALUE,...")] = (),
    seeds: int = 1,
    by: str | None = None,
    of: str | None = None,
    densities: tuple[str, ...] = (),
    measures: tuple[str, ...] = (),
    samples: int | None = None,
    features: str = "auto",
    allow_few: bool = False,
    **resources: Unpack[ResourceOptions],
) -> Path:
    """Train, fit and score a grid of runs, and rank its settings by a score on the validation split.

    The same command goes on with interrupted runs; with more values or seeds, it does what is new. Test scores are
    reported beside the validation scores and choose nothing.

    Args:
        models: Names of models; `expost zoo` lists them.
        data: A data set's name, or a path, as `expost train` takes it.
        out: The sweep's folder; default: runs/sweep-DATA-MODELS.
        options: What the grid is made of, each with one value or several: options of `expost train` as beta=1e-4,1e-3
            or epochs=10 or latent_dim=8,16, and options of slots as latent.sigma=0.5,1.
        seeds: Runs of each setting, seeded 0, 1, ...
        by: Score to rank by: one of `expost evaluate`, or loss (that of training, not comparable between settings with
            other weights). Default: the Frechet distance; for strings, the share of distinct valid ones.
        of: What was scored: a density, or reconstruction; default: gmm.
        densities: Which densities to fit and sample from; default: the model's own and gmm.
        measures: As of `expost evaluate`; default: frechet; for strings, properties.
        samples: Samples from each density; default: as many as there are examples to compare with.
        features: As of `expost evaluate`.
        allow_few: Compute Frechet distances even from fewer examples than features.
        **resources: What the grid may use, for example `workers=2`: the keys of `ResourceOptions`.

    Returns:
        The folder, with table.json, table.md, table.csv, and the runs.
    """
    from expost.densities import DENSITIES
    from expost.evaluation.protocol import Protocol, resolve_features
    from expost.evaluation.scoring import scoring_of
    from expost.experiments.cells import refuse_another
    from expost.experiments.hardware import summary
    from expost.experiments.sweep_report import (
        LOSS,
        RANKING,
        as_csv,
        check_comparable,
        choose_score,
        markdown,
        ranked,
    )
    from expost.experiments.sweep_run import Job, as_options, fill
    from expost.utils.store import write_json, write_text

    if seeds < 1:
        raise UsageError(f"seeds is {seeds}; give at least 1")
    if not models:
        raise UsageError("no models to train; give at least one, for example rae-l2")
    if by not in (None, *RANKING):
        known = ", ".join(sorted(RANKING))
        raise UsageError(f"by is '{by}', which cannot rank; choose one of: {known}")
    names, source = tuple(dict.fromkeys(models)), data_name(data)
    folder = Path(out) if out is not None else RUNS / "-".join(["sweep", label_of(data), *names])
    home = folder.resolve()
    for density in densities:
        _ = DENSITIES[density]
    grid = settings(options)
    plans = [train(name, source, home, dry_run=True, **as_options(chosen)) for name in names for chosen in grid]
    examples = plans[0].data()
    scoring = scoring_of(examples)
    wanted = measures or scoring.ranking
    Protocol(wanted, samples).chosen(scoring.measures)
    scarce = min(examples.validation, examples.test, key=len)
    features = resolve_features(features, replace(examples, test=scarce))
    protocols = [Protocol(wanted, samples, seed=seed, allow_few=allow_few) for seed in range(seeds)]
    jobs = [
        Job(home, name, source, chosen, protocol, densities, features)
        for protocol in protocols
        for name in names
        for chosen in grid
    ]
    subject = of or (densities[0] if densities and "gmm" not in densities else "gmm")
    for job in jobs:
        if by != LOSS and subject not in job.subjects():
            raise UsageError(f"model '{job.model}' has no scores of {subject}, only of {', '.join(job.subjects())}")
        refuse_another(job.model, job.data, job.run, job.training)
    say(f"runs: {len(jobs)} (models: {len(names)}, settings: {len(grid)}, seeds: {seeds})")
    started, results, score = time.perf_counter(), dict[str, dict[str, Any]](), by
    with open_engine(Resources(**resources), home) as open_:
        for done in open_.run(fill, jobs, open_.devices(len(jobs)), lambda job: home / "logs" / f"{job.label}.log"):
            found = results[done.task.label] = done.result
            if "failed" not in found and scoring.complete:  # else a run may lack a score that others have
                score = choose_score([found], score, subject)
            elapsed = time.perf_counter() - started
            what = f"failed ({found['failed']})" if "failed" in found else "done"
            say(f"{done.task.label}: {what}; {len(results)} of {len(jobs)} after {elapsed:.0f} s")
    failures = [found["failed"] for found in results.values() if "failed" in found]
    if len(failures) == len(jobs):
        raise DataError(f"all {len(jobs)} runs failed; the first one: {failures[0]}")
    finished = [results[job.label] for job in jobs if "failed" not in results[job.label]]
    score = choose_score(finished, score, subject)
    check_comparable(finished, score, subject)
    record = {
        "format": 1,
        "version": __version__,
        "command": _command(models, data, options, seeds, by, of, densities, measures, samples, features),
        "hardware": summary([p for r in results.values() for p in r["hardware"].values()], None),
        "seconds": round(sum(each["seconds"] + each["training seconds"] for each in results.values())),
        "data": source,
        "score": {"name": score, "of": None if score == LOSS else subject, "split": "validation"},
        "rows": ranked(
            [(job.model, dict(job.options), job.protocol.seed, results[job.label]) for job in jobs], score, subject
        ),
    }
    write_json(home / "table.json", record)
    write_text(home / "table.md", markdown(record))
    write_text(home / "table.csv", as_csv(record))
    return folder


def settings(options: Sequence[str]) -> list[tuple[tuple[str, Any], ...]]:
    """Return every combination of the values of NAME=VALUE,VALUE,...; values are JSON if they parse, else strings.

    Raises:
        UsageError: for an option without values, one given twice, or one that `train` does not have.

    Example:
        >>> settings(["beta=0.1,1", "network=conv4"])
        [(('beta', 0.1), ('network', 'conv4')), (('beta', 1.0), ('network', 'conv4'))]
    """
    kinds = {"preset": str | None, **get_type_hints(TrainOptions)}
    kinds = {name: kind for name, kind in kinds.items() if name not in _NOT_SET}
    values: dict[str, list[Any]] = {}
    for text in options:
        name, equals, listed = text.partition("=")
        if not (name and equals and listed):
            raise UsageError(f"option '{text}' has no value; write NAME=VALUE or NAME=VALUE,VALUE")
        if name in values:
            raise UsageError(f"option {name} is given twice; write {name}=VALUE,VALUE")
        if "." not in name and name not in kinds:
            raise UsageError(f"unknown option '{name}'; choose of: {', '.join(kinds)}, or write SLOT.OPTION")
        found = [parse_options([f"{name}={each}"])[name] for each in _split(listed)]
        if name in kinds:
            found = [_checked(name, kinds[name], value) for value in found]
        values[name] = [value for index, value in enumerate(found) if value not in found[:index]]
        if name in _OF_DATA and len(values[name]) > 1:
            raise UsageError(f"{name} has {len(values[name])} values, whose scores could not be compared; give one")
    return [tuple(zip(values, chosen, strict=True)) for chosen in itertools.product(*values.values())]


def _split(text: str) -> list[str]:
    """Split at commas outside brackets; a comma in brackets belongs to a JSON value."""
    depth, parts = 0, [""]
    for char in text:
        depth += (char in "[{") - (char in "]}")
        if char == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += char
    return parts


def _checked(name: str, kind: Any, value: Any) -> Any:
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        raise UsageError(f"{name}={value!r}: {error.errors()[0]['msg']}") from None


def _command(models: Sequence[str], data: str | Path, options: Sequence[str], seeds: int, *given: Any) -> str:
    words = ["expost", "sweep", *models, "--data", str(data), *(["--set", *options] if options else [])]
    words += ["--seeds", str(seeds)]
    for name, value in zip(("by", "of", "densities", "measures", "samples", "features"), given, strict=True):
        if value:
            words += [f"--{name}", *([str(value)] if isinstance(value, str | int) else value)]
    return shlex.join(words)
