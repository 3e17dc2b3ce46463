"""Run commands in processes that are killed, or whose disk fails, at a chosen moment.

A process that has imported everything forks a child for each command, so that a fault costs no import. Moments are of
two kinds: a time, and the n-th operation that changes the file system below a folder, before it is done. The second
kind is repeatable, and complete if every n is tried.

Run as a program, this module is that process: it reads a request a line, and answers each with a line.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import json
import os
import pkgutil
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

#: Audit events that change the file system, besides opening a file to write; the path is their first argument.
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.truncate", "os.link", "os.symlink")
#: Those that take room on a disk.
GROWING = ("open", "os.mkdir")


@dataclass(frozen=True)
class Fault:
    """What goes wrong, and when.

    Attributes:
        below: Folder whose changes are counted.
        at: Number of the change before which it goes wrong, from 1; None for never.
        kind: "kill"; "torn", as kill, with half a line written where a file is opened to be appended to; "full", no
            room from then on; "read-only" from then on; "stop", the signal is
            sent once, which a command can handle.
        after: Seconds after which a signal is sent; None for never.
        signal: The signal.
        largest: Size that no file may exceed, in bytes; None for any.
    """

    below: str = ""
    at: int | None = None
    kind: str = "kill"
    after: float | None = None
    signal: int = signal.SIGKILL
    largest: int | None = None


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        status: Exit status; negative, the signal that ended it.
        seconds: How long it took.
        changes: How many changes below the folder there were; 0 if it was killed.
        said: stdout and stderr together.
    """

    status: int
    seconds: float
    changes: int
    said: str


class Server:
    """The process that has imported everything, as its parent sees it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        variables = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=variables
        )

    def run(self, words: list[str], fault: Fault | None = None, program: str = "") -> Ended:
        """Run a command of the command line, or a program that finds `words` in `sys.argv`, with a fault."""
        request = {"words": words, "fault": asdict(fault or Fault()), "program": program, "cwd": str(self.folder)}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return Ended(**json.loads(self.process.stdout.readline()))

    def close(self) -> None:
        """End the process."""
        self.process.communicate()


@contextlib.contextmanager
def server(folder: Path) -> Iterator[Server]:
    """Start the process that has imported everything, and end it."""
    started = Server(folder)
    try:
        yield started
    finally:
        started.close()


def _import_everything() -> None:
    import expost

    skipped = ("expost.__main__", "expost.explorer", "expost.experiments.engines.on_ray")
    for each in pkgutil.walk_packages(expost.__path__, "expost."):
        if not each.name.startswith(skipped):
            importlib.import_module(each.name)
    for name in ("sklearn.datasets", "sklearn.decomposition", "onnx", "onnxscript", "onnxruntime", "botorch"):
        importlib.import_module(name)
    _small_tables()
    _short_searches()


def _short_searches() -> None:
    """Let searches take less than a second a round."""
    from expost.search import SearchConfig

    usual = {each.name: each.default for each in fields(SearchConfig)}
    less = {"steps": 10, "candidates": 20, "restarts": 1, "refinements": 2}
    SearchConfig.__init__.__defaults__ = tuple((usual | less).values())


def _small_tables() -> None:
    """Add a scale to the tables of the paper at which they take seconds."""
    from expost.experiments import table1, table2
    from expost.registry import Registry

    tiny = table1.Scale("small", epochs=2, limit=220, width=4, samples=None, bundled=True)
    table1.SCALES = Registry("scale", {"tiny": tiny})
    search = table2.Scale(1, 120, 60, repetitions=1, rounds=2, batch=3, decodes=2, inducing=5)
    table2.SCALES = Registry("scale", {"tiny": {"expressions": search, "molecules": search}})
    table2.PUBLISHED = Registry(
        "domain", {"expressions": table2.Published("expressions", "last", "expression", {"division": "python2"})}
    )


def _watch(fault: Fault) -> list[int]:
    """Count changes below a folder, and let one go wrong."""
    counted, below = [0], os.path.realpath(fault.below) + os.sep

    def heard(event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = args
            if not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                return
        elif event in CHANGES:
            path, flags = args[0], 0
        else:
            return
        if isinstance(path, int) or not os.path.abspath(os.fsdecode(path)).startswith(below):
            return
        counted[0] += 1
        if fault.at is None or counted[0] < fault.at:
            return
        if fault.kind == "stop":
            if counted[0] == fault.at:
                os.kill(os.getpid(), fault.signal)
            return
        if fault.kind in ("kill", "torn"):
            if fault.kind == "torn" and event == "open" and flags & os.O_APPEND:
                counted[0] = -(10**9)
                with open(path, "a", encoding="utf-8") as file:
                    file.write('{"epoch": 1, "st')
            os.kill(os.getpid(), signal.SIGKILL)
        if fault.kind == "read-only" or event in GROWING:
            number = errno.ENOSPC if fault.kind == "full" else errno.EROFS
            raise OSError(number, os.strerror(number), path)

    sys.addaudithook(heard)
    return counted


def _child(request: dict[str, Any], said: int, answer: int) -> None:
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a process in the background ignores
    os.chdir(request["cwd"])
    os.dup2(said, 1)
    os.dup2(said, 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", 1, closefd=False)
    fault = Fault(**request["fault"])
    counted = _watch(fault) if fault.below else [0]
    if fault.largest is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (fault.largest, fault.largest))
    status = 0
    try:
        if request["program"]:
            sys.argv = ["program", *request["words"]]
            exec(request["program"], {"__name__": "__main__"})
        else:
            from expost.cli import main

            main(request["words"])
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
        status = 99  # a traceback, which no command may end with
    sys.stdout.flush()
    sys.stderr.flush()
    os.write(answer, str(counted[0]).encode())
    os._exit(status)


def _heard(pipe: int) -> bytes:
    """Return what is in a pipe now."""
    text = b""
    with contextlib.suppress(BlockingIOError):
        while part := os.read(pipe, 2**16):
            text += part
    return text


def _serve() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    _import_everything()
    for line in sys.stdin:
        request = json.loads(line)
        heard, said = os.pipe()
        theirs, mine = os.pipe()
        os.set_blocking(heard, False)
        text = b""
        begun = time.monotonic()
        child = os.fork()
        if child == 0:
            _child(request, said, mine)
        os.close(mine)
        os.close(said)
        after, sent = request["fault"]["after"], False
        while True:
            done, status = os.waitpid(child, os.WNOHANG)
            text += _heard(heard)
            if done:
                break
            if after is not None and not sent and time.monotonic() - begun >= after:
                sent = True
                os.kill(child, request["fault"]["signal"])
            time.sleep(0.002)
        seconds = time.monotonic() - begun
        changes = int(os.read(theirs, 20) or b"0")
        os.close(heard)
        os.close(theirs)
        ended = Ended(os.waitstatus_to_exitcode(status), seconds, changes, text.decode(errors="replace"))
        answers.write(json.dumps(asdict(ended)) + "\n")
        answers.flush()


# ---------------------------------------------------------------------------------------------------------- a folder


def fresh(source: Path | None, target: Path) -> Path:
    """Give a copy of a folder, or no folder, in place of what is there."""
    shutil.rmtree(target, ignore_errors=True)
    if source is not None:
        shutil.copytree(source, target)
    return target


if __name__ == "__main__":
    _serve()
