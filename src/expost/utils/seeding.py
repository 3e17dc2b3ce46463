"""Randomness that depends on a seed and a position alone, and leaves the global generators as it found them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

#: The streams that a seed is split into, so that no two uses of one seed see the same numbers.
WEIGHTS, ORDER, NOISE, VALIDATION, SAMPLES, PAIRS, HELD_OUT = range(7)


def stream_seed(seed: int, stream: int, position: int = 0) -> int:
    """Return a 63-bit seed for one position in one stream.

    Args:
        seed: The seed a person gave, at least 0.
        stream: One of the constants above.
        position: For example the number of the training step.
    """
    state = np.random.SeedSequence([seed, stream, position]).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))


def generator(seed: int, stream: int, position: int = 0) -> torch.Generator:
    """Return a CPU generator for one position in one stream."""
    return torch.Generator().manual_seed(stream_seed(seed, stream, position))


@contextmanager
def isolated() -> Iterator[None]:
    """Restore torch's global generators, of every device, after the block, which may seed and use them."""
    mps = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            yield
    finally:
        if mps is not None:
            torch.mps.set_rng_state(mps)
