"""Progress on stderr: a bar on a terminal, a line every ten seconds elsewhere, both with time left.

Only results go to stdout. A bar appears when its work has taken a second. One bar is shown at a time: work inside other
work shows none. Of several processes that work together, only the first shows anything.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

#: Seconds before a bar appears.
PATIENCE = 1.0
#: Seconds between lines where there is no terminal.
BETWEEN_LINES = 10.0
#: Held by the work whose bar is shown.
_SHOWN = threading.Lock()


@dataclass
class Bar:
    """The progress of one piece of work.

    Attributes:
        title: Name of the work.
        total: Number of steps.
        done: Steps done.
        first: Steps done when the work began.
        lines: Whether lines are printed in place of a bar.
    """

    title: str
    total: int
    done: int
    first: int
    lines: bool
    _progress: Progress
    _task: TaskID

    def __post_init__(self) -> None:
        """Start the clock."""
        self._begun = self._said = time.monotonic()
        self._first: tuple[float, int] | None = None

    def advance(self, steps: int = 1, text: str = "") -> None:
        """Count `steps` more, and show `text`, if any, after the bar or in the line."""
        self.done += steps
        self._progress.advance(self._task, steps)
        now = time.monotonic()
        self._first = self._first or (now, self.done)
        if self.lines and now - self._said >= BETWEEN_LINES:
            parts = (f"{self.title}: {self.done:,} of {self.total:,}", self.left(), text)
            self.say(", ".join(part for part in parts if part))
        if not self._progress.live.is_started and now - self._begun > PATIENCE:
            self._progress.start()
        if text:
            self._progress.update(self._task, text=text)

    @property
    def visible(self) -> bool:
        """Whether there is a bar on the terminal."""
        return bool(self._progress.live.is_started)

    @property
    def pace(self) -> float:
        """Seconds a step, without those that came first, which also set things up; 0 before the first."""
        now = time.monotonic()
        if self._first is None:
            return 0.0
        since, done = self._first
        if self.done > done:
            return (now - since) / (self.done - done)
        return (now - self._begun) / (self.done - self.first)

    def left(self) -> str:
        """Return in words how much time is left, by the pace so far; empty before the first step."""
        return f"{duration((self.total - self.done) * self.pace)} left" if self._first else ""

    def say(self, text: str) -> None:
        """Print one line above the bar."""
        self._said = time.monotonic()
        self._progress.console.print(text, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def progress(title: str, total: int, done: int = 0) -> Iterator[Bar]:
    """Show a bar on stderr while the block runs; where stderr is no terminal, a line every ten seconds.

    Args:
        title: Name of the work.
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
        task = shown.add_task(title, total=total, completed=done, text="")
        yield Bar(title, total, done, done, free and not console.is_terminal, shown, task)
    finally:
        shown.stop()
        if free:
            _SHOWN.release()


def duration(seconds: float) -> str:
    """Return a time in words.

    Example:
        >>> duration(7.2), duration(150), duration(7500), duration(0.0234)
        ('7 s', '2.5 min', '2.08 h', '0.023 s')
    """
    if 0 < seconds < 1:
        return f"{seconds:.2g} s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.3g} min" if seconds < 6000 else f"{seconds / 3600:.3g} h"


def say(text: str) -> None:
    """Print one line on stderr."""
    _console().print(text, markup=False, highlight=False, soft_wrap=True)


def _console() -> Console:
    console = Console(stderr=True, force_jupyter=False)  # notebooks too get lines, in their order
    from expost import distributed  # which imports torch, and listing the data sets needs none

    console.quiet = not distributed.is_main()
    return console
