"""The presets of strings: the two published settings, and smaller networks that need no GPU.

`published` has the objective of the Grammar VAE's code (Kusner et al. 2017), `paper` the bound that its paper states;
networks and schedule are the same. With V symbols and d dimensions the loss of the code is

    1/V sum of the binary cross-entropies of all symbols + 1/d KL,   z = mean + 0.01 sigma eps.

Times V it is in the form of this library: the term `masked-bernoulli`, beta = V / d, `noise_scale` 0.01. The models of
Ghosh et al. (GRAE, GCVVAE) take the place of the VAE in it: for the half norm the same beta, for the weights of the
decoder V times a published lambda. Which it was for GRAE is not published; 1e-7 is that of RAE-L2 on MNIST.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from expost.config import ModelConfig, TrainingConfig
from expost.errors import UsageError
from expost.models.latents import LATENTS, ConstantVariance, Gaussian, Latent
from expost.models.penalties import PENALTIES, HalfNorm, KullbackLeibler, NoPenalty
from expost.models.regularizers import REGULARIZERS, NoRegularizer, SpectralNorm, Tikhonov
from expost.models.zoo import ZOO
from expost.registry import Part
from expost.utils.arithmetic import Precision
from expost.utils.progress import say


@dataclass(frozen=True)
class SmallSetting:
    """What preset `small` takes in place of the published networks.

    Attributes:
        network: Entry of the network slot.
        batch_size: Examples per step.
        lr: Initial learning rate.
        rae: Weights of penalty and regularizer of the regularized autoencoders, as in `_WEIGHTS`.
    """

    network: str
    batch_size: int
    lr: float
    rae: tuple[float, float]


@dataclass(frozen=True)
class StringSetting:
    """One of the two data sets of strings that are published on (Kusner et al. 2017).

    Attributes:
        longest: Largest number of symbols in a row.
        latent_dim: d.
        network: Entry of the network slot: the published one.
        width: Its published width.
        batch_size: Examples per step.
        epochs: Passes over the training set.
        lr: Initial learning rate.
        patience: Epochs without a better validation loss until it is multiplied by 0.2, down to 1e-4.
        precision: Precision of preset `small`; on long rows bf16 in hardware takes two fifths of the time.
    """

    longest: float
    latent_dim: int
    network: str
    width: int
    batch_size: int
    epochs: int
    lr: float
    patience: int
    precision: Precision


#: Short rows (expressions) and long ones (molecules).
STRINGS = (
    StringSetting(50, 25, "gru-expressions", 100, batch_size=600, epochs=50, lr=1e-3, patience=1, precision="float32"),
    StringSetting(
        math.inf, 56, "gru-molecules", 501, batch_size=500, epochs=100, lr=1e-3, patience=3, precision="auto"
    ),
)
#: The published schedule: factor and floor of the rate, and Keras' threshold, on a loss that is a V-th of ours.
_FACTOR, _MIN_LR, _MIN_DELTA = 0.2, 1e-4, 1e-4
#: The published objective: noise, and options of the latents that have any.
_NOISE_SCALE = 0.01
_PUBLISHED_LATENTS: Mapping[type[Latent], Mapping[str, Any]] = {
    Gaussian: {"bound": None, "noise_scale": _NOISE_SCALE},
    ConstantVariance: {"noise_scale": _NOISE_SCALE},
}
_PUBLISHED_LAMBDA = 1e-7
#: Penalties and regularizers whose weights follow from published ones, and those without a weight.
_PUBLISHED_TERMS = frozenset({NoPenalty, HalfNorm, KullbackLeibler, NoRegularizer, SpectralNorm, Tikhonov})
#: Symbols of the published grammars that no string can hold, by the shape of rows without them: ours leave them out,
#: and they count in the published V.
_UNUSED = {(277, 74): 2}
#: Preset `small` for short rows, and for long rows of a VAE, whose first steps are large.
_AT_ONCE, _BOUNDED = (SmallSetting("convnext-1d", 250, lr, (1e-2, 1e-5)) for lr in (2e-3, 5e-4))
#: Preset `small` for long rows of other models: an autoregressive decoder. A VAE would train it to ignore the code
#: (Bowman et al. 2016). The weights are the middle one of three pairs tried on ZINC: weaker ones gave fewer valid
#: samples; a beta of 1 gave more, but from less informative codes.
_READS_ITSELF = SmallSetting("gru-autoregressive", 100, 2e-3, (1e-1, 1e-4))
#: Weights of latent penalty and decoder regularizer on strings, in paper form, by family; for a cross-entropy in nats.
#: A VAE's weight of 1 makes the objective the evidence lower bound; the others are ours, and untuned.
_WEIGHTS = {"rae": (1e-2, 1e-5), "vae": (1.0, 0.0), "wae": (10.0, 0.0), "none": (1.0, 0.0)}


def strings(
    name: str, shape: Sequence[int], published: bool, given: Mapping[str, Any]
) -> tuple[ModelConfig, TrainingConfig]:
    """Return the configuration for rows of L symbols out of V: the published networks, or smaller ones.

    A code that is larger than a row allows is cut, with a remark on stderr unless the dimension is `given`.
    """
    row = ZOO[name]
    if LATENTS[row.latent.name].spatial:
        raise UsageError(f"model '{name}' has codes on a map, which rows of symbols do not have; choose another model")
    setting = next(each for each in STRINGS if shape[0] <= each.longest)
    long = _BOUNDED if row.family == "vae" else _READS_ITSELF
    small = long if setting.longest == math.inf else _AT_ONCE
    beta, weight = small.rae if row.family == "rae" and not published else _WEIGHTS[row.family]
    if not PENALTIES[row.penalty.name].has_term:
        beta = 0.0
    latent_dim = _fitting(setting.latent_dim, shape, "latent_dim" in given)
    if row.family == "rae":
        beta *= setting.latent_dim / latent_dim  # as of any other dimension
    model = ModelConfig(
        name=name,
        shape=tuple(shape),
        latent=row.latent,
        penalty=row.penalty,
        regularizer=row.regularizer,
        reconstruction=Part("masked-categorical"),
        prior=row.prior,
        network=setting.network if published else small.network,
        width=setting.width if published else 64,
        latent_dim=latent_dim,
        beta=beta if row.beta is None else row.beta,
        regularizer_weight=weight if REGULARIZERS[row.regularizer.name].has_term else 0.0,
    )
    if published:
        return model, TrainingConfig(
            epochs=setting.epochs,
            batch_size=setting.batch_size,
            lr=setting.lr,
            patience=setting.patience,
            factor=_FACTOR,
            min_lr=_MIN_LR,
            min_delta=_MIN_DELTA * _symbols(shape),
        )
    # without clipping a single late step can throw the codes far out, and raise the loss from 0.02 to 10
    training = TrainingConfig(
        epochs=20, batch_size=small.batch_size, lr=small.lr, clip=1.0, precision=setting.precision
    )
    return model, training


def published_objective(
    name: str, shape: Sequence[int], given: Mapping[str, Any]
) -> tuple[ModelConfig, TrainingConfig]:
    """Return the published configuration with the objective of the published code (see above).

    Args:
        name: Row of the zoo.
        shape: (L, V).
        given: Fields of `ModelConfig` that are given by hand: a latent dimension, on which beta depends, and weights.

    Raises:
        UsageError: for a row whose weights follow from no published one, unless they are given.
    """
    model, training = strings(name, shape, True, given)
    model = replace(model, latent_dim=given.get("latent_dim", model.latent_dim))
    row, symbols = ZOO[name], _symbols(shape)
    terms = (PENALTIES[row.penalty.name], "beta"), (REGULARIZERS[row.regularizer.name], "regularizer_weight")
    for kind, weight in terms:
        if kind not in _PUBLISHED_TERMS and weight not in given:
            raise UsageError(
                f"no weight is published for model '{name}' on strings ({row.penalty.name}, {row.regularizer.name}); "
                f"give --{weight.replace('_', '-')}, or take preset paper"
            )
    return replace(
        model,
        latent=Part(row.latent.name, {**row.latent.options, **_PUBLISHED_LATENTS.get(LATENTS[row.latent.name], {})}),
        reconstruction=Part("masked-bernoulli"),
        beta=symbols / model.latent_dim if model.beta and row.beta is None else model.beta,
        regularizer_weight=symbols * _PUBLISHED_LAMBDA if REGULARIZERS[row.regularizer.name].has_term else 0.0,
    ), training


def _fitting(latent_dim: int, shape: Sequence[int], given: bool) -> int:
    """Return the dimension of a code, or, where it is more than the numbers of an example, half of these."""
    numbers = math.prod(shape)
    if latent_dim <= numbers:
        return latent_dim
    cut = max(1, numbers // 2)
    if not given:
        say(
            f"latent_dim: {cut} instead of {latent_dim}, since an example has {numbers} numbers; --latent-dim overrules"
        )
    return cut


def _symbols(shape: Sequence[int]) -> int:
    """Return the published number V of symbols."""
    return shape[1] + _UNUSED.get((shape[0], shape[1]), 0)
