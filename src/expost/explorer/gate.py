"""The gate in front of the page: checks who asks for what and how much, and restricts what a browser may run.

Gradio serves files, fetches addresses and takes uploads, which this page does not need. The gate lets through the few
requests that the page makes and answers everything else with 404, so that no path of the disk can be asked for. It
takes uploads and gives results itself, from and to memory.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import unquote, urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from expost.explorer.admission import Admission, Busy
from expost.explorer.kinds import File
from expost.explorer.requests import Requests
from expost.explorer.token_store import TokenStore

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

#: What the page asks for, and nothing else.
_GET = frozenset({"/", "/config", "/theme.css", "/favicon.ico", "/gradio_api/startup-events", "/gradio_api/queue/data"})
_GET_BELOW = ("/assets/", "/static/", "/gradio_api/heartbeat/")
#: Largest request other than an upload, in bytes.
LARGEST_REQUEST = 1_000_000
#: Seconds in which a request has to be sent.
PATIENCE = 60.0
#: What a browser may load and run: what comes from here. Gradio's page has inline scripts and makes functions of text.
_POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src data:; font-src 'self' data:; connect-src 'self'; manifest-src 'self'; "
    "base-uri 'self'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = (
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
)


class Gate:
    """An ASGI application around another.

    Args:
        app: Gradio's.
        requests: What the page asks of it.
        loopback: Whether the server listens to this machine alone.
        names: Host names, beside addresses and localhost, by which a browser may call it.
        read: Reads an upload, its bytes and name, and returns its token; raises ValueError with one line.
        files: Results that can be saved.
        largest: Largest upload, in bytes.
    """

    def __init__(
        self,
        app: App,
        *,
        requests: Requests,
        loopback: bool,
        names: frozenset[str],
        read: Callable[[bytes, str], str],
        files: TokenStore[File],
        largest: int,
    ) -> None:
        self.app = app
        self.requests = requests
        self.admission = Admission()
        self.loopback = loopback
        self.names = names
        self.read = read
        self.files = files
        self.largest = largest

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer a request, or hand it on."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # the page needs no web socket
            await send({"type": "websocket.close", "code": 1008})
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", []), *_HEADERS]}
            await send(message)

        answer = await self._answer(scope, receive)
        if isinstance(answer, Response):
            await answer(scope, receive, guarded)
        else:
            await self.app(scope, answer, guarded)

    async def _answer(self, scope: Message, receive: Receive) -> Response | Receive:
        """Return the answer, or where the rest of the request comes from if it is for Gradio."""
        request = Request(scope, receive)
        path, method = str(scope["path"]), request.method
        if not self._is_ours(request.headers.get("host", "")):
            return PlainTextResponse("this server answers to its own address alone", 421)
        if any(odd in path for odd in ("..", "\\", "//", "%", "\0")):
            return _not_found()
        if method in ("GET", "HEAD"):
            if path.startswith("/save/"):
                return await self._save(path)
            return receive if path in _GET or path.startswith(_GET_BELOW) else _not_found()
        if method != "POST" or not (path in self.requests.paths or path == "/upload"):
            return _not_found()
        if not _same_origin(request):  # another page in the same browser
            return PlainTextResponse("this comes from another page", 403)
        if path == "/upload":
            return await self._upload(request)
        body = await _body(request, LARGEST_REQUEST)
        if body is None:
            return JSONResponse({"error": f"a request has at most {LARGEST_REQUEST / 1e6:.3g} MB"}, 413)
        if not await run_in_threadpool(self.requests.allow, path, body):
            return JSONResponse({"error": "this is no request of the page"}, 400)
        return _replay(body, receive)

    def _is_ours(self, host: str) -> bool:
        """Return whether a browser calls by an address of this machine.

        This stops DNS rebinding: a foreign site can point its own name at our address, but then Host has that name.
        """
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if name == "localhost" or name in self.names:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return address.is_loopback or not self.loopback

    async def _upload(self, request: Request) -> Response:
        name = unquote(request.headers.get("x-expost-name", ""))
        length = request.headers.get("content-length", "")
        size = min(int(length), self.largest) if length.isdecimal() and len(length) < 19 else self.largest
        try:
            with self.admission.upload(size):
                body = await _body(request, self.largest)
                if body is None:
                    most = f"{self.largest / 1e6:.3g} MB"
                    return JSONResponse({"error": f"the file is too large; at most {most} are taken"}, 413)
                return JSONResponse({"item": await self.admission.decode(self.read, body, name)})
        except Busy as error:
            return JSONResponse({"error": str(error)}, 503)
        except ValueError as error:
            return JSONResponse({"error": " ".join(str(error).split())}, 422)

    async def _save(self, path: str) -> Response:
        _, _, token, *_ = path.split("/")
        try:
            file = self.files[token]
        except ValueError as error:
            return PlainTextResponse(str(error), 404)
        contents = await run_in_threadpool(file.contents)
        headers = {"Content-Disposition": f'attachment; filename="{file.name}"', "Cache-Control": "no-store"}
        return Response(contents, media_type=file.media, headers=headers)


def _not_found() -> Response:
    return PlainTextResponse("there is nothing here", 404)


def _same_origin(request: Request) -> bool:
    site = request.headers.get("sec-fetch-site", "same-origin")
    origin = request.headers.get("origin")
    return site in ("same-origin", "none") and (
        origin is None or urlsplit(origin).netloc == request.headers.get("host", "")
    )


async def _body(request: Request, most: int) -> bytes | None:
    """Return a request's body; None if it is larger than `most`, of which no more is read, or does not arrive."""
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or len(length) > 18 or int(length) > most:
        return None
    parts, size = [], 0
    try:
        async with asyncio.timeout(PATIENCE):
            async for part in request.stream():
                size += len(part)
                if size > most:
                    return None
                parts.append(part)
    except (ClientDisconnect, TimeoutError):
        return None
    return b"".join(parts)


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a source of messages: first the body that was already read, then what follows it."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again
