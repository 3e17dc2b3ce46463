"""Giving memory back: what requests leave behind, Python's collector finds late, and the C library keeps for itself."""

from __future__ import annotations

import ctypes
import gc
import threading
from contextlib import suppress

#: Seconds between two times.
EVERY = 5.0


def give_back() -> None:
    """Collect what refers to itself, and return free memory to the system, where glibc can.

    Forty threads that decode pictures leave a share of their memory in an arena each: without this a server grows by
    .4 MB a request.
    """
    gc.collect()
    with suppress(OSError, AttributeError, TypeError):  # another C library: it has its own ways
        ctypes.CDLL(None).malloc_trim(0)


def keep_small(ended: threading.Event) -> threading.Thread:
    """Give memory back every few seconds, in a thread, until an event; return the thread.

    What is there already is not looked at meanwhile: a pass then takes some milliseconds.
    """
    gc.collect()
    gc.freeze()

    def work() -> None:
        while not ended.wait(EVERY):
            give_back()
        gc.unfreeze()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread
