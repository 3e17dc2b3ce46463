"""The paper's three data sets: the official code's weights, sizes and schedules, by what a row of the zoo is made of.

The official losses are scaled in three ways. With N = C * H * W pixels and d latent dimensions they convert to the
paper's form of the objective, in which every term is summed over an example's dimensions, as

| family | official loss | divided out | paper form |
|---|---|---|---|
| RAE | mean over pixels + b * mean over d of z^2 + l * sum theta^2 | times N | beta = 2 b N / d, lambda = l N |
| VAE | sum over H, W of the mean over C + k * KL | times C | beta = k C |
| WAE | mean over pixels + m * MMD | times N | beta = m N |
| WAE (CelebA) | s * sum + m * MMD | divided by s | beta = m / s |

Scaling a loss by a constant leaves Adam's steps as they were (up to its epsilon), so learning rates carry over as they
are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from expost.densities import Density, SecondStageVAE
from expost.models.latents import LATENTS, ConstantVariance, Deterministic, Gaussian, Latent
from expost.models.penalties import (
    PENALTIES,
    HalfNorm,
    KullbackLeibler,
    MaximumMeanDiscrepancy,
    MixtureOfPosteriors,
    NoPenalty,
    Penalty,
)
from expost.models.regularizers import (
    REGULARIZERS,
    GradientPenalty,
    NoRegularizer,
    Regularizer,
    SpectralNorm,
    Tikhonov,
)
from expost.models.zoo import Family, Row
from expost.types import Layout, layout_of

#: What decides a row's weights: the classes of its latent, its penalty and its regularizer, whatever their names.
Made = tuple[type[Latent], type[Penalty], type[Regularizer]]


def made_of(row: Row) -> Made:
    """Return the classes that decide a row's weights."""
    return LATENTS[row.latent.name], PENALTIES[row.penalty.name], REGULARIZERS[row.regularizer.name]


