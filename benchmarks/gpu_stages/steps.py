"""Training steps, ours and Pythae's, in each arithmetic: their operations and their time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peer import MNIST, ours, theirs
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from expost.models.autoencoder import Autoencoder
from expost.training.cuda_graph import Recorded, recordable
from expost.training.devices import place
from expost.types import Loss
from gpu_stages.bench import BF16, TF32

#: Rows of the speed stage: what they are called, the row of the zoo, options.
ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    "rae-l2": ("rae-l2", {}),
    "vae": ("vae", {}),
    "rae-gp": ("rae-gp", {}),
    "rae-gp-quarter": ("rae-gp", {"regularizer.fraction": 0.25}),
}


@contextmanager
def arithmetic(kind: str) -> Iterator[None]:
    """Compute float32 products and convolutions in float32, or in TF32, while the block runs."""
    matrices, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matrices.allow_tf32, convolutions.allow_tf32
    matrices.allow_tf32 = convolutions.allow_tf32 = kind == TF32
    try:
        yield
    finally:
        matrices.allow_tf32, convolutions.allow_tf32 = before


def images(batch: int, device: torch.device) -> torch.Tensor:
    """Return a batch of noise shaped like MNIST."""
    return torch.rand(batch, *MNIST, generator=torch.Generator().manual_seed(0)).to(device)


def our_step(
    row: str, width: int, x: torch.Tensor, kind: str, recorded: bool = True, compiled: bool = False
) -> Callable[[], None]:
    """Return a function that takes one step of ours on a batch, as `Training` does: forward, backward, fused Adam."""
    model, options = ROWS[row]
    network = ours(model, width, **options).train()
    place(network, x.device)
    loss_of = torch.compile(network.loss) if compiled else network.loss
    weights = list(network.parameters())
    optimizer = torch.optim.Adam(weights, lr=1e-4, fused=True)
    recorded = recorded and not compiled and recordable(network, x.device)

    def passes(batch: torch.Tensor) -> Loss:
        # a graph must not keep casts of the weights beyond the step in which they were made
        with torch.autocast(x.device.type, torch.bfloat16, enabled=kind == BF16, cache_enabled=not recorded):
            loss = loss_of(batch)
        loss.total.backward()
        return loss.detach()

    if recorded:
        passes = Recorded(passes, weights)

    def step() -> None:
        if not recorded:
            optimizer.zero_grad()
        passes(x)
        optimizer.step()

    return step


def their_step(row: str, width: int, x: torch.Tensor, kind: str) -> Callable[[], None]:
    """Return a function that takes one step of Pythae's in the same arithmetic; its penalty has no fraction."""
    network: nn.Module = theirs(ROWS[row][0], width).train().to(x.device)
    network.device = x.device
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(x.device.type, torch.bfloat16, enabled=kind == BF16):
            loss = network({"data": x}).loss
        loss.backward()
        optimizer.step()

    return step


class _Counter(TorchDispatchMode):
    """Adds up operations by torch's own table; its FlopCounterMode stops at a gradient of a gradient."""

    total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func._overloadpacket in flop_registry:
            self.total += flop_registry[func._overloadpacket](*args, **(kwargs or {}), out_val=result)
        return result


def operations(network: Autoencoder, x: torch.Tensor) -> float:
    """Return the floating-point operations of a step for each example: products and sums, without those of Adam."""
    with _Counter() as counted:
        network.loss(x).total.backward()
    return counted.total / len(x)


def matrix_rate(device: torch.device, kind: str, side: int) -> float:
    """Return the rate of a product of two square matrices of random numbers, in FLOP/s."""
    a, b = (torch.randn(side, side, device=device) for _ in range(2))
    if kind == BF16:
        a, b = a.bfloat16(), b.bfloat16()
    with arithmetic(kind):
        return 2 * side**3 / seconds_of(lambda: a @ b, device)


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    """Return the seconds of one call: the median of `BLOCKS` blocks of calls that take `BLOCK_SECONDS` together.

    Three calls before them do not count. On a CPU a block is one call, and one before them does not count.
    """
    on_gpu = device.type == "cuda"

    def block(calls: int) -> float:
        started = time.perf_counter()
        for _ in range(calls):
            work()
        if on_gpu:
            torch.cuda.synchronize(device)
        return (time.perf_counter() - started) / calls

    block(2 if on_gpu else 1)
    calls = calls_a_block(block(1)) if on_gpu else 1
    return statistics.median(block(calls) for _ in range(BLOCKS if on_gpu else 2))


#: How long is measured on a GPU.
BLOCKS, BLOCK_SECONDS = 5, 0.2


def calls_a_block(seconds: float) -> int:
    """Return the number of calls in a block, given the seconds of one call."""
    return max(1, min(20, int(BLOCK_SECONDS / seconds)))
