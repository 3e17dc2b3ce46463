"""Table 1 of Ghosh et al. 2020: every image model, its reconstructions, own samples, ex-post samples and mid-points.

A cell is a run folder; one that is finished is not done again, one that was interrupted goes on. All models of a table
share the data, the networks, the features and the counts; and the number of epochs, except where the paper's differ.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from expost import __version__, pictures
from expost.commands import data_name, evaluate, train
from expost.config import DataConfig, to_json
from expost.errors import UsageError
from expost.evaluation import resolve_features
from expost.registry import Registry
from expost.run import Run, load
from expost.store import read_json, write_json, write_text
from expost.zoo import ZOO

#: The paper's rows, in its order.
ROWS = ("vae", "cv-vae", "wae-mmd", "two-stage-vae", "rae-gp", "rae-l2", "rae-sn", "rae", "ae", "ae-l2")
COLUMNS = ("Rec", "N", "GMM", "Interp")

#: The paper's FID with 10,000 samples against the test set, for the columns above; None where it gives none. On full
#: Inception features only: a table of other features does not show them.
EXPECTED: Mapping[str, Mapping[str, tuple[float | None, ...]]] = {
    "mnist": {
        "vae": (18.26, 19.21, 17.66, 18.21),
        "cv-vae": (15.15, 33.79, 17.87, 25.12),
        "wae-mmd": (10.03, 20.42, 9.39, 14.34),
        "two-stage-vae": (20.31, 18.81, None, 18.35),
        "rae-gp": (14.04, 22.21, 11.54, 15.32),
        "rae-l2": (10.53, 22.22, 8.69, 14.54),
        "rae-sn": (15.65, 19.67, 11.74, 15.15),
        "rae": (11.67, 23.92, 9.81, 14.67),
        "ae": (12.95, 58.73, 10.66, 17.12),
        "ae-l2": (11.19, 315.15, 9.36, 17.15),
    },
    "cifar10": {
        "vae": (57.94, 106.37, 103.78, 88.62),
        "cv-vae": (37.74, 94.75, 86.64, 69.71),
        "wae-mmd": (35.97, 117.44, 93.53, 76.89),
        "two-stage-vae": (62.54, 109.77, None, 89.06),
        "rae-gp": (32.17, 83.05, 76.33, 64.08),
        "rae-l2": (32.24, 80.80, 74.16, 62.54),
        "rae-sn": (27.61, 84.25, 75.30, 63.62),
        "rae": (29.05, 83.87, 76.28, 63.27),
        "ae": (30.52, 84.74, 76.47, 61.57),
        "ae-l2": (34.35, 247.48, 75.40, 61.09),
    },
    "celeba": {
        "vae": (39.12, 48.12, 45.52, 44.49),
        "cv-vae": (40.41, 48.87, 49.30, 44.96),
        "wae-mmd": (34.81, 53.67, 42.73, 40.93),
        "two-stage-vae": (42.04, 49.70, None, 47.54),
        "rae-gp": (39.71, 116.30, 45.63, 47.00),
        "rae-l2": (43.52, 51.13, 47.97, 45.98),
        "rae-sn": (36.01, 44.74, 40.95, 39.53),
        "rae": (40.18, 48.20, 44.68, 43.67),
        "ae": (40.79, 127.85, 45.10, 50.94),
        "ae-l2": (44.72, 346.29, 48.42, 56.16),
    },
}


@dataclass(frozen=True)
class Scale:
    """How much of everything.

    Attributes:
        preset: Where settings come from.
        epochs: Passes over the training set; None takes the preset's.
        limit: Largest number of examples of each split; None takes all.
        width: Width of the networks; None takes the preset's.
        samples: Images per column; None takes as many as there are test images, at most 10,000.
    """

    preset: str
    epochs: int | None
    limit: int | None
    width: int | None
    samples: int | None


SCALES: Registry[Scale] = Registry(
    "scale",
    {
        "smoke": Scale("small", epochs=1, limit=1_000, width=8, samples=200),
        "quick": Scale("small", epochs=3, limit=None, width=16, samples=1_000),
        "small": Scale("small", epochs=5, limit=None, width=None, samples=2_000),
        "paper": Scale("paper", epochs=None, limit=None, width=None, samples=None),
    },
)


def reproduce_table1(
    dataset: str,
    scale: str,
    models: Sequence[str],
    seeds: int,
    features: str,
    out: Path,
    device: str,
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

    Returns:
        `out`.
    """
    size = SCALES[scale]
    names = tuple(models) or ROWS
    for name in names:
        _ = ZOO[name]
    started = time.perf_counter()
    # one choice for the whole table, so that no two rows are scored on different features
    features = resolve_features(features, load(DataConfig(data_name(dataset), limit=size.limit))[0])
    cells: dict[str, list[dict[str, Any]]] = {}
    for name in names:
        for seed in range(seeds):
            folder = out / "runs" / f"{name}-{seed}"
            scores = _cell(folder, name, dataset, size, seed, features, device)
            cells.setdefault(name, []).append({"run": str(folder.relative_to(out)), "scores": scores})
    hardware = _hardware(device)
    record = {
        "format": 1,
        "version": __version__,
        "command": _command(dataset, scale, models, seeds, features),
        "hardware": hardware,
        "seconds": round(sum(_seconds(out / cell["run"]) for row in cells.values() for cell in row), 1),
        "seconds_now": round(time.perf_counter() - started, 1),
        "dataset": dataset,
        "scale": {"name": scale, **to_json(size)},
        "rows": {name: {"prior": _prior(name), "cells": row} for name, row in cells.items()},
    }
    write_json(out / "table.json", record)
    write_text(out / "table.md", markdown(record))
    runs = {name: Run.open(out / row[0]["run"]) for name, row in cells.items()}
    if all(len(run.config.model.shape) == 3 for run in runs.values()):
        pictures.save_picture(figure(runs, device), out / "figure.png")
    return out


