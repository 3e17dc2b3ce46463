"""Resuming a training: which settings may change, and in which precision it goes on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from expost.config import TrainingConfig, to_json
from expost.errors import UsageError
from expost.run import Run
from expost.training.devices import device_to_go_on, pick_device
from expost.training.lock import training_lock
from expost.utils.arithmetic import Precision
from expost.utils.precision import Choice, bf16_warning, choose
from expost.utils.progress import say


def go_on(run: Run, asked: Mapping[str, Any], slots: Mapping[str, Any], dry_run: bool) -> Run:
    """Resume a run with its saved configuration.

    Args:
        run: The run.
        asked: Settings given now, by their place in the configuration, for example "training.epochs".
        slots: Options of the model's slots given now.
        dry_run: Check the settings, and stop.

    Raises:
        UsageError: if a setting contradicts the saved configuration; only more epochs, another device and another
            precision are allowed.
    """
    asked = dict(asked)
    epochs, device = asked.pop("training.epochs", None), asked.pop("training.device", None)
    precision = asked.pop("training.precision", None)
    saved = to_json(run.config)
    for key, value in asked.items():
        part, _, name = key.partition(".")
        old = saved[part][name] if name else saved[part]
        _refuse_change(run, key, old["name"] if isinstance(old, Mapping) else old, value)  # of a slot, its entry
    for key, value in slots.items():
        slot, _, option = key.partition(".")
        _refuse_change(run, key, saved["model"].get(slot, {}).get("options", {}).get(option), value)
    if epochs is not None and epochs < run.config.training.epochs:
        _refuse_change(run, "training.epochs", run.config.training.epochs, epochs)
    trained_on = run.config.training.device
    device = device or device_to_go_on(trained_on)
    moved = ""
    if device_to_go_on(trained_on) != trained_on:
        moved = (
            f"device: {run.folder} was trained on {trained_on}, not found here, and goes on on {pick_device(device)}"
        )
    run = run.with_training(epochs=epochs or run.config.training.epochs, device=device)
    run, said = _resumed_precision(run, precision)
    if dry_run:
        said = said or f"precision: {run.config.training.precision}, as it was trained"
        return replace(run, dry=True, note="\n".join(filter(None, (moved, said))))
    for line in filter(None, (moved, said)):
        say(line)
    examples = run.data()
    with training_lock(run.folder):
        run.save_config()
        run.train(examples)
    return run


def as_saved(value: Any) -> Any:
    """Return an option as a saved configuration has it: a tuple is a list there."""
    return list(value) if isinstance(value, tuple) else value


def precision_note(training: TrainingConfig, chosen: Choice) -> str:
    """Return a remark on the precision of a training; empty if it was asked for and the device has it in hardware."""
    if training.precision == "auto":
        return f"precision: {chosen}"
    if chosen.arithmetic == "bf16" and not chosen.hardware:
        slow = bf16_warning(pick_device(training.device))
        return f"precision: bf16, as asked for; {slow}; --precision auto is faster"
    return ""


def _resumed_precision(run: Run, asked: Precision | None) -> tuple[Run, str]:
    """Return the run with the precision to go on in, and a remark on it.

    A run goes on as it was trained, except where it was trained in bf16 and this device has no instructions for it.
    """
    training = run.config.training
    device = pick_device(training.device)
    chosen = choose(asked or training.precision, device)
    if asked is None and not chosen.hardware:
        chosen = choose("auto", device)
    if chosen.arithmetic == training.precision:
        return run, precision_note(replace(training, precision=asked or training.precision), chosen)
    return (
        run.with_training(precision=chosen.arithmetic),
        f"precision: {run.folder} was trained in {run.precision()} and goes on in {chosen}; the weights and the "
        "optimizer's state are float32 in both",
    )


def _refuse_change(run: Run, key: str, old: Any, new: Any) -> None:
    if new != old:
        raise UsageError(f"{run.folder} was trained with {key} {old}, not {new}; drop that option, or start a new run")
