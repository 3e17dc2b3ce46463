"""The function behind `expost explore`."""

from __future__ import annotations

import asyncio
import socket
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

from expost.explorer.explored import Explored
from expost.explorer.server import Server, is_loopback, listen
from expost.run import Run
from expost.training.signals import graceful_interrupt
from expost.utils.process import environment
from expost.utils.progress import say

if TYPE_CHECKING:
    from expost.explorer.gate import App
    from expost.explorer.requests import Requests


#: Disables Gradio's telemetry, and its statistics of requests, which get slower with every request.
_SETTINGS = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_ANALYTICS_MAX_EVENTS": "1",
    "GRADIO_ANALYTICS_CACHE_FREQUENCY": str(10**9),
}


async def _application(explored: Explored, largest: int) -> tuple[App, Requests]:
    """Build the page inside a running event loop; without one, Gradio makes new ones and never closes them."""
    from expost.explorer.app import application

    return application(explored, largest)


@contextmanager
def page(explored: Explored, host: str, port: int | None, largest: int) -> Iterator[Server]:
    """Give a server of the page of a run; its temporary files are removed at the end of the block.

    Args:
        explored: The run.
        host: Address to listen on.
        port: Port, see `listen`.
        largest: Largest upload, in bytes.
    """
    with (
        tempfile.TemporaryDirectory(prefix="expost-explore-") as scratch,
        listen(host, port) as listening,
        environment(_SETTINGS | {"GRADIO_TEMP_DIR": scratch}),  # Gradio's own folder, in which nothing is put
    ):
        from expost.explorer.gate import Gate

        with ThreadPoolExecutor(1) as thread:  # this one may have an event loop already, as in a notebook
            app, requests = thread.submit(asyncio.run, _application(explored, largest)).result()
        gate = Gate(
            app,
            requests=requests,
            loopback=is_loopback(host),
            names=frozenset() if is_loopback(host) else frozenset({host.lower(), socket.gethostname().lower()}),
            read=explored.upload,
            files=explored.results,
            largest=largest,
        )
        yield Server(gate, listening)


def warning_of(host: str) -> str:
    """Return a warning for an address that others can reach; an empty string for this machine's own."""
    if is_loopback(host):
        return ""
    return (
        f"warning: on host {host} everyone who can reach this machine can use the page, see the run's data and keep "
        "the model busy; it asks for no password and is not encrypted"
    )


def serve(run: Run, host: str, port: int | None, browser: bool, examples: int, largest: int, device: str) -> None:
    """Serve the page of a run until Ctrl-C or SIGTERM; see `expost.commands.exploring.explore`."""
    warning = warning_of(host)
    if warning:
        say(warning)
    listen(host, port).close()  # an address that cannot work is refused before the run is loaded
    say(f"loading {run.folder}")
    explored = Explored.of(run, examples, device)
    with graceful_interrupt() as stopped, page(explored, host, port, largest) as server:
        say(f"explore {explored.title} at {server.address} (Ctrl-C ends it)")
        server.run(browser, stopped)
