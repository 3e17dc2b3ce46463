"""The presets: sizes, weights and schedules for a model on data of a given shape.

`paper` is the official code's configuration, converted to the paper's form of the objective; see `official`. `small`
takes the official weights of the nearest of the three data sets, with networks a quarter as wide, for a 2-core machine.
`residual` and `residual-gpu` take these weights with the residual pair, a cosine and averaged weights, for 2 cores and
for a GPU.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from expost.config import ModelConfig, TrainingConfig
from expost.densities import DENSITIES
from expost.errors import UsageError
from expost.models.latents import LATENTS
from expost.models.official import (
    KERAS_MIN_DELTA,
    PAPER,
    Official,
    Setting,
    learning_rate,
    loss_scale,
    made_of,
    nearest_setting,
    paper_weights,
)
from expost.models.penalties import PENALTIES
from expost.models.reconstructions import RECONSTRUCTIONS
from expost.models.regularizers import REGULARIZERS, GradientPenalty, Regularizer
from expost.models.string_presets import published_objective, strings
from expost.models.zoo import ZOO
from expost.networks import NETWORKS
from expost.registry import Part, Registry
from expost.types import Layout, layout_of
from expost.utils.arithmetic import Precision

K = TypeVar("K")

#: From a model's name, the shape of one example, and what is given by hand, to the configuration.
Resolve = Callable[[str, Sequence[int], Mapping[str, Any]], tuple[ModelConfig, TrainingConfig]]

#: Options of regularizers on the convolutional networks of preset `small`. A part of a batch costs a part of the time,
#: and its expectation is the whole's but for batch norm, which then takes the statistics of the part;
#: `benchmarks/train_step.py` has the times.
_SMALL_OPTIONS: Mapping[type[Regularizer], Mapping[str, Any]] = {GradientPenalty: {"fraction": 0.25}}


#: How presets of the residual pair train.
_TODAY: dict[str, Any] = {"schedule": "cosine", "lr_warmup": 1.0, "ema": 0.999, "clip": 1.0}
_LONGER: dict[str, Any] = {"epochs": 100, "ema": 0.9995}

#: Preset `small` trains for at least so many steps: fewer leave a model that has hardly learned.
LEAST_STEPS = 1500
#: For that it first makes batches smaller, until an epoch has this many steps, but not below this size.
STEPS_AN_EPOCH, SMALLEST_BATCH = 60, 16
#: It takes at least so many steps between two cuts of the learning rate, down to this part of the first.
STEPS_BETWEEN_CUTS, LEAST_RATE = 300, 0.01


def _with_options(registry: Registry[type[K]], part: Part, options: Mapping[type[K], Mapping[str, Any]]) -> Part:
    """Return a part with a preset's options of its class; its own options win."""
    return Part(part.name, {**options.get(registry[part.name], {}), **part.options})


def _official(name: str, setting: Setting, given: Mapping[str, Any]) -> Official:
    """Return a model's official weights, by what it is made of.

    Raises:
        UsageError: if nothing is published of such a row, and a weight that it needs is not given either.
    """
    row = ZOO[name]
    found = setting.weights.get(made_of(row))
    if found is not None:
        return found
    missing = []
    if PENALTIES[row.penalty.name].has_term and row.beta is None and given.get("beta") is None:
        missing.append(f"--beta, the weight of {row.penalty.name}")
    if REGULARIZERS[row.regularizer.name].has_term and given.get("regularizer_weight") is None:
        missing.append(f"--regularizer-weight, that of {row.regularizer.name}")
    if missing:
        raise UsageError(
            f"no weights are published for model '{name}' ({row.latent.name}, {row.penalty.name}, "
            f"{row.regularizer.name}); give {' and '.join(missing)}"
        )
    return Official()


