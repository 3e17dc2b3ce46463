"""This process: the cores it may use, and the variables of its environment."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import joblib


def cores() -> int:
    """Return how many cores this process may use: as its affinity, its container and `LOKY_MAX_CPU_COUNT` allow."""
    return int(joblib.cpu_count())


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables of the process's environment while the block runs, for what takes settings from nowhere else."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
