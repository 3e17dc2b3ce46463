"""What `test_determinism.py` does in several processes and compares.

python determinism_cases.py FOLDER MODELS [OPTION ...]

Prints one JSON object: by the name of a result, the SHA-256 of what it is. MODELS are names joined by commas.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import expost
from expost.densities import DENSITIES, Density
from expost.experiments.sweep import sweep
from expost.models.zoo import ZOO
from expost.run import Run
from expost.search.records import TENSORS
from expost.utils.hashing import hash_tensors
from expost.utils.store import read_json, read_tensors

SMALL: dict[str, Any] = {"epochs": 2, "limit": 120, "width": 8, "tensorboard": False, "device": "cpu"}
#: Data, and options, of tiny runs.
VECTORS: tuple[str, dict[str, Any]] = ("digits", SMALL | {"latent_dim": 3})
IMAGES: tuple[str, dict[str, Any]] = ("mnist-5k", SMALL | {"limit": 60, "width": 2, "latent_dim": 4, "batch_size": 20})
STRINGS: tuple[str, dict[str, Any]] = ("expressions", SMALL | {"limit": 200, "width": 16, "latent_dim": 3, "epochs": 1})
#: A model of convolutions and batch norm, whatever else is asked for.
CONVOLUTIONS = "rae-gp"
#: Options by which a density fits few codes of few dimensions in no time.
DENSITY_OPTIONS: dict[str, dict[str, Any]] = {
    "gmm": {"components": 3},
    "bayesian-gmm": {"components": 3},
    "second-stage-vae": {"options": {"epochs": 2, "width": 16, "depth": 1}},
    "reduced": {"options": {"rank": 2}},
    "flow": {"options": {"transforms": 2, "width": 16, "steps": 60}},
    "flow-matching": {"options": {"width": 16, "depth": 1, "steps": 60}},
}
#: Of several processes, the first writes and looks.
FIRST = os.environ.get("RANK", "0") == "0"


def sha(what: bytes) -> str:
    """Return the SHA-256 of bytes, in hex."""
    return hashlib.sha256(what).hexdigest()


def hash_file(path: str | Path) -> str:
    """Return the SHA-256 of a file."""
    return sha(Path(path).read_bytes()) if FIRST else ""


def without_times(value: Any) -> Any:
    """Return JSON values without what is measured by a clock, without paths, and without checksums of such values."""
    if isinstance(value, dict):
        left_out = ("second", "time", "folder", "sha256")
        return {k: without_times(v) for k, v in value.items() if not any(word in k for word in left_out)}
    return [without_times(each) for each in value] if isinstance(value, list) else value


def hash_json(value: Any) -> str:
    """Return the SHA-256 of JSON values, without times."""
    return sha(json.dumps(without_times(value), sort_keys=True).encode())


def weights(run: Run) -> str:
    """Return the hash of a run's weights and of what its epochs recorded."""
    if not FIRST:
        return ""
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text("utf-8").splitlines()]
    return sha((hash_tensors(read_tensors(run.folder / "model.safetensors")[0]) + hash_json(lines)).encode())


def global_state() -> list[str]:
    """Return hashes of what belongs to the caller: random states, and settings of torch."""
    numpy_state = np.random.get_state(legacy=False)  # noqa: NPY002
    return [
        sha(repr(random.getstate()).encode()),
        sha(repr({k: repr(v) for k, v in numpy_state.items()}).encode() + numpy_state["state"]["key"].tobytes()),
        hash_tensors({"state": torch.get_rng_state()}),
        f"{torch.get_num_threads()} threads",
        f"{torch.get_default_dtype()}",
        f"gradients: {torch.is_grad_enabled()}",
        f"deterministic: {torch.are_deterministic_algorithms_enabled()}",
        f"precision: {torch.get_float32_matmul_precision()}",
        str(Path.cwd()),
    ]


@contextmanager
def leaving_the_caller_s_state(what: str) -> Iterator[None]:
    """Refuse a command that leaves another global state behind."""
    before = global_state()
    yield
    changed = [(a, b) for a, b in zip(before, global_state(), strict=True) if a != b]
    assert not changed, f"{what} changes the caller's global state: {changed}"


def data_of(model: str) -> tuple[str, dict[str, Any]]:
    """Return data and options of a tiny run of a model of the zoo."""
    row = ZOO[model]
    if row.codec:
        return STRINGS
    return IMAGES if DENSITIES[row.prior.name].of_symbols else VECTORS  # symbols are on a map


def runs(folder: Path, models: list[str]) -> dict[str, str]:
    """Train every model, fit, draw and score."""
    found = {}
    rows = [(model, model, *data_of(model)) for model in models] + [("convolutions", CONVOLUTIONS, *IMAGES)]
    for name, model, data, options in rows:
        with leaving_the_caller_s_state(f"train {name}"):
            run = expost.train(model, data, folder / name, **options)
        found[f"{name}: weights"] = weights(run)
        if DENSITIES[ZOO[model].prior.name].of_symbols:
            expost.fit(run, "autoregressive", options={"width": 8, "steps": 5})
            found[f"{name}: fit"] = density(run, "autoregressive")
            continue
        with leaving_the_caller_s_state(f"fit, sample, reconstruct, interpolate {name}"):
            expost.fit(run, "gmm", components=3)
            found[f"{name}: fit"] = density(run, "gmm")
            ending = "txt" if ZOO[model].codec else "png"
            for command in (expost.sample, expost.interpolate, expost.reconstruct):
                path = command(run, out=folder / f"{name}-{command.__name__}.{ending}", n=4)
                found[f"{name}: {command.__name__}"] = hash_file(path)
    return found


