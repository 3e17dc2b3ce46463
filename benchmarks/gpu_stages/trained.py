"""Training within a budget: resume the run of an earlier call, and score the weights that the time allows."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import expost
from expost.errors import Interrupted
from expost.run import Run


@contextmanager
def interrupt_after(seconds: float) -> Iterator[threading.Event]:
    """Send this process SIGINT after some seconds, so that training saves a checkpoint; then end the block."""
    sent = threading.Event()

    def send() -> None:
        sent.set()
        os.kill(os.getpid(), signal.SIGINT)

    timer = threading.Timer(max(0.0, seconds), send)
    timer.daemon = True
    timer.start()
    try:
        yield sent
    except (Interrupted, KeyboardInterrupt):
        if not sent.is_set():  # somebody else's
            raise KeyboardInterrupt from None
    finally:
        timer.cancel()


@dataclass(frozen=True)
class Progress:
    """Progress of a run.

    Attributes:
        epochs: Finished epochs of all calls.
        of: Planned epochs.
        seconds: Training time of the finished epochs.
    """

    epochs: int
    of: int
    seconds: float

    @property
    def whole(self) -> bool:
        """Whether it is finished."""
        return 0 < self.of <= self.epochs


def progress(folder: Path) -> Progress:
    """Return the progress of the run in a folder."""
    if not (folder / "config.json").exists():
        return Progress(0, 0, 0.0)
    of = Run.open(folder).config.training.epochs
    path = folder / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    last: dict[str, Any] = json.loads(lines[-1]) if lines else {"epoch": 0, "seconds": 0.0}
    return Progress(last["epoch"], of, last["seconds"])


def train_until(ends: float, model: str, data: str, folder: Path, **options: Any) -> Progress:
    """Train or resume, until the run is finished or the time is over.

    Args:
        ends: Seconds since the epoch.
        model: Row of the zoo.
        data: Data set's name or path.
        folder: The run's folder.
        **options: Of `expost.train`.
    """
    begun = (folder / "config.json").exists()
    if folder.exists() and not begun:  # of a call that ended before there was anything to keep
        shutil.rmtree(folder)
    if not progress(folder).whole:
        with interrupt_after(ends - time.time()):
            expost.train(model, data, folder, resume=begun, tensorboard=False, checkpoint_seconds=60, **options)
    return progress(folder)
