"""The paper's tables, one command each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro

from expost.errors import UsageError
from expost.experiments.table1 import reproduce_table1
from expost.experiments.table2 import reproduce_table2


def reproduce(
    experiment: Annotated[Literal["table1", "table2"], tyro.conf.Positional],
    dataset: str = "mnist",
    domain: Literal["expressions", "molecules"] = "expressions",
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
        experiment: table1: reconstructions, own samples, ex-post samples and mid-points of every image model. table2:
            Bayesian optimisation in the latent spaces of grammar and character models.
        dataset: Of table1: a data set's name or path; the paper has mnist, cifar10 and celeba.
        domain: Of table2: expressions or molecules.
        scale: smoke (3 minutes on 2 cores), quick, small (about an hour on 2 cores), or paper (the paper's, for a GPU).
        models: Rows; unless given, the paper's ten of table1, or the paper's four and ours of table2.
        seeds: Of table1: runs of each model, seeded 0, 1, ...
        features: Of table1: inception-2048 (FID), inception-768 (FID-768), digits, pixels, or auto.
        out: The table's folder; runs/TABLE-DATASET-SCALE unless given.
        device: auto, cpu, cuda or mps.
        workers: Models trained side by side; unless given, one a CUDA device, or one a core.

    Returns:
        The folder, with table.json, table.md, the runs, and figure.png of images.
    """
    if seeds < 1:
        raise UsageError(f"seeds is {seeds}; give at least 1")
    folder = out or Path("runs") / f"{experiment}-{domain if experiment == 'table2' else Path(dataset).name}-{scale}"
    if experiment == "table2":
        return reproduce_table2(domain, scale, models, folder, device, workers)
    return reproduce_table1(dataset, scale, models, seeds, features, folder, device, workers)
