"""Train, encode, fit, sample and score on a data set larger than the memory limit of the process.

    python benchmarks/large_data.py [--gigabytes 3] [--limit 1.5] [--kind npy|parquet|files] [--keep DIR] [--json]

Images are generated on disk. Then everything runs twice, each time in a process of its own with limited private memory
(RLIMIT_DATA: all writable memory that is not the mapping of a shared file, libraries included): once as expost does it,
with large data mapped, and once with $EXPOST_MEMORY so high that all of them are loaded, which must fail. Peaks are of
resident private memory (RssAnon) and of limited memory (VmData), sampled 50 times a second. They exclude the system's
page cache, which is free for other processes at any time.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

SIDE = 64
IMAGE = 3 * SIDE * SIDE


def generate(folder: Path, gigabytes: float, kind: str) -> Path:
    """Write random images of soft colored discs, a few thousand at a time, and return where."""
    count = max(100, int(gigabytes * 1e9) // IMAGE)
    random = np.random.default_rng(0)
    grid = np.arange(SIDE, dtype=np.float32)
    if kind == "npy":
        out = np.lib.format.open_memmap(folder / "images.npy", "w+", np.uint8, (count, 3, SIDE, SIDE))
    else:
        (folder / "images").mkdir()
    for start in range(0, count, 2000):
        n = min(2000, count - start)
        bounds = (8, 56), (8, 56), (4, 12)
        x, y, width = (random.uniform(low, high, (n, 1)).astype(np.float32) for low, high in bounds)
        rows, columns = (np.exp(-np.square((grid - at) / width)) for at in (y, x))
        discs = rows[:, None, :, None] * columns[:, None, None, :]
        tint = random.uniform(0.2, 1, (n, 3, 1, 1)).astype(np.float32)
        images = (255 * discs * tint).astype(np.uint8)
        images[:, :, 0, 0] = random.integers(0, 256, (n, 3))  # no two alike
        if kind == "npy":
            out[start : start + n] = images
        elif kind == "parquet":
            write_parquet(folder / "images" / f"{start:09d}.parquet", images)
        else:
            write_files(folder / "images", images, start)
    return folder / ("images.npy" if kind == "npy" else "images")


def encoded(image: np.ndarray) -> bytes:
    """Return an image as the bytes of a file that is as large as itself."""
    return f"P6 {SIDE} {SIDE} 255\n".encode() + image.transpose(1, 2, 0).tobytes()


def write_parquet(path: Path, images: np.ndarray) -> None:
    """Write images as `datasets` does."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"image": [{"bytes": encoded(image), "path": None} for image in images]}), path)


def write_files(folder: Path, images: np.ndarray, start: int) -> None:
    """Write images as files."""
    for index, image in enumerate(images, start):
        (folder / f"{index:09d}.ppm").write_bytes(encoded(image))


