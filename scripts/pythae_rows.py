"""Add rows of Pythae's RAE-L2 and RAE-GP to a table: same networks, data, epochs, batches and scores.

    python scripts/pythae_rows.py runs/table1-mnist-small --seeds 3

Encoder and decoder are expost's modules, with the same initialisation and the same weights of the objective (Pythae's
has the same form). Training and sampler are Pythae's: RAE-L2 uses its CoupledOptimizerTrainer with decoder weight
decay, RAE-GP its BaseTrainer with its default penalty weight (its penalty is another quantity), samples its
GaussianMixtureSampler, with 1 component in column N and 10 in column GMM. The table must have a row rae-l2.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
import tyro
from torch import nn

from expost.config import to_json
from expost.evaluation.evaluate import score_examples
from expost.evaluation.protocol import Protocol, chosen_examples, pick_space
from expost.experiments.table1_report import as_csv, markdown
from expost.metrics import mse
from expost.models.autoencoder import build
from expost.run import Run
from expost.types import to_unit
from expost.utils.seeding import PAIRS, WEIGHTS, generator, isolated, stream_seed
from expost.utils.store import read_json, write_json, write_text

MEASURES = ("frechet", "kid", "prd", "neighbours")


def make_model(kind: str, run: Run, seed: int) -> nn.Module:
    """Return Pythae's model around expost's networks, initialised as expost initialises them."""
    from pythae.models import RAE_GP, RAE_L2, RAE_GP_Config, RAE_L2_Config
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder

    config = run.config.model
    with isolated():
        torch.manual_seed(stream_seed(seed, WEIGHTS))
        ours = build(config)

    class Encoder(BaseEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.network, self.head = ours.encoder, ours.latent

        def forward(self, x: torch.Tensor) -> ModelOutput:
            return ModelOutput(embedding=self.head(self.network(x).flatten(1), False).mean)

    class Decoder(BaseDecoder):
        def __init__(self) -> None:
            super().__init__()
            self.network = ours.decoder

        def forward(self, z: torch.Tensor) -> ModelOutput:
            return ModelOutput(reconstruction=self.network(z))

    common = {"input_dim": config.shape, "latent_dim": config.latent_dim, "embedding_weight": config.beta}
    if kind == "rae-l2":
        settings = RAE_L2_Config(**common, reg_weight=config.regularizer_weight)
        return RAE_L2(settings, encoder=Encoder(), decoder=Decoder())
    return RAE_GP(RAE_GP_Config(**common), encoder=Encoder(), decoder=Decoder())


def train(kind: str, run: Run, seed: int, epochs: int, folder: str) -> tuple[nn.Module, float]:
    """Train by Pythae's pipeline; return the model with the best validation loss, and the seconds."""
    from pythae.pipelines import TrainingPipeline
    from pythae.trainers import BaseTrainerConfig, CoupledOptimizerTrainerConfig

    data, training = run.data(), run.config.training
    common = {
        "output_dir": folder, "num_epochs": epochs, "per_device_train_batch_size": training.batch_size,
        "per_device_eval_batch_size": training.batch_size, "learning_rate": training.lr, "seed": seed,
    }  # fmt: skip
    if kind == "rae-l2":
        # Adam's weight decay adds w theta to the gradient, which is that of w / 2 theta^2
        decay = {"weight_decay": 2 * run.config.model.regularizer_weight}
        settings = CoupledOptimizerTrainerConfig(
            **common, encoder_optimizer_cls="Adam", decoder_optimizer_cls="Adam", decoder_optimizer_params=decay
        )
    else:
        settings = BaseTrainerConfig(**common, optimizer_cls="Adam")
    model = make_model(kind, run, seed)
    started = time.perf_counter()
    TrainingPipeline(training_config=settings, model=model)(
        train_data=to_unit(data.train.x), eval_data=to_unit(data.validation.x)
    )
    return model.eval(), time.perf_counter() - started


