"""Autoencoders of sound at equal training time: one table, and WAVs of what each reconstructs and draws.

A run is a folder and a cell is a file, `cells/MODEL-SEED.json`. Finished cells are kept, interrupted ones resume. Every
model is trained for as many epochs as the same time allows here, by the pace of a few steps before; what the training
took in the end stands in the table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from expost._version import __version__
from expost.commands import data_name, fit, score_run, train
from expost.config import DataConfig, to_json
from expost.errors import UsageError
from expost.evaluation.protocol import RECONSTRUCTION, Protocol, bundled_features, pick_space
from expost.examples import examples_of, pictures
from expost.examples.pictures import to_bytes
from expost.examples.sound import Sound
from expost.examples.waves import joined, write_wav
from expost.experiments.cells import Task, defining_settings, refuse_another, saved, train_or_go_on
from expost.experiments.engines import Resources, open_engine
from expost.experiments.hardware import noted_hardware, summary, training_seconds
from expost.experiments.sound_report import as_csv, by_label_of, ex_post_of, markdown, of_symbols, prior_of
from expost.experiments.table1_report import figure
from expost.metrics import Statistics, frechet_distance
from expost.models.zoo import ZOO
from expost.registry import Registry
from expost.run import Run, load
from expost.training.trainer import measure_steps
from expost.utils.progress import say
from expost.utils.store import write_json, write_text

#: Rows of the table: the paper's regularized autoencoders, the VAE and its deterministic kin, vector quantisation.
ROWS = ("ae", "rae", "rae-l2", "rae-sn", "rae-gp", "vae", "wae-mmd", "vq-vae")
#: Measures of samples, besides whether digits are heard as intended.
MEASURES = ("frechet",)
#: Recordings that can be heard of each model.
HEARD = 16


@dataclass(frozen=True)
class Scale:
    """The size of the comparison.

    Attributes:
        preset: Where settings come from.
        seconds: Training of each model, about.
        width: Width of the networks; None takes the preset's.
        latent_dim: Dimension of codes that are vectors; None takes the preset's.
        samples: Samples of each density; None takes as many as there are test recordings.
        densities: Options of densities other than their defaults, by name.
    """

    preset: str
    seconds: float
    width: int | None
    latent_dim: int | None = 32
    samples: int | None = None
    densities: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


SCALES: Registry[Scale] = Registry(
    "scale",
    {
        "smoke": Scale(
            "small", 40, width=8, densities={"autoregressive": {"width": 64, "depth": 2, "heads": 2, "steps": 300}}
        ),
        "quick": Scale("small", 120, width=16),
        "small": Scale("small", 600, width=32),
        "paper": Scale("paper", 3600, width=None),
    },
)


@dataclass(frozen=True)
class Cell(Task):
    """A model to train and to score.

    Attributes:
        size: Scale of the comparison.
    """

    size: Scale

    @property
    def options(self) -> dict[str, Any]:
        """Options of `train`, without the epochs."""
        return {
            "preset": self.size.preset,
            "width": self.size.width,
            "latent_dim": None if of_symbols(self.model) else self.size.latent_dim,
            "seed": self.seed,
        }


def reproduce_sound(
    dataset: str, scale: str, models: Sequence[str], seeds: int, out: Path, where: Resources | None = None
) -> Path:
    """Train and score every model for the same time; write `table.json`, `.md`, `.csv`, `figure.png` and `wav/`.

    Args:
        dataset: A data set of sound, by name or path.
        scale: Entry of `SCALES`.
        models: Rows of the zoo; none for `ROWS`.
        seeds: Runs of each model, seeded 0, 1, ...
        out: The folder; a table in it is continued.
        where: Resources to train and score; default: on this machine.

    Returns:
        `out`.

    Raises:
        UsageError: for an unknown model or scale, and data that are no sound.
    """
    given, out = out, out.resolve()  # workers have working directories of their own
    size, names = SCALES[scale], tuple(dict.fromkeys(models)) or ROWS
    for name in names:
        _ = ZOO[name]
    source = data_name(dataset)
    data = load(DataConfig(source))[0]
    if data.sound is None:
        raise UsageError(f"data set '{dataset}' is no sound; give a folder of recordings, or fsdd")
    features = bundled_features(data)
    tasks = [Cell(out, name, seed, source, features, size) for seed in range(seeds) for name in names]
    for task in tasks:
        if (task.run / "config.json").exists():
            epochs = Run.open(task.run).config.training.epochs
            refuse_another(task.model, task.dataset, task.run, task.options | {"epochs": epochs})
    results: dict[str, dict[str, Any]] = {}
    with open_engine(where or Resources(), out) as engine:
        for done in engine.run(
            fill, tasks, engine.devices(len(tasks)), lambda task: out / "logs" / f"{task.label}.log"
        ):
            results[done.task.label] = done.result
            say(f"{done.task.label}: {len(results)} of {len(tasks)} done")
        here = engine.here
        space = pick_space(features, data, here)
        against = Statistics.of(space(data.test.x))
        others = {
            part: frechet_distance(Statistics.of(space(split.x)), against)
            for part, split in (("training", data.train), ("validation", data.validation))
        }
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for task in tasks:
        rows[task.model].append({"seed": task.seed, **results[task.label]})
    words = ["expost reproduce sound", f"--dataset {dataset}", f"--scale {scale}"]
    words += [f"--models {' '.join(models)}"] if models else []
    words += [f"--seeds {seeds}"] if seeds != 1 else []
    record = {
        "format": 1,
        "version": __version__,
        "command": " ".join(words),
        "hardware": summary([noted_hardware(task.hardware) for task in tasks], None),
        "dataset": source,
        "data": data.note,
        "recordings": others,
        "scale": {"name": scale, **to_json(size)},
        "rows": rows,
    }
    write_json(out / "table.json", record)
    write_text(out / "table.md", markdown(record))
    write_text(out / "table.csv", as_csv(record))
    runs = {name: (prior_of(name), Run.open(Cell(out, name, 0, source, features, size).run)) for name in names}
    pictures.save_picture(figure(runs, here), out / "figure.png")
    for name, (_, run) in runs.items():
        _write_sounds(run, name, out / "wav" / name, here)
    return given


def fill(task: Cell, device: str) -> dict[str, Any]:
    """Train a model for the scale's time and score it; skip what is done already.

    Returns:
        "training seconds", "epochs" and "scores".
    """
    options = task.options
    if not (task.run / "config.json").exists():
        planned = train(task.model, task.dataset, task.run, dry_run=True, device=device, **options)
        data = planned.data()
        step = measure_steps(planned.fresh_model(), data, planned.config.training)
        _, batches = planned.config.training.batches(len(data.train))
        options["epochs"] = max(1, round(task.size.seconds / (step * batches)))
    run = train_or_go_on(task.model, task.dataset, task.run, options, device, task.hardware)
    path = task.out / "cells" / f"{task.label}.json"
    asked = {
        "settings": defining_settings(run), "features": task.features, "samples": task.size.samples,
        "measures": list(MEASURES), "version": __version__, "model": run.weights_hash(),
    }  # fmt: skip
    cell = saved(path, asked)
    if cell is None:
        densities = tuple(dict.fromkeys((prior_of(task.model), *ex_post_of(task.model), by_label_of(task.model))))
        subjects = (RECONSTRUCTION, *densities)
        for name, given in task.size.densities.items():
            if name in densities:
                fit(run, name, options=given, device=device)
        if run.data().train.y is not None:
            name = by_label_of(task.model)
            fit(run, name, by="label", options=task.size.densities.get(name, {}), device=device)
        # of few examples a distance is too large, in every row alike
        protocol = Protocol(MEASURES, task.size.samples, seed=task.seed, allow_few=True)
        scores = score_run(run, subjects, task.features, protocol, device)
        cell = {"asked": asked, "scores": [to_json(score) for score in scores]}
        write_json(path, cell)
    return {
        "training seconds": training_seconds(run.folder),
        "epochs": run.finished_epochs(),
        "scores": cell["scores"],
    }


def _write_sounds(run: Run, row: str, folder: Path, device: str) -> None:
    """Write test recordings as their frames give them back, their reconstructions, and samples, each as one WAV."""
    kind = examples_of(run.config)
    assert isinstance(kind, Sound)
    generator, test = run.generator(device), run.data().test
    x = test.across(HEARD).x
    heard = {"recordings": x, "reconstructions": to_bytes(generator.reconstruct(x))}
    for name in dict.fromkeys((prior_of(row), *ex_post_of(row))):
        heard[f"samples-{name}"] = to_bytes(generator.sample(HEARD, name, seed=0))
    if (name := by_label_of(row)) in generator.by_label:
        labels = generator.by_label[name].labels
        drawn = torch.cat([generator.sample(1, name, seed=0, label=label) for label in labels])
        heard[f"samples-{name}-by-label"] = to_bytes(drawn)
    folder.mkdir(parents=True, exist_ok=True)
    for what, frames in heard.items():
        write_wav(joined(kind.spectrogram.waves(frames), kind.rate), kind.rate, folder / f"{what}.wav")
