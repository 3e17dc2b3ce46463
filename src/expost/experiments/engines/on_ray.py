"""Parallel tasks on a Ray cluster, whose nodes may come and go while they run."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from expost._version import __version__
from expost.errors import Interrupted, UsageError
from expost.experiments.engines.base import GRACE, Done, Engine, Resources, logged
from expost.experiments.engines.local import check_workers
from expost.utils.extras import require
from expost.utils.process import environment
from expost.utils.progress import say

T = TypeVar("T")
R = TypeVar("R")

#: Retries of a task whose node or process died; a task that raises an error is not retried.
RETRIES = 5
#: Seconds between checks of which nodes are alive.
LOOK = 5.0
#: Seconds to wait for a connection to the address of a cluster.
CONNECT = 10.0
#: Environment variables that tasks inherit, besides all that begin with EXPOST_. No secrets: Ray's dashboard shows
#: them.
PASSED = ("XDG_CACHE_HOME", "TORCH_HOME", "HF_HOME", "HF_HUB_CACHE", "HF_DATASETS_CACHE", "HF_ENDPOINT",
          "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")  # fmt: skip


class RayEngine(Engine):
    """A Ray cluster: a running one, or one that is started on this machine for as long as it is needed.

    Each task takes a core, or a GPU or a share of one. A task whose node dies is restarted elsewhere, up to
    `RETRIES` times, and goes on from what it saved; so the folder has to be one that all nodes share.

    Args:
        where: What was asked for.
        folder: Where tasks write, on a file system of all nodes.

    Raises:
        UsageError: if Ray is not installed, or for options that make no sense here.
    """

    def __init__(self, where: Resources, folder: Path) -> None:
        super().__init__(where, folder.resolve())
        check_workers(where.workers)
        if where.device not in ("auto", "cpu", "cuda"):
            raise UsageError(f"device is {where.device}, but Ray says which GPU a task gets; give auto, cpu or cuda")
        share = where.gpu_share
        if share is not None and not (0 < share <= 1 or (share > 1 and share == int(share))):
            raise UsageError(f"gpu_share is {share}; give a part of a GPU, for example 0.5, or a number of GPUs")
        self._ray: Any = require("ray", "ray", "engine 'ray' needs Ray")
        self._mine = False
        self._token = self.folder / f".expost-{uuid.uuid4().hex}"
        self._alive: dict[str, str] = {}
        self._running: dict[Any, Any] = {}
        self._open = contextlib.ExitStack()

    @property
    def here(self) -> str:
        """The best device of this machine, which may have less than the nodes."""
        return "cpu" if self.where.device == "cpu" else "auto"

    def devices(self, tasks: int) -> list[str]:
        """Return one device per task, or as many as were asked for: Ray runs as many at a time as fit the cluster.

        Raises:
            UsageError: if GPUs are asked for and no node has one.
        """
        gpus = self._ray.cluster_resources().get("GPU", 0)
        if self.where.device == "cuda" and not gpus:
            raise UsageError("device is cuda, but no node of the Ray cluster has a GPU; give --device cpu")
        device = "cuda" if gpus and self.where.device != "cpu" else "cpu"
        return [device] * max(1, min(self.where.workers or tasks, tasks))

    def start(self) -> None:
        """Connect to the cluster, or start one; check that its nodes can work.

        Raises:
            UsageError: if there is none at the address, or a node does not see the folder or has another expost.
        """
        log = self.folder / "logs" / "ray.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        # keeps what Ray prints, on stdout and from its own threads, apart from results
        noise = self._open.enter_context(log.open("a", encoding="utf-8", buffering=1))
        self._open.enter_context(contextlib.redirect_stdout(noise))
        try:
            if not self._ray.is_initialized():
                self._connect()
                self._open.callback(self._ray.shutdown)
            self._token.write_text(__version__, encoding="utf-8")
            self._open.callback(self._token.unlink, missing_ok=True)
            self._check_nodes()
        except BaseException:
            self._open.close()
            raise

    def run(
        self,
        function: Callable[[T, str], R],
        tasks: Sequence[T],
        devices: Sequence[str],
        logs: Callable[[T], Path] | None = None,
    ) -> Iterator[Done[T, R]]:
        """Run a function on every task: see `Engine.run`.

        Raises:
            Exception: the first that a task raised; tasks that run at the time are stopped, others are not begun.
            ChildProcessError: if a task's process died once more than `RETRIES` times.
        """
        serve = self._ray.remote(_serve).options(
            max_retries=RETRIES,
            retry_exceptions=[Interrupted],  # a node that is taken away may interrupt its tasks first
            runtime_env={"env_vars": passed_environment()},
            **self._resources(devices[0]),
        )
        waiting = list(reversed(tasks))
        try:
            while waiting or self._running:
                while waiting and len(self._running) < len(devices):
                    task = waiting.pop()
                    path = logs(task).resolve() if logs else None
                    self._running[serve.remote(function, task, devices[0], path, self._token)] = task
                ready = self._wait(list(self._running), 1, LOOK)
                self._say_what_is_gone()
                for reference in ready:
                    task = self._running.pop(reference)
                    yield Done(task, self._result(reference))
        finally:
            self._stop()

    def close(self) -> None:
        """Stop running tasks and leave the cluster; one that was started for them is shut down."""
        try:
            self._stop()
        finally:
            self._open.close()

    def _connect(self) -> None:
        # by default Ray takes the cluster that last ran here, even if it is gone
        address = self.where.address or os.environ.get("RAY_ADDRESS") or "local"
        options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
        if address == "local":
            options["include_dashboard"] = False
        try:
            if found := re.fullmatch(r"(?:ray://)?(\[.+\]|[^:/]+):(\d+)", address):
                # by default Ray waits minutes for a port where nobody listens
                socket.create_connection((found[1].strip("[]"), int(found[2])), timeout=CONNECT).close()
            with environment({"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}):
                self._ray.init(address, **options)
        except Exception as error:
            reason = " ".join((getattr(error, "strerror", None) or str(error)).split())
            reason = reason if len(reason) <= 200 else f"{reason[:197]}..."
            raise UsageError(
                f"no Ray cluster at '{address}' ({reason}); give --address of one that runs, with RAY_AUTH_MODE=token "
                "if it asks for a token, or leave it out to start one here"
            ) from None

    def _resources(self, device: str) -> dict[str, float]:
        share = self.where.gpu_share
        return {"num_cpus": 1, "num_gpus": (1.0 if share is None else share) if device == "cuda" else 0}

    def _check_nodes(self) -> None:
        """Check that every node that can run tasks sees the folder and has this version of expost."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        token = str(self._token)

        def look() -> tuple[bool, str]:  # a function within one travels as code: a node may have no expost
            import os

            try:
                from expost._version import __version__ as version
            except ImportError:
                version = ""
            return os.access(token, os.R_OK) and os.access(os.path.dirname(token), os.W_OK), version

        nodes = {node["NodeID"]: node for node in self._ray.nodes() if node["Alive"]}
        self._alive = {key: node["NodeManagerHostname"] for key, node in nodes.items()}
        looks = [
            (
                self._alive[key],
                self._ray.remote(look)
                .options(num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(key, soft=False))
                .remote(),
            )
            for key, node in nodes.items()
            if node["Resources"].get("CPU", 0) >= 1
        ]
        for host, reference in looks:
            try:
                sees, version = self._ray.get(reference, timeout=GRACE)
            except self._ray.exceptions.RayError as error:
                raise UsageError(f"node {host} of the Ray cluster does not answer ({type(error).__name__})") from None
            if not sees:
                raise UsageError(_invisible(self.folder, host))
            if version != __version__:
                found = f"expost {version}" if version else "no expost"
                raise UsageError(f"node {host} has {found}, this machine {__version__}; install the same on all nodes")

    def _say_what_is_gone(self) -> None:
        alive = {node["NodeID"]: node["NodeManagerHostname"] for node in self._ray.nodes() if node["Alive"]}
        for key, host in self._alive.items():
            if key not in alive:
                say(f"node {host} ({key[:8]}) is gone; what ran there is begun again elsewhere")
        self._alive = alive

    def _wait(self, references: list[Any], count: int, timeout: float) -> list[Any]:
        try:
            return self._ray.wait(references, num_returns=count, timeout=timeout)[0]
        except SystemError as error:  # what a signal raised within Ray's compiled code
            if isinstance(error.__cause__, Interrupted | KeyboardInterrupt):
                raise error.__cause__ from None
            raise

    def _result(self, reference: Any) -> Any:
        exceptions = self._ray.exceptions
        try:
            return self._ray.get(reference)
        except exceptions.RayTaskError as error:
            cause = error.cause
            raise (cause if isinstance(cause, Exception) else RuntimeError(str(cause))) from error
        except exceptions.RayError as error:
            first = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
            raise ChildProcessError(
                f"a task's process died {RETRIES + 1} times ({type(error).__name__}: {first}); see the logs folder, "
                "and whether the nodes have enough memory"
            ) from error

    def _stop(self) -> None:
        """Interrupt running tasks, and wait until they have saved their state."""
        running, self._running = list(self._running), {}
        if running and self._ray.is_initialized():
            for reference in running:
                self._ray.cancel(reference)
            self._wait(running, len(running), GRACE)


def _serve(function: Callable[[T, str], R], task: T, device: str, log: Path | None, token: Path) -> R:
    host = os.uname().nodename
    if not token.exists():  # a node that joined after the check
        raise UsageError(_invisible(token.parent, host))

    def begin(task: T, device: str) -> R:
        say(f"begun on {host}, process {os.getpid()}, {device}")
        return function(task, device)

    return logged(begin, task, device, log)


def _invisible(folder: Path, host: str) -> str:
    return f"node {host} of the Ray cluster cannot write to {folder}; give --out a folder that all nodes share"


def passed_environment() -> dict[str, str]:
    """Return the environment variables that tasks inherit, with absolute paths."""
    chosen = {name: value for name, value in os.environ.items() if name.startswith("EXPOST_") or name in PASSED}
    return {name: os.path.abspath(value) if os.path.exists(value) else value for name, value in chosen.items()}
