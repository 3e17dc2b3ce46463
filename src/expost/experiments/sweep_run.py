"""One run of a sweep: trained, fitted, and scored on the validation and the test split."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from expost._version import __version__
from expost.commands import score_run
from expost.config import to_json
from expost.densities import DENSITIES
from expost.errors import DataError
from expost.evaluation.protocol import RECONSTRUCTION, Protocol
from expost.evaluation.scores import Score
from expost.evaluation.scoring import Request, scorer_of, stage_of
from expost.experiments.cells import defining_settings, density_hash, saved, train_or_go_on
from expost.experiments.hardware import hardware, noted_hardware, training_seconds
from expost.models.zoo import ZOO
from expost.run import Run
from expost.utils.store import write_json


@dataclass(frozen=True)
class Job:
    """One run of a sweep.

    Attributes:
        out: The sweep's folder.
        model: Row of the zoo.
        data: Data set's name or path.
        options: Options of `train` by name, and those of slots by slot.name.
        protocol: How to score; its seed is also that of training and densities.
        densities: Densities to fit and score; empty: the model's own and gmm.
        features: Features to score with.
    """

    out: Path
    model: str
    data: str
    options: tuple[tuple[str, Any], ...]
    protocol: Protocol
    densities: tuple[str, ...]
    features: str

    @property
    def label(self) -> str:
        """Name of its folder: the model, all that is set, and the seed."""
        words = [
            self.model,
            *(f"{name}={_text(value)}" for name, value in sorted(self.options)),
            f"seed={self.protocol.seed}",
        ]
        plain = "_".join(words)
        name = re.sub(r"[^\w.=+-]", "-", plain)
        if name == plain and len(name) <= 120:
            return name
        return f"{name[:100]}_{hashlib.sha256(plain.encode()).hexdigest()[:8]}"  # shortened names must stay distinct

    @property
    def run(self) -> Path:
        """The folder of its run."""
        return self.out / "runs" / self.label

    @property
    def result(self) -> Path:
        """The file of its scores."""
        return self.out / "results" / f"{self.label}.json"

    @property
    def hardware(self) -> Path:
        """The file that notes the hardware it was trained on."""
        return self.out / "hardware" / f"{self.label}.json"

    @property
    def training(self) -> dict[str, Any]:
        """Options of `train`."""
        return {**as_options(self.options), "seed": self.protocol.seed}

    def subjects(self) -> tuple[str, ...]:
        """Return what is scored."""
        own = ZOO[self.model].prior.name
        usual = (own,) if DENSITIES[own].of_symbols else (own, "gmm")
        return (RECONSTRUCTION, *dict.fromkeys(self.densities or usual))


def as_options(chosen: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Return settings as keywords of `train`; those of slots, which have a dot, become its `options`."""
    named = {name: value for name, value in chosen if "." not in name}
    return {**named, "options": {name: value for name, value in chosen if "." in name}}


def fill(job: Job, device: str) -> dict[str, Any]:
    """Train, fit and score a run; skip what is done already.

    Returns:
        "validation" and "test" scores, the validation "loss", seconds and hardware; or what "failed", so that a run
        that diverges does not end the sweep.
    """
    started = time.perf_counter()
    try:
        run = train_or_go_on(job.model, job.data, job.run, job.training, device, job.hardware)
        return _scored(job, run, device)
    except DataError as error:
        seconds = round(time.perf_counter() - started, 1)
        used = {"training": noted_hardware(job.hardware)}
        return {"failed": str(error), "seconds": 0.0, "training seconds": seconds, "hardware": used}


def _scored(job: Job, run: Run, device: str) -> dict[str, Any]:
    asked = {
        "settings": defining_settings(run), "features": job.features, "protocol": to_json(job.protocol),
        "version": __version__, "model": run.weights_hash(), "subjects": list(job.subjects()),
    }  # fmt: skip

    def full() -> dict[str, Any]:
        return asked | {"densities": [density_hash(run, subject) for subject in job.subjects()]}

    found = saved(job.result, full())
    if found is None:
        started = time.perf_counter()
        test = score_run(run, job.subjects(), job.features, job.protocol, device)
        validation = validation_scores(run, job.subjects(), job.features, job.protocol, device)
        if any(score.card.model != asked["model"] for score in (*test, *validation)):
            raise DataError(f"{job.run} was trained on while it was scored; give the command again")
        found = {
            "asked": full(), "scored on": hardware(device), "seconds": round(time.perf_counter() - started, 1),
            "validation": [to_json(score) for score in validation], "test": [to_json(score) for score in test],
        }  # fmt: skip
        write_json(job.result, found)
    return {
        "run": str(job.run.relative_to(job.out)),
        "loss": _loss(run),
        "training seconds": training_seconds(run.folder),
        "hardware": {"training": noted_hardware(job.hardware), "scoring": [found["scored on"]]},
        **{key: found[key] for key in ("seconds", "validation", "test")},
    }


def validation_scores(
    run: Run, subjects: Sequence[str], features: str, protocol: Protocol, device: str = "auto"
) -> list[Score]:
    """Score a run against its validation split, for choosing; densities among the subjects must be fitted."""
    data = run.data()
    held = replace(data, test=data.validation)
    stage = stage_of(run.config.model, subjects)
    score_with = scorer_of(Request(held, run.config.data.codec, features, protocol, device, stage))
    generator = run.generator(device)
    return score_with(generator, subjects, generator.weights, "validation")


def _loss(run: Run) -> float:
    lines = (run.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    validation = [json.loads(line)["validation"] for line in lines]
    # without the regularizer, whose weight may be what is swept
    beta = run.config.model.beta
    return min(each["reconstruction"] + beta * each["penalty"] for each in validation)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
