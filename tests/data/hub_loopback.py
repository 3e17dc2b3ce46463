"""A Hub on the loopback, and what expost makes of it; run by test_data_hub.py in a process of its own.

`huggingface_hub` and `datasets` read their settings when they are imported, hence the process. Nothing of theirs is
replaced: they talk HTTP to this server as they would to the real Hub. Prints one JSON record of what happened.
"""

import hashlib
import io
import json
import os
import re
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

REVISION = "a" * 40


def serve(root: Path) -> tuple[ThreadingHTTPServer, list[str]]:
    """Serve `root/<owner>/<name>/` as dataset repositories, as far as downloading one needs; log the requests."""
    log: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            path = unquote(self.path.split("?")[0])
            log.append(f"{self.command} {path}")
            if match := re.fullmatch(r"/datasets/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
                file = root / match[1] / match[2]
                if not file.is_file():
                    return self.send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": REVISION})
                content = file.read_bytes()
                etag = f'"{hashlib.sha1(content).hexdigest()}"'
                return self.send(200, content, {"ETag": etag, "X-Repo-Commit": REVISION})
            if match := re.fullmatch(r"/api/datasets/([^/]+/[^/]+)/tree/[^/]+(?:/(.*))?", path):
                base = root / match[1]
                folder = base / (match[2] or "")
                entries = [self.entry(base, file) for file in sorted(folder.iterdir())] if folder.is_dir() else []
                return self.send(200, json.dumps(entries).encode(), {"Content-Type": "application/json"})
            if match := re.fullmatch(r"/api/datasets/([^/]+/[^/]+)(/revision/[^/]+)?", path):
                base = root / match[1]
                if base.is_dir():
                    files = [file for file in base.rglob("*") if file.is_file()]
                    named = [
                        {"rfilename": file.relative_to(base).as_posix(), "size": file.stat().st_size} for file in files
                    ]
                    record = {"id": match[1], "sha": REVISION, "siblings": named}
                    return self.send(200, json.dumps(record).encode(), {"Content-Type": "application/json"})
            return self.send(404, b"", {})

        def entry(self, base: Path, file: Path) -> dict[str, object]:
            name = file.relative_to(base).as_posix()
            if file.is_dir():
                return {"type": "directory", "path": name, "oid": "0" * 40, "size": 0}
            content = file.read_bytes()
            return {"type": "file", "path": name, "oid": hashlib.sha1(content).hexdigest(), "size": len(content)}

        def send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

        do_GET = do_HEAD = answer

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, log


def write_repository(folder: Path) -> None:
    """Write a repository of two configurations as the Hub's SVHN has them: parquet, and a README."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    rng = np.random.default_rng(0)
    lines = ["---", "configs:"]
    for config in ("full", "cropped"):
        (folder / config).mkdir(parents=True)
        lines += [f"- config_name: {config}", "  data_files:"]
        for split, n in (("train", 30), ("test", 10), ("extra", 20)):
            images = []
            for _ in range(n):
                buffer = io.BytesIO()
                Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(buffer, "PNG")
                images.append({"bytes": buffer.getvalue(), "path": None})
            table = pa.table({"image": images, "label": [index % 10 for index in range(n)]})
            features = {"image": {"_type": "Image"}, "label": {"names": list("0123456789"), "_type": "ClassLabel"}}
            info = json.dumps({"info": {"features": features}})
            pq.write_table(table.replace_schema_metadata({"huggingface": info}), folder / config / f"{split}-0.parquet")
            lines += [f"  - split: {split}", f"    path: {config}/{split}-*"]
    (folder / "README.md").write_text("\n".join([*lines, "---", ""]))


def write_numbers(folder: Path) -> None:
    """Write a repository of somebody's: two tables of numbers, whose columns have another order."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    (folder / "data").mkdir(parents=True)
    train = {"a": [float(i) for i in range(40)], "b": [i % 7 for i in range(40)], "kind": ["u", "v"] * 20}
    test = {"b": [1] * 6, "kind": ["u", "v"] * 3, "a": [float(i) / 2 for i in range(6)]}
    for split, columns in (("train", train), ("test", test)):
        pq.write_table(pa.table(columns), folder / "data" / f"{split}-00000-of-00001.parquet", row_group_size=8)
    lines = ["---", "configs:", "- config_name: main", "  data_files:"]
    lines += [f"  - split: {split}\n    path: data/{split}-*" for split in ("train", "test")]
    (folder / "README.md").write_text("\n".join([*lines, "---", ""]))


def write_strings(folder: Path) -> None:
    """Write a repository of strings with a number each."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    (folder / "data").mkdir(parents=True)
    for split, begin in (("train", 0), ("test", 40)):
        strings = [f"CC(C){'C' * i}O" for i in range(begin, begin + 40)]
        table = pa.table({"y": range(40), "smiles": strings})
        pq.write_table(table, folder / "data" / f"{split}-00000-of-00001.parquet")


def of_strings() -> dict[str, object]:
    """Read somebody's strings: by their name, and as if they were too many to be downloaded whole."""
    from expost.data import load_data
    from expost.data.hub import Hub
    from expost.data.strings import is_strings, read_strings
    from expost.errors import UsageError

    large = Hub("some-one/strings", None, whole=10).read_strings("nothing", None)
    data = read_strings("some-one/strings")
    result: dict[str, object] = {
        "strings": [is_strings("some-one/strings"), is_strings("some-one/numbers.v2:main"), is_strings("some-one/no")],
        "read": [data.note, data.domain, data.test, sorted([*data.train, *data.validation])],
        "streamed strings": [large.remarks, {part: len(one) for part, one in large.parts.items()}],
    }
    try:
        load_data("some-one/strings")
    except UsageError as error:
        result["no images"] = str(error)
    return result


def of_anybody() -> dict[str, object]:
    """Read somebody's tables: by their name, and as if they were too large to be downloaded whole."""
    import numpy as np

    from expost.data import Preprocess, load_data
    from expost.data.examples import Overrules
    from expost.data.hub import Hub
    from expost.errors import DataError

    streamed = Hub("some-one/numbers.v2", "main", whole=10).read("nothing", Overrules(label_column="kind"))
    rows = {part: one.examples.load(np.arange(len(one)), Preprocess()) for part, one in streamed.parts.items()}
    data = load_data("some-one/numbers.v2:main", label_column="kind")
    result: dict[str, object] = {
        "anybody": [data.note, data.test.x.tolist(), data.columns, data.classes, len(data.train), len(data.validation)]
    }
    result["streamed"] = [streamed.remarks, {part: some.tolist() for part, some in rows.items()}]
    try:
        load_data("some-one/nothing")
    except DataError as error:
        result["nobody"] = str(error)
    return result


def main(folder: Path) -> None:
    server, log = serve(folder / "hub")
    os.environ.update(
        HF_HOME=str(folder / "home"), HF_ENDPOINT=f"http://127.0.0.1:{server.server_port}", HF_HUB_DISABLE_XET="1"
    )
    for variable in ("EXPOST_DATA", "HF_DATASETS_CACHE", "HF_HUB_OFFLINE"):
        os.environ.pop(variable, None)
    write_repository(folder / "hub" / "own" / "tiny")

    from expost.data import NamedData, Preprocess, load_named
    from expost.data.hub import Hub
    from expost.errors import DataError
    from expost.types import Data

    def named(origin: Hub) -> NamedData:
        return NamedData("tiny", origin, Preprocess(pad=10), (3, 10, 10), (25, 5, 10), "none")

    def digest(data: Data) -> str:
        parts = (data.train, data.validation, data.test)
        return hashlib.sha256(
            b"".join(part.x.numpy().tobytes() + part.y.numpy().tobytes() for part in parts)
        ).hexdigest()

    def failure(origin: Hub) -> dict[str, object]:
        begun = time.monotonic()
        try:
            load_named("tiny", named(origin))
        except DataError as error:
            return {"message": str(error), "seconds": time.monotonic() - begun}
        return {"message": "", "seconds": 0}

    result: dict[str, object] = {}
    origin = Hub("own/tiny", "cropped")
    result["found before"] = origin.find("tiny")
    result["missing"] = failure(Hub("own/nothing", "cropped"))
    log.clear()
    data = load_named("tiny", named(origin))
    result["downloaded"], result["note"], result["requests"] = digest(data), data.note, list(log)
    result["found after"] = origin.find("tiny")
    local = Hub(str(folder / "hub" / "own" / "tiny"), "cropped")
    result["local folder"] = digest(load_named("tiny", named(local)))
    os.environ["EXPOST_DATA"] = str(folder / "mine")
    (folder / "mine").mkdir()
    (folder / "mine" / "tiny").symlink_to(folder / "hub" / "own" / "tiny")
    result["clone in EXPOST_DATA"] = digest(load_named("tiny", named(origin)))
    (folder / "mine" / "tiny").unlink()
    log.clear()
    result["cached"], result["requests for cached"] = digest(load_named("tiny", named(origin))), list(log)
    write_numbers(folder / "hub" / "some-one" / "numbers.v2")
    write_strings(folder / "hub" / "some-one" / "strings")
    result |= of_anybody()
    result |= of_strings()
    server.shutdown()
    server.server_close()
    result["cached, hub down"] = digest(load_named("tiny", named(origin)))
    os.environ.update(EXPOST_MEMORY="0", XDG_CACHE_HOME=str(folder / "cache"))
    result["mapped"], result["mapped again"] = (digest(load_named("tiny", named(origin))) for _ in range(2))
    result["prepared"] = len(list((folder / "cache" / "expost" / "prepared").glob("*.npy")))
    result["hub down"] = failure(Hub("own/other", "cropped"))

    import datasets

    result["offline flag"] = datasets.config.HF_HUB_OFFLINE
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, never answers
        datasets.config.HF_ENDPOINT = f"http://127.0.0.1:{silent.getsockname()[1]}"
        result["hub silent"] = failure(Hub("own/other", "cropped", timeout=0.5))
    print(json.dumps(result))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
