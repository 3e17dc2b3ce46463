"""Commands that are killed go on as if nothing had happened; disks that fail lose nothing that was there.

Each fault prints its case and number: `Fault(..., at=N)` of `faults` repeats it.
"""

import hashlib
import json
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from faults import Ended, Fault, Server, fresh, server
from filelock import FileLock
from PIL import Image
from torture import LONG, count, times

from expost.commands.checking import check_run
from expost.utils.store import leftovers, read_json, read_tensor_file

#: What a command says of time and machine, and checksums of it, which differ between two undisturbed runs too.
UNSTEADY = re.compile(r".*seconds|hardware|written_by|sha256")
TINY = "--limit 120 --width 8 --latent-dim 2 --no-tensorboard --device cpu"
TINY_STRINGS = "--limit 120 --width 16 --latent-dim 2 --epochs 1 --no-tensorboard --device cpu"
ON_PIXELS = "--features pixels --allow-few"


@dataclass(frozen=True)
class Case:
    """A command, and where it writes.

    Attributes:
        line: The command line.
        out: Folder it changes.
        start: Name of the folder that is there before; empty for a command that makes its own.
        slow: Whether it takes seconds of a core, so that the short version takes one fault of it only.
    """

    line: str
    out: str
    start: str = ""
    slow: bool = False

    @property
    def words(self) -> list[str]:
        return shlex.split(self.line)


CASES = {
    "train": Case(f"train rae-l2 --data digits --epochs 3 --out new {TINY}", "new"),
    "fit": Case("fit run --density gmm", "run", "trained"),
    "evaluate": Case(f"evaluate run --densities gaussian --measures frechet {ON_PIXELS}", "run", "trained"),
    "sample": Case("sample run --density gaussian -n 20", "run", "trained"),
    "report": Case("report run", "run", "trained"),
    "export": Case("export run", "run", "trained", slow=True),
    "sweep": Case(
        "sweep rae-l2 --data digits --set epochs=1,2 limit=60 width=4 latent_dim=2 --densities gaussian --workers 1 "
        f"--out grid {ON_PIXELS}",
        "grid",
        slow=True,
    ),
    "table1": Case(
        "reproduce table1 --dataset digits --scale tiny --models rae --columns Rec N --features pixels --workers 1 "
        "--out table",
        "table",
        slow=True,
    ),
    "optimize": Case(
        "optimize run --rounds 2 --batch 3 --decodes 2 --inducing 5 --region box --codes 60",
        "run",
        "strings",
        slow=True,
    ),
    "table2": Case(
        "reproduce table2 --scale tiny --workers 1 --out table --models 'grae, our decoder'", "table", slow=True
    ),
}


@pytest.fixture(scope="module")
def forked(tmp_path_factory):
    with server(tmp_path_factory.mktemp("kills")) as started:
        yield started


@pytest.fixture(scope="module")
def starts(forked):
    """Make the folders that commands begin with, each when it is asked for."""

    def make(name: str) -> Path | None:
        folder = forked.folder / name
        if name == "trained" and not folder.exists():
            done(forked, shlex.split(f"train rae-l2 --data digits --epochs 2 --out {name} {TINY}"))
            done(forked, shlex.split(f"fit {name} --density gaussian"))
        if name == "strings" and not folder.exists():
            done(forked, shlex.split(f"train grae --data expressions --out {name} {TINY_STRINGS}"))
        return folder if name else None

    return make


def done(forked: Server, words: list[str], fault: Fault | None = None) -> Ended:
    ended = forked.run(words, fault)
    assert ended.status == 0, (words, ended)
    return ended


def again(case: Case, forked: Server) -> list[str]:
    """Return the command that goes on: the same one; of a training that has begun, with --resume."""
    begun = case.words[0] == "train" and (forked.folder / case.out / "config.json").exists()
    return [*case.words, "--resume"] if begun else case.words


