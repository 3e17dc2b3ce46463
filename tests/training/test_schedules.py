"""Schedules of the learning rate and of beta, and the mean of the weights: against closed forms and direct sums."""

import math
from typing import Any, get_args

import pytest
import torch

import expost
from expost.config import ScheduleName, TrainingConfig
from expost.errors import DataError, UsageError
from expost.models.autoencoder import build
from expost.models.presets import configure
from expost.training.averaging import BATCHES
from expost.training.checkpoint import load_checkpoint, save_checkpoint
from expost.training.loop import Loop
from expost.training.schedules import SCHEDULES, rate

STEPS = 4  # of an epoch


def loop_for(name="vae", shape=(12,), count=64, network=None, **training):
    config, settings = configure(
        name,
        shape,
        "small",
        {"width": 4, "latent_dim": 3, "network": network},
        {"batch_size": count // STEPS, "device": "cpu", "tensorboard": False, "precision": "float32", **training},
    )
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(count, *shape, generator=generator)
    torch.manual_seed(0)
    return Loop(build(config), x, x[:20], settings)


def taken(loop, monkeypatch, what):
    """A number of each step: what is given of the loop when the optimizer is called."""
    found, step = [], loop.optimizer.step

    def stepping():
        found.append(what(loop))
        step()

    monkeypatch.setattr(loop.optimizer, "step", stepping)
    return found


def test_every_schedule_has_its_name_in_the_configuration():
    assert get_args(ScheduleName) == tuple(SCHEDULES)


def test_the_cosine_with_warm_up_is_its_closed_form(monkeypatch):
    loop = loop_for(epochs=5, schedule="cosine", lr=2e-3, min_lr=1e-4, lr_warmup=1.5)
    found = taken(loop, monkeypatch, lambda loop: loop.optimizer.param_groups[0]["lr"])
    with loop.running():
        epochs = [loop.epoch().lr for _ in range(5)]
    warm, total = 6, 5 * STEPS
    expected = [2e-3 * (step + 1) / warm for step in range(warm)]
    expected += [
        1e-4 + 1.9e-3 * (1 + math.cos(math.pi * (step - warm) / (total - warm))) / 2 for step in range(warm, total)
    ]
    assert found == pytest.approx(expected, rel=1e-12)
    assert epochs == pytest.approx(expected[STEPS - 1 :: STEPS], rel=1e-12)
    assert max(found) == pytest.approx(2e-3)


def test_the_cosine_goes_on_where_training_is_lengthened():
    config = TrainingConfig(epochs=2, schedule="cosine", lr=1e-3)
    assert rate(config, 1e-3, 2 * STEPS + 3, STEPS) == 0
    assert rate(TrainingConfig(epochs=4, schedule="cosine"), 1e-3, 2 * STEPS, STEPS) == pytest.approx(5e-4)


def test_the_plateau_counts_from_the_end_of_the_warm_ups(monkeypatch):
    loop = loop_for(epochs=8, lr=1e-3, lr_warmup=2, beta_warmup=3, patience=2, factor=0.5, min_lr=0)
    monkeypatch.setattr(loop, "validate", lambda: {"total": 1.0})
    with loop.running():
        found = [loop.epoch().lr for _ in range(8)]
    # epoch 3 ends the warm-ups and is the first that is looked at; two epochs later the rate is cut
    assert found == pytest.approx([5e-4, 1e-3, 1e-3, 1e-3, 1e-3, 5e-4, 5e-4, 2.5e-4])


def test_a_constant_rate_stays(monkeypatch):
    loop = loop_for(epochs=6, lr=1e-3, schedule="constant")
    monkeypatch.setattr(loop, "validate", lambda: {"total": 1.0})
    with loop.running():
        assert [loop.epoch().lr for _ in range(6)] == [1e-3] * 6


def test_beta_rises_over_its_steps_and_terms_stay_unweighted(monkeypatch):
    loop = loop_for(epochs=3, beta_warmup=1.25)
    losses, whole = [], loop.model.loss

    def noted(*args, **kwargs):
        losses.append(whole(*args, **kwargs))
        return losses[-1]

    monkeypatch.setattr(loop.model, "loss", noted)
    with loop.running():
        epoch = loop.epoch()
        steps = [loss for loss in losses if loss.total.requires_grad]
        loop.position.step = 0
        order = torch.arange(64)
        for _ in range(3):
            loop.step(order)
        steps += [loss for loss in losses[len(losses) - 3 :] if loss.total.requires_grad]
    shares = [
        (loss.total - loss.terms["reconstruction"]).item() / (loop.model.beta * loss.terms["penalty"].item())
        for loss in steps
    ]
    assert shares == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1, 1], rel=1e-4)
    validation = epoch.validation  # with the whole beta
    assert validation["total"] == pytest.approx(
        validation["reconstruction"] + loop.model.beta * validation["penalty"], rel=1e-6
    )


