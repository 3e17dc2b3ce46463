"""benchmarks/gpu.py: every stage on a CPU at tiny sizes, budgets, failures, and a second call."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
STAGES = ("check", "speed", "mnist", "cifar10", "faces64", "zinc")


@pytest.fixture(scope="module", autouse=True)
def _benchmarks_importable() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        yield


@pytest.fixture
def stages() -> ModuleType:
    """The module of stages and units."""
    from gpu_stages import bench

    return bench


def call(out: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), "--tiny", "--device", "cpu", "--out", str(out), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)


def lines_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "figures.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """All stages, once: the folder, and what was printed."""
    out = tmp_path_factory.mktemp("gpu") / "out"
    ended = call(out, "--budget", "200")
    assert ended.returncode == 0, ended.stderr
    return out, ended.stdout


def test_every_stage_runs_whole(first: tuple[Path, str]) -> None:
    lines = lines_of(first[0])
    assert [line for line in lines if line["name"] == "failed"] == []
    assert {line["stage"] for line in lines if line["name"] == "done"} == set(STAGES)
    assert all(line["seconds"] >= 0 and line["card"] and line["torch"] == torch.__version__ for line in lines)


def test_figures_are_of_the_things_they_name(first: tuple[Path, str]) -> None:
    def values(stage: str, name: str) -> list[float]:
        return [line["value"] for line in lines_of(first[0]) if (line["stage"], line["name"]) == (stage, name)]

    assert max(values("check", "codes, relative difference from the CPU's")) < 1e-5
    assert min(values("speed", "mixtures' log-likelihood: ours less scikit-learn's")) > -1e-6
    # other work beside it may slow down either; what is told apart is a wrong unit
    assert all(0 < share < 50 for share in values("speed", "share of the matrix product's rate"))
    for column in ("Rec", "N", "GMM", "Interp"):
        assert len(values("mnist", f"{column}, frechet-pixels")) == 2
    errors = dict.fromkeys(("mnist", "cifar10", "faces64"))
    for name in errors:
        assert all(0 < error < 1 for error in values(name, "Rec, mse"))
    assert all(0 <= share <= 1 for share in values("zinc", "gmm, validity-sampled"))


def test_what_comes_back_is_small_and_flat(first: tuple[Path, str]) -> None:
    found = sorted(path.name for path in first[0].rglob("*"))
    assert len(found) <= 8
    assert {"cifar10.png", "faces64.png", "figures.jsonl", "mnist.png", "profile.txt"} <= set(found)
    assert all(path.is_file() and path.stat().st_size < 300_000 for path in first[0].iterdir())


def test_the_plan_is_said_before_the_first_figure(first: tuple[Path, str]) -> None:
    plan = first[1].partition(" s  check:")[0]
    assert all(f"\n  {name} " in plan for name in STAGES)
    assert "about" in plan


def test_a_second_call_does_nothing_again(first: tuple[Path, str]) -> None:
    before = lines_of(first[0])
    ended = call(first[0], "--budget", "100", "--stages", "mnist", "zinc")
    assert ended.returncode == 0, ended.stderr
    assert "mnist: rae-l2 was done before" in ended.stdout
    assert "not asked for: check, speed, cifar10, faces64" in ended.stdout
    assert lines_of(first[0]) == before


def test_what_does_not_fit_the_budget_is_left_out_and_said(tmp_path: Path) -> None:
    started = time.monotonic()
    ended = call(tmp_path / "out", "--budget", "0.5", "--stages", "mnist", "zinc")
    assert ended.returncode == 0, ended.stderr
    assert time.monotonic() - started < 60
    lines = lines_of(tmp_path / "out")
    assert {line["name"] for line in lines} == {"left out"}
    assert {line["stage"] for line in lines} == {"mnist", "zinc"}
    assert all("0 s are left" in line["settings"]["why"] for line in lines)
    assert "as far as the budget goes" in ended.stdout


@pytest.mark.parametrize("words", [["--budget", "0"], ["--budget", "nan"], ["--stages", "imagenet"]])
def test_wrong_words_are_refused(tmp_path: Path, words: list[str]) -> None:
    ended = call(tmp_path / "out", *words)
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1].startswith("gpu.py: error:")
    assert not (tmp_path / "out").exists()


def made(stages: ModuleType, out: Path, began: float | None = None, budget: float = 100.0) -> Any:
    from gpu_stages.ledger import Ledger

    began = time.time() if began is None else began
    ledger = Ledger(out, {"card": "a card", "torch": "2", "tiny": True}, began)
    return stages.Bench(torch.device("cpu"), True, out, out / "work", ledger, began + budget)


def run(stages: ModuleType, bench: Any, *units: Any, share: float = 1.0) -> list[tuple[str, str, Any]]:
    """Run a stage of these units; return the names of its lines, of which unit they are, and why."""
    stage = stages.Stage("stage", "a stage", lambda _: iter(units), lambda _: 1.0, share)
    stages.run_stage(bench, stage, 100.0, lambda *_: None)
    return [(line["name"], line["settings"]["of"], line["settings"].get("why")) for line in bench.ledger.lines]


def fails(bench: Any) -> None:
    raise ValueError("a long story\nthe point of it")


def test_a_unit_that_fails_is_noted_and_the_next_is_run(stages: ModuleType, tmp_path: Path) -> None:
    bench = made(stages, tmp_path)
    found = run(stages, bench, stages.Unit("bad", fails, 1), stages.Unit("good", lambda _: None, 1))
    assert found == [("failed", "bad", "the point of it"), ("done", "good", None)]
    assert "a long story" in (tmp_path / "log.txt").read_text()
    assert "Traceback" in (tmp_path / "log.txt").read_text()


def test_units_that_cannot_be_made_do_not_stop_the_next_stage(stages: ModuleType, tmp_path: Path) -> None:
    bench = made(stages, tmp_path)

    def broken(_: Any) -> Iterator[Any]:
        yield stages.Unit("good", lambda _: None, 1)
        raise stages.LeaveOut("no data")

    stage = stages.Stage("one", "a stage", broken, lambda _: 1.0)
    stages.run_stage(bench, stage, 100.0, lambda *_: None)
    assert run(stages, bench, stages.Unit("next", lambda _: None, 1))[-1] == ("done", "next", None)
    assert bench.ledger.value("one", "left out", why="no data") is None
    assert ("one", "left out") in [(line["stage"], line["name"]) for line in bench.ledger.lines]


def test_a_failed_unit_is_tried_again_by_the_next_call_only(stages: ModuleType, tmp_path: Path) -> None:
    tries = []

    def work(_: Any) -> None:
        tries.append(1)
        if len(tries) < 2:
            raise ValueError("not yet")

    unit = stages.Unit("unit", work, 1)
    run(stages, made(stages, tmp_path, began=1.0, budget=1e12), unit)
    run(stages, made(stages, tmp_path, began=1.0, budget=1e12), unit)  # the same call, in a new process
    assert len(tries) == 1
    assert run(stages, made(stages, tmp_path, began=2.0, budget=1e12), unit)[-1] == ("done", "unit", None)
    run(stages, made(stages, tmp_path, began=3.0, budget=1e12), unit)
    assert len(tries) == 2


def test_a_unit_that_is_not_finished_is_gone_on_with(stages: ModuleType, tmp_path: Path) -> None:
    tries = []

    def work(_: Any) -> bool:
        tries.append(1)
        return len(tries) > 1

    unit = stages.Unit("half", work, 1)
    assert run(stages, made(stages, tmp_path), unit) == []
    assert run(stages, made(stages, tmp_path), unit) == [("done", "half", None)]
    run(stages, made(stages, tmp_path), unit)
    assert len(tries) == 2


def test_the_time_left_is_asked_before_each_unit(stages: ModuleType, tmp_path: Path) -> None:
    units = [stages.Unit("too long", fails, 70), stages.Unit("short", lambda _: None, 30)]
    found = run(stages, made(stages, tmp_path), *units, share=0.5)
    assert [each[:2] for each in found] == [("left out", "too long"), ("done", "short")]
    assert found[0][2] == "about 70 s, and 50 s are left"


def test_a_broken_device_ends_the_process(stages: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wait(_: Any) -> None:
        raise RuntimeError("CUDA error: an illegal memory access\nmore")

    monkeypatch.setattr(stages.Bench, "wait", wait)
    bench = made(stages, tmp_path)
    with pytest.raises(stages.BrokenDevice, match="^cpu fails: CUDA error: an illegal memory access$"):
        run(stages, bench, stages.Unit("bad", fails, 1))
    assert bench.ledger.failed("stage", "bad")


def test_a_worker_that_dies_is_replaced_and_its_unit_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import gpu
    from gpu_stages.ledger import Ledger

    out, begun = tmp_path / "out", []
    identity = {"card": "a card", "torch": "2", "tiny": True}

    class Worker:
        def __init__(self, command: list[str], env: dict[str, str]) -> None:
            assert env["SCIPY_ARRAY_API"] == "1"
            begun.append(float(command[-1]))

        def wait(self, timeout: float) -> int:
            if len(begun) > 1:
                return 0
            place = {"stage": "speed", "unit": "frechet", "identity": identity}
            (tmp_path / "out.work" / "at.json").write_text(json.dumps(place))
            return -9

    monkeypatch.setattr(gpu.subprocess, "Popen", Worker)
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--budget", "100", "--out", str(out)])
    assert gpu.main() == 0
    assert len(begun) == 2
    assert len(set(begun)) == 1
    ledger = Ledger(out, identity, begun[0])
    assert ledger.failed("speed", "frechet")
    assert ledger.lines[-1]["settings"]["why"] == "the process ended by signal 9"


def test_a_line_that_was_cut_short_is_passed_over(tmp_path: Path) -> None:
    from gpu_stages.ledger import Ledger

    identity = {"card": "a card", "torch": "2", "tiny": False}
    Ledger(tmp_path, identity, 1.0).add("speed", "step", 0.5, "s", batch=100)
    with (tmp_path / "figures.jsonl").open("a") as file:
        file.write('{"stage": "speed", "name": "st')
    again = Ledger(tmp_path, identity, 2.0)
    again.add("speed", "step", 0.25, "s", batch=1000)
    found = Ledger(tmp_path, identity, 3.0)
    assert found.value("speed", "step", batch=100) == 0.5
    assert found.value("speed", "step", batch=1000) == 0.25
    assert Ledger(tmp_path, {**identity, "card": "another"}, 3.0).value("speed", "step") is None


def test_training_stops_at_its_time_and_goes_on(tmp_path: Path) -> None:
    from gpu_stages.trained import progress, train_until

    folder = tmp_path / "run"
    options = {"epochs": 100_000, "device": "cpu", "limit": 200}
    first = train_until(time.time() + 3, "ae", "digits", folder, **options)
    assert 0 < first.epochs < 100_000
    assert not first.whole
    second = train_until(time.time() + 3, "ae", "digits", folder, **options)
    assert second.epochs > first.epochs
    assert progress(folder) == second
    assert second.seconds > first.seconds


def test_an_interrupt_of_somebody_elses_is_passed_on() -> None:
    from gpu_stages.trained import interrupt_after

    with pytest.raises(KeyboardInterrupt), interrupt_after(60):
        raise KeyboardInterrupt


def test_operations_are_those_that_torch_counts() -> None:
    from gpu_stages.steps import ROWS, images, operations
    from peer import ours

    x, network = images(4, torch.device("cpu")), ours("rae-l2", 8).train()
    with FlopCounterMode(display=False) as counted:
        network.loss(x).total.backward()
    found = {row: operations(ours(model, 8, **options).train(), x) for row, (model, options) in ROWS.items()}
    assert found["rae-l2"] == counted.get_total_flops() / 4
    assert found["rae-l2"] < found["rae-gp-quarter"] < found["rae-gp"]


def test_the_process_that_works_is_ended_after_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    import gpu

    worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
    started = time.monotonic()
    assert gpu._wait(worker, time.time() + 1) != 0
    assert time.monotonic() - started < 30
