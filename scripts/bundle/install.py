"""Install a bundle on a machine without a network: python install.py BUNDLE SITE

Everything that is complete in the present parts is installed, and nothing twice. After copying another part, run the
same command again: it installs the rest.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def main(bundle: Path, site: Path) -> None:
    """Install the parts that are there."""
    started = time.time()
    manifest = json.loads((bundle / "MANIFEST.json").read_text(encoding="utf-8"))
    mine = f"{sys.version_info.major}.{sys.version_info.minor}"
    if mine != manifest["python"]:
        sys.exit(
            f"error: the wheels are for Python {manifest['python']}, {sys.executable} is {mine}; name one by PYTHON="
        )
    site.mkdir(parents=True, exist_ok=True)
    record = site / "installed.json"
    done: dict[str, str] = json.loads(record.read_text(encoding="utf-8")) if record.exists() else {}

    files: dict[str, list[dict[str, Any]]] = {}
    for file in manifest["files"]:
        files.setdefault(file["to"], []).append(file)
    whole, missing = {}, {}
    for to, pieces in files.items():
        absent = [piece["path"] for piece in pieces if not (bundle / piece["path"]).is_file()]
        if absent:
            missing[to] = absent
        else:
            whole[to] = pieces
    fresh = {to: pieces for to, pieces in whole.items() if done.get(to) != _key(pieces)}
    for pieces in fresh.values():
        _verify(bundle, pieces)

    wheels = [to for to in fresh if to.startswith("wheels/")]
    for to, pieces in fresh.items():
        _join(bundle, pieces, site / to)
    if wheels:
        _install(site, wheels)
    if "code.zip" in fresh:
        shutil.rmtree(site / "code", ignore_errors=True)
        with zipfile.ZipFile(site / "code.zip") as archive:
            archive.extractall(site / "code")
    done |= {to: _key(pieces) for to, pieces in fresh.items()}
    sys.path.insert(0, str(site / "lib"))
    for name, about in manifest["data"].items():
        own = [to for to in files if to.startswith(f"data/{name}/")]
        if absent := sorted({Path(path).parts[0] for to in own for path in missing.get(to, ())}):
            print(f"{name} is left out: {', '.join(absent)} not here")
        elif about["form"] == "packed" and (any(to in fresh for to in own) or f"decoded/{name}" not in done):
            done[f"decoded/{name}"] = _decode(site / "data" / name, name, about["parts"])
    for to in missing:
        if not to.startswith("data/"):
            print(f"{to} is left out: {', '.join(missing[to])} not here")
    temporary = record.with_suffix(".tmp")
    temporary.write_text(json.dumps(done), encoding="utf-8")
    temporary.replace(record)
    said = f"installed {len(fresh)} files in {time.time() - started:.1f} s" if fresh else "installed already"
    print(f"{said}: {site}", flush=True)


def _key(pieces: list[dict[str, Any]]) -> str:
    return " ".join(piece["sha256"] for piece in pieces)


def _verify(bundle: Path, pieces: list[dict[str, Any]]) -> None:
    for piece in pieces:
        with (bundle / piece["path"]).open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != piece["sha256"]:
                sys.exit(f"error: {piece['path']} is not the file of the manifest; copy it again")


def _join(bundle: Path, pieces: list[dict[str, Any]], to: Path) -> None:
    """Write a file, or join its pieces, atomically."""
    to.parent.mkdir(parents=True, exist_ok=True)
    temporary = to.with_name(f".{to.name}.tmp")
    with temporary.open("wb") as file:
        for piece in sorted(pieces, key=lambda piece: piece["piece"]):
            file.write((bundle / piece["path"]).read_bytes())
    temporary.replace(to)


def _install(site: Path, wheels: list[str]) -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-compile"]
    command += ["--disable-pip-version-check", "--no-cache-dir", "--upgrade", "--target", str(site / "lib")]
    ended = subprocess.run([*command, *(str(site / to) for to in wheels)], capture_output=True, text=True, check=False)
    if ended.returncode:
        reason = (ended.stderr.strip().splitlines() or [f"status {ended.returncode}"])[-1]
        sys.exit(f"error: pip cannot install the wheels: {reason}")
    for to in wheels:
        (site / to).unlink()


def _decode(folder: Path, name: str, parts: dict[str, Any]) -> str:
    """Decode packed images into arrays, which are read at once; return what they are."""
    import numpy as np

    from expost.data.examples import Preprocess
    from expost.data.images import EncodedImages, ImageSource

    class Packed(ImageSource):
        def __init__(self, shards: list[Any]) -> None:
            self.images = []
            for shard in shards:
                ends = np.cumsum(shard["lengths"])
                starts = ends - shard["lengths"]
                content = shard["encoded"].tobytes()
                self.images += [content[a:b] for a, b in zip(starts, ends, strict=True)]

        def __len__(self) -> int:
            return len(self.images)

        def encoded(self, indices: Any) -> Iterator[tuple[str, Path | bytes]]:
            for index in indices:
                yield f"{name}, image {index}", self.images[index]

    for part, about in parts.items():
        paths = [folder / f"{part}-{number:03}.npz" for number in range(about["shards"])]
        shards = [dict(np.load(path)) for path in paths]
        x = EncodedImages(Packed(shards)).load(np.arange(about["count"]), Preprocess())
        if hashlib.sha256(x.tobytes()).hexdigest() != about["sha256"]:
            import PIL

            for path in folder.iterdir():
                path.unlink()
            print(f"{name} is left out: Pillow {PIL.__version__} decodes it to other pixels than where it was packed")
            return "other pixels"
        suffix = "" if part == "all" else f"_{part}"
        np.save(folder / f"x{suffix}.npy", x)
        if "labels" in shards[0]:
            np.save(folder / f"y{suffix}.npy", np.concatenate([shard["labels"] for shard in shards]))
        for path in paths:
            os.unlink(path)
    return "decoded"


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve())
