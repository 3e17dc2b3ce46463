"""The presets of strings: the two published settings, and smaller networks that need no GPU."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from expost.config import ModelConfig, TrainingConfig
from expost.errors import UsageError
from expost.models.penalties import PENALTIES
from expost.models.regularizers import REGULARIZERS
from expost.models.zoo import ZOO
from expost.registry import Part
from expost.utils.arithmetic import Precision


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
        precision: Precision of preset `small`; on long rows bf16 in hardware takes two fifths of the time.
    """

    longest: float
    latent_dim: int
    network: str
    width: int
    batch_size: int
    epochs: int
    lr: float
    precision: Precision


#: Short rows (expressions) and long ones (molecules).
STRINGS = (
    StringSetting(50, 25, "gru-expressions", 100, batch_size=600, epochs=100, lr=1e-3, precision="float32"),
    StringSetting(math.inf, 56, "gru-molecules", 501, batch_size=500, epochs=100, lr=1e-3, precision="auto"),
)
#: Preset `small` for short rows, and for long rows of a VAE, whose first steps are large.
_AT_ONCE, _BOUNDED = (SmallSetting("convnext-1d", 250, lr, (1e-2, 1e-5)) for lr in (2e-3, 5e-4))
#: Preset `small` for long rows of other models: an autoregressive decoder. A VAE would train it to ignore the code
#: (Bowman et al. 2016). The weights are the middle one of three pairs tried on ZINC: weaker ones gave fewer valid
#: samples; a beta of 1 gave more, but from less informative codes.
_READS_ITSELF = SmallSetting("gru-autoregressive", 100, 2e-3, (1e-1, 1e-4))
#: Weights of latent penalty and decoder regularizer on strings, in paper form, by family; for a cross-entropy in nats.
#: A VAE's weight of 1 makes the objective the evidence lower bound; the others are ours, and untuned.
_WEIGHTS = {"rae": (1e-2, 1e-5), "vae": (1.0, 0.0), "wae": (10.0, 0.0), "none": (1.0, 0.0)}


def strings(name: str, shape: Sequence[int], published: bool) -> tuple[ModelConfig, TrainingConfig]:
    """Return the configuration for rows of L symbols out of V: the published networks, or smaller ones."""
    row = ZOO[name]
    if row.prior is None:
        raise UsageError(f"model '{name}' has codes on a map, which rows of symbols do not have; choose another model")
    setting = next(each for each in STRINGS if shape[0] <= each.longest)
    long = _BOUNDED if row.family == "vae" else _READS_ITSELF
    small = long if setting.longest == math.inf else _AT_ONCE
    beta, weight = small.rae if row.family == "rae" and not published else _WEIGHTS[row.family]
    if not PENALTIES[row.penalty.name].has_term:
        beta = 0.0
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
        latent_dim=setting.latent_dim,
        beta=beta if row.beta is None else row.beta,
        regularizer_weight=weight if REGULARIZERS[row.regularizer.name].has_term else 0.0,
    )
    training = TrainingConfig(epochs=setting.epochs, batch_size=setting.batch_size, lr=setting.lr)
    if published:
        return model, training
    # without clipping a single late step can throw the codes far out, and raise the loss from 0.02 to 10
    return model, replace(
        training, epochs=20, batch_size=small.batch_size, lr=small.lr, clip=1.0, precision=setting.precision
    )
