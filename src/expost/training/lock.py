"""The lock of a run's folder: one training at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from expost import distributed
from expost.errors import UsageError

LOCK = ".training.lock"


def in_training(folder: Path) -> bool:
    """Return whether some process is training the run in a folder; it is not kept from beginning."""
    if not (folder / LOCK).exists():
        return False
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return True
    lock.release()
    return False


@contextmanager
def training_lock(folder: Path) -> Iterator[None]:
    """Lock a run's folder against other trainings; only the first process takes the lock.

    Raises:
        UsageError: if another training holds it.
    """
    lock = FileLock(folder / LOCK)

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
