"""The same seed gives the same weights, fits, samples, searches and scores on one machine, whatever else differs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import determinism_cases as cases
import pytest
import torch
from torture import LONG, count, times

import expost
from expost.models.zoo import ZOO

HERE = Path(__file__).parent
#: In `make test`: one model of each kind of latent and of examples; in `make torture`: the zoo.
MODELS = list(ZOO) if LONG else ["rae-sn", "vae", "vq-vae", "grae"]
#: What must make no difference: by name, changes of the environment and options of the program.
CHANGES: dict[str, tuple[dict[str, str], list[str]]] = {
    "again": ({}, []),
    "hashes of strings": ({"PYTHONHASHSEED": "7"}, []),
    "locale": ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, []),
    "time zone": ({"TZ": "Asia/Kolkata"}, []),
    "random state and order of files": ({}, ["--state", "5"]),
}
#: How far reconstructions of a tiny run may be from those of another order of sums, relative to the largest.
ROUNDING = 0.03
TWO_PROCESSES = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def results(
    folder: Path,
    models: list[str],
    *options: str,
    start: tuple[str, ...] = (),
    environment: dict[str, str] | None = None,
) -> dict[str, str]:
    """Run the cases in a new process, in a working directory of its own, and return the hash of each result."""
    folder.mkdir()
    command = [
        sys.executable,
        *start,
        str(HERE / "determinism_cases.py"),
        str(folder / "out"),
        ",".join(models),
        *options,
    ]
    settings = {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "1", "GLOO_SOCKET_IFNAME": "lo"} | (environment or {})
    done = subprocess.run(command, cwd=folder, env=os.environ | settings, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, str] = json.loads(done.stdout)
    return found


def differences(a: dict[str, str], b: dict[str, str]) -> list[str]:
    """Return the names of results that are not the same, and count all."""
    assert a.keys() == b.keys()
    assert len(a) > 4
    different = [name for name in a if a[name] != b[name]]
    count("the same seed gives the same bits", len(a), len(different))
    return different


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return results(tmp_path_factory.mktemp("determinism") / "reference", MODELS)


def test_nothing_but_the_seed_decides(reference: dict[str, str], tmp_path: Path) -> None:
    """Another process, working directory, hash seed, locale, time zone, order of files, random state of the caller."""
    environment = {key: value for changed, _ in CHANGES.values() for key, value in changed.items()}
    options = [option for _, given in CHANGES.values() for option in given]
    assert not differences(reference, results(tmp_path / "all", MODELS, *options, environment=environment))


@pytest.mark.skipif(LONG is None, reason="make torture tries each change alone")
@pytest.mark.parametrize("change", CHANGES)
def test_no_single_change_decides(reference: dict[str, str], tmp_path: Path, change: str) -> None:
    environment, options = CHANGES[change]
    assert not differences(reference, results(tmp_path / "one", MODELS, *options, environment=environment))


def test_one_process_twice(reference: dict[str, str], tmp_path: Path, one_thread: None) -> None:
    """What was done before in this process leaves no trace in what is done next."""
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    models = MODELS[: times(1, len(MODELS))]
    first = cases.runs(tmp_path / "first", models)
    torch.manual_seed(11)
    second = cases.runs(tmp_path / "second", models)
    assert not differences(first, second)
    assert not differences(first, {name: reference[name] for name in first})


@pytest.mark.parametrize("model", MODELS)
def test_with_or_without_resume(model: str, tmp_path: Path, one_thread: None) -> None:
    data, options = cases.data_of(model)
    whole = expost.train(model, data, tmp_path / "whole", **options | {"epochs": 3})
    parts = expost.train(model, data, tmp_path / "parts", **options | {"epochs": 1})
    for epochs in (2, 3):
        torch.manual_seed(epochs)
        expost.train(model, data, tmp_path / "parts", resume=True, epochs=epochs)
    lost = cases.weights(parts) != cases.weights(whole)
    count("a resumed training ends in the same bits", 1, int(lost))
    assert not lost


def largest_difference(one: Path, other: Path) -> float:
    """Return the largest difference of reconstructions, relative to the largest pixel.

    Weights are no measure: a bias before batch norm has a gradient of rounding alone, and no effect.
    """
    first, second = (expost.Run.open(folder) for folder in (one, other))
    x = first.data().test.x[:20]
    a, b = (run.generator("cpu").reconstruct(x) for run in (first, second))
    return float((a - b).abs().max() / a.abs().max())


def test_another_number_of_threads_changes_rounding_only(tmp_path: Path, one_thread: None) -> None:
    """A number of threads gives the same bits each time; another one gives the same up to rounding."""
    models = MODELS[: times(1, len(MODELS))]
    found = []
    for name, threads in (("one", 1), ("two", 2), ("two again", 2)):
        (tmp_path / name).mkdir()
        torch.set_num_threads(threads)
        found.append(cases.runs(tmp_path / name, models))
    assert not differences(*found[1:])
    for model in [*models, "convolutions"]:
        far = largest_difference(tmp_path / "one" / model, tmp_path / "two" / model)
        count("another number of threads changes rounding only", 1, int(far > ROUNDING))
        assert far <= ROUNDING, (model, far)


@pytest.mark.skipif(LONG is None, reason="make torture starts two processes twice")
def test_two_processes_give_the_same_bits_each_time(tmp_path: Path) -> None:
    """That they give one process's weights, up to rounding, is tested in `tests/distributed`."""
    models = MODELS[::3]
    start = tuple(TWO_PROCESSES)
    first, second = (results(tmp_path / name, models, "--only-runs", start=start) for name in ("first", "second"))
    assert not differences(first, second)
