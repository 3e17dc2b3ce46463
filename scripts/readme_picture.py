"""Draw the README's picture from the demo's run: `make demo && python scripts/readme_picture.py`."""

from __future__ import annotations

from pathlib import Path

import tyro

import expost


def main(run: Path = Path("runs/demo"), out: Path = Path("docs/images/demo.png")) -> None:
    """Write the picture."""
    expost.panel(run, out, densities=("gaussian", "gmm"), seed=1)


if __name__ == "__main__":
    tyro.cli(main)
