"""When the learning rate is cut, and which validation loss decides: formulas written out a second time."""

from dataclasses import replace

import pytest
import torch

from expost.models.autoencoder import build
from expost.models.presets import configure
from expost.training.loop import Loop

OBJECTIVE = "objective"


def loop_for(name="ae", held_out=50, options=None, model=None, **training):
    config, settings = configure(
        name,
        (12,),
        "small",
        {"width": 6, "latent_dim": 3, **(model or {})},
        {"batch_size": 16, "device": "cpu", "tensorboard": False, **training},
        options,
    )
    config = replace(config, standardize=False)
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    return Loop(
        build(config), torch.rand(32, 12, generator=generator), torch.rand(held_out, 12, generator=generator), settings
    )


def rates(monkeypatch, losses, **training):
    """Learning rate of each epoch, given the validation losses after them."""
    loop, left = loop_for(lr=1e-3, **training), iter(losses)
    monkeypatch.setattr(loop, "validate", lambda: {"total": next(left)})
    with loop.running():
        return [loop.epoch().lr for _ in losses]


def keras(losses, patience, factor, min_delta, min_lr):
    """ReduceLROnPlateau of Keras, epoch by epoch, from 1e-3."""
    rate, best, wait, found = 1e-3, float("inf"), 0, []
    for loss in losses:
        found.append(rate)
        if loss < best - min_delta:
            best, wait = loss, 0
        else:
            wait += 1
            if wait >= patience:
                rate, wait = max(rate * factor, min_lr), 0
    return found


def test_the_rate_is_cut_where_the_loss_falls_by_less_than_the_threshold_for_so_many_epochs(monkeypatch):
    slowly = [100, 99.8, 99.7, 99.6, 99.2, 99.0, 98.9, 98.8]  # 99.2 is more than 0.5 below 100, after one cut
    assert rates(monkeypatch, slowly, patience=3, factor=0.1, min_delta=0.5) == pytest.approx(
        [1e-3, 1e-3, 1e-3, 1e-3, 1e-4, 1e-4, 1e-4, 1e-4]
    )
    assert rates(monkeypatch, slowly, patience=3, factor=0.1) == [1e-3] * 8  # every loss is better


@pytest.mark.parametrize("patience", [1, 2, 3])
@pytest.mark.parametrize("min_delta", [0.0, 0.3, 2.0])
def test_the_rate_is_cut_when_keras_cuts_it(patience, min_delta, monkeypatch):
    losses = (20 - torch.arange(24) * 0.4 + torch.randn(24, generator=torch.Generator().manual_seed(1))).tolist()
    expected = keras(losses, patience, 0.3, min_delta, 1e-5)
    assert len(set(expected)) > 1
    found = rates(monkeypatch, losses, patience=patience, factor=0.3, min_delta=min_delta, min_lr=1e-5)
    assert found == pytest.approx(expected, rel=1e-9)


def test_the_rate_is_not_below_the_least(monkeypatch):
    found = rates(monkeypatch, [1.0] * 6, patience=1, factor=0.2, min_lr=1e-4)
    assert found == pytest.approx([1e-3, 1e-3, 2e-4, 1e-4, 1e-4, 1e-4], rel=1e-9)


def by_hand(model, x):
    """Each term, with the penalty of the Jacobian and of the weights from their definitions."""
    z = model.encode(x)
    jacobian = torch.autograd.functional.jacobian(lambda codes: model.decoder(codes).sum(0), z)  # rows do not meet
    weights = [weight for weight in model.decoder.parameters() if weight.dim() > 1]
    return {
        "reconstruction": (x - model.decoder(z)).square().sum(1).mean(),
        "half-norm": 0.5 * z.square().sum(1).mean(),
        "tikhonov": sum(weight.square().sum() for weight in weights),
        "gradient-penalty": jacobian.square().sum((0, 2)).mean(),
    }


@pytest.mark.parametrize(
    ("name", "term", "options"),
    [("rae-l2", "tikhonov", {}), ("rae-gp", "gradient-penalty", {"regularizer.estimator": "exact"})],
)
def test_the_validation_loss_that_is_watched_has_the_weighted_regularizer_or_not(name, term, options):
    weights = {"beta": 0.7, "regularizer_weight": 0.3}
    watching = loop_for(name, options=options, model=weights, watch=OBJECTIVE)
    found = watching.validate()
    terms = {key: value.item() for key, value in by_hand(watching.model, watching.held_out).items()}
    without = terms["reconstruction"] + 0.7 * terms["half-norm"]
    assert found["regularizer"] == pytest.approx(terms[term], rel=1e-5)
    assert found["regularizer"] > 0.01
    assert found["total"] == pytest.approx(without + 0.3 * terms[term], rel=1e-5)
    loss = watching.model.loss(watching.held_out, regularize=True)
    assert found["total"] == pytest.approx(loss.total.item(), rel=1e-5)
    plain = loop_for(name, options=options, model=weights).validate()
    assert plain["regularizer"] == 0
    assert plain["total"] == pytest.approx(without, rel=1e-5)


def test_the_watched_estimate_of_the_jacobian_is_near_it_and_is_weighed_too():
    """By the default estimator, one product of the Jacobian with signs; noise of its own."""
    loop = loop_for("rae-gp", held_out=4000, model={"beta": 0.7, "regularizer_weight": 0.3}, watch=OBJECTIVE)
    found, exact = loop.validate(), by_hand(loop.model, loop.held_out)["gradient-penalty"].item()
    assert found["regularizer"] == pytest.approx(exact, rel=0.1)
    assert found["regularizer"] != pytest.approx(exact, rel=1e-6)
    assert found["total"] == pytest.approx(
        found["reconstruction"] + 0.7 * found["penalty"] + 0.3 * found["regularizer"], rel=1e-6
    )


@pytest.mark.parametrize(("name", "watch"), [("vae", "reconstruction and penalty"), ("rae-gp", OBJECTIVE)])
def test_validation_has_the_same_noise_after_any_number_of_steps(name, watch):
    loop = loop_for(name, model={"regularizer_weight": 0.3} if watch == OBJECTIVE else {}, watch=watch)
    with loop.running():
        first = loop.validate()
        loop.position.steps = 7
        torch.rand(3)
        assert loop.validate() == first
        assert all(parameter.grad is None for parameter in loop.model.parameters())
