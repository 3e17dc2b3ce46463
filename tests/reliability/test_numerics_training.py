"""Training on extreme data, in float32 and bf16: weights that are finite, or one line with the step and the value.

A loss is never NaN without a word: what stops a training names the step, the value and what to do, and the best weights
before it are kept. Runs over the zoo, so that a new model is tested without being named here.
"""

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torture import count, times

import expost
from expost.errors import DataError, UsageError
from expost.models.autoencoder import Autoencoder, build
from expost.models.latents import LATENTS
from expost.models.presets import configure
from expost.models.zoo import ZOO
from expost.training.loop import Loop, NonFiniteLossError
from expost.types import Loss
from expost.utils.seeding import isolated
from expost.utils.store import read_tensors

pytestmark = pytest.mark.usefixtures("one_thread")

PROMISE = "a training ends with finite weights, or says in which step a loss or weight was not finite"
NAMES = [name for name, row in ZOO.items() if row.codec is None]


def images(kind: str, side: int = 8) -> Tensor:
    x = torch.rand(48, 1, side, side, generator=torch.Generator().manual_seed(0))
    return {
        "noise": x,
        "constant": torch.full_like(x, 0.3),
        "black": torch.zeros_like(x),
        "white": torch.ones_like(x),
        "0 or 1": x.round(),
        "one bright pixel": torch.zeros_like(x).index_fill_(3, torch.tensor([4]), 1.0),
        "nearly constant": 0.5 + 1e-7 * x,
    }[kind]


def rows(kind: str) -> Tensor:
    x = torch.randn(48, 6, generator=torch.Generator().manual_seed(0))
    if kind == "outliers":
        x[7:9] *= 1e6
    scale = {"1e6": 1e6, "1e18": 1e18, "1e-20": 1e-20}.get(kind, 1.0)
    return scale * x * torch.tensor([1.0, 0, 0, 1, 1, 0] if kind == "constant columns" else [1.0] * 6)


IMAGES = ["noise", "constant", "black", "white", "0 or 1", "one bright pixel", "nearly constant"]
ROWS = ["outliers", "1e6", "1e18", "1e-20", "constant columns"]


def outcome(name: str, x: Tensor, precision: str, standardize: bool, lr: float | None) -> str:
    """Train for two epochs; return what was refused, or nothing. Fails on anything between."""
    shape, options = tuple(x.shape[1:]), {"width": 8 if x[0].numel() < 100 else 2, "latent_dim": 3}
    options |= {"standardize": standardize} if x.dim() == 2 else {}
    settings = {"epochs": 2, "precision": precision, "device": "cpu", "batch_size": 16} | ({"lr": lr} if lr else {})
    try:
        config, training = configure(name, shape, "small", options, settings)
        with isolated():
            torch.manual_seed(0)
            model = build(config)
    except UsageError:
        return "not for such examples"
    loop = Loop(model, x[:40], x[40:], training)
    try:
        with loop.running():
            for _ in range(2):
                epoch = loop.epoch()
                assert all(map(math.isfinite, [*epoch.train.values(), *epoch.validation.values()]))
    except NonFiniteLossError as error:
        said = str(error)
    else:
        said = ""
        loop.load_best()
        assert finite(model)
    if said:
        assert re.search(r"stopped being finite in epoch \d(, step \d \(.* is -?(inf|nan)\))?$", said), said
    if loop.best is not None:
        assert all(bool(each.isfinite().all()) for each in loop.best.tensors.values())
    return said


def finite(model: Autoencoder) -> bool:
    return all(bool(each.isfinite().all()) for each in model.state_dict().values())


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("name", NAMES)
def test_extreme_data_end_in_finite_weights_or_in_a_line_with_the_step(name: str, precision: str) -> None:
    side = (
        28 if LATENTS[ZOO[name].latent.name].spatial else 8
    )  # codes on a map come from convolutions, which need larger images
    kinds = [images(kind, side) for kind in IMAGES] + [rows(kind) for kind in ROWS]
    refused, tried = 0, 0
    for x in kinds[1 :: times(3, 1)]:
        for lr in (None, 1e3)[: times(1, 2)]:
            for standardize in (True, False)[: times(1, 2) if x.dim() == 2 else 1]:
                refused += bool(outcome(name, x, precision, standardize, lr))
                tried += 1
    count(PROMISE, tried=tried)
    assert refused < tried


def _epochs(loop: Loop, number: int) -> None:
    for _ in range(number):
        loop.epoch()


def test_a_weight_that_no_loss_looks_at_stops_the_training_too_and_the_best_ones_before_it_are_kept() -> None:
    """The head of log sigma has no part in the loss of a deterministic code; here a buffer stands for it."""
    config, training = configure("ae", (6,), "small", {"width": 8, "latent_dim": 3}, {"epochs": 3, "device": "cpu"})
    model = build(config)
    model.register_buffer("unseen", torch.zeros(2))
    loop = Loop(model, rows("noise")[:40], rows("noise")[40:], training)
    with loop.running():
        loop.epoch()
        first = loop.best
        model.get_buffer("unseen").fill_(math.nan)
        for group in loop.optimizer.param_groups:
            group["lr"] *= 3
        with pytest.raises(NonFiniteLossError, match="weights 'unseen' stopped being finite in epoch"):
            _epochs(loop, 20)
    assert first is not None
    assert loop.best is not None
    assert all(bool(each.isfinite().all()) for each in loop.best.tensors.values())
    assert loop.position.best == loop.best.validation


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_the_line_names_step_value_and_remedy_and_the_last_good_weights_are_on_disk(
    precision: str, tmp_path: Path
) -> None:
    x = rows("noise").numpy()
    np.save(tmp_path / "rows.npy", x)
    options: Any = {"epochs": 2, "width": 8, "tensorboard": False, "device": "cpu", "precision": precision}
    run = expost.train("rae-l2", tmp_path / "rows.npy", tmp_path / "run", **options)
    before = read_tensors(run.folder / "model.safetensors")[0]
    run = replace(run, config=replace(run.config, training=replace(run.config.training, epochs=4)))
    torch_step = Loop.step

    def poisoned(self: Loop, order: Tensor) -> Loss:
        with torch.no_grad():
            next(iter(self.model.decoder.parameters())).fill_(math.inf)
        return torch_step(self, order)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Loop, "step", poisoned)
        with pytest.raises(DataError) as caught:
            run.train(run.data())
    said = str(caught.value)
    assert "\n" not in said
    assert re.search(
        r"epoch 3, step 1 \(total is (nan|inf), .*\); the best weights so far are in .*model.safetensors; try", said
    )
    after = read_tensors(run.folder / "model.safetensors")[0]
    assert all(torch.equal(before[name], after[name]) for name in before)