def density(run: Run, name: str) -> str:
    """Return the hash of a fitted density, of its samples and of its log-density where it has one."""
    if not FIRST:
        return ""
    loaded: Density = run.generator("cpu").densities[name]
    with leaving_the_caller_s_state(f"sample {name}"):
        drawn = loaded.sample(20, generator=torch.Generator().manual_seed(1))
    saved = read_tensors(run.folder / "densities" / f"{name}.safetensors")[0]
    return hash_tensors({"samples": drawn} | {f"saved.{key}": value for key, value in saved.items()})


def commands(folder: Path) -> dict[str, str]:
    """Fit every density to a run; evaluate, search and sweep."""
    found = {}
    data, options = VECTORS
    more = options | {"limit": 300, "batch_size": 20, "epochs": 8}
    run = expost.train("rae-l2", data, folder / "run", **more)
    for name in (name for name, kind in DENSITIES.items() if not kind.of_symbols):
        with leaving_the_caller_s_state(f"fit {name}"):
            expost.fit(run, name, **DENSITY_OPTIONS.get(name, {}))
        found[f"density {name}"] = density(run, name)
    for path in (expost.sample(run, out=folder / "all.svg"), expost.sample(run, out=folder / "all.npy")):
        found[f"sample {Path(path).suffix}"] = hash_file(path)
    with leaving_the_caller_s_state("evaluate"):
        scores = expost.evaluate(run, ("gmm",), features="pixels", allow_few=True, bootstrap=39)
    found["evaluate"] = hash_json([[score.name, score.of, score.value, score.error] for score in scores])
    found["metrics.json"] = hash_json(read_json(run.folder / "metrics.json"))

    strings = expost.train("gvae", *STRINGS[:1], folder / "strings", **STRINGS[1])
    with leaving_the_caller_s_state("evaluate strings"):
        scores = expost.evaluate(strings, samples=20)
    found["evaluate strings"] = hash_json([[score.name, score.of, score.value, score.error] for score in scores])
    given: Any = {"rounds": 1, "batch": 3, "decodes": 2, "inducing": 5, "region": "box"}
    with leaving_the_caller_s_state("optimize"):
        expost.optimize(strings, out=folder / "search", **given)
    found["optimize"] = hash_json(read_json(folder / "search" / "search.json"))
    found["optimize: tensors"] = hash_tensors(read_tensors(folder / "search" / TENSORS)[0])

    with leaving_the_caller_s_state("sweep"):
        swept = sweep(
            ("rae",), data, folder / "sweep", ("beta=0.01,0.1", "epochs=1", "limit=60", "width=8"),
            features="pixels", allow_few=True, measures=("frechet",),
        )  # fmt: skip
    found["sweep"] = hash_json(read_json(swept / "table.json"))
    return found


def named(name: str) -> str:
    """Return a file's name as the locale has it whose bytes are UTF-8."""
    return os.fsdecode(name.encode())


def folders(folder: Path, order: random.Random) -> dict[str, str]:
    """Read folders of files that were written in any order."""
    pictures = folder / "pictures"
    names = [
        f"{label}/{name}" for label in ("a", "b", "ü") for name in ("10", "9", "ä", "Z", "z", "中", "_0", "😀", "x y")
    ]
    for name in order.sample(names, len(names)):
        pixels = np.random.default_rng(list(name.encode())).integers(0, 256, (9, 9, 3), dtype=np.uint8)
        path = pictures / named(f"{name}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    arrays = folder / "arrays"
    arrays.mkdir()
    for name in order.sample(("b10", "b9", "ä", "Z", "c"), 5):
        noise = np.random.default_rng(list(name.encode()))
        np.save(arrays / named(f"{name}.npy"), noise.integers(0, 256, (4, 8, 8, 3), dtype=np.uint8))
    found = {}
    for path in (pictures, arrays):
        data = expost.load_data(str(path), size=8)
        for part in ("train", "validation", "test"):
            split = getattr(data, part)
            found[f"{path.name}: {part}"] = hash_tensors({"x": split.x} | ({} if split.y is None else {"y": split.y}))
    return found


def shuffled(order: random.Random) -> None:
    """Have the operating system list folders in any order from now on: nothing says in which it does."""
    listdir, scandir = os.listdir, os.scandir

    def listing(*args: Any) -> list[Any]:
        entries = listdir(*args)
        order.shuffle(entries)
        return entries

    class Scanning:
        def __init__(self, *args: Any) -> None:
            with scandir(*args) as entries:
                self.listed = list(entries)
            order.shuffle(self.listed)
            self.entries = iter(self.listed)

        def __enter__(self) -> Scanning:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def __iter__(self) -> Scanning:
            return self

        def __next__(self) -> os.DirEntry[Any]:
            return next(self.entries)

        def close(self) -> None:
            pass

    os.listdir, os.scandir = listing, Scanning  # type: ignore[assignment,misc]


def main() -> None:
    """Do it all."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("models", type=lambda text: [name for name in text.split(",") if name])
    parser.add_argument("--state", type=int, help="seed of the caller's own random numbers, and of the order of files")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--only-runs", action="store_true")
    given = parser.parse_args()
    order = random.Random(given.state)
    if given.threads:
        torch.set_num_threads(given.threads)
    if given.state is not None:
        random.seed(given.state)
        np.random.seed(given.state)  # noqa: NPY002
        torch.manual_seed(given.state)
        np.random.standard_normal()  # noqa: NPY002 leaves a half-used pair behind
        shuffled(order)
    found = runs(given.folder, given.models)
    if not given.only_runs:
        found |= commands(given.folder) | folders(given.folder, order)
    if FIRST:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
