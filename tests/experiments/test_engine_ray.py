"""Grids on a Ray cluster: the same results as on one machine, whatever happens to its nodes."""

import json
import logging
import os
import re
import signal
import socket
import sys
import threading
import time
import uuid
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from expost.errors import Interrupted, UsageError
from expost.evaluation.protocol import Protocol
from expost.experiments import sweep
from expost.experiments.engines import Resources, on_ray, open_engine
from expost.experiments.engines.on_ray import passed_environment
from expost.experiments.sweep_run import Job, fill

if find_spec("ray") is None:
    pytest.skip("the ray extra is not installed", allow_module_level=True)

EPOCHS = 100
GRID: dict[str, Any] = {
    "models": ("ae", "rae-l2"),
    "data": "digits",
    "options": (f"epochs={EPOCHS}", "width=32"),
    "seeds": 2,
}


@pytest.fixture(scope="module")
def cluster():
    """Two nodes on this machine, of one core and one pretended GPU each, that nobody else may use."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        patch.setenv("RAY_AUTH_MODE", "token")  # read when Ray is imported, so this is the first import of it
        patch.setenv("RAY_AUTH_TOKEN", uuid.uuid4().hex)
        import ray
        from ray.cluster_utils import Cluster

        size: dict[str, Any] = {"num_cpus": 1, "num_gpus": 1, "object_store_memory": 80 * 2**20}

        class TwoNodes(Cluster):
            spare: Any = None

        found = TwoNodes(initialize_head=True, head_node_args={"include_dashboard": False, **size})
        found.spare = found.add_node(**size)
        # one connection for all tests, as a notebook has it: an engine uses what is there
        ray.init(found.address, log_to_driver=False, logging_level=logging.ERROR)
        yield found
        ray.shutdown()
        found.shutdown()


def job(out, epochs, **options):
    chosen = tuple({"epochs": epochs, **options}.items())
    return Job(out, "ae", "digits", chosen, Protocol(("frechet",)), (), "pixels")


def test_tasks_find_the_environment_a_device_and_their_log(cluster, tmp_path, monkeypatch):
    monkeypatch.setenv("EXPOST_MARK", "here")
    monkeypatch.setenv("HF_TOKEN", "secret")

    def look(task, device):
        print("looked at", task, file=sys.stderr)
        names = ("EXPOST_MARK", "HF_TOKEN", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")
        return [device, *(os.environ.get(name) for name in names)]

    with open_engine(Resources("ray", "cuda", gpu_share=0.5), tmp_path) as engine:
        (done,) = engine.run(look, ["x"], engine.devices(1), lambda task: tmp_path / "logs" / f"{task}.log")
    assert done.task == "x"
    assert done.result == ["cuda", "here", None, "0", "1"]
    assert (tmp_path / "logs" / "x.log").read_text().splitlines()[1:] == ["looked at x"]
    assert not list(tmp_path.glob(".expost-*"))


def test_an_error_is_raised_as_it_is_and_not_tried_again(cluster, tmp_path):
    with open_engine(Resources("ray", "cpu"), tmp_path) as engine:
        wrong = job(tmp_path, 1, **{"latent.nonsense": 1})
        with pytest.raises(UsageError, match="latent 'deterministic' has no option 'nonsense'; its options: none$"):
            list(engine.run(fill, [wrong], engine.devices(1), lambda task: tmp_path / "task.log"))
    assert (tmp_path / "task.log").read_text().count("Traceback") == 1


def test_a_process_that_dies_again_and_again_is_an_error(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(on_ray, "RETRIES", 1)
    begun = tmp_path / "begun"

    def die(task, device):
        with begun.open("a") as file:
            file.write("x")
        os._exit(1)

    with (
        open_engine(Resources("ray", "cpu"), tmp_path) as engine,
        pytest.raises(ChildProcessError, match="a task's process died 2 times"),
    ):
        list(engine.run(die, [0], engine.devices(1)))
    assert begun.read_text() == "xx"


def test_sigterm_stops_the_tasks_and_they_save_their_state(cluster, tmp_path):
    endless = job(tmp_path, 100_000)
    metrics = endless.run / "metrics.jsonl"

    def stop():
        begun = time.monotonic()
        while not metrics.exists() and time.monotonic() - begun < 240:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop).start()
    with pytest.raises(Interrupted), open_engine(Resources("ray", "cpu"), tmp_path) as engine:
        list(engine.run(fill, [endless], engine.devices(1)))
    lines = metrics.read_text().count("\n")
    time.sleep(1)
    assert metrics.read_text().count("\n") == lines  # it does not go on unseen
    assert (endless.run / "checkpoint.safetensors").exists()


def test_a_folder_that_a_node_does_not_see_is_refused(cluster, tmp_path):
    with open_engine(Resources("ray", "cpu"), tmp_path) as engine:
        for token in tmp_path.glob(".expost-*"):
            token.unlink()  # as on a node that has another folder by this name
        with pytest.raises(UsageError, match=f"cannot write to {tmp_path}; give --out a folder that all nodes share"):
            list(engine.run(fill, [job(tmp_path, 1)], engine.devices(1)))
    assert not (tmp_path / "runs").exists()


def test_wrong_words(cluster, tmp_path, monkeypatch):
    with pytest.raises(UsageError, match="unknown engine 'dask'"):
        open_engine(Resources("dask"), tmp_path)
    with pytest.raises(UsageError, match="device is cuda:1, but Ray says which GPU"):
        open_engine(Resources("ray", "cuda:1"), tmp_path)
    with pytest.raises(UsageError, match="gpu_share is 1.5"):
        open_engine(Resources("ray", gpu_share=1.5), tmp_path)
    with pytest.raises(UsageError, match="address is auto, but it is for Ray"):
        open_engine(Resources(address="auto"), tmp_path)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"install it with: pip install 'expost\[ray\]'"):
        open_engine(Resources("ray"), tmp_path)


@pytest.mark.parametrize("prefix", ["", "ray://"])
def test_an_address_where_nobody_listens_is_one_line(cluster, tmp_path, monkeypatch, prefix):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setattr("ray.is_initialized", lambda: False)  # the other tests are connected
    with (
        pytest.raises(UsageError, match=rf"^no Ray cluster at '{prefix}127.0.0.1:{port}' \(Connection refused\); give"),
        open_engine(Resources("ray", address=f"{prefix}127.0.0.1:{port}"), tmp_path),
    ):
        raise AssertionError("it is not opened")


def test_paths_in_the_environment_are_passed_in_full(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sets").mkdir()
    monkeypatch.setenv("EXPOST_DATA", "sets")
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.example")
    found = passed_environment()
    assert found["EXPOST_DATA"] == str(tmp_path / "sets")
    assert found["HF_ENDPOINT"] == "https://hub.example"
    assert "PATH" not in found


def halt(log, raylet):
    """Halt the process of a task that is amid its training on a node; return its number, or None if it is not."""
    found = re.findall(r"begun on .*, process (\d+)", log.read_text())
    if not found or "epoch 3/" not in log.read_text():
        return None
    process = int(found[-1])
    try:
        if Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1] != str(raylet):
            return None
        os.kill(process, signal.SIGSTOP)
    except (FileNotFoundError, ProcessLookupError):
        return None
    if f"epoch {EPOCHS - 1}/" not in log.read_text():  # the last epoch is saved before its line is written
        return process
    os.kill(process, signal.SIGCONT)
    return None


def test_a_sweep_outlives_a_node_and_finds_what_one_machine_finds(cluster, tmp_path, one_thread, capsys):
    """Last, since it takes a node away."""
    there, here = tmp_path / "ray", tmp_path / "local"
    finished = {}

    def kill():
        """Take the spare node away when a run is done, and another is amid its training there.

        What runs on a node outlives Ray's process by up to a second, in which a training may end: it is halted before.
        """
        raylet = cluster.spare.all_processes["raylet"][0].process.pid
        begun, halted = time.monotonic(), None
        while halted is None and time.monotonic() - begun < 300:
            time.sleep(0.02)
            done = {path.stem for path in there.glob("results/[!.]*.json")}
            running = (path for path in there.glob("logs/*_*.log") if done and path.stem not in done)
            halted = next(filter(None, (halt(path, raylet) for path in running)), None)
        for folder in (there / "runs" / name for name in done):
            finished.update({path: path.stat().st_mtime_ns for path in folder.iterdir()})
        cluster.remove_node(cluster.spare, allow_graceful=False)
        if halted is not None:
            os.kill(halted, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    sweep(**GRID, out=there, device="cpu", engine="ray")
    killer.join()
    assert "4 of 4" in capsys.readouterr().err
    logs = {path.stem: path.read_text() for path in there.glob("logs/*_*.log")}
    assert sorted(text.count("begun on") for text in logs.values()) == [1, 1, 1, 2]
    sweep(**GRID, out=here, device="cpu", workers=1)

    names = sorted(path.name for path in (here / "runs").iterdir())
    assert len(names) == 4
    for name in names:
        assert (there / "runs" / name / "model.safetensors").read_bytes() == (
            here / "runs" / name / "model.safetensors"
        ).read_bytes()
        lines = (there / "runs" / name / "metrics.jsonl").read_text().splitlines()
        epochs = [json.loads(line)["epoch"] for line in lines]
        assert epochs == [*range(1, EPOCHS + 1)]
        assert logs[name].count(f"epoch {EPOCHS}/{EPOCHS}") == 1
    one, two = (json.loads((folder / "table.json").read_text())["rows"] for folder in (here, there))
    for mine, theirs in zip(one, two, strict=True):
        assert mine["model"] == theirs["model"]
        for key in ("validation", "test", "loss"):  # LAPACK rounds differently with another number of threads
            assert mine[key] == pytest.approx(theirs[key], rel=1e-9, abs=1e-12)
    assert finished
    assert {path: path.stat().st_mtime_ns for path in finished} == finished  # what was done was not done again
