"""What an experiment ran on, and how long."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path

import torch


def hardware(device: str) -> str:
    """Return the name of the accelerator, or the number of cores and the machine's kind."""
    if torch.cuda.is_available() and device != "cpu":
        return torch.cuda.get_device_name()
    return f"{len(os.sched_getaffinity(0))} cores of {platform.machine()}"


def training_seconds(folder: Path) -> float:
    """Return the seconds that a run was trained for."""
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return float(json.loads(lines[-1])["seconds"])