def _cell(
    folder: Path, name: str, dataset: str, size: Scale, seed: int, features: str, device: str
) -> list[dict[str, Any]]:
    """Train and score one cell, or return what was found when it was last done as it is asked for now.

    Raises:
        UsageError: if the folder holds a run with other settings.
    """
    options: dict[str, Any] = {"epochs": size.epochs, "limit": size.limit, "width": size.width, "seed": seed}
    options |= {"preset": size.preset, "device": device}
    planned = _settings(train(name, dataset, folder, dry_run=True, **options))
    resume = (folder / "config.json").exists()
    if resume and _settings(Run.open(folder)) != planned:
        raise UsageError(f"{folder} holds a run with other settings than this table's; choose another --out")
    done = folder / f"cell-{features}.json"
    asked = {"settings": planned, "features": features, "samples": size.samples, "version": __version__}
    if done.exists():
        saved = read_json(done)
        if isinstance(saved, dict) and saved.get("asked") == asked:
            return list(saved["scores"])
    run = train(name, dataset, folder, resume=resume, **({} if resume else options))
    prior = _prior(name)
    densities = tuple(dict.fromkeys(each for each in (prior, "gmm") if each is not None))
    scores = evaluate(run, densities=densities, samples=size.samples, features=features, seed=seed, device=device)
    plain = [to_json(score) for score in scores]
    write_json(done, {"asked": asked, "scores": plain})
    return plain


def _settings(run: Run) -> dict[str, Any]:
    """Return what decides a run's weights."""
    config = to_json(run.config)
    training = {key: value for key, value in config["training"].items() if key not in ("device", "tensorboard")}
    return {"model": config["model"], "training": training, "data": config["data"]}


def _prior(name: str) -> str | None:
    prior = ZOO[name].prior
    return None if prior is None else prior.name


def _seconds(folder: Path) -> float:
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return float(json.loads(lines[-1])["seconds"])


def _hardware(device: str) -> str:
    cuda = torch.cuda.is_available() and device != "cpu"
    return torch.cuda.get_device_name() if cuda else f"{torch.get_num_threads()} threads of {platform.machine()}"


