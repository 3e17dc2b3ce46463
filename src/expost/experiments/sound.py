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

import numpy as np
import torch

from expost._version import __version__
from expost.commands import data_name, fit, score_run, train
from expost.config import DataConfig, to_json
from expost.densities import DENSITIES
from expost.errors import UsageError
from expost.evaluation.catalog import INTENDED, KEPT, direction_of
from expost.evaluation.protocol import RECONSTRUCTION, Protocol, bundled_features, pick_space
from expost.examples import examples_of, pictures
from expost.examples.pictures import to_bytes
from expost.examples.sound import Sound
from expost.examples.waves import joined, write_wav
from expost.experiments.cells import Task, comma_separated, defining_settings, refuse_another, saved, train_or_go_on
from expost.experiments.engines import Resources, open_engine
from expost.experiments.hardware import noted_hardware, summary, training_seconds
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
#: The density ex post, and the one by label.
EX_POST, BY_LABEL = "gmm", "gaussian"
#: Measures of samples, besides whether digits are heard as intended.
MEASURES = ("frechet",)
#: Recordings that can be heard of each model; half the width of a 95 % interval in standard errors.
HEARD, WIDTH = 16, 1.96


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
            "latent_dim": None if _of_symbols(self.model) else self.size.latent_dim,
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
    runs = {name: (_prior(name), Run.open(Cell(out, name, 0, source, features, size).run)) for name in names}
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
        densities = tuple(dict.fromkeys((_prior(task.model), *_ex_post(task.model), _by_label(task.model))))
        subjects = (RECONSTRUCTION, *densities)
        for name, given in task.size.densities.items():
            if name in densities:
                fit(run, name, options=given, device=device)
        if run.data().train.y is not None:
            name = _by_label(task.model)
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


def _prior(row: str) -> str:
    """Return a model's own density."""
    return ZOO[row].prior.name


def _of_symbols(row: str) -> bool:
    """Return whether a model's codes are symbols, whose density learns all labels together."""
    return DENSITIES[_prior(row)].of_symbols


def _ex_post(row: str) -> tuple[str, ...]:
    """Return the density that is compared ex post, if there is one of such codes beside the model's own."""
    return () if _of_symbols(row) else (EX_POST,)


def _by_label(row: str) -> str:
    """Return the density that is fitted by label."""
    return _prior(row) if _of_symbols(row) else BY_LABEL


def _write_sounds(run: Run, row: str, folder: Path, device: str) -> None:
    """Write test recordings as their frames give them back, their reconstructions, and samples, each as one WAV."""
    kind = examples_of(run.config)
    assert isinstance(kind, Sound)
    generator, test = run.generator(device), run.data().test
    x = test.x[test.spread(HEARD)]
    heard = {"recordings": x, "reconstructions": to_bytes(generator.reconstruct(x))}
    for name in dict.fromkeys((_prior(row), *_ex_post(row))):
        heard[f"samples-{name}"] = to_bytes(generator.sample(HEARD, name, seed=0))
    if (name := _by_label(row)) in generator.by_label:
        labels = generator.by_label[name].labels
        drawn = torch.cat([generator.sample(1, name, seed=0, label=label) for label in labels])
        heard[f"samples-{name}-by-label"] = to_bytes(drawn)
    folder.mkdir(parents=True, exist_ok=True)
    for what, frames in heard.items():
        write_wav(joined(kind.spectrogram.waves(frames), kind.rate), kind.rate, folder / f"{what}.wav")


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
        "N": ("frechet", _prior(row)),
        "GMM": ("frechet", next(iter(_ex_post(row)), None)),
        "kept digit": (KEPT, RECONSTRUCTION),
        "intended digit": (INTENDED, f"{_by_label(row)} by label"),
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
        f"against {card['reference']} ({card['reference_count']:,}), lower is better, ± standard error"
        + (" (of the first seed; mean over seeds)." if len(next(iter(rows.values()))) > 1 else "."),
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
    error = values[0][1]
    return f"{np.mean([value for value, _ in values]):.3g}" + ("" if np.isnan(error) else f" ± {error:.2g}")


def findings(rows: Mapping[str, list[Mapping[str, Any]]], shown: Sequence[str]) -> list[str]:
    """Say which model is best in each column, and which are as good: those whose 95 % interval meets the best one's.

    Args:
        rows: Cells by model.
        shown: The columns.
    """
    lines = []
    for name in shown:
        found = {row: values[0] for row, cells in rows.items() if (values := column(cells, *_columns(row)[name]))}
        if len(found) < 2:
            continue
        higher = direction_of(_columns("vae")[name][0]).sign > 0
        best = (max if higher else min)(found, key=lambda row: found[row][0])
        value, error = found[best]
        near = [
            row
            for row, (other, own) in found.items()
            if row != best and abs(other - value) <= WIDTH * (np.nan_to_num(error) + np.nan_to_num(own))
        ]
        alike = (
            f"; not told apart from it: {', '.join(near)}" if near else "; all others are worse beyond the intervals"
        )
        lines.append(f"- {name}: best is {best} ({value:.3g}){alike}.")
    if (vae := column(rows.get("vae", ()), *_columns("vae")["N"])) and "GMM" in shown:
        ours = {row: column(cells, *_columns(row)["GMM"]) for row, cells in rows.items() if row.startswith("rae")}
        below = [row for row, values in ours.items() if values and values[0][0] < vae[0][0]]
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