def cells(model: nn.Module, run: Run, features: str, count: int, seed: int) -> list[dict]:
    """Score as the table does."""
    from pythae.samplers import GaussianMixtureSampler, GaussianMixtureSamplerConfig

    data = run.data()
    space, protocol = pick_space(features, data), Protocol(MEASURES, seed=seed)
    train, x = to_unit(data.train.x), to_unit(chosen_examples(data.test.x, Protocol(samples=count, seed=seed)))
    with torch.no_grad():
        codes = torch.cat([model.encoder(part).embedding for part in x.split(500)])
        shuffled = codes[torch.randperm(len(codes), generator=generator(seed, PAIRS))]
        middle = (shuffled + shuffled.roll(1, 0)) / 2
        made = {
            "reconstruction": torch.cat([model.decoder(z)["reconstruction"] for z in codes.split(500)]),
            "interpolation": torch.cat([model.decoder(z)["reconstruction"] for z in middle.split(500)]),
        }
    for name, components in (("gaussian", 1), ("gmm", 10)):
        torch.manual_seed(seed)
        sampler = GaussianMixtureSampler(model, GaussianMixtureSamplerConfig(n_components=components))
        sampler.fit(train)
        made[name] = sampler.sample(num_samples=count, batch_size=500).cpu()
    scores = []
    for subject, examples in made.items():
        density = {"name": "pythae GaussianMixtureSampler"} if subject in ("gaussian", "gmm") else {}
        for score in score_examples(examples, data.test.x, space, protocol, f"{data.name} test"):
            scores.append(replace(score, of=subject, card=replace(score.card, density=density)))
    errors = torch.cat([mse(a, b) for a, b in zip(x.split(500), made["reconstruction"].split(500), strict=True)])
    pixels = replace(scores[0].card, features="none", weights="", preprocessing={"range": "[0, 1]"})
    scores.append(replace(scores[0], name="mse", of="reconstruction", value=errors.mean().item(), card=pixels))
    return [to_json(score) for score in scores]


def main(
    table: tyro.conf.Positional[Path],
    models: tuple[Literal["rae-l2", "rae-gp"], ...] = ("rae-l2", "rae-gp"),
    seeds: int = 1,
    epochs: int | None = None,
) -> None:
    """Add the rows to a table; seeds that are there already are skipped.

    Args:
        table: The table's folder.
        models: Models of Pythae.
        seeds: Number of seeds: 0, 1, ...
        epochs: Epochs, if not the table's: for a comparison at equal time, in a row of its own.
    """
    warnings.filterwarnings("ignore")  # Pythae's dependencies warn a lot
    record = read_json(table / "table.json")
    run = Run.open(table / "runs" / "rae-l2-0")
    features = record["rows"]["rae-l2"]["cells"][0]["scores"][0]["card"]["features"]
    features += "-bf16" if "-bf16" in record["command"] else ""
    count = record["scale"]["samples"] or min(len(run.data().test), 10_000)
    for kind in models:
        name = f"pythae-{kind}" + (f"-{epochs}-epochs" if epochs else "")
        path = table / "peers" / f"{name}.json"
        row = read_json(path) if path.exists() else {"prior": "gaussian", "cells": []}
        for seed in range(len(row["cells"]), seeds):
            with (
                tempfile.TemporaryDirectory() as folder,
                open(os.devnull, "w") as quiet,
                contextlib.redirect_stdout(quiet),
            ):
                model, seconds = train(kind, run, seed, epochs or run.config.training.epochs, folder)
            print(f"{name}, seed {seed}: trained in {seconds:.0f} s", file=sys.stderr)
            scores = cells(model, run, features, count, seed)
            row["cells"].append({"training seconds": round(seconds, 1), "scores": scores})
            write_json(path, row)
    record["peers"] = {path.stem: read_json(path) for path in sorted((table / "peers").glob("*.json"))}
    write_json(table / "table.json", record)
    write_text(table / "table.md", markdown(record))
    write_text(table / "table.csv", as_csv(record))


if __name__ == "__main__":
    tyro.cli(main)
