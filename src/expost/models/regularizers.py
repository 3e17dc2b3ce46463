"""The regularizer slot: what keeps the decoder smooth.

| name | what it does |
|---|---|
| none | nothing |
| tikhonov | term ||theta_D||^2 |
| gradient-penalty | term ||J||_F^2, J = dD/dz at z = E(x) |
| spectral-norm | weights divided by their largest singular value: a reparametrisation, no term |
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrize

from expost.distributed import world
from expost.distributed.shards import head, random_signs
from expost.errors import UsageError
from expost.models.jacobians import is_recurrent, jvp, twice_differentiable, untracked
from expost.models.spectral_norm import MatrixNorm, OperatorNorm, input_shapes
from expost.networks.convolution import differentiated_twice
from expost.registry import Registry
from expost.types import LatentCode

#: What encoder and decoder take.
Inputs = tuple[Tensor, Tensor] | None


class Regularizer(ABC):
    """A reparametrisation of the networks, a term on the decoder, or nothing.

    Attributes:
        wants_output: Whether `penalty` takes the decoder's output for the reconstruction, instead of running the
            decoder again.
    """

    wants_output: bool = False
    #: Whether `penalty` is a term of the objective, which needs a weight.
    has_term: ClassVar[bool] = True

    @abstractmethod
    def prepare(self, encoder: nn.Module, decoder: nn.Module, inputs: Inputs = None) -> None:
        """Reparametrise the networks, once, when the model is built.

        Args:
            encoder: The encoder.
            decoder: The decoder.
            inputs: What each of them takes, one example or more; only what depends on the sizes of maps needs them.
        """

    @abstractmethod
    def penalty(self, decoder: nn.Module, code: LatentCode, output: Tensor | None = None) -> Tensor:
        """Return the scalar term; the caller weighs it by lambda.

        Args:
            decoder: The decoder.
            code: The codes.
            output: The decoder's output for `code.z`, a leaf of its graph, if `wants_output`; None otherwise.
        """


class NoRegularizer(Regularizer):
    """No regularizer."""

    has_term: ClassVar[bool] = False

    def prepare(self, encoder: nn.Module, decoder: nn.Module, inputs: Inputs = None) -> None:
        """Leave the networks as they are."""

    def penalty(self, decoder: nn.Module, code: LatentCode, output: Tensor | None = None) -> Tensor:
        """Return zero."""
        return code.z.new_zeros(())


class Tikhonov(Regularizer):
    """L_REG = ||theta_D||^2: the sum of squares of the decoder's weights (Ghosh et al. 2020, section 3.1).

    Args:
        scope: Which weights. `kernels`: every weight of two or more axes (no biases, and not batch norm's scale and
            shift, which do not enter the smoothness argument). `transposed-convolutions`: only those kernels, as the
            official code does for MNIST and CIFAR-10. `all`: every parameter, as the formula reads literally.

    Example:
        >>> decoder = nn.Linear(2, 2)
        >>> _ = nn.init.constant_(decoder.weight, 0.5)
        >>> code = LatentCode(z=torch.zeros(1, 2), mean=torch.zeros(1, 2))
        >>> Tikhonov().penalty(decoder, code).item()
        1.0
    """

    def __init__(self, scope: Literal["kernels", "transposed-convolutions", "all"] = "kernels") -> None:
        choices: dict[str, Callable[[nn.Module, Tensor], bool]] = {
            "kernels": lambda module, weight: weight.dim() >= 2,
            "transposed-convolutions": lambda module, weight: (
                isinstance(module, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d) and weight.dim() >= 2
            ),
            "all": lambda module, weight: True,
        }
        self._counts = Registry("tikhonov scope", choices)[scope]
        self.scope = scope

    def prepare(self, encoder: nn.Module, decoder: nn.Module, inputs: Inputs = None) -> None:
        """Check that the scope names at least one weight.

        Raises:
            UsageError: if it names none.
        """
        if not any(True for _ in self._weights(decoder)):
            raise UsageError(f"tikhonov scope '{self.scope}' names no weight of this decoder; use 'kernels' or 'all'")

    def penalty(self, decoder: nn.Module, code: LatentCode, output: Tensor | None = None) -> Tensor:
        """Return the sum of squares of the weights in the scope."""
        # the norm's gradient is one product; that of squares and their sum are three passes over the weights
        return torch.stack([torch.linalg.vector_norm(weight) for weight in self._weights(decoder)]).square().sum()

    def _weights(self, decoder: nn.Module) -> Iterator[Tensor]:
        seen: set[int] = set()  # a weight that two layers share counts once
        for module in decoder.modules():
            for weight in module.parameters(recurse=False):
                if self._counts(module, weight) and id(weight) not in seen:
                    seen.add(id(weight))
                    yield weight


class GradientPenalty(Regularizer):
    """L_REG = ||J||_F^2, the squared Frobenius norm of the decoder's Jacobian J = dD/dz at z = E(x), batch-averaged.

    (Ghosh et al. 2020, section 3.1.) The official code penalises the gradient of the *sum of squared outputs* instead,
    and Pythae the gradient of the sum of outputs with respect to x, through the encoder; weights do not carry over.

    The estimators are unbiased, by E ||J u||^2 = E ||J^T v||^2 = ||J||_F^2 for u, v with independent entries +-1
    (Hutchinson 1990), and cost one Jacobian product. z is a constant here: nothing is differentiated through the
    encoder, neither for the Jacobian nor for the term's gradient.

    A decoder with batch norm in training mode maps the whole batch at once. J is then the Jacobian of that map, whose
    blocks between different examples are of order 1 / B.

    Args:
        estimator: `reverse` (one vector-Jacobian product; fastest where measured, works in mixed precision), `forward`
            (one Jacobian-vector product, float32), or `exact` (one product per latent dimension; with batch norm in
            training mode one per latent dimension and example: for small cases and tests).
        fraction: The part of each batch that the penalty is computed on, in (0, 1]. Batches are in random order, so any
            part has the same expectation, and the cost falls with it. With batch norm in training mode the statistics
            are those of the part.

    Example:
        >>> decoder = nn.Linear(2, 3, bias=False)
        >>> code = LatentCode(z=torch.zeros(4, 2), mean=torch.zeros(4, 2))
        >>> exact = GradientPenalty("exact").penalty(decoder, code)
        >>> torch.allclose(exact, decoder.weight.square().sum())
        True
    """

    def __init__(self, estimator: Literal["reverse", "forward", "exact"] = "reverse", fraction: float = 1.0) -> None:
        if not 0 < fraction <= 1:
            raise UsageError(f"gradient penalty fraction is {fraction}; give a number above 0, at most 1")
        estimators: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
            "reverse": self._reverse,
            "forward": self._forward,
            "exact": self._exact,
        }
        self._squared_norm = Registry("gradient penalty estimator", estimators)[estimator]
        self.estimator = estimator
        self.fraction = fraction

    def prepare(self, encoder: nn.Module, decoder: nn.Module, inputs: Inputs = None) -> None:
        """Leave the networks as they are; set `wants_output` if the reconstruction's output serves the estimate."""
        self.wants_output = self.estimator == "reverse" and self.fraction == 1 and not is_recurrent(decoder)

    def penalty(self, decoder: nn.Module, code: LatentCode, output: Tensor | None = None) -> Tensor:
        """Return the squared Frobenius norm, or its estimate, averaged over the batch."""
        if output is not None:
            with torch.enable_grad(), head(code.z, 1.0) as (_, count):
                return self._product(output, code.z) / count
        with (
            torch.enable_grad(),
            untracked(decoder),
            twice_differentiable(decoder),
            head(code.z.detach(), self.fraction) as (z, count),
        ):
            return self._squared_norm(decoder, z) / count

    @staticmethod
    def _reverse(decoder: nn.Module, z: Tensor) -> Tensor:
        z.requires_grad_()
        with differentiated_twice():
            output = decoder(z)
        return GradientPenalty._product(output, z)

    @staticmethod
    def _product(output: Tensor, z: Tensor) -> Tensor:
        (product,) = torch.autograd.grad(output, z, random_signs(output), create_graph=True)
        return product.square().sum()

    @staticmethod
    def _forward(decoder: nn.Module, z: Tensor) -> Tensor:
        return jvp(decoder, z, random_signs(z)).square().sum()

    @staticmethod
    def _exact(decoder: nn.Module, z: Tensor) -> Tensor:
        coupled = any(isinstance(module, _BatchNorm) and module.training for module in decoder.modules())
        if coupled and world() > 1:
            raise UsageError(
                "the exact gradient penalty with batch norm takes one process; use estimator=reverse, or launch one"
            )
        numbers = z.numel() if coupled else z[0].numel()
        columns = torch.eye(numbers, device=z.device, dtype=z.dtype)
        directions = columns.view(numbers, *z.shape) if coupled else columns.view(numbers, 1, *z.shape[1:])
        return torch.stack([jvp(decoder, z, direction.expand_as(z)).square().sum() for direction in directions]).sum()


