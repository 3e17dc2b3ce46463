"""Whether a run's folder is whole: each file by itself, and against the others."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from expost.commands.arguments import RunLike
from expost.errors import DataError, UsageError
from expost.evaluation.scores import saved_scores, score_from_json

if TYPE_CHECKING:
    from expost.run import Run
    from expost.training.loop import Position
    from expost.utils.store import TensorFile

T = TypeVar("T")

State = Literal["right", "wrong", "not checked"]
#: What a run's folder is known by.
KNOWN = ("config.json", "model.safetensors", "checkpoint.safetensors", "metrics.jsonl")


@dataclass(frozen=True)
class Finding:
    """What there is to say of one file.

    Attributes:
        file: Its path in the run's folder.
        state: Whether it is right or wrong, or was not checked.
        what: What it is, and what is wrong with it, in words.
        remedy: What to do; empty where it is right.
    """

    file: str
    state: State
    what: str
    remedy: str = ""


def check_run(run: RunLike) -> list[Finding]:
    """Check a run's folder file by file; nothing is changed, and no data are needed.

    Each file is read as the commands read it, with its checksum and its format version, and compared with the others:
    the configuration with the shapes of the weights, the records of epochs with weights and checkpoints, densities and
    scores with the hash of the weights. The checkpoint is loaded into a model and an optimizer. What depends on a file
    that is wrong is not checked.

    Args:
        run: A run; given its folder, the weights of networks of your own are not compared with the configuration.

    Returns:
        A finding for each file that is there, or should be.

    Raises:
        DataError: if the folder is no run's.

    Example:
        >>> check_run("runs/nowhere")
        Traceback (most recent call last):
        ...
        expost.errors.DataError: runs/nowhere is no run's folder; give a folder that expost train made
    """
    from expost.run import Run

    folder = run.folder if isinstance(run, Run) else Path(run)
    if not any((folder / name).is_file() for name in KNOWN):
        raise DataError(f"{folder} is no run's folder; give a folder that expost train made")
    return _Check(folder, run if isinstance(run, Run) else None).all()


@dataclass
class _Check:
    """The check of one folder, and what it has learned of it so far."""

    folder: Path
    run: Run | None
    found: dict[str, Finding] = field(default_factory=dict)
    weights: TensorFile | None = None
    epochs: list[dict[str, Any]] | None = field(default_factory=list)

    def all(self) -> list[Finding]:
        for part in (self._config, self._records, self._model, self._checkpoints, self._densities, self._scores):
            part()
        for folder in sorted((self.folder / "search").glob("*/")):
            self._search(folder)
        self._others()
        return [self.found[name] for name in sorted(self.found, key=lambda name: (name.count("/") > 0, name))]

    # --------------------------------------------------------------------------------------------------- saying so

    def _name(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()

    def _right(self, path: Path, what: str) -> None:
        self.found[self._name(path)] = Finding(self._name(path), "right", what)

    def _wrong(self, path: Path, what: str, remedy: str) -> None:
        self.found[self._name(path)] = Finding(self._name(path), "wrong", what, remedy)

    def _unknown(self, path: Path, what: str) -> None:
        self.found[self._name(path)] = Finding(self._name(path), "not checked", what)

    def _is_wrong(self, name: str) -> bool:
        return name in self.found and self.found[name].state == "wrong"

    def _read(self, path: Path, read: Callable[[], T]) -> T | None:
        """Return what a file holds; None, after saying so, if it cannot be read."""
        try:
            return read()
        except (DataError, UsageError, OSError) as error:
            what, _, remedy = " ".join(str(error).split()).rpartition("; ")
            what = (what or remedy).replace(f"{path}: ", "").replace(f"cannot read {path}", "cannot be read")
            self._wrong(path, what, remedy if what != remedy else "restore it")
            return None

    def _record(self, path: Path) -> dict[str, Any] | None:
        """Return a JSON record of ours that is as it was written."""
        from expost.utils.store import read_json, seal_broken

        record = self._read(path, lambda: read_json(path))
        if record is None:
            return None
        if not isinstance(record, dict):
            self._wrong(path, "holds no record", "restore it")
        elif seal_broken(record):
            self._wrong(path, "was changed since expost wrote it", "restore it, unless you changed it on purpose")
        else:
            return record
        return None

    # ------------------------------------------------------------------------------------------------- the training

    def _config(self) -> None:
        from expost.config import run_config_from_json
        from expost.run import Run

        path = self.folder / "config.json"
        if not path.is_file():
            self._wrong(path, "is missing", "restore it: without it the folder is no run")
            return
        record = self._record(path)
        if record is None:
            return
        config = self._read(path, lambda: run_config_from_json(record, path))
        if config is None:
            return
        if self.run is None and not config.own_networks:
            self.run = Run(self.folder, config)
        self._right(path, f"configuration, format {config.format}, of expost {config.version}")

    def _records(self) -> None:
        """Check the records of epochs: each line, and that none is missing between."""
        from expost.utils.store import seal_broken

        path = self.folder / "metrics.jsonl"
        if not path.is_file():
            return
        self.epochs = None
        lines = self._read(path, lambda: path.read_bytes().decode("utf-8", "replace").splitlines(keepends=True))
        records: list[dict[str, Any]] = []
        for number, line in enumerate(lines or (), 1):
            if not line.endswith("\n"):
                self._wrong(path, f"line {number} was cut off", "expost train --resume drops it")
                return
            try:
                record = json.loads(line)
                epoch, _ = int(record["epoch"]), float(record["validation"]["total"])
            except (ValueError, KeyError, TypeError):
                self._wrong(path, f"line {number} is no record of an epoch", "restore it, or remove that line")
                return
            if seal_broken(record) or epoch != number:
                what = f"is of epoch {epoch}" if epoch != number else "was changed since it was written"
                self._wrong(path, f"line {number} {what}", "restore it")
                return
            records.append(record)
        if lines is not None:
            self.epochs = records
            self._right(path, f"records of {len(records)} epoch{'s' * (len(records) != 1)}")

    def _best(self, epoch: int) -> float | None:
        """Return the lowest validation loss up to an epoch, as the records have it."""
        losses = [each["validation"]["total"] for each in (self.epochs or ())[:epoch]]
        return min(losses, default=None)

    def _model(self) -> None:
        from expost.run import Run
        from expost.sharing.layout import open_untrusted
        from expost.utils.store import read_tensor_file, read_tensors_record

        path = self.folder / "model.safetensors"
        begun = self.epochs is None or bool(self.epochs) or (self.folder / "densities").is_dir()
        if not path.is_file():
            if begun:
                self._wrong(path, "is missing", "restore it, or train the model again in another folder")
            return
        file = self._read(path, lambda: read_tensor_file(path))
        if file is None:
            return
        wrong = [name for name, x in file.tensors.items() if x.is_floating_point() and not bool(x.isfinite().all())]
        if wrong:
            self._wrong(path, f"tensor '{wrong[0]}' is not finite", "restore it")
            return
        run, note = self.run, "weights"
        if run is not None:
            if not run.config.own_networks:  # sizes first: a configuration may ask for any amount of memory
                run = self._read(path, lambda: open_untrusted(self.folder))
            if run is None or self._read(path, lambda: Run.loaded(run, "cpu")) is None:
                return
            note += f" that fit the configuration, {sum(x.numel() for x in file.tensors.values()):,} numbers"
        said = file.record.get("epoch"), file.record.get("validation")
        if self.epochs and isinstance(said[0], int):
            line = self.epochs[said[0] - 1] if 0 < said[0] <= len(self.epochs) else None
            # of an epoch whose line a kill has lost, they are right all the same
            if line is not None and line["validation"]["total"] != said[1]:
                checkpoint = read_tensors_record(self.folder / "checkpoint.safetensors")
                if checkpoint.get("best") != said[1]:
                    self._wrong(path, "holds the weights of another training than metrics.jsonl", "restore it")
                    return
                self.epochs = None
                self._wrong(
                    self.folder / "metrics.jsonl", "is of another training than weights and checkpoint", "restore it"
                )
            note += f", of epoch {said[0]}"
        self.weights = file
        self._right(path, note)

    def _checkpoints(self) -> None:
        path = self.folder / "checkpoint.safetensors"
        before = path.with_name("checkpoint.previous.safetensors")
        last = self._checkpoint(before, "the checkpoint before the last one")
        position = self._checkpoint(path, "checkpoint")
        if position is not None and last is not None and position.steps < last.steps:
            self._wrong(path, f"is older than {before.name}", f"restore it, or remove it to go on from {before.name}")
        begun = self.epochs is None or bool(self.epochs) or before.is_file()
        if begun and not path.is_file():
            goes = f"goes on from {before.name}" if last is not None else "would train from the beginning"
            self._wrong(path, "is missing", f"restore it: without it expost train --resume {goes}")
        lines = self.folder / "metrics.jsonl"
        if position is not None and self.epochs is not None and len(self.epochs) < position.epoch:
            what = f"lacks epochs: it has {len(self.epochs)}, the checkpoint {position.epoch}"
            self._wrong(lines, what if lines.is_file() else "is missing", "restore it")

    def _checkpoint(self, path: Path, what: str) -> Position | None:
        """Check that training would resume from a checkpoint; return its position."""
        import torch

        from expost.training.checkpoint import load_checkpoint
        from expost.utils.store import read_tensor_file

        if not path.is_file():
            return None
        if self.run is None or self.weights is None:
            if self._read(path, lambda: read_tensor_file(path)) is not None:
                why = "configuration" if self.run is None else "weights"
                self._unknown(path, f"{what}, whole; not compared with the {why}")
            return None
        model = self.run.fresh_model()
        optimizer = torch.optim.Adam(model.parameters())
        position = self._read(path, lambda: load_checkpoint(path, model, optimizer))
        if position is None:
            return None
        # weights may have been saved after the checkpoint before, when the training was stopped by an error
        known = (self._best(position.epoch), self.weights.record.get("validation"))
        if self.epochs and len(self.epochs) >= position.epoch and position.best not in known:
            self._wrong(path, "is of another training than metrics.jsonl", "restore it")
            return None
        self._right(path, f"{what}, resumes at step {position.steps:,}, after epoch {position.epoch}")
        return position

    # ------------------------------------------------------------------------------------------ what was made of it

    def _densities(self) -> None:
        folder = self.folder / "densities"
        path = folder / "fitted_on.json"
        files = {self._name(each)[len("densities/") : -len(each.suffix)] for each in _ours(folder, "safetensors")}
        beside = {self._name(each)[len("densities/") : -len(each.suffix)] for each in _ours(folder, "json")}
        if path.is_file():
            filed = self._record(path)
        else:
            filed = {}
            if files:
                self._wrong(path, "is missing", "fit the densities again, or restore it")
        lost, unknown = set(filed or ()) - files - beside, files - set(filed or ())
        if lost and unknown and filed is not None:  # a name was changed: its density is there, under another one
            self._wrong(path, f"names {min(lost)}, which is not there, and not {min(unknown)}", "fit that again")
            filed = {name: weights for name, weights in filed.items() if name not in lost}
        for name in sorted({*files, *beside, *(filed or ())} - {"fitted_on"}):
            self._density(folder / f"{name}.safetensors", filed, name)
        if path.is_file() and filed is not None and not self._is_wrong(self._name(path)):
            self._right(path, f"the weights that {len(filed)} densities are of")

    def _density(self, path: Path, filed: Mapping[str, Any] | None, name: str) -> None:
        from expost.densities import load_density
        from expost.generators.generator import mismatch
        from expost.utils.store import read_json, read_tensor_file

        again, copy = f"fit it again: expost fit --density {path.stem}", path.with_suffix(".json")
        if not path.is_file():
            self._wrong(path, "is missing", again)
            return
        density = self._read(path, lambda: load_density(path))
        written = self._read(copy, lambda: read_json(copy)) if copy.is_file() else None
        if density is None:
            return
        record, mine = read_tensor_file(path).record, "" if self.weights is None else self.weights.sha256
        if self.run is not None and (what := mismatch(density, self.run.config.model)):
            self._wrong(path, f"is of {what}", again)
        elif mine and density.weights not in ("", mine):
            self._wrong(path, "is of codes of other weights", again)
        elif record["density"] != path.stem and isinstance(written, dict) and written.get("density") == path.stem:
            self._wrong(path, f"is another density than {copy.name} beside it says", again)
        elif mine and filed is not None and filed.get(name) != mine and density.weights == mine:
            table = self.folder / "densities" / "fitted_on.json"
            if not self._is_wrong(self._name(table)):
                self._wrong(table, f"has other weights for {name} than {path.name}", again)
            self._right(path, f"density {density!r}")
        elif mine and filed is not None and filed.get(name) != mine and not self._is_wrong("densities/fitted_on.json"):
            self._wrong(path, "is of codes of other weights", again)
        elif mine:
            self._right(path, f"density {density!r}")
        else:
            self._unknown(path, f"density {density!r}, whole; not compared with the weights")
        if copy.is_file() and not self._is_wrong(self._name(copy)):
            if written == record or self._is_wrong(self._name(path)):
                self._right(copy, f"the record of {path.name}, to read")
            else:
                self._wrong(copy, f"is not the record of {path.name}", again)
        elif not copy.is_file() and (self.folder / "checkpoint.safetensors").is_file():
            self._wrong(copy, "is missing", again)

    def _scores(self) -> None:
        path = self.folder / "metrics.json"
        if not path.is_file() or self._record(path) is None:
            return
        scores = self._read(path, lambda: [score_from_json(each, path) for each in saved_scores(path)])
        if scores is None:
            return
        if self.weights is None:
            self._unknown(path, f"{len(scores)} scores; not compared with the weights")
        elif any(score.card.model != self.weights.sha256 for score in scores):
            self._wrong(path, "has scores of other weights", "evaluate the run again: expost evaluate")
        else:
            self._right(path, f"{len(scores)} scores of these weights")

    def _search(self, folder: Path) -> None:
        from expost.search import read_search
        from expost.search.records import JSON, TENSORS
        from expost.utils.store import read_tensor_file

        path, tensors = folder / JSON, folder / TENSORS
        restart = "restore it, or remove the folder and search again"
        if not (path.is_file() or tensors.is_file()):
            return
        for each in (path, tensors):
            if not each.is_file():
                self._wrong(each, "is missing", restart)
        whole = tensors.is_file() and self._read(tensors, lambda: read_tensor_file(tensors)) is not None
        if not path.is_file() or self._record(path) is None:
            if whole:
                self._unknown(tensors, f"codes and scores, whole; not compared with {JSON}")
            return
        if not whole:
            self._unknown(path, f"rounds of a search; not compared with {TENSORS}")
            return
        try:
            result = read_search(folder)
        except (DataError, OSError) as error:
            # the record is as it was written
            self._wrong(tensors, " ".join(str(error).split()).replace(f"{tensors} ", ""), restart)
            self._right(path, "rounds of a search")
            return
        self._right(path, f"{len(result.rounds)} rounds of a search")
        self._right(tensors, "their codes and scores")

    def _others(self) -> None:
        from expost.utils.store import abandoned, leftovers

        folders = [self.folder, *(each for each in self.folder.rglob("*") if each.is_dir())]
        temporary = {path for folder in folders for path in leftovers(folder)}
        for path in temporary:
            if abandoned(path):
                self._wrong(path, "was left by a process that was killed", "remove it; the next write here does too")
            else:
                self._right(path, "is being written now")
        for path in sorted(self.folder.rglob("*")):
            inside = temporary.intersection(path.parents)
            if not path.is_file() or self._name(path) in self.found or path in temporary or inside:
                continue
            if path.name.startswith(".") and path.suffix == ".lock":
                self._right(path, "lock, in use now" if _held(path) else "lock, free")
            elif "tensorboard" in path.parts:
                self._unknown(path, "event file of TensorBoard, which nothing else reads")
            else:
                self._unknown(path, "made from the run; nothing depends on it")


def _ours(folder: Path, suffix: str) -> Iterator[Path]:
    yield from folder.glob(f"[!.]*.{suffix}")
    yield from folder.glob(f"by_label/[!.]*.{suffix}")


def _held(path: Path) -> bool:
    from filelock import FileLock, Timeout

    try:
        with FileLock(path, blocking=False, is_singleton=True):
            return False
    except Timeout:
        return True
    except OSError:  # on a file system that is read-only nobody holds it
        return False
