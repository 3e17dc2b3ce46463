"""Networks whose weights come with the package."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from expost.errors import DataError
from expost.utils.store import read_tensors

N = TypeVar("N", bound=nn.Module)


def read_network(path: Path, make: Callable[[], N], what: str) -> tuple[N, dict[str, Any]]:
    """Read a network, in evaluation mode and without gradients, and the record in its file.

    Args:
        path: The file of its weights.
        make: Builds it; no random numbers are drawn.
        what: What the file should hold, for the message.

    Raises:
        DataError: if the file is missing, truncated, or holds another network.
    """
    tensors, record = read_tensors(path)
    with torch.device("meta"):  # building it with its weights draws no random numbers
        network = make()
    try:
        network.load_state_dict(tensors, assign=True)
    except RuntimeError:
        raise DataError(f"{path} does not hold {what}; install the package again") from None
    return network.eval().requires_grad_(False), record
