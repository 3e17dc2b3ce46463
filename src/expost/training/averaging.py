"""The mean of the weights over the steps of training, which is validated, saved as best and used in their place.

After step t with weights w_t the mean is m_t = d_t m_(t-1) + (1 - d_t) w_t with d_t = min(decay, (t - 1) / (t + 8)):
m_1 = w_1, and until the decay is reached the mean spans about the last ninth of the steps, so that the weights of the
start do not linger in a short training.

Averaged are the parameters. What layers measure of their inputs belongs to the weights that they were measured with, so
it is measured again with the mean, on a few training batches: the mean and variance of batch norm (as Izmailov et al.
2018 do), and the singular vectors of spectral norm.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrize

#: Training batches on which the layers' statistics are measured.
BATCHES = 20


def weight_of_mean(decay: float, step: int) -> float:
    """Return d_t, the weight of the mean so far, at step t (from 1).

    Example:
        >>> [round(weight_of_mean(0.9, step), 3) for step in (1, 2, 10, 1000)]
        [0.0, 0.1, 0.5, 0.9]
    """
    return min(decay, (step - 1) / (step + 8))


class Averaged:
    """The mean of a model's parameters over the steps.

    Args:
        model: On its device.
        decay: Largest weight of the mean so far, in (0, 1).

    Attributes:
        tensors: The mean by the parameter's name; what the weights are before the first step.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._model, self._decay = model, decay
        self._parameters = dict(model.named_parameters())
        self.tensors = {name: each.detach().clone() for name, each in self._parameters.items()}

    @torch.no_grad()
    def add(self, step: int) -> None:
        """Take in the weights after step `step`, from 1."""
        kept = weight_of_mean(self._decay, step)
        torch._foreach_lerp_(list(self.tensors.values()), list(self._parameters.values()), 1 - kept)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Have the mean in the model's parameters inside this block; then parameters and buffers are as before it."""
        before = {name: tensor.clone() for name, tensor in self._model.state_dict().items()}
        try:
            self._load(self.tensors)
            yield
        finally:
            self._load(before)

    @torch.no_grad()
    def _load(self, tensors: dict[str, Tensor]) -> None:
        """Copy into the very tensors that the optimizer, and a recorded graph, know."""
        found = self._model.state_dict()
        for name, tensor in tensors.items():
            found[name].copy_(tensor)


def measures_inputs(model: nn.Module) -> bool:
    """Return whether a model has layers that measure what comes to them."""
    return any(_measuring(module) for module in model.modules())


def _measuring(module: nn.Module) -> bool:
    if isinstance(module, _BatchNorm):
        return module.track_running_stats
    return isinstance(module, parametrize.ParametrizationList) and any(True for _ in module.buffers())


@contextmanager
def measuring(model: nn.Module) -> Iterator[None]:
    """Measure anew inside this block: batch norm the plain mean over its batches, the rest of the model evaluating.

    The model is left in evaluation mode.
    """
    model.eval()
    layers = [module for module in model.modules() if _measuring(module)]
    norms = [layer for layer in layers if isinstance(layer, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for layer in layers:
        layer.train()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch's sign for the plain mean
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        model.eval()
