"""Grids of runs: the tables of the paper, and sweeps."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Unpack

import tyro

from expost.commands.groups import takes
from expost.errors import UsageError
from expost.experiments.engines import RESOURCES, ResourceOptions, Resources
from expost.experiments.sweep import sweep

__all__ = ["reproduce", "sweep"]


@takes(grid=RESOURCES)
def reproduce(
    experiment: Annotated[Literal["table1", "table2", "beyond", "sound"], tyro.conf.Positional],
    dataset: str | None = None,
    domain: Literal["expressions", "molecules"] | None = None,
    scale: str = "smoke",
    models: tuple[str, ...] = (),
    seeds: int | None = None,
    features: str | None = None,
    out: Path | None = None,
    columns: Annotated[tuple[str, ...], tyro.conf.arg(aliases=["--column"])] = (),
    **resources: Unpack[ResourceOptions],
) -> Path:
    """Train and score the models of a table under one protocol: of the paper, beyond it, or of sound.

    Give the same command again to go on: finished cells are kept, interrupted ones resume.

    Args:
        experiment: table1: reconstructions, own samples, ex-post samples and mid-points of every image model. table2:
            Bayesian optimisation in the latent spaces of grammar and character models. beyond: one autoencoder, and
            densities of its codes from N(0, I) to flow matching. sound: RAEs, VAE and VQ-VAE of recordings, at equal
            training time.
        dataset: A data set's name or path, in the paper mnist, cifar10 and celeba; default: mnist, for sound fsdd. Not
            for table2.
        domain: table2 only: expressions (default) or molecules.
        scale: smoke (3 minutes on 2 cores, sound 10), quick, small (about an hour on 2 cores, sound 90 minutes), or
            paper (the paper's, for a GPU).
        models: Rows of the table; default: the paper's ten for table1, the paper's four and ours for table2. For
            beyond one model; default: rae-l2.
        seeds: Runs of each model, seeded 0, 1, ...; default: 1, for beyond 3. Not for table2.
        features: table1 and beyond: inception-2048 (FID) or inception-768 (FID-768), the same in bf16
            (inception-2048-bf16, inception-768-bf16), dinov2, dinov2-s, dinov2-l, clip, clip-l-336, digits, pixels,
            onet, spoken-digits, or auto.
        out: The table's folder; default: runs/TABLE-DATASET-SCALE.
        columns: table1 only: compute these columns alone, of Rec, N, GMM and Interp; default: all.
        **resources: What the grid may use, for example `workers=2`: the keys of `ResourceOptions`.

    Returns:
        The folder, with table.json, table.md, table.csv, the runs, and figure.png of images; of sound also wav/.
    """
    from expost.experiments.beyond import reproduce_beyond
    from expost.experiments.sound import reproduce_sound
    from expost.experiments.table1 import reproduce_table1
    from expost.experiments.table2 import reproduce_table2

    given: dict[str, dict[str, object]] = {
        "table1": {"domain": domain},
        "table2": {"dataset": dataset, "seeds": seeds, "features": features, "columns": columns or None},
        "beyond": {"domain": domain, "columns": columns or None},
        "sound": {"domain": domain, "features": features, "columns": columns or None},
    }
    for name, value in given[experiment].items():
        if value is not None:
            raise UsageError(f"{name} is no option of {experiment}; leave it out")
    where = Resources(**resources)
    if experiment == "table2":
        kind = domain or "expressions"
        folder = out or Path("runs") / f"table2-{kind}-{scale}"
        return reproduce_table2(kind, scale, models, folder, where)
    usual = {"beyond": 3}.get(experiment, 1)
    count, data = usual if seeds is None else seeds, dataset or {"sound": "fsdd"}.get(experiment, "mnist")
    if count < 1:
        raise UsageError(f"seeds is {count}; give at least 1")
    if experiment == "beyond":
        if len(models) > 1:
            raise UsageError(f"models are {', '.join(models)}; beyond takes one, whose codes all densities share")
        folder = out or Path("runs") / f"beyond-{Path(data).name}-{scale}"
        return reproduce_beyond(data, scale, (models or ("rae-l2",))[0], count, features or "auto", folder, where)
    if experiment == "sound":
        folder = out or Path("runs") / f"sound-{Path(data).name}-{scale}"
        return reproduce_sound(data, scale, models, count, folder, where)
    folder = out or Path("runs") / f"table1-{Path(data).name}-{scale}"
    return reproduce_table1(data, scale, models, count, features or "auto", folder, where, columns=columns)
