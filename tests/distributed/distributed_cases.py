"""What `test_distributed.py` has done by one process and by two: python distributed_cases.py FOLDER."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

import expost
from expost import distributed
from expost.densities import make_density
from expost.distributed import launch
from expost.distributed.gradients import replicated
from expost.distributed.shards import Noise, split
from expost.errors import DataError, UsageError
from expost.metrics import FEATURES
from expost.metrics.frechet import frechet_distance
from expost.models.regularizers import GradientPenalty
from expost.types import LatentCode, to_unit
from expost.utils.store import write_json, write_tensors

DIGITS = {"data": "digits", "limit": 150, "width": 32, "batch_size": 33, "epochs": 2}
IMAGES = {"data": "mnist-5k", "limit": 60, "width": 2, "latent_dim": 4, "batch_size": 21, "epochs": 2}
#: Runs by name: the model, and options. Batches of odd sizes are split unevenly.
RUNS = {
    "rae-l2": ("rae-l2", DIGITS),
    "rae-gp": ("rae-gp", DIGITS),
    "rae-gp-forward": ("rae-gp", DIGITS | {"options": {"regularizer.estimator": "forward"}}),
    "rae-sn": ("rae-sn", DIGITS),
    "vae": ("vae", DIGITS),
    "wae-mmd": ("wae-mmd", DIGITS),
    "own": ("rae", DIGITS),
    "vamp-iwae": ("vamp-vae", DIGITS | {"options": {"latent.samples": 3, "penalty.components": 5}}),
    "vae-averaged": ("vae", DIGITS | {"ema": 0.9, "schedule": "cosine", "lr_warmup": 0.5, "beta_warmup": 1.5}),
    "conv-vq-vae": ("vq-vae", IMAGES),
    "conv-vae-bf16": ("vae", IMAGES | {"precision": "bf16"}),
}
#: Models of convolutional networks with batch norm, and options, of which one step is compared.
STEPS: dict[str, dict[str, Any]] = {
    "rae-l2": {},
    "rae-gp": {"regularizer.fraction": 0.25},
    "rae-gp-whole": {"regularizer.fraction": 1.0},
    "rae-gp-forward": {"regularizer.estimator": "forward"},
    "rae-sn": {},
    "vae": {},
    "wae-mmd": {},
    "vq-vae": {},
}


class Own(nn.Module):
    """Layers, and one that nothing depends on."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers, self.left_out = nn.Sequential(*layers), nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def own_networks() -> tuple[nn.Module, nn.Module]:
    """Convolutions without batch norm, and a layer that nothing depends on; every process initialises them its way."""
    encoder = Own(nn.Conv2d(1, 4, 3, 2), nn.ELU(), nn.Conv2d(4, 8, 3), nn.Flatten(), nn.LayerNorm(8))
    decoder = nn.Sequential(
        nn.Linear(4, 64), nn.ELU(), nn.Unflatten(1, (16, 2, 2)), nn.ConvTranspose2d(16, 1, 8, 1, 1), nn.Sigmoid(),
        nn.Upsample((8, 8)),
    )  # fmt: skip
    return encoder, decoder


def train(folder: Path) -> None:
    """Train all runs."""
    for name, (model, options) in RUNS.items():
        torch.manual_seed(distributed.rank())
        given: dict[str, Any] = {"precision": "float32", "tensorboard": False, **options}
        if name == "own":
            torch.manual_seed(int(not distributed.is_first()))  # the first process's weights are taken
            given |= {"networks": own_networks(), "latent_dim": 4, "width": None}
        expost.train(model, out=folder / name, **given)
        assert distributed.world() == 1  # outside of a command every process is on its own


@distributed.together()
def step(folder: Path) -> None:
    """Write the gradients of one batch, the state that it leaves behind, and the losses."""
    x = expost.load_data("mnist-5k", limit=60).train.x
    for name, options in STEPS.items():
        given = {"width": 2, "latent_dim": 4}
        config, _ = expost.configure(
            name.removesuffix("-forward").removesuffix("-whole"), (1, 32, 32), "small", given, {}, options
        )
        torch.manual_seed(distributed.rank())  # the first process's weights are taken
        model = expost.build(config).train()
        with replicated(model) as gradients, split(23, Noise(5, torch.device("cpu"))) as part:
            loss = model.loss(to_unit(x[:23][part.rows])).times(part.share)
            loss.total.backward()
            gradients.finish()
        model.requires_grad_(False)
        terms = {f"loss.{key}": distributed.total(value)[0] for key, value in loss.terms.items()}
        found = {f"gradient.{key}": value.grad for key, value in model.named_parameters()}
        write_tensors(folder / f"step-{name}.safetensors", found | terms | dict(model.named_buffers()))


