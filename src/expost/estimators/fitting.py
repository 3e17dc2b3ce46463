"""Parts of a fit in memory, for tables: standardization, training without a run folder, and functions in float64."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from expost.config import TrainingConfig
from expost.errors import DataError
from expost.models.autoencoder import Autoencoder
from expost.utils.progress import say
from expost.utils.seeding import ORDER, generator

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
    model: Autoencoder, x: Tensor, held_out: Tensor, config: TrainingConfig, seed: int, verbose: int
) -> list[tuple[float, float]]:
    """Train as `Training` does, but in memory; leave the model with its best weights, in evaluation mode.

    Its random numbers come from torch's global generators.

    Args:
        model: What is trained, on the device of the rows.
        x: Training rows, float32.
        held_out: Rows by whose loss the learning rate is cut and the best weights are chosen.
        config: How; `epochs` is the most.
        seed: Seeds the order of the rows.
        verbose: Above 0, every so many epochs a line on stderr.

    Raises:
        DataError: when the loss stops being finite.

    Returns:
        Mean losses on training and held-out rows, a pair an epoch.
    """
    optimizer = torch.optim.Adam(model.parameters(), lr=config.lr, fused=x.device.type in ("cpu", "cuda"))
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=config.factor, patience=config.patience - 1, threshold=0.0
    )
    best, best_weights, history = math.inf, copy.deepcopy(model.state_dict()), []
    steps = len(x) // config.batch_size
    for epoch in range(config.epochs):
        model.train()
        order = torch.randperm(len(x), generator=generator(seed, ORDER, epoch)).to(x.device)
        total = torch.zeros((), device=x.device)
        for batch in torch.split(order[: steps * config.batch_size], config.batch_size):
            optimizer.zero_grad()
            loss = model.loss(x[batch]).total
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += loss.detach()
        model.eval()
        with torch.no_grad():
            validation = model.loss(held_out, regularize=False).total.item()
        history.append((total.item() / steps, validation))
        if not all(map(math.isfinite, history[-1])):
            raise DataError(f"the loss stopped being finite in epoch {epoch + 1}; lower lr={config.lr:g}, or scale X")
        if validation < best:
            best, best_weights = validation, copy.deepcopy(model.state_dict())
        scheduler.step(validation)
        if verbose > 0 and (epoch + 1) % verbose == 0:
            say(f"epoch {epoch + 1}/{config.epochs}: train {history[-1][0]:.4g}, held-out {validation:.4g}")
        if optimizer.param_groups[0]["lr"] <= LAST_LR * config.lr:
            break
    model.load_state_dict(best_weights)
    model.eval()
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
