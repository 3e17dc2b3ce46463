"""How likely held-out codes of trained runs are under each density: python benchmarks/held_out.py RUN ...

Densities are fitted with their defaults on the codes of the training part; those of the validation and test parts are
held out, at most 3,000 of them. Prints nats a code with standard errors, and seconds on one thread.
"""

from __future__ import annotations

import sys
import time

import torch

from expost.densities import TractableDensity, make_density
from expost.metrics.latent import held_out_log_likelihood
from expost.run import Run

DENSITIES = ("gaussian", "gmm", "flow", "flow-matching")
HELD_OUT = 3_000


def main(*folders: str) -> None:
    """Fit and compare."""
    torch.set_num_threads(1)
    for folder in folders:
        run = Run.open(folder)
        generator, data = run.generator("cpu"), run.data()
        codes = generator.encode(data.train.x)
        held_out = torch.cat([generator.encode(part.x) for part in (data.validation, data.test)])[:HELD_OUT]
        print(f"{folder}: {len(codes):,} codes of {codes.shape[1]} dimensions, {len(held_out):,} held out")
        for name in DENSITIES:
            begun = time.perf_counter()
            density = make_density(name).fit(codes)
            fitted = time.perf_counter()
            assert isinstance(density, TractableDensity)
            found = held_out_log_likelihood(density, held_out)
            seconds = fitted - begun, time.perf_counter() - fitted
            print(
                f"  {name:14s} {found.mean:9.2f} ± {found.standard_error:.2f}   {seconds[0]:.1f} s, {seconds[1]:.1f} s"
            )


if __name__ == "__main__":
    main(*sys.argv[1:])
