"""Parallel tasks on this machine: one process per device, or one per core."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import connection, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, TypeVar

from expost.errors import Interrupted, UsageError
from expost.experiments.engines.base import GRACE, Done, Engine, Resources, logged
from expost.utils.process import cores

T = TypeVar("T")
R = TypeVar("R")

#: Signals that workers ignore: Ctrl-C reaches the process that started them, which stops its workers once.
_FROM_TERMINAL = {signal.SIGINT}


class LocalEngine(Engine):
    """Processes on this machine; a single worker is this process itself.

    Workers end with the process that started them, however that ended: one that trains saves its state first.

    Args:
        where: What was asked for.
        folder: Where tasks write.

    Raises:
        UsageError: for options that are Ray's.
    """

    def __init__(self, where: Resources, folder: Path) -> None:
        super().__init__(where, folder)
        for name, value in (("address", where.address), ("gpu_share", where.gpu_share)):
            if value is not None:
                raise UsageError(f"{name} is {value}, but it is for Ray; give --engine ray too, or leave it out")
        self._crew: list[_Worker] = []

    @property
    def here(self) -> str:
        """The device that was asked for."""
        return self.where.device

    def devices(self, tasks: int) -> list[str]:
        """Return the device of each worker: see `pick_workers`."""
        return pick_workers(self.where.workers, self.where.device, tasks)

    def start(self) -> None:
        """Do nothing: processes are started with the tasks."""

    def run(
        self,
        function: Callable[[T, str], R],
        tasks: Sequence[T],
        devices: Sequence[str],
        logs: Callable[[T], Path] | None = None,
    ) -> Iterator[Done[T, R]]:
        """Run a function on every task: see `Engine.run`.

        Raises:
            Exception: the first that a task raised; tasks that run at the time are finished, others are not begun.
            ChildProcessError: if a worker was killed, for example for lack of memory.
        """
        if len(devices) == 1:
            for task in tasks:
                yield Done(task, function(task, devices[0]))
            return
        import torch

        threads = max(1, torch.get_num_threads() // len(devices))
        waiting, failure = list(reversed(tasks)), None
        try:
            for device in devices:
                self._crew.append(_Worker(device, threads))
            idle, busy = list(self._crew), dict[Connection, _Worker]()
            while True:
                while idle and waiting and failure is None:
                    worker = idle.pop()
                    worker.begin(function, waiting.pop(), logs)
                    busy[worker.pipe] = worker
                if not busy:
                    break
                for pipe in connection.wait(list(busy)):
                    assert isinstance(pipe, Connection)
                    worker = busy.pop(pipe)
                    try:
                        task, result = worker.task, worker.result()
                    except Exception as error:
                        failure = failure or error
                        continue
                    idle.append(worker)
                    yield Done(task, result)
        finally:
            self.close()
        if failure is not None:
            raise failure

    def close(self) -> None:
        """Stop all workers; a training saves its state first."""
        crew, self._crew = self._crew, []
        for worker in crew:
            worker.pipe.close()  # this alone ends an idle worker
        for worker in crew:
            if worker.task is not None and worker.process.is_alive():
                worker.process.terminate()
        deadline = time.monotonic() + GRACE
        try:
            for worker in crew:
                worker.process.join(max(0.0, deadline - time.monotonic()))
        finally:  # also when a second Ctrl-C ends the wait
            for worker in crew:
                if worker.process.is_alive():
                    worker.process.kill()
                    worker.process.join()


class _Worker:
    """A process that runs one task after another."""

    def __init__(self, device: str, threads: int) -> None:
        self.device = device
        self.task: Any = None
        self.log: Path | None = None
        self.pipe, theirs = multiprocessing.Pipe()
        self.process: SpawnProcess = multiprocessing.get_context("spawn").Process(target=_work, args=(theirs, threads))
        resource_tracker.ensure_running()  # started later, inside the block, it would unblock the signals
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _FROM_TERMINAL)  # a new process inherits what is blocked
        try:
            self.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()

    def begin(self, function: Callable[[T, str], R], task: T, logs: Callable[[T], Path] | None) -> None:
        self.task, self.log = task, logs(task) if logs else None
        with contextlib.suppress(BrokenPipeError):  # it has died, which `result` reports
            self.pipe.send((function, task, self.device, self.log))

    def result(self) -> Any:
        """Return the task's result, or raise its error."""
        try:
            done, value = self.pipe.recv()
        except (EOFError, ConnectionResetError):
            self.process.join(GRACE)
            code = self.process.exitcode
            how = f"by signal {-code}" if code is not None and code < 0 else f"with status {code}"
            hint = "; there may be too little memory: give fewer --workers" if code == -signal.SIGKILL else ""
            seen = f" (its log: {self.log})" if self.log else ""
            raise ChildProcessError(f"a worker was ended {how} amid its task{seen}{hint}") from None
        self.task = None
        if not done:
            raise value
        return value


def _work(pipe: Connection, threads: int) -> None:
    """Run the tasks that come through the pipe, until it is closed."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    import torch

    torch.set_num_threads(threads)
    while True:
        try:
            function, task, device, log = pipe.recv()
        except (EOFError, ConnectionResetError):
            return
        try:
            answer: tuple[bool, Any] = (True, logged(function, task, device, log))
        except Exception as error:
            answer = (False, _portable(error))
        try:
            pipe.send(answer)
        except BrokenPipeError:  # nobody waits for it any more
            return
        if isinstance(answer[1], Interrupted):
            return


def _portable(error: Exception) -> Exception:
    """Return an error that can be pickled, with its traceback as a note."""
    error.add_note("".join(traceback.format_tb(error.__traceback__)))
    try:
        again = pickle.loads(pickle.dumps(error))
    except Exception:
        again = None
    same = type(again) is type(error) and str(again) == str(error)
    return error if same else RuntimeError(f"{type(error).__name__}: {error}")


def _end_with_parent() -> None:
    """Wait until the parent process ends, then end too: a training saves its state first."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os._exit(1)


def pick_workers(asked: int | None, device: str, tasks: int) -> list[str]:
    """Return the device of each worker.

    Args:
        asked: How many workers; None takes one a CUDA device, or one a core where tasks run on the CPU: processes of
            one thread each get more done than one process of several threads.
        device: What tasks run on: auto, cpu, cuda, mps, or one device such as cuda:1.
        tasks: How many there are to do.

    Raises:
        UsageError: if fewer than one is asked for.
    """
    check_workers(asked)
    import torch

    from expost.training.devices import pick_device

    chosen = pick_device(device)
    if str(chosen) == "cuda":
        devices = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    else:
        devices = [str(chosen)]
    natural = cores() if chosen.type == "cpu" else len(devices)
    count = max(1, min(asked or natural, tasks))
    return [devices[index % len(devices)] for index in range(count)]


def check_workers(asked: int | None) -> None:
    """Refuse fewer than one worker."""
    if asked is not None and asked < 1:
        raise UsageError(f"workers is {asked}; give at least 1")


def run_all(
    function: Callable[[T, str], R], tasks: Sequence[T], devices: Sequence[str], logs: Callable[[T], Path] | None = None
) -> Iterator[Done[T, R]]:
    """Run a function on every task in processes of this machine: see `LocalEngine.run`."""
    with LocalEngine(Resources(), Path()) as engine:
        yield from engine.run(function, tasks, devices, logs)
