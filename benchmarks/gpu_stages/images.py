"""Stages `mnist`, `cifar10`, `faces64`: the paper's models at the paper's scale, all four columns, and pictures."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from expost.commands import score_run
from expost.data import DATASETS, load_data
from expost.evaluation.protocol import INTERPOLATION, RECONSTRUCTION, Protocol
from expost.examples import pictures
from expost.metrics import FEATURES
from expost.models.autoencoder import build
from expost.models.presets import configure
from expost.models.zoo import ZOO
from expost.run import Run
from gpu_stages.bench import Bench, LeaveOut, Stage, Unit
from gpu_stages.speed import GUESSED_SHARE
from gpu_stages.steps import operations
from gpu_stages.trained import progress, train_until

#: Models, best first: the paper's most telling ones, then the rest of its table.
MODELS = ("rae-l2", "vae", "rae-gp", "wae-mmd", "rae-sn", "cv-vae", "rae", "ae", "ae-l2", "two-stage-vae")
#: What all scores are computed on.
SPACE = "inception-768"
#: Operations of an image's features, in FLOP: the trunk of Inception at 299x299.
FEATURE_OPERATIONS = 9.3e9
#: Examples of each split, where all is tiny.
FEW = 200


@dataclass(frozen=True)
class Task:
    """What a stage trains on.

    Attributes:
        name: Of the stage, and of its data set.
        data: Name or path of the data.
        limit: Examples of each split; None for all.
        space: Features to score with.
        counts: Training and test examples.
    """

    name: str
    data: str
    limit: int | None
    space: str
    counts: tuple[int, int]

    def folder(self, bench: Bench, model: str) -> Path:
        """Return the folder of a model's run."""
        return bench.work / "runs" / f"{self.name}-{model}"


def units(bench: Bench, name: str) -> Iterator[Unit]:
    """Yield a unit for each model."""
    task = _task(bench, name)
    for model in MODELS[:2] if bench.tiny else MODELS:
        yield _unit(bench, task, model)


def _task(bench: Bench, name: str) -> Task:
    shape, (train, _, test) = DATASETS[name].shape, DATASETS[name].counts
    found = DATASETS[name].origin.find(name) is not None
    if bench.tiny:
        data = name if found else _digits(bench.work / f"tiny-{name}.npz", shape)
        return Task(name, data, FEW, "pixels", (FEW, FEW))
    if not found:
        raise LeaveOut(f"{name} is not on this machine; put it into EXPOST_DATA/{name}")
    if not FEATURES[SPACE].available():
        raise LeaveOut("the weights of Inception are not on this machine; set EXPOST_WEIGHTS to their folder")
    return Task(name, name, None, SPACE, (train, min(test, 10_000)))


def _digits(path: Path, shape: tuple[int, int, int]) -> str:
    """Write digits of that shape to a file, to have something to train on; return its path."""
    if not path.exists():
        channels, side, _ = shape
        x = load_data("digits", size=side).train.x[: 3 * FEW].repeat(1, channels, 1, 1).numpy()
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, x_train=x[:FEW], x_val=x[FEW : 2 * FEW], x_test=x[2 * FEW :])
    return str(path)


def _unit(bench: Bench, task: Task, model: str) -> Unit:
    """Return the unit of a model: as long as the whole of it takes, or a start if none of the stage is there yet."""
    epochs, epoch = _epochs(bench, task, model)
    before = progress(task.folder(bench, model))
    whole, scoring = epoch * (epochs - before.epochs), _scoring(bench, task)
    called = bench.ledger.began
    first = not any(line["stage"] == task.name and line["call"] == called for line in bench.ledger.lines)
    need = whole + scoring
    if need > bench.left and first and not bench.tiny:
        need = 1.5 * epoch + scoring  # the budget does not hold one model: train it as far as it goes
    return Unit(model, partial(_train, task=task, model=model, reserve=scoring), need)


def _epochs(bench: Bench, task: Task, model: str) -> tuple[int, float]:
    """Return the epochs of a model, and how long one of them may take: as measured, or guessed from its operations."""
    epochs = 1 if bench.tiny else configure(model, DATASETS[task.name].shape, "paper")[1].epochs
    measured = bench.ledger.value(task.name, "an epoch, all told", model=model)
    if measured is not None:
        return epochs, measured
    step = {"row": "rae-l2", "arithmetic": bench.precision, "batch": 100}
    share = bench.ledger.value("speed", "share of the matrix product's rate", **step) or GUESSED_SHARE
    guess = _work(task.name, model, bench.tiny) * task.counts[0] / (share * bench.peaks[bench.precision])
    before = bench.ledger.last(task.name, "an epoch, guessed")
    if before is not None:  # as wrong as the last guess was
        guess *= before["settings"]["took"] / before["value"]
    return epochs, guess


