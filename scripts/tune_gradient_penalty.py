"""Choose the gradient penalty's weight: train RAE-GP at several weights, score each on the validation split.

python scripts/tune_gradient_penalty.py --data mnist-5k --features digits --epochs 15
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import tyro

import expost
from expost.evaluation import evaluate_generator, pick_features


def main(
    data: str = "mnist-5k",
    features: str = "digits",
    weights: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 1e-1),
    epochs: int = 15,
    limit: int | None = None,
    width: int | None = None,
    out: Path = Path("runs/tune-gp"),
    seed: int = 0,
) -> None:
    """Print a Markdown table: a row a weight, Frechet distances against the validation split."""
    print("| weight | Rec | N | GMM | Interp | MSE |\n|---|---|---|---|---|---|", flush=True)
    for weight in weights:
        folder = out / f"{weight:g}"
        done = (folder / "config.json").exists()
        run = expost.train(
            "rae-gp",
            data,
            folder,
            epochs=epochs,
            limit=limit,
            width=width,
            regularizer_weight=weight,
            seed=seed,
            resume=done,
        )
        examples = run.data()
        held_out = replace(examples, test=examples.validation)
        generator = run.generator()
        codes = generator.encode(examples.train.x)
        for density in ("gaussian", "gmm"):
            generator.fit(density, codes=codes)
        scores = evaluate_generator(
            generator, held_out, pick_features(features, held_out), ("gaussian", "gmm"), seed=seed
        )
        shown = [f"{score.value:.4g}" for score in scores if score.card.features != "none" or score.name == "mse"]
        print(f"| {weight:g} | {' | '.join(shown)} |", flush=True)


if __name__ == "__main__":
    tyro.cli(main)
