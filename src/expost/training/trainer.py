"""A training run over a folder: the loop, with a lock, checkpoints, records, a progress bar and exact resume.

A run that is killed resumes from its last checkpoint through the same steps, so on a CPU the final weights are, bit for
bit, those of a run that was never stopped (with the same number of threads and of processes).
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from expost import distributed
from expost.config import TrainingConfig
from expost.errors import DataError, Interrupted, Symptom, UsageError
from expost.models.autoencoder import Autoencoder
from expost.models.presets import LEAST_STEPS
from expost.training.checkpoint import load_checkpoint, load_weights, previous, save_checkpoint
from expost.training.history import Records, records
from expost.training.lock import training_lock
from expost.training.loop import Epoch, Loop, NonFiniteLossError, Position
from expost.training.signals import Stop, graceful_interrupt
from expost.types import Data
from expost.utils.process import freed_memory_kept
from expost.utils.progress import Bar, duration, progress, say
from expost.utils.store import clear_leftovers, read_tensors, read_tensors_record, write_tensors

#: On an accelerator, how many steps pass between looks at the loss (each waits for the device, and for the others).
CHECK_EVERY = 50
#: Saving that takes less seconds is done after every epoch; else when it has taken less than this share of the time.
QUICK_SAVE, SHARE_OF_SAVING = 0.1, 0.05
#: Fewer steps than this hardly train a model; it is said.
FEW_STEPS = 1000
#: Steps after which their pace is said.
STEPS_TO_MEASURE = 10
#: Most epochs of which each gets a line; of more, so many lines are printed, evenly.
MOST_LINES = 100


def plan(config: TrainingConfig, examples: int) -> str:
    """Return in words how many steps a training takes.

    Args:
        config: How to train.
        examples: Number of training examples, at least 1.

    Example:
        >>> plan(TrainingConfig(epochs=63, batch_size=16), 384)
        '1,512 steps, 63 epochs of 24 batches of 16'
    """
    size, count = config.batches(examples)
    batches = f"{count:,} batches of {size}" if count > 1 else f"1 batch of {size}"
    return f"{_counted(config.epochs * count, 'step')}, {_counted(config.epochs, 'epoch')} of {batches}"


def _counted(number: int, word: str) -> str:
    return f"{number:,} {word}{'s' * (number != 1)}"


def few_steps(config: TrainingConfig, examples: int) -> str:
    """Return a warning if a training takes too few steps to learn, with a remedy; else an empty text.

    Args:
        config: How to train.
        examples: Number of training examples, at least 1.
    """
    _, count = config.batches(examples)
    if config.epochs * count >= FEW_STEPS:
        return ""
    steps = config.epochs * count
    return (
        f"warning: {_counted(steps, 'step')} hardly train{'s' * (steps == 1)} a model; give --epochs "
        f"{-(-LEAST_STEPS // count)}, a smaller --batch-size, or neither of them (see {Symptom.POOR.address})"
    )


@distributed.together()
def measure_steps(model: Autoencoder, data: Data, config: TrainingConfig, seconds: float = 3.0) -> float:
    """Take a few steps with a model that is not used afterwards, and return the seconds a step.

    Args:
        model: A fresh model.
        data: What it would be trained on.
        config: How.
        seconds: Time after which no further step is taken; at least one is measured, after one that sets things up.
    """
    loop = Loop(model, data.train.x, data.validation.x, config)
    order = torch.arange(len(data.train))
    times: list[float] = []
    model.train()
    with loop.running():
        begun = time.perf_counter()
        while len(times) < 2 or (len(times) < STEPS_TO_MEASURE and time.perf_counter() - begun < seconds):
            loop.position.step = 0
            started = time.perf_counter()
            loop.step(order).total.item()  # waits for the device
            times.append(time.perf_counter() - started)
    return sum(times[1:]) / len(times[1:])


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
        """Train until the last epoch, from the folder's checkpoint if it has one.

        Only one training may use a folder at a time.

        Raises:
            UsageError: if there are fewer than two training examples, none for validation, more processes than
                examples in a batch, too little memory on a GPU, or another training of this folder under way.
            DataError: when the loss stops being finite; the best weights so far are kept.
            Interrupted: after SIGINT or SIGTERM; a checkpoint is saved first.
        """
        with training_lock(self.folder), freed_memory_kept():
            if distributed.is_main():
                clear_leftovers(self.folder)
            self._begin()
            try:
                self._go_on()
            except NonFiniteLossError as error:
                self._save_best()
                remedy = f"try a smaller --lr, or --precision float32 (see {Symptom.LOSS.address})"
                raise DataError(f"{error}; {self._kept()}; {remedy}") from None
            except Exception as error:
                with suppress(OSError):  # of a full disk, perhaps, which is what the other error says
                    self._save_best()
                if not isinstance(error, torch.OutOfMemoryError):
                    raise
                reason = str(error).split(". ")[0]
                raise UsageError(
                    f"{self.loop.device} has too little memory for batches of {self.loop.batch_size} ({reason}); lower "
                    "--batch-size or --width, or give --device cpu"
                ) from None
        return self.loop.position

    def _begin(self) -> None:
        self._check()
        self.kept = math.inf  # validation loss of the weights on disk
        self.loop = Loop(self.model, self.data.train.x, self.data.validation.x, self.config)
        if self.checkpoint_path.exists() or previous(self.checkpoint_path).exists():
            self._restore()
        self.saved, self.save_took, self.paced = time.monotonic(), 0.0, False

    def _check(self) -> None:
        count, held_out, processes = len(self.data.train), len(self.data.validation), distributed.world()
        if count < 2 or held_out < 1:
            raise UsageError(
                f"data set '{self.data.name}' has {count} training, {held_out} validation examples; give 2 and 1"
            )
        batch, _ = self.config.batches(count)
        if batch < processes:
            raise UsageError(
                f"batches of {batch} cannot be split over {processes} processes; launch fewer, or raise --batch-size"
            )

    def _go_on(self) -> None:
        position, total = self.loop.position, self.config.epochs * self.loop.steps_per_epoch
        say(f"training: {plan(self.config, len(self.data.train))}{self._since(position)}")
        if warning := few_steps(self.config, len(self.data.train)):
            say(warning)
        with (
            self.loop.running(),
            graceful_interrupt() as stopped,
            records(self.folder, self.config.tensorboard, position.epoch) as written,
            progress("training", total, position.steps) as bar,
        ):
            while position.epoch < self.config.epochs:
                epoch = self.loop.epoch(lambda sums: self._after_step(sums, stopped, bar))
                self._after_epoch(epoch, written, bar)
        self._load_best()

    @property
    def checkpoint_path(self) -> Path:
        """Where the training state is."""
        return self.folder / "checkpoint.safetensors"

    @property
    def best_path(self) -> Path:
        """Where the weights of the lowest validation loss are."""
        return self.folder / "model.safetensors"

    def _after_step(self, sums: Mapping[str, Tensor], stopped: Stop, bar: Bar) -> None:
        """Look at the loss, the clock and the signals: after every step on a CPU, now and then on an accelerator."""
        loop, position = self.loop, self.loop.position
        on_cpu = loop.device.type == "cpu"
        halt = stopped.is_set() and distributed.world() == 1
        if not (on_cpu or position.steps % CHECK_EVERY == 0 or halt):
            return
        due = distributed.is_main() and time.monotonic() - self.saved > self.config.checkpoint_seconds
        found, (stop, due) = loop.agree(sums, (stopped.is_set(), due))
        text = "  ".join(f"{name} {value / position.step:.4g}" for name, value in found.items())
        bar.advance(1 if on_cpu else CHECK_EVERY, text)
        if not self.paced and bar.done - bar.first >= STEPS_TO_MEASURE and bar.total > bar.done:
            self.paced = True
            bar.say(f"training: {duration(bar.pace)} a step, {bar.left()}")
        if stop or due:
            loop.count_time()
            self._save(found)
        if stop:
            distributed.barrier()  # the launcher ends the others as soon as one process has gone
            raise Interrupted(self.folder, stopped.number)

    def _after_epoch(self, epoch: Epoch, written: Records, bar: Bar) -> None:
        position, epochs = self.loop.position, self.config.epochs
        record = {
            "epoch": epoch.number, "step": position.steps, "lr": epoch.lr, "seconds": round(position.seconds, 3),
            "precision": self.loop.arithmetic,
        }  # fmt: skip
        saving = epoch.number == epochs or self._pays_to_save()
        if saving:
            self._save_best()
        written.add(record, epoch.best, epoch.train, epoch.validation)
        if saving:
            self._save({})
        best = " (best)" if epoch.best else ""
        losses = f"train {epoch.train['total']:.4g}, validation {epoch.validation['total']:.4g}{best}"
        first = bar.done - bar.first <= self.loop.steps_per_epoch  # of this call, which may go on with a run
        if epoch.number % -(-epochs // MOST_LINES) and epoch.number < epochs and not first:
            return
        if epoch.symbols is not None:
            used = f"{epoch.validation['usage']:.0%} of {epoch.symbols:,} symbols used"
            losses += f", {used}, perplexity {epoch.validation['perplexity']:.3g}"
        left = f", {duration(bar.pace)} a step, {bar.left()}" if epoch.number < epochs else ""
        bar.say(f"epoch {epoch.number}/{epochs}: {losses}, lr {epoch.lr:.2g}, {duration(position.seconds)}{left}")

    @staticmethod
    def _since(position: Position) -> str:
        """Return in words where a training goes on."""
        return f", of which {position.steps:,} are done" if position.steps else ""

    def _pays_to_save(self) -> bool:
        """Return whether saving is quick, or takes a small share of the time since it was done last.

        On a GPU an epoch may take less time than to write weights and the optimizer's state.
        """
        since = time.monotonic() - self.saved
        return self.save_took < QUICK_SAVE or since > self.save_took / SHARE_OF_SAVING

    def _kept(self) -> str:
        """Return in words which weights are on disk."""
        if self.kept == math.inf:
            return "no epoch was finished, so there are no weights to keep"
        return f"the best weights so far are in {self.best_path}"

    def _save_best(self) -> None:
        """Write the best weights, unless they or better ones are on disk."""
        best = self.loop.best
        if best is not None and best.validation <= self.kept:
            write_tensors(self.best_path, best.tensors, {"epoch": best.epoch, "validation": best.validation})
            self.kept = best.validation
        self.loop.best = None

    def _save(self, sums: Mapping[str, float]) -> None:
        started = time.monotonic()
        self._save_best()
        loop = self.loop
        save_checkpoint(self.checkpoint_path, self.model, loop.optimizer, loop.snapshot(sums), loop.averaged)
        self.saved = time.monotonic()
        self.save_took = self.saved - started

    def _restore(self) -> None:
        try:
            position = load_checkpoint(self.checkpoint_path, self.model, self.loop.optimizer, self.loop.averaged)
        except DataError as error:
            before = previous(self.checkpoint_path)
            if not before.exists():
                raise
            position = load_checkpoint(before, self.model, self.loop.optimizer, self.loop.averaged)
            say(f"warning: {error}; goes on from the checkpoint before it, epoch {position.epoch}")
        self.loop.resume(position)
        # weights may have been saved after the checkpoint, when the training was killed or stopped by an error
        kept = read_tensors_record(self.best_path).get("validation")
        if isinstance(kept, int | float):
            self.kept = kept

    def _load_best(self) -> None:
        distributed.barrier()  # the first process may still be writing them
        load_weights(self.best_path, self.model, read_tensors(self.best_path)[0])
        self.model.eval()
