"""Progress on stderr: a bar with time left on a terminal, plain lines elsewhere. Results alone go to stdout.

A bar appears when its work has taken a second, and one at a time: work within work that has a bar shows none. Of
several processes that work together, only the first shows anything.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from expost import distributed

#: Seconds before a bar appears.
PATIENCE = 1.0
#: Held by the work whose bar is on stderr, of which there is one.
_SHOWN = threading.Lock()


@dataclass(frozen=True)
class Bar:
    """A progress bar under way."""

    progress: Progress
    task: TaskID
    begun: float

    def advance(self, steps: int = 1, text: str = "") -> None:
        """Move on by `steps`, and show `text` behind the bar if there is any."""
        self.progress.advance(self.task, steps)
        if not self.progress.live.is_started and time.monotonic() - self.begun > PATIENCE:
            self.progress.start()
        if text:
            self.progress.update(self.task, text=text)

    def say(self, text: str) -> None:
        """Print one line above the bar."""
        self.progress.console.print(text, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def progress(title: str, total: int, done: int = 0) -> Iterator[Bar]:
    """Show a bar on stderr while the block runs; none where stderr is no terminal.

    Args:
        title: What goes on.
        total: Number of steps.
        done: Steps done before.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[text]}"),
    )
    console = _console()
    free = _SHOWN.acquire(blocking=False)
    shown = Progress(*columns, console=console, disable=not (free and console.is_terminal), transient=True)
    try:
        yield Bar(shown, shown.add_task(title, total=total, completed=done, text=""), time.monotonic())
    finally:
        shown.stop()
        if free:
            _SHOWN.release()


def say(text: str) -> None:
    """Print one line on stderr."""
    _console().print(text, markup=False, highlight=False, soft_wrap=True)


def _console() -> Console:
    console = Console(stderr=True, force_jupyter=False)  # notebooks too get lines, in their order
    console.quiet = not distributed.is_main()
    return console
