"""Whether training diverged: a model that does worse on held-out examples than it did before its first step.

A learning rate that is far too large leaves finite losses of any size, and so no error: weights jump to where nothing
is learned, and the lowest validation loss of the run is still far above that of the initial weights.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from expost.models.autoencoder import Autoencoder
from expost.types import to_unit
from expost.utils.precision import full_float32
from expost.utils.seeding import isolated

#: Loss of the trained model over that of the initial weights from which it counts as diverged. Learning lowers the
#: loss; a run of a few steps, whose batch norms have not settled, may leave it somewhat above.
WORSE = 2.0
#: Examples that are looked at.
EXAMPLES = 200


@torch.no_grad()
def held_out_loss(model: Autoencoder, x: Tensor) -> float:
    """Return the objective without its decoder regularizer, mean per example, with the same noise every time.

    Args:
        model: In evaluation mode.
        x: Examples, shape (n, ...); of more than `EXAMPLES`, so many are taken, evenly spread.
    """
    device = next(model.parameters()).device
    chosen = torch.linspace(0, len(x) - 1, min(len(x), EXAMPLES)).round().long()
    with isolated(), full_float32():
        torch.manual_seed(0)
        return model.loss(to_unit(x[chosen].to(device)), regularize=False).total.item()


def divergence(model: Autoencoder, initial: Autoencoder, x: Tensor) -> str | None:
    """Return a sentence for a person if a trained model does far worse than its initial weights, else None.

    Args:
        model: The trained model, in evaluation mode.
        initial: The same model before training, on any device; it is put in evaluation mode.
        x: Held-out examples.
    """
    if len(x) < 2:
        return None
    if model.standardization is not None and initial.standardization is not None:
        initial.standardization.load_state_dict(model.standardization.state_dict())
    initial.to(next(model.parameters()).device).eval()
    before, after = held_out_loss(initial, x), held_out_loss(model, x)
    if math.isfinite(after) and after - before <= (WORSE - 1) * abs(before):
        return None
    return (
        f"training diverged: the loss on held-out examples is {after:.3g}, and that of the untrained model {before:.3g}"
    )
