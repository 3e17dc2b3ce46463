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
    """What is asked for cannot be done here; the message says why."""


class BrokenDevice(Exception):
    """The device answers with errors until the process ends."""


@dataclass
class Bench:
    """One call of `gpu.py`.

    Attributes:
        device: Where is computed.
        tiny: Whether everything is made as small as it can be, to try it all out.
        out: Gets the figures, the log, and pictures.
        work: Gets the runs, which are large, and stay for the next call.
        ledger: The figures.
        ends: When the budget is used up, seconds since the epoch.
        peaks: Rate of a large matrix product in FLOP/s, by arithmetic.
        stage: The one under way.
        deadline: When that stage has to end.
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
        """What networks are trained in: bf16 where the device has it in hardware."""
        return choose("auto", self.device).arithmetic

    @property
    def kinds(self) -> tuple[str, ...]:
        """The arithmetics that are measured, the fastest first; one that is emulated is not."""
        bf16 = (BF16,) if choose("auto", self.device).hardware else ()
        return (*bf16, FLOAT32, *((TF32,) if self.cuda else ()))

    def wait(self) -> None:
        """Wait for the device."""
        if self.cuda:
            torch.cuda.synchronize(self.device)

    def figure(self, name: str, value: Any, unit: str = "", **settings: Any) -> None:
        """Write a figure of the stage under way."""
        self.ledger.add(self.stage, name, value, unit, **settings)

    def log(self, text: str) -> None:
        """Write to the log, which nobody reads unless something fails."""
        with (self.out / "log.txt").open("a", encoding="utf-8") as file:
            file.write(text.rstrip() + "\n")


@dataclass(frozen=True)
class Unit:
    """A unit of work, done as a whole or not at all.

    Attributes:
        name: What it is known by in later calls.
        work: Does it; returns False if some of it is left for a later call.
        seconds: How long it is expected to take, at most.
    """

    name: str
    work: Callable[[Bench], bool | None]
    seconds: float


@dataclass(frozen=True)
class Stage:
    """A stage.

    Attributes:
        name: On the command line.
        about: In a few words, with what it needs.
        units: Yields its units, best first; each is done before the next is asked for.
        seconds: How long all of it is expected to take on this machine.
        share: The part of the budget that it may take at most.
    """

    name: str
    about: str
    units: Callable[[Bench], Iterator[Unit]]
    seconds: Callable[[Bench], float]
    share: float = 1.0


def run_stage(bench: Bench, stage: Stage, budget: float, enter: Callable[[str, str], None]) -> None:
    """Run what there is time for; what fails is noted, and the next is run.

    Args:
        bench: The call.
        stage: The stage.
        budget: Seconds of the call, of which the stage has a share.
        enter: Is told the stage and the unit before each, so that somebody else knows what killed this process.
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
