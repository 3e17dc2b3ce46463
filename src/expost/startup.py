"""Ctrl-C while the command line is still being imported, which takes seconds: one line and status 130, no traceback.

To be imported before what takes long, and told when that is `done`. An exception would not do: compiled modules that
are interrupted amid their import turn it into errors of their own.
"""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType


def _stop(number: int, frame: FrameType | None) -> None:
    os.write(2, b"stopped\n")
    os._exit(130)  # nothing was begun yet, so there is nothing to clean up


def _watch() -> bool:
    # where Ctrl-C is ignored, or somebody else's, it stays so
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is _USUAL:
        signal.signal(signal.SIGINT, _stop)
        return True
    return False


def done() -> None:
    """Let Ctrl-C raise KeyboardInterrupt again."""
    if _WATCHED and signal.getsignal(signal.SIGINT) is _stop:
        signal.signal(signal.SIGINT, _USUAL)


_USUAL = signal.default_int_handler
_WATCHED = _watch()