@cache
def _work(name: str, model: str, tiny: bool) -> float:
    """Return the operations of a step for each image."""
    shape = DATASETS[name].shape
    config, _ = configure(model, shape, "paper", {"width": 8 if tiny else None})
    return operations(build(config).train(), torch.rand(4, *shape))


def _scoring(bench: Bench, task: Task) -> float:
    """Return how long it may take to score a model: as measured, or guessed."""
    measured = bench.ledger.value(task.name, "scoring")
    if measured is not None:
        return float(measured) * 1.2
    if bench.tiny:
        return 5.0
    images = 5 * task.counts[1]  # the test images and four columns
    return 15.0 + images * FEATURE_OPERATIONS / (0.5 * bench.peaks["float32"])


def _train(bench: Bench, task: Task, model: str, reserve: float) -> bool:
    """Train a model as far as the time goes, and score it."""
    folder = task.folder(bench, model)
    sizes = {"width": 8, "epochs": 1, "limit": task.limit} if bench.tiny else {}
    guess, before = _epochs(bench, task, model)[1], progress(folder)
    started, device = time.time(), str(bench.device)
    ends = started + bench.left - reserve
    now = train_until(ends, model, task.data, folder, preset="paper", precision=bench.precision, device=device, **sizes)
    settings = {"model": model, "epochs": now.epochs, "of": now.of, "precision": bench.precision}
    if fresh := now.epochs - before.epochs:
        epoch, all_told = (now.seconds - before.seconds) / fresh, (time.time() - started) / fresh
        bench.figure("an epoch, guessed", guess, "s", model=model, took=all_told)
        bench.figure(
            "an epoch, all told", all_told, "s", **settings, note="with checkpoints, and reading the data once"
        )
        bench.figure("an epoch", epoch, "s", **settings)
        bench.figure("training", now.seconds, "s", **settings)
        rate = task.counts[0] / epoch
        bench.figure("training images", rate, "images/s", **settings)
        share = rate * _work(task.name, model, bench.tiny) / bench.peaks[bench.precision]
        bench.figure("share of the matrix product's rate in training", share, "", **settings)
    if not now.epochs:
        bench.figure("no epoch was finished", None, "", **settings)
        return False
    started = time.time()
    run = Run.open(folder)
    prior = ZOO[model].prior
    assert prior is not None
    columns = {RECONSTRUCTION: "Rec", prior.name: "N", "gmm": "GMM", INTERPOLATION: "Interp"}
    protocol = Protocol(("frechet",), allow_few=bench.tiny)
    for score in score_run(run, tuple(columns), task.space, protocol, device):
        if score.of in columns:
            name = f"{columns[score.of]}, {score.name}"
            bench.figure(name, score.value, "", **settings, features=task.space, images=score.card.count)
    _picture(bench, task, run, model, prior.name)
    bench.figure("scoring", time.time() - started, "s", model=model)
    return now.whole


def _picture(bench: Bench, task: Task, run: Run, model: str, prior: str) -> None:
    """Draw a model's strip, and the sheet of all strips of the stage."""
    generator = run.generator(str(bench.device))
    x = load_data(task.data, limit=task.limit).test.x[:10]
    drawn = [pictures.pairs(x, generator.reconstruct(x), 10)]
    drawn += [pictures.grid(generator.sample(10, density, seed=0), 10) for density in dict.fromkeys((prior, "gmm"))]
    titles = (f"{model}: test images and reconstructions", f"{model}: {prior}", f"{model}: gmm")
    strips = bench.work / "strips"
    strips.mkdir(parents=True, exist_ok=True)
    pictures.save_picture(
        pictures.panel(list(zip(titles, drawn, strict=False)), 1), strips / f"{task.name}-{model}.png"
    )
    files = [strips / f"{task.name}-{each}.png" for each in MODELS]
    found = [Image.open(path).convert("RGB") for path in files if path.exists()]
    sheet = Image.new("RGB", (max(each.width for each in found), sum(each.height for each in found)), "white")
    top = 0
    for strip in found:
        sheet.paste(strip, (0, top))
        top += strip.height
    pictures.save_picture(sheet, bench.out / f"{task.name}.png")


def expected(bench: Bench, name: str) -> float:
    """Return how long a model may take, as a guess before anything is measured."""
    try:
        task = _task(bench, name)
    except LeaveOut:
        return 0.0
    epochs, epoch = _epochs(bench, task, MODELS[0])
    return epochs * epoch + _scoring(bench, task)


STAGES = tuple(
    Stage(
        name,
        f"preset paper on {name}, {len(MODELS)} models, as many as fit; the time is that of the first",
        partial(units, name=name),
        partial(expected, name=name),
    )
    for name in ("mnist", "cifar10", "faces64")
)
