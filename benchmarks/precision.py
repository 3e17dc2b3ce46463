"""Loss curves of the fast path (bf16 networks) against float32, over several seeds.

    python benchmarks/precision.py [--model rae-l2] [--seeds 3] [--epochs 8] [--width 16] [--out FILE.json]

Both sides of a seed begin with the same weights and see the same batches, on the bundled 5,000 digits. Printed are the
validation losses after each epoch: mean and standard deviation over seeds, the mean difference of a seed's two runs,
and that difference in standard deviations of float32's seeds. The last column must stay small.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path

from harness import hardware

import expost
from expost.utils.store import write_json


def curve(model: str, precision: str, seed: int, epochs: int, width: int, folder: Path) -> list[float]:
    """Return the validation losses of one run."""
    out = folder / f"{precision}-{seed}"
    expost.train(
        model, "mnist-5k", out, precision=precision, seed=seed, epochs=epochs, width=width, tensorboard=False
    )  # fmt: skip
    lines = (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["validation"]["total"] for line in lines]


def main() -> None:
    """Train, compare and print."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--model", default="rae-l2")
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--epochs", type=int, default=8)
    options.add_argument("--width", type=int, default=16)
    options.add_argument("--out", type=Path, default=None)
    arguments = options.parse_args()
    if arguments.seeds < 2:
        options.error("--seeds is below 2; a spread needs at least 2")
    with tempfile.TemporaryDirectory() as folder:
        sides = {
            precision: [
                curve(arguments.model, precision, seed, arguments.epochs, arguments.width, Path(folder))
                for seed in range(arguments.seeds)
            ]
            for precision in ("float32", "bf16")
        }
    print(f"{hardware()}; {arguments.model}, width {arguments.width}, {arguments.seeds} seeds, validation loss")
    print(f"{'epoch':>5}{'float32':>20}{'bf16':>20}{'bf16 - float32':>16}{'in deviations':>15}")
    rows = []
    for epoch in range(arguments.epochs):
        exact, fast = ([run[epoch] for run in sides[side]] for side in ("float32", "bf16"))
        spread = statistics.stdev(exact)
        gap = statistics.mean(b - a for a, b in zip(exact, fast, strict=True))
        rows.append({"epoch": epoch + 1, "float32": exact, "bf16": fast, "gap": gap, "deviations": gap / spread})
        shown = [f"{statistics.mean(side):.4g} ± {statistics.stdev(side):.2g}" for side in (exact, fast)]
        print(f"{epoch + 1:>5}{shown[0]:>20}{shown[1]:>20}{gap:>16.3g}{gap / spread:>15.2f}")
    if arguments.out is not None:
        record = {"model": arguments.model, "width": arguments.width, "hardware": hardware(), "epochs": rows}
        write_json(arguments.out, record)


if __name__ == "__main__":
    main()
