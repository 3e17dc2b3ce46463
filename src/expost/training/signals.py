"""SIGINT and SIGTERM as a request to stop at the next good moment."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from expost import distributed


class Stop(threading.Event):
    """Set once a signal has come.

    Attributes:
        number: The signal.
    """

    number: int = signal.SIGINT


@contextmanager
def graceful_interrupt() -> Iterator[Stop]:
    """Set an event on SIGINT or SIGTERM, so that work can be saved before it stops; a second signal stops at once.

    Launched processes never stop at once: their launcher repeats the signal that the terminal has sent to all of them
    already, and kills those that take too long.
    """
    stopped = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return
    watched = (signal.SIGINT, signal.SIGTERM)
    previous = {number: signal.getsignal(number) for number in watched}

    def note(number: int, frame: Any) -> None:
        stopped.number = number
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
