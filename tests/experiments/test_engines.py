"""Workers of this machine: they end with the process that started them, and what they did is gone on with."""

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from expost.errors import DataError, Interrupted, UsageError
from expost.experiments.engines import ENGINES, Resources, open_engine, pick_workers, run_all
from expost.experiments.engines.local import LocalEngine, _portable

PROGRAM = [sys.executable, "-m", "expost"]


def wait_for(what, seconds=600):
    begun = time.monotonic()
    while time.monotonic() - begun < seconds:
        if found := what():
            return found
        time.sleep(0.05)
    raise AssertionError("it did not happen in time")


def children(pid):
    """The processes that a process has started, except what keeps account of its shared memory."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
            words = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if parent == str(pid) and b"spawn_main" in words:
            found.append(int(folder.name))
    return found


def lives(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def epochs(folder):
    path = folder / "metrics.jsonl"
    return [json.loads(line)["epoch"] for line in path.read_text().splitlines()] if path.exists() else []


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
def test_workers_end_with_the_process_that_started_them_and_a_rerun_goes_on(tmp_path):
    """Ctrl-C, as a terminal sends it to all of them; then SIGTERM and SIGKILL, to the first alone."""
    words = ["sweep", "ae", "rae-l2", "--data", "digits", "--out", str(tmp_path), "--device", "cpu", "--workers", "2"]
    words += ["--set", "epochs=100000", "width=8"]
    runs = [tmp_path / "runs" / f"{model}_epochs=100000_width=8_seed=0" for model in ("ae", "rae-l2")]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        start_and_stop(words, runs, number)
        for run in runs:
            done = epochs(run)
            assert done == list(range(1, len(done) + 1))  # it went on, and did not begin anew
            # stopped within an epoch: the state that was saved is that of the step, not of the last epoch's end
            assert (run / "checkpoint.safetensors").stat().st_mtime_ns >= (run / "metrics.jsonl").stat().st_mtime_ns


def start_and_stop(words, runs, number):
    before = [len(epochs(run)) for run in runs]
    process = subprocess.Popen(
        [*PROGRAM, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        wait_for(lambda: process.poll() is not None or all(map(grown, runs, before)))
        workers = children(process.pid)
        assert len(workers) == 2, process.communicate()[1]
        (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
        out, err = process.communicate(timeout=300)
        wait_for(lambda: not any(map(lives, workers)), seconds=120)
    finally:
        process.kill()
    assert out == ""
    assert "Traceback" not in err
    if number != signal.SIGKILL:
        assert process.returncode == 128 + number
        again = shlex.join(["expost", *words])
        assert err.splitlines()[-1] == f"stopped; the same command goes on: {again}"


def grown(run, before):
    return len(epochs(run)) > before + 2


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
def test_ctrl_c_while_torch_is_imported_is_one_line():
    for _ in range(20):  # on a busy machine the signal may come when all is done
        process = subprocess.Popen([*PROGRAM, "doctor"], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        maps = Path(f"/proc/{process.pid}/maps")
        wait_for(lambda process=process, maps=maps: process.poll() is not None or "libtorch" in maps.read_text())
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=300)
        if process.returncode != 0:
            break
    assert (process.returncode, out, err) == (130, "", "stopped\n")


def divide(task, device):
    if task == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    print("divided by", task, device, file=sys.stderr)
    return 1 / task


class Unportable(Exception):
    """An error that cannot be made again from its arguments."""

    def __init__(self, first, second):
        super().__init__(f"{first} and {second}")


def test_errors_of_workers_reach_the_one_who_asked(tmp_path):
    with pytest.raises(ZeroDivisionError) as raised:
        list(run_all(divide, [1, 0, 2, 4], ["cpu", "cpu"], lambda task: tmp_path / f"{task}.log"))
    assert "in divide" in raised.value.__notes__[0]  # where it was raised, for --debug
    assert "ZeroDivisionError" in (tmp_path / "0.log").read_text()
    assert (tmp_path / "1.log").read_text() == "divided by 1 cpu\n"
    odd = _portable(Unportable(1, 2))
    assert (type(odd), str(odd)) == (RuntimeError, "Unportable: 1 and 2")
    with pytest.raises(
        ChildProcessError, match=r"ended by signal 9 amid its task \(its log: .*die.log\); there may be"
    ):
        list(run_all(divide, ["die", 1], ["cpu", "cpu"], lambda task: tmp_path / f"{task}.log"))


def test_results_come_as_they_are_done():
    assert {done.task: done.result for done in run_all(divide, [1, 2, 4], ["cpu", "cpu"])} == {1: 1.0, 2: 0.5, 4: 0.25}
    assert [done.result for done in run_all(divide, [2, 1], ["cpu"])] == [0.5, 1.0]


def test_workers_stop_when_the_one_who_asked_goes_away():
    with open_engine(Resources(device="cpu", workers=2), Path()) as engine:
        assert isinstance(engine, LocalEngine)
        results = engine.run(divide, [1, 2, 4], engine.devices(3))
        next(results)
        workers = [worker.process for worker in engine._crew]
        assert len(workers) == 2
    assert not any(process.is_alive() for process in workers)


def test_sigterm_is_an_interruption_while_an_engine_is_open_and_only_then():
    before = signal.getsignal(signal.SIGTERM)
    with open_engine(Resources(), Path()), pytest.raises(Interrupted):
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before
    found = []
    thread = threading.Thread(target=lambda: found.extend(run_all(divide, [2, 4], ["cpu"])))
    thread.start()  # elsewhere than in the main thread there are no signals to watch
    thread.join()
    assert [done.result for done in found] == [0.5, 0.25]


def test_wrong_words(tmp_path):
    assert list(ENGINES) == ["local", "ray"]
    with pytest.raises(UsageError, match="unknown engine 'lokal', did you mean 'local'"):
        open_engine(Resources("lokal"), tmp_path)
    with pytest.raises(UsageError, match=r"gpu_share is 0.5, but it is for Ray; give --engine ray"):
        open_engine(Resources(gpu_share=0.5), tmp_path)
    with pytest.raises(UsageError, match="workers is 0"):
        pick_workers(0, "cpu", 3)


def test_the_error_of_a_single_worker_is_raised_as_it_is():
    def fail(task, device):
        raise DataError("no such thing")

    with pytest.raises(DataError, match="^no such thing$"):
        list(run_all(fail, [1], ["cpu"]))
