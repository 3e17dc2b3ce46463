"""The length of a training, counted in steps: presets, what is said, and batches of one size."""

import json
from typing import Any

import pytest
import torch

import expost
from expost.cli import main
from expost.config import TrainingConfig
from expost.errors import Symptom
from expost.models.autoencoder import build
from expost.models.presets import LEAST_RATE, LEAST_STEPS, SMALLEST_BATCH, configure
from expost.training.loop import Loop

KINDS = [("rae-l2", (3, 64, 64)), ("vae", (1, 28, 28)), ("rae-gp", (7,)), ("grae", (15, 12)), ("vq-vae", (3, 32, 32))]


def resolved(name, shape, examples, preset="small", **given):
    return configure(name, shape, preset, training_overrides=given, examples=examples)[1]


def steps(training, examples):
    return training.epochs * training.batches(examples)[1]


@pytest.mark.parametrize("examples", [3, 13, 97, 384, 1437, 9000])
@pytest.mark.parametrize(("name", "shape"), KINDS)
def test_preset_small_takes_steps_enough_to_learn_whatever_the_data(name, shape, examples):
    training = resolved(name, shape, examples)
    assert LEAST_STEPS <= steps(training, examples) < 2.2 * LEAST_STEPS
    assert min(examples, SMALLEST_BATCH) / 2 <= training.batch_size


@pytest.mark.parametrize("examples", [60_000, 200_000])
def test_of_many_examples_epochs_and_batches_are_as_they_were(examples):
    short, long = resolved("rae", (1, 28, 28), examples), configure("rae", (1, 28, 28))[1]
    assert (short.epochs, short.batch_size, short.patience) == (long.epochs, long.batch_size, long.patience)


@pytest.mark.parametrize("examples", [12, 500, 50_000])
def test_preset_paper_is_to_the_letter_however_few_the_examples(examples):
    assert resolved("rae-l2", (1, 32, 32), examples, "paper") == configure("rae-l2", (1, 32, 32), "paper")[1]
    assert resolved("gvae", (15, 12), examples, "published") == configure("gvae", (15, 12), "published")[1]


def test_what_is_given_wins():
    assert resolved("ae", (9,), 200, epochs=7).epochs == 7
    given = resolved("ae", (9,), 200, batch_size=50)
    assert (given.batch_size, given.epochs) == (50, 375)
    both = resolved("ae", (9,), 200, epochs=7, batch_size=50, patience=2, min_lr=0.0)
    assert (both.epochs, both.batch_size, both.patience, both.min_lr) == (7, 50, 2, 0.0)


@pytest.mark.parametrize("examples", [20, 384, 5000])
def test_a_model_that_does_not_get_better_keeps_a_rate_that_can_teach_it(examples, monkeypatch):
    """Every loss is worse than the one before: the rate is cut as early as it may be, and as often."""
    training = resolved("ae", (12,), examples, tensorboard=False, device="cpu")
    per_epoch = training.batches(examples)[1]
    loop = Loop(
        build(configure("ae", (12,), "small", {"width": 4})[0]), torch.rand(examples, 12), torch.rand(9, 12), training
    )
    worse = iter(range(10**6))
    monkeypatch.setattr(loop, "validate", lambda: {"total": float(next(worse))})
    monkeypatch.setattr(loop, "step", lambda order: _counted(loop))
    rates, cuts = [training.lr], []
    with loop.running():
        for _ in range(3 * training.epochs):
            loop.epoch()
            if loop.position.lr != rates[-1]:
                rates.append(loop.position.lr)
                cuts.append(loop.position.steps)
    assert min(b - a for a, b in zip([0, *cuts], cuts, strict=False)) >= 300
    assert rates[-1] == pytest.approx(LEAST_RATE * training.lr)
    assert per_epoch * training.epochs >= LEAST_STEPS


def _counted(loop):
    loop.position.step += 1
    loop.position.steps += 1
    return type("Nothing", (), {"total": torch.zeros(()), "terms": {}})()


@pytest.mark.parametrize("examples", [*range(1, 60), 101, 384, 480, 999, 1437])
@pytest.mark.parametrize("batch_size", [2, 10, 16, 100])
def test_an_epoch_leaves_out_little(examples, batch_size):
    size, count = TrainingConfig(batch_size=batch_size).batches(examples)
    left_out = examples - size * count
    assert left_out >= 0
    assert size <= batch_size
    assert left_out <= max(0.05 * examples, count - 1, 1)
    if size < min(batch_size, examples):  # divided anew: by no more batches than hold all examples
        assert count == -(-examples // batch_size)
        assert size >= 2


@pytest.mark.parametrize(("batch_size", "examples"), [(100, 50_000), (100, 60_000), (100, 162_770), (600, 90_000)])
def test_of_many_examples_the_incomplete_batch_is_left_out(batch_size, examples):
    assert TrainingConfig(batch_size=batch_size).batches(examples) == (batch_size, examples // batch_size)


def test_every_example_of_a_small_set_is_trained_on_in_batches_of_one_size(monkeypatch):
    config, training = configure(
        "ae", (3,), "small", {"width": 4, "latent_dim": 2}, {"batch_size": 20, "tensorboard": False, "device": "cpu"}
    )
    x = torch.arange(24.0).unsqueeze(1).expand(-1, 3).contiguous()
    loop = Loop(build(config), x, x[:2], training)
    seen: list[torch.Tensor] = []
    take = loop.batches.take

    def noted(indices, then=None):
        seen.append(indices)
        return take(indices, then)

    monkeypatch.setattr(loop.batches, "take", noted)
    with loop.running():
        loop.epoch()
    assert [len(each) for each in seen] == [12, 12]
    assert sorted(torch.cat(seen).tolist()) == list(range(24))


def table(path, n):
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(n, 3, generator=generator)
    path.write_text("a,b,c\n" + "\n".join(",".join(f"{v:.4f}" for v in row) for row in rows.tolist()) + "\n")
    return path


def test_steps_and_their_pace_are_said_and_few_are_warned_of(tmp_path, capsys):
    path = table(tmp_path / "x.csv", 90)  # 72 train: 4 batches of 18
    options: dict[str, Any] = {"width": 8, "tensorboard": False}
    expost.train("ae", path, tmp_path / "run", epochs=5, batch_size=18, **options)
    said = capsys.readouterr().err
    assert "training: 20 steps, 5 epochs of 4 batches of 18\n" in said
    assert (
        "warning: 20 steps hardly train a model; give --epochs 375, a smaller --batch-size, or neither of them "
        f"(see {Symptom.POOR.address})\n" in said
    )
    (pace,) = [line for line in said.splitlines() if line.startswith("training: ") and "a step" in line]
    assert pace.endswith(" left")
    expost.train("ae", path, tmp_path / "run", epochs=6, resume=True, batch_size=18)
    assert "training: 24 steps, 6 epochs of 4 batches of 18, of which 20 are done\n" in capsys.readouterr().err


def test_a_dry_run_measures_a_few_steps_and_writes_nothing(tmp_path, capsys):
    path = table(tmp_path / "x.csv", 90)
    main(["train", "ae", "--data", str(path), "--out", str(tmp_path / "run"), "--width", "8", "--dry-run"])
    out, err = capsys.readouterr()
    training = json.loads(out)["training"]
    size, count = TrainingConfig(batch_size=training["batch_size"]).batches(72)
    whole = training["epochs"] * count
    assert whole >= LEAST_STEPS
    assert f"training: {whole:,} steps, {training['epochs']} epochs of {count} batches of {size}, " in err
    assert " a step, " in err
    assert "warning" not in err
    assert not (tmp_path / "run").exists()
