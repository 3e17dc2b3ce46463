"""The hardware that an experiment ran on, and its training time."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path

import torch

from expost.report.training import History
from expost.utils.process import cores
from expost.utils.store import read_json, write_json


def hardware(device: str) -> str:
    """Return the name of the accelerator, or the number of cores that this process may use, and their kind."""
    if torch.cuda.is_available() and device != "cpu":
        return torch.cuda.get_device_name(None if device == "auto" else device)
    return f"{cores()} cores of {_processor()}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()


def note_hardware(path: Path, device: str) -> None:
    """Add the hardware of this process to the list in a file, once."""
    known, this = noted_hardware(path), hardware(device)
    if this not in known:
        write_json(path, [*known, this])


def noted_hardware(path: Path) -> list[str]:
    """Return the hardware noted in a file; empty for runs older than such files."""
    found = read_json(path) if path.exists() else []
    return [str(each) for each in found] if isinstance(found, list) else []


def summary(parts: Sequence[Sequence[str]], before: str | None) -> str:
    """Return all hardware of a table in one line.

    Args:
        parts: The hardware noted for each of its parts.
        before: What the table says already; it applies to parts without a note.

    Example:
        >>> summary([["GPU A"], ["GPU B"], ["GPU A"]], None), summary([["GPU A"], []], None), summary([[]], "GPU B")
        ('GPU A; GPU B', 'GPU A; in part not recorded', 'GPU B')
    """
    names = [name for part in parts for name in part]
    if not all(parts):
        names += before.split("; ") if before else ["in part not recorded" if names else "hardware not recorded"]
    return "; ".join(dict.fromkeys(names))


def training_seconds(folder: Path) -> float:
    """Return the seconds that a run was trained for."""
    return float(History.read(folder / "metrics.jsonl").epochs[-1]["seconds"])
