"""The worker process: announces each unit of work, and does it."""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Sequence

import torch

from expost.errors import UsageError
from expost.training.devices import pick_device
from expost.utils.process import cores
from gpu_stages import STAGES
from gpu_stages.bench import Bench, BrokenDevice, Stage, run_stage
from gpu_stages.ledger import Ledger
from gpu_stages.steps import matrix_rate

#: Exit status where the device is broken, as `gpu.py` knows it.
BROKEN = 70


def work(given: argparse.Namespace, names: Sequence[str]) -> int:
    """Run the stages; return the exit status."""
    try:
        device = pick_device(given.device)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{cores()} cores of {platform.machine()}"
    identity = {"card": card, "torch": torch.__version__, "tiny": given.tiny}
    ledger = Ledger(given.out, identity, given.began)
    bench = Bench(device, given.tiny, given.out, given.work, ledger, given.began + given.budget)
    side = 8192 if bench.cuda else 256 if given.tiny else 1024
    bench.peaks = {kind: matrix_rate(device, kind, side) for kind in bench.kinds}
    print(
        f"{card}; torch {torch.__version__}; {given.budget:,.0f} s, of which {given.budget - bench.left:.0f} s are gone"
    )
    print(f"figures: {ledger.path}; runs: {given.work}")
    stages = [STAGES[name] for name in names if name in given.stages]
    say_plan(bench, stages)
    if others := [name for name in names if name not in given.stages]:
        print(f"  not asked for: {', '.join(others)}")
    sys.stdout.flush()

    def enter(stage: str, unit: str) -> None:
        text = json.dumps({"stage": stage, "unit": unit, "identity": identity})
        (given.work / "at.json").write_text(text, encoding="utf-8")

    try:
        for stage in stages:
            run_stage(bench, stage, given.budget, enter)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
        return 2
    except BrokenDevice as error:
        print(f"{error}; going on in a new process", flush=True)
        return BROKEN
    used = time.time() - given.began
    print(f"{used:.0f} s of {given.budget:,.0f} s used; the same command goes on with what is left out")
    return 0


def say_plan(bench: Bench, stages: Sequence[Stage]) -> None:
    """Print the plan, with expected times."""
    room = bench.left
    for stage in stages:
        seconds = stage.seconds(bench)
        room -= seconds
        said = f"about {seconds:,.0f} s" if seconds else "left out, its data or weights are not here"
        said += ", as far as the budget goes" if seconds and room < 0 else ""
        print(f"  {stage.name:8} {said}: {stage.about}")
