"""Checkpoints: weights, their mean, optimizer and position of a run in one safetensors file, replaced as a whole."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from expost.errors import DataError
from expost.training.averaging import Averaged
from expost.training.loop import Position
from expost.utils.store import read_tensors, write_tensors

_MOMENTS = frozenset(("exp_avg", "exp_avg_sq"))
_ADAM = _MOMENTS | {"step"}


def save_checkpoint(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    position: Position,
    averaged: Averaged | None = None,
) -> None:
    """Write weights, their mean, optimizer state and position to `path`; the checkpoint before it is kept beside it."""
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    if averaged is not None:
        tensors |= {f"mean.{name}": tensor for name, tensor in averaged.tensors.items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": tensor for name, tensor in state.items()}
    write_tensors(path, tensors, asdict(position), keep=previous(path))


def previous(path: Path) -> Path:
    """Return where the checkpoint before `path` is kept."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def load_checkpoint(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, averaged: Averaged | None = None
) -> Position:
    """Load weights, their mean and optimizer state in place, and return the position.

    Raises:
        DataError: if the file is damaged, or is of another model.
    """
    tensors, record = read_tensors(path)
    position = _position(path, record)
    load_weights(path, model, {name[6:]: tensor for name, tensor in tensors.items() if name.startswith("model.")})
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    names = (name for name in tensors if name.startswith("optimizer."))
    try:
        state = _state({name.removeprefix("optimizer."): tensors[name] for name in names}, parameters)
    except (ValueError, IndexError, KeyError) as error:
        raise DataError(
            f"{path} is no checkpoint of this model's optimizer ({error}); remove it to start anew"
        ) from None
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    if averaged is not None:
        _load_mean(path, averaged, {name[5:]: tensor for name, tensor in tensors.items() if name.startswith("mean.")})
    return position


def _load_mean(path: Path, averaged: Averaged, tensors: Mapping[str, Tensor]) -> None:
    for name, mean in averaged.tensors.items():
        if name not in tensors or tensors[name].shape != mean.shape:
            raise DataError(f"{path} lacks the mean of the weights '{name}'; remove it to start anew")
        mean.copy_(tensors[name])


def _state(tensors: Mapping[str, Tensor], parameters: Sequence[Tensor]) -> dict[int, dict[str, Tensor]]:
    """Return Adam's state of each parameter, which is whole: the number of its steps, and two moments of its shape.

    Raises:
        ValueError, IndexError: if something lacks, is left over, or has another shape.
    """
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, _, key = name.partition(".")
        like = parameters[int(index)]
        if key not in _ADAM or tensor.shape != (like.shape if key in _MOMENTS else ()):
            raise ValueError(f"'{name}' of shape {tuple(tensor.shape)}")
        if key in _MOMENTS:  # moments keep the layout of their parameter, so that the fused step runs as it did
            tensor = torch.empty_like(like).copy_(tensor)
        state.setdefault(int(index), {})[key] = tensor
    for found, values in state.items():
        if values.keys() != _ADAM:
            raise ValueError(f"it lacks '{found}.{min(_ADAM - values.keys())}'")
    return state


def _position(path: Path, record: dict[str, Any]) -> Position:
    """Return the position that a record holds; every field has to be there, or training would begin anew unnoticed."""
    try:
        position = Position(**record)
        sound = record.keys() == {field.name for field in fields(Position)} and bool(position.plateau)
        sound = sound and 0 < position.lr < math.inf and min(position.epoch, position.step, position.steps) >= 0
    except TypeError:
        sound = False
    if not sound:
        raise DataError(f"{path} is no training checkpoint, or damaged; remove it to train from the start")
    return position


def load_weights(path: Path, model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Load weights into a model; an error names the file and what does not fit.

    Raises:
        DataError: if a weight is missing, left over, or of another shape.
    """
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise DataError(f"{path} does not fit the model of its config.json: {reason}") from None
