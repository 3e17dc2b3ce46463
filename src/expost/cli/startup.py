"""Ctrl-C during the imports of the command line, which take seconds: one line, status 130, no traceback.

Import this module before slow ones. Raising an exception would not do: compiled modules that are interrupted during
their import turn it into errors of their own.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


def _stop(number: int, frame: FrameType | None) -> None:
    os.write(2, b"stopped\n")
    os._exit(130)  # nothing was begun yet, so there is nothing to clean up


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
    """Let Ctrl-C end the process at once during a block."""
    watch()
    try:
        yield
    finally:
        done()


_USUAL = signal.default_int_handler
watch()
