"""Shared by the benchmarks: run two sides in turns in one process, print a table and one last line of JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from expost.utils.process import cores


@dataclass(frozen=True)
class Contest:
    """One question: which side is faster at the same work?

    Attributes:
        name: Of the ratio.
        ours: Does the work once.
        theirs: Does it the peer's way.
        unit: What is counted, for example "images".
        count: How many of them the work has.
    """

    name: str
    ours: Callable[[], object]
    theirs: Callable[[], object]
    unit: str = "runs"
    count: int = 1


def parser(description: str) -> argparse.ArgumentParser:
    """Return a parser with the options of all benchmarks."""
    made = argparse.ArgumentParser(description=description.splitlines()[0])
    made.add_argument("--repeats", type=int, default=3, help="runs of each side, in turns; the best counts")
    made.add_argument("--json", action="store_true", help="end with one line of JSON")
    made.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="device of our side")
    return made


def hardware() -> str:
    """Return what the benchmark runs on."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{cores()} cores of {platform.machine()}, {torch.get_num_threads()} threads"


def instructions() -> str:
    """Return the vector instructions that torch's and oneDNN's kernels are allowed."""
    return f"{os.environ.get('ONEDNN_MAX_CPU_ISA') or torch.backends.cpu.get_cpu_capability()} kernels"


def compete(contests: list[Contest], repeats: int, as_json: bool) -> dict[str, float]:
    """Run both sides of each contest in turns; print seconds and ratios, and return the ratios.

    The first run of each side is not counted: it compiles, allocates and warms the caches.
    """
    print(f"{hardware()}; torch {torch.__version__}; best of {repeats}, in turns")
    print(f"{'':34}{'ours, s':>10}{'theirs, s':>11}{'ratio':>8}")
    ratios: dict[str, float] = {}
    for contest in contests:
        best = {"ours": float("inf"), "theirs": float("inf")}
        for turn in range(repeats + 1):
            for side, work in (("ours", contest.ours), ("theirs", contest.theirs)):
                started = time.perf_counter()
                work()
                if torch.cuda.is_available():
                    torch.cuda.synchronize()
                if turn:
                    best[side] = min(best[side], time.perf_counter() - started)
        ratios[contest.name] = best["theirs"] / best["ours"]
        rate = f"   ({contest.count / best['ours']:,.0f} {contest.unit}/s)" if contest.count > 1 else ""
        seconds = f"{best['ours']:10.4f}{best['theirs']:11.4f}"
        print(f"{contest.name:34}{seconds}{ratios[contest.name]:8.2f}{rate}", flush=True)
    if as_json:
        print(json.dumps({"ratios": ratios}))
    return ratios
