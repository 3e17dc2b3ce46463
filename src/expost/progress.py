"""Progress on stderr: a bar with time left on a terminal, plain lines elsewhere. Results alone go to stdout."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn


@dataclass(frozen=True)
class Bar:
    """A progress bar under way."""

    progress: Progress
    task: TaskID

    def advance(self, steps: int = 1, text: str = "") -> None:
        """Move on by `steps`, and show `text` behind the bar if there is any."""
        self.progress.advance(self.task, steps)
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
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as shown:
        yield Bar(shown, shown.add_task(title, total=total, completed=done, text=""))


def say(text: str) -> None:
    """Print one line on stderr."""
    Console(stderr=True).print(text, markup=False, highlight=False, soft_wrap=True)
