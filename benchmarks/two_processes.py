"""Measure two processes against one, one thread each: training, encoding, a mixture's fit, exchanges; model many GPUs.

    python benchmarks/two_processes.py [--width 32] [--images 400] [--repeats 3] [--plot FILE.png] [--json]

All sides run in turns in the same two processes: in one while the other waits; in both apart, each doing the whole
work, which is the upper bound of the machine; and in both together. On a busy machine processes wait for each other, so
the processor time of each is compared too. The table "model" is computed, not measured, from the constants below.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import torch
from harness import hardware, parser
from torch.utils.flop_counter import FlopCounterMode

import expost
from expost import distributed
from expost.densities import GaussianMixture
from expost.distributed.gradients import replicated
from expost.distributed.shards import Noise, split
from expost.generators.generator import Generator

#: Assumptions of the model. Dense bf16 matrix products of an H200 reach 790 TFLOP/s; convolutions of these sizes are
#: taken to reach a fifth of it. Links: what an all-reduce gets of NVLink within a machine of 8 GPUs, and of one network
#: card of 400 Gb/s a GPU between machines; and how long one hop of a small message takes.
FLOPS, SHARE = 790e12, 0.2
GPUS = 8
INSIDE, BETWEEN = 300e9, 40e9
HOP_INSIDE, HOP_BETWEEN = 4e-6, 8e-6
#: Seconds of a step that no GPU count changes: starting kernels, Adam over all weights.
FIXED = 1e-3
#: The paper's networks: shape and name.
NETWORKS = {"MNIST": (1, 32, 32), "CIFAR-10": (3, 32, 32), "CelebA": (3, 64, 64)}


def measure(width: int, images: int, repeats: int) -> dict[str, object]:
    """Measure, in both processes; the first returns the numbers."""
    x = torch.rand(images, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    config, _ = expost.configure("rae-l2", (1, 32, 32), "small", {"width": width}, {}, {})
    model = expost.build(config).train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    codes = torch.randn(20_000, 64, generator=torch.Generator().manual_seed(1)).double()
    codes += 3 * torch.randn(10, 64, generator=torch.Generator().manual_seed(2)).double().repeat(2000, 1)
    steps = 3

    def train() -> None:
        model.train()
        with replicated(model) as gradients:
            for number in range(steps):
                with split(100, Noise(number, torch.device("cpu"))) as part:
                    optimizer.zero_grad()
                    model.loss(x[:100][part.rows]).times(part.share).total.backward()
                    gradients.finish()
                optimizer.step()

    def encode() -> None:
        Generator.of(model).encode(x)

    def fit() -> None:
        GaussianMixture(components=10, max_iter=5, tol=0.0).fit(codes)

    found: dict[str, object] = {"parameters": sum(parameter.numel() for parameter in model.parameters())}
    work = [("training", train, 100 * steps), ("encoding", encode, images), ("mixture fit", fit, len(codes))]
    for name, action, count in work:
        (one, apart, two), (alone, _, each) = in_turns(action, repeats)
        found[name] = {"one": count / one, "apart": 2 * count / apart, "two": count / two, "work": alone / each}
    found["exchange"] = {str(8 * numbers): exchange(numbers) for numbers in (1, 1_000, 100_000, 1_000_000, 8_000_000)}
    return found


def in_turns(action: Callable[[], None], repeats: int) -> tuple[list[float], list[float]]:
    """Return the best seconds of one process alone, of two apart, each with all the work, and of two together.

    First by the clock, then of the first process's processor time.
    """
    best, spent = [math.inf] * 3, [math.inf] * 3
    for turn in range(repeats + 1):
        for side in range(3):
            with distributed.together():
                distributed.barrier()
            started, used = time.perf_counter(), time.process_time()
            if side or distributed.is_first():
                with distributed.together() if side == 2 else nullcontext():
                    action()
            used = time.process_time() - used
            with distributed.together():
                distributed.barrier()  # until the slower one is done
            if turn:
                spent[side] = min(spent[side], used)
                best[side] = min(best[side], time.perf_counter() - started)
    return best, spent


@distributed.together()
def exchange(numbers: int) -> float:
    """Return the median seconds of an all-reduce of so many float64 numbers."""
    x, times = torch.ones(numbers, dtype=torch.float64), []
    for _ in range(7 if numbers > 10_000 else 200):
        distributed.barrier()
        started = time.perf_counter()
        distributed.add_up(x)
        times.append(time.perf_counter() - started)
        x.fill_(1)
    return sorted(times)[len(times) // 2]


def network_costs() -> dict[str, dict[str, float]]:
    """Return, for the paper's networks, weights, floating-point operations an example, and batch norm's channels."""
    costs = {}
    for name, shape in NETWORKS.items():
        config, training = expost.configure("rae-l2", shape, "paper", {}, {}, {})
        model = expost.build(config).train()
        with FlopCounterMode(display=False) as counter:
            model.loss(torch.rand(2, *shape)).total.backward()
        norms = [layer.num_features for layer in model.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
        costs[name] = {
            "weights": sum(parameter.numel() for parameter in model.parameters()),
            "flops": counter.get_total_flops() / 2,
            "norms": len(norms),
            "channels": sum(norms),
            "batch": training.batch_size,
        }
    return costs


def all_reduce(size: float, processes: int) -> float:
    """Return the model's seconds of an all-reduce of `size` bytes: a ring for the bulk, a tree for the latency."""
    if processes == 1:
        return 0.0
    machines = max(1, processes // GPUS)
    here = min(processes, GPUS)
    seconds = 2 * (here - 1) / here * size / INSIDE + 2 * math.log2(here) * HOP_INSIDE
    if machines > 1:  # first inside, then each GPU with its counterparts: an eighth of the bytes
        seconds += 2 * (machines - 1) / machines * size / GPUS / BETWEEN + 2 * math.log2(machines) * HOP_BETWEEN
    return seconds


def step_seconds(cost: dict[str, float], processes: int, batch: float) -> tuple[float, float]:
    """Return the model's seconds of a step on a batch of all processes together, and how much of it is exchange."""
    compute = cost["flops"] * batch / processes / (FLOPS * SHARE)
    norms = 2 * cost["norms"] * all_reduce((2 * cost["channels"] / cost["norms"] + 1) * 8, processes)
    gradients = all_reduce(4 * cost["weights"], processes)
    exposed = max(0.0, gradients - 2 / 3 * compute * 0.8)  # the backward pass, but for its first bucket, hides it
    return FIXED + compute + norms + exposed, norms + exposed


def model_table(costs: dict[str, dict[str, float]]) -> list[dict[str, object]]:
    """Return rows of the model: networks by GPU counts, with the paper's batch in all, and with it on each GPU."""
    rows = []
    for name, cost in costs.items():
        for kind in ("batch of the paper", "that batch a GPU"):
            alone = step_seconds(cost, 1, cost["batch"])[0]
            for processes in (1, 8, 64, 1024):
                weak = kind != "batch of the paper"
                if not weak and processes > cost["batch"]:
                    continue
                batch = cost["batch"] * (processes if weak else 1)
                seconds, exchanged = step_seconds(cost, processes, batch)
                row: dict[str, object] = {"network": name, "kind": kind, "gpus": processes, "batch": int(batch)}
                row |= {"seconds": seconds, "exchange": exchanged, "speed": batch / seconds / (cost["batch"] / alone)}
                rows.append(row)
    return rows


def report(found: dict[str, object], rows: list[dict[str, object]], costs: dict[str, dict[str, float]]) -> None:
    """Print what was measured, and the model."""
    print(f"{hardware()}; torch {torch.__version__}; one thread per process\n\nmeasured")
    heads = f"{'to one':>8}{'to apart':>10}{'work of each':>14}"
    print(f"{'':14}{'one process':>14}{'two apart':>12}{'two together':>15}{heads}")
    for name in ("training", "encoding", "mixture fit"):
        one, apart, two, work = (found[name][side] for side in ("one", "apart", "two", "work"))
        ratios = f"{two / one:8.2f}{two / apart:10.2f}{1 / work:14.0%}"
        print(f"{name:14}{one:>12,.0f}/s{apart:>10,.0f}/s{two:>13,.0f}/s{ratios}")
    print("\nmeasured: an all-reduce between the two, by gloo")
    for size, seconds in found["exchange"].items():
        print(f"{int(size):>12,} bytes {1e6 * seconds:>10,.0f} us {int(size) / seconds / 1e9:8.2f} GB/s")
    print("\nthe paper's networks: weights, bytes of gradients a step, GFLOP an example, bytes of batch norm a step")
    for name, cost in costs.items():
        norms = 2 * 8 * (2 * cost["channels"] + cost["norms"])
        sizes = f"{cost['weights']:>12,.0f}{4 * cost['weights']:>14,.0f}{cost['flops'] / 1e9:8.2f}{norms:10,.0f}"
        print(f"{name:10}{sizes}")
    print("\nmodel (computed from the assumptions in this file, not measured)")
    print(f"{'':10}{'':20}{'GPUs':>6}{'batch':>9}{'ms a step':>11}{'exchange':>10}{'speed':>9}")
    for row in rows:
        times = f"{1e3 * row['seconds']:11.2f}{row['exchange'] / row['seconds']:10.0%}{row['speed']:8.1f}x"
        print(f"{row['network']:10}{row['kind']:20}{row['gpus']:>6}{row['batch']:>9,}{times}")


def plot(rows: list[dict[str, object]], path: Path) -> None:
    """Draw the model's speed by the number of GPUs."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    for color, name in (("#1f77b4", "MNIST"), ("#d95f02", "CelebA")):  # CIFAR-10 lies on MNIST
        for kind, style in (("that batch a GPU", "o-"), ("batch of the paper", "s--")):
            mine = [row for row in rows if (row["network"], row["kind"]) == (name, kind)]
            axes.plot(
                [r["gpus"] for r in mine], [r["speed"] for r in mine], style, color=color, label=f"{name}, {kind}"
            )
    axes.plot([1, 1024], [1, 1024], ":", color="gray", label="linear")
    axes.set(xscale="log", yscale="log", xlabel="GPUs", ylabel="examples a second, times one GPU")
    axes.set_xticks([1, 8, 64, 1024], ["1", "8", "64", "1,024"])
    axes.set_title("A model, not a measurement (assumptions: benchmarks/two_processes.py)", fontsize=10)
    axes.legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def main() -> None:
    """Start the two processes, and report; in one of them, measure."""
    options = parser(__doc__)
    options.add_argument("--width", type=int, default=32, help="channels of the first convolution")
    options.add_argument("--images", type=int, default=400)
    options.add_argument("--plot", type=Path)
    options.add_argument("--worker", type=Path, help="internal: output file of a started process")
    arguments = options.parse_args()
    if arguments.worker:
        torch.set_num_threads(1)
        found = measure(arguments.width, arguments.images, arguments.repeats)
        if distributed.is_first():
            arguments.worker.write_text(json.dumps(found))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "found.json"
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        given = ["--width", arguments.width, "--images", arguments.images, "--repeats", arguments.repeats]
        subprocess.run([*launcher, __file__, "--worker", str(path), *map(str, given)], check=True)
        found = json.loads(path.read_text())
    costs = network_costs()
    rows = model_table(costs)
    report(found, rows, costs)
    if arguments.plot:
        plot(rows, arguments.plot)
    if arguments.json:
        ratios = {name: found[name]["two"] / found[name]["one"] for name in ("training", "encoding", "mixture fit")}
        print(json.dumps({"ratios": ratios, "exchange": found["exchange"]}))


if __name__ == "__main__":
    main()
