"""Table 1 of Ghosh et al. 2020: every image model, its reconstructions, own samples, ex-post samples and mid-points.

A run is a folder and a cell is a file, `cells/MODEL-SEED/COLUMN.json`. Finished cells are kept, interrupted ones
resume, deleted ones are redone. All models of a table share the data, the networks, the features and the counts; and
the number of epochs, except where the paper's differ.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from expost._version import __version__
from expost.commands import data_name, score_run
from expost.config import DataConfig, to_json
from expost.densities import DENSITIES
from expost.errors import DataError, UsageError
from expost.evaluation.catalog import ALL_MEASURES
from expost.evaluation.protocol import (
    CODES,
    INTERPOLATION,
    RECONSTRUCTION,
    Protocol,
    bundled_features,
    pick_space,
    resolve_features,
)
from expost.evaluation.scoring import stage_of
from expost.examples import kind_of_data, pictures
from expost.experiments.cells import Task, defining_settings, density_hash, refuse_another, saved, train_or_go_on
from expost.experiments.engines import Resources, open_engine
from expost.experiments.hardware import hardware, noted_hardware, summary, training_seconds
from expost.experiments.published import COLUMNS, ROWS
from expost.experiments.table1_report import as_csv, figure, markdown
from expost.metrics.reference import reference_features
from expost.models.zoo import ZOO
from expost.registry import Registry
from expost.run import Run, load
from expost.utils.progress import say
from expost.utils.store import read_json, write_json, write_text


@dataclass(frozen=True)
class Scale:
    """The size of an experiment.

    Attributes:
        preset: Where settings come from.
        epochs: Passes over the training set; None takes the preset's.
        limit: Largest number of examples of each split; None takes all.
        width: Width of the networks; None takes the preset's.
        samples: Images per column; None takes as many as there are test images, at most 10,000.
        bundled: Whether "auto" features are the bundled ones, since Inception would take longer than the training.
    """

    preset: str
    epochs: int | None
    limit: int | None
    width: int | None
    samples: int | None
    bundled: bool = False

    @property
    def options(self) -> dict[str, Any]:
        """Options of `train`."""
        return {"preset": self.preset, "epochs": self.epochs, "limit": self.limit, "width": self.width}


SCALES: Registry[Scale] = Registry(
    "scale",
    {
        "smoke": Scale("small", epochs=4, limit=2_000, width=8, samples=None, bundled=True),
        "quick": Scale("small", epochs=3, limit=None, width=16, samples=1_000),
        "small": Scale("small", epochs=5, limit=None, width=16, samples=2_000),
        "paper": Scale("paper", epochs=None, limit=None, width=None, samples=None),
    },
)


@dataclass(frozen=True)
class Cells(Task):
    """All cells of one trained model: what to train, and how to score it.

    Attributes:
        size: Scale of the experiment.
        measures: Measures to score by.
        columns: The table's columns; empty: all, and the codes.
    """

    size: Scale
    measures: tuple[str, ...]
    columns: tuple[str, ...] = ()

    @property
    def options(self) -> dict[str, Any]:
        """Options of `train`."""
        return {**self.size.options, "seed": self.seed}

    def subjects(self) -> tuple[str, ...]:
        """Return what is scored: the table's columns, and the codes.

        Raises:
            UsageError: if the model has none of the columns.
        """
        prior = _prior(self.model)
        mixture = None if DENSITIES[prior].of_symbols else "gmm"
        scored = {"Rec": RECONSTRUCTION, "N": prior, "GMM": mixture, "Interp": INTERPOLATION}
        found = [scored[column] for column in self.columns or COLUMNS]
        subjects = tuple(dict.fromkeys(subject for subject in found if subject is not None))
        if not subjects:
            raise UsageError(f"model '{self.model}' has no column {' or '.join(self.columns)}; leave it out")
        return subjects if self.columns else (*subjects, CODES)


def reproduce_table1(
    dataset: str,
    scale: str,
    models: Sequence[str],
    seeds: int,
    features: str,
    out: Path,
    where: Resources | None = None,
    measures: tuple[str, ...] = ALL_MEASURES,
    columns: Sequence[str] = (),
) -> Path:
    """Train and score every model; write `table.json`, `table.md`, `table.csv` and `figure.png` to `out`.

    Args:
        dataset: Data set's name or path.
        scale: Entry of `SCALES`.
        models: Rows of the zoo; none for the paper's ten.
        seeds: Runs of each model, seeded 0, 1, ...
        features: Features to score with.
        out: The folder; a table in it is continued.
        where: Resources to train and score; default: on this machine.
        measures: Measures to score by.
        columns: Which of `COLUMNS`; none for all.

    Returns:
        `out`.
    """
    given, out = out, out.resolve()  # workers have working directories of their own
    size = SCALES[scale]
    names = tuple(dict.fromkeys(models)) or ROWS
    for name in names:
        _ = ZOO[name]
    chosen = _columns(columns)
    Protocol(measures).chosen(ALL_MEASURES)
    # one choice for the whole table, so that no two rows are scored on different features
    source = data_name(dataset)
    data = load(DataConfig(source, limit=size.limit))[0]
    pixels = kind_of_data(data).pixels
    if features == "auto" and pixels and size.bundled:
        features = bundled_features(data)
    features = resolve_features(features, data)
    tasks = [
        Cells(out, name, seed, source, features, size, measures, chosen) for seed in range(seeds) for name in names
    ]
    for task in tasks:
        task.subjects()
        refuse_another(task.model, task.dataset, task.run, task.options)
    with open_engine(where or Resources(), out) as engine:
        devices = engine.devices(len(tasks))
        if pixels and any(not task.file(subject).exists() for task in tasks for subject in task.subjects()):
            # once, before there are several workers
            reference_features(pick_space(features, data, engine.here), data.test.x)
        started, results = time.perf_counter(), {}
        for done in engine.run(fill, tasks, devices, lambda task: out / "logs" / f"{task.label}.log"):
            results[done.task.label] = done.result
            elapsed = time.perf_counter() - started
            left = elapsed / len(results) * (len(tasks) - len(results))
            said = f"{len(results)} of {len(tasks)} done after {elapsed:.0f} s, about {left:.0f} s left"
            say(f"{done.task.label}: {said}")
        here = engine.here
    rows: dict[str, dict[str, Any]] = {}
    for task in tasks:
        row = rows.setdefault(task.model, {"prior": _prior(task.model), "cells": []})
        row["cells"].append({"run": str(task.run.relative_to(out)), "seed": task.seed, **results[task.label]})
    cells = [cell for row in rows.values() for cell in row["cells"]]
    record = {
        "format": 1,
        "version": __version__,
        "command": _command(dataset, scale, models, seeds, features, columns),
        "hardware": summary([p for c in cells for p in c["hardware"].values()], _said_before(out / "table.json")),
        "seconds": round(sum(cell["training seconds"] + cell["scoring seconds"] for cell in cells)),
        "dataset": dataset,
        "scale": {"name": scale, **to_json(size)},
        "columns": list(chosen or COLUMNS),
        "rows": rows,
        "peers": {path.stem: read_json(path) for path in sorted((out / "peers").glob("*.json"))},
    }
    write_json(out / "table.json", record)
    write_text(out / "table.md", markdown(record))
    write_text(out / "table.csv", as_csv(record))
    if pixels:
        runs = {name: (row["prior"], Run.open(out / row["cells"][0]["run"])) for name, row in rows.items()}
        pictures.save_picture(figure(runs, here), out / "figure.png")
    return given


def _columns(asked: Sequence[str]) -> tuple[str, ...]:
    """Return the columns in the table's order; upper and lower case do not matter."""
    known = {name.lower(): name for name in COLUMNS}
    for name in asked:
        if name.lower() not in known:
            raise UsageError(f"unknown column '{name}'; choose of: {', '.join(COLUMNS)}")
    wanted = {known[name.lower()] for name in asked}
    return tuple(name for name in COLUMNS if name in wanted)


