"""This process: the cores it may use, its memory, and the variables of its environment."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


def cores() -> int:
    """Return how many cores this process may use: as its affinity, its container and `LOKY_MAX_CPU_COUNT` allow."""
    import joblib  # slow to import

    return int(joblib.cpu_count())


#: Parameters of glibc's `mallopt`, as malloc.h numbers them.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -2, -3, -4


#: How many blocks keep freed memory at the moment, in all threads.
_keeping = [0]
_lock = threading.Lock()


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Keep freed memory in the process while the block runs, and return it to the system at the end.

    By default a large tensor's memory goes back to the system when it is freed, and the next tensor's comes page by
    page and zeroed, which can take much of a step on a CPU. Does nothing unless the C library is glibc.
    """
    library = ctypes.CDLL(None) if os.name == "posix" else None
    if library is None or not (hasattr(library, "mallopt") and hasattr(library, "malloc_trim")):
        yield
        return
    with _lock:
        _keeping[0] += 1
        for name, value in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 2**27)):
            library.mallopt(name, value)
    try:
        yield
    finally:
        with _lock:
            _keeping[0] -= 1
            if not _keeping[0]:
                # the largest thresholds that glibc sets by itself; after a call it no longer adjusts them
                usual = ((_MMAP_MAX, 2**16), (_MMAP_THRESHOLD, 2**25), (_TRIM_THRESHOLD, 2**26), (_TOP_PAD, 2**17))
                for name, value in usual:
                    library.mallopt(name, value)
                library.malloc_trim(0)


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables while the block runs, for libraries that take their settings only from there."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
