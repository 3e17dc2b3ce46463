"""Benchmark a GPU within a budget of seconds; a second call goes on where the first ended.

    python benchmarks/gpu.py --budget 500 --out DIR [--stages check speed mnist ...] [--device auto] [--tiny]

Each figure is written at once as a JSON line of DIR/figures.jsonl; failures go to DIR/log.txt. Runs go to DIR.work,
beside DIR, so that DIR stays small. Work that does not fit into the budget is skipped and listed. --tiny makes
everything as small as possible, to try it on a CPU.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

STAGES = ("check", "speed", "mnist", "cifar10", "faces64", "zinc")
#: Seconds beyond the budget before a process that does not end is ended.
GRACE = 20
#: With less than this left nothing is begun anew.
LEAST = 15
#: Exit status of a worker whose device is broken: a new process can use it again.
BROKEN = 70


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--budget", type=float, default=500, metavar="SECONDS", help="seconds from the start (default 500)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("gpu-figures"),
        metavar="DIR",
        help="folder of results: at most 8 small files",
    )
    parser.add_argument("--work", type=Path, metavar="DIR", help="folder of the runs; default: DIR.work beside --out")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES), help="run in the order shown here")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--tiny", action="store_true", help="make everything as small as possible")
    parser.add_argument("--began", type=float, help=argparse.SUPPRESS)  # of the process that does the work
    given = parser.parse_args()
    if not 0 < given.budget < float("inf"):
        parser.error(f"--budget is {given.budget}; give seconds, more than 0")
    given.out = given.out.resolve()
    given.work = (given.work or given.out.with_name(f"{given.out.name}.work")).resolve()
    return given


def supervise(given: argparse.Namespace) -> int:
    """Let another process do the work; where it dies, note what it was at, and let a new one go on after that."""
    began = time.time()
    given.out.mkdir(parents=True, exist_ok=True)
    given.work.mkdir(parents=True, exist_ok=True)
    at = given.work / "at.json"
    # scikit-learn computes on torch tensors if SciPy was told before it was imported
    environment = {**os.environ, "SCIPY_ARRAY_API": "1", "PYTHONUNBUFFERED": "1"}
    while True:
        at.unlink(missing_ok=True)
        worker = subprocess.Popen([sys.executable, __file__, *sys.argv[1:], "--began", repr(began)], env=environment)
        status = _wait(worker, began + given.budget + GRACE)
        left = began + given.budget - time.time()
        if status in (0, 2) or not at.exists():
            return status
        place = json.loads(at.read_text(encoding="utf-8"))
        if status != BROKEN:
            how = f"ended by signal {-status}" if status < 0 else f"ended with status {status}"
            print(f"{place['stage']}, {place['unit']}: the process {how}", flush=True)
            _note_death(given.out / "figures.jsonl", place, how, began)
        if left < LEAST:
            return 1


def _wait(worker: subprocess.Popen[bytes], ends: float) -> int:
    """Wait for a process until a time; then ask it to stop, which saves a checkpoint, and end it if it does not."""
    for number in (signal.SIGINT, signal.SIGKILL):
        try:
            return worker.wait(max(0.0, ends - time.time()))
        except subprocess.TimeoutExpired:
            worker.send_signal(number)
            ends = time.time() + 10
        except KeyboardInterrupt:  # the terminal has sent it to both
            ends = time.time() + 10
    return worker.wait()


def _note_death(path: Path, place: dict[str, object], how: str, began: float) -> None:
    """Write the line of a unit that has ended its process, as the ledger would."""
    line = {
        "stage": place["stage"], "name": "failed", "value": None, "unit": "",
        "settings": {"of": place["unit"], "why": f"the process {how}"}, **place["identity"],
        "seconds": round(time.time() - began, 1), "call": began,
    }  # fmt: skip
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
        os.fsync(file.fileno())


def main() -> int:
    """Begin: as the one who watches, or as the one who works."""
    given = arguments()
    if given.began is None:
        return supervise(given)
    from gpu_stages.worker import work

    return work(given, STAGES)


if __name__ == "__main__":
    sys.exit(main())
