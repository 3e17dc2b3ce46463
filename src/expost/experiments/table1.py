"""Table 1 of Ghosh et al. 2020: every image model, its reconstructions, own samples, ex-post samples and mid-points.

A run is a folder and a cell is a file, `cells/MODEL-SEED/COLUMN.json`. What is finished is not done again, what was
interrupted goes on, what was deleted is redone alone. All models of a table share the data, the networks, the features
and the counts; and the number of epochs, except where the paper's differ.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from expost import __version__, pictures
from expost.commands import data_name, score_run, train
from expost.config import DataConfig, to_json
from expost.errors import UsageError
from expost.evaluation import (
    ALL_MEASURES,
    CODES,
    INTERPOLATION,
    RECONSTRUCTION,
    Protocol,
    bundled_features,
    pick_space,
    resolve_features,
)
from expost.experiments.cells import what_decides
from expost.experiments.hardware import hardware, training_seconds
from expost.experiments.published import ROWS
from expost.experiments.table1_report import figure, markdown
from expost.metrics.reference import reference_features
from expost.parallel import pick_workers, run_all
from expost.progress import say
from expost.registry import Registry
from expost.run import Run, load
from expost.store import read_json, write_json, write_text
from expost.zoo import ZOO


@dataclass(frozen=True)
class Scale:
    """How much of everything.

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
class Cells:
    """All cells of one trained model: what to train, and how to score it.

    Attributes:
        out: The table's folder.
        model: Row of the zoo.
        seed: Seeds training, densities and samples.
        dataset: Data set's name or path.
        size: How much of everything.
        features: Features to score with.
        measures: Measures to score by.
    """

    out: Path
    model: str
    seed: int
    dataset: str
    size: Scale
    features: str
    measures: tuple[str, ...]

    @property
    def label(self) -> str:
        """Name of its run's folder."""
        return f"{self.model}-{self.seed}"

    @property
    def run(self) -> Path:
        """Its run's folder."""
        return self.out / "runs" / self.label

    def file(self, subject: str) -> Path:
        """Return the file of one cell."""
        return self.out / "cells" / self.label / f"{subject}.json"

    def subjects(self) -> tuple[str, ...]:
        """Return what is scored: the table's columns, and the codes."""
        prior = _prior(self.model)
        densities = () if prior is None else tuple(dict.fromkeys((prior, "gmm")))
        return (RECONSTRUCTION, *densities, INTERPOLATION, *([CODES] if densities else []))


def reproduce_table1(
    dataset: str,
    scale: str,
    models: Sequence[str],
    seeds: int,
    features: str,
    out: Path,
    device: str,
    workers: int | None = None,
    measures: tuple[str, ...] = ALL_MEASURES,
) -> Path:
    """Train and score every model; write `table.json`, `table.md` and `figure.png` to `out`.

    Args:
        dataset: Data set's name or path.
        scale: Entry of `SCALES`.
        models: Rows of the zoo; none for the paper's ten.
        seeds: Runs of each model, seeded 0, 1, ...
        features: Features to score with.
        out: The folder; what it holds is gone on with.
        device: Where to train.
        workers: Models trained side by side; see `pick_workers`.
        measures: Measures to score by.

    Returns:
        `out`.
    """
    size = SCALES[scale]
    names = tuple(dict.fromkeys(models)) or ROWS
    for name in names:
        _ = ZOO[name]
    Protocol(measures).chosen(ALL_MEASURES)
    # one choice for the whole table, so that no two rows are scored on different features
    data = load(DataConfig(data_name(dataset), limit=size.limit))[0]
    if features == "auto" and data.is_image and size.bundled:
        features = bundled_features(data)
    features = resolve_features(features, data)
    tasks = [Cells(out, name, seed, dataset, size, features, measures) for seed in range(seeds) for name in names]
    for task in tasks:
        _refuse_another_table(task)
    if data.is_image and any(not task.file(RECONSTRUCTION).exists() for task in tasks):
        reference_features(pick_space(features, data, device), data.test.x)  # once, before there are several workers
    started, results = time.perf_counter(), {}
    for done in run_all(
        fill, tasks, pick_workers(workers, device, len(tasks)), lambda t: out / "logs" / f"{t.label}.log"
    ):
        results[done.task.label] = done.result
        elapsed = time.perf_counter() - started
        left = elapsed / len(results) * (len(tasks) - len(results))
        say(f"{done.task.label}: {len(results)} of {len(tasks)} done after {elapsed:.0f} s, about {left:.0f} s to go")
    rows: dict[str, dict[str, Any]] = {}
    for task in tasks:
        row = rows.setdefault(task.model, {"prior": _prior(task.model), "cells": []})
        row["cells"].append({"run": str(task.run.relative_to(out)), **results[task.label]})
    record = {
        "format": 1,
        "version": __version__,
        "command": _command(dataset, scale, models, seeds, features),
        "hardware": hardware(device),
        "seconds": round(
            sum(cell["training seconds"] + cell["scoring seconds"] for r in rows.values() for cell in r["cells"])
        ),
        "dataset": dataset,
        "scale": {"name": scale, **to_json(size)},
        "rows": rows,
        "peers": {path.stem: read_json(path) for path in sorted((out / "peers").glob("*.json"))},
    }
    write_json(out / "table.json", record)
    write_text(out / "table.md", markdown(record))
    if data.is_image:
        runs = {name: (row["prior"], Run.open(out / row["cells"][0]["run"])) for name, row in rows.items()}
        pictures.save_picture(figure(runs, device), out / "figure.png")
    return out


