"""Measure how time and memory grow with the number of images, their side, the code's dimension and the components.

    python benchmarks/growth.py [--quick] [--out FOLDER] [--json]

Each point is measured in a process of its own. Seconds are the best of some runs; memory is the peak of the resident
set above its size before the work, with the data loaded. Lines a + b log(size) are fitted to the logarithms of seconds
and of memory by least squares; the slope is the exponent, and its standard error comes from the residuals. The range
that the algorithm promises is printed beside it. If a slope exceeds it by more than two standard errors plus 0.15, the
exit status is 1. Writes `growth.json` and `growth.png`.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import math
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import joblib
import numpy as np

MEBIBYTE = 2**20
#: Less memory cannot be told from one-time allocations of libraries, and is counted as this much.
FLOOR = MEBIBYTE
#: Parameter of glibc's mallopt(3).
M_MMAP_THRESHOLD = -3
#: Runs of a point at most, and the seconds after which no further run begins.
RUNS, ENOUGH = 5, 3.0
#: Tolerance of a slope above the promised range, in addition to two standard errors.
MARGIN = 0.15


@dataclass(frozen=True)
class Sizes:
    """What a point is about.

    Attributes:
        images: Examples, samples or codes.
        side: Of the square images, in pixels.
        latent: Dimension of the code.
        components: Of the mixture.
    """

    images: int = 1000
    side: int = 32
    latent: int = 16
    components: int = 10


AXES = {"images": "images", "side": "image side", "latent": "latent dimension", "components": "mixture components"}


@dataclass(frozen=True)
class Series:
    """One curve: a piece of work along one axis.

    Attributes:
        work: Key of `WORKS`.
        axis: Key of `AXES`.
        values: Sizes along it.
        seconds: Lowest and highest exponent of time that the algorithm promises.
        memory: The same of memory beside the data.
        base: The other sizes.
        why: Where these come from.
    """

    work: str
    axis: str
    values: tuple[int, ...]
    seconds: tuple[float, float]
    memory: tuple[float, float]
    base: Sizes = field(default_factory=Sizes)
    why: str = ""


IMAGES = (1000, 2000, 4000, 8000, 16000)
SIDES = (32, 48, 64, 96, 128)
LATENTS = (16, 32, 64, 128)
COMPONENTS = (4, 8, 16, 32, 64)
CODES = (2000, 4000, 8000, 16000, 32000)
FEW, MANY = Sizes(images=500), Sizes(images=2000)
#: Of a decoder that begins at 8x8, each layer has twice the side and half the channels of the one before: equal work.
DEEPER = "pixels in the encoder and the last layer; one more layer of equal work in the decoder for twice the side"

SERIES = (
    Series("training", "images", IMAGES, (1, 1), (0, 0), why="steps; one batch in memory"),
    Series("training", "side", SIDES, (0.5, 2), (0.5, 2), FEW, DEEPER),
    Series("training", "latent", LATENTS, (0, 1), (0, 1), FEW, "two linear layers beside the convolutions"),
    Series("encoding", "images", CODES, (1, 1), (0, 1), why="batches; one in memory, and the codes"),
    Series("encoding", "side", SIDES, (2, 2), (2, 2), MANY, "pixels"),
    Series("encoding", "latent", LATENTS, (0, 1), (0, 1), MANY, "one linear layer beside the convolutions"),
    Series("mixture fit", "images", CODES, (1, 1), (0, 1), why="n d^2 K operations a step, n K responsibilities"),
    Series("mixture fit", "latent", LATENTS, (0.5, 2), (0, 2), Sizes(images=20000), "n (d + d^2) K, and K d^3"),
    Series("mixture fit", "components", COMPONENTS, (1, 1), (0, 1), Sizes(images=20000), "n d^2 K, and n K"),
    Series("sampling", "images", IMAGES, (1, 1), (0, 1), why="batches; the samples themselves"),
    Series("sampling", "side", SIDES, (0.5, 2), (0.5, 2), MANY, DEEPER),
    Series("sampling", "latent", LATENTS, (0, 1), (0, 1), MANY, "d^2 a code, beside the convolutions"),
    Series("sampling", "components", COMPONENTS, (0, 0.3), (0, 0.3), MANY, "one component is drawn a sample"),
    Series("Frechet distance", "images", CODES, (1, 1), (0, 0), why="features batch by batch, running moments"),
    Series("Frechet distance", "side", SIDES, (1, 2), (0, 2), Sizes(images=2000), "pixels, and D^3 of the features"),
)


def quick(series: Series) -> Series:
    """Return a series with the three smallest of smaller sizes, for a look at whether all of it runs."""
    shrink = {"images": 10, "side": 1, "latent": 2, "components": 2}[series.axis]
    base = Sizes(max(40, series.base.images // 10), 32, 8, 4)
    values = tuple(max(2, value // shrink) for value in series.values[:3])
    return Series(series.work, series.axis, values, series.seconds, series.memory, base, series.why)


# ------------------------------------------------------------------------------------------------- what is measured


def model_of(sizes: Sizes):
    """Return a convolutional RAE-L2 of a fixed small width, and how it is trained."""
    import torch

    from expost.models.autoencoder import build
    from expost.models.presets import configure

    config, training = configure(
        "rae-l2", (1, sizes.side, sizes.side), "small", {"latent_dim": sizes.latent, "width": 8, "network": "conv4"},
        {"epochs": 1, "batch_size": 50, "device": "cpu", "precision": "float32", "tensorboard": False},
    )  # fmt: skip
    torch.manual_seed(0)
    return build(config), training


def images_of(sizes: Sizes, n: int):
    """Return random images."""
    import torch

    source = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, 1, sizes.side, sizes.side), dtype=torch.uint8, generator=source)


def codes_of(sizes: Sizes, n: int):
    """Return codes of as many well-separated clusters as there are components, so that all fits take as many steps."""
    import torch

    source = torch.Generator().manual_seed(0)
    centers = 30 * torch.randn(sizes.components, sizes.latent, generator=source)
    return centers[torch.arange(n) % sizes.components] + torch.randn(n, sizes.latent, generator=source)


def training(sizes: Sizes) -> Callable[[int], object]:
    """One epoch, with a checkpoint at its end."""
    from expost.training.trainer import Training
    from expost.types import Data, Split

    model, config = model_of(sizes)
    x = images_of(sizes, sizes.images)

    def run(n: int) -> None:
        data = Data("random", Split(x[:n]), Split(x[:50]), Split(x[:50]))
        with tempfile.TemporaryDirectory() as folder:
            Training(model, data, config, Path(folder)).run()

    return run


def encoding(sizes: Sizes) -> Callable[[int], object]:
    """All codes."""
    from expost.generators.generator import Generator

    generator, x = Generator.of(model_of(sizes)[0]), images_of(sizes, sizes.images)
    return lambda n: generator.encode(x[:n])


def fitting(sizes: Sizes) -> Callable[[int], object]:
    """A mixture: k-means, and 20 steps of EM."""
    from expost.densities import make_density

    codes = codes_of(sizes, sizes.images)
    return lambda n: make_density("gmm", components=sizes.components, max_iter=20, tol=1e-300).fit(codes[:n])


def sampling(sizes: Sizes) -> Callable[[int], object]:
    """Codes from a mixture, decoded."""
    from expost.generators.generator import Generator

    generator = Generator.of(model_of(sizes)[0])
    generator.fit("gmm", codes=codes_of(sizes, 100 * sizes.components), components=sizes.components, max_iter=3)
    return lambda n: generator.sample(n, seed=0)


def distance(sizes: Sizes) -> Callable[[int], object]:
    """Moments of the pixel features of two sets, and the distance between them."""
    from expost.metrics import FEATURES, frechet_distance

    x, features = images_of(sizes, sizes.images), FEATURES["pixels"].load("cpu")

    def run(n: int) -> float:
        half = max(2, n // 2)
        return frechet_distance(*(features.statistics(part, 100) for part in (x[:half], x[half:n])))

    return run


WORKS: dict[str, Callable[[Sizes], Callable[[int], object]]] = {
    "training": training,
    "encoding": encoding,
    "mixture fit": fitting,
    "sampling": sampling,
    "Frechet distance": distance,
}


def resident(key: str) -> int:
    """Return VmRSS or VmHWM, its peak, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"no {key} in /proc/self/status; this benchmark needs Linux")


