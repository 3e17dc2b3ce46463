"""Training: exact resume, determinism, best weights, and stopping well."""

import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.utils.parametrizations import _SpectralNorm

import expost
from expost.commands import train
from expost.config import DataConfig, RunConfig
from expost.errors import DataError, Interrupted, UsageError
from expost.generators.generator import Generator
from expost.models.presets import configure
from expost.report.training import History
from expost.run import Run, load
from expost.training import trainer as training_module
from expost.training.checkpoint import save_checkpoint
from expost.training.devices import place
from expost.training.history import Records
from expost.training.loop import Loop
from expost.training.trainer import Training
from expost.utils.store import read_tensors, write_tensors

DATA = DataConfig("digits")


def start(folder, name="vae", epochs=3, config=DATA, width=32, **training):
    data, _ = load(config)
    model, settings = configure(
        name, data.shape, "small", {"width": width}, {"epochs": epochs, "tensorboard": False, **training}
    )
    run = Run(Path(folder), RunConfig(model, settings, config, "small", "test"))
    with run.started():
        pass
    return run, data


def weights(folder):
    return read_tensors(Path(folder) / "model.safetensors")[0]


def same(a, b):
    assert a.keys() == b.keys()
    return all(torch.equal(a[key], b[key]) for key in a)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(tmp_path):
    for name, seed in [("a", 0), ("b", 0), ("c", 1)]:
        run, data = start(tmp_path / name, seed=seed, epochs=1)
        torch.rand(3)  # whatever the global generator has done before
        run.train(data)
    assert same(weights(tmp_path / "a"), weights(tmp_path / "b"))
    assert not same(weights(tmp_path / "a"), weights(tmp_path / "c"))


def test_training_leaves_the_global_generator_as_it_was(tmp_path):
    run, data = start(tmp_path / "run", epochs=1)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    run.train(data)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    "name",
    ["vae", "rae-sn", "wae-mmd", "rae-gp convolutional bf16", "vq-vae convolutional", "vae convolutional averaged"],
)
def test_a_run_stopped_in_the_middle_of_an_epoch_ends_with_the_same_weights(name, tmp_path, monkeypatch):
    name, *kind = name.split()
    options = (
        {"config": DataConfig("mnist-5k", limit=300), "width": 2, "batch_size": 20} if "convolutional" in kind else {}
    )
    options["precision"] = "bf16" if "bf16" in kind else "float32"
    if "averaged" in kind:
        options |= {"ema": 0.9, "schedule": "cosine", "lr_warmup": 0.5, "beta_warmup": 1.5}
    whole, data = start(tmp_path / "whole", name, **options)
    whole.train(data)
    broken, _ = start(tmp_path / "broken", name, **options)
    step, stops = Loop.step, iter((5, 18, 19, 33))
    stop_at = [next(stops)]

    def stepping(self, order):
        result = step(self, order)
        if self.position.steps == stop_at[0]:
            stop_at[0] = next(stops, -1)
            os.kill(os.getpid(), signal.SIGINT)
        return result

    monkeypatch.setattr(Loop, "step", stepping)
    interruptions = 0
    while True:
        try:
            broken.train(data)
            break
        except Interrupted:
            interruptions += 1
    assert interruptions == 4
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "broken"))
    lines = [json.loads(line) for line in (tmp_path / "broken" / "metrics.jsonl").read_text().splitlines()]
    expected = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    for line in [*lines, *expected]:
        del line["seconds"], line["sha256"]
    assert lines == expected


def test_a_run_killed_at_random_moments_ends_with_the_same_weights(tmp_path):
    """SIGKILL: no handler runs; whatever was being written is lost, and what was there before is not."""
    options = ["--data", "digits", "--width", "32", "--epochs", "6", "--no-tensorboard"]
    whole = [sys.executable, "-m", "expost", "train", "vae", *options, "--out", str(tmp_path / "whole")]
    subprocess.run(whole, check=True, capture_output=True)
    command = [sys.executable, "-m", "expost", "train", "vae", *options, "--out", str(tmp_path / "killed")]
    kills, seed = 0, torch.Generator().manual_seed(0)
    while True:
        process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
        metrics = tmp_path / "killed" / "metrics.jsonl"
        done = len(metrics.read_bytes().splitlines()) if metrics.exists() else 0
        if kills < 3:  # wait until an epoch was finished, then a random while, then kill
            deadline = time.monotonic() + 600
            while process.poll() is None and time.monotonic() < deadline:
                if metrics.exists() and len(metrics.read_bytes().splitlines()) > done:
                    time.sleep(0.15 * torch.rand((), generator=seed).item())
                    process.kill()
                    break
                time.sleep(0.002)
        _, errors = process.communicate()
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, errors.decode()
        kills += 1
        command = [word for word in command if word != "--resume"] + ["--resume"]
    assert kills >= 1
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "killed"))
    epochs = [json.loads(line)["epoch"] for line in (tmp_path / "killed" / "metrics.jsonl").read_text().splitlines()]
    assert epochs == [1, 2, 3, 4, 5, 6]