@distributed.together()
def penalize(folder: Path) -> None:
    """Write gradients of the gradient penalty through batch norm, second derivatives across processes, in float64."""
    z = torch.randn(23, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for estimator in ("reverse", "forward"):
        torch.manual_seed(0)
        decoder = nn.Sequential(
            nn.Linear(3, 6), nn.BatchNorm1d(6, momentum=None), nn.Tanh(), nn.Linear(6, 4), nn.BatchNorm1d(4)
        ).double()
        for _ in range(2):
            with replicated(decoder) as gradients, split(23, Noise(5, torch.device("cpu"))) as part:
                code = LatentCode(z[part.rows], z[part.rows])
                decoder.zero_grad()
                loss = GradientPenalty(estimator, 0.6).penalty(decoder, code) + decoder(code.z)[:, 0].exp().mean()
                (loss * part.share).backward()
                gradients.finish()
        found = {name: parameter.grad for name, parameter in decoder.named_parameters()}
        write_tensors(folder / f"penalty-{estimator}.safetensors", found | dict(decoder.named_buffers()))


def fit(folder: Path) -> None:
    """Fit densities on codes that overlap."""
    source = torch.Generator().manual_seed(0)
    codes = torch.randn(1001, 3, generator=source) @ torch.randn(3, 3, generator=source)
    codes[::3] += 2.5
    with distributed.together():
        densities: list[tuple[str, dict[str, Any]]] = [
            ("gaussian", {}), ("gmm", {"components": 4}), ("bayesian-gmm", {"components": 3}), ("kde", {}),
            ("gmm", {"components": 3, "covariance": "diag", "tol": 1e-6}),
        ]  # fmt: skip
        for name, options in densities:
            density = make_density(name, **options).fit(codes)
            density.save(folder / f"{name}-{options.get('covariance', '')}.safetensors")
        images = torch.randint(0, 256, (101, 3, 16, 16), generator=source, dtype=torch.uint8)
        features = FEATURES["pixels"].load("cpu")
        a, b = features.statistics(images), features.statistics(images.flip(0)[:73] // 2)
        write_json(folder / "frechet.json", frechet_distance(a, b))


def evaluate(folder: Path) -> None:
    """Fit and score a run."""
    run = folder / "scored"
    expost.fit(run, "gmm", components=2)
    expost.fit(run, "gaussian", by="label")
    scores = expost.evaluate(run, features="pixels", densities=("gmm", "gaussian"))
    if distributed.is_first():
        found = {f"{score.name} of {score.of}": score.value for score in scores}
        (folder / "scores.json").write_text(json.dumps(found))


def fail(folder: Path) -> None:
    """Write what every process gets to know of a failure in one of them."""
    last = int(os.environ.get("WORLD_SIZE", "1")) - 1
    found = []
    for kind in (DataError, UsageError, KeyError):
        for culprit in (0, last):
            try:
                with distributed.together(), distributed.main_first():
                    if distributed.rank() == culprit:
                        raise kind(f"process {culprit} says no")
            except Exception as error:
                found.append(f"{type(error).__name__}: {error}")
    try:
        expost.train("ae", "digits", folder / "scored")
    except UsageError as error:
        found.append(str(error).rpartition("/")[2])
    try:
        with distributed.together():
            distributed.require_same(f"{distributed.rank():064x}", "a file")
    except DataError as error:
        found.append(str(error))
    (folder / f"failures-{os.environ.get('RANK', '0')}.json").write_text(json.dumps(found))


WORK = (step, penalize, train, fit, evaluate, fail)

if __name__ == "__main__":
    for work in WORK:
        work(Path(sys.argv[1]))
    launch.stop()  # what is done at exit
    threads = [path.read_text() for path in Path("/proc/self/task").glob("*/comm")]
    assert not any("gloo" in name for name in threads), threads  # one that lives on may abort the process at its end
