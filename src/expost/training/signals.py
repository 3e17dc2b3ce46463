"""SIGINT and SIGTERM as a request to stop at the next good moment."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from expost import distributed


@contextmanager
def graceful_interrupt() -> Iterator[threading.Event]:
    """Note SIGINT and SIGTERM, so that the work under way can be finished and saved; a second one stops at once.

    Of several processes none stops at once: their launcher passes on to them what a terminal has sent to all of them
    already, and ends those that take too long by itself.
    """
    stopped = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return
    watched = (signal.SIGINT, signal.SIGTERM)
    previous = {number: signal.getsignal(number) for number in watched}

    def note(number: int, frame: Any) -> None:
        stopped.set()
        if not distributed.launched():
            for each in watched:
                signal.signal(each, previous[each])

    try:
        for number in watched:
            signal.signal(number, note)
        yield stopped
    finally:
        for number in watched:
            signal.signal(number, previous[number])
