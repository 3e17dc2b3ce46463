"""Beyond the paper: one trained autoencoder, and ever better densities of its codes.

The rungs are N(0, I), one Gaussian, a mixture, a flow, flow matching, and what `auto` chooses of them and of others, as
`expost fit --density auto` does. They share the weights, so that nothing but the density differs. A run is a folder and
a rung a file, `cells/MODEL-SEED/DENSITY.json`. Finished ones are kept, interrupted ones resume, deleted are redone.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from expost._version import __version__
from expost.commands import data_name, score_run
from expost.config import DataConfig, to_json
from expost.densities import DENSITIES, Density, TractableDensity
from expost.errors import DataError, UsageError
from expost.evaluation.catalog import MEMORIZATION
from expost.evaluation.protocol import RECONSTRUCTION, Protocol, bundled_features, pick_space, resolve_features
from expost.evaluation.scoring import Request, scorer_of
from expost.examples import kind_of_data, pictures
from expost.experiments.beyond_report import as_csv, figure, markdown
from expost.experiments.cells import Task, defining_settings, density_hash, refuse_another, saved, train_or_go_on
from expost.experiments.engines import Resources, open_engine
from expost.experiments.hardware import hardware, noted_hardware, summary, training_seconds
from expost.experiments.table1 import SCALES, Scale
from expost.generators.generator import Generator
from expost.generators.selection import AUTO
from expost.metrics.latent import held_out_log_likelihood
from expost.metrics.reference import reference_features
from expost.models.zoo import ZOO
from expost.registry import Registry
from expost.run import Run, load
from expost.types import Data
from expost.utils.progress import say
from expost.utils.store import write_json, write_text

#: The densities, plain ones first.
LADDER = ("standard-normal", "gaussian", "gmm", "flow", "flow-matching")
#: All that is compared: the densities, and the choice.
RUNGS = (*LADDER, AUTO)
#: How the samples are judged.
MEASURES = ("frechet", MEMORIZATION)
#: Codes that are drawn to time a density.
TIMED = 10_000


@dataclass(frozen=True)
class LadderScale:
    """The size of a ladder.

    Attributes:
        training: How the autoencoder is trained, and how much is sampled.
        options: Options of densities other than their defaults, by name.
    """

    training: Scale
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


LADDER_SCALES: Registry[LadderScale] = Registry(
    "scale",
    {
        "smoke": LadderScale(
            SCALES["smoke"],
            {"flow": {"transforms": 2, "width": 32, "steps": 200}, "flow-matching": {"width": 64, "steps": 400}},
        ),
        "small": LadderScale(SCALES["small"]),
        "paper": LadderScale(SCALES["paper"]),
    },
)


@dataclass(frozen=True)
class Rungs(Task):
    """All rungs of one trained model.

    Attributes:
        size: Scale of the experiment.
    """

    size: LadderScale

    @property
    def options(self) -> dict[str, Any]:
        """Options of `train`."""
        return {**self.size.training.options, "seed": self.seed}


def reproduce_beyond(
    dataset: str,
    scale: str,
    model: str,
    seeds: int,
    features: str,
    out: Path,
    where: Resources | None = None,
) -> Path:
    """Train a model, fit and score every density; write `table.json`, `table.md`, `table.csv` and `figure.png`.

    Args:
        dataset: Data set's name or path.
        scale: Entry of `LADDER_SCALES`.
        model: Row of the zoo, whose codes are vectors.
        seeds: Runs, seeded 0, 1, ...
        features: Features to score with.
        out: The folder; a table in it is continued.
        where: Resources to train and score; default: on this machine.

    Returns:
        `out`.
    """
    given, out = out, out.resolve()  # workers have working directories of their own
    size = LADDER_SCALES[scale]
    if ZOO[model].codec is not None or DENSITIES[ZOO[model].prior.name].of_symbols:
        raise UsageError(f"model '{model}' has no codes that all of the ladder's densities take; give rae-l2, say")
    source = data_name(dataset)
    data = load(DataConfig(source, limit=size.training.limit))[0]
    pixels = kind_of_data(data).pixels
    if features == "auto" and pixels and size.training.bundled:
        features = bundled_features(data)
    features = resolve_features(features, data)
    tasks = [Rungs(out, model, seed, source, features, size) for seed in range(seeds)]
    for task in tasks:
        refuse_another(task.model, task.dataset, task.run, task.options)
    with open_engine(where or Resources(), out) as engine:
        devices = engine.devices(len(tasks))
        if pixels:  # once, before there are several workers
            reference_features(pick_space(features, data, engine.here), data.test.x)
        results = {}
        for done in engine.run(climb, tasks, devices, lambda task: out / "logs" / f"{task.label}.log"):
            results[done.task.label] = done.result
            say(f"{done.task.label}: {len(results)} of {len(tasks)} done")
        here = engine.here
    runs = [
        {"run": str(task.run.relative_to(out)), "seed": task.seed, **results[task.label]} for task in tasks
    ]  # in the order of the seeds
    record = {
        "format": 1,
        "version": __version__,
        "command": _command(dataset, scale, model, seeds, features),
        "hardware": summary([part for run in runs for part in run["hardware"].values()], None),
        "seconds": round(sum(run["training seconds"] + run["seconds"] for run in runs)),
        "dataset": dataset,
        "model": model,
        "scale": {"name": scale, **to_json(size)},
        "rungs": [RECONSTRUCTION, *RUNGS],
        "runs": runs,
    }
    write_json(out / "table.json", record)
    write_text(out / "table.md", markdown(record))
    write_text(out / "table.csv", as_csv(record))
    if pixels:
        pictures.save_picture(figure(Run.open(tasks[0].run), LADDER, here), out / "figure.png")
    return given


def climb(task: Rungs, device: str) -> dict[str, Any]:
    """Train a model, fit every density and score its samples; skip what is done already.

    Returns:
        "cells" by subject, "training seconds", "seconds" of all else, and "hardware".
    """
    run = train_or_go_on(task.model, task.dataset, task.run, task.options, device, task.hardware)
    generator = run.generator(device)
    model = generator.weights
    asked = {
        "settings": defining_settings(run), "features": task.features, "samples": task.size.training.samples,
        "measures": list(MEASURES), "version": __version__, "model": model,
    }  # fmt: skip
    found: dict[str, dict[str, Any]] = {}
    missing = []
    for subject in (RECONSTRUCTION, *RUNGS):
        cell = saved(task.file(subject), _asked(task, run, subject, asked))
        if cell is None:
            missing.append(subject)
        else:
            found[subject] = cell
    if missing:
        data = run.data()
        codes, held_out = generator.encode(data.train.x), generator.encode(data.test.x)
        facts = {
            name: _fit(task, run, generator, name, codes, held_out) for name in LADDER if name in missing
        }  # before the scores, which would fit them with other options
        started = time.perf_counter()
        protocol = Protocol(MEASURES, task.size.training.samples, seed=task.seed)
        fixed = [subject for subject in missing if subject != AUTO]
        scores = [to_json(score) for score in score_run(run, fixed, task.features, protocol, device)] if fixed else []
        if any(score["card"]["model"] != model for score in scores):
            raise DataError(f"{task.run} was trained on while it was scored; give the command again")
        scoring = (time.perf_counter() - started) / max(1, len(fixed))
        made = {
            subject: {
                "seconds": round(scoring, 1), **facts.get(subject, {}),
                "scores": [score for score in scores if score["of"] == subject],
            }
            for subject in fixed
        }  # fmt: skip

        def keep(subject: str, cell: Mapping[str, Any]) -> None:
            found[subject] = {"asked": _asked(task, run, subject, asked), "hardware": hardware(device), **cell}
            write_json(task.file(subject), found[subject])

        for subject, cell in made.items():
            keep(subject, cell)
        if AUTO in missing:  # last, since it takes the longest
            keep(AUTO, _choose(task, run, data, codes, held_out, protocol, device))
    return {
        "cells": {
            subject: {key: value for key, value in found[subject].items() if key != "asked"}
            for subject in (RECONSTRUCTION, *RUNGS)
        },
        "training seconds": training_seconds(task.run),
        "seconds": round(sum(cell["seconds"] + cell.get("fit seconds", 0.0) for cell in found.values()), 1),
        "hardware": {
            "training": noted_hardware(task.hardware),
            "scoring": list(dict.fromkeys(cell["hardware"] for cell in found.values())),
        },
    }


def _asked(task: Rungs, run: Run, subject: str, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Return what decides a rung; of a density its options and its saved parameters too."""
    options = dict(task.size.options.get(subject, {}))
    return {**asked, "options": options, **density_hash(run, subject)}