def _said_before(path: Path) -> str | None:
    """Return the hardware stated by an older table, whose cells have none of their own."""
    record = read_json(path) if path.exists() else None
    return record.get("hardware") if isinstance(record, dict) else None


def fill(task: Cells, device: str) -> dict[str, Any]:
    """Train a model and score it; skip what is done already.

    Returns:
        "scores", "training seconds" and "scoring seconds" of all that was ever done for these cells, and "hardware":
        what was used for "training" and "scoring", each a list.
    """
    run = train_or_go_on(task.model, task.dataset, task.run, task.options, device, task.hardware)
    model = run.weights_hash()
    asked = {
        "settings": defining_settings(run), "features": task.features, "samples": task.size.samples,
        "measures": list(task.measures), "version": __version__, "model": model,
    }  # fmt: skip
    found = {subject: saved(task.file(subject), asked | _density(run, subject)) for subject in task.subjects()}
    missing = [subject for subject, cell in found.items() if cell is None]
    if missing:
        started = time.perf_counter()
        protocol = Protocol(task.measures, task.size.samples, seed=task.seed)
        scores = [to_json(score) for score in score_run(run, missing, task.features, protocol, device)]
        if any(score["card"]["model"] != model for score in scores):
            raise DataError(f"{task.run} was trained on while it was scored; give the command again")
        seconds = round((time.perf_counter() - started) / len(missing), 1)
        for subject in missing:
            own = [score for score in scores if score["of"] == subject]
            found[subject] = {
                "asked": asked | _density(run, subject), "hardware": hardware(device), "seconds": seconds,
                "scores": own,
            }  # fmt: skip
            write_json(task.file(subject), found[subject])
    cells = [cell for cell in found.values() if cell is not None]
    return {
        "training seconds": training_seconds(task.run),
        "scoring seconds": round(sum(cell["seconds"] for cell in cells), 1),
        "hardware": {
            "training": noted_hardware(task.hardware),
            # a cell of an older version does not say
            "scoring": []
            if any("hardware" not in cell for cell in cells)
            else list(dict.fromkeys(cell["hardware"] for cell in cells)),
        },
        "scores": [score for cell in cells for score in cell["scores"]],
    }


def _density(run: Run, subject: str) -> dict[str, str]:
    """Return the hash of the density that a cell depends on: its own, or the second stage that it goes through."""
    return density_hash(run, stage_of(run.config.model, (subject,)) or subject)


def _prior(name: str) -> str:
    return ZOO[name].prior.name


def _command(dataset: str, scale: str, models: Sequence[str], seeds: int, features: str, columns: Sequence[str]) -> str:
    words = ["expost reproduce table1", f"--dataset {dataset}", f"--scale {scale}"]
    words += [f"--models {' '.join(models)}"] if models else []
    words += [f"--seeds {seeds}"] if seeds != 1 else []
    words += [f"--columns {' '.join(columns)}"] if columns else []
    return " ".join([*words, f"--features {features}"])
