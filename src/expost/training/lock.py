"""The lock of a run's folder: one training at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from expost import distributed
from expost.errors import UsageError

#: The file in a run's folder.
LOCK = ".training.lock"
#: Seconds that a training waits for the lock: somebody may just be looking whether one is under way.
_LOOKED_AT = 1.0


def in_training(folder: Path) -> bool:
    """Return whether some process is training the run in a folder; it is not kept from beginning."""
    if not (folder / LOCK).exists():
        return False
    lock = FileLock(folder / LOCK, is_singleton=True)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return True
    lock.release()
    return False


@contextmanager
def training_lock(folder: Path) -> Iterator[None]:
    """Lock a run's folder, made if need be, against other trainings; only the first process takes the lock.

    It may be taken again by the thread that holds it.

    Raises:
        UsageError: if another training holds it.
    """
    lock = FileLock(folder / LOCK, is_singleton=True)

    def take() -> None:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=_LOOKED_AT)
        except Timeout:
            raise UsageError(f"{folder} is being trained by another process; wait for it, or stop it") from None

    distributed.on_main(take)
    try:
        yield
    finally:
        lock.release()
