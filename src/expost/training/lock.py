"""The lock of a run's folder: one training at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from expost import distributed
from expost.errors import UsageError


@contextmanager
def training_lock(folder: Path) -> Iterator[None]:
    """Lock a run's folder against other trainings; only the first process takes the lock.

    Raises:
        UsageError: if another training holds it.
    """
    lock = FileLock(folder / ".training.lock")

    def take() -> None:
        try:
            lock.acquire(blocking=False)
        except Timeout:
            raise UsageError(f"{folder} is being trained by another process; wait for it, or stop it") from None

    distributed.on_main(take)
    try:
        yield
    finally:
        lock.release()
