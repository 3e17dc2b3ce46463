"""A Hub of models on the loopback, and runs that are pushed to it and loaded from it; run by test_sharing.py.

`huggingface_hub` reads its settings when it is imported, hence a process of its own. Nothing of it is replaced: it
talks HTTP to this server as it would to the real Hub, by the protocol of Git LFS. Prints one JSON record.
"""

import base64
import hashlib
import json
import os
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

TOKEN = "hf_loopback"


class Hub:
    """Repositories as the real Hub keeps them: commits of files, large ones stored by their SHA-256."""

    def __init__(self):
        self.commits = {}  # repository -> list of (sha, {path: bytes})
        self.private = {}
        self.large = {}
        self.claimed = {}  # sizes of files by name, where they are to be other than they are
        self.log = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                path = unquote(self.path.split("?")[0])
                hub.log.append(f"{self.command} {path}")
                status, content, headers = hub.reply(self, self.command, path, body)
                if isinstance(content, dict | list):
                    content, headers = json.dumps(content).encode(), {**headers, "Content-Type": "application/json"}
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(content))}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

            def log_message(self, *args):
                pass

            do_GET = do_HEAD = do_POST = do_PUT = answer

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def commit(self, repository, files):
        sha = hashlib.sha1(f"{repository} {len(self.commits[repository])}".encode()).hexdigest()
        self.commits[repository].append((sha, files))
        return sha

    def reply(self, request, verb, path, body):
        signed = request.headers.get("Authorization") == f"Bearer {TOKEN}"
        if verb in ("POST", "PUT") and not path.startswith("/lfs/") and path != "/api/validate-yaml" and not signed:
            return 401, {"error": "who are you?"}, {}
        if path == "/api/repos/create":
            asked = json.loads(body)
            repository = f"{asked['organization']}/{asked['name']}"
            if repository in self.commits:
                return 409, {"error": "exists", "url": f"{self.address}/{repository}"}, {}
            self.commits[repository], self.private[repository] = [], asked.get("visibility", asked.get("private"))
            self.commit(repository, {".gitattributes": b""})
            return 200, {"url": f"{self.address}/{repository}", "name": repository}, {}
        if path == "/api/validate-yaml":
            import yaml

            header = yaml.safe_load(json.loads(body)["content"].split("---")[1])
            wrong = [] if isinstance(header.get("tags"), list) else [{"message": "tags must be a list"}]
            return (400 if wrong else 200), {"errors": wrong, "warnings": []}, {}
        if match := re.fullmatch(r"/lfs/([0-9a-f]{64})", path):
            if verb == "PUT":
                if hashlib.sha256(body).hexdigest() != match[1]:
                    return 400, {"error": "other contents than announced"}, {}
                self.large[match[1]] = body
            return 200, b"", {}
        if match := re.fullmatch(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
            objects = [
                {"oid": each["oid"], "size": each["size"]}
                | (
                    {}
                    if each["oid"] in self.large
                    else {"actions": {"upload": {"href": f"{self.address}/lfs/{each['oid']}"}}}
                )
                for each in json.loads(body)["objects"]
            ]
            return 200, {"objects": objects, "transfer": "basic"}, {}
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/(preupload|commit|tree|revision)/([^/]+)(?:/.*)?", path):
            return self.api(match[1], match[2], match[3], body)
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)", path):
            return self.api(match[1], "revision", "main", body)
        if match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            found = self.at(match[1], match[2])
            if found is None:
                return 404, b"", {"X-Error-Code": "RepoNotFound"}
            sha, files = found
            if match[3] not in files:
                return 404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": sha}
            etag = hashlib.sha1(files[match[3]]).hexdigest()
            return 200, files[match[3]], {"ETag": f'"{etag}"', "X-Repo-Commit": sha}
        return 404, b"", {}

    def at(self, repository, revision):
        commits = self.commits.get(repository, [])
        return next((each for each in reversed(commits) if revision in ("main", each[0])), None)

    def api(self, repository, what, revision, body):
        if repository not in self.commits:
            return 404, {"error": "no such repository"}, {"X-Error-Code": "RepoNotFound"}
        found = self.at(repository, revision)
        if found is None:
            return 404, {"error": "no such revision"}, {"X-Error-Code": "RevisionNotFound"}
        sha, files = found
        if what == "preupload":
            large = (".safetensors", ".png")
            asked = [each["path"] for each in json.loads(body)["files"]]
            modes = [
                {"path": p, "uploadMode": "lfs" if p.endswith(large) else "regular", "shouldIgnore": False}
                for p in asked
            ]
            return 200, {"files": modes}, {}
        if what == "commit":
            files = dict(files)
            for line in body.splitlines():
                entry = json.loads(line)
                value = entry["value"]
                if entry["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif entry["key"] == "lfsFile":
                    files[value["path"]] = self.large[value["oid"]]
                elif entry["key"] == "deletedFile":
                    del files[value["path"]]
            sha = self.commit(repository, files)
            return 200, {"commitUrl": f"{self.address}/{repository}/commit/{sha}", "commitOid": sha}, {}
        if what == "tree":
            return (
                200,
                [
                    {"type": "file", "path": name, "oid": hashlib.sha1(data).hexdigest(), "size": len(data)}
                    for name, data in files.items()
                ],
                {},
            )
        siblings = [{"rfilename": name, "size": self.claimed.get(name, len(data))} for name, data in files.items()]
        return 200, {"id": repository, "sha": sha, "siblings": siblings}, {}


def make_run(folder, model="rae", shape=(1, 32, 32), densities=("gaussian",), data="mnist-5k", codec=None, slots=None):
    """Write a run with weights that have moved a little from where they started, and densities fitted on codes."""
    import torch

    from expost._version import __version__
    from expost.config import DataConfig, RunConfig
    from expost.models.presets import configure
    from expost.run import Run
    from expost.utils.store import write_tensors

    options = {"width": 4, "latent_dim": 4}
    config, training = configure(model, shape, "small", options, {}, slots or {})
    run = Run(folder, RunConfig(config, training, DataConfig(data, codec=codec), "small", __version__))
    with run.started():
        pass
    torch.manual_seed(0)
    network = run.fresh_model().train()
    if len(shape) == 2:
        x = torch.nn.functional.one_hot(torch.randint(shape[1], (32, shape[0])), shape[1]).float()
    else:
        x = torch.rand(32, *shape)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(3):
        optimizer.zero_grad()
        network.loss(x).total.backward()
        optimizer.step()
    write_tensors(folder / "model.safetensors", network.state_dict())
    for name in densities:
        run.save_density(name, run.generator("cpu").fit(name, x))
    return run


def main(folder):
    hub = Hub()
    os.environ.update(
        HF_HOME=str(folder / "home"), HF_ENDPOINT=hub.address, HF_HUB_DISABLE_XET="1", HF_TOKEN=TOKEN,
        HF_HUB_DISABLE_PROGRESS_BARS="1", HF_HUB_DISABLE_TELEMETRY="1",
    )  # fmt: skip
    os.environ.pop("HF_HUB_OFFLINE", None)

    import torch

    import expost
    from expost.commands.publishing import pull, push
    from expost.errors import DataError, UsageError
    from expost.sharing import from_pretrained
    from expost.sharing.hub import SharedRun

    def failure(ask):
        try:
            ask()
        except (DataError, UsageError) as error:
            return f"{type(error).__name__}: {error}"
        return ""

    def loaded(source, **options):
        """Return the published generator of images."""
        found = from_pretrained(source, device="cpu", **options)
        assert isinstance(found, expost.Generator)
        return found

    result: dict[str, Any] = {}
    run = make_run(folder / "run", densities=("gaussian", "kde"))
    expected = run.generator("cpu").sample(5, "gaussian", seed=1)
    address = push(run, "me/first", private=True, license="mit")
    result["address"] = address == f"{hub.address}/me/first/commit/{hub.commits['me/first'][-1][0]}"
    result["private"] = hub.private["me/first"]
    result["files"] = sorted(hub.commits["me/first"][-1][1])
    result["same weights"] = (
        hub.commits["me/first"][-1][1]["model.safetensors"] == (run.folder / "model.safetensors").read_bytes()
    )
    result["card"] = hub.commits["me/first"][-1][1]["README.md"].decode()
    first = hub.commits["me/first"][-1][0]

    # somebody adds files that would be harmful if they were fetched, or run
    _, files = hub.commits["me/first"][-1]
    evil = {"modeling.py": b"raise SystemExit", "densities/evil.safetensors": b"x", "pytorch_model.bin": b"\x80\x04."}
    evil |= {"../../escape.safetensors": b"x", "densities/../../../escape.safetensors": b"x"}
    hub.commit("me/first", {**files, **evil})
    hub.log.clear()
    result["loaded"] = torch.equal(loaded("me/first").sample(5, "gaussian", seed=1), expected)
    result["fetched"] = sorted({line.split("/resolve/")[1].split("/", 1)[1] for line in hub.log if "/resolve/" in line})
    result["escaped"] = [str(path) for path in folder.rglob("*escape*")]

    # a second push replaces what is there, and removes what is gone
    push(run, "me/first", densities=("gaussian",))
    result["files after"] = sorted(hub.commits["me/first"][-1][1])
    result["still private"] = hub.private["me/first"]
    result["old revision"] = sorted(loaded("me/first", revision=first).densities)
    result["new revision"] = sorted(loaded("me/first").densities)

    result["pinned"] = sorted(loaded(f"me/first@{first}").densities)
    result["pinned twice"] = failure(lambda: from_pretrained(f"me/first@{first}", revision="main"))
    pinned = pull(f"me/first@{first}", folder / "pinned")
    result["source"] = json.loads((pinned.folder / "source.json").read_text()) == {
        "repository": "me/first",
        "commit": first,
    }
    hub.claimed["model.safetensors"] = 2**40
    result["too large"] = failure(lambda: pull("me/first", folder / "large"))
    hub.claimed.clear()
    pulled = pull("me/first", folder / "pulled")
    result["files pulled"] = sorted(path.relative_to(pulled.folder).as_posix() for path in pulled.folder.rglob("*.*"))
    result["pulled"] = torch.equal(pulled.generator("cpu").sample(5, "gaussian", seed=1), expected)
    mixed = SharedRun.from_pretrained("me/first")
    result["mixin"] = torch.equal(mixed.run.generator("cpu").sample(5, "gaussian", seed=1), expected)
    result["mixin pushed"] = str(mixed.push_to_hub("me/second")).endswith(hub.commits["me/second"][-1][0])
    result["second"] = torch.equal(loaded("me/second").sample(5, "gaussian", seed=1), expected)
    result["missing"] = failure(lambda: from_pretrained("me/nothing"))
    result["no such revision"] = failure(lambda: from_pretrained("me/first", revision="v9"))
    hub.commits["me/other"] = []
    hub.commit("me/other", {"README.md": b"", "pytorch_model.bin": b"x"})
    result["another library's"] = failure(lambda: from_pretrained("me/other"))
    os.environ["HF_TOKEN"] = "hf_wrong"
    result["not allowed"] = failure(lambda: push(run, "me/first"))
    os.environ["HF_TOKEN"] = TOKEN
    hub.close()
    result["offline"] = torch.equal(loaded("me/first", offline=True).sample(5, "gaussian", seed=1), expected)
    result["hub down, cached"] = torch.equal(loaded("me/first").sample(5, "gaussian", seed=1), expected)
    result["offline, not cached"] = failure(lambda: from_pretrained("me/never", offline=True))
    result["hub down"] = failure(lambda: from_pretrained("me/never"))
    result["push, hub down"] = failure(lambda: push(run, "me/first"))
    print(json.dumps(result))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