def visible(folder: Path) -> list[Path]:
    hidden = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return sorted(path for path in hidden if "tensorboard" not in path.parts)


def check_whole(folder: Path) -> None:
    """Refuse a folder that shows a file that is not whole."""
    for path in visible(folder):
        if path.suffix == ".json":
            read_json(path)
        elif path.suffix == ".safetensors":
            read_tensor_file(path)
        elif path.suffix == ".png":
            with Image.open(path) as picture:
                picture.load()
        elif path.suffix == ".html":
            assert path.read_text().rstrip().endswith("</html>"), path
        elif path.suffix == ".onnx":
            import onnx

            onnx.checker.check_model(str(path))
        elif path.suffix == ".jsonl":
            lines = path.read_text().splitlines(keepends=True)
            for line in lines[:-1] if lines and not lines[-1].endswith("\n") else lines:
                json.loads(line)
        else:
            assert path.read_text().endswith("\n"), path


def steady(value):
    """Return plain values without times and machines."""
    if isinstance(value, dict):
        return {key: steady(each) for key, each in value.items() if not UNSTEADY.fullmatch(key)}
    return [steady(each) for each in value] if isinstance(value, list) else value


def contents(folder: Path) -> dict[str, Any]:
    """Return what is in a folder, comparable between two runs of a command."""
    found: dict[str, Any] = {}
    for path in visible(folder):
        name = str(path.relative_to(folder))
        if path.suffix == ".json":
            found[name] = steady(read_json(path))
        elif path.suffix == ".jsonl":
            found[name] = [steady(json.loads(line)) for line in path.read_text().splitlines()]
        elif path.suffix == ".safetensors":
            file = read_tensor_file(path)
            found[name] = steady(file.record), {key: zlib.crc32(x.numpy().tobytes()) for key, x in file.tensors.items()}
        elif path.suffix == ".html":
            found[name] = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d", "", path.read_text())
        elif path.name in ("table.md", "table.csv") or path.suffix == ".log":
            found[name] = ""  # tell times and machines; table.json has their values
        else:
            found[name] = path.read_bytes()
    for name, value in found.items():
        if name.endswith("checkpoint.previous.safetensors"):  # one checkpoint or another, by where it was stopped
            found[name] = value[1].keys()
    return found


def check_cleared(folder: Path) -> None:
    """Refuse temporary files and locks that are held."""
    assert not [path for each in [folder, *folder.rglob("*")] if each.is_dir() for path in leftovers(each)]
    for path in folder.rglob(".*"):
        assert path.name.endswith(".lock"), path
        with FileLock(path, blocking=False):
            pass


@pytest.fixture(scope="module")
def undisturbed(forked, starts):
    """Return what a command makes undisturbed, how long it takes, and how many changes it makes."""
    known: dict[str, tuple[dict[str, Any], Ended]] = {}

    def run(name: str) -> tuple[dict[str, Any], Ended]:
        if name not in known:
            case = CASES[name]
            out = fresh(starts(case.start), forked.folder / case.out)
            ended = done(forked, case.words, Fault(below=str(out)))
            known[name] = contents(out), ended
            check_whole(out)
            check_cleared(out)
        return known[name]

    return run


def finish(case: Case, forked: Server, expected: dict[str, Any]) -> None:
    """Give the command again, and compare."""
    out = forked.folder / case.out
    ended = forked.run(again(case, forked))
    assert ended.status == 0, ended
    # what was whole when it was killed is made a second time, under the next free name
    twice = re.compile(r"(samples|report|onnx)-\d+\b.*")
    assert {name: each for name, each in contents(out).items() if not twice.fullmatch(name)} == expected
    check_whole(out)
    check_cleared(out)


