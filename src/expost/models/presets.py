"""The presets: sizes, weights and schedules for a model on data of a given shape.

`paper` is the official code's configuration, converted to the paper's form of the objective, in which every term is
summed over an example's dimensions. With N = C * H * W pixels and d latent dimensions the official losses are

| family | official loss | divided out | paper form |
|---|---|---|---|
| RAE | mean over pixels + b * mean over d of z^2 + l * sum theta^2 | times N | beta = 2 b N / d, lambda = l N |
| VAE | sum over H, W of the mean over C + k * KL | times C | beta = k C |
| WAE | mean over pixels + m * MMD | times N | beta = m N |
| WAE (CelebA) | s * sum + m * MMD | divided by s | beta = m / s |

Scaling a loss by a constant leaves Adam's steps as they were (up to its epsilon), so learning rates carry over as they
are. `small` takes the official weights of the nearest of the three data sets, with networks a quarter as wide, for a
2-core machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from expost.config import ModelConfig, TrainingConfig
from expost.errors import UsageError
from expost.models.string_presets import published_objective, strings
from expost.models.zoo import ZOO, Made
from expost.registry import Part, Registry
from expost.utils.arithmetic import Precision


@dataclass(frozen=True)
class Official:
    """What the official configuration says of one model on one data set; weights in its own scaling.

    Attributes:
        b: Weight of the mean over latent dimensions of z^2 (RAE family).
        l: Weight of the sum of squared decoder weights (RAE family).
        k: Weight of the KL divergence (VAE family).
        m: Weight of the MMD (WAE).
        s: Scale of the summed squared error (WAE on CelebA); 0 where the error is a mean.
        epochs: Passes over the training set; None takes the data set's.
        width: Channels of the first convolution.
    """

    b: float = 0.0
    l: float = 0.0  # noqa: E741 (the official code's symbol)
    k: float = 0.0
    m: float = 0.0
    s: float = 0.0
    epochs: int | None = None
    width: int = 128


@dataclass(frozen=True)
class Setting:
    """One of the paper's three data sets.

    Attributes:
        shape: (C, H, W).
        latent_dim: d.
        network: Entry of the network slot.
        epochs: Passes over the training set.
        lr: Initial learning rate of the RAE family.
        tikhonov: Which decoder weights the official code decays.
        gradient_penalty: lambda of the gradient penalty in paper form. Ours, since the official penalty is another
            quantity (see `GradientPenalty`): chosen on the validation split of mnist-5k (results/gradient_penalty.md).
        input_noise: Standard deviation of the WAE's input noise.
        second_stage: Weight of the KL divergence of a second stage (two-stage VAE).
        weights: The official weights by what a row of the zoo is made of.
    """

    shape: tuple[int, int, int]
    latent_dim: int
    network: str
    epochs: int
    lr: float
    tikhonov: str
    gradient_penalty: float
    input_noise: float
    second_stage: float
    weights: Mapping[Made, Official]


#: What the paper's rows are made of.
AE: Made = ("deterministic", "none", "none")
AE_L2: Made = ("deterministic", "none", "tikhonov")
RAE: Made = ("deterministic", "half-norm", "none")
RAE_L2: Made = ("deterministic", "half-norm", "tikhonov")
RAE_GP: Made = ("deterministic", "half-norm", "gradient-penalty")
RAE_SN: Made = ("deterministic", "half-norm", "spectral-norm")
VAE: Made = ("gaussian", "kl", "none")
CV_VAE: Made = ("constant-variance", "kl", "none")
WAE: Made = ("deterministic", "mmd", "none")

PAPER: Mapping[str, Setting] = {
    "mnist": Setting(
        shape=(1, 32, 32),
        latent_dim=16,
        network="conv4",
        epochs=100,
        lr=5e-4,
        tikhonov="transposed-convolutions",
        gradient_penalty=1e-3,
        input_noise=0.0,
        second_stage=1.5e-3,
        weights={
            AE: Official(),
            AE_L2: Official(l=1e-7),
            RAE: Official(b=5e-4),
            RAE_L2: Official(b=1e-4, l=1e-7),
            RAE_GP: Official(b=1e-4),
            RAE_SN: Official(b=9e-3),
            VAE: Official(k=0.312),
            CV_VAE: Official(k=0.039),
            WAE: Official(m=3e-2),
        },
    ),
    "cifar10": Setting(
        shape=(3, 32, 32),
        latent_dim=128,
        network="conv4",
        epochs=100,
        lr=5e-4,
        tikhonov="transposed-convolutions",
        gradient_penalty=1e-3,
        input_noise=0.0,
        second_stage=1e-3,
        weights={
            AE: Official(),
            AE_L2: Official(l=1e-6),
            RAE: Official(b=1e-2),
            RAE_L2: Official(b=1e-3, l=1e-6),
            RAE_GP: Official(b=9e-4, epochs=70),
            RAE_SN: Official(b=3e-2),
            VAE: Official(k=0.024),
            CV_VAE: Official(k=9e-4, epochs=70),
            WAE: Official(m=6e-3, epochs=70),
        },
    ),
    "celeba": Setting(
        shape=(3, 64, 64),
        latent_dim=64,
        network="conv5-celeba",
        epochs=70,
        lr=1e-3,
        tikhonov="kernels",
        gradient_penalty=1e-3,
        input_noise=0.01,
        second_stage=2e-3,
        weights={
            AE: Official(),
            AE_L2: Official(l=1e-6, epochs=100),
            RAE: Official(b=1e-4),
            RAE_L2: Official(b=1e-4, l=1e-7),
            RAE_GP: Official(b=1e-4),
            RAE_SN: Official(b=2.4e-3),
            VAE: Official(k=0.09024),
            CV_VAE: Official(k=0.01, width=64),
            WAE: Official(m=100.0, s=0.05),
        },
    ),
}


#: By how much Keras' plateau wants a loss to fall, in the official scaling of the loss.
KERAS_MIN_DELTA = 1e-4
#: Sides of the images that the convolutional networks take, in pixels.
SMALLEST_SIDE, LARGEST_SIDE = 28, 128
#: Initial learning rates of the official code outside the RAE family, whose rate depends on the data set.
_LR = {"vae": 1e-4, "wae": 1e-3, "none": 5e-4}


def paper_weights(official: Official, family: str, shape: Sequence[int], latent_dim: int) -> tuple[float, float]:
    """Convert official weights to the paper's form of the objective (see the table above).

    Args:
        official: Weights in the official scaling.
        family: "rae", "vae", "wae" or "none".
        shape: (C, H, W), or (d,) for vectors.
        latent_dim: d.

    Returns:
        beta and lambda.

    Example:
        >>> paper_weights(Official(b=1e-4, l=1e-7), "rae", (1, 32, 32), 16)
        (0.0128, 0.0001024)
    """
    scale = loss_scale(official, family, shape)
    conversions: Mapping[str, tuple[float, float]] = {
        "rae": (2 * official.b * scale / latent_dim, official.l * scale),
        "vae": (official.k * scale, 0.0),
        "wae": (official.m * scale, 0.0),
        "none": (0.0, 0.0),
    }
    return conversions[family]


def loss_scale(official: Official, family: str, shape: Sequence[int]) -> float:
    """Return how many times the official loss ours is; arguments as of `paper_weights`.

    Example:
        >>> loss_scale(Official(), "rae", (3, 32, 32)), loss_scale(Official(), "vae", (3, 32, 32))
        (3072, 3)
    """
    pixels, channels = math.prod(shape), shape[0] if len(shape) == 3 else 1
    scales: Mapping[str, float] = {
        "rae": pixels,
        "vae": channels,
        "wae": 1 / official.s if official.s else pixels,
        "none": 1,
    }
    return scales[family]


def _nearest_setting(shape: Sequence[int]) -> Setting:
    if len(shape) != 3 or shape[0] == 1:
        return PAPER["mnist"]
    return PAPER["celeba" if max(shape[1:]) > 48 else "cifar10"]


def _official(name: str, setting: Setting, given: Mapping[str, Any]) -> Official:
    """Return a model's official weights, by what it is made of.

    Raises:
        UsageError: if nothing is published of such a row, and a weight that it needs is not given either.
    """
    row = ZOO[name]
    found = setting.weights.get(row.made)
    if found is not None:
        return found
    missing = []
    if row.penalty.name != "none" and row.beta is None and given.get("beta") is None:
        missing.append(f"--beta, the weight of {row.penalty.name}")
    if row.has_term and given.get("regularizer_weight") is None:
        missing.append(f"--regularizer-weight, that of {row.regularizer.name}")
    if missing:
        raise UsageError(
            f"no weights are published for model '{name}' ({', '.join(row.made)}); give {' and '.join(missing)}"
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
    if regularizer.name == "gradient-penalty":
        weight = setting.gradient_penalty
    if regularizer.name == "tikhonov" and network != "mlp":
        regularizer = Part(regularizer.name, {"scope": setting.tikhonov})
    if prior is not None and prior.name == "second-stage-vae" and published:
        # elsewhere the second stage learns this weight, which samples better
        second = {"kl_weight": setting.second_stage, "width": 1024, "lr": 1e-4, "patience": 3, "noise": False}
        prior = Part(prior.name, second)
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
    )
    training = TrainingConfig(
        epochs=official.epochs or setting.epochs,
        lr=setting.lr if row.family == "rae" else _LR[row.family],
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
    if len(shape) == 2:
        return strings(name, shape, published=True)
    for setting in PAPER.values():
        if tuple(shape) == setting.shape:
            width = _official(name, setting, given).width
            return _resolve(name, shape, setting, width, setting.network, setting.latent_dim, True, given)
    shapes = ", ".join(f"{key} {setting.shape}" for key, setting in PAPER.items())
    raise UsageError(
        f"preset paper knows the shapes {shapes}, not {tuple(shape)}; use preset small, or --size 32 or 64"
    )


def published(name: str, shape: Sequence[int], given: Mapping[str, Any]) -> tuple[ModelConfig, TrainingConfig]:
    """Return the paper's configuration; of strings, with the objective of the Grammar VAE's code.

    Arguments as of `paper`; see `string_presets`.
    """
    return published_objective(name, shape) if len(shape) == 2 else paper(name, shape, given)


def small(name: str, shape: Sequence[int], given: Mapping[str, Any]) -> tuple[ModelConfig, TrainingConfig]:
    """Return a configuration for a 2-core machine: a quarter of the paper's width, 25 epochs, one learning rate.

    Strings get smaller networks; see `string_presets`. Images with sides of 28 to 128 get the convolutional pair of
    the nearest paper data set, everything else the multilayer perceptron. Arguments as of `paper`.
    """
    if len(shape) == 2:
        return strings(name, shape, published=False)
    if len(shape) == 3 and max(shape[1:]) > LARGEST_SIDE:
        raise UsageError(
            f"images are {shape[1]}x{shape[2]}, larger than {LARGEST_SIDE}; bring them to size, e.g. --size 64"
        )
    setting = _nearest_setting(shape)
    convolutional = len(shape) == 3 and min(shape[1:]) >= SMALLEST_SIDE
    latent_dim = min(setting.latent_dim, 64) if convolutional else max(1, min(16, math.prod(shape) // 4))
    if ZOO[name].prior is None:
        latent_dim = min(16, math.prod(shape))  # of one vector of the map
    width, network = (32, setting.network) if convolutional else (256, "mlp")
    model, _ = _resolve(name, shape, setting, width, network, latent_dim, False, given)
    if convolutional and model.regularizer.name == "gradient-penalty":
        # A part of a batch costs a part of the time, and its expectation is the whole's but for batch norm, which then
        # takes the statistics of the part. `benchmarks/train_step.py` has the times.
        model = replace(model, regularizer=Part("gradient-penalty", {"fraction": 0.25}))
    precision: Precision = "auto" if convolutional else "float32"
    return model, TrainingConfig(epochs=25, lr=1e-3, precision=precision)


#: Presets: functions of a model's name, the shape of one example, and what is given by hand.
PRESETS: Registry[Callable[[str, Sequence[int], Mapping[str, Any]], tuple[ModelConfig, TrainingConfig]]] = Registry(
    "preset", {"small": small, "paper": paper, "published": published}
)


def configure(
    model: str,
    shape: Sequence[int],
    preset: str = "small",
    model_overrides: Mapping[str, Any] | None = None,
    training_overrides: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    own_networks: bool = False,
) -> tuple[ModelConfig, TrainingConfig]:
    """Resolve a model's configuration: the preset's, with overrides.

    Args:
        model: Row of the zoo.
        shape: Shape of one example.
        preset: "small" or "paper".
        model_overrides: Fields of `ModelConfig`; None values are ignored. A new `latent_dim` converts the weights anew.
        training_overrides: Fields of `TrainingConfig`; None values are ignored.
        options: Options of slot entries as "slot.option", for example {"regularizer.scope": "both"}.
        own_networks: Whether encoder and decoder are a person's own: then what a preset sets for its own convolutions
            (precision, and which kernels are decayed) gives way to the defaults.

    Raises:
        UsageError: for unknown names, and values out of range.

    Example:
        >>> model, training = configure("rae-l2", (1, 32, 32), "paper")
        >>> model.beta, model.regularizer_weight, training.lr
        (0.0128, 0.0001024, 0.0005)
    """
    row = ZOO[model]
    changes = {key: value for key, value in (model_overrides or {}).items() if value is not None}
    config, training = PRESETS[preset](model, shape, changes)
    if "beta" in changes and row.penalty.name == "none":
        raise UsageError(f"model '{model}' has no latent penalty for beta={changes['beta']:g} to weigh; use 'rae'")
    if "regularizer_weight" in changes and not row.has_term:
        raise UsageError(f"model '{model}' has no regularizer term to weigh by {changes['regularizer_weight']:g}")
    if own_networks or (changes.get("network") == "mlp" and config.network != "mlp"):
        config = replace(config, regularizer=row.regularizer, width=256)
        training = replace(training, precision="float32")
    if "latent_dim" in changes and row.family == "rae" and changes["latent_dim"] > 0:
        changes.setdefault("beta", config.beta * config.latent_dim / changes["latent_dim"])
    for key, value in (options or {}).items():
        slot, _, option = key.partition(".")
        parts = ("latent", "penalty", "regularizer", "reconstruction", "prior")
        part = getattr(config, slot) if slot in parts else None
        if part is None or not option:
            raise UsageError(f"unknown option '{key}'; write SLOT.OPTION=VALUE with SLOT one of: {', '.join(parts)}")
        changes[slot] = Part(part.name, {**part.options, **changes.get(slot, part).options, option: value})
    kept = {key: value for key, value in (training_overrides or {}).items() if value is not None}
    return replace(config, **changes), replace(training, **kept)
