"""Draw the README's picture from the demo's run: `make demo && python scripts/readme_picture.py`."""

from __future__ import annotations

from pathlib import Path

import torch
import tyro

from expost.examples.pictures import grid, pairs, panel, save_picture, to_bytes
from expost.run import Run


def main(run: Path = Path("runs/demo"), out: Path = Path("docs/images/demo.png")) -> None:
    """Write the picture."""
    opened = Run.open(run)
    generator, x = opened.generator(), opened.data().test.x
    paths = generator.interpolate(x[40:46], x[46:52], torch.linspace(0, 1, 8))
    sections = [
        ("digits and their reconstructions", pairs(x[:24], to_bytes(generator.reconstruct(x[:24])), 8)),
        ("paths between two codes", grid(paths.flatten(0, 1), 8)),
        ("samples: one Gaussian", grid(generator.sample(48, "gaussian", seed=1), 8)),
        ("samples: a mixture of ten", grid(generator.sample(48, "gmm", seed=1), 8)),
    ]
    save_picture(panel(sections), out)


if __name__ == "__main__":
    tyro.cli(main)
