"""Training: Adam, learning rate cut on a plateau, best weights kept, exact resume, in one process or several.

Every random number depends on the seed and the number of the step alone. A run that is killed goes on from its last
checkpoint through the same steps, so that on a CPU the final weights are, bit for bit, those of a run left alone (with
the same number of threads, and of processes). Several processes take the steps of one, each with a part of every batch;
see `data_parallel`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from expost import distributed
from expost.config import TrainingConfig
from expost.distributed.gradients import replicated
from expost.distributed.shards import Noise, split
from expost.errors import DataError, Interrupted, UsageError
from expost.models.autoencoder import Autoencoder
from expost.training.batches import Batches
from expost.training.checkpoint import Position, load_checkpoint, load_weights, save_checkpoint
from expost.training.cuda_graph import Recorded, recordable
from expost.training.history import Records, records, training_lock
from expost.training.signals import graceful_interrupt
from expost.types import Data, Loss, to_unit
from expost.utils.precision import choose, full_float32
from expost.utils.process import freed_memory_kept
from expost.utils.progress import Bar, duration, progress
from expost.utils.seeding import NOISE, ORDER, VALIDATION, generator, isolated, stream_seed
from expost.utils.store import read_tensors, read_tensors_record, write_tensors

#: On an accelerator, how many steps pass between looks at the loss (each waits for the device, and for the others).
CHECK_EVERY = 50
#: Saving that takes less seconds is done after every epoch; else when it has taken less than this share of the time.
QUICK_SAVE, SHARE_OF_SAVING = 0.1, 0.05


def pick_device(name: str) -> torch.device:
    """Return the device that `name` asks for.

    Args:
        name: "auto" (cuda, else mps, else cpu), or a torch device such as "cuda:1". Of several launched processes each
            gets a GPU of its own for "auto" and "cuda".

    Raises:
        UsageError: if it does not exist on this machine.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    own = distributed.device_index()
    if own is not None and name.startswith("cuda:") and name != f"cuda:{own}":
        raise UsageError(f"device '{name}' is one GPU, but several processes were launched; use cuda, one for each")
    if name == "cuda" and own is not None:
        name = f"cuda:{own}"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        if reason.startswith("Expected one of"):  # some twenty kinds
            reason = "torch knows no such device"
        there = ["auto", "cpu", *(["cuda"] if torch.cuda.is_available() else [])]
        there += ["mps"] if torch.backends.mps.is_available() else []
        raise UsageError(f"device '{name}' cannot be used here ({reason}); use {' or '.join(there)}") from None
    return device


