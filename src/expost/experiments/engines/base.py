"""The interface of engines, which run independent tasks in parallel."""

from __future__ import annotations

import contextlib
import signal
import threading
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Generic, Self, TypedDict, TypeVar

from expost.commands.groups import Group
from expost.errors import Interrupted

T = TypeVar("T")
R = TypeVar("R")

#: Seconds that a task gets to save its state when it is stopped, before it is killed.
GRACE = 30.0


@dataclass(frozen=True)
class Done(Generic[T, R]):
    """A task that is finished.

    Attributes:
        task: The task.
        result: What it returned.
    """

    task: T
    result: R


@dataclass(frozen=True)
class Resources:
    """What a grid of tasks may use: the fields are the keys of `ResourceOptions`."""

    engine: str = "local"
    device: str = "auto"
    workers: int | None = None
    address: str | None = None
    gpu_share: float | None = None


class ResourceOptions(TypedDict, total=False):
    """What the grid may use.

    Attributes:
        device: auto, cpu, cuda or mps.
        workers: Runs side by side; default: one per CUDA device, or one per core; on Ray, as many as fit.
        engine: local (processes of this machine) or ray (a Ray cluster whose nodes all see the folder).
        address: Address of the Ray cluster: auto (this machine's), HOST:PORT or ray://HOST:PORT; default: $RAY_ADDRESS,
            or a cluster that is started on this machine for as long as it is needed.
        gpu_share: Share of a GPU per run on Ray, for example 0.5; default: a whole one.
    """

    device: str
    workers: int | None
    engine: str
    address: str | None
    gpu_share: float | None


#: The options of every command that runs a grid.
RESOURCES = Group(ResourceOptions, asdict(Resources()))


class Engine(ABC):
    """Runs independent tasks in parallel. Leaving it as a context stops running tasks, which save their state first.

    While it is open, SIGTERM raises `Interrupted` in the main thread, as Ctrl-C raises KeyboardInterrupt.

    Args:
        where: What was asked for.
        folder: Where tasks write.
    """

    def __init__(self, where: Resources, folder: Path) -> None:
        self.where = where
        self.folder = folder

    @property
    @abstractmethod
    def here(self) -> str:
        """The device for computations of this process itself, between tasks."""

    @abstractmethod
    def devices(self, tasks: int) -> list[str]:
        """Return the device of each worker for this number of tasks."""

    @abstractmethod
    def run(
        self,
        function: Callable[[T, str], R],
        tasks: Sequence[T],
        devices: Sequence[str],
        logs: Callable[[T], Path] | None = None,
    ) -> Iterator[Done[T, R]]:
        """Run a function on every task, each worker taking the next as soon as it is free.

        Args:
            function: Takes a task and a device; importable, since workers are processes of their own.
            tasks: What to do; picklable.
            devices: The device of each worker, from `devices`.
            logs: Where a task's progress is written when it runs in another process.

        Yields:
            Tasks with their results, as they finish.

        Raises:
            Exception: the first that a task raised.
        """

    @abstractmethod
    def start(self) -> None:
        """Connect to the machines that run tasks, or start them."""

    @abstractmethod
    def close(self) -> None:
        """Stop running tasks; a training saves its state first."""

    def __enter__(self) -> Self:
        self._watched = threading.current_thread() is threading.main_thread()
        self._previous = signal.getsignal(signal.SIGTERM)
        self.start()
        if self._watched:  # after the start, since Ray's has a handler of its own
            signal.signal(signal.SIGTERM, _stop)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        finally:
            if self._watched:
                signal.signal(signal.SIGTERM, self._previous or signal.SIG_DFL)


def _stop(number: int, frame: FrameType | None) -> None:
    raise Interrupted(number=number)


def logged(function: Callable[[T, str], R], task: T, device: str, log: Path | None) -> R:
    """Run a task with its progress, and the traceback of an error, in a log file of its own."""
    if log is None:
        return function(task, device)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8", buffering=1) as file, contextlib.redirect_stderr(file):
        try:
            return function(task, device)
        except Exception as error:
            if not isinstance(error, Interrupted):
                traceback.print_exc()
            raise
