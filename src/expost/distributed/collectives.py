"""Several processes as one: `torchrun` or `accelerate launch` starts them, `together` makes them share the work.

A launcher tells each process its place through the environment (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR,
MASTER_PORT). Inside a `together` block all processes run the same program on the same data, each does its part of what
is split up, and every one of them gets the whole result; only the first writes files and prints. Outside such a block a
process is on its own, and in a single process everything here does nothing.

    torchrun --nproc-per-node 8 -m expost train rae-l2 --data mnist --out runs/first

Sums are taken in the precision of what is summed: statistics are given in float64. CPU tensors travel by gloo, CUDA
tensors by NCCL (by gloo where processes share a GPU, which NCCL refuses).
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from importlib import import_module
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from expost.errors import DataError, OtherProcessError, UsageError

#: How long a process waits for another, for example while the first one prepares the data.
TIMEOUT = timedelta(hours=2)
#: What a launcher sets.
PLACE = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class _Shared:
    """What changes here: how deep this process is inside of blocks, and the launcher's store."""

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
    if _Shared.store is not None:
        _Shared.store.set(f"expost: {fact}", "")


def remembers(fact: str) -> bool:
    """Return whether an earlier attempt of this launch has told it; false where the launcher keeps no store."""
    return restarted() and _Shared.store is not None and bool(_Shared.store.check([f"expost: {fact}"]))


def device_index() -> int | None:
    """Return the number of the GPU that is this process's, None for a single process."""
    if not launched():
        return None
    return int(os.environ.get("LOCAL_RANK", os.environ["RANK"])) % max(1, torch.cuda.device_count())


def world() -> int:
    """Return how many processes run the block under way; 1 outside of `together`."""
    return dist.get_world_size() if _Shared.depth and launched() else 1


def rank() -> int:
    """Return the number of this process among them, from 0."""
    return dist.get_rank() if world() > 1 else 0


def is_main() -> bool:
    """Return whether this process prints and writes results: the first inside of `together`, every one outside."""
    return rank() == 0


def may_write() -> bool:
    """Return whether this process writes files: beside the main one, each that prepares what its machine lacks."""
    return is_main() or _Shared.preparing > 0


def leave() -> None:
    """Make this a single process for good, and those that it starts: for work that the others take no part in."""
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        os.environ.pop(name, None)


@contextmanager
def together() -> Iterator[None]:
    """Run a block, or as a decorator a function, in all launched processes side by side, as if they were one.

    All of them must get here, with the same arguments. At the end they wait for each other, so that what the first
    has written is there for all. Blocks may be nested. In a single process it does nothing.

    Raises:
        UsageError: if the launcher's environment is not complete.
    """
    if launched() and not dist.is_initialized():
        _start()
    _Shared.depth += 1
    try:
        yield
        if _Shared.depth == 1:
            barrier()
    finally:
        _Shared.depth -= 1


def _start() -> None:
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
    _Shared.store = store
    # torchrun's store outlives processes that are started again, which must not find the addresses of the dead
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    fresh = dist.PrefixStore(f"attempt {attempt}", store)  # type: ignore[attr-defined]
    dist.init_process_group(backend, store=fresh, rank=index, world_size=count, timeout=TIMEOUT)
    atexit.register(_stop)


def _stop() -> None:
    with contextlib.suppress(Exception):  # at exit nobody is left to be told
        if dist.is_initialized():
            dist.destroy_process_group()


def _carried(x: Tensor) -> Tensor:
    """Return a tensor where the processes can exchange it; with a group of someone's own that may be a GPU."""
    if x.device.type == "cpu" and "gloo" not in str(dist.get_backend_config()):
        return x.cuda()
    return x


def add_up(x: Tensor) -> None:
    """Sum a tensor over the processes, in place."""
    if world() > 1:
        carried = _carried(x.contiguous())
        dist.all_reduce(carried)
        if carried is not x:
            x.copy_(carried)


def total(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Return the sums of tensors over the processes, all of them in one exchange; one dtype and device."""
    if world() == 1:
        return tensors
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    add_up(flat)
    parts = flat.split([tensor.numel() for tensor in tensors])  # type: ignore[no-untyped-call]
    return tuple(part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True))


def mean(values: Tensor) -> Tensor:
    """Return the mean of numbers of which each process holds some, shape (n,)."""
    if world() == 1:
        return values.mean()
    whole, count = total(values.sum(), values.new_tensor(len(values)))
    return whole / count


def bounds(count: int, part: int | None = None) -> tuple[int, int]:
    """Return the first row, and the one after the last, that a process has of `count`; `part` None is this one.

    Example:
        >>> bounds(5)
        (0, 5)
    """
    size, rest = divmod(count, world())
    index = rank() if part is None else part
    first = index * size + min(index, rest)
    return first, first + size + (index < rest)


def shard(x: Tensor) -> Tensor:
    """Return this process's rows of a tensor that all have (a view); all of them in a single process."""
    first, last = bounds(len(x))
    return x[first:last]


def gather(part: Tensor, count: int) -> Tensor:
    """Return all `count` rows, on every process, from the part that each has by `bounds`."""
    if world() == 1:
        return part
    longest = -(-count // world())
    padded = _carried(part.new_zeros(longest, *part.shape[1:]))
    padded[: len(part)] = part
    everything = padded.new_empty(world() * longest, *part.shape[1:])
    dist.all_gather(list(everything.chunk(world())), padded)
    if count == len(everything):
        return everything.to(part.device)
    sizes = [bounds(count, each) for each in range(world())]
    pieces = [everything[i * longest : i * longest + last - first] for i, (first, last) in enumerate(sizes)]
    return torch.cat(pieces).to(part.device)


def everywhere(flag: bool) -> bool:
    """Return whether something is true in every process."""
    if world() == 1:
        return flag
    missing = torch.tensor(0 if flag else 1)
    add_up(missing)
    return not bool(missing)


def copy_from_main(*tensors: Tensor) -> None:
    """Overwrite tensors by those of the first process."""
    if world() > 1:
        for tensor in tensors:
            carried = _carried(tensor.detach().contiguous())
            dist.broadcast(carried, 0)
            if carried is not tensor:
                tensor.detach().copy_(carried)


def barrier() -> None:
    """Wait for the other processes."""
    add_up(torch.zeros(1))


@contextmanager
def main_first() -> Iterator[None]:
    """Run a block in the first process, then in the others, which find what it has prepared.

    All of them may write there: a machine with a disk of its own has to prepare it as well.

    Raises:
        Exception: in every process, what one of them has raised.
    """
    if not is_main():
        _settle(None)
    failure: Exception | None = None
    _Shared.preparing += 1
    try:
        yield
    except Exception as error:
        failure = error
    finally:
        _Shared.preparing -= 1
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
        Exception: in every process, what has been raised in the first that failed.
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
        Exception: in every process, what it has raised in the first.
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
    """Tell the others whether this process has failed; raise, where it has not, the error of the first that has."""
    if world() == 1:
        return
    first = torch.tensor(world() if error is None else rank())
    first = _carried(first)
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
    """Check that all processes have the same of something.

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