def _resolve(
    name: str,
    shape: Sequence[int],
    setting: Setting,
    width: int,
    network: str,
    latent_dim: int,
    published: bool,
    given: Mapping[str, Any],
) -> tuple[ModelConfig, TrainingConfig]:
    row = ZOO[name]
    official = _official(name, setting, given)
    beta, weight = paper_weights(official, row.family, shape, latent_dim)
    regularizer, prior = row.regularizer, row.prior
    if NETWORKS[network].official:
        regularizer = _with_options(REGULARIZERS, regularizer, setting.regularizer_options)
    if NETWORKS[network].layout is Layout.IMAGE and not published:
        regularizer = _with_options(REGULARIZERS, regularizer, _SMALL_OPTIONS)
    if published:  # preset small lets a second stage learn its weight, which samples better
        prior = _with_options(DENSITIES, prior, setting.prior_options)
    model = ModelConfig(
        name=name,
        shape=tuple(shape),
        latent=row.latent,
        penalty=row.penalty,
        regularizer=regularizer,
        reconstruction=Part("squared-error"),
        prior=prior,
        network=network,
        width=width,
        latent_dim=latent_dim,
        beta=beta if row.beta is None else row.beta,
        regularizer_weight=weight,
        input_noise=setting.input_noise if row.family == "wae" else 0.0,
        standardize=layout_of(shape) is Layout.VECTOR,
    )
    training = TrainingConfig(
        epochs=official.epochs or setting.epochs,
        lr=learning_rate(row.family, setting),
        min_delta=KERAS_MIN_DELTA * loss_scale(official, row.family, shape),
        watch="objective",
    )
    return model, training


def paper(name: str, shape: Sequence[int], given: Mapping[str, Any]) -> tuple[ModelConfig, TrainingConfig]:
    """Return the paper's configuration for data shaped like MNIST, CIFAR-10 or CelebA as it prepares them, or strings.

    Args:
        name: Row of the zoo.
        shape: Shape of one example.
        given: Fields of `ModelConfig` that are given by hand; a weight among them need not be published.

    Raises:
        UsageError: for another shape, and for weights that are neither published nor given.
    """
    if layout_of(shape) is Layout.SEQUENCE:
        return strings(name, shape, True, given)
    for setting in PAPER.values():
        if tuple(shape) == setting.shape:
            width = _official(name, setting, given).width
            latent = ZOO[name].latent
            latent_dim = LATENTS[latent.name].dimension(latent.options, setting.latent_dim)
            return _resolve(name, shape, setting, width, setting.network, latent_dim, True, given)
    shapes = ", ".join(f"{key} {setting.shape}" for key, setting in PAPER.items())
    raise UsageError(
        f"preset paper knows the shapes {shapes}, not {tuple(shape)}; use preset small, or --size 32 or 64"
    )


def published(name: str, shape: Sequence[int], given: Mapping[str, Any]) -> tuple[ModelConfig, TrainingConfig]:
    """Return the paper's configuration of strings, with the objective of the Grammar VAE's code.

    Arguments as of `paper`; see `string_presets`.

    Raises:
        UsageError: for anything but strings.
    """
    if layout_of(shape) is not Layout.SEQUENCE:
        raise UsageError(f"preset published is for strings, not for examples of shape {tuple(shape)}; use preset paper")
    return published_objective(name, shape, given)


