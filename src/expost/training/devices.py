"""Devices: which one a name asks for, and models laid out on it."""

from __future__ import annotations

import torch
from torch import nn

from expost import distributed
from expost.errors import UsageError


def pick_device(name: str) -> torch.device:
    """Return the device that `name` asks for.

    Args:
        name: "auto" (cuda, else mps, else cpu), or a torch device such as "cuda:1". Of several launched processes each
            gets a GPU of its own for "auto" and "cuda".

    Raises:
        UsageError: if it does not exist on this machine.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    own = distributed.device_index()
    if own is not None and name.startswith("cuda:") and name != f"cuda:{own}":
        raise UsageError(f"device '{name}' is one GPU, but several processes were launched; use cuda, one for each")
    if name == "cuda" and own is not None:
        name = f"cuda:{own}"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        if reason.startswith("Expected one of"):  # some twenty kinds
            reason = "torch knows no such device"
        there = ["auto", "cpu", *(["cuda"] if torch.cuda.is_available() else [])]
        there += ["mps"] if torch.backends.mps.is_available() else []
        raise UsageError(f"device '{name}' cannot be used here ({reason}); use {' or '.join(there)}") from None
    return device


def device_to_go_on(name: str) -> str:
    """Return the device to resume on: the one that was trained on, or auto where this machine does not have it.

    Args:
        name: As `pick_device` takes it.
    """
    try:
        pick_device(name)
    except UsageError:
        return "auto"
    return name


def place(model: nn.Module, device: torch.device) -> None:
    """Move a model to a device, 2-D convolutions in the faster channels-last layout."""
    model.to(device)
    for weight in model.parameters():
        if weight.dim() == 4:  # torch's own way refuses a network that has 3-D convolutions beside them
            weight.data = weight.data.to(memory_format=torch.channels_last)
