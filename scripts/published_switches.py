"""Which difference between the published objective on strings and the bound makes the codes speak: an ablation.

Trains a model at preset `published` with one switch at a time set as in preset `paper`, searches each run as the
published script does, and prints a Markdown table: what the codes say, and the scores of the points found.

python scripts/published_switches.py --model gvae --seeds 3
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tyro

import expost
from expost.experiments.cells import refuse_another, train_or_go_on
from expost.experiments.code_use import code_use
from expost.experiments.table2 import PUBLISHED
from expost.search import aggregate_corrected, aggregate_original
from expost.search.aggregate import Estimate

#: Name of the row, and what it sets as in preset `paper`: options of `train`.
SWITCHES: Mapping[str, Mapping[str, Any]] = {
    "published": {},
    "cross-entropy of the true symbol alone": {"reconstruction": "masked-categorical"},
    "noise of a code 1, not 0.01": {"options": {"latent.noise_scale": 1.0}},
    "log-variance 5 tanh, not linear": {"options": {"latent.bound": 5.0}},
    "beta 1, not V/d": {"beta": 1.0},
    "all four": {
        "reconstruction": "masked-categorical",
        "options": {"latent.noise_scale": 1.0, "latent.bound": 5.0},
        "beta": 1.0,
    },
}
HEADINGS = ("as published but for", "use of codes", "KL", "mode", "surrogate", "valid", "corrected", "original")


def with_error(estimate: Estimate) -> str:
    """Return a mean and its standard error over searches."""
    return f"{estimate.mean:.2f}" + ("" if estimate.error is None else f" ± {estimate.error:.2f}")


def main(
    model: str = "gvae",
    data: str = "expressions",
    seeds: int = 3,
    out: Path = Path("runs/published-switches"),
    switches: tuple[str, ...] = tuple(SWITCHES),
    epochs: int | None = None,
    limit: int | None = None,
    inducing: int = 500,
) -> None:
    """Train and search every row; print the table as it stands after each.

    Args:
        model: Row of the zoo, with a latent and a term that every switch has.
        data: Domain of Table 2.
        seeds: Searches of a row.
        out: Folder of runs and searches; finished ones are kept.
        switches: Rows; default: all.
        epochs: Epochs; default: the preset's.
        limit: Largest number of strings of each split; default: all.
        inducing: Inducing points of the search.
    """
    published = PUBLISHED[data]
    for name in switches:
        folder = out / "runs" / f"{model}-{list(SWITCHES).index(name)}"
        job = {"epochs": epochs, "limit": limit, "preset": "published", **SWITCHES[name]}
        refuse_another(model, published.data, folder, job)
        run = train_or_go_on(model, published.data, folder, job, "cpu", out / "hardware" / f"{folder.name}.json")
        use = code_use(run, published.objective, inducing, "cpu")
        found = [
            expost.optimize(
                folder,
                options=published.options,
                region="box",
                inducing=inducing,
                out=out / "searches" / f"{folder.name}-{seed}",
                seed=seed,
                device="cpu",
            )
            for seed in range(seeds)
        ]
        corrected, original = aggregate_corrected(found), aggregate_original(found, published.cutoff)
        cells = [
            name,
            f"{use.use:.2f}",
            "-" if use.kl is None else f"{use.kl:.2g}",
            f"{use.mode:.2f}",
            f"{use.surrogate:.2f}",
            f"{corrected.valid.mean:.3f}",
            with_error(corrected.score),
            with_error(original.score),
        ]
        if name == switches[0]:
            print(f"| {' | '.join(HEADINGS)} |\n{'|---' * len(HEADINGS)}|", flush=True)
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
