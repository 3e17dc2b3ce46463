"""Launched processes: their place, the group that they join, and how many run the current block.

A launcher tells each process its place through the environment (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR,
MASTER_PORT).
"""

from __future__ import annotations

import atexit
import contextlib
import os
from datetime import timedelta
from importlib import import_module
from typing import Any

import torch
import torch.distributed as dist

from expost.errors import UsageError

#: Longest wait for another process, for example while the first one prepares the data.
TIMEOUT = timedelta(hours=2)
#: Environment variables that a launcher sets.
PLACE = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class Shared:
    """The state of this process: how deep it is inside of `together` and `main_first`, and the launcher's store."""

    depth = 0
    preparing = 0
    store: Any = None


def launched() -> bool:
    """Return whether a launcher has started this process as one of several."""
    return dist.is_available() and int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ


def is_first() -> bool:
    """Return whether this process is the first of those that were launched; true for a single one."""
    return not launched() or int(os.environ["RANK"]) == 0


def restarted() -> bool:
    """Return whether torchrun has started the processes again after a failure (`--max-restarts`)."""
    return launched() and int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def remember(fact: str) -> None:
    """Record a marker that survives restarts by `torchrun --max-restarts`; nothing for a single process."""
    if Shared.store is not None:
        Shared.store.set(f"expost: {fact}", "")


def remembers(fact: str) -> bool:
    """Return whether an earlier attempt of this launch recorded the marker; false if the launcher keeps no store."""
    return restarted() and Shared.store is not None and bool(Shared.store.check([f"expost: {fact}"]))


def device_index() -> int | None:
    """Return the index of this process's GPU; None for a single process."""
    if not launched():
        return None
    return int(os.environ.get("LOCAL_RANK", os.environ["RANK"])) % max(1, torch.cuda.device_count())


def world() -> int:
    """Return how many processes run the current block; 1 outside of `together`."""
    return dist.get_world_size() if Shared.depth and launched() else 1


def rank() -> int:
    """Return the number of this process among them, from 0."""
    return dist.get_rank() if world() > 1 else 0


def is_main() -> bool:
    """Return whether this process prints and writes results: the first inside of `together`, every one outside."""
    return rank() == 0


def may_write() -> bool:
    """Return whether this process writes files: the main one, and any inside of `main_first`."""
    return is_main() or Shared.preparing > 0


def leave() -> None:
    """Make this process, and those that it starts, single for good: for work that the others take no part in."""
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        os.environ.pop(name, None)


def start() -> None:
    """Join the launched processes to a group.

    Raises:
        UsageError: if the launcher's environment is not complete.
    """
    missing = [name for name in PLACE if not os.environ.get(name)]
    if missing:
        raise UsageError(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, but {', '.join(missing)} is not set; start with torchrun"
        )
    gpus, here = torch.cuda.device_count(), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    own_gpu = gpus >= max(1, here)
    if own_gpu:
        torch.cuda.set_device(device_index() or 0)
    # This module's functions have the group of the moment of import as a default, and the optimizers import it later:
    # then nothing could close the group at exit, and its threads would now and then end the process by SIGABRT.
    import_module("torch.distributed.nn.functional")
    backend = "cpu:gloo,cuda:nccl" if own_gpu and dist.is_nccl_available() else "gloo"
    store, index, count = next(dist.rendezvous("env://", timeout=TIMEOUT))  # type: ignore[attr-defined]
    Shared.store = store
    # torchrun's store outlives processes that are started again, which must not find the addresses of the dead
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    fresh = dist.PrefixStore(f"attempt {attempt}", store)  # type: ignore[attr-defined]
    dist.init_process_group(backend, store=fresh, rank=index, world_size=count, timeout=TIMEOUT)
    atexit.register(stop)


def stop() -> None:
    """Leave the group, at exit."""
    with contextlib.suppress(Exception):  # at exit nobody is left to be told
        if dist.is_initialized():
            dist.destroy_process_group()
