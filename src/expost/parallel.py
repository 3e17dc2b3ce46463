"""Independent tasks side by side on this machine: a process a device, or a process a core."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import queue
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import torch

from expost.errors import UsageError
from expost.training import pick_device

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Done(Generic[T, R]):
    """A task that is finished.

    Attributes:
        task: What was asked for.
        result: What came of it.
    """

    task: T
    result: R


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
    if asked is not None and asked < 1:
        raise UsageError(f"workers is {asked}; give at least 1")
    chosen = pick_device(device)
    if str(chosen) == "cuda":
        devices = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    else:
        devices = [str(chosen)]
    natural = len(os.sched_getaffinity(0)) if chosen.type == "cpu" else len(devices)
    count = max(1, min(asked or natural, tasks))
    return [devices[index % len(devices)] for index in range(count)]


def run_all(
    function: Callable[[T, str], R], tasks: Sequence[T], devices: Sequence[str], logs: Callable[[T], Path] | None = None
) -> Iterator[Done[T, R]]:
    """Run a function on every task, each worker taking the next as soon as it is free.

    Args:
        function: Takes a task and a device; importable, since workers are processes of their own. With one worker it
            runs in this process.
        tasks: What to do; picklable.
        devices: The device of each worker, from `pick_workers`.
        logs: Where a task's progress is written when there are several workers.

    Yields:
        Tasks with their results, as they finish.

    Raises:
        Exception: the first that a task raised; tasks that run at the time are finished, others are not begun.
    """
    if len(devices) == 1:
        for task in tasks:
            yield Done(task, function(task, devices[0]))
        return
    waiting: queue.SimpleQueue[T] = queue.SimpleQueue()
    for task in tasks:
        waiting.put(task)
    finished: queue.SimpleQueue[Done[T, R] | BaseException | None] = queue.SimpleQueue()
    threads = max(1, torch.get_num_threads() // len(devices))
    spawn = multiprocessing.get_context("spawn")

    def serve(device: str) -> None:
        try:
            with ProcessPoolExecutor(1, spawn, torch.set_num_threads, (threads,)) as pool:
                while True:
                    try:
                        task = waiting.get_nowait()
                    except queue.Empty:
                        break
                    path = logs(task) if logs else None
                    finished.put(Done(task, pool.submit(_logged, function, task, device, path).result()))
        except BaseException as error:
            with contextlib.suppress(queue.Empty):
                while True:  # what was not begun is left
                    waiting.get_nowait()
            finished.put(error)
        finally:
            finished.put(None)

    with ThreadPoolExecutor(len(devices)) as pool:
        served = [pool.submit(serve, device) for device in devices]
        left, failure = len(devices), None
        while left:
            item = finished.get()
            if item is None:
                left -= 1
            elif isinstance(item, BaseException):
                failure = failure or item
            else:
                yield item
        for future in as_completed(served):
            future.result()
        if failure is not None:
            raise failure


def _logged(function: Callable[[T, str], R], task: T, device: str, log: Path | None) -> R:
    if log is None:
        return function(task, device)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8", buffering=1) as file, contextlib.redirect_stderr(file):
        return function(task, device)