def test_a_bf16_run_resumes_exactly(tmp_path):
    whole, data = start(tmp_path / "whole", "rae-l2", epochs=2, precision="bf16")
    whole.train(data)
    first, _ = start(tmp_path / "parts", "rae-l2", epochs=1, precision="bf16")
    first.train(data)
    first.with_training(epochs=2).train(data)
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))


def test_a_step_takes_the_power_iterations_that_were_asked_for(tmp_path, monkeypatch):
    """A layer looks its weight up several times, and each time it would be normalised anew."""
    run, data = start(tmp_path / "run", "rae-sn", width=2, config=DataConfig("mnist-5k", limit=300), batch_size=20)
    loop, calls = Loop(run.fresh_model(), data.train.x, data.validation.x, run.config.training), []
    monkeypatch.setattr(_SpectralNorm, "_power_method", lambda self, weight, count: calls.append((id(self), count)))
    loop.model.train()
    loop.step(torch.arange(len(data.train)))
    normalised = [module for module in loop.model.modules() if isinstance(module, _SpectralNorm)]
    assert sorted(calls) == sorted((id(module), 1) for module in normalised)
    assert len(normalised) > 3


def test_the_best_weights_on_validation_data_are_kept(tmp_path):
    run, data = start(tmp_path / "run", "ae", epochs=25, lr=0.03)
    model = run.train(data)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = [line["validation"]["total"] for line in lines]
    assert losses[-1] > min(losses)  # so that the last weights are not the best ones
    assert [line["best"] for line in lines] == [loss < min([1e9, *losses[:i]]) for i, loss in enumerate(losses)]
    x = data.validation.x.float() / 255
    with torch.inference_mode():
        assert model.loss(x, regularize=False).total.item() == pytest.approx(min(losses), rel=1e-4)


def test_the_learning_rate_is_halved_after_so_many_epochs_without_improvement(tmp_path):
    run, data = start(tmp_path / "run", "ae", epochs=30, lr=0.3, patience=2)
    run.train(data)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    rate, bad, best = 0.3, 0, float("inf")
    for line in lines:
        assert line["lr"] == rate
        loss = line["validation"]["total"]
        best, bad = (loss, 0) if loss < best else (best, bad + 1)
        if bad == 2:
            rate, bad = rate / 2, 0
    assert rate < 0.3


def test_gradients_are_clipped_to_the_norm_asked_for(tmp_path):
    def last_norm(folder, clip):
        run, data = start(tmp_path / folder, "ae", epochs=1, clip=clip)
        model = run.fresh_model()
        Training(model, data, run.config.training, run.folder).run()
        return (
            torch.stack([p.grad.square().sum() for p in model.parameters() if p.grad is not None]).sum().sqrt().item()
        )

    free = last_norm("free", None)
    assert last_norm("loose", 1e6) == free
    assert last_norm("tight", free / 100) == pytest.approx(free / 100, rel=1e-3)
    with pytest.raises(UsageError, match="clip is 0"):
        start(tmp_path / "none", "ae", clip=0.0)


def test_training_stops_when_the_loss_is_not_finite_and_keeps_the_last_good_weights(tmp_path, monkeypatch):
    run, data = start(tmp_path / "run", "ae", epochs=3)
    step = Loop.step

    def poisoned(self, order):
        if self.position.epoch == 1 and self.position.step == 4:
            with torch.no_grad():
                next(iter(self.model.decoder.parameters())).fill_(float("nan"))
        return step(self, order)

    monkeypatch.setattr(Loop, "step", poisoned)
    with pytest.raises(
        DataError, match="stopped being finite in epoch 2, step 5 .*reconstruction is nan.*smaller --lr"
    ):
        run.train(data)
    assert all(tensor.isfinite().all() for tensor in weights(tmp_path / "run").values())
    monkeypatch.undo()
    run.train(data)  # the checkpoint is good too


