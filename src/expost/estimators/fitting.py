"""Parts of a fit in memory, for tables: standardization, training without a run folder, and functions in float64."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from expost.config import TrainingConfig
from expost.errors import DataError
from expost.models.autoencoder import Autoencoder
from expost.training.loop import Loop, NonFiniteLossError
from expost.utils.progress import say

#: Standardized values beyond it are cut before they enter the encoder, where they would overflow.
LARGEST_INPUT = 1e4
#: Training ends when the learning rate has been cut to this part of the first.
LAST_LR = 1e-2


def standardization(rows: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Return mean (the constant where constant), standard deviation (1 where constant) and which columns vary.

    Raises:
        DataError: if none varies, or values are too large for their variance.

    Example:
        >>> standardization(np.array([[1.0, 5.0], [3.0, 5.0]]))
        (array([2., 5.]), array([1., 1.]), array([ True, False]))
    """
    exact = rows.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        mean, scale = exact.mean(0), exact.std(0)
    if not np.isfinite(scale).all():
        raise DataError(f"X has values too large for their variance, up to {np.abs(exact).max():.3g}; scale it down")
    # rounding leaves a constant column with a deviation of a few eps times its value
    varying = (np.ptp(exact, axis=0) > 0) & (scale > 10 * np.finfo(np.float64).eps * np.abs(mean))
    if not varying.any():
        raise DataError(f"none of the {rows.shape[1]} columns of X varies; give columns with different values")
    return np.where(varying, mean, exact[0]), np.where(varying, scale, 1.0), varying


def train(
    model: Autoencoder, x: Tensor, held_out: Tensor, config: TrainingConfig, verbose: int
) -> list[tuple[float, float]]:
    """Train in memory; leave the model with its best weights, in evaluation mode, on the device of the configuration.

    Args:
        model: What is trained.
        x: Training rows, float32.
        held_out: Rows by whose loss the learning rate is cut and the best weights are chosen.
        config: How; `epochs` is the most.
        verbose: Above 0, every so many epochs a line on stderr.

    Raises:
        DataError: when the loss stops being finite.

    Returns:
        Mean losses on training and held-out rows, a pair an epoch.
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
    """A trained autoencoder's functions in float64, for rows to have values that do not depend on their batch.

    Rounding in float32 does: matrix products of other sizes add in other orders.

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
