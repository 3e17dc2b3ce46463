"""The explorer under attack: many people at once, requests that it never makes, uploads that are made to do harm."""

from __future__ import annotations

import http.client
import io
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import psutil
import pytest
from PIL import Image
from torture import count, times

import expost

pytest.importorskip("gradio", reason="the explorer needs the extra: pip install 'expost[explorer]'")

#: Most that the server may take above what it takes when idle: the bound of `docs/reliability.md`.
MOST_MEMORY = 1_000_000_000
USERS = 200


class Server:
    """`expost explore` in a process of its own, with its address and its memory."""

    def __init__(self, run: Path, scratch: Path) -> None:
        self.scratch = scratch
        environment = os.environ | {"TMPDIR": str(scratch), "OMP_NUM_THREADS": "1"}
        command = [
            sys.executable,
            "-m",
            "expost",
            "explore",
            str(run),
            "--no-browser",
            "--port",
            "0",
            "--device",
            "cpu",
        ]
        self.process = subprocess.Popen(
            command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment
        )
        self.said: list[str] = []
        address = None
        while address is None:
            line = self.process.stderr.readline()
            assert line, self.said
            self.said.append(line)
            address = re.search(r"http://(127\.0\.0\.1:\d+)/", line)
        self.host = address[1]
        self._reader = threading.Thread(target=lambda: self.said.extend(self.process.stderr))
        self._reader.start()
        for _ in range(2_000):
            try:
                assert self.ask("GET", "/")[0] == 200
                break
            except ConnectionError:
                time.sleep(0.05)
        self.idle = self.memory()

    def memory(self) -> int:
        return psutil.Process(self.process.pid).memory_info().rss

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(self.host, timeout=120)
        try:
            connection.putrequest(method, path, skip_host="Host" in headers, skip_accept_encoding=True)
            for name, value in ({} if body is None else {"Content-Length": str(len(body))} | headers).items():
                connection.putheader(name, value)
            if body is None:
                for name, value in headers.items():
                    connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def join(self, body: object) -> tuple[int, bytes]:
        return self.ask(
            "POST", "/gradio_api/queue/join", json.dumps(body).encode(), **{"Content-Type": "application/json"}
        )

    def upload(self, body: bytes, name: str) -> tuple[int, bytes]:
        return self.ask("POST", "/upload", body, **{"X-Expost-Name": name})

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        try:
            return self.process.wait(60)
        finally:
            self.process.kill()
            self._reader.join()
            self.process.stderr.close()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on small images with a density."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    expost.train("rae-l2", "digits", folder, epochs=1, width=32, latent_dim=4, limit=300, tensorboard=False)
    expost.fit(folder, "gaussian")
    return folder


@pytest.fixture(scope="module")
def server(run, tmp_path_factory):
    """A server for all tests of this module; the last one stops it."""
    serving = Server(run, tmp_path_factory.mktemp("scratch"))
    yield serving
    if serving.process.poll() is None:
        serving.stop()


class Watch:
    """The most memory that a server takes while the block runs, above what it takes when idle."""

    def __init__(self, server: Server) -> None:
        self.server, self.most, self.over = server, 0, threading.Event()

    def __enter__(self) -> Watch:
        self.thread = threading.Thread(target=self._look)
        self.thread.start()
        return self

    def _look(self) -> None:
        while not self.over.wait(0.02):
            self.most = max(self.most, self.server.memory() - self.server.idle)

    def __exit__(self, *raised: object) -> None:
        self.over.set()
        self.thread.join()