@pytest.mark.parametrize("decay", [0.5, 0.97])
def test_the_mean_of_the_weights_is_a_weighted_sum_of_all_steps(decay, monkeypatch):
    loop = loop_for("rae", epochs=6, ema=decay)
    before = {name: each.detach().clone() for name, each in loop.model.named_parameters()}
    seen = []
    step = loop.optimizer.step

    def stepping():
        step()
        seen.append({name: each.detach().double() for name, each in loop.model.named_parameters()})

    monkeypatch.setattr(loop.optimizer, "step", stepping)
    with loop.running():
        for _ in range(6):
            last = loop.epoch()
    kept = [min(decay, (t - 1) / (t + 8)) for t in range(1, len(seen) + 1)]
    shares = [(1 - kept[t]) * math.prod(kept[t + 1 :]) for t in range(len(seen))]
    assert sum(shares) == pytest.approx(1)
    assert len(seen) == 6 * STEPS
    for name, mean in loop.averaged.tensors.items():
        expected = sum(share * weights[name] for share, weights in zip(shares, seen, strict=True))
        torch.testing.assert_close(mean.double(), expected, rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(loop.model.get_parameter(name).double(), seen[-1][name])  # trains on from the last
        assert not torch.equal(mean, before[name])
    assert last.best
    for name, mean in loop.averaged.tensors.items():  # what is saved, and what was validated
        assert torch.equal(loop.best.tensors[name], mean)
    loop.load_best()
    assert loop.validate()["total"] == pytest.approx(last.validation["total"], rel=1e-6)


def test_batch_norm_has_the_statistics_of_the_mean_weights():
    loop = loop_for("rae", (1, 28, 28), count=32, epochs=2, ema=0.9, lr=1e-2)
    x = loop.batches[torch.arange(32)]
    with loop.running():
        loop.epoch()
        raw = {name: tensor.clone() for name, tensor in loop.model.state_dict().items()}
        loop.epoch()
    assert STEPS <= BATCHES  # so that the whole epoch is measured
    loop.load_best()
    norm = next(module for module in loop.model.modules() if isinstance(module, torch.nn.BatchNorm2d))
    first = loop.model.encoder.layers[0]
    with torch.no_grad():
        maps = first(2 * x - 1)
    # the mean over batches of one size is that over all examples
    torch.testing.assert_close(norm.running_mean, maps.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    assert norm.momentum == pytest.approx(0.1)
    assert not torch.allclose(norm.running_mean, raw["encoder.layers.1.running_mean"], rtol=1e-3)


def test_training_itself_is_the_same_with_a_mean_and_without():
    plain, averaged = (loop_for("rae", (1, 28, 28), count=32, epochs=2, ema=ema) for ema in (None, 0.9))
    for loop in (plain, averaged):
        with loop.running():
            loop.epoch()
            loop.epoch()
    for (name, one), other in zip(plain.model.state_dict().items(), averaged.model.state_dict().values(), strict=True):
        assert torch.equal(one, other), name


def test_spectral_norm_is_that_of_the_mean_weights():
    loop = loop_for("rae-sn", (12,), epochs=3, ema=0.9, lr=1e-2)
    with loop.running():
        for _ in range(3):
            loop.epoch()
    loop.load_best()
    layers = [each for each in loop.model.decoder.modules() if hasattr(each, "parametrizations")]
    assert layers
    for layer in layers:
        assert torch.linalg.matrix_norm(layer.weight, 2).item() == pytest.approx(1, rel=0.02)


def test_a_checkpoint_without_the_mean_is_refused(tmp_path):
    loop = loop_for("rae", epochs=1)
    with loop.running():
        loop.epoch()
    save_checkpoint(tmp_path / "c.safetensors", loop.model, loop.optimizer, loop.snapshot({}))
    averaged = loop_for("rae", epochs=1, ema=0.9)
    with pytest.raises(DataError, match="lacks the mean of the weights"):
        load_checkpoint(tmp_path / "c.safetensors", averaged.model, averaged.optimizer, averaged.averaged)


@pytest.mark.parametrize(
    ("model", "given", "words"),
    [
        ("rae", {"ema": 1.0}, "ema is 1.0; give a decay between 0 and 1"),
        ("rae", {"lr_warmup": -1}, "lr_warmup is -1; give a number of at least 0"),
        ("rae", {"schedule": "cosine", "patience": 3}, "patience is for schedule plateau, not for cosine"),
        ("ae", {"beta_warmup": 2}, "model 'ae' has no latent penalty for beta_warmup=2 to raise"),
        ("vae", {"beta_warmup": 30, "epochs": 5}, "beta_warmup is 30 epochs, of 5 in all"),
    ],
)
def test_settings_that_make_no_sense_are_refused(model, given, words):
    with pytest.raises(UsageError, match=words):
        configure(model, (12,), "small", None, given)


def test_a_dry_run_resolves_the_settings_and_writes_nothing(tmp_path):
    settings: dict[str, Any] = {"schedule": "cosine", "lr_warmup": 0.5, "beta_warmup": 2.0, "ema": 0.99}
    run = expost.train("vae", "digits", tmp_path / "run", dry_run=True, epochs=3, width=8, **settings)
    assert {name: vars(run.config.training)[name] for name in settings} == settings
    assert not (tmp_path / "run").exists()