@dataclass(frozen=True)
class Official:
    """The official configuration of one model on one data set; weights in its own scaling.

    Attributes:
        b: Weight of the mean over latent dimensions of z^2 (RAE family).
        l: Weight of the sum of squared decoder weights (RAE family).
        j: Weight of the decoder's squared Jacobian norm, in paper form (RAE family). Ours, since the official penalty
            is another quantity (see `GradientPenalty`): chosen on the validation split of mnist-5k
            (results/gradient_penalty.md).
        k: Weight of the KL divergence (VAE family).
        m: Weight of the MMD (WAE).
        s: Scale of the summed squared error (WAE on CelebA); 0 where the error is a mean.
        epochs: Passes over the training set; None takes the data set's.
        width: Channels of the first convolution.
    """

    b: float = 0.0
    l: float = 0.0  # noqa: E741 (the official code's symbol)
    j: float = 0.0
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
        input_noise: Standard deviation of the WAE's input noise.
        regularizer_options: Options of regularizers on the official networks.
        prior_options: Options of densities that the paper samples from.
        weights: The official weights by what a row of the zoo is made of.
    """

    shape: tuple[int, int, int]
    latent_dim: int
    network: str
    epochs: int
    lr: float
    input_noise: float
    regularizer_options: Mapping[type[Regularizer], Mapping[str, Any]]
    prior_options: Mapping[type[Density], Mapping[str, Any]]
    weights: Mapping[Made, Official]


#: The weights for MNIST, CIFAR-10 and CelebA; a mixture of posteriors, which is not of the paper, has the VAE's.
_WEIGHTS: Mapping[Made, tuple[Official, Official, Official]] = {
    (Deterministic, NoPenalty, NoRegularizer): (Official(), Official(), Official()),
    (Deterministic, NoPenalty, Tikhonov): (Official(l=1e-7), Official(l=1e-6), Official(l=1e-6, epochs=100)),
    (Deterministic, HalfNorm, NoRegularizer): (Official(b=5e-4), Official(b=1e-2), Official(b=1e-4)),
    (Deterministic, HalfNorm, Tikhonov): (
        Official(b=1e-4, l=1e-7), Official(b=1e-3, l=1e-6), Official(b=1e-4, l=1e-7),
    ),
    (Deterministic, HalfNorm, GradientPenalty): (
        Official(b=1e-4, j=1e-3), Official(b=9e-4, j=1e-3, epochs=70), Official(b=1e-4, j=1e-3),
    ),
    (Deterministic, HalfNorm, SpectralNorm): (Official(b=9e-3), Official(b=3e-2), Official(b=2.4e-3)),
    (Gaussian, KullbackLeibler, NoRegularizer): (Official(k=0.312), Official(k=0.024), Official(k=0.09024)),
    (Gaussian, MixtureOfPosteriors, NoRegularizer): (Official(k=0.312), Official(k=0.024), Official(k=0.09024)),
    (ConstantVariance, KullbackLeibler, NoRegularizer): (
        Official(k=0.039), Official(k=9e-4, epochs=70), Official(k=0.01, width=64),
    ),
    (Deterministic, MaximumMeanDiscrepancy, NoRegularizer): (
        Official(m=3e-2), Official(m=6e-3, epochs=70), Official(m=100.0, s=0.05),
    ),
}  # fmt: skip


def _second_stage(kl_weight: float) -> Mapping[type[Density], Mapping[str, Any]]:
    """Return the options of the official second stage (two-stage VAE)."""
    return {SecondStageVAE: {"kl_weight": kl_weight, "width": 1024, "lr": 1e-4, "patience": 3, "noise": False}}


PAPER: Mapping[str, Setting] = {
    "mnist": Setting(
        shape=(1, 32, 32),
        latent_dim=16,
        network="conv4",
        epochs=100,
        lr=5e-4,
        input_noise=0.0,
        regularizer_options={Tikhonov: {"scope": "transposed-convolutions"}},
        prior_options=_second_stage(1.5e-3),
        weights={made: columns[0] for made, columns in _WEIGHTS.items()},
    ),
    "cifar10": Setting(
        shape=(3, 32, 32),
        latent_dim=128,
        network="conv4",
        epochs=100,
        lr=5e-4,
        input_noise=0.0,
        regularizer_options={Tikhonov: {"scope": "transposed-convolutions"}},
        prior_options=_second_stage(1e-3),
        weights={made: columns[1] for made, columns in _WEIGHTS.items()},
    ),
    "celeba": Setting(
        shape=(3, 64, 64),
        latent_dim=64,
        network="conv5-celeba",
        epochs=70,
        lr=1e-3,
        input_noise=0.01,
        regularizer_options={Tikhonov: {"scope": "kernels"}},
        prior_options=_second_stage(2e-3),
        weights={made: columns[2] for made, columns in _WEIGHTS.items()},
    ),
}
#: By how much a validation loss has to fall to count as better, in the official scaling: Keras' default.
KERAS_MIN_DELTA = 1e-4
#: Initial learning rates of the official code outside the RAE family, whose rate depends on the data set.
_LR: Mapping[Family, float] = {"vae": 1e-4, "wae": 1e-3, "none": 5e-4}


def learning_rate(family: Family, setting: Setting) -> float:
    """Return the official initial learning rate."""
    return setting.lr if family == "rae" else _LR[family]


def paper_weights(official: Official, family: Family, shape: Sequence[int], latent_dim: int) -> tuple[float, float]:
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
    conversions: Mapping[Family, tuple[float, float]] = {
        "rae": (2 * official.b * scale / latent_dim, official.l * scale + official.j),
        "vae": (official.k * scale, 0.0),
        "wae": (official.m * scale, 0.0),
        "none": (0.0, 0.0),
    }
    return conversions[family]


def loss_scale(official: Official, family: Family, shape: Sequence[int]) -> float:
    """Return how many times the official loss ours is; arguments as of `paper_weights`.

    Example:
        >>> loss_scale(Official(), "rae", (3, 32, 32)), loss_scale(Official(), "vae", (3, 32, 32))
        (3072, 3)
    """
    pixels, channels = math.prod(shape), shape[0] if layout_of(shape) is Layout.IMAGE else 1
    scales: Mapping[Family, float] = {
        "rae": pixels,
        "vae": channels,
        "wae": 1 / official.s if official.s else pixels,
        "none": 1,
    }
    return scales[family]


def nearest_setting(shape: Sequence[int]) -> Setting:
    """Return the setting whose images are most like examples of a shape."""
    if layout_of(shape) is not Layout.IMAGE or shape[0] == 1:
        return PAPER["mnist"]
    return PAPER["celeba" if max(shape[1:]) > 48 else "cifar10"]