def at_once(number: int, act) -> list:
    """Let so many threads act at the same time; return what each returned or raised."""
    found: list = [None] * number
    barrier = threading.Barrier(number)

    def one(index: int) -> None:
        barrier.wait()
        try:
            found[index] = act(index)
        except Exception as error:  # a test that looks at it
            found[index] = error

    threads = [threading.Thread(target=one, args=(index,)) for index in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def encoded(width: int, height: int, kind: str, mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (width, height), 200 if mode in ("L", "I;16") else None).save(buffer, kind)
    return buffer.getvalue()


def test_many_large_uploads_at_once_take_little_memory(server):
    """Flat images of 25 million pixels, 100 kB each as a file: with transparency, of 16 bits, progressive."""
    bodies = [encoded(5_000, 5_000, "PNG", mode) for mode in ("RGB", "RGBA", "L", "I;16", "P")]
    together = times(24, 100)
    with Watch(server) as watch:
        answers = at_once(
            together,
            lambda index: server.ask("POST", "/upload", bodies[index % len(bodies)], **{"X-Expost-Name": "a.png"}),
        )
    statuses = Counter(answer[0] if isinstance(answer, tuple) else repr(answer) for answer in answers)
    assert set(statuses) <= {200, 503}, statuses
    assert statuses[200] >= 1
    for status, body in answers:
        if status == 503:
            assert "as many files are being read as are taken at once; try again" in json.loads(body)["error"]
    assert watch.most < MOST_MEMORY, f"{watch.most / 1e6:.0f} MB"
    count("uploads of 25 million pixels at once: bounded memory", together, int(watch.most >= MOST_MEMORY))


def test_uploads_are_malformed_in_any_way(server):
    """Mutated images and arrays, names with folders and markup: one line, never status 500 (see the last test)."""
    draw = random.Random(0)
    seeds = [encoded(9, 7, kind) for kind in ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")]
    array = io.BytesIO()
    np.save(array, np.arange(64, dtype=np.uint8).reshape(8, 8))
    seeds.append(array.getvalue())
    names = [
        "a.png",
        "a.npy",
        "../../a.tif",
        "..%2f..%2fetc%2fpasswd",
        "%00.png",
        "<img src=x onerror=a()>.png",
        "a" * 3_000,
    ]
    tried, lost = times(200, 20_000), 0
    for _ in range(tried):
        body = bytearray(draw.choice(seeds))
        for _ in range(draw.randrange(6)):
            body[draw.randrange(len(body))] = draw.randrange(256)
        if draw.random() < 0.3:
            body = body[: draw.randrange(len(body))]
        status, answer = server.upload(bytes(body), draw.choice(names))
        found = json.loads(answer)
        good = status == 200 or (status == 422 and "\n" not in found["error"] and len(found["error"]) < 600)
        lost += not good
        assert good, (status, answer)
    count("malformed uploads: one line", tried, lost)


def test_requests_that_the_page_never_makes_are_refused(server):
    """Any function, any number of values, any nesting: 400 in one line, and nothing raised inside Gradio."""
    good = {"data": [], "fn_index": 0, "session_hash": "abc", "event_data": None, "trigger_id": None}
    bad: list[dict[str, object]] = [
        {"fn_index": 10**6}, {"fn_index": -1}, {"fn_index": "0"}, {"fn_index": None}, {"fn_index": 0.5},
        {"fn_index": True}, {"data": [1] * 500}, {"data": None}, {"data": {"path": "/etc/passwd"}},
        {"data": [{"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}]}, {"session_hash": None},
        {"session_hash": "x" * 1_000}, {"session_hash": "a\nb"}, {"session_hash": ["a"]}, {"trigger_id": "a"},
        {"trigger_id": 10**30}, {"simple_format": True}, {"batched": True}, {"event_id": "a"}, {"request": {}},
        {"oauth_token": "a"},
    ]  # fmt: skip
    inputs = {each["id"]: len(each["inputs"]) for each in json.loads(server.ask("GET", "/config")[1])["dependencies"]}
    assert len(inputs) > 10
    for each in bad:
        status, body = server.join(good | {"data": [0] * inputs[0]} | each)
        assert (status, b"\n" in body) == (400, False), each
    draw = random.Random(1)

    def anything(depth: int = 0) -> object:
        kind = draw.randrange(8 if depth < 4 else 5)
        if kind >= 5:
            return [anything(depth + 1) for _ in range(draw.randrange(4))] if kind < 7 else {"x": anything(depth + 1)}
        return [None, draw.choice([True, 1e308, -1, 10**40]), "text", "../../etc/passwd", draw.random()][kind]

    tried = times(150, 5_000)
    for _ in range(tried):  # of the right form with values of any kind: taken, and the page is told in one line
        index = draw.choice(list(inputs))
        status, body = server.join(good | {"fn_index": index, "data": [anything() for _ in range(inputs[index])]})
        assert status in (200, 503), body
    for path in ("cancel", "reset"):
        for body in (
            {},
            [],
            {"event_id": 1},
            {"session_hash": "a", "fn_index": 10**6, "event_id": "b"},
            {"event_id": {}},
        ):
            assert server.ask("POST", f"/gradio_api/{path}", json.dumps(body).encode())[0] == 400
    count("requests that the page never makes: refused", tried + len(bad))


def test_no_path_and_no_other_page_gets_through(server, run):
    """Path traversal in every parameter; hosts that are rebound; requests of other sites."""
    private = [str((run / "config.json").resolve()), "/etc/passwd", "/proc/self/environ"]
    words = [Path(path).read_bytes()[:30] for path in private if Path(path).stat().st_size]
    tried = 0
    for path in private:
        up = "../" * 12 + path.lstrip("/")
        for each in (
            path,
            up,
            up.replace("/", "%2f"),
            up.replace(".", "%2e"),
            up.replace("/", "%5c"),
            up.replace("..", "....//"),
        ):
            for place in (
                "/gradio_api/file={}", "/file={}", "/assets/{}", "/static/{}", "/save/{}", "/save/a/{}",
                "/theme.css?v={}", "/gradio_api/startup-events?{}", "/?{}", "/config?deep_link={}", "/?deep_link={}",
                "/?view={}", "/?__theme={}",
            ):  # fmt: skip
                status, body = server.ask("GET", place.format(each).replace(" ", "%20"))
                tried += 1
                assert status < 500, (place, each)
                assert not any(word in body for word in words), (place, each)
    host = server.host
    for headers in (
        {"Host": "evil.example"}, {"Host": f"evil.example:{urlsplit('//' + host).port}"}, {"Host": "192.0.2.7"},
        {"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"}, {"Host": ""},
    ):  # fmt: skip
        for path in ("/upload", "/gradio_api/queue/join", "/gradio_api/cancel", "/gradio_api/reset"):
            status, _ = server.ask("POST", path, b"{}", **headers)
            tried += 1
            assert status in (400, 403, 421), (headers, path)
    count("paths and requests of other pages: refused", tried)


class User:
    """A person who opens the page, and samples, reconstructs and uploads as the page does it."""

    def __init__(self, server: Server, number: int, functions: list[dict]) -> None:
        self.server, self.draw, self.name = server, random.Random(number), f"user{number}"
        self.functions = functions
        self.errors: Counter[str] = Counter()
        self.done = 0

    def act(self) -> None:
        if self.draw.random() < 0.1:
            side = self.draw.choice([8, 300, 1_000])
            status, body = self.server.ask(
                "POST", "/upload", encoded(side, side, "PNG"), **{"X-Expost-Name": f"{self.name}.png"}
            )
            self._note(status, body)
            return
        function = self.draw.choice(self.functions)
        session = f"{self.name}x{self.done}"
        status, body = self.server.join(
            {"data": function["values"], "fn_index": function["id"], "session_hash": session, "event_data": None,
             "trigger_id": None}
        )  # fmt: skip
        if status == 200:
            status, body = self.server.ask("GET", f"/gradio_api/queue/data?session_hash={session}")
            if b'"success":false' in body.replace(b" ", b"") or b"process_completed" not in body:
                status = 599
        self._note(status, body)

    def _note(self, status: int, body: bytes) -> None:
        self.done += 1
        if status != 200:
            self.errors[f"{status} {body[:120]!r}"] += 1


def test_many_people_at_once_meet_no_error_and_the_memory_is_bounded(server):
    """The page itself, samples, points, reconstructions, uploads: in the long version 200 people for five minutes."""
    config = json.loads(server.ask("GET", "/config")[1])
    values = {each["id"]: each["props"].get("value") for each in config["components"]}
    loads = [
        {"id": each["id"], "values": [values.get(component) for component in each["inputs"]]}
        for each in config["dependencies"]
        if any(kind == "load" for _, kind in each["targets"])
    ]
    assert len(loads) == 4
    people, seconds = times(20, USERS), times(6, 300)
    users = [User(server, number, loads) for number in range(people)]
    until = time.monotonic() + seconds

    def use(index: int) -> None:
        users[index].draw.random()
        while time.monotonic() < until:
            users[index].act()
            time.sleep(users[index].draw.uniform(0, times(0, 2)))

    with Watch(server) as watch:
        raised = [error for error in at_once(people, use) if error is not None]
    errors = sum((user.errors for user in users), Counter())
    done = sum(user.done for user in users)
    count(f"requests of {USERS} people for 5 minutes: no error", done, sum(errors.values()) + len(raised))
    assert not raised, raised[:3]
    assert not errors, errors.most_common(5)
    assert done >= people
    assert watch.most < MOST_MEMORY, f"{watch.most / 1e6:.0f} MB"
    assert server.ask("GET", "/")[0] == 200
    print(f"{done} requests of {people} people in {seconds} s, {watch.most / 1e6:.0f} MB above idle")


def test_it_leaves_nothing_when_it_is_terminated_and_was_never_out_of_hand(server):
    """The last test: no traceback in all that was asked above, and no temporary folder afterwards."""
    assert list(server.scratch.iterdir())  # so that there is something to remove
    assert server.process.poll() is None
    assert server.stop(signal.SIGTERM) == 0
    assert not list(server.scratch.iterdir())
    assert "Traceback" not in "".join(server.said), "".join(server.said)[-3_000:]