def test_a_learning_rate_that_explodes_is_reported(tmp_path):
    run, data = start(tmp_path / "run", "ae", epochs=2, lr=1e30)
    with pytest.raises(DataError, match="stopped being finite in epoch 1"):
        run.train(data)


def test_networks_of_ones_own_train_and_load(tmp_path):
    from torch import nn

    encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Dropout(0.1))
    decoder = nn.Sequential(nn.Linear(4, 64), nn.Sigmoid(), nn.Unflatten(1, (1, 8, 8)))
    networks = (encoder, decoder)
    run = train("rae-l2", "digits", tmp_path / "run", epochs=2, latent_dim=4, tensorboard=False, networks=networks)
    with pytest.raises(UsageError, match="pass networks="):
        Run.open(tmp_path / "run")
    again = Run.open(tmp_path / "run", networks).model()
    x = torch.rand(3, 1, 8, 8)
    assert torch.equal(again(x), run.model()(x))


def test_resume_refuses_another_configuration_and_takes_more_epochs(tmp_path):
    options = {"data": "digits", "out": tmp_path / "run", "tensorboard": False}
    train("ae", epochs=1, width=16, **options)
    with pytest.raises(UsageError, match="exists already"):
        train("ae", epochs=1, width=16, **options)
    with pytest.raises(UsageError, match="trained with model.width 16, not 17"):
        train("ae", epochs=1, width=17, resume=True, **options)
    with pytest.raises(UsageError, match="trained with model.name ae, not rae"):
        train("rae", resume=True, **options)
    train("ae", epochs=3, resume=True, **options)
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 3