@pytest.mark.parametrize("name", CASES)
def test_killed_before_any_change_of_a_file_a_command_goes_on(forked, starts, undisturbed, name):
    case = CASES[name]
    expected, whole = undisturbed(name)
    moments = range(1, whole.changes + 1)
    wanted = times(1 if case.slow else 3, 30)
    chosen = moments if len(moments) <= wanted else sorted(random.Random(name).sample(moments, wanted))
    for at in chosen:
        print(f"{name}: killed before change {at} of {whole.changes}")
        out = fresh(starts(case.start), forked.folder / case.out)
        kind = "torn" if at % 2 else "kill"
        assert forked.run(case.words, Fault(str(out), at, kind)).status == -signal.SIGKILL
        check_whole(out)
        finish(case, forked, expected)
    count(f"killed within a write, {name} goes on to the same result", len(chosen))


@pytest.mark.parametrize("name", CASES)
def test_killed_at_random_moments_a_command_goes_on(forked, starts, undisturbed, name):
    case = CASES[name]
    expected, whole = undisturbed(name)
    source = random.Random(name)
    kills = 0
    for _ in range(times(1, 10)):
        out = fresh(starts(case.start), forked.folder / case.out)
        for _ in range(times(1 if case.slow else 2, 5)):
            after = source.uniform(0, 0.8 * whole.seconds)
            print(f"{name}: killed after {after:.4f} s of {whole.seconds:.4f}")
            killed = forked.run(again(case, forked), Fault(after=after)).status == -signal.SIGKILL
            kills += killed
            if out.exists():
                check_whole(out)
            if not killed:
                break
        finish(case, forked, expected)
    assert kills or LONG is None
    count(f"killed at a random moment, {name} goes on to the same result", kills)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
@pytest.mark.parametrize("name", CASES)
def test_stopped_by_a_signal_a_command_says_so_in_one_line_and_goes_on(forked, starts, undisturbed, name, number):
    case = CASES[name]
    expected, whole = undisturbed(name)
    # the last changes remove and unlock what the command has used: a signal then comes when all is done
    moments = range(1, max(2, whole.changes - 4))
    wanted = times(1, 12)
    chosen = moments if len(moments) <= wanted else sorted(random.Random(f"{name} {number}").sample(moments, wanted))
    for at in chosen:
        print(f"{name}: {number.name} before change {at} of {whole.changes}")
        out = fresh(starts(case.start), forked.folder / case.out)
        ended = forked.run(case.words, Fault(str(out), at, "stop", signal=number))
        assert ended.status in (0, 128 + number), ended
        if ended.status:
            assert ended.said.strip().splitlines()[-1].startswith("stopped"), ended
        assert "Traceback" not in ended.said, ended
        if out.exists():
            check_whole(out)
        finish(case, forked, expected)
        check_cleared(out)  # a signal can come between the making of a temporary file and the note of it
    count(f"{number.name}, {name} ends in one line and goes on", len(chosen))


# -------------------------------------------------------------------------------------------------- disks that fail


def refused(ended: Ended, reason: str) -> None:
    """Check that a command failed with one line that says why, and no traceback."""
    assert ended.status == 1, ended
    last = ended.said.strip().splitlines()[-1]
    assert last.startswith("error: "), ended
    assert reason in last, ended
    assert "Traceback" not in ended.said, ended


def check_kept(before: dict[str, Any], now: dict[str, Any], expected: dict[str, Any]) -> None:
    """Check that each file that was there is as it was, or as the command makes it."""
    for name, value in before.items():
        if not name.endswith("checkpoint.previous.safetensors"):
            assert now[name] in (value, expected.get(name)), name


def loses_nothing(
    forked: Server, case: Case, fault: Fault, start: Path | None, expected: dict[str, Any], said: str
) -> int:
    """Run a command on a disk at fault: it fails in one line, if it fails, and goes on; return its exit status."""
    out = fresh(start, forked.folder / case.out)
    before = contents(out)
    ended = forked.run(case.words, replace(fault, below=str(out)))
    if ended.status:
        refused(ended, said)
    check_whole(out)
    check_kept(before, contents(out), expected)
    finish(case, forked, expected)
    return ended.status


