"""Parts of a fit in memory, for tables: training without a run folder, and functions in float64."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from expost.config import TrainingConfig
from expost.errors import DataError
from expost.models.autoencoder import Autoencoder
from expost.training.loop import Loop, NonFiniteLossError
from expost.utils.progress import say

#: Standardized values are clipped to this size before the encoder, where larger ones would overflow.
LARGEST_INPUT = 1e4
#: Training ends when the learning rate has fallen to this fraction of the first.
LAST_LR = 1e-2


def train(
    model: Autoencoder, x: Tensor, held_out: Tensor, config: TrainingConfig, verbose: int
) -> list[tuple[float, float]]:
    """Train in memory; leave the model with its best weights, in evaluation mode, on the device of the configuration.

    Args:
        model: What is trained.
        x: Training rows, float32.
        held_out: Rows by whose loss the learning rate is cut and the best weights are chosen.
        config: How to train, for at most `epochs`.
        verbose: Epochs between lines on stderr; 0 prints none.

    Raises:
        DataError: when the loss stops being finite.

    Returns:
        Mean losses on training and held-out rows, one pair per epoch.
    """
    history: list[tuple[float, float]] = []
    loop = Loop(model, x, held_out, config)
    with loop.running():
        while len(history) < config.epochs and loop.position.lr > LAST_LR * config.lr:
            try:
                epoch = loop.epoch()
            except NonFiniteLossError as error:
                raise DataError(f"{error}; lower lr={config.lr:g}, or scale X") from None
            history.append((epoch.train["total"], epoch.validation["total"]))
            if verbose > 0 and epoch.number % verbose == 0:
                train, validation = history[-1]
                say(f"epoch {epoch.number}/{config.epochs}: train {train:.4g}, held-out {validation:.4g}")
    loop.load_best()
    return history


class ExactFunctions:
    """A trained autoencoder's functions in float64, so that a row's values do not depend on its batch.

    In float32 they would: matrix products of other sizes add in other orders.

    Args:
        model: The autoencoder, in evaluation mode, on the CPU.
    """

    def __init__(self, model: Autoencoder) -> None:
        self._model = copy.deepcopy(model).double()

    @torch.no_grad()
    def encode(self, t: Tensor) -> Tensor:
        """Return noiseless codes, shape (n, d), float64."""
        features = self._model.encoder(t.double().clamp(-LARGEST_INPUT, LARGEST_INPUT))
        return self._model.latent(features.flatten(1), False).mean  # Autoencoder.encode computes codes in float32

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """Return decoded codes, shape (n, D), float64 (rounded to float32 by the decoder)."""
        return self._model.decode(z.double()).double()
