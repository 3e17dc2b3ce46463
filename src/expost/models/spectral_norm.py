r"""Two spectral norms of a layer, each a parametrization that divides the layer's weight by it.

The norm of a *kernel as a matrix* (Miyato et al. 2018, eq. 8) flattens all axes but the first. torch stores a
convolution's kernel as outputs x rest and a transposed convolution's as inputs x rest, so the first axis gives the
matrices of the official code of Ghosh et al., outputs by rest and inputs by rest.

The norm of the *layer as a linear map* A on the maps that it is given is the largest singular value of the matrix from
all numbers of its input to all numbers of its output: the layer's Lipschitz constant. For a convolution it differs from
the former by a factor that depends on stride, padding and the size of the map (Gouk et al. 2021, section 3.3).

Both are found by power iteration, one or more iterations a training step, from the vectors of the step before.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils.parametrizations import _SpectralNorm

#: Iterations when the model is built.
_FIRST = 15
#: A network, and an example of what it takes, with one row or more.
Probe = tuple[nn.Module, Tensor]


class MatrixNorm(_SpectralNorm):
    """torch's spectral norm in the precision of the weights; autocast on a GPU would take its products in bfloat16.

    Args:
        weight: The kernel, shape (m, ...), taken as the matrix of m rows.
        iterations: Power iterations a training step.
    """

    def __init__(self, weight: Tensor, iterations: int) -> None:
        super().__init__(weight, iterations, dim=0)

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any, **kwargs: Any) -> None:
        """Load the vectors; early versions took transposed kernels by their outputs, which the vectors' sizes tell."""
        u, v = state_dict.get(f"{prefix}_u"), state_dict.get(f"{prefix}_v")
        if (
            u is not None
            and v is not None
            and len(u) * len(v) == len(self._u) * len(self._v)
            and len(u) != len(self._u)
        ):
            self.dim = 1
            self._u, self._v = torch.empty_like(u, device=self._u.device), torch.empty_like(v, device=self._v.device)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def forward(self, weight: Tensor) -> Tensor:
        """Return the kernel divided by its norm."""
        if weight.is_meta:  # where there are only shapes, there is no autocast either
            return super().forward(weight)
        with torch.autocast(weight.device.type, enabled=False):
            return super().forward(weight)


class OperatorNorm(nn.Module):
    r"""The norm of a convolution as a linear map A on maps of one size: sqrt of the largest eigenvalue of A^T A.

    With v the unit vector of the last iteration, v <- A^T A v / ||A^T A v||, and sigma = ||A v||.

    Args:
        layer: The convolution, possibly transposed; its bias does not count.
        shape: Shape (C, H, W) of its input.
        iterations: Power iterations a training step.
    """

    def __init__(self, layer: nn.modules.conv._ConvNd, shape: tuple[int, ...], iterations: int) -> None:
        super().__init__()
        self.iterations = iterations
        plain = copy.deepcopy(layer).eval().requires_grad_(False)
        plain.bias = None
        self._layer = (plain,)  # in a tuple, so that its weight does not count as one of the model's
        weight = plain.weight.detach()
        plain.weight = nn.Parameter(weight.to("meta"), requires_grad=False)
        self._v: Tensor
        self.register_buffer("_v", _unit(weight.new_empty(1, *shape).normal_()))
        for _ in range(_FIRST):
            self._iterate(weight)

    def forward(self, weight: Tensor) -> Tensor:
        """Return the kernel divided by the norm of its map."""
        if weight.is_meta:
            return weight / self._map(self._v, weight).square().sum().sqrt()
        with torch.autocast(weight.device.type, enabled=False):
            if self.training:
                for _ in range(self.iterations):
                    self._iterate(weight.detach())
            return weight / torch.linalg.vector_norm(self._map(self._v.clone(), weight))

    def _iterate(self, weight: Tensor) -> None:
        with torch.inference_mode(False), torch.enable_grad():
            v = self._v.detach().clone().requires_grad_()
            output = self._map(v, weight)
            (pulled,) = torch.autograd.grad(output, v, output.detach())  # A^T (A v)
        with torch.no_grad():
            self._v.copy_(_unit(pulled))

    def _map(self, x: Tensor, weight: Tensor) -> Tensor:
        output = functional_call(self._layer[0], {"weight": weight}, (x,))
        assert isinstance(output, Tensor)
        return output


def _unit(vector: Tensor) -> Tensor:
    """Return a tensor divided by its norm; zero stays zero."""
    return vector / torch.linalg.vector_norm(vector).clamp_min(1e-12)


@torch.no_grad()
def input_shapes(probes: Iterable[Probe]) -> dict[nn.Module, tuple[int, ...]]:
    """Return the shape of what each convolution gets, without the batch; the networks are left as they were."""
    shapes: dict[nn.Module, tuple[int, ...]] = {}

    def note(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        shapes[module] = tuple(given[0].shape[1:])

    for network, example in probes:
        modes = [(module, module.training) for module in network.modules()]
        with ExitStack() as hooks:
            for module in network.modules():
                if isinstance(module, nn.modules.conv._ConvNd):
                    hooks.callback(module.register_forward_pre_hook(note).remove)
            network.eval()(example)
        for module, training in modes:
            module.training = training
    return shapes