def _command(dataset: str, scale: str, models: Sequence[str], seeds: int, features: str) -> str:
    words = ["expost reproduce table1", f"--dataset {dataset}", f"--scale {scale}"]
    words += [f"--models {' '.join(models)}"] if models else []
    words += [f"--seeds {seeds}"] if seeds != 1 else []
    return " ".join([*words, f"--features {features}"])


def columns(row: Mapping[str, Any]) -> dict[str, list[float]]:
    """Return a row's Frechet distances by column, one a seed; a column without values is left out."""
    subjects = {"Rec": "reconstruction", "N": row["prior"], "GMM": "gmm", "Interp": "interpolation"}
    found: dict[str, list[float]] = {}
    for cell in row["cells"]:
        for score in cell["scores"]:
            for column, subject in subjects.items():
                if score["of"] == subject and score["name"] not in ("mse", "psnr", "ssim"):
                    found.setdefault(column, []).append(score["value"])
    return found


def markdown(record: Mapping[str, Any]) -> str:
    """Return the table as Markdown, with the command, the hardware and the protocol above it."""
    first = next(iter(record["rows"].values()))["cells"][0]["scores"][0]
    card, name = first["card"], first["name"]
    expected = EXPECTED.get(record["dataset"], {}) if name == "fid" else {}
    own = ", ".join(f"{key} {row['prior']}" for key, row in record["rows"].items())
    lines = [
        f"# {record['dataset']}, scale {record['scale']['name']}: {name}, lower is better",
        "",
        f"    {record['command']}",
        "",
        f"{record['hardware']}; {record['seconds']:.0f} s of training; expost {record['version']}. "
        f"Features: {card['features']} (weights {card['weights'][:12]}), {json.dumps(card['preprocessing'])}. "
        f"{card['count']:,} reconstructions, {record['scale']['samples'] or card['count']:,} samples, "
        f"against {card['reference']} ({card['reference_count']:,}). N is each model's own density: {own}.",
        "",
        "| model | " + " | ".join(COLUMNS) + " | MSE |" + (" paper Rec / N / GMM / Interp |" if expected else ""),
        "|---|" + "---|" * (len(COLUMNS) + 1 + bool(expected)),
    ]
    for key, row in record["rows"].items():
        values = columns(row)
        error = [s["value"] for cell in row["cells"] for s in cell["scores"] if s["name"] == "mse"]
        shown = [_mean(values.get(column, [])) for column in COLUMNS] + [_mean(error, digits=5)]
        paper = " / ".join("-" if v is None else f"{v:g}" for v in expected[key]) if key in expected else ""
        lines.append(f"| {key} | " + " | ".join(shown) + " |" + (f" {paper} |" if expected else ""))
    return "\n".join(lines) + "\n"


def _mean(values: Sequence[float], digits: int = 3) -> str:
    if not values:
        return "-"
    spread = f" ± {np.std(values, ddof=1):.2g}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}g}{spread}"


def figure(runs: Mapping[str, Run], device: str = "auto", n: int = 8) -> Any:
    """Draw a row a model: reconstructions, samples of its own density, ex-post samples, an interpolation.

    Args:
        runs: Evaluated runs by name.
        device: Where to decode.
        n: Images of each kind.
    """
    sections = []
    for name, run in runs.items():
        generator, data = run.generator(device), run.data()
        x = data.test.x[:n]
        ends = data.test.x[n : n + 2]
        prior = _prior(name)
        parts = [pictures.to_bytes(generator.reconstruct(x))]
        parts += [
            pictures.to_bytes(generator.sample(n, key, seed=0)) for key in (prior, "gmm") if key in generator.densities
        ]
        parts.append(pictures.to_bytes(generator.interpolate(ends[:1], ends[1:], torch.linspace(0, 1, n))[0]))
        sections.append((name, pictures.grid(torch.cat([x, *parts]), n)))
    return pictures.panel(sections, columns=5)