@pytest.mark.parametrize("name", CASES)
def test_on_a_disk_that_is_full_a_command_fails_in_one_line_and_loses_nothing(forked, starts, undisturbed, name):
    case = CASES[name]
    expected, whole = undisturbed(name)
    wanted = times(1 if case.slow else 3, 20)
    moments = range(1, whole.changes + 1)
    chosen = moments if len(moments) <= wanted else sorted(random.Random(name).sample(moments, wanted))
    for at in chosen:
        print(f"{name}: disk full from change {at} of {whole.changes}")
        # the last changes may take no room
        loses_nothing(forked, case, Fault(at=at, kind="full"), starts(case.start), expected, "No space left on device")
    count(f"disk full, {name} fails in one line and goes on", len(chosen))


@pytest.mark.parametrize("name", CASES)
def test_where_files_cannot_grow_a_command_fails_in_one_line_and_loses_nothing(forked, starts, undisturbed, name):
    """A real limit of the system, which writes meet amid a file."""
    case = CASES[name]
    expected, _ = undisturbed(name)
    sizes = (0, 1000) if LONG is None else (0, 50, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000)
    for largest in sizes[:1] if case.slow and LONG is None else sizes:
        print(f"{name}: no file larger than {largest} bytes")
        status = loses_nothing(forked, case, Fault(largest=largest), starts(case.start), expected, "File too large")
        assert status or largest > 0
    count(f"no room within a file, {name} fails in one line and goes on", len(sizes))


@pytest.mark.parametrize("name", CASES)
def test_a_folder_that_cannot_be_written_is_refused_before_the_work(forked, starts, undisturbed, name):
    case = CASES[name]
    _, whole = undisturbed(name)
    out = fresh(starts(case.start), forked.folder / case.out)
    before = contents(out)
    ended = forked.run(case.words, Fault(str(out), 1, "read-only"))
    refused(ended, "Read-only file system")
    # nothing was trained, fitted, scored or searched before
    assert not [line for line in ended.said.splitlines() if re.match("epoch|mean log|round|reporting|exporting", line)]
    assert contents(out) == before
    assert whole.changes
    count("a read-only folder is refused before the work", 1)


# ------------------------------------------------------------------------------------ clocks, and two processes at once

#: The command line, with a clock that goes an hour back whenever it is read.
BACKWARDS = """
import itertools, sys, time
clock = itertools.count(2_000_000_000, -3600)
time.time, time.time_ns = lambda: float(next(clock)), lambda: next(clock) * 10**9
from expost.cli import main
main(sys.argv[1:])
"""