class Watch:
    """Samples what the process occupies, and keeps the peaks of each phase."""

    def __init__(self) -> None:
        self.peaks = {"RssAnon": 0, "VmData": 0}
        self.phases: dict[str, dict[str, float]] = {}
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            self.look()
            time.sleep(0.02)

    def look(self) -> None:
        """Sample once."""
        for line in Path("/proc/self/status").read_text().splitlines():
            name, _, rest = line.partition(":")
            if name in self.peaks:
                self.peaks[name] = max(self.peaks[name], int(rest.split()[0]) * 1024)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time the block, and note its peaks."""
        self.peaks = dict.fromkeys(self.peaks, 0)
        begun = time.perf_counter()
        yield
        self.look()
        self.phases[name] = {"seconds": time.perf_counter() - begun} | {k: v / 1e9 for k, v in self.peaks.items()}
        print(f"  {name}: {self.phases[name]}", file=sys.stderr, flush=True)


def work(data: Path, folder: Path, arguments: argparse.Namespace) -> dict[str, object]:
    """Do everything once, under the limit."""
    watch = Watch()
    if arguments.limit:
        resource.setrlimit(resource.RLIMIT_DATA, (int(arguments.limit * 1e9),) * 2)
    try:
        with watch.phase("import"):
            import datasets  # noqa: F401 (what the phases import when they need it counts as library)
            import pyarrow.parquet  # noqa: F401
            import scipy.stats  # noqa: F401
            import sklearn.cluster
            import sklearn.decomposition  # noqa: F401

            import expost
            import expost.commands.scoring
            import expost.commands.training
            import expost.run
            from expost.errors import DataError
        with watch.phase("load, and train"):
            run = expost.train(
                arguments.model, data, folder / "run", epochs=arguments.epochs, network=arguments.network,
                width=arguments.width, latent_dim=16, tensorboard=False, device="cpu",
            )  # fmt: skip
        with watch.phase("load again"):
            examples = run.data()
        with watch.phase("encode all, fit"):
            expost.fit(run, "gmm", components=10, device="cpu")
        with watch.phase("sample"):
            samples = np.load(expost.sample(run, n=1000, density="gmm", out=folder / "samples.npy", device="cpu"))
        with watch.phase("score"):
            scores = expost.evaluate(
                run, ("gmm",), tuple(arguments.measures), features="pixels", samples=arguments.samples, device="cpu",
            )  # fmt: skip
    except (DataError, MemoryError, OSError, RuntimeError) as error:  # the last of which torch raises
        traceback.print_exc()
        return {"failed": f"{type(error).__name__}: {error}"[:300], "phases": watch.phases}
    return {
        "images": len(examples.train),
        "note": examples.note,
        "samples": list(samples.shape),
        "scores": {f"{score.name} of {score.of}": score.value for score in scores},
        "phases": watch.phases,
    }


def main() -> None:
    """Generate, start both processes, print."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--gigabytes", type=float, default=3.0, help="size of the uint8 pixels, in 10^9 bytes")
    options.add_argument("--limit", type=float, default=1.5, help="limit of private memory, in 10^9 bytes; 0 for none")
    options.add_argument("--memory", default="", help="$EXPOST_MEMORY: larger data are mapped; default 512M")
    options.add_argument("--kind", choices=("npy", "parquet", "files"), default="npy", help="how images are stored")
    options.add_argument("--model", default="rae-l2")
    options.add_argument("--network", default="mlp")
    options.add_argument("--width", type=int, default=32)
    options.add_argument("--epochs", type=int, default=1)
    options.add_argument("--samples", type=int, default=200, help="samples to score, more than 192")
    options.add_argument("--measures", nargs="+", default=["frechet", "latent", "memorization"])
    options.add_argument("--keep", type=Path, help="folder for everything; default: a temporary one")
    options.add_argument("--json", action="store_true", help="end with one line of JSON")
    options.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    arguments = options.parse_args()
    if arguments.work:
        print(json.dumps(work(arguments.work, Path(os.environ["LARGE_DATA_FOLDER"]), arguments)))
        return
    folder = arguments.keep or Path(tempfile.mkdtemp(prefix="large-data-"))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        begun = time.perf_counter()
        data = generate(folder, arguments.gigabytes, arguments.kind)
        print(f"generated {arguments.gigabytes:g} GB as {arguments.kind} in {time.perf_counter() - begun:.0f} s")
        results = {}
        for way, memory in (("mapped", arguments.memory), ("in memory", "1T")):
            place = folder / way.replace(" ", "-")
            place.mkdir()
            # the allocator that Arrow brings reserves 1 GiB at once, which this limit counts as though it were used
            environment = os.environ | {"ARROW_DEFAULT_MEMORY_POOL": "system"} | {
                "EXPOST_MEMORY": memory, "XDG_CACHE_HOME": str(place / "cache"), "LARGE_DATA_FOLDER": str(place)
            }  # fmt: skip
            done = subprocess.run(
                [sys.executable, __file__, *sys.argv[1:], "--work", str(data)],
                env=environment, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            answer = done.stdout.strip().splitlines()
            results[way] = json.loads(answer[-1]) if answer else {"failed": f"exit status {done.returncode}"}
            shutil.rmtree(place)
            report(way, results[way], arguments)
    finally:
        if not arguments.keep:
            shutil.rmtree(folder)
    if arguments.json:
        print(json.dumps(results))


def report(way: str, result: dict, arguments: argparse.Namespace) -> None:
    """Print one way's figures."""
    print(f"\n{way}, limit {arguments.limit:g} GB" if arguments.limit else f"\n{way}, no limit")
    for name, phase in result.get("phases", {}).items():
        print(
            f"  {name:18}{phase['seconds']:8.1f} s   peak private memory {phase['RssAnon']:.2f} GB resident, "
            f"{phase['VmData']:.2f} GB reserved"
        )
    if "failed" in result:
        print(f"  failed: {result['failed']}")
        return
    print(f"  {result['images']:,} training images; {result['note']}")
    print("  " + ", ".join(f"{name} {value:.4g}" for name, value in result["scores"].items()), flush=True)


if __name__ == "__main__":
    main()
