"""Shared by the stages: the machine, the clock, the figures, and the units of work of a stage."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from expost.utils.precision import choose
from gpu_stages.ledger import DONE, FAILED, LEFT_OUT, Ledger

#: Arithmetic: bf16 networks under autocast; float32 throughout; float32 whose products may be TF32.
BF16, FLOAT32, TF32 = "bf16", "float32", "tf32"


class LeaveOut(Exception):
    """A unit cannot be done on this machine; the message says why."""


class BrokenDevice(Exception):
    """The device answers with errors until the process ends."""


@dataclass
class Bench:
    """One call of `gpu.py`.

    Attributes:
        device: Device of all computations.
        tiny: Whether everything is as small as possible, to try it.
        out: Folder of the figures, the log, and pictures.
        work: Folder of the runs, which are large and stay for the next call.
        ledger: The figures.
        ends: End of the budget, in seconds since the epoch.
        peaks: Rate of a large matrix product in FLOP/s, by arithmetic.
        stage: The current stage.
        deadline: End of that stage, in seconds since the epoch.
    """

    device: torch.device
    tiny: bool
    out: Path
    work: Path
    ledger: Ledger
    ends: float
    peaks: dict[str, float] = field(default_factory=dict)
    stage: str = ""
    deadline: float = 0.0

    @property
    def left(self) -> float:
        """Seconds until the stage has to end."""
        return min(self.ends, self.deadline or self.ends) - time.time()

    @property
    def cuda(self) -> bool:
        """Whether there is a CUDA device."""
        return self.device.type == "cuda"

    @property
    def precision(self) -> str:
        """Precision of training: bf16 if the device has it in hardware."""
        return choose("auto", self.device).arithmetic

    @property
    def kinds(self) -> tuple[str, ...]:
        """The arithmetics to measure, fastest first, without emulated ones."""
        bf16 = (BF16,) if choose("auto", self.device).hardware else ()
        return (*bf16, FLOAT32, *((TF32,) if self.cuda else ()))

    def wait(self) -> None:
        """Wait for the device."""
        if self.cuda:
            torch.cuda.synchronize(self.device)

    def figure(self, name: str, value: Any, unit: str = "", **settings: Any) -> None:
        """Write a figure of the current stage."""
        self.ledger.add(self.stage, name, value, unit, **settings)

    def log(self, text: str) -> None:
        """Append to the log, which is for failures."""
        with (self.out / "log.txt").open("a", encoding="utf-8") as file:
            file.write(text.rstrip() + "\n")


@dataclass(frozen=True)
class Unit:
    """A unit of work, done as a whole or not at all.

    Attributes:
        name: Its name, also in later calls.
        work: Does it; returns False if a later call must go on.
        seconds: Expected time at most.
    """

    name: str
    work: Callable[[Bench], bool | None]
    seconds: float


@dataclass(frozen=True)
class Stage:
    """A stage.

    Attributes:
        name: Name on the command line.
        about: Summary, with its requirements.
        units: Yields its units, most valuable first; each is done before the next is requested.
        seconds: Expected time of the whole stage on this machine.
        share: Largest share of the budget.
    """

    name: str
    about: str
    units: Callable[[Bench], Iterator[Unit]]
    seconds: Callable[[Bench], float]
    share: float = 1.0


def run_stage(bench: Bench, stage: Stage, budget: float, enter: Callable[[str, str], None]) -> None:
    """Run the units that fit into the time; a failure is recorded, and the next unit runs.

    Args:
        bench: The call.
        stage: The stage.
        budget: Seconds of the whole call.
        enter: Called with stage and unit before each, so that the parent process knows which unit killed this one.
    """
    bench.stage, bench.deadline = stage.name, time.time() + stage.share * budget
    units = stage.units(bench)
    while not bench.ledger.failed(stage.name, "begin"):
        name = "begin"
        try:
            enter(stage.name, name)
            unit = next(units, None)
            if unit is None:
                return
            name = unit.name
            if bench.ledger.done(stage.name, name):
                print(f"           {stage.name}: {name} was done before", flush=True)
                continue
            if bench.ledger.failed(stage.name, name):
                continue
            if unit.seconds > bench.left:
                raise LeaveOut(f"about {unit.seconds:,.0f} s, and {max(0, bench.left):,.0f} s are left")
            enter(stage.name, name)
            started = time.time()
            finished = unit.work(bench)
            bench.wait()
            if finished is not False:
                bench.figure(DONE, round(time.time() - started, 2), "s", of=name)
        except LeaveOut as reason:
            bench.figure(LEFT_OUT, None, "", of=name, why=str(reason))
        except Exception as error:
            bench.log(f"{stage.name}, {name}:\n{traceback.format_exc()}")
            bench.figure(FAILED, None, "", of=name, why=(str(error).strip().splitlines() or [type(error).__name__])[-1])
            try:
                bench.wait()
            except RuntimeError as again:
                raise BrokenDevice(f"{bench.device} fails: {str(again).splitlines()[0]}") from None
            if name == "begin":
                return
