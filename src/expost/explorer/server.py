"""The server of the page: its address, start and stop."""

from __future__ import annotations

import ipaddress
import socket
import threading
import webbrowser
from typing import Any

import uvicorn

from expost.errors import UsageError
from expost.explorer.memory import keep_small

#: Ports that are tried where none is asked for.
PORTS = range(7860, 7880)
#: Connections at once: a page keeps two, and a browser opens six. More are answered with 503.
MOST_CONNECTIONS = 2_000


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach an address.

    Example:
        >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0")
        (True, True, False)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listen(host: str, port: int | None) -> socket.socket:
    """Return a socket that listens.

    Args:
        host: Address or name.
        port: Which; 0 takes any free one, None the first free one of `PORTS`.

    Raises:
        UsageError: if the host is none of this machine, or the port is taken or not allowed.
    """
    if port is not None and not 0 <= port < 65536:
        raise UsageError(f"port is {port}; give one from 0 (any that is free) to 65535")
    reason = ""
    for candidate in PORTS if port is None else (port,):
        try:
            family = socket.getaddrinfo(host, candidate, type=socket.SOCK_STREAM)[0][0]
            return socket.create_server((host, candidate), family=family)
        except socket.gaierror:
            raise UsageError(f"host '{host}' is no address of this machine; leave --host out") from None
        except OSError as error:
            reason = error.strerror or str(error)
    shown = f"port {port}" if port is not None else f"ports {PORTS[0]} to {PORTS[-1]}"
    raise UsageError(f"cannot use {shown} of {host} ({reason}); give another --port, or 0 for any that is free")


def address_of(listening: socket.socket) -> str:
    """Return the address for a browser on this machine."""
    name, port = listening.getsockname()[:2]
    if ipaddress.ip_address(name).is_unspecified:
        name = "127.0.0.1"
    return f"http://[{name}]:{port}/" if ":" in name else f"http://{name}:{port}/"


class Server:
    """A server of one application.

    Args:
        app: ASGI application.
        listening: Where it listens.
    """

    def __init__(self, app: Any, listening: socket.socket) -> None:
        config = uvicorn.Config(
            app,
            log_level="error",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=1,
            ws="none",
            limit_concurrency=MOST_CONNECTIONS,
        )
        self.address = address_of(listening)
        self._server = uvicorn.Server(config)
        self._socket = listening

    def run(self, browser: bool = False, stopped: threading.Event | None = None) -> None:
        """Serve until Ctrl-C, `stop`, or an event.

        Args:
            browser: Open the page in a browser once it is there.
            stopped: The event.
        """
        # in a thread of its own, since this one may have an event loop already, as in a notebook
        ended = threading.Event()

        def serve() -> None:
            try:
                self._server.run(sockets=[self._socket])
            finally:
                ended.set()

        threading.Thread(target=serve).start()
        keep_small(ended)
        # an event: in Python 3.11 a thread whose join is interrupted counts as ended, and the socket closed too soon
        try:
            while not ended.is_set() and not (stopped is not None and stopped.is_set()):
                if browser and self._server.started:
                    browser = False
                    webbrowser.open(self.address)
                ended.wait(0.05)
        except KeyboardInterrupt:
            pass
        finally:
            self.stop()
            ended.wait()
            self._socket.close()

    def stop(self) -> None:
        """End `run`, which may be in another thread."""
        self._server.should_exit = True