def measure(work: str, sizes: Sizes, threads: int, busy: bool, results: multiprocessing.SimpleQueue) -> None:
    """Do some work a few times, and report the best time; once more, and report how far memory rose."""
    import torch

    torch.set_num_threads(threads)
    clock = time.process_time if busy else time.perf_counter
    with Path(os.devnull).open("w") as sink, contextlib.redirect_stderr(sink):
        run = WORKS[work](sizes)
        run(min(sizes.images, 20 * sizes.components))  # what is done once is done
        seconds: list[float] = []
        while len(seconds) < RUNS and sum(seconds) < ENOUGH:
            begun = clock()
            run(sizes.images)
            seconds.append(clock() - begun)
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, 2**16)  # what is freed is given back at once, and so does not hide in the heap
        libc.malloc_trim(0)
        before = resident("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # begins a new VmHWM
        run(sizes.images)
        peak = resident("VmHWM") - before
    results.put((min(seconds), max(peak, FLOOR)))


# ---------------------------------------------------------------------------------------------------------- figures


@dataclass(frozen=True)
class Fit:
    """A power law.

    Attributes:
        exponent: Its exponent.
        error: Standard error of that; 0 for two points.
        scale: Value at size 1.
        expected: Range of the exponent that was promised.
        surprise: Whether it is above.
    """

    exponent: float
    error: float
    scale: float
    expected: tuple[float, float]
    surprise: bool


def power_law(sizes: tuple[int, ...], values: list[float], expected: tuple[float, float]) -> Fit:
    """Fit log(value) = log(scale) + exponent log(size) by least squares."""
    x, y = np.log(sizes), np.log(values)
    centered = x - x.mean()
    exponent = float(centered @ y / (centered @ centered))
    residuals = y - y.mean() - exponent * centered
    freedom = len(x) - 2
    error = math.sqrt(float(residuals @ residuals) / freedom / float(centered @ centered)) if freedom > 0 else 0.0
    high, slack = expected[1], 2 * error + MARGIN
    return Fit(exponent, error, math.exp(float(y.mean() - exponent * x.mean())), expected, exponent > high + slack)


def draw(records: list[dict], path: Path, hardware: str) -> None:
    """Draw a panel an axis, time above and memory below, with the fitted lines."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    colors = dict(zip(WORKS, ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#5b5b5b"), strict=True))
    markers = dict(zip(WORKS, "osD^v", strict=True))
    figure = Figure(figsize=(15, 10), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, len(AXES), sharey="row")
    for row, (what, label, unit) in enumerate((("seconds", "time, s", 1.0), ("memory", "peak memory, MiB", MEBIBYTE))):
        for column, (axis, title) in enumerate(AXES.items()):
            panel = panels[row, column]
            chosen = [record for record in records if record["axis"] == axis]
            for record in chosen:
                sizes, fit = np.array(record["values"], float), record[f"{what}_fit"]
                color = colors[record["work"]]
                panel.plot(sizes, np.array(record[what]) / unit, markers[record["work"]], color=color, markersize=6)
                line = fit["scale"] * sizes ** fit["exponent"] / unit
                exponent = f"{fit['exponent']:.2f} ± {fit['error']:.2f}".replace("-", "−")
                panel.plot(sizes, line, color=color, linewidth=1.4, label=f"{record['work']}: {exponent}")
            panel.set_xscale("log", base=2)
            panel.set_yscale("log")
            panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            ticks = sorted({value for record in chosen for value in record["values"]})
            panel.set_xticks(ticks, [f"{tick // 1000}k" if tick >= 1000 else str(tick) for tick in ticks])
            panel.minorticks_off()
            panel.grid(color="#e6e6e6", linewidth=0.8)
            panel.set_axisbelow(True)
            panel.spines[["top", "right"]].set_visible(False)
            panel.set_xlabel(title)
            if not chosen:
                continue
            panel.legend(
                title="exponent ± standard error", fontsize=9, title_fontsize=9, frameon=False, ncols=1,
                loc="upper center", bbox_to_anchor=(0.5, -0.16),
            )  # fmt: skip
            if not column:
                panel.set_ylabel(label)
    figure.suptitle(f"Growth of time and memory, with fitted power laws; {hardware}", fontsize=12)
    figure.savefig(path, dpi=90, metadata={"Software": None})


def main() -> int:
    """Measure, fit, print, write."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--quick", action="store_true", help="few and small sizes, to check that it runs")
    options.add_argument("--out", type=Path, default=Path(), help="folder for growth.json and growth.png")
    options.add_argument(
        "--only", nargs="+", choices=WORKS, default=list(WORKS), metavar="WORK", help="one of: " + ", ".join(WORKS)
    )
    options.add_argument("--threads", type=int, default=joblib.cpu_count())
    options.add_argument("--busy", action="store_true", help="measure processor time, on a busy machine")
    options.add_argument("--json", action="store_true", help="end with one line of JSON")
    arguments = options.parse_args()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "expost.run", "expost.metrics", "sklearn.cluster"])
    clock = ", processor's time" if arguments.busy else ""
    hardware = f"{joblib.cpu_count()} cores, threads: {arguments.threads}{clock}"
    print(f"{'':34}{'time exponent':>22}{'promised':>11}{'memory exponent':>22}{'promised':>11}")
    records = []
    chosen = [series for series in SERIES if series.work in arguments.only]
    for series in map(quick, chosen) if arguments.quick else chosen:
        seconds, memory = [], []
        for value in series.values:
            sizes = Sizes(**{**asdict(series.base), series.axis: value})
            results = context.SimpleQueue()
            process = context.Process(
                target=measure, args=(series.work, sizes, arguments.threads, arguments.busy, results)
            )
            process.start()
            process.join()
            if process.exitcode:
                raise SystemExit(f"{series.work} failed at {sizes}; see above")
            one, other = results.get()
            seconds.append(one)
            memory.append(float(other))
        fits = power_law(series.values, seconds, series.seconds), power_law(series.values, memory, series.memory)
        records.append(
            {"work": series.work, "axis": series.axis, "values": list(series.values), "base": asdict(series.base),
             "seconds": seconds, "memory": memory, "why": series.why,
             "seconds_fit": asdict(fits[0]), "memory_fit": asdict(fits[1])}
        )  # fmt: skip
        print(f"{series.work + ', ' + AXES[series.axis]:34}" + "".join(map(column, fits)), flush=True)
    arguments.out.mkdir(parents=True, exist_ok=True)
    draw(records, arguments.out / "growth.png", hardware)
    surprises = [
        f"{r['work']} by {r['axis']}" for r in records if r["seconds_fit"]["surprise"] or r["memory_fit"]["surprise"]
    ]
    report = {"hardware": hardware, "quick": arguments.quick, "surprises": surprises, "series": records}
    (arguments.out / "growth.json").write_text(json.dumps(report, indent=1) + "\n")
    print("surprises: " + (", ".join(surprises) or "none"))
    if arguments.json:
        print(json.dumps(report))
    return int(bool(surprises) and not arguments.quick)


def column(fit: Fit) -> str:
    """Return what is printed of a fit."""
    low, high = fit.expected
    promised = f"{low:g}" if low == high else f"{low:g} to {high:g}"
    return f"{fit.exponent:14.2f} ± {fit.error:.2f}{' !' if fit.surprise else '  '}{promised:>11}"


if __name__ == "__main__":
    sys.exit(main())
