"""Signals of the command line: one line and a status of 128 plus the signal's number, no traceback.

During the imports, which take seconds, Ctrl-C and SIGTERM end the process at once: import this module before slow ones.
Raising an exception would not do: compiled modules that are interrupted during their import turn it into errors of
their own. Later SIGTERM raises an exception as Ctrl-C does, so that no temporary file or folder is left.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from expost.errors import Terminated


def _stop(number: int, frame: FrameType | None) -> None:
    os.write(2, b"stopped\n")
    os._exit(128 + number)  # nothing was begun yet, so there is nothing to clean up


def _raise(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)  # a second one ends the process at once
    raise Terminated


def watch() -> None:
    """Let Ctrl-C end the process at once, unless it is ignored or has a handler of somebody else's."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is _USUAL:
        signal.signal(signal.SIGINT, _stop)


def done() -> None:
    """Let Ctrl-C raise KeyboardInterrupt again."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is _stop:
        signal.signal(signal.SIGINT, _USUAL)


@contextmanager
def watched() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end the process at once during a block."""
    main = threading.current_thread() is threading.main_thread()
    raising = main and signal.getsignal(signal.SIGTERM) is _raise
    watch()
    if raising:
        signal.signal(signal.SIGTERM, _stop)
    try:
        yield
    finally:
        done()
        if raising:
            signal.signal(signal.SIGTERM, _raise)


@contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM raise `Terminated` during a block, unless it is ignored or has a handler of somebody else's.

    Not in launched processes: their launcher ends them one after the other, where they may wait for each other.
    """
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL or "RANK" in os.environ:
        yield
        return
    signal.signal(signal.SIGTERM, _raise)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


_USUAL = signal.default_int_handler
watch()