def place(model: nn.Module, device: torch.device) -> None:
    """Move a model to a device; its 2-D convolutions in channels-last layout, which is the faster one."""
    model.to(device)
    for weight in model.parameters():
        if weight.dim() == 4:  # torch's own way refuses a network that has 3-D convolutions beside them
            weight.data = weight.data.to(memory_format=torch.channels_last)


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

    @distributed.together()
    def run(self) -> Position:
        """Train until the last epoch, going on from the folder's checkpoint if it has one.

        One training has a folder at a time.

        Raises:
            UsageError: if there are fewer than two training examples, none for validation, more processes than
                examples in a batch, too little memory on a GPU, or another training of this folder under way.
            DataError: when the loss stops being finite; the best weights so far are kept.
            Interrupted: after SIGINT or SIGTERM; a checkpoint is saved first.
        """
        with training_lock(self.folder), freed_memory_kept(), full_float32():
            self._begin()
            try:
                self._go_on()
            except Exception as error:
                with suppress(OSError):  # of a full disk, perhaps, which is what the other error says
                    self._save_best()
                if not isinstance(error, torch.OutOfMemoryError):
                    raise
                reason = str(error).split(". ")[0]
                raise UsageError(
                    f"{self.device} has too little memory for batches of {self.batch_size} ({reason}); lower "
                    "--batch-size or --width, or give --device cpu"
                ) from None
        return self.position

    def _begin(self) -> None:
        count = len(self.data.train)
        self.device = pick_device(self.config.device)
        self.arithmetic = choose(self.config.precision, self.device).arithmetic
        self.batch_size = min(self.config.batch_size, count)
        self._check()
        place(self.model, self.device)
        self.optimizer = torch.optim.Adam(
            self.model.parameters(), lr=self.config.lr, fused=self.device.type in ("cpu", "cuda")
        )
        self.scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
            self.optimizer,
            factor=self.config.factor,
            patience=self.config.patience - 1,  # torch counts the epochs that it lets pass, Keras those that it takes
            threshold=self.config.min_delta,
            threshold_mode="abs",
            min_lr=self.config.min_lr,
        )
        self.batches = Batches(self.data.train.x, self.device)
        weights = list(self.model.parameters())
        self.recorded = Recorded(self._passes, weights) if recordable(self.model, self.device) else None
        self.position = Position(lr=self.config.lr)
        if self.checkpoint_path.exists():
            self._restore()
        self.saved, self.save_took = time.monotonic(), 0.0
        self.unsaved: tuple[dict[str, Tensor], int] | None = None

    def _go_on(self) -> None:
        count = len(self.data.train)
        steps_per_epoch = count // self.batch_size
        with (
            isolated(),
            graceful_interrupt() as stopped,
            replicated(self.model) as self.gradients,
            records(self.folder, self.config.tensorboard, self.position.epoch) as written,
            progress("training", self.config.epochs * steps_per_epoch, self.position.steps) as bar,
        ):
            while self.position.epoch < self.config.epochs:
                started = time.perf_counter()
                self.model.train()
                order = torch.randperm(count, generator=generator(self.config.seed, ORDER, self.position.epoch))
                order = order.to(self.batches.home)
                sums = self._first_sums()
                while self.position.step < steps_per_epoch:
                    loss = self._step(order)
                    for name, value in [("total", loss.total), *loss.terms.items()]:
                        sums[name] = sums.get(name, 0) + value
                    halt = stopped.is_set() and distributed.world() == 1
                    if self.device.type == "cpu" or self.position.steps % CHECK_EVERY == 0 or halt:
                        started = self._look(sums, stopped, started, bar)
                self._finish_epoch(self._agree(sums, False)[0], steps_per_epoch, started, written, bar)
        self._load_best()

    @property
    def checkpoint_path(self) -> Path:
        """Where the training state is."""
        return self.folder / "checkpoint.safetensors"

    @property
    def best_path(self) -> Path:
        """Where the weights of the lowest validation loss are."""
        return self.folder / "model.safetensors"

    def _check(self) -> None:
        count, held_out, processes = len(self.data.train), len(self.data.validation), distributed.world()
        if count < 2 or held_out < 1:
            raise UsageError(
                f"data set '{self.data.name}' has {count} training, {held_out} validation examples; give 2 and 1"
            )
        if self.batch_size < processes:
            raise UsageError(
                f"batches of {self.batch_size} cannot be split over {processes} processes; launch fewer, or raise "
                "--batch-size"
            )

    def _step(self, order: Tensor) -> Loss:
        """Take a step; the losses of all processes add up to the batch's."""
        start, size = self.position.step * self.batch_size, self.batch_size
        noise = Noise(stream_seed(self.config.seed, NOISE, self.position.steps), self.device)
        with split(size, noise) as part:
            batch, then = order[start : start + size], order[start + size : start + 2 * size]
            x = self.batches.take(batch[part.rows], then[part.rows])
            if self.recorded is None:
                self.optimizer.zero_grad()
                loss = self._passes(x, part.share)
            else:
                loss = self.recorded(x)
            self.gradients.finish()
        if self.config.clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        self.optimizer.step()
        self.position.step += 1
        self.position.steps += 1
        return loss

    def _passes(self, x: Tensor, share: float = 1.0) -> Loss:
        """Return the loss of a batch, or of a share of one, and leave its gradients in the parameters."""
        with self._autocast(), parametrize.cached():  # layers may ask for their weights several times
            loss = self.model.loss(x).times(share)
        loss.total.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def _autocast(self) -> torch.autocast:
        # casts of the weights that a graph has recorded must not outlive the step
        cached = self.recorded is None
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.arithmetic == "bf16", cache_enabled=cached)

    @torch.inference_mode()
    def _validate(self) -> dict[str, float]:
        """Return the mean loss and terms on the validation split, with the same noise every time."""
        self.model.eval()
        noise = Noise(stream_seed(self.config.seed, VALIDATION), self.device)
        x = self.data.validation.x
        found: list[tuple[Loss, float]] = []
        for batch in x.tensor_split(max(1, len(x) // self.batch_size)):  # nearly equal parts, none of one example
            with split(len(batch), noise) as part, self._autocast():
                loss = self.model.loss(to_unit(batch[part.rows].to(self.device)), regularize=False).times(part.share)
            found.append((loss, len(batch) / len(x)))
        sums: dict[str, float] = {}
        for loss, share in found:  # looked at when all are under way: each look waits for the device
            for name, value in [("total", loss.total), *loss.terms.items()]:
                sums[name] = sums.get(name, 0.0) + value.item() * share
        (values,) = distributed.total(torch.tensor(list(sums.values()), dtype=torch.float64))
        return dict(zip(sums, values.tolist(), strict=True))

    def _first_sums(self) -> dict[str, Tensor]:
        """Return the sums of the terms so far in the epoch; of several processes the first has them."""
        mine = float(distributed.is_main())
        return {name: torch.tensor(mine * value, device=self.device) for name, value in self.position.sums.items()}

    def _agree(self, sums: Mapping[str, Tensor], stop: bool) -> tuple[dict[str, float], bool, bool]:
        """Exchange what all processes must decide alike.

        Returns:
            The sums over all processes, whether any of them is to stop, and whether a checkpoint is due.

        Raises:
            DataError: if a sum is not finite.
        """
        due = distributed.is_main() and time.monotonic() - self.saved > self.config.checkpoint_seconds
        mine = [float(stop), float(due), *(value.item() for value in sums.values())]
        (exchanged,) = distributed.total(torch.tensor(mine, dtype=torch.float64))
        first, second, *values = exchanged.tolist()
        found = dict(zip(sums, values, strict=True))
        if not all(map(_finite, values)):
            self._stop_non_finite(found)
        return found, first > 0, second > 0

    def _look(self, sums: Mapping[str, Tensor], stopped: threading.Event, started: float, bar: Bar) -> float:
        """Look at the loss, the clock and the signals; return since when the time is to be counted."""
        found, stop, due = self._agree(sums, stopped.is_set())
        steps = self.position.step
        text = "  ".join(f"{name} {value / steps:.4g}" for name, value in found.items())
        bar.advance(1 if self.device.type == "cpu" else CHECK_EVERY, text)
        if stop or due:
            now = time.perf_counter()
            self.position.seconds += now - started
            started = now
            self._save(found)
        if stop:
            distributed.barrier()  # the launcher ends the others as soon as one process has gone
            raise Interrupted
        return started

    def _finish_epoch(self, sums: Mapping[str, float], steps: int, started: float, written: Records, bar: Bar) -> None:
        validation = self._validate()
        position = self.position
        if not all(map(_finite, validation.values())):
            self._stop_non_finite(validation)
        train = {name: value / steps for name, value in sums.items()}
        lr = position.lr
        self.scheduler.step(validation["total"])
        position.lr = self.optimizer.param_groups[0]["lr"]
        position.epoch, position.step, position.sums = position.epoch + 1, 0, {}
        position.seconds += time.perf_counter() - started
        best = position.best is None or validation["total"] < position.best
        if best:
            position.best = validation["total"]
            weights = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
            self.unsaved = weights, position.epoch
        record = {
            "epoch": position.epoch, "step": position.steps, "lr": lr, "seconds": round(position.seconds, 3),
            "precision": self.arithmetic,
        }  # fmt: skip
        saving = position.epoch == self.config.epochs or self._pays_to_save()
        if saving:
            self._save_best()
        written.add(record, best, train, validation)
        if saving:
            self._save({})
        losses = f"train {train['total']:.4g}, validation {validation['total']:.4g}{' (best)' if best else ''}"
        left = f", {bar.left()}" if position.epoch < self.config.epochs else ""
        took = duration(position.seconds)
        bar.say(f"epoch {position.epoch}/{self.config.epochs}: {losses}, lr {lr:.2g}, {took}{left}")

    def _pays_to_save(self) -> bool:
        """Return whether saving is quick, or takes a small share of the time since it was done last.

        On a GPU an epoch may take less time than to write weights and the optimizer's state.
        """
        since = time.monotonic() - self.saved
        return self.save_took < QUICK_SAVE or since > self.save_took / SHARE_OF_SAVING

    def _stop_non_finite(self, values: Mapping[str, float]) -> None:
        self._save_best()
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

    def _save_best(self) -> None:
        """Write the best weights, if they are not on disk yet."""
        if self.unsaved is not None:
            weights, epoch = self.unsaved
            write_tensors(self.best_path, weights, {"epoch": epoch, "validation": self.position.best})
            self.unsaved = None

    def _save(self, sums: dict[str, float]) -> None:
        started = time.monotonic()
        self._save_best()
        self.position.sums = sums
        self.position.plateau = {
            key: value
            for key, value in self.scheduler.state_dict().items()
            if isinstance(value, int | float) and _finite(value)
        }
        save_checkpoint(self.checkpoint_path, self.model, self.optimizer, self.position)
        self.saved = time.monotonic()
        self.save_took = self.saved - started

    def _restore(self) -> None:
        self.position = load_checkpoint(self.checkpoint_path, self.model, self.optimizer)
        self.scheduler.load_state_dict(self.position.plateau)
        for group in self.optimizer.param_groups:
            group["lr"] = self.position.lr
        # weights may have been saved after the checkpoint, when the training was stopped by an error
        kept = read_tensors_record(self.best_path).get("validation")
        if isinstance(kept, int | float) and (self.position.best is None or kept < self.position.best):
            self.position.best = kept

    def _load_best(self) -> None:
        distributed.barrier()  # the first process may still be writing them
        load_weights(self.best_path, self.model, read_tensors(self.best_path)[0])
        self.model.eval()


def _finite(value: float) -> bool:
    return value - value == 0
