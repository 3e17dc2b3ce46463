"""Flow matching: codes as the end of paths from noise, along a velocity that a small network learns."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import jvp, vmap

from expost.densities.base import Fit, code_shape, restore_part
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
from expost.densities.grouped import Grouped, centers_of, embed, initial_embedding, read_counts, spread_of
from expost.densities.joint import JointDensity
from expost.densities.labels import Classes
from expost.densities.linalg import LOG_2PI
from expost.densities.paths import Slope, dormand_prince, runge_kutta
from expost.densities.standards import PerChannel, Standard, Whitened
from expost.densities.training import Means, hold_out, in_batches, train
from expost.densities.unet import UNet
from expost.densities.velocity import EMBEDDED, Perceptron, Velocity
from expost.errors import UsageError

#: The most numbers that a layer holds at a time: rows times units, and of a divergence times directions.
_AT_ONCE = 2**24
#: Draws of time and noise with which a held-out code is judged.
_DRAWS = 4
#: Most steps of a path, and most probes: samples and likelihoods must come to an end, whatever a file says.
_MOST = 1_000
#: Nodes of the integral of the divergence for every step of Runge and Kutta.
_NODES = 1.5
_EMBEDDING = "classes.embedding"
_ONE = torch.tensor(1.0)


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class FlowMatching(JointDensity):
    """q(z): where noise arrives that follows a learned velocity from t = 0 to 1 (Lipman et al. 2023; Liu et al. 2023).

    The codes are whitened, x_1 = L^-1 (z - m) with m and L L^T the mean and covariance of `Gaussian`; of maps, m is the
    mean at each position and L diagonal, one deviation a channel (`PerChannel`). On the straight
    path x_t = (1 - t) x_0 + t x_1 from noise x_0 ~ N(0, I) the velocity is x_1 - x_0; its expectation given x_t moves
    N(0, I) to the density of x_1. Were x_1 normal too, it would be a(t) x_t with a(t) = (2 t - 1) / c(t),
    c(t) = (1 - t)^2 + t^2. A network f learns the rest, by least squares:

        E || a(t) x_t + f(x_t / sqrt(c(t)), t) - (x_1 - x_0) ||^2,    t uniform on [0, 1].

    In y = x_t / sqrt(c(t)) the path is dy/dt = f(y, t) / sqrt(c(t)), and y(0) = x_0, y(1) = x_1. It is followed in
    `ode_steps` equal steps of Runge and Kutta's fourth order, or by Dormand and Prince's method, in which every code
    takes the steps that keep its error below `tolerance`. The density is, by the change of variables along it,

        log q(z) = log N(y(0); 0, I) - integral from 0 to 1 of div f(y, t) / sqrt(c(t)) dt - log det L,

    the integral by Gauss and Legendre's quadrature.

    Up to `exact_divergence` dimensions the divergence is exact; above, an unbiased estimate of it with `probes` random
    signs a code (Hutchinson 1990), the same at every call. With f = 0, from which training starts, q is one Gaussian.

    **With labels** one network learns all classes. The codes are whitened about the mean of their class, by the
    covariance within classes; f is told an embedding of the class that it learns (of ordered bins: the sum of a step
    for each bin up to it). With f = 0, q(z | c) is N(m_c, S). q(z) is the mean of q(z | c) with weights N_c / N.

    A share `unlabelled` of the training codes comes without its label, with x about the mean of all codes and of
    variances s, and a, c as they are for these. So f also learns v(x, t), the velocity of all codes, and paths can be
    guided to their label (Ho & Salimans 2022) by a weight w, `guidance`:

        dx/dt = v(x, t) + w (v(x, t | c) - v(x, t)).

    Above 1, samples are more typical of their class and less varied. 1 is no guidance, and q(z | c) the classes'
    density; 0 ignores the label. `log_prob` and `posterior` are always those of what is sampled, so with another w
    than 1 they say nothing of the codes: compare densities without. `guided` changes w without training.

    f knows the time and is, by `network`,

    | network | of codes | `width` | `depth` | `batch_size` |
    |---|---|---|---|---|
    | perceptron | vectors, or flattened maps: a residual `Perceptron` | units of a layer: 256 | blocks: 3 | 512 |
    | convolutional | maps: a residual `UNet` | channels of the finest grid: 64 | blocks a grid and way: 1 | 64 |

    with the sizes that it has where none are given; auto is convolutional for maps of more than one position, else the
    perceptron. It is trained in float32 by AdamW for
    `steps` steps, with a rate that falls by a half cosine; what is kept is the mean of the weights over steps (decay
    0.999). One tenth of the codes is held out: 20 times in a training their loss is measured, always with the same
    times, noise and missing labels, and the best weights stay if they lead the start by two standard errors. So codes
    too few to learn from give one Gaussian. Far tails are learned from few codes: samples can be narrower than codes
    with an outlier.

    Statistics: `seed`, `steps`, `best_step` (0: one Gaussian, or one a class), `validation_loss` (of it, per code) and
    `start_loss` (of step 0); with labels `labels`, `edges` and `counts`.

    Attributes:
        network: "auto", "perceptron" or "convolutional"; see above.
        width: Units or channels; None is that of the network.
        depth: Residual blocks; None is that of the network.
        attention: Whether the convolutional network has attention on its coarsest grid.
        steps: Training steps.
        batch_size: Codes of a step; None is that of the network.
        lr: Largest learning rate.
        solver: "runge-kutta" or "dormand-prince".
        ode_steps: Steps of Runge and Kutta, at most 1,000, four evaluations of the network each; a density's integral
            has three nodes for every two of them.
        tolerance: Error of a step of Dormand and Prince, relative to 1 + |y|, at least 1e-6.
        exact_divergence: Largest dimension with an exact divergence.
        probes: Random signs of the estimate above it.
        guidance: w, at least 0; only with labels.
        unlabelled: Share of codes that are trained on without their label, at least 0 and below 1.
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
    solver: Literal["runge-kutta", "dormand-prince"] = "runge-kutta"
    ode_steps: int = 8
    tolerance: float = 1e-3
    exact_divergence: int = 64
    probes: int = 8
    guidance: float = 1.0
    unlabelled: float = 0.1
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
        check_int("steps", self.steps, minimum=1)
        for name in ("ode_steps", "probes"):
            check_int(name, getattr(self, name), minimum=1, maximum=_MOST)
        check_int("exact_divergence", self.exact_divergence, minimum=0)
        check_float("lr", self.lr, minimum=0, above=True)
        check_choice("solver", self.solver, ["runge-kutta", "dormand-prince"])
        check_float("tolerance", self.tolerance, minimum=1e-6)
        check_float("guidance", self.guidance, minimum=0)
        check_float("unlabelled", self.unlabelled, minimum=0, below=1)
        if self.guidance != 1 and not self.unlabelled:
            raise UsageError(f"guidance={self.guidance:g} needs the velocity without a label: give unlabelled above 0")
        check_float("regularization", self.regularization, minimum=0, above=True)
        check_seed(self.seed)

    def guided(self, guidance: float) -> FlowMatching:
        """Return the same fit with another guidance; nothing is trained.

        Raises:
            UsageError: if it was not fitted with labels, or the guidance is out of range.
        """
        _ = self.labels  # refuses a fit without
        other = FlowMatching(**self.options | {"guidance": guidance})
        return restore_part(other, self.statistics, self.tensors, "", self.device)

    def _fit(self, z: Tensor) -> Fit:
        if self.guidance != 1:
            raise UsageError(f"guidance={self.guidance:g} is towards a label: fit with labels, or leave it out")
        mean = z.mean(0)
        standard = self._standard_for(z).of(z, z - mean, len(z), self._state.shape, self.regularization)
        weights, statistics = self._train(standard.whiten(z - mean).float(), None)
        return Fit({"mean": mean, **standard.tensors, **weights}, {"seed": self.seed, **statistics})

    def _fit_labelled(self, z: Tensor, classes: Classes, index: NDArray[np.int64]) -> Fit:
        groups = Grouped.of(z, classes, index, self._standard_for(z), self._state.shape, self.regularization)
        weights, statistics = self._train(groups.x, groups)
        start = {"mean": groups.means, **groups.standard.tensors}
        return Fit(start | weights, {"seed": self.seed, **statistics, **groups.record})

    def _standard_for(self, z: Tensor) -> type[Standard]:
        """Return how codes are standardized.

        Raises:
            DataError: if that takes a covariance that they do not determine.
        """
        kind = self._network(self._state.shape).standard
        if kind is Whitened:
            check_determined(self.name, *z.shape)
        return kind

    def _train(self, x: Tensor, groups: Grouped | None) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Train on standardized codes, float32; return the best weights and the statistics."""
        generator = torch.Generator().manual_seed(self.seed)  # on the CPU: every device takes the same steps
        held_out, training = hold_out(len(x), generator)
        network, velocity = self._network(self._state.shape), self._velocity(self._state.shape)
        judged = held_out[: network.judged].repeat(_DRAWS)
        of_judged = self._drawn(len(judged), x, generator)
        weights = velocity.initial(generator, x.device)
        if groups is not None:
            weights[_EMBEDDING] = initial_embedding(groups.classes, EMBEDDED, generator, x.device)
            centers = centers_of(groups.means, groups.standard, groups.counts)
            spread = spread_of(centers, groups.counts)
        trained = [tensor.requires_grad_() for tensor in weights.values()]
        means = Means(trained)
        mean = dict(zip(weights, means.tensors, strict=True))
        optimizer = torch.optim.AdamW(trained, lr=self.lr, fused=True)

        def errors(rows: Tensor, drawn: _Drawn, weights: Mapping[str, Tensor]) -> Tensor:
            codes, given = x[rows.to(x.device)], _Given()
            if groups is not None:
                index, dropped = groups.index[rows.to(x.device)], drawn.dropped
                condition = embed(weights[_EMBEDDING], groups.classes)[index].masked_fill(dropped, 0.0)
                codes = codes + dropped * centers[index]
                given = _Given(condition, torch.where(dropped, spread, 1.0))
            return self._errors(codes, drawn.times, drawn.noise, weights, given)

        def step(rows: Tensor) -> None:
            drawn = self._drawn(len(rows), x, generator)
            optimizer.zero_grad()
            errors(rows, drawn, weights).mean().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            means.update()

        def judge() -> Tensor:
            parts = torch.split(torch.arange(len(judged)), max(1, _AT_ONCE // velocity.units))
            with torch.no_grad():
                found = [errors(judged[rows], of_judged.part(rows), mean) for rows in parts]
                return torch.cat(found).reshape(_DRAWS, -1).mean(0)  # over a code's draws

        batches = in_batches(training, self.batch_size or network.batch_size, self.steps, generator)
        with torch.enable_grad():
            best, statistics = train(self.name, optimizer, self.lr, batches, self.steps, step, lambda: mean, judge)
        if groups is not None:
            best[_EMBEDDING] = embed(best[_EMBEDDING], groups.classes)
        return best, statistics

    def _drawn(self, n: int, x: Tensor, generator: torch.Generator) -> _Drawn:
        """Draw for n codes like x."""
        times = (torch.randperm(n, generator=generator) + torch.rand(n, generator=generator)) / n
        noise = torch.randn(n, x.shape[1], generator=generator)
        dropped = torch.rand(n, 1, generator=generator) < self.unlabelled
        return _Drawn(times[:, None].to(x.device), noise.to(x.device), dropped.to(x.device))

    def _errors(self, x: Tensor, times: Tensor, noise: Tensor, weights: Mapping[str, Tensor], given: _Given) -> Tensor:
        """Return the velocity's squared errors over s, summed over dimensions, (N,), at t (N, 1), x_1, x_0 (N, d)."""
        scale = _scale(times, given.spread)
        y = ((1 - times) * noise + times * x) / scale
        rest = self._velocity(self._state.shape).evaluate(y, times, weights, given.condition)
        missed = _of_gaussian(y, times, given.spread) - (x - noise)
        return (missed / given.spread.sqrt() + rest).square().sum(1)

    def _arrive(self, n: int, index: Tensor | None, generator: torch.Generator | None, temperature: float) -> Tensor:
        """Return where paths from n draws of noise lead, of the classes `index` (n,), None without labels."""
        fit = self.tensors
        start = draw_normal(n, self.dim, generator, fit["mean"].device, temperature).float()
        parts = torch.split(torch.arange(n, device=start.device), max(1, _AT_ONCE // self._velocity(self.shape).units))
        ends = [self._follow(start[rows], None if index is None else index[rows]) for rows in parts]
        y = torch.cat(ends or [start]).double()
        return (fit["mean"] if index is None else fit["mean"][index]) + self._standard.color(y)

    def _follow(self, y: Tensor, index: Tensor | None) -> Tensor:
        """Return where the path leads from y(0), rows of the classes `index`."""
        return self._solve(self._slopes(index), y, 0.0, 1.0, self.ode_steps)

    def _solve(self, slope: Slope, y: Tensor, start: float, end: float, steps: int) -> Tensor:
        """Follow a path, by steps of their own size or by as many as are given."""
        if self.solver == "dormand-prince":
            return dormand_prince(slope, y, start, end, self.tolerance)
        return runge_kutta(slope, y, start, end, steps)

    def _slopes(self, index: Tensor | None) -> Slope:
        """Return dy/dt by positions, times and their rows; `index` has each row's class, or one of all."""
        fit, velocity = self.tensors, self._velocity(self.shape)
        if index is None:
            return lambda y, t, rows: velocity.evaluate(y, t, fit) / _scale(t, _ONE)
        condition = fit[_EMBEDDING][index]

        def unguided(y: Tensor, t: Tensor, rows: Tensor | None) -> Tensor:
            return velocity.evaluate(y, t, fit, _rows(condition, rows)) / _scale(t, _ONE)

        if self.guidance == 1:
            return unguided
        centers = centers_of(fit["mean"], self._standard, self.counts)
        center, spread = centers[index], spread_of(centers, self.counts)

        def guided(y: Tensor, t: Tensor, rows: Tensor | None) -> Tensor:
            scale, of_all = _scale(t, _ONE), _scale(t, spread)
            rest, here = velocity.evaluate(y, t, fit, _rows(condition, rows)), _rows(center, rows)
            labelled = here + _of_gaussian(y, t, _ONE) + rest
            x = (scale * y + t * here) / of_all
            unlabelled = _of_gaussian(x, t, spread) + spread.sqrt() * velocity.evaluate(x, t, fit)
            return (rest + (self.guidance - 1) * (labelled - unlabelled)) / scale

        return guided

    def _log_density(self, z: Tensor, c: int | None) -> Tensor:
        """Return the log-density of codes, shape (N,), float64, of class number c."""
        mean, standard = self.tensors["mean"], self._standard
        y = standard.whiten(z - (mean if c is None else mean[c])).float()
        slope = self._slopes(None if c is None else torch.tensor([c], device=y.device))
        rows = max(1, _AT_ONCE // (self._velocity(self.shape).units * len(self._directions(y.device))))
        logs = [self._log_of_standardized(each, slope) for each in torch.split(y, rows)]
        return torch.cat(logs) - standard.log_volume

    def _directions(self, device: torch.device) -> Tensor:
        """Return the v, shape (K, d), of which sum_v v^T J v is a divergence, or an unbiased estimate of it."""
        d = self.dim
        if d <= self.exact_divergence:
            return torch.eye(d, device=device)
        signs = torch.randint(0, 2, (self.probes, d), generator=torch.Generator().manual_seed(self.seed))
        return (2.0 * signs - 1.0).to(device) / math.sqrt(self.probes)

    def _log_of_standardized(self, y: Tensor, slope: Slope) -> Tensor:
        """Follow paths back from y(1), and add up divergences at the nodes of Gauss and Legendre's quadrature."""
        directions = self._directions(y.device)
        nodes, weights = np.polynomial.legendre.leggauss(math.ceil(_NODES * self.ode_steps))
        total, t = torch.zeros(len(y), dtype=torch.float64, device=y.device), 1.0
        for node, weight in zip((1 + nodes[::-1]) / 2, weights[::-1] / 2, strict=True):
            y, t = self._solve(slope, y, t, float(node), 1), float(node)
            total += float(weight) * _divergence(slope, y, t, directions)
        y = self._solve(slope, y, t, 0.0, 1)
        return -0.5 * (y.double().square().sum(1) + self.dim * LOG_2PI) - total

    def _layout(self, statistics: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        d, shape = statistics["d"], code_shape(statistics)
        layout = {"mean": (d,), **self._network(shape).standard.layout(shape), **self._velocity(shape).shapes()}
        if "labels" in statistics:
            classes = len(read_counts(statistics))
            layout |= {"mean": (classes, d), _EMBEDDING: (classes, EMBEDDED)}
        return layout

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

    @property
    def _standard(self) -> Standard:
        return self._network(self.shape).standard.among(self.tensors, self.shape)


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


@dataclass(frozen=True)
class _Drawn:
    """What is drawn for training codes.

    Attributes:
        times: One in each n-th of [0, 1), in random order, shape (n, 1).
        noise: Where paths begin, shape (n, d).
        dropped: Whose label is not told, bool, shape (n, 1).
    """

    times: Tensor
    noise: Tensor
    dropped: Tensor

    def part(self, rows: Tensor) -> _Drawn:
        """Return what is drawn for these."""
        return _Drawn(self.times[rows], self.noise[rows], self.dropped[rows])


@dataclass(frozen=True)
class _Given:
    """What is known of codes.

    Attributes:
        condition: Embeddings of their classes, shape (N, e); None if unknown.
        spread: s, the variances of their coordinates, shape (N, d) or (), 1 where the class is known.
    """

    condition: Tensor | None = None
    spread: Tensor = _ONE


def _divergence(slope: Slope, y: Tensor, t: float, directions: Tensor) -> Tensor:
    """Return sum_v v^T J v with J the Jacobian of the slopes in y, shape (N,), float64."""
    at = torch.full((1, 1), t, device=y.device)

    def along(v: Tensor) -> Tensor:
        change: Tensor = jvp(lambda x: slope(x, at, None), (y,), (v.expand_as(y),))[1]
        return (change * v).sum(1)

    traces: Tensor = vmap(along)(directions)
    return traces.double().sum(0)


def _rows(each: Tensor, rows: Tensor | None) -> Tensor:
    """Return the rows that are asked for, or the one of all."""
    return each if rows is None or len(each) == 1 else each[rows]


def _scale(t: Tensor, s: Tensor) -> Tensor:
    """Return sqrt((1 - t)^2 + t^2 s), the deviations of x_t where x_0 is of N(0, I), and x_1 of variances s."""
    return ((1 - t).square() + t.square() * s).sqrt()


def _of_gaussian(y: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """Return the velocity at y = x_t / `_scale` were x_1 normal, of mean 0 and variances s."""
    return (t * s - (1 - t)) / _scale(t, s) * y
