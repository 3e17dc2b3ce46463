"""Flow matching: codes as the end of paths from noise, along a velocity that a small network learns."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, final

import torch
from torch import Tensor
from torch.func import jvp, vmap

from expost.densities.base import Fit, code_shape
from expost.densities.checks import (
    check_bool,
    check_choice,
    check_depth,
    check_determined,
    check_float,
    check_int,
    check_seed,
)
from expost.densities.drawing import draw_normal
from expost.densities.linalg import LOG_2PI
from expost.densities.standards import PerChannel, Standard, Whitened
from expost.densities.tractable import TractableDensity
from expost.densities.training import hold_out, in_batches, train
from expost.densities.unet import UNet
from expost.densities.velocity import Perceptron, Velocity
from expost.errors import UsageError

#: The most numbers that a layer holds at a time: rows times units, and of a divergence times directions.
_AT_ONCE = 2**24
#: Draws of time and noise with which a held-out code is judged.
_DRAWS = 4
#: Decay of the mean of the weights over steps.
_DECAY = 0.999


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class FlowMatching(TractableDensity):
    """q(z): where noise arrives that follows a learned velocity from t = 0 to 1 (Lipman et al. 2023; Liu et al. 2023).

    The codes are whitened, x_1 = L^-1 (z - m) with m and L L^T the mean and covariance of `Gaussian`; of maps
    (`PerChannel`), m is the mean at each position and L diagonal, one deviation a channel. On the straight path
    x_t = (1 - t) x_0 + t x_1 from noise x_0 ~ N(0, I) the velocity is x_1 - x_0; its expectation given x_t moves
    N(0, I) to the density of x_1. Were x_1 normal too, it would be a(t) x_t with a(t) = (2 t - 1) / c(t),
    c(t) = (1 - t)^2 + t^2. A network f learns the rest, by least squares:

        E || a(t) x_t + f(x_t / sqrt(c(t)), t) - (x_1 - x_0) ||^2,    t uniform on [0, 1].

    In y = x_t / sqrt(c(t)) the path is dy/dt = f(y, t) / sqrt(c(t)), and y(0) = x_0, y(1) = x_1. It is followed in
    `ode_steps` steps of Runge and Kutta's fourth order. The density is, by the change of variables along it,

        log q(z) = log N(y(0); 0, I) - integral from 0 to 1 of div f(y, t) / sqrt(c(t)) dt - log det L.

    Up to `exact_divergence` dimensions the divergence is exact; above, an unbiased estimate of it with `probes` random
    signs a code (Hutchinson 1990), the same at every call. With f = 0, from which training starts, q is one Gaussian.

    f knows the time and is, by `network`,

    | network | of codes | `width` | `depth` | `batch_size` |
    |---|---|---|---|---|
    | perceptron | vectors, or flattened maps: a residual `Perceptron` | units of a layer: 256 | blocks: 3 | 512 |
    | convolutional | maps: a residual `UNet` | channels of the finest grid: 64 | blocks a grid and way: 1 | 64 |

    with the sizes that it has where none are given; auto is convolutional for maps of more than one position, else the
    perceptron. It is trained in float32 by AdamW for
    `steps` steps, with a rate that falls by a half cosine; what is kept is the mean of the weights over steps (decay
    0.999). One tenth of the codes is held out: 20 times in a training their loss is measured, always with the same
    times and noise, and the best weights stay if they lead the start by two standard errors. So codes too few to learn
    from give one Gaussian. Far tails are learned from few codes: samples can be narrower than codes with an outlier.

    Statistics: `seed`, `steps`, `best_step` (0: one Gaussian), `validation_loss` (of it, per code) and `gaussian_loss`
    (of step 0).

    Attributes:
        network: "auto", "perceptron" or "convolutional"; see above.
        width: Units or channels; None is that of the network.
        depth: Residual blocks; None is that of the network.
        attention: Whether the convolutional network has attention on its coarsest grid.
        steps: Training steps.
        batch_size: Codes of a step; None is that of the network.
        lr: Largest learning rate.
        ode_steps: Steps of the path, four evaluations of the network each.
        exact_divergence: Largest dimension with an exact divergence.
        probes: Random signs of the estimate above it.
        regularization: That of `Gaussian`, or on the variance of a channel; above 0.
        seed: Seed of weights, held-out part, batches, times, noise and signs.

    Example:
        >>> z = torch.randn(300, 2, generator=torch.Generator().manual_seed(0)).sinh()
        >>> density = FlowMatching(width=16, depth=1, steps=40).fit(z)
        >>> density.sample(3).shape, density.log_prob(z[:5]).shape
        (torch.Size([3, 2]), torch.Size([5]))
    """

    name: ClassVar[str] = "flow-matching"
    words: ClassVar[str] = "flow matching"
    network: Literal["auto", "perceptron", "convolutional"] = "auto"
    width: int | None = None
    depth: int | None = None
    attention: bool = True
    steps: int = 3_000
    batch_size: int | None = None
    lr: float = 2e-3
    ode_steps: int = 8
    exact_divergence: int = 64
    probes: int = 8
    regularization: float = 1e-6
    seed: int = 0

    def _check(self) -> None:
        check_choice("network", self.network, ["auto", *_NETWORKS])
        check_bool("attention", self.attention)
        if self.depth is not None:
            check_depth("depth", self.depth)
        for name in ("width", "batch_size"):
            if getattr(self, name) is not None:
                check_int(name, getattr(self, name), minimum=1)
        for name in ("steps", "ode_steps", "probes"):
            check_int(name, getattr(self, name), minimum=1)
        check_int("exact_divergence", self.exact_divergence, minimum=0)
        check_float("lr", self.lr, minimum=0, above=True)
        check_float("regularization", self.regularization, minimum=0, above=True)
        check_seed(self.seed)

    def _fit(self, z: Tensor) -> Fit:
        shape = self._state.shape
        kind = self._standard(shape)
        if kind is Whitened:
            check_determined(self.name, *z.shape)
        standard = kind.of(z, shape, self.regularization)
        with torch.enable_grad():
            weights, statistics = self._train(standard.apply(z).float())
        return Fit(standard.tensors | weights, {"seed": self.seed, **statistics})

    def _train(self, x: Tensor) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Train on standardized codes, float32; return the best weights and the statistics."""
        generator = torch.Generator().manual_seed(self.seed)  # on the CPU: every device takes the same steps
        held_out, training = hold_out(x, generator)
        network, velocity = self._network(self._state.shape), self._velocity(self._state.shape)
        judged = held_out[: network.judged].repeat(_DRAWS, 1)
        times, noise = _times(len(judged), generator).to(x.device), torch.randn(judged.shape, generator=generator)
        noise = noise.to(x.device)
        weights = velocity.initial(generator, x.device)
        trained = [tensor.requires_grad_() for tensor in weights.values()]
        mean = {name: tensor.detach().clone() for name, tensor in weights.items()}
        optimizer = torch.optim.AdamW(trained, lr=self.lr, fused=True if x.is_cuda else None)
        numbers = itertools.count(1)

        def step(batch: Tensor) -> None:
            start = torch.randn(batch.shape, generator=generator).to(x.device)
            errors = self._errors(batch, _times(len(batch), generator).to(x.device), start, weights)
            optimizer.zero_grad()
            errors.mean().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            number = next(numbers)
            decay = min(_DECAY, (1 + number) / (10 + number))
            torch._foreach_lerp_(list(mean.values()), [each.detach() for each in trained], 1 - decay)

        def judge() -> Tensor:
            rows = max(1, _AT_ONCE // velocity.units)
            split = zip(judged.split(rows), times.split(rows), noise.split(rows), strict=True)  # type: ignore[no-untyped-call]
            with torch.no_grad():
                parts = [self._errors(*part, mean) for part in split]
                return torch.cat(parts).reshape(_DRAWS, -1).mean(0)  # over a code's draws

        batches = in_batches(training, self.batch_size or network.batch_size, self.steps, generator)
        return train(self.name, optimizer, self.lr, batches, self.steps, step, lambda: mean, judge)

    def _errors(self, x: Tensor, times: Tensor, noise: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
        """Return squared errors of the velocity, summed over dimensions, (N,), at t (N, 1), x_1 and x_0 (N, d)."""
        scale = _scale(times)
        y = ((1 - times) * noise + times * x) / scale
        of_gaussian = (2 * times - 1) / scale * y
        rest = self._velocity(self._state.shape).evaluate(y, times, weights)
        return (of_gaussian + rest - (x - noise)).square().sum(1)

    def _draw(self, n: int, generator: torch.Generator | None, temperature: float) -> Tensor:
        standard = self._standard(self.shape).among(self.tensors, self.shape)
        start = draw_normal(n, self.dim, generator, standard.mean.device, temperature).float()
        parts = torch.split(start, max(1, _AT_ONCE // self._velocity(self.shape).units))
        return standard.undo(torch.cat([self._follow(part) for part in parts]).double())

    def _follow(self, y: Tensor) -> Tensor:
        """Return where the path leads from y(0)."""
        for k in range(self.ode_steps):
            y = _runge_kutta(self._slope, y, k / self.ode_steps, 1 / self.ode_steps)
        return y

    def _slope(self, y: Tensor, t: float) -> Tensor:
        """Return dy/dt."""
        times = torch.full((len(y), 1), t, device=y.device)
        return self._velocity(self.shape).evaluate(y, times, self.tensors) / _scale(times)

    def _log_prob(self, z: Tensor) -> Tensor:
        standard = self._standard(self.shape).among(self.tensors, self.shape)
        y = standard.apply(z).float()
        rows = max(1, _AT_ONCE // (self._velocity(self.shape).units * self._directions))
        logs = [self._log_density(each) for each in torch.split(y, rows)]
        return torch.cat(logs) - standard.log_volume

    @property
    def _directions(self) -> int:
        """Directions in which a divergence derives."""
        return self.dim if self.dim <= self.exact_divergence else self.probes

    def _log_density(self, y: Tensor) -> Tensor:
        """Return the log-density of standardized codes, shape (N,), float64."""
        d = self.dim
        if d <= self.exact_divergence:
            directions = torch.eye(d, device=y.device)
        else:
            generator = torch.Generator().manual_seed(self.seed)
            signs = torch.randint(0, 2, (self.probes, d), generator=generator)
            directions = (2.0 * signs - 1.0).to(y.device)
        share = 1.0 if d <= self.exact_divergence else 1 / self.probes

        def with_divergence(state: Tensor, t: float) -> Tensor:
            position = state[:, :d].float()

            def along(v: Tensor) -> Tensor:
                change: Tensor = jvp(lambda x: self._slope(x, t), (position,), (v.expand_as(position),))[1]
                return (change * v).sum(1)

            traces = vmap(along)(directions).double().sum(0)
            return torch.cat([self._slope(position, t).double(), share * traces[:, None]], 1)

        state = torch.cat([y.double(), torch.zeros(len(y), 1, dtype=torch.float64, device=y.device)], 1)
        for k in range(self.ode_steps, 0, -1):
            state = _runge_kutta(with_divergence, state, k / self.ode_steps, -1 / self.ode_steps)
        # backwards, the last column is minus the integral
        return -0.5 * (state[:, :d].square().sum(1) + d * LOG_2PI) + state[:, d]

    def _layout(self, statistics: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        shape = code_shape(statistics)
        return self._standard(shape).layout(shape) | self._velocity(shape).shapes()

    def _network(self, shape: tuple[int, ...]) -> _Network:
        """Return the network that the options name, for codes of a shape.

        Raises:
            UsageError: if it is one of maps, and the codes are vectors.
        """
        if self.network == "convolutional" and len(shape) == 1:
            raise UsageError(
                f"network=convolutional needs codes that are maps (N, C, H, W), these are vectors of {shape[0]}; "
                "take network=perceptron"
            )
        maps = math.prod(shape[1:]) > 1 if self.network == "auto" else self.network == "convolutional"
        return _NETWORKS["convolutional" if maps else "perceptron"]

    def _velocity(self, shape: tuple[int, ...]) -> Velocity:
        network = self._network(shape)
        return network.build(shape, self.width or network.width, self.depth or network.depth, self.attention)

    def _standard(self, shape: tuple[int, ...]) -> type[Standard]:
        return self._network(shape).standard


@dataclass(frozen=True)
class _Network:
    """A kind of network.

    Attributes:
        build: Makes it for codes of a shape, of a width and a depth, with attention or not.
        standard: How codes are standardized for it.
        width: Where the options say none.
        depth: Likewise.
        batch_size: Likewise.
        judged: Largest number of held-out codes that a check looks at.
    """

    build: Callable[[tuple[int, ...], int, int, bool], Velocity]
    standard: type[Standard]
    width: int
    depth: int
    batch_size: int
    judged: int


def _perceptron(shape: tuple[int, ...], width: int, depth: int, attention: bool) -> Velocity:
    return Perceptron(dim=math.prod(shape), width=width, depth=depth)


def _convolutional(shape: tuple[int, ...], width: int, depth: int, attention: bool) -> Velocity:
    return UNet(shape=shape, width=width, depth=depth, attention=attention)


_NETWORKS = {
    "perceptron": _Network(_perceptron, Whitened, 256, 3, 512, 2_048),
    "convolutional": _Network(_convolutional, PerChannel, 64, 1, 64, 512),
}


def _times(n: int, generator: torch.Generator) -> Tensor:
    """Return n times in [0, 1), one in each n-th of it, in random order, shape (n, 1)."""
    return ((torch.randperm(n, generator=generator) + torch.rand(n, generator=generator)) / n)[:, None]


def _scale(t: Tensor) -> Tensor:
    """Return sqrt((1 - t)^2 + t^2), the deviation of x_t where x_0 and x_1 are standard normal."""
    return ((1 - t).square() + t.square()).sqrt()


def _runge_kutta(slope: Callable[[Tensor, float], Tensor], y: Tensor, t: float, h: float) -> Tensor:
    """Take one step of the classical fourth-order method."""
    first = slope(y, t)
    second = slope(y + 0.5 * h * first, t + 0.5 * h)
    third = slope(y + 0.5 * h * second, t + 0.5 * h)
    fourth = slope(y + h * third, t + h)
    return y + h / 6 * (first + 2 * second + 2 * third + fourth)