def small(name: str, shape: Sequence[int], given: Mapping[str, Any]) -> tuple[ModelConfig, TrainingConfig]:
    """Return a configuration for a 2-core machine: a quarter of the paper's width, 25 epochs, one learning rate.

    Strings get smaller networks; see `string_presets`. Images with sides of 28 to 128 get the convolutional pair of
    the nearest paper data set, everything else the multilayer perceptron. Arguments as of `paper`.
    """
    if layout_of(shape) is Layout.SEQUENCE:
        return strings(name, shape, False, given)
    images, setting, asked = layout_of(shape) is Layout.IMAGE, nearest_setting(shape), given.get("network")
    pair = asked if asked is not None and NETWORKS[asked].layout is Layout.IMAGE else setting.network
    smallest, largest = NETWORKS[pair].sides
    if images and max(shape[1:]) > largest:
        wider = [f"--network {name}" for name, each in NETWORKS.items() if each.sides[1] >= max(shape[1:])]
        raise UsageError(
            f"images are {shape[1]}x{shape[2]}, larger than {largest}; "
            f"{' or '.join(['bring them to size, e.g. --size 64', *(f'take {each}' for each in wider)])}"
        )
    convolutional = images and min(shape[1:]) >= smallest
    latent_dim = min(setting.latent_dim, 64) if convolutional else max(1, min(16, math.prod(shape) // 4))
    latent = ZOO[name].latent
    if LATENTS[latent.name].spatial:
        latent_dim = LATENTS[latent.name].dimension(latent.options, min(16, math.prod(shape)))  # of a vector of the map
    width, network = (32, pair) if convolutional else (256, "mlp")
    model, _ = _resolve(name, shape, setting, width, network, latent_dim, False, given)
    precision: Precision = "auto" if convolutional else "float32"
    return model, TrainingConfig(epochs=25, lr=1e-3, precision=precision)


def _reconstruction(name: str | None, shape: Sequence[int]) -> Part | None:
    """Return the reconstruction that is asked for; None for the preset's.

    Raises:
        UsageError: if it does not compare examples of this shape.
    """
    layout = layout_of(shape)
    if name is None or layout in RECONSTRUCTIONS[name].layouts:
        return None if name is None else Part(name)
    suited = [each for each, kind in RECONSTRUCTIONS.items() if layout in kind.layouts]
    raise UsageError(
        f"reconstruction '{name}' is not for examples of shape {tuple(shape)}; choose one of: {', '.join(suited)}"
    )


def _residual(width: int, depth: int, changes: Mapping[str, Any]) -> Resolve:
    """Return a preset of the residual pair: weights of the nearest data set of the paper, and schedules of today.

    Args:
        width: Channels of the largest map.
        depth: Blocks on each map.
        changes: Fields of `TrainingConfig`.
    """

    def resolve(name: str, shape: Sequence[int], given: Mapping[str, Any]) -> tuple[ModelConfig, TrainingConfig]:
        if layout_of(shape) is not Layout.IMAGE:
            raise UsageError(
                f"presets of the residual network are for images, not for examples of shape {tuple(shape)}; use "
                "preset small"
            )
        network = given.get("network", "residual")
        config, training = small(name, shape, {**given, "network": network})
        deep = depth if NETWORKS[network].deep is not None else None
        return replace(config, width=width, depth=deep), replace(training, **changes)

    return resolve


@dataclass(frozen=True)
class Preset:
    """Where a model's configuration comes from.

    Attributes:
        resolve: From a model's name, the shape of one example, and what is given by hand, to the configuration.
        published: Whether strings are encoded by the published grammar, and the length of training is as published,
            however few the examples are.
        layouts: Layouts of the examples that it is for.
    """

    resolve: Resolve
    published: bool
    layouts: Collection[Layout]


PRESETS: Registry[Preset] = Registry(
    "preset",
    {
        "small": Preset(small, False, tuple(Layout)),
        "paper": Preset(paper, True, (Layout.IMAGE, Layout.SEQUENCE)),
        "published": Preset(published, True, (Layout.SEQUENCE,)),
        "residual": Preset(_residual(32, 1, _TODAY), False, (Layout.IMAGE,)),
        "residual-gpu": Preset(_residual(96, 2, _TODAY | _LONGER), False, (Layout.IMAGE,)),
    },
)


def _long_enough(training: TrainingConfig, examples: int, given: Collection[str]) -> TrainingConfig:
    """Count the length of training in steps: batches shrink, then epochs grow, until there are `LEAST_STEPS`.

    The patience of the learning rate becomes at least `STEPS_BETWEEN_CUTS`, in whole epochs, and its floor a
    `LEAST_RATE` of the first.

    Args:
        training: The preset's settings, with those that are given by hand.
        examples: Number of training examples, at least 1.
        given: Names of the settings that are given by hand, which stay.
    """
    if "batch_size" not in given:
        batch_size = min(training.batch_size, max(SMALLEST_BATCH, examples // STEPS_AN_EPOCH))
        training = replace(training, batch_size=batch_size)
    _, steps = training.batches(examples)
    resolved: dict[str, Any] = {
        "epochs": max(training.epochs, math.ceil(LEAST_STEPS / steps)),
        "patience": max(training.patience, math.ceil(STEPS_BETWEEN_CUTS / steps)),
        "min_lr": LEAST_RATE * training.lr,
    }
    return replace(training, **{name: value for name, value in resolved.items() if name not in given})


def configure(
    model: str,
    shape: Sequence[int],
    preset: str = "small",
    model_overrides: Mapping[str, Any] | None = None,
    training_overrides: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    own_networks: bool = False,
    examples: int | None = None,
) -> tuple[ModelConfig, TrainingConfig]:
    """Resolve a model's configuration: the preset's, with overrides.

    Args:
        model: Row of the zoo.
        shape: Shape of one example.
        preset: Entry of `PRESETS`.
        model_overrides: Fields of `ModelConfig`, the reconstruction by its name; None values are ignored. A new
            `latent_dim` converts the weights anew.
        training_overrides: Fields of `TrainingConfig`; None values are ignored.
        options: Options of slot entries as "slot.option", for example {"regularizer.scope": "both"}.
        own_networks: Whether encoder and decoder are a person's own: then what a preset sets for its own convolutions
            (precision, and which kernels are decayed) gives way to the defaults.
        examples: Number of training examples. Preset small then trains for at least `LEAST_STEPS` steps; None leaves
            batches and epochs as they are for many examples.

    Raises:
        UsageError: for unknown names, and values out of range.

    Example:
        >>> model, training = configure("rae-l2", (1, 32, 32), "paper")
        >>> model.beta, model.regularizer_weight, training.lr
        (0.0128, 0.0001024, 0.0005)
    """
    row = ZOO[model]
    changes = {key: value for key, value in (model_overrides or {}).items() if value is not None}
    config, training = PRESETS[preset].resolve(model, shape, changes)
    if "beta" in changes and not PENALTIES[row.penalty.name].has_term:
        raise UsageError(f"model '{model}' has no latent penalty for beta={changes['beta']:g} to weigh; use 'rae'")
    if "regularizer_weight" in changes and not REGULARIZERS[row.regularizer.name].has_term:
        raise UsageError(f"model '{model}' has no regularizer term to weigh by {changes['regularizer_weight']:g}")
    network = changes.get("network", config.network)
    flattens = NETWORKS[network].layout is None and NETWORKS[config.network].layout is not None
    if own_networks or (NETWORKS[config.network].official and not NETWORKS[network].official):
        config = replace(config, regularizer=row.regularizer)
    if own_networks or flattens:
        config = replace(config, width=256, depth=None)
        training = replace(training, precision="float32")
    if "latent_dim" in changes and row.family == "rae" and changes["latent_dim"] > 0:
        changes.setdefault("beta", config.beta * config.latent_dim / changes["latent_dim"])
    slots = {
        "latent": config.latent, "penalty": config.penalty, "regularizer": config.regularizer,
        "reconstruction": _reconstruction(changes.pop("reconstruction", None), shape) or config.reconstruction,
        "prior": config.prior,
    }  # fmt: skip
    changes["reconstruction"] = slots["reconstruction"]
    for key, value in (options or {}).items():
        slot, _, option = key.partition(".")
        part = slots.get(slot)
        if part is None or not option:
            raise UsageError(f"unknown option '{key}'; write SLOT.OPTION=VALUE with SLOT one of: {', '.join(slots)}")
        changes[slot] = Part(part.name, {**part.options, **changes.get(slot, part).options, option: value})
    if "latent_dim" not in changes and "latent" in changes:
        kind, given = LATENTS[row.latent.name], changes["latent"].options
        changes["latent_dim"] = kind.dimension(given, config.latent_dim)
    kept = {key: value for key, value in (training_overrides or {}).items() if value is not None}
    config, training = replace(config, **changes), replace(training, **kept)
    if examples and not PRESETS[preset].published:
        training = _long_enough(training, examples, kept)
    _check_schedule(model, training, kept)
    return config, training


def _check_schedule(model: str, training: TrainingConfig, given: Collection[str]) -> None:
    """Refuse settings of the schedule that would change nothing, and warm-ups that would never end.

    Raises:
        UsageError: with the setting.
    """
    if training.schedule != "plateau":
        for name in ("patience", "factor", "min_delta"):
            if name in given:
                raise UsageError(f"{name} is for schedule plateau, not for {training.schedule}; leave it out")
    if training.beta_warmup and not PENALTIES[ZOO[model].penalty.name].has_term:
        raise UsageError(f"model '{model}' has no latent penalty for beta_warmup={training.beta_warmup:g} to raise")
    for name in ("lr_warmup", "beta_warmup"):
        if getattr(training, name) > training.epochs:
            raise UsageError(
                f"{name} is {getattr(training, name):g} epochs, of {training.epochs} in all; give at most those"
            )
