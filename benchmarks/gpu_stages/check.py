"""Stage `check`: does the device compute what the CPU does, and do the tests that need a GPU pass?"""

from __future__ import annotations

import copy
import importlib.util
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

import mixture
import torch
from peer import ours

from expost.data import load_data
from expost.metrics import FEATURES
from expost.training.devices import place
from expost.types import to_unit
from gpu_stages.bench import BF16, FLOAT32, Bench, LeaveOut, Stage, Unit
from gpu_stages.steps import arithmetic

#: Seconds that the tests may take.
LIMIT = 60
#: The mark of tests that need a GPU; `checks.ini` beside this file declares it.
MARK = "mark.cuda"
TESTS = Path(__file__).resolve().parents[2] / "tests"


def units(bench: Bench) -> Iterator[Unit]:
    """Yield the comparisons, which take seconds, and the tests."""
    yield Unit("one batch of rae-l2", _batch, 20.0)
    yield Unit("a mixture", _fit, 5.0)
    yield Unit("features of Inception", _features, 20.0)
    yield Unit("tests", _tests, 10.0)


def _gap(found: torch.Tensor, wanted: torch.Tensor) -> float:
    found, wanted = found.detach().cpu().double(), wanted.detach().double()
    return float((found - wanted).norm() / wanted.norm())


def _batch(bench: Bench) -> None:
    """Compare codes, reconstructions and gradients of one batch with those in float32 on the CPU."""
    reference = ours("rae-l2", 8 if bench.tiny else 32).train()
    moved = copy.deepcopy(reference)
    place(moved, bench.device)
    x = to_unit(load_data("digits", size=32).train.x[:16])
    reference.loss(x).total.backward()
    wanted = torch.cat([weight.grad.flatten() for weight in reference.parameters()])
    for kind in (FLOAT32, BF16):
        moved.zero_grad()
        with arithmetic(FLOAT32):
            with torch.autocast(bench.device.type, torch.bfloat16, enabled=kind == BF16):
                loss = moved.loss(x.to(bench.device)).total
            loss.backward()
        found = torch.cat([weight.grad.flatten() for weight in moved.parameters()])
        bench.figure("gradient, relative difference from the CPU's", _gap(found, wanted), "", arithmetic=kind)
    reference.eval()
    moved.load_state_dict(reference.state_dict())
    moved.eval()
    with torch.inference_mode(), arithmetic(FLOAT32):
        codes, there = reference.encode(x), moved.encode(x.to(bench.device))
        bench.figure("codes, relative difference from the CPU's", _gap(there, codes))
        decoded = moved.decode(codes.to(bench.device))
        bench.figure("decoded, relative difference from the CPU's", _gap(decoded, reference.decode(codes)))


def _fit(bench: Bench) -> None:
    """Compare the likelihood of a mixture that was fitted on the device with that of one fitted on the CPU."""
    given = mixture.problem(2_000, 8, 3)
    values = [mixture.ours(given, z, 20) for z in (given.z.to(bench.device), given.z)]
    bench.figure("mixture's log-likelihood, difference from the CPU's", values[0] - values[1], "nats")


def _features(bench: Bench) -> None:
    """Compare Inception's features of a few images."""
    if not FEATURES["inception-768"].available():
        raise LeaveOut("the weights of Inception are not on this machine; set EXPOST_WEIGHTS to their folder")
    few = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    wanted, found = (FEATURES["inception-768"].load(device)(few) for device in (torch.device("cpu"), bench.device))
    bench.figure("features of Inception, relative difference from the CPU's", _gap(found, wanted))


def _tests(bench: Bench) -> None:
    """Run the tests that need a GPU, in a process of their own."""
    files = sorted(path for path in TESTS.rglob("test_*.py") if MARK in path.read_text(encoding="utf-8"))
    if not files:
        raise LeaveOut(f"no test in {TESTS} is marked cuda")
    if importlib.util.find_spec("pytest") is None:
        raise LeaveOut("pytest is not installed here")
    report, limit = bench.work / "tests.xml", max(5, min(LIMIT, int(bench.left)))
    report.unlink(missing_ok=True)
    bench.work.mkdir(parents=True, exist_ok=True)
    ini = Path(__file__).with_name("checks.ini")
    command = [sys.executable, "-m", "pytest", "-c", ini, "--rootdir", TESTS, "-m", "cuda", "-p", "no:cacheprovider"]
    command += ["-q", "-ra", "--tb=short", "--continue-on-collection-errors", f"--junitxml={report}", *files]
    try:
        environment = {name: value for name, value in os.environ.items() if name != "SCIPY_ARRAY_API"}
        ended = subprocess.run(
            list(map(str, command)), capture_output=True, text=True, timeout=limit, check=False, env=environment
        )
    except subprocess.TimeoutExpired as error:
        bench.log((error.stdout or b"").decode(errors="replace"))
        raise TimeoutError(f"the tests ran past {limit} s; log.txt has what they said") from None
    bench.log(ended.stdout + ended.stderr)
    if not report.exists():
        raise RuntimeError(f"pytest ended with status {ended.returncode} and no report; log.txt has what it said")
    suite = next(ElementTree.parse(report).getroot().iter("testsuite"))
    counts = {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}
    passed = counts["tests"] - counts["failures"] - counts["errors"] - counts["skipped"]
    bench.figure("tests passed", passed, "", **counts)
    for case in suite.iter("testcase"):
        for fault in (*case.findall("failure"), *case.findall("error")):
            bench.figure("test failed", case.get("name"), "", why=(fault.get("message") or "").partition("\n")[0])


def expected(bench: Bench) -> float:
    """Return the expected seconds of the whole stage."""
    return 10.0 if bench.tiny else 40.0


STAGE = Stage(
    "check", "the device against the CPU, and the tests marked cuda (60 s at most)", units, expected, share=0.25
)