class SpectralNorm(Regularizer):
    """Each kernel is divided by its spectral norm, found by power iteration (Miyato et al. 2018, eq. 8).

    Args:
        scope: `decoder`, as the paper's text has it, or `both`, as the official code does.
        iterations: Power iterations per training step, at least 1.
        estimator: `matrix`, the norm of the kernel as a matrix, outputs by rest, of transposed convolutions inputs by
            rest, as in the official code; or `operator`, the norm of the layer as a linear map on the maps that it
            gets, its Lipschitz constant. See `models.spectral_norm`.
    """

    has_term: ClassVar[bool] = False

    def __init__(
        self,
        scope: Literal["decoder", "both"] = "decoder",
        iterations: int = 1,
        estimator: Literal["matrix", "operator"] = "matrix",
    ) -> None:
        scopes: dict[str, bool] = {"decoder": False, "both": True}
        self.both = Registry("spectral norm scope", scopes)[scope]
        estimators: dict[str, bool] = {"matrix": False, "operator": True}
        self.on_maps = Registry("spectral norm estimator", estimators)[estimator]
        if iterations < 1:
            raise UsageError(f"spectral norm iterations is {iterations}; give at least 1")
        self.iterations = iterations

    def prepare(self, encoder: nn.Module, decoder: nn.Module, inputs: Inputs = None) -> None:
        """Reparametrise every linear and convolution layer of the decoder (and of the encoder).

        Raises:
            UsageError: if there is no such layer.
        """
        layers = [
            module
            for network in ([encoder, decoder] if self.both else [decoder])
            for module in network.modules()
            if isinstance(module, nn.Linear | nn.modules.conv._ConvNd)
        ]
        if not layers:
            raise UsageError("spectral norm found no linear or convolution layer; choose another regularizer")
        shapes: dict[nn.Module, tuple[int, ...]] = {}
        if self.on_maps and inputs is not None:
            shapes = input_shapes(zip((encoder, decoder), inputs, strict=True))
        for layer in layers:
            norm: nn.Module
            if self.on_maps and isinstance(layer, nn.modules.conv._ConvNd):
                if layer not in shapes:
                    raise UsageError(
                        "spectral norm estimator=operator needs the size of each convolution's input, and one is never "
                        "run; use estimator=matrix"
                    )
                norm = OperatorNorm(layer, shapes[layer], self.iterations)
            else:
                norm = MatrixNorm(layer.weight, self.iterations)
            parametrize.register_parametrization(layer, "weight", norm)

    def penalty(self, decoder: nn.Module, code: LatentCode, output: Tensor | None = None) -> Tensor:
        """Return zero."""
        return code.z.new_zeros(())


#: The regularizer slot. A new one is a class above and a line here.
REGULARIZERS: Registry[type[Regularizer]] = Registry(
    "regularizer",
    {
        "none": NoRegularizer,
        "tikhonov": Tikhonov,
        "gradient-penalty": GradientPenalty,
        "spectral-norm": SpectralNorm,
    },
)
