"""The paper's tables, one command each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro

from expost.errors import UsageError
from expost.experiments.table1 import reproduce_table1


def reproduce(
    experiment: Annotated[Literal["table1"], tyro.conf.Positional],
    dataset: str = "mnist",
    scale: str = "smoke",
    models: tuple[str, ...] = (),
    seeds: int = 1,
    features: str = "auto",
    out: Path | None = None,
    device: str = "auto",
    workers: int | None = None,
) -> Path:
    """Train and score the models of a table of the paper, on the same data, networks, budget and protocol.

    A cell that is finished is not done again; one that was interrupted goes on.

    Args:
        experiment: table1: reconstructions, own samples, ex-post samples and mid-points of every image model.
        dataset: A data set's name or path; the paper has mnist, cifar10 and celeba.
        scale: smoke (3 minutes on 2 cores), quick, small (about an hour on 2 cores), or paper (the paper's, for a GPU).
        models: Rows of the zoo; unless given, the paper's ten.
        seeds: Runs of each model, seeded 0, 1, ...
        features: inception-2048 (FID), inception-768 (FID-768), digits, pixels, or auto.
        out: The table's folder; runs/table1-DATASET-SCALE unless given.
        device: auto, cpu, cuda or mps.
        workers: Models trained side by side; unless given, one a CUDA device, or one a core.

    Returns:
        The folder, with table.json, table.md, figure.png and the runs.
    """
    if seeds < 1:
        raise UsageError(f"seeds is {seeds}; give at least 1")
    folder = out or Path("runs") / f"{experiment}-{Path(dataset).name}-{scale}"
    return reproduce_table1(dataset, scale, models, seeds, features, folder, device, workers)
