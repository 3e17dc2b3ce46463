"""The zoo: every model is one row of choices.

A row says which entry of each slot's registry it takes, with options where they differ from the entry's defaults, and
which density its samples come from in the paper's table (column N; ex-post densities apply to every row). Weights and
sizes are not here: they belong to the data, see `expost.models.presets`. A new model is a new row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from expost.registry import Part, Registry

#: How the official code scales a model's loss, which says how its published weights convert (see `models.official`).
Family = Literal["rae", "vae", "wae", "none"]


@dataclass(frozen=True)
class Row:
    """One model of the zoo.

    Attributes:
        summary: One line for a person.
        latent: Entry of `LATENTS`.
        penalty: Entry of `PENALTIES`.
        regularizer: Entry of `REGULARIZERS`.
        prior: Entry of `DENSITIES` that the model's own samples come from.
        family: The official code's loss scaling.
        beta: Weight of the penalty in paper form where the model itself sets it; None where the data does.
        codec: Entry of the codecs, for models that are defined on strings; None where the data decides.
    """

    summary: str
    latent: Part
    penalty: Part
    regularizer: Part
    prior: Part
    family: Family
    beta: float | None = None
    codec: Literal["grammar", "characters"] | None = None


_deterministic, _gaussian = Part("deterministic"), Part("gaussian")
_none, _half_norm, _kl = Part("none"), Part("half-norm"), Part("kl")
_one_gaussian, _standard_normal = Part("gaussian"), Part("standard-normal")
_posterior_mixture = Part("posterior-mixture")

#: Columns: summary, latent, penalty, regularizer, prior, family.
ZOO: Registry[Row] = Registry(
    "model",
    {
        "ae": Row("plain autoencoder", _deterministic, _none, _none, _one_gaussian, "rae"),
        "ae-l2": Row(
            "autoencoder, decoder weights decayed", _deterministic, _none, Part("tikhonov"), _one_gaussian, "rae"
        ),
        "rae": Row("codes kept near zero", _deterministic, _half_norm, _none, _one_gaussian, "rae"),
        "rae-l2": Row(
            "RAE, decoder weights decayed", _deterministic, _half_norm, Part("tikhonov"), _one_gaussian, "rae"
        ),
        "rae-gp": Row(
            "RAE, decoder Jacobian penalised",
            _deterministic,
            _half_norm,
            Part("gradient-penalty"),
            _one_gaussian,
            "rae",
        ),
        "rae-sn": Row(
            "RAE, decoder spectrally normalised",
            _deterministic,
            _half_norm,
            Part("spectral-norm"),
            _one_gaussian,
            "rae",
        ),
        "vae": Row("variational autoencoder", _gaussian, _kl, _none, _standard_normal, "vae"),
        "beta-vae": Row("VAE with a heavier KL term", _gaussian, _kl, _none, _standard_normal, "vae", beta=4.0),
        "cv-vae": Row("VAE with one constant variance", Part("constant-variance"), _kl, _none, _one_gaussian, "vae"),
        "wae-mmd": Row(
            "Wasserstein autoencoder, MMD penalty", _deterministic, Part("mmd"), _none, _standard_normal, "wae"
        ),
        "two-stage-vae": Row("VAE, second VAE on its codes", _gaussian, _kl, _none, Part("second-stage-vae"), "vae"),
        "iwae": Row(
            "VAE by the bound of 5 weighted codes",
            Part("gaussian", {"samples": 5}),
            _kl,
            _none,
            _standard_normal,
            "vae",
        ),
        "vamp-vae": Row(
            "VAE, prior of learned pseudo-inputs", _gaussian, _posterior_mixture, _none, _posterior_mixture, "vae"
        ),
        "vq-vae": Row(
            "symbols of a learned codebook on a map",
            Part("vector-quantized", {"decay": 0.99}),
            Part("vector-quantization"),
            _none,
            Part("autoregressive"),
            "none",
            beta=1.0,
        ),
        "fsq-vae": Row(
            "numbers rounded to a few levels on a map",
            Part("finite-scalar"),
            _none,
            _none,
            Part("autoregressive"),
            "none",
        ),
        "grae": Row(
            "RAE-L2 over the productions of a grammar",
            _deterministic,
            _half_norm,
            Part("tikhonov"),
            _one_gaussian,
            "rae",
            codec="grammar",
        ),
        "gvae": Row(
            "VAE over the productions of a grammar",
            _gaussian,
            _kl,
            _none,
            _standard_normal,
            "vae",
            codec="grammar",
        ),
        "gcvvae": Row(
            "constant-variance VAE over the productions of a grammar",
            Part("constant-variance"),
            _kl,
            _none,
            _one_gaussian,
            "vae",
            codec="grammar",
        ),
        "character-vae": Row("VAE over characters", _gaussian, _kl, _none, _standard_normal, "vae", codec="characters"),
    },
)
