"""Training: Adam, learning rate cut on a plateau, best weights kept, exact resume.

Every random number depends on the seed and the number of the step alone. A run that is killed goes on from its last
checkpoint through the same steps, so that on a CPU the final weights are, bit for bit, those of a run left alone (with
the same number of threads).
"""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from expost.autoencoder import Autoencoder
from expost.checkpoint import Position, load_checkpoint, load_weights, save_checkpoint
from expost.config import TrainingConfig
from expost.errors import DataError, UsageError
from expost.progress import Bar, progress
from expost.seeding import NOISE, ORDER, VALIDATION, generator, isolated, stream_seed
from expost.store import read_tensors, write_tensors, write_text
from expost.types import Data, Loss, to_unit

#: On an accelerator, how many steps pass between looks at whether the loss is finite (each look waits for the device).
CHECK_EVERY = 50


class Interrupted(Exception):
    """Training was stopped by a signal, after saving a checkpoint."""


def pick_device(name: str) -> torch.device:
    """Return the device that `name` asks for.

    Args:
        name: "auto" (cuda, else mps, else cpu), or a torch device such as "cuda:1".

    Raises:
        UsageError: if it does not exist on this machine.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"device '{name}' cannot be used here ({reason}); use auto, cpu, cuda or mps") from None
    return device


def place(model: nn.Module, device: torch.device, image: bool) -> None:
    """Move a model to a device, its convolutions in channels-last layout, which is the faster one for images."""
    model.to(device)
    if image:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


@dataclass
class Training:
    """A training run over a folder; `run` does it all.

    Attributes:
        model: What is trained; on return it holds the best weights.
        data: Its train and validation splits are used, never the test split.
        config: How.
        folder: Gets `model.safetensors` (best weights), `checkpoint.safetensors`, `metrics.jsonl` and `tensorboard/`.
    """

    model: Autoencoder
    data: Data
    config: TrainingConfig
    folder: Path

    def run(self) -> Position:
        """Train until the last epoch, going on from the folder's checkpoint if it has one.

        Raises:
            UsageError: if there are fewer than two training examples, or none for validation.
            DataError: when the loss stops being finite; the best weights so far are kept.
            Interrupted: after SIGINT or SIGTERM; a checkpoint is saved first.
        """
        count, held_out = len(self.data.train), len(self.data.validation)
        if count < 2 or held_out < 1:
            raise UsageError(
                f"data set '{self.data.name}' has {count} training, {held_out} validation examples; give 2 and 1"
            )
        self.device = pick_device(self.config.device)
        place(self.model, self.device, self.data.is_image)
        self.optimizer = torch.optim.Adam(
            self.model.parameters(), lr=self.config.lr, fused=self.device.type in ("cpu", "cuda")
        )
        self.scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
            self.optimizer,
            factor=self.config.factor,
            patience=self.config.patience - 1,  # torch counts the epochs that it lets pass, Keras those that it takes
            threshold=0.0,
        )
        self.x = self.data.train.x.to(self.device)
        self.batch_size = min(self.config.batch_size, count)
        self.position = Position(lr=self.config.lr)
        if self.checkpoint_path.exists():
            self._restore()
        steps_per_epoch = count // self.batch_size
        with (
            isolated(),
            _signals() as stopped,
            _tensorboard(self.folder, self.config.tensorboard, self.position.epoch) as board,
            progress("training", self.config.epochs * steps_per_epoch, self.position.steps) as bar,
        ):
            while self.position.epoch < self.config.epochs:
                started = time.perf_counter()
                self.model.train()
                order = torch.randperm(count, generator=generator(self.config.seed, ORDER, self.position.epoch))
                order = order.to(self.device)
                sums = {name: torch.tensor(value, device=self.device) for name, value in self.position.sums.items()}
                while self.position.step < steps_per_epoch:
                    loss = self._step(order)
                    for name, value in [("total", loss.total), *loss.terms.items()]:
                        sums[name] = sums.get(name, 0) + value.detach()
                    if self.device.type == "cpu" or self.position.steps % CHECK_EVERY == 0:
                        self._refuse_non_finite(sums)
                        bar.advance(1 if self.device.type == "cpu" else CHECK_EVERY, self._text(sums))
                    if stopped.is_set():
                        self._refuse_non_finite(sums)
                        self.position.seconds += time.perf_counter() - started
                        self._save(sums)
                        raise Interrupted
                self._refuse_non_finite(sums)
                self._finish_epoch(sums, steps_per_epoch, started, board, bar)
        self._load_best()
        return self.position

    @property
    def checkpoint_path(self) -> Path:
        """Where the training state is."""
        return self.folder / "checkpoint.safetensors"

    def _step(self, order: Tensor) -> Loss:
        start = self.position.step * self.batch_size
        x = to_unit(self.x[order[start : start + self.batch_size]])
        torch.manual_seed(stream_seed(self.config.seed, NOISE, self.position.steps))
        self.optimizer.zero_grad()
        with self._autocast():
            loss = self.model.loss(x)
        loss.total.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.position.step += 1
        self.position.steps += 1
        return loss

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16")

    @torch.inference_mode()
    def _validate(self) -> dict[str, float]:
        """Return the mean loss and terms on the validation split, with the same noise every time."""
        self.model.eval()
        torch.manual_seed(stream_seed(self.config.seed, VALIDATION))
        x = self.data.validation.x
        sums: dict[str, float] = {}
        for batch in x.tensor_split(max(1, len(x) // self.batch_size)):  # nearly equal parts, none of one example
            with self._autocast():
                loss = self.model.loss(to_unit(batch.to(self.device)), regularize=False)
            for name, value in [("total", loss.total), *loss.terms.items()]:
                sums[name] = sums.get(name, 0.0) + value.item() * len(batch) / len(x)
        return sums

    def _finish_epoch(self, sums: dict[str, Tensor], steps: int, started: float, board: Any, bar: Bar) -> None:
        validation = self._validate()
        position = self.position
        if not all(map(_finite, validation.values())):
            self._stop_non_finite(validation)
        train = {name: value.item() / steps for name, value in sums.items()}
        lr = position.lr
        self.scheduler.step(validation["total"])
        position.lr = self.optimizer.param_groups[0]["lr"]
        position.epoch, position.step, position.sums = position.epoch + 1, 0, {}
        position.seconds += time.perf_counter() - started
        best = position.best is None or validation["total"] < position.best
        if best:
            position.best = validation["total"]
            write_tensors(self.folder / "model.safetensors", self.model.state_dict(), {"epoch": position.epoch})
        record = {"epoch": position.epoch, "step": position.steps, "lr": lr, "seconds": round(position.seconds, 3)}
        with (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(record | {"best": best, "train": train, "validation": validation}) + "\n")
        scalars = (
            {"lr": lr}
            | {f"train/{k}": v for k, v in train.items()}
            | {f"validation/{k}": v for k, v in validation.items()}
        )
        for name, value in scalars.items() if board else ():
            board.add_scalar(name, value, position.epoch)
        self._save({})
        losses = f"train {train['total']:.4g}, validation {validation['total']:.4g}{' (best)' if best else ''}"
        bar.say(f"epoch {position.epoch}/{self.config.epochs}: {losses}, lr {lr:.2g}, {position.seconds:.0f} s")

    def _text(self, sums: dict[str, Tensor]) -> str:
        return "  ".join(f"{name} {value.item() / self.position.step:.4g}" for name, value in sums.items())

    def _refuse_non_finite(self, sums: dict[str, Tensor]) -> None:
        values = {name: value.item() for name, value in sums.items()}
        if not all(map(_finite, values.values())):
            self._stop_non_finite(values)

    def _stop_non_finite(self, values: dict[str, float]) -> None:
        bad = ", ".join(f"{name} is {value}" for name, value in values.items() if not _finite(value))
        kept = (
            f"the best weights so far are in {self.folder / 'model.safetensors'}"
            if self.position.best is not None
            else "no epoch was finished, so there are no weights to keep"
        )
        raise DataError(
            f"the loss stopped being finite in epoch {self.position.epoch + 1}, step {self.position.step} ({bad}); "
            f"{kept}; try a smaller --lr, or --precision float32"
        )

    def _save(self, sums: dict[str, Tensor]) -> None:
        self.position.sums = {name: value.item() for name, value in sums.items()}
        self.position.plateau = {
            key: value
            for key, value in self.scheduler.state_dict().items()
            if isinstance(value, int | float) and _finite(value)
        }
        save_checkpoint(self.checkpoint_path, self.model, self.optimizer, self.position)

    def _restore(self) -> None:
        self.position = load_checkpoint(self.checkpoint_path, self.model, self.optimizer)
        self.scheduler.load_state_dict(self.position.plateau)
        for group in self.optimizer.param_groups:
            group["lr"] = self.position.lr
        metrics = self.folder / "metrics.jsonl"
        if metrics.exists():  # a line may have been written just before a kill that lost its checkpoint
            lines = metrics.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [line for number, line in enumerate(lines, 1) if self._belongs(line, metrics, number)]
            write_text(metrics, "".join(kept))

    def _belongs(self, line: str, path: Path, number: int) -> bool:
        """Return whether a line is of an epoch that the checkpoint has seen; one that a kill cut off is not."""
        if not line.endswith("\n"):
            return False
        try:
            return int(json.loads(line)["epoch"]) <= self.position.epoch
        except (ValueError, KeyError, TypeError):
            raise DataError(f"{path}, line {number} is not a record of an epoch; remove that line to go on") from None

    def _load_best(self) -> None:
        path = self.folder / "model.safetensors"
        load_weights(path, self.model, read_tensors(path)[0])
        self.model.eval()


def _finite(value: float) -> bool:
    return value - value == 0


@contextmanager
def _signals() -> Iterator[threading.Event]:
    """Note SIGINT and SIGTERM, so that the step under way is finished and saved; a second one stops at once."""
    stopped = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return
    watched = (signal.SIGINT, signal.SIGTERM)
    previous = {number: signal.getsignal(number) for number in watched}

    def note(number: int, frame: Any) -> None:
        stopped.set()
        for each in watched:
            signal.signal(each, previous[each])

    try:
        for number in watched:
            signal.signal(number, note)
        yield stopped
    finally:
        for number in watched:
            signal.signal(number, previous[number])


@contextmanager
def _tensorboard(folder: Path, wanted: bool, epoch: int) -> Iterator[Any]:
    if not wanted:
        yield None
        return
    from torch.utils.tensorboard import SummaryWriter  # slow to import, and not needed to sample

    writer = SummaryWriter(str(folder / "tensorboard"), purge_step=epoch + 1)
    try:
        yield writer
    finally:
        writer.close()
