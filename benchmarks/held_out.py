"""Held-out log-likelihood of densities on the codes of trained runs, and what each costs.

python benchmarks/held_out.py RUN ... [--densities gaussian gmm flow flow-matching] [--held-out 1000] [--seeds 1]

For every run: densities are fitted on the codes of the training split, the first with their defaults, and evaluated on
codes of the test split (as many as --held-out, after them those of the validation split). `ahead` is the paired
difference from the density above, in nats a code, with its standard error. Seconds are of processor time (all
threads), of the fit and of 10,000 samples; set OMP_NUM_THREADS. With more seeds the likelihood is the mean over them,
and `spread` their standard deviation.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from expost.densities import TractableDensity, make_density
from expost.run import Run

#: Samples whose drawing is timed.
DRAWN = 10_000


def codes_of(folder: Path, held_out: int) -> tuple[Tensor, Tensor]:
    """Return codes of the training split, and those to evaluate on."""
    run = Run.open(folder)
    generator, data = run.generator("cpu"), run.data()
    test = torch.cat([generator.encode(data.test.x[:held_out]), generator.encode(data.validation.x[:held_out])])
    return generator.encode(data.train.x), test[:held_out]


def timed(work: Callable[[], object]) -> float:
    """Return the seconds of processor time that work takes."""
    start = time.process_time()
    work()
    return time.process_time() - start


def contest(name: str, z: Tensor, test: Tensor, seeds: int) -> tuple[Tensor, float, float, float]:
    """Fit a density with every seed; return its mean log q at each test code, their spread, seconds to fit and draw."""
    logs, fit, draw = [], 0.0, 0.0
    for seed in range(seeds):
        fresh = make_density(name)
        density = make_density(name, seed=seed) if "seed" in fresh.options else fresh
        assert isinstance(density, TractableDensity)
        fit += timed(lambda density=density: density.fit(z)) / seeds  # type: ignore[misc]
        draw += timed(lambda density=density: density.sample(DRAWN)) / seeds  # type: ignore[misc]
        logs.append(density.log_prob(test))
    each = torch.stack(logs)
    return each.mean(0), float(each.mean(1).std()) if seeds > 1 else 0.0, fit, draw


def main() -> None:
    """Print a table for every run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--densities", nargs="+", default=["gaussian", "gmm", "flow", "flow-matching"])
    parser.add_argument("--held-out", type=int, default=1_000)
    parser.add_argument("--seeds", type=int, default=1)
    given = parser.parse_args()
    for folder in given.runs:
        z, test = codes_of(folder, given.held_out)
        print(f"{folder}: {len(z):,} codes of {z.shape[1]} dimensions, {len(test):,} held out, nats a code")
        print(f"  {'density':<16}{'log q':>10}{'spread':>9}{'ahead':>18}{'fit, s':>10}{'10,000 samples, s':>20}")
        above: Tensor | None = None
        for name in given.densities:
            logs, spread, fit, draw = contest(name, z, test, given.seeds)
            ahead = ""
            if above is not None:
                difference = logs - above
                ahead = f"{difference.mean():.2f} ± {difference.std() / len(test) ** 0.5:.2f}"
            print(f"  {name:<16}{logs.mean():>10.2f}{spread:>9.2f}{ahead:>18}{fit:>10.1f}{draw:>20.1f}", flush=True)
            above = logs


if __name__ == "__main__":
    main()
