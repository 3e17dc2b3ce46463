"""Engines: independent tasks in parallel, on this machine or on a Ray cluster."""

from __future__ import annotations

from pathlib import Path

from expost.experiments.engines.base import RESOURCES, Done, Engine, ResourceOptions, Resources
from expost.experiments.engines.local import LocalEngine, pick_workers, run_all
from expost.experiments.engines.on_ray import RayEngine
from expost.registry import Registry

__all__ = [
    "ENGINES",
    "RESOURCES",
    "Done",
    "Engine",
    "LocalEngine",
    "RayEngine",
    "ResourceOptions",
    "Resources",
    "open_engine",
    "pick_workers",
    "run_all",
]

ENGINES: Registry[type[Engine]] = Registry("engine", {"local": LocalEngine, "ray": RayEngine})


def open_engine(where: Resources, folder: Path) -> Engine:
    """Return the requested engine. Entering it as a context connects or starts it; leaving it stops all tasks.

    Args:
        where: What is asked for.
        folder: Where tasks write; every node must see it.

    Raises:
        UsageError: for an unknown engine, options that it does not have, or numbers out of range.
    """
    return ENGINES[where.engine](where, folder)
