"""The runs behind a table: what defines one, whether it is done, and what was saved of it."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from expost.commands import train
from expost.config import DataConfig, ModelConfig, TrainingConfig, to_json
from expost.errors import UsageError
from expost.experiments.hardware import note_hardware
from expost.run import Run
from expost.utils.store import read_json

#: Types of defaults that JSON holds unchanged.
_PLAIN = (type(None), bool, int, float, str)
#: Settings that do not affect the weights.
_INDIFFERENT = ("device", "tensorboard", "checkpoint_seconds", "resized_by")


@dataclass(frozen=True)
class Task:
    """A model of a table: what is trained, and where it lies.

    Attributes:
        out: The table's folder.
        model: Row of the zoo.
        seed: Seeds training, densities and samples.
        dataset: Data set's name or path.
        features: Features to score with.
    """

    out: Path
    model: str
    seed: int
    dataset: str
    features: str

    @property
    def label(self) -> str:
        """Name of its run's folder."""
        return f"{self.model}-{self.seed}"

    @property
    def run(self) -> Path:
        """The folder of its run."""
        return self.out / "runs" / self.label

    @property
    def hardware(self) -> Path:
        """The file that notes the hardware it was trained on."""
        return self.out / "hardware" / f"{self.label}.json"

    def file(self, subject: str) -> Path:
        """Return the file of one of its cells."""
        return self.out / "cells" / self.label / f"{subject}.json"


def defining_settings(run: Run, leaving_out: Collection[str] = ()) -> dict[str, Any]:
    """Return the settings that decide a run's weights, without those in `leaving_out`."""
    config = to_json(run.config)
    left_out = {*_INDIFFERENT, *leaving_out}
    training, data = (
        {key: value for key, value in config[part].items() if key not in left_out} for part in ("training", "data")
    )
    return {"model": config["model"], "training": training, "data": data}


def refuse_another(model: str, data: str, folder: Path, options: Mapping[str, Any]) -> None:
    """Refuse a run's folder that holds a run with other settings than these.

    Raises:
        UsageError: if it does.
    """
    if (folder / "config.json").exists():
        planned = train(model, data, folder, dry_run=True, **options)
        # unless given, the precision is that of the machine that began the run
        free = () if "precision" in options else ("precision",)
        if defining_settings(Run.open(folder), free) != defining_settings(planned, free):
            raise UsageError(f"{folder} holds a run with other settings than these; choose another --out")


def train_or_go_on(model: str, data: str, folder: Path, options: Mapping[str, Any], device: str, hardware: Path) -> Run:
    """Train a run, or resume it, also on another device; a finished run is left as it is.

    Args:
        model: Row of the zoo.
        data: Data set's name or path.
        folder: The run's folder.
        options: Options of `train`, without the device.
        device: What to train on.
        hardware: Where to note what it is trained on.
    """
    if not (folder / "config.json").exists():
        note_hardware(hardware, device)
        return train(model, data, folder, device=device, **options)
    run = Run.open(folder)
    if _finished(run):
        return run
    note_hardware(hardware, device)
    return train(model, data, folder, resume=True, device=device)


def _finished(run: Run) -> bool:
    path = run.folder / "metrics.jsonl"
    if not path.exists() or not (run.folder / "model.safetensors").exists():
        return False
    return run.finished_epochs() >= run.config.training.epochs


def density_hash(run: Run, subject: str) -> dict[str, str]:
    """Return the hash of the fitted density, which samples depend on besides the weights; empty if there is none."""
    path = run.folder / "densities" / f"{subject}.safetensors"
    return {"density": hashlib.sha256(path.read_bytes()).hexdigest()} if path.exists() else {}


def saved(path: Path, asked: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return a finished cell; None if there is none, or it was made under other settings."""
    found = read_json(path) if path.exists() else None
    if not isinstance(found, dict) or not isinstance(found.get("asked"), dict):
        return None
    settings = _completed(found["asked"].get("settings"))
    return found if {**found["asked"], "settings": settings} == asked else None


def _completed(settings: Any) -> Any:
    """Add settings that are newer than a cell, at their defaults."""
    kinds = {"model": ModelConfig, "training": TrainingConfig, "data": DataConfig}
    if not isinstance(settings, dict) or not all(isinstance(settings.get(part), dict) for part in kinds):
        return settings
    plain = {
        part: {each.name: each.default for each in fields(kind) if isinstance(each.default, _PLAIN)}
        for part, kind in kinds.items()
    }
    return {
        part: {key: value for key, value in (plain[part] | settings[part]).items() if key not in _INDIFFERENT}
        for part in kinds
    }


def comma_separated(rows: Sequence[Mapping[str, Any]]) -> str:
    r"""Return rows as CSV, with a heading; a column is there if any row has it, and empty where one has not.

    Example:
        >>> comma_separated([{"model": "ae", "seed": 0}, {"model": "rae, ours", "FID": 1.5}])
        'model,seed,FID\nae,0,\n"rae, ours",,1.5\n'
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
