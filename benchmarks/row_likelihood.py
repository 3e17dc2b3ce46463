"""How far the estimate of a row's log-likelihood is from one with many more draws, on three of scikit-learn's tables.

python benchmarks/row_likelihood.py
"""

from __future__ import annotations

import time

import numpy as np
import torch
import tyro
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine

from expost.estimators import RegularizedAutoencoder

TABLES = {"wine": load_wine, "breast cancer": load_breast_cancer, "diabetes": load_diabetes}


def main(draws: tuple[int, ...] = (64, 1024), reference: int = 65_536, seed: int = 0) -> None:
    """Print a Markdown table: mean and largest distance in nats from the reference, and seconds.

    Args:
        draws: Draws of a row at first; loose rows take more.
        reference: Draws that the others are compared with.
        seed: Of training and draws.
    """
    torch.set_num_threads(1)
    print("| table | draws | mean distance, nats | largest | seconds |\n|---|---|---|---|---|")
    for name, load in TABLES.items():
        rows = load().data
        model = RegularizedAutoencoder(random_state=seed).fit(rows)
        best = model.set_params(draws=reference).score_samples(rows)
        for count in draws:
            started = time.perf_counter()
            found = np.abs(model.set_params(draws=count).score_samples(rows) - best)
            print(
                f"| {name} | {count} | {found.mean():.3f} | {found.max():.2f} | {time.perf_counter() - started:.2f} |"
            )


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
