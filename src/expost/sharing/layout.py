"""The files of a published run, and how to open one without trusting it."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from expost.config import RunConfig, run_config_from_json
from expost.data import DATASETS
from expost.data.named_strings import STRING_DATASETS
from expost.densities import DENSITIES
from expost.errors import DataError
from expost.models.autoencoder import build
from expost.models.latents import LATENTS
from expost.networks import NETWORKS
from expost.registry import construct
from expost.run import Run
from expost.utils.reading import size_of
from expost.utils.store import read_json

CONFIG, WEIGHTS, SCORES, CARD = "config.json", "model.safetensors", "metrics.json", "README.md"
FITTED_ON = "densities/fitted_on.json"
#: Where a run that was fetched came from: its repository and the commit.
SOURCE = "source.json"
PICTURES = SAMPLES, INTERPOLATIONS, RECONSTRUCTIONS = "samples.png", "interpolations.png", "reconstructions.png"

#: Bytes of JSON that are read at most: a grammar of thousands of rules and the scores of many protocols fit.
LARGEST_JSON = 8_000_000
#: Entries of a list among a part's options at most; the longest lists are the groups of a codec's symbols.
LONGEST_LIST = 16_384

Shapes = dict[str, tuple[int, ...]]


def density_file(name: str) -> str:
    """Return the path of a density within a published run."""
    return f"densities/{name}.safetensors"


def known_files() -> tuple[str, ...]:
    """Return the fixed list of files that are fetched or copied; a repository cannot add to it."""
    return (CONFIG, WEIGHTS, SCORES, FITTED_ON, *(density_file(name) for name in DENSITIES))


def open_untrusted(folder: Path) -> Run:
    """Open a published run and check that its configuration and its weights belong together.

    The configuration alone never decides how much memory is taken: networks are built on torch's meta device and
    compared with the shapes in the header of the weights' file.

    Raises:
        DataError: if a file is missing or damaged, or asks for what is not there.
    """
    path = folder / CONFIG
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise DataError(f"{folder} holds no expost model: it has no {name}; give a folder or repository that has")
    for name in (CONFIG, SCORES, FITTED_ON):
        if (folder / name).is_file() and (folder / name).stat().st_size > LARGEST_JSON:
            raise DataError(f"{folder / name} is larger than {LARGEST_JSON:,} bytes, and is not read")
    config = run_config_from_json(read_json(path), path)
    if config.own_networks:
        raise DataError(
            f"{folder} needs its maker's own networks, whose code is not part of it; with that code at hand use "
            "expost.Run.open(folder, networks=(encoder, decoder))"
        )
    _check_sizes(config, _shapes(folder / WEIGHTS), path)
    return Run(folder, config)


def _shapes(path: Path) -> Shapes:
    """Read the tensors' shapes from a file's header, which safetensors checks against the file's size."""
    try:
        size_of(path)
        with safe_open(path, framework="pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise DataError(f"cannot read {path}: truncated or not safetensors ({error}); fetch it again") from None


def _check_sizes(config: RunConfig, shapes: Shapes, path: Path) -> None:
    """Compare the sizes in a configuration with the tensors of the file, the cheapest check first.

    Raises:
        DataError: naming the first difference.
    """
    model = config.model
    numbers = sum(math.prod(shape) for shape in shapes.values())
    for name, value in (
        ("shape", max(model.shape, default=0)),
        ("width", model.width),
        ("latent_dim", model.latent_dim),
    ):
        if not value <= numbers:
            raise DataError(f"{path}: {name} is {value}, but {WEIGHTS} holds {numbers:,} numbers in all; restore it")
    for slot in (model.latent, model.penalty, model.regularizer, model.reconstruction, model.prior):
        for values in _lists(slot.options if slot else {}):
            if len(values) > min(LONGEST_LIST, max(64, *model.shape)):
                raise DataError(f"{path}: an option of '{slot and slot.name}' has {len(values):,} entries; restore it")
    codec = config.data.codec
    if codec is not None and codec.options.get("length") != model.shape[0]:
        raise DataError(f"{path}: codec and model differ in length; restore it")
    try:
        with torch.device("meta"):
            spatial = LATENTS[model.latent.name].spatial
            # before anything runs: how long a recurrent network takes depends on the length, which is checked here
            networks = NETWORKS[model.network](model.shape, model.latent_dim, model.width, spatial, model.depth)
            for part, network in zip(("encoder", "decoder"), networks, strict=True):
                _compare(_plain({f"{part}.{k}": v for k, v in _own(network).items()}), _plain(shapes), path)
            wanted = _own(build(model))
        if model.prior is not None:
            construct(DENSITIES, model.prior)
    except (ValueError, RuntimeError, OverflowError, MemoryError, TypeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} describes no model that can be built: {' '.join(str(error).split())[:300]}") from None
    _compare(wanted, shapes, path)
    if left := sorted(shapes.keys() - wanted.keys()):
        raise DataError(f"{path.with_name(WEIGHTS)} has tensor '{left[0]}', which the model of {CONFIG} does not have")


def _own(module: nn.Module) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def _plain(shapes: Mapping[str, tuple[int, ...]]) -> Shapes:
    """Rename reparametrised weights to their plain names."""
    return {re.sub(r"\.parametrizations\.(\w+)\.original$", r".\1", name): shape for name, shape in shapes.items()}


def _compare(wanted: Shapes, found: Shapes, path: Path) -> None:
    for name, shape in wanted.items():
        if found.get(name) != shape:
            has = f"has {found[name]}" if name in found else "has none"
            raise DataError(f"{path} asks for tensor '{name}' of shape {shape}, but {WEIGHTS} {has}; restore it")


def _lists(value: Any) -> Iterator[list[Any] | tuple[Any, ...]]:
    if isinstance(value, Mapping):
        for each in value.values():
            yield from _lists(each)
    elif isinstance(value, list | tuple):
        yield value
        for each in value:
            yield from _lists(each)


def public_name(name: str) -> str:
    """Return a data set's name; for a path only its last part, so that no folder names are published.

    Example:
        >>> public_name("mnist-5k"), public_name("/home/me/secret/cats.npz"), public_name("/home/me/mnist-5k")
        ('mnist-5k', 'cats.npz', 'mnist-5k (own files)')
    """
    if name in DATASETS or name in STRING_DATASETS:
        return name
    last = os.path.basename(name.replace("\\", "/").rstrip("/")) or "unnamed"
    return f"{last} (own files)" if last in DATASETS or last in STRING_DATASETS else last