@pytest.mark.parametrize("name", ["train", "evaluate", "optimize", "sweep"] if LONG else ["train", "evaluate"])
def test_no_clock_decides_anything(forked, starts, undisturbed, name):
    """Dates of files in any order, and a clock that goes backwards, change no result."""
    case = CASES[name]
    expected, whole = undisturbed(name)
    source = random.Random(name)
    tried = times(1, 10)
    for _ in range(tried):
        at = source.randrange(whole.changes // 2, whole.changes)
        print(f"{name}: killed before change {at} of {whole.changes}, dates of all files changed")
        out = fresh(starts(case.start), forked.folder / case.out)
        assert forked.run(case.words, Fault(str(out), at)).status == -signal.SIGKILL
        for path in [out, *out.rglob("*")]:
            when = source.uniform(0, 4e9)
            os.utime(path, (when, when))
        ended = forked.run(again(case, forked), program=BACKWARDS)
        assert ended.status == 0, ended
        assert contents(out) == expected
        check_cleared(out)
    count("clocks and dates decide nothing", tried)


#: Two command lines at once; prints their exit statuses.
TOGETHER = """
import json, os, sys
from expost.cli import main
children = []
for words in json.loads(sys.argv[1]):
    child = os.fork()
    if child == 0:
        status = 0
        try:
            main(words)
        except SystemExit as end:
            status = end.code or 0
        os._exit(status)
    children.append(child)
print("statuses", *sorted(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children))
"""


def together(forked: Server, *commands: list[str]) -> tuple[list[int], str]:
    ended = forked.run([json.dumps(commands)], program=TOGETHER)
    assert ended.status == 0, ended
    assert "Traceback" not in ended.said, ended
    return [int(word) for word in ended.said.rpartition("statuses ")[2].split()], ended.said


def test_two_processes_that_fit_and_evaluate_one_run_share_it(forked, starts):
    fit, evaluate = CASES["fit"].words, CASES["evaluate"].words
    run = forked.folder / "run"
    fresh(starts("trained"), run)
    for words in (fit, evaluate):
        done(forked, words)
    expected = contents(run)
    pairs = [(fit, evaluate), (fit, fit), (evaluate, evaluate)] * times(1, 10)
    for one, two in pairs:
        fresh(starts("trained"), run)
        assert together(forked, one, two)[0] == [0, 0]
        for words in {"fit": [evaluate], "evaluate": [fit]}[one[0]] if one is two else ():
            done(forked, words)
        assert contents(run) == expected
        check_cleared(run)
        assert not [each for each in check_run(run) if each.state == "wrong"]
    count("two processes share a run", len(pairs))


@pytest.mark.skipif(LONG is None, reason="a search takes seconds; make torture runs it")
def test_two_searches_in_one_folder_are_one(forked, starts, undisturbed):
    case = CASES["optimize"]
    expected, _ = undisturbed("optimize")
    tried = times(1, 5)
    for _ in range(tried):
        fresh(starts("strings"), forked.folder / "run")
        statuses, said = together(forked, case.words, case.words)
        assert statuses in ([0, 2], [0, 0])  # the second began when the first had ended
        assert statuses == [0, 0] or "is being searched by another process" in said
        assert contents(forked.folder / "run") == expected
    count("two searches in one folder are one", tried)


#: A small file system, on which a training ends; the same one, larger; and read-only, on which an evaluation ends.
ON_A_SMALL_DISK = """
mount -t tmpfs -o size={size}k tmpfs "$1" && cd "$1"
$2 -m expost train rae-l2 --data digits --epochs 3 --out new {tiny}; echo "status $?"
mount -o remount,size=8m "$1"
$2 -m expost train rae-l2 --data digits --epochs 3 --out new {tiny} $(test -e new/config.json && echo --resume)
echo "status $?"
mount -o remount,ro "$1"
$2 -m expost evaluate new --densities gaussian {pixels}; echo "status $?"
$2 -m expost doctor new; echo "status $?"
sha256sum new/model.safetensors
"""


@pytest.mark.skipif(
    LONG is None or subprocess.run(["unshare", "-rm", "true"], check=False, capture_output=True).returncode != 0,
    reason="make torture runs it, where a process may mount",
)
@pytest.mark.parametrize("size", [8, 16, 24, 32, 48])
def test_a_small_disk_and_one_that_is_read_only(forked, undisturbed, tmp_path, size):
    undisturbed("train")
    script = ON_A_SMALL_DISK.format(size=size, tiny=TINY, pixels=ON_PIXELS)
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script, "sh", str(tmp_path), sys.executable],
        check=True,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert re.findall(r"status (\d+)", done.stdout) == ["1", "0", "1", "0"], done.stdout
    assert "No space left on device" in done.stdout
    assert re.search(r"error: cannot write new/.*: Read-only file system", done.stdout), done.stdout
    assert "Traceback" not in done.stdout
    whole = hashlib.sha256((forked.folder / "new" / "model.safetensors").read_bytes()).hexdigest()
    assert whole in done.stdout
    count("a small disk, and a read-only one, are refused in one line", 2)