def fill(task: Cells, device: str) -> dict[str, Any]:
    """Train a model and score it, or only what of that is not done yet.

    Returns:
        "scores", and "training seconds" and "scoring seconds" of all that was ever done for these cells.
    """
    run = train(
        task.model, task.dataset, task.run, resume=_begun(task), **({} if _begun(task) else _options(task, device))
    )
    model = run.weights_hash()
    asked = {
        "settings": what_decides(run), "features": task.features, "samples": task.size.samples,
        "measures": list(task.measures), "version": __version__, "model": model,
    }  # fmt: skip
    found = {subject: _saved(task.file(subject), asked | _density(run, subject)) for subject in task.subjects()}
    missing = [subject for subject, cell in found.items() if cell is None]
    if missing:
        started = time.perf_counter()
        protocol = Protocol(task.measures, task.size.samples, seed=task.seed)
        scores = [to_json(score) for score in score_run(run, missing, task.features, protocol, device)]
        seconds = round((time.perf_counter() - started) / len(missing), 1)
        for subject in missing:
            own = [score for score in scores if score["of"] == subject]
            found[subject] = {"asked": asked | _density(run, subject), "seconds": seconds, "scores": own}
            write_json(task.file(subject), found[subject])
    cells = [cell for cell in found.values() if cell is not None]
    return {
        "training seconds": training_seconds(task.run),
        "scoring seconds": round(sum(cell["seconds"] for cell in cells), 1),
        "scores": [score for cell in cells for score in cell["scores"]],
    }


def _density(run: Run, subject: str) -> dict[str, str]:
    """Return what samples rest on beside the weights: the fitted density, by the hash of its file."""
    path = run.folder / "densities" / f"{subject}.safetensors"
    return {"density": hashlib.sha256(path.read_bytes()).hexdigest()} if path.exists() else {}


def _saved(path: Path, asked: dict[str, Any]) -> dict[str, Any] | None:
    """Return a finished cell, or None if there is none or it answers another question."""
    saved = read_json(path) if path.exists() else None
    return saved if isinstance(saved, dict) and saved.get("asked") == asked else None


def _begun(task: Cells) -> bool:
    return (task.run / "config.json").exists()


def _options(task: Cells, device: str) -> dict[str, Any]:
    size = task.size
    return {
        "preset": size.preset, "epochs": size.epochs, "limit": size.limit, "width": size.width, "seed": task.seed,
        "device": device,
    }  # fmt: skip


def _refuse_another_table(task: Cells) -> None:
    if _begun(task):
        planned = train(task.model, task.dataset, task.run, dry_run=True, **_options(task, "cpu"))
        if what_decides(Run.open(task.run)) != what_decides(planned):
            raise UsageError(f"{task.run} holds a run with other settings than this table's; choose another --out")


def _prior(name: str) -> str | None:
    prior = ZOO[name].prior
    return None if prior is None else prior.name


def _command(dataset: str, scale: str, models: Sequence[str], seeds: int, features: str) -> str:
    words = ["expost reproduce table1", f"--dataset {dataset}", f"--scale {scale}"]
    words += [f"--models {' '.join(models)}"] if models else []
    words += [f"--seeds {seeds}"] if seeds != 1 else []
    return " ".join([*words, f"--features {features}"])