def _fit(
    task: Rungs, run: Run, generator: Generator, name: str, codes: torch.Tensor, held_out: torch.Tensor
) -> dict[str, Any]:
    """Fit a density and save it with the run; return its likelihood of held-out codes, and what it cost."""
    options = dict(task.size.options.get(name, {}))
    if "seed" in DENSITIES[name]().options:
        options["seed"] = task.seed
    started = time.perf_counter()
    density: Density = generator.fit(name, codes=codes, **options)
    fitting = time.perf_counter() - started
    run.save_density(name, density)
    return _facts(density, fitting, task.seed, codes, held_out)


def _choose(
    task: Rungs, run: Run, data: Data, codes: torch.Tensor, held_out: torch.Tensor, protocol: Protocol, device: str
) -> dict[str, Any]:
    """Choose a density by the likelihood of validation codes, and score its samples; nothing is saved with the run.

    Candidates have their default seed in every run, as in `expost fit --density auto`.
    """
    generator = run.generator(device)
    options = {f"{name}.{key}": value for name in LADDER for key, value in task.size.options.get(name, {}).items()}
    started = time.perf_counter()
    chosen = generator.select(AUTO, codes, generator.encode(data.validation.x), **options)
    facts = _facts(chosen.density, time.perf_counter() - started, task.seed, codes, held_out)
    started = time.perf_counter()
    score = scorer_of(Request(data, run.config.data.codec, task.features, protocol, device))
    scores = [to_json(each) for each in score(generator, [chosen.name], generator.weights, "test")]
    return {
        "seconds": round(time.perf_counter() - started, 1), **facts,
        "chosen": {"density": chosen.name, "options": dict(chosen.options), **chosen.record()},
        "scores": scores,
    }  # fmt: skip


def _facts(density: Density, fitting: float, seed: int, codes: torch.Tensor, held_out: torch.Tensor) -> dict[str, Any]:
    """Return a fitted density's likelihood of held-out codes, and what it cost."""
    started = time.perf_counter()
    density.sample(TIMED, generator=torch.Generator().manual_seed(seed))
    sampling = time.perf_counter() - started
    likelihood = held_out_log_likelihood(density, held_out) if isinstance(density, TractableDensity) else None
    return {
        "fit seconds": round(fitting, 2),
        "sample seconds": round(sampling, 3),
        "codes": len(codes),
        "dimensions": codes.shape[1],
        "log-likelihood": None if likelihood is None else likelihood.mean,
        "log-likelihood error": None if likelihood is None else likelihood.standard_error,
    }


def _command(dataset: str, scale: str, model: str, seeds: int, features: str) -> str:
    words = ["expost reproduce beyond", f"--dataset {dataset}", f"--scale {scale}", f"--models {model}"]
    return " ".join([*words, f"--seeds {seeds}", f"--features {features}"])
