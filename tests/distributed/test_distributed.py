"""Several processes do what one does: two of them, on one machine, started as people start them."""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import distributed_cases
import pytest
import torch

import expost
from expost import distributed
from expost.config import TrainingConfig
from expost.errors import UsageError
from expost.utils.store import read_tensors

HERE = Path(__file__).parent
LAUNCHER = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
#: A run long enough to be stopped in the middle.
LONG: dict[str, Any] = {
    "limit": 300,
    "width": 32,
    "batch_size": 10,
    "epochs": 12,
    "precision": "float32",
    "tensorboard": False,
}
WORDS = [
    "-m", "expost", "train", "vae", "--data", "digits", "--limit", "300", "--width", "32", "--batch-size", "10",
    "--epochs", "12", "--precision", "float32", "--no-tensorboard", "--checkpoint-seconds", "0.02", "--out",
]  # fmt: skip


def launch(*words):
    """Start two processes, which `finish` waits for."""
    command = [sys.executable, *map(str, words)]
    settings = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    return subprocess.Popen(
        command, env=os.environ | settings, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip


def finish(process, timeout=900):
    """Wait for processes and return what they have printed; if they do not end, end them."""
    try:
        return process.communicate(timeout=timeout)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def worker(process, rank):
    """Return the process id of a rank, once it is there."""
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                mine = f"\nPPid:\t{process.pid}\n" in (folder / "status").read_text()
                if mine and f"RANK={rank}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                    return int(folder.name)
            except OSError:  # it has ended meanwhile
                continue
        time.sleep(0.05)
    raise TimeoutError


def wait_for_epochs(folder, count):
    """Wait until a run has finished so many epochs."""
    path, deadline = folder / "metrics.jsonl", time.monotonic() + 600
    while not path.exists() or path.read_bytes().count(b"\n") < count:
        assert time.monotonic() < deadline
        time.sleep(0.002)


def weights(folder):
    return read_tensors(folder / "model.safetensors")[0]


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def distance(a, b):
    assert a.keys() == b.keys()
    return max(float((a[key].double() - b[key].double()).abs().max()) for key in a)


def check_weights(name, one, two):
    assert distance(weights(one / name), weights(two / name)) < 1e-6
    for mine, theirs in zip(lines(one / name), lines(two / name), strict=True):
        for part in ("train", "validation"):
            assert theirs[part] == pytest.approx(mine[part], rel=1e-5, abs=1e-6)
        assert [theirs[key] for key in ("epoch", "step", "lr", "best")] == [
            mine[key] for key in ("epoch", "step", "lr", "best")
        ]


def check_gradients_with_batch_norm(name, one, two):
    mine, theirs = (read_tensors(folder / f"step-{name}.safetensors")[0] for folder in (one, two))
    assert mine.keys() == theirs.keys()
    largest = max(float(value.abs().max()) for key, value in mine.items() if key.startswith("gradient."))
    for key, value in mine.items():
        layer, _, last = key.rpartition(".")
        before_norm = last == "bias" and layer.removeprefix("gradient.") in (
            *(f"encoder.layers.{index}" for index in (0, 3, 6, 9)), "decoder.layers.0", "decoder.layers.3",
        )  # fmt: skip
        # rounding decides which of two equal codebook vectors, or of two at one distance, a position takes
        if "unused" in key:
            assert (value != theirs[key]).sum() <= 4
        elif "codebook" in key or key.endswith(("latent.counts", "latent.sums")):
            assert (value - theirs[key]).norm() <= 0.05 * value.norm()
        elif before_norm:  # which removes it again: the gradient is zero but for rounding
            assert theirs[key].abs().max() < 1e-4 * largest
        else:
            size = max(1e-4 * largest, float(value.double().abs().max()))
            assert distance({"": value}, {"": theirs[key]}) <= 2e-4 * size


def check_second_derivatives(estimator, one, two):
    mine, theirs = (read_tensors(folder / f"penalty-{estimator}.safetensors")[0] for folder in (one, two))
    assert mine["0.weight"].abs().max() > 1
    assert distance(mine, theirs) < 1e-11


def check_batch_norm_and_codebooks_over_steps(one, two):
    mine, theirs = weights(one / "conv-vq-vae"), weights(two / "conv-vq-vae")
    for key in mine:
        # Adam makes steps of what is rounding in the gradients of biases before batch norm, which follows their mean
        if key in ("latent.counts", "latent.sums"):  # of equal vectors another one may have taken what both fit
            a, b = mine[key].double().sum(0), theirs[key].double().sum(0)
            torch.testing.assert_close(b, a, rtol=1e-3, atol=1e-3 * float(mine[key].abs().sum()) / len(mine[key]))
            continue
        chosen = key in ("latent.unused", "latent.codebook")  # see above
        network = "encoder.layers" in key or "decoder.layers" in key
        drifting = chosen or (network and key.endswith((".bias", ".running_mean")))
        largest = 8 if "unused" in key else 2e-2 if drifting else 1e-3
        assert distance({"": mine[key]}, {"": theirs[key]}) <= largest, key
    losses = [[line["train"]["total"] for line in lines(folder / "conv-vae-bf16")] for folder in (one, two)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-2)  # bfloat16


def check_densities_and_distances(one, two):
    files = sorted(path.name for path in one.glob("*.safetensors") if not path.name.startswith(("step-", "penalty-")))
    assert len(files) == 5
    for name in files:
        mine, theirs = (expost.load_density(folder / name) for folder in (one, two))
        assert distance(mine.tensors, theirs.tensors) < 1e-10
        for key, value in mine.statistics.items():
            approximate = isinstance(value, float | list)
            assert theirs.statistics[key] == (pytest.approx(value, rel=1e-10) if approximate else value)
    a, b = (json.loads((folder / "frechet.json").read_text()) for folder in (one, two))
    assert b == pytest.approx(a, rel=1e-9)
    assert a > 1


def check_scores(one, two):
    mine, theirs = (json.loads((folder / "scores.json").read_text()) for folder in (one, two))
    assert theirs == pytest.approx(mine, rel=1e-4, abs=1e-6)
    assert mine["frechet-pixels of gmm"] > 0.01
    saved = [json.loads((folder / "scored" / "metrics.json").read_text())["scores"] for folder in (one, two)]
    assert [score["card"]["reference_hash"] for score in saved[0]] == [
        score["card"]["reference_hash"] for score in saved[1]
    ]


def check_that_a_failure_in_one_is_known_in_all(two):
    found = [json.loads((two / f"failures-{rank}.json").read_text()) for rank in (0, 1)]
    for kind in ("DataError", "UsageError"):
        for culprit in (0, 1):
            assert all(f"{kind}: process {culprit} says no" in each for each in found)
    assert "OtherProcessError: process 1 failed: KeyError: 'process 1 says no'" in found[0]
    assert "OtherProcessError: process 0 failed: KeyError: 'process 0 says no'" in found[1]
    for each in found:
        assert each[-2] == "scored exists already; continue it with resume, or choose another out"
        assert each[-1] == "a file is not the same in all 2 processes; give every machine the same files"
    assert len(found[0]) == len(found[1]) == 8


def check_that_the_first_alone_prints_and_writes(one, two, output, errors):
    assert output == ""
    epochs = sum(len(lines(two / name)) for name in distributed_cases.RUNS)
    assert errors.count("epoch ") == epochs == 2 * len(distributed_cases.RUNS)
    names = [sorted(path.relative_to(folder) for path in folder.rglob("*")) for folder in (one, two)]
    assert set(names[1]) == set(names[0]) | {Path("failures-1.json")}


def test_two_processes_do_what_one_does(tmp_path, one_thread):
    """All of it in one launch, since starting torch takes longer than the work."""
    one, two = (tmp_path / name for name in ("one", "two"))
    options: dict[str, Any] = {"limit": 400, "width": 64, "epochs": 10, "tensorboard": False, "precision": "float32"}
    expost.train("rae-l2", "digits", one / "scored", **options)
    shutil.copytree(one / "scored", two / "scored")
    process = launch("-W", "error", *LAUNCHER, HERE / "distributed_cases.py", two)
    for work in distributed_cases.WORK:
        work(one)
    output, errors = finish(process)
    assert process.returncode == 0, errors
    assert "Warning" not in errors
    for name in distributed_cases.RUNS:
        if not name.startswith("conv-"):
            check_weights(name, one, two)
    for name in distributed_cases.STEPS:
        check_gradients_with_batch_norm(name, one, two)
    for estimator in ("reverse", "forward"):
        check_second_derivatives(estimator, one, two)
    check_batch_norm_and_codebooks_over_steps(one, two)
    check_densities_and_distances(one, two)
    check_scores(one, two)
    check_that_a_failure_in_one_is_known_in_all(two)
    check_that_the_first_alone_prints_and_writes(one, two, output, errors)


def test_a_killed_process_costs_only_what_was_done_since_the_last_checkpoint(tmp_path, one_thread):
    """Torchrun starts the processes again, which go on: to the weights of one that was left alone."""
    expost.train("vae", "digits", tmp_path / "whole", **LONG)
    process = launch(*LAUNCHER, "--max-restarts", "1", *WORDS, tmp_path / "killed")
    victim = worker(process, 1)
    wait_for_epochs(tmp_path / "killed", 4)
    os.kill(victim, signal.SIGKILL)
    output, errors = finish(process)
    assert process.returncode == 0, errors
    assert output.split() == [str(tmp_path / "killed")]
    assert distance(weights(tmp_path / "whole"), weights(tmp_path / "killed")) < 1e-5
    assert [line["epoch"] for line in lines(tmp_path / "killed")] == list(range(1, 13))


def test_a_restart_goes_on_with_no_run_that_was_there_before(tmp_path, one_thread):
    options: dict[str, Any] = {**LONG, "epochs": 2}
    expost.train("vae", "digits", tmp_path / "mine", **options)
    before = (tmp_path / "mine" / "model.safetensors").read_bytes()
    process = launch(*LAUNCHER, "--max-restarts", "1", *WORDS, tmp_path / "mine")
    _, errors = finish(process)
    assert process.returncode != 0
    assert errors.count("exists already; continue it with --resume") == 2  # at first, and when started again
    assert (tmp_path / "mine" / "model.safetensors").read_bytes() == before
    assert len(lines(tmp_path / "mine")) == 2


def test_a_signal_to_one_process_stops_all_at_one_step(tmp_path, one_thread):
    expost.train("vae", "digits", tmp_path / "whole", **LONG)
    process = launch(*LAUNCHER, *WORDS, tmp_path / "stopped")
    wait_for_epochs(tmp_path / "stopped", 3)
    os.kill(worker(process, 1), signal.SIGTERM)
    _, errors = finish(process)
    assert errors.count("stopped, and saved; go on with: expost train") == 1
    assert not [line for line in errors.splitlines() if line.startswith("error")]
    record = read_tensors(tmp_path / "stopped" / "checkpoint.safetensors")[1]
    assert record["epoch"] >= 3
    assert record["steps"] < 12 * 30
    run = expost.Run.open(tmp_path / "stopped")
    run.train(run.data())  # one process goes on where two have stopped
    assert distance(weights(tmp_path / "whole"), weights(tmp_path / "stopped")) < 1e-5


@pytest.mark.skipif(importlib.util.find_spec("accelerate") is None, reason="accelerate is not installed")
def test_accelerate_launches_them_too(tmp_path, one_thread):
    run = expost.train("rae-l2", "digits", tmp_path / "run", limit=200, width=32, epochs=2, tensorboard=False)
    settings = ["--cpu", "--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no"]
    settings += ["--dynamo_backend", "no", "--main_process_port", "0", "-m"]
    words = ["expost", "fit", run.folder, "--density", "gmm", "--components", "2", "--device", "cpu"]
    process = launch("-m", "accelerate.commands.launch", *settings, *words)
    output, errors = finish(process)
    assert process.returncode == 0, errors
    saved = run.folder / "densities" / "gmm.safetensors"
    assert output.split() == [str(saved)]
    theirs = read_tensors(saved)[0]
    assert distance(read_tensors(expost.fit(run, "gmm", components=2, device="cpu").path)[0], theirs) < 1e-6


def test_a_single_process_shares_nothing():
    x = torch.arange(4.0)
    with distributed.together():
        assert (distributed.world(), distributed.rank(), distributed.is_main()) == (1, 0, True)
        assert distributed.shard(x).data_ptr() == x.data_ptr()
        assert distributed.gather(x, 4) is x
        assert distributed.total(x)[0] is x
    assert not torch.distributed.is_initialized()


def test_an_incomplete_environment_is_refused(monkeypatch):
    for name, value in {"WORLD_SIZE": "4", "RANK": "1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with (
        pytest.raises(UsageError, match="WORLD_SIZE is 4, but MASTER_ADDR is not set; start with torchrun"),
        distributed.together(),
    ):
        pass
    assert distributed.world() == 1


def test_checkpoint_seconds_must_be_positive():
    with pytest.raises(UsageError, match="checkpoint_seconds is 0"):
        TrainingConfig(checkpoint_seconds=0)
