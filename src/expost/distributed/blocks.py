"""Blocks that several processes run side by side: `torchrun` or `accelerate launch` starts them.

Inside a `together` block all processes run the same program on the same data, each does its part of what is split up,
and every one of them gets the whole result; only the first writes files and prints. What fails in one process fails in
all. Outside such a block a process is on its own, and in a single process everything here does nothing.

    torchrun --nproc-per-node 8 -m expost train rae-l2 --data mnist --out runs/first
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist

from expost.distributed.collectives import add_up, barrier, copy_from_main, everywhere, travelling
from expost.distributed.launch import Shared, is_main, launched, rank, start, world
from expost.errors import DataError, OtherProcessError, UsageError


@contextmanager
def together() -> Iterator[None]:
    """Run a block, or as a decorator a function, in all launched processes side by side, as if they were one.

    All of them must get here, with the same arguments. At the end they wait for each other, so that what the first
    has written is there for all. Blocks may be nested. In a single process it does nothing.

    Raises:
        UsageError: if the launcher's environment is not complete.
    """
    if launched() and not dist.is_initialized():
        start()
    Shared.depth += 1
    try:
        yield
        if Shared.depth == 1:
            barrier()
    finally:
        Shared.depth -= 1


@contextmanager
def main_first() -> Iterator[None]:
    """Run a block in the first process, then in the others, which find what it has prepared.

    All of them may write files in it: a machine with its own disk must prepare them as well.

    Raises:
        Exception: in every process, the error of one of them.
    """
    if not is_main():
        _settle(None)
    failure: Exception | None = None
    Shared.preparing += 1
    try:
        yield
    except Exception as error:
        failure = error
    finally:
        Shared.preparing -= 1
    if is_main():
        _settle(failure)
    if failure is None or not is_main():  # where the first has failed, the others have stopped waiting
        _settle(failure)
    if failure is not None:
        raise failure


@contextmanager
def all_or_none() -> Iterator[None]:
    """Run a block in all processes; if it fails in one, it fails in all, instead of leaving the others waiting.

    Raises:
        Exception: in every process, the error of the first that failed.
    """
    failure: Exception | None = None
    try:
        yield
    except Exception as error:
        failure = error
    _settle(failure)
    if failure is not None:
        raise failure


def on_main(action: Callable[[], Any]) -> None:
    """Call a function in the first process alone, while the others wait.

    Raises:
        Exception: in every process, the error of the first.
    """
    failure: Exception | None = None
    if is_main():
        try:
            action()
        except Exception as error:
            failure = error
    _settle(failure)
    if failure is not None:
        raise failure


def _settle(error: Exception | None) -> None:
    """Tell the others whether this process failed; if it did not, raise the error of the first that did."""
    if world() == 1:
        return
    first = torch.tensor(world() if error is None else rank())
    first = travelling(first)
    dist.all_reduce(first, dist.ReduceOp.MIN)
    if int(first) == world():
        return
    kinds: dict[str, type[Exception]] = {"UsageError": UsageError, "DataError": DataError}
    own = next((name for name, kind in kinds.items() if isinstance(error, kind)), type(error).__name__)
    words = json.dumps([own, str(error)]).encode() if int(first) == rank() else b""
    size = torch.tensor(len(words))
    add_up(size)
    letters = torch.zeros(int(size), dtype=torch.uint8)
    if words:
        letters.copy_(torch.frombuffer(bytearray(words), dtype=torch.uint8))
    add_up(letters)
    if error is None:
        what, text = json.loads(bytes(letters.tolist()))
        raise kinds[what](text) if what in kinds else OtherProcessError(f"process {int(first)} failed: {what}: {text}")


def require_same(fingerprint: str, what: str) -> None:
    """Check that all processes have the same data or files.

    Args:
        fingerprint: Its SHA-256, in hex.
        what: What it is, for the message.

    Raises:
        DataError: in every process, if they do not.
    """
    if world() == 1:
        return
    mine = torch.tensor([int(fingerprint[start : start + 8], 16) for start in range(0, 64, 8)])
    main = mine.clone()
    copy_from_main(main)
    if not everywhere(torch.equal(mine, main)):
        raise DataError(f"{what} is not the same in all {world()} processes; give every machine the same files")
