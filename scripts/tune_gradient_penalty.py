"""Choose the gradient penalty's weight: train RAE-GP at several weights, score each on the validation split.

python scripts/tune_gradient_penalty.py --data mnist-5k --features digits --epochs 15
python scripts/tune_gradient_penalty.py --weights 1e-3 --fractions 1 0.25 --seeds 3 --epochs 8 --width 16
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import tyro

import expost
from expost.evaluation.evaluate import evaluate_generator
from expost.evaluation.protocol import INTERPOLATION, RECONSTRUCTION, Protocol, pick_space
from expost.experiments.hardware import training_seconds

SUBJECTS = (RECONSTRUCTION, "gaussian", "gmm", INTERPOLATION)


def scores_of(run: expost.Run, features: str, seed: int) -> list[float]:
    """Return the four distances against the validation split, the pixel error, and the seconds of training."""
    examples = run.data()
    held_out = replace(examples, test=examples.validation)
    generator = run.generator()
    codes = generator.encode(examples.train.x)
    for density in ("gaussian", "gmm"):
        generator.fit(density, codes=codes)
    protocol = Protocol(("frechet",), seed=seed)
    found = evaluate_generator(generator, held_out, pick_space(features, held_out), SUBJECTS, protocol)
    distances = [s.value for subject in SUBJECTS for s in found if s.of == subject and s.card.features != "none"]
    return [*distances, next(s.value for s in found if s.name == "mse"), training_seconds(run.folder)]


def main(
    data: str = "mnist-5k",
    features: str = "digits",
    weights: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 1e-1),
    fractions: tuple[float, ...] = (1.0,),
    epochs: int = 15,
    limit: int | None = None,
    width: int | None = None,
    out: Path = Path("runs/tune-gp"),
    seeds: int = 1,
) -> None:
    """Print a Markdown table of Frechet distances against the validation split, a row for each weight and fraction."""
    print("| weight | fraction | Rec | N | GMM | Interp | MSE | training, s |\n|---|---|---|---|---|---|---|---|")
    for weight, fraction in [(w, f) for w in weights for f in fractions]:
        rows = []
        for seed in range(seeds):
            folder = out / f"{weight:g}-{fraction:g}-{seed}"
            options = {"regularizer.fraction": fraction}
            resume = (folder / "config.json").exists()
            run = expost.train(
                "rae-gp", data, folder, epochs=epochs, limit=limit, width=width, regularizer_weight=weight, seed=seed,
                options=options, resume=resume,
            )  # fmt: skip
            rows.append(scores_of(run, features, seed))
        means, spread = np.mean(rows, axis=0), np.std(rows, axis=0, ddof=1) if seeds > 1 else None
        shown = [f"{m:.4g}" + ("" if spread is None else f" ± {spread[i]:.2g}") for i, m in enumerate(means)]
        print(f"| {weight:g} | {fraction:g} | {' | '.join(shown)} |", flush=True)


if __name__ == "__main__":
    tyro.cli(main)