def test_damaged_and_foreign_weights_are_refused(tmp_path):
    run, data = start(tmp_path / "run", "ae", epochs=1)
    run.train(data)
    path = tmp_path / "run" / "model.safetensors"
    good = path.read_bytes()
    path.write_bytes(good[: len(good) // 2])
    with pytest.raises(DataError, match="truncated"):
        run.model()
    write_tensors(path, {"encoder.weight": torch.zeros(2)})
    with pytest.raises(DataError, match="does not fit"):
        run.model()
    path.unlink()
    with pytest.raises(DataError, match="no trained weights"):
        run.model()
    checkpoint = tmp_path / "run" / "checkpoint.safetensors"
    checkpoint.write_bytes(checkpoint.read_bytes()[:100])
    with pytest.raises(DataError, match="truncated"):
        run.with_training(epochs=2).train(data)


def test_tensorboard_files_hold_the_losses(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run, data = start(tmp_path / "run", "ae", epochs=2)
    run = Run(
        run.folder,
        RunConfig(run.config.model, configure("ae", data.shape, training_overrides={"epochs": 2})[1], DATA, "", ""),
    )
    run.train(data)
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    written = [event.value for event in events.Scalars("validation/total")]
    assert written == pytest.approx([line["validation"]["total"] for line in lines], rel=1e-6)


def test_densities_of_earlier_weights_are_not_used(tmp_path, capsys):
    options = {"data": "digits", "out": tmp_path / "run", "tensorboard": False}
    run = train("rae", epochs=1, width=32, **options)
    expost.fit(run, "gaussian")
    before = expost.evaluate(run, densities=("gaussian",))
    assert "gaussian" in run.generator().densities
    train("rae", epochs=12, resume=True, **options)
    assert run.generator().densities == {}
    assert "density gaussian was fitted before the weights changed" in capsys.readouterr().err
    after = expost.evaluate(run, densities=("gaussian",))  # fits it again
    fresh = expost.Generator.of(run.model())
    fresh.fit("gaussian", run.data().train.x)
    assert torch.equal(run.generator().sample(5, seed=0), fresh.sample(5, seed=0))
    saved = json.loads((tmp_path / "run" / "metrics.json").read_text())["scores"]
    assert {score["card"]["model"] for score in saved} == {after[0].card.model}
    assert before[0].card.model != after[0].card.model


def test_data_that_changed_are_refused(tmp_path):
    values = np.random.default_rng(0).normal(size=(100, 4)).astype(np.float32)
    np.save(tmp_path / "x.npy", values)
    run = train("ae", tmp_path / "x.npy", tmp_path / "run", epochs=1, tensorboard=False)
    np.save(tmp_path / "x.npy", np.concatenate([values, values[:1] + 1]))
    for attempt in (run.data, lambda: train("ae", tmp_path / "x.npy", tmp_path / "run", epochs=2, resume=True)):
        with pytest.raises(DataError, match="has changed since the run was started"):
            attempt()


def test_images_that_another_pillow_resizes_otherwise_are_said_to_be_that(tmp_path, monkeypatch):
    """Another version is faked, and what it does to the images: they are others."""
    images = np.random.default_rng(0).integers(0, 256, (60, 40, 40), dtype=np.uint8)
    np.savez(tmp_path / "x.npz", x=images)
    monkeypatch.setattr("PIL.__version__", "10.3.0")
    run = train("ae", tmp_path / "x.npz", tmp_path / "run", size=32, width=2, epochs=1, tensorboard=False)
    assert run.config.data.resized_by == json.loads((run.folder / "config.json").read_text())["data"]["resized_by"]
    assert run.config.data.resized_by == "10.3.0"
    monkeypatch.setattr("PIL.__version__", "99.0.0")
    assert len(run.data().test) == 6  # another version that gives the same images will do
    np.savez(tmp_path / "x.npz", x=images ^ 1)
    words = "Pillow 10.3.0 resized its images then, Pillow 99.0.0 does now.*; pip install pillow==10.3.0 to go on"
    for attempt in (run.data, lambda: train("ae", tmp_path / "x.npz", run.folder, epochs=2, resume=True)):
        with pytest.raises(DataError, match=words):
            attempt()
    monkeypatch.setattr("PIL.__version__", "10.3.0")
    with pytest.raises(DataError, match="has changed since the run was started") as refused:
        run.data()
    assert "Pillow" not in str(refused.value)
    config = json.loads((run.folder / "config.json").read_text())
    del config["data"]["resized_by"]  # as runs had it before
    (run.folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(DataError, match="has changed since the run was started") as refused:
        Run.open(run.folder).data()
    assert "Pillow" not in str(refused.value)


def test_resume_refuses_another_preset_other_options_and_fewer_epochs(tmp_path):
    common = {"data": "digits", "out": tmp_path / "run", "tensorboard": False}
    train("cv-vae", epochs=2, options={"latent.sigma": 0.5}, **common)
    for changes, message in [
        ({"preset": "paper"}, "preset small, not paper"),
        ({"options": {"latent.sigma": 0.1}}, "latent.sigma 0.5, not 0.1"),
        ({"epochs": 1}, "epochs 2, not 1"),
    ]:
        with pytest.raises(UsageError, match=message):
            train("cv-vae", resume=True, **common, **changes)
    train("cv-vae", resume=True, options={"latent.sigma": 0.5}, preset="small", epochs=3, **common)


def test_loading_a_run_leaves_the_global_generator_alone(tmp_path):
    run, data = start(tmp_path / "run", "ae", epochs=1)
    run.train(data)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    run.model()
    assert torch.equal(torch.rand(3), expected)


def test_one_training_has_a_folder_at_a_time(tmp_path, monkeypatch):
    run, data = start(tmp_path / "run", "rae")
    step, refusals = Loop.step, []

    def stepping(self, order):
        if not refusals:
            other = "import expost, sys; expost.train('rae', 'digits', sys.argv[1], resume=True)"
            found = subprocess.run([sys.executable, "-c", other, str(tmp_path / "run")], capture_output=True, text=True)
            refusals.append(found.stderr)
        return step(self, order)

    monkeypatch.setattr(Loop, "step", stepping)
    run.train(data)
    assert "is being trained by another process; wait for it, or stop it" in refusals[0]
    run.with_training(epochs=run.config.training.epochs + 1).train(data)  # afterwards it is free


def test_fitting_one_density_keeps_what_another_process_has_fitted_meanwhile(tmp_path, monkeypatch):
    run, data = start(tmp_path / "run", "rae")
    run.train(data)
    generator = run.generator("cpu")
    first, second = generator.fit("gaussian", data.train.x), generator.fit("standard-normal", data.train.x)
    save = type(first).save
    other = threading.Thread(target=run.save_density, args=("standard-normal", second))

    def saving(self, path):  # the other begins between the first one's look at the record and its own writing
        monkeypatch.undo()
        other.start()
        other.join(0.5)
        assert other.is_alive()  # it waits
        return save(self, path)

    monkeypatch.setattr(type(first), "save", saving)
    run.save_density("gaussian", first)
    other.join()
    assert set(run.generator("cpu").densities) == {"gaussian", "standard-normal"}


def test_freed_memory_is_kept_in_training_and_given_back():
    """Page faults tell whether a large block comes from the system anew; a process of its own, for a clean heap."""
    program = """
import resource
import torch
from expost.utils.process import freed_memory_kept

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.zeros(2_500_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
with freed_memory_kept():
    faults()
    kept = faults()
print(kept, faults())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    kept, after = map(int, done.stdout.split())
    if sys.platform == "linux" and hasattr(ctypes.CDLL(None), "mallopt"):
        assert kept < 200 < after / 5


def test_saving_that_takes_long_is_not_done_after_every_epoch(tmp_path, monkeypatch):
    """Weights and checkpoint go together, the last epoch is always saved, and the records have all epochs."""
    now = [0.0]
    monkeypatch.setattr(training_module.time, "monotonic", lambda: now[0])
    saves = []

    def slow(path, model, optimizer, position, averaged):
        save_checkpoint(path, model, optimizer, position, averaged)
        now[0] += 0.5  # so that ten seconds have to pass
        saves.append((position.epoch, read_tensors(path.parent / "model.safetensors")[1]["epoch"]))

    def validate(self):
        now[0] += 3.0
        return validation(self)

    validation = Loop.validate
    monkeypatch.setattr(training_module, "save_checkpoint", slow)
    monkeypatch.setattr(Loop, "validate", validate)
    run, data = start(tmp_path / "slow", epochs=10)
    run.train(data)
    lines = [json.loads(line) for line in (tmp_path / "slow" / "metrics.jsonl").read_text().splitlines()]
    best = [max(line["epoch"] for line in lines[:epoch] if line["best"]) for epoch in range(1, 11)]
    assert saves == [(epoch, best[epoch - 1]) for epoch in (1, 5, 9, 10)]
    monkeypatch.undo()
    run, _ = start(tmp_path / "quick", epochs=10)
    run.train(data)
    assert same(weights(tmp_path / "slow"), weights(tmp_path / "quick"))


def test_the_best_weights_are_kept_when_the_loss_stops_being_finite_before_they_were_saved(tmp_path, monkeypatch):
    validation, calls = Loop.validate, []

    def validate(self):
        calls.append(1)
        return validation(self) if len(calls) < 3 else {"total": float("nan")}

    monkeypatch.setattr(Training, "_pays_to_save", lambda self: False)
    monkeypatch.setattr(Loop, "validate", validate)
    run, data = start(tmp_path / "run", epochs=5)
    with pytest.raises(DataError, match="the best weights so far are in"):
        run.train(data)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    record = read_tensors(tmp_path / "run" / "model.safetensors")[1]
    assert record["epoch"] == max(line["epoch"] for line in lines if line["best"])


def kept(folder):
    return read_tensors(folder / "model.safetensors")[1]["epoch"]


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), torch.OutOfMemoryError("CUDA out of memory")]
)
def test_weights_that_are_not_saved_yet_are_saved_when_an_error_ends_the_training(error, tmp_path, monkeypatch):
    add = Records.add

    def failing(self, record, best, train, validation):
        if record["epoch"] == 5:
            raise error
        add(self, record, best, train, validation)

    monkeypatch.setattr(Training, "_pays_to_save", lambda self: self.loop.position.epoch == 1)
    monkeypatch.setattr(Records, "add", failing)
    run, data = start(tmp_path / "run", epochs=8)
    with pytest.raises((OSError, UsageError)):
        run.train(data)
    assert kept(tmp_path / "run") == 5


def test_weights_are_written_before_the_record_that_speaks_of_them(tmp_path, monkeypatch):
    add = Records.add

    def seen(self, record, best, train, validation):
        if best:
            assert kept(tmp_path / "run") == record["epoch"]
        add(self, record, best, train, validation)

    monkeypatch.setattr(Records, "add", seen)
    run, data = start(tmp_path / "run", epochs=3)
    run.train(data)


def test_going_on_from_an_older_checkpoint_does_not_replace_better_weights(tmp_path, monkeypatch):
    """As after a loss that stopped being finite, in another precision: the replay is another one."""
    run, data = start(tmp_path / "run", epochs=4)
    monkeypatch.setattr(Training, "_pays_to_save", lambda self: self.loop.position.epoch == 1)
    validation, calls = Loop.validate, []

    def validate(self):
        calls.append(1)
        return validation(self) if len(calls) < 4 else {"total": float("nan")}

    monkeypatch.setattr(Loop, "validate", validate)
    with pytest.raises(DataError, match="stopped being finite"):
        run.train(data)
    assert kept(tmp_path / "run") == 3
    best = weights(tmp_path / "run")
    monkeypatch.setattr(Loop, "validate", lambda self: {"total": validation(self)["total"] + 100})
    run.train(data)
    assert same(weights(tmp_path / "run"), best)


def test_a_report_says_which_weights_are_there_after_a_kill(tmp_path):
    run, data = start(tmp_path / "run", epochs=4)
    run.train(data)
    path = tmp_path / "run" / "model.safetensors"
    tensors, record = read_tensors(path)
    write_tensors(path, tensors, {**record, "epoch": 1})  # as it is when those of later epochs were not written
    assert History.read(tmp_path / "run" / "metrics.jsonl").best == 1


def test_a_layer_that_asks_for_its_weight_twice_makes_one_power_iteration(tmp_path, monkeypatch):
    run, data = start(tmp_path / "run", "rae-sn", epochs=1)
    forward, counted = torch.nn.Linear.forward, []
    iterate = _SpectralNorm._power_method

    def twice(self, x):
        _ = self.weight
        return forward(self, x)

    def counting(self, *given):
        counted.append(id(self))
        return iterate(self, *given)

    monkeypatch.setattr(torch.nn.Linear, "forward", twice)
    monkeypatch.setattr(_SpectralNorm, "_power_method", counting)
    loop = Loop(run.fresh_model(), data.train.x, data.validation.x, run.config.training)
    loop.model.train()
    counted.clear()
    loop.step(torch.arange(len(data.train)))
    assert counted
    assert len(counted) == len(set(counted))


def test_convolutions_of_two_dimensions_alone_are_laid_out_anew():
    flat, solid, gray = torch.nn.Conv2d(3, 4, 3), torch.nn.Conv3d(2, 3, 3), torch.nn.Conv2d(1, 4, 3)
    model = torch.nn.ModuleList([flat, solid, gray, torch.nn.Linear(4, 5)])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    place(model, torch.device("cpu"))
    assert flat.weight.is_contiguous(memory_format=torch.channels_last)
    assert solid.weight.is_contiguous()
    # of one channel both layouts are one, and strides decide which kernel rounds
    assert gray.weight.stride() == torch.empty(4, 1, 3, 3).to(memory_format=torch.channels_last).stride()
    assert gray.weight.stride() != torch.empty(4, 1, 3, 3).stride()
    assert same(before, model.state_dict())


def test_the_use_of_symbols_is_recorded_and_said(tmp_path, capsys):
    run, data = start(tmp_path / "run", "vq-vae", 2, DataConfig("mnist-5k", limit=60), width=2, precision="float32")
    model = run.train(data)
    history = History.read(tmp_path / "run" / "metrics.jsonl")
    record = history.epochs[history.best - 1]["validation"]
    counts = Generator.of(model).encode(data.validation.x).long().flatten().bincount(minlength=512).double()
    shares = counts[counts > 0] / counts.sum()
    assert record["perplexity"] == pytest.approx(float((-(shares * shares.log()).sum()).exp()), rel=1e-6)
    assert record["usage"] == pytest.approx(float((counts > 0).double().mean()))
    said = f"{history.epochs[-1]['validation']['usage']:.0%} of 512 symbols used, perplexity"
    assert said in capsys.readouterr().err
    assert not {"perplexity", "usage"} & history.epochs[0]["train"].keys()
