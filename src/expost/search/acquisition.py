"""Which codes to try next: batch expected improvement, in the box of the training codes or where q(z) has mass.

A batch is chosen greedily. Each next point maximizes the expected improvement of f given the points chosen before it,
whose values are not known yet and are drawn from the surrogate ("fantasies"), averaged over the draws (Snoek,
Larochelle & Adams 2012, sec. 3.2; the batched greedy rule of Kusner et al. 2017, whose code puts the posterior mean in
place of the draws).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from expost.densities import TractableDensity
from expost.errors import DataError
from expost.search.surrogate import Surrogate

_FLOOR = 1e-10  # smallest conditional variance, in units of the targets' variance


def log_improvement(u: Tensor) -> Tensor:
    """Return log(phi(u) + u Phi(u)), the log of a standard normal's expected improvement, accurately for any u.

    Below u = -1 the sum cancels; there it is log phi(u) + log(1 - |u| R(|u|)) with Mills' ratio R, and below -1e4,
    where that cancels too, its limit log phi(u) - 2 log |u| (Ament et al. 2023, "Unexpected Improvements to Expected
    Improvement", eq. 9).

    Args:
        u: Standardized improvement (mean - best) / standard deviation, any shape, float64.

    Example:
        >>> log_improvement(torch.tensor([0.0, -5.0], dtype=torch.float64))
        tensor([ -0.9189, -16.7443], dtype=torch.float64)
    """
    upper = u.clamp_min(-1)
    direct = (_density(upper) + upper * torch.special.ndtr(upper)).log()
    middle = u.clamp(-1e4, -1)
    ratio = middle.abs() * math.sqrt(math.pi / 2) * torch.special.erfcx(-middle / math.sqrt(2))
    cancelling = torch.log1p(-ratio)
    lower = u.clamp_max(-1)
    tail = torch.where(u < -1e4, -2 * lower.abs().log(), cancelling)
    return torch.where(u > -1, direct, -0.5 * lower.square() - 0.5 * math.log(2 * math.pi) + tail)


def _density(u: Tensor) -> Tensor:
    return torch.exp(-0.5 * u.square()) / math.sqrt(2 * math.pi)


class BatchImprovement:
    """Log of the expected improvement at a point, given the points already in the batch.

    With pending points P, their joint posterior factored as C_PP = T T^T, w(x) = T^-1 cov(f(P), f(x)) and standard
    normal draws e_s, fantasy s has f(x) ~ N(E f(x) + w(x)^T e_s, var f(x) - ||w(x)||^2) and the incumbent
    b_s = max(best, f_s(P)); the value is log (1/S) sum_s EI_s(x).

    Args:
        surrogate: The fitted process.
        best: Incumbent, in the targets' unit; improvement is counted above it.
        fantasies: Number S of draws.
        generator: Source of the draws, on the CPU.
    """

    def __init__(self, surrogate: Surrogate, best: float, fantasies: int, generator: torch.Generator) -> None:
        self.surrogate = surrogate
        self._generator = generator
        like = surrogate.shift
        self._best = like.new_full((fantasies, 1), (best - surrogate.center) / surrogate.spread)
        self._draws = like.new_zeros(fantasies, 0)
        self._points = like.new_zeros(0, len(like))
        self._features = like.new_zeros(len(surrogate.posterior.mean), 0)
        self._factor = like.new_zeros(0, 0)

    def __call__(self, x: Tensor) -> Tensor:
        """Return the log expected improvement, shape (N,), in units of the targets' spread, at scaled points (N, d)."""
        means, variance = self._conditional(x)[1:3]
        deviation = variance.sqrt()
        values = log_improvement((means - self._best) / deviation) + deviation.log()
        return torch.logsumexp(values, 0) - math.log(len(self._best))

    def _conditional(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return features (M, N), the fantasies' means (S, N), their common variance (N,), and w(x), shape (P, N)."""
        a = self.surrogate.features(x)
        mean, variance = self.surrogate.moments(a)
        shared = self._features.mT @ (self.surrogate.posterior.shrinkage @ a)
        covariance = self.surrogate.kernel(self._points, x) - shared if len(self._points) else shared
        w = torch.linalg.solve_triangular(self._factor, covariance, upper=False)
        return a, mean + self._draws @ w, (variance - w.square().sum(0)).clamp_min(_FLOOR), w

    @torch.no_grad()
    def add(self, x: Tensor) -> None:
        """Put the scaled point x, shape (d,), into the batch, with a fantasized value in each draw."""
        a, means, variance, w = self._conditional(x[None])
        draw = torch.randn(len(self._best), 1, generator=self._generator, dtype=torch.float64).to(x)
        self._best = torch.maximum(self._best, means + variance.sqrt() * draw)
        row = torch.cat([w[:, 0], variance.sqrt()])
        grown = torch.cat(
            [self._factor, self._factor.new_zeros(len(self._factor), 1)], 1
        )  # `pad` of torch 2.6 refuses 0x0
        self._factor = torch.cat([grown, row[None]])
        self._draws = torch.cat([self._draws, draw], 1)
        self._points = torch.cat([self._points, x[None]])
        self._features = torch.cat([self._features, a], 1)


class Region(ABC):
    """Where the search may go. `maximize` finds the best point of an acquisition inside."""

    @abstractmethod
    def maximize(self, acquisition: BatchImprovement, generator: torch.Generator) -> Tensor:
        """Return the best scaled point found, shape (d,)."""

    @abstractmethod
    def contains(self, codes: Tensor) -> Tensor:
        """Return whether codes (N, d) lie inside, bool, shape (N,)."""


def _top(acquisition: BatchImprovement, x: Tensor, count: int) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        values = acquisition(x)
    values, order = values.topk(min(count, len(x)))
    return x[order], values


class Box(Region):
    """The smallest axis-parallel box that holds the training codes, as Kusner et al. 2017 and Ghosh et al. 2020 do it.

    Uniform draws, the best of which L-BFGS-B refines.

    Args:
        codes: Training codes, shape (N, d).
        candidates: Uniform draws per point of a batch.
        restarts: How many of them are refined.
        refinements: Iterations of L-BFGS-B.
    """

    def __init__(self, codes: Tensor, candidates: int, restarts: int, refinements: int) -> None:
        self.low, self.high = codes.double().amin(0), codes.double().amax(0)
        self.candidates, self.restarts, self.refinements = candidates, restarts, refinements

    def contains(self, codes: Tensor) -> Tensor:
        """Return whether codes lie inside, up to float32's rounding."""
        slack = 1e-6 * torch.maximum(self.low.abs(), self.high.abs())
        return ((codes.to(self.low) >= self.low - slack) & (codes.to(self.low) <= self.high + slack)).all(1)

    def maximize(self, acquisition: BatchImprovement, generator: torch.Generator) -> Tensor:
        """Return the best scaled point found, shape (d,)."""
        low, high = acquisition.surrogate.to_unit(torch.stack([self.low, self.high]))
        uniform = torch.rand(self.candidates, len(low), generator=generator, dtype=torch.float64).to(low)
        starts, values = _top(acquisition, low + uniform * (high - low), self.restarts)
        best, value = starts[0], values[0]
        refined = _lbfgs(acquisition, starts, low, high, self.refinements)
        refined, values = _top(acquisition, refined, 1)
        return refined[0] if values[0] > value else best


def _lbfgs(function: Callable[[Tensor], Tensor], starts: Tensor, low: Tensor, high: Tensor, iterations: int) -> Tensor:
    """Maximize from all starts at once: the gradient of their sum holds the gradient of each."""

    def negative(flat: np.ndarray) -> tuple[float, np.ndarray]:
        x = torch.from_numpy(flat).reshape(starts.shape).to(starts).requires_grad_()
        total = -function(x).sum()
        (gradient,) = torch.autograd.grad(total, x)
        return total.item(), gradient.cpu().numpy().ravel()

    bounds = np.tile(torch.stack([low, high], 1).cpu().numpy(), (len(starts), 1))
    start = starts.cpu().numpy().ravel()
    from scipy.optimize import minimize  # slow to import

    found = minimize(negative, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": iterations})
    return torch.minimum(torch.maximum(torch.from_numpy(found.x).reshape(starts.shape).to(starts), low), high)


class DensityRegion(Region):
    """Where the fitted density has mass: {z : log q(z) >= t}, t a quantile of log q over the training codes.

    The quantile is over leave-one-out densities (`log_prob_left_out`): a kernel density is so high at its own codes
    that, without leaving them out, nothing but these would lie inside.

    A decoder has learned nothing about codes far from those it was trained on, and almost all of a box in many
    dimensions is far from them. Candidates are draws of q, and points between the best codes and draws of q; the best
    candidates climb by steps along the gradient and at random, of which those are kept that stay inside and improve.

    The region is as good as the density: a mixture that covers two clusters by one component has its mass between them.

    Args:
        density: Fitted on the codes, or on more of their kind; must be evaluable.
        codes: Training codes, shape (N, d).
        seen: Codes with known scores, shape (K, d): the training codes and what was found since.
        targets: Scores of `seen`, larger is better, shape (K,).
        quantile: Share of training codes outside, in [0, 1).
        candidates: Candidates per point of a batch.
        restarts: How many of them climb.
        refinements: Steps that each climbs.
        generator: Source of randomness, on the CPU.

    Raises:
        DataError: if log q is not finite at the training codes.
    """

    _SUBSET = 5_000  # codes that give the quantile; a kernel density of all codes would take N^2 distances
    _PARENTS = 200  # best codes that candidates are drawn near

    def __init__(
        self,
        density: TractableDensity,
        codes: Tensor,
        seen: Tensor,
        targets: Tensor,
        quantile: float,
        candidates: int,
        restarts: int,
        refinements: int,
        generator: torch.Generator,
    ) -> None:
        subset = codes[torch.randperm(len(codes), generator=generator)[: self._SUBSET].to(codes.device)]
        log_q = density.log_prob_left_out(subset)
        if not bool(log_q.isfinite().all()):
            raise DataError(
                f"density '{density.name}' gives some training codes no finite log q; fit it on these codes"
            )
        self.density = density
        self.threshold = float(torch.quantile(log_q, quantile))
        # codes that surely lie inside, in case no draw of q does
        self._fallback = subset[log_q.to(codes.device) >= self.threshold].double()
        best = seen[targets.topk(min(10 * self._PARENTS, len(targets))).indices]
        self._parents = best[self.contains(best)][: self._PARENTS].double()
        self.candidates, self.restarts, self.refinements = candidates, restarts, refinements

    def contains(self, codes: Tensor) -> Tensor:
        """Return whether log q(z) >= t at codes (N, d), bool, shape (N,)."""
        # rounded as the decoder will get them, or a point on the boundary could fall out
        return (self.density.log_prob(codes.float()) >= self.threshold).to(codes.device)

    def maximize(self, acquisition: BatchImprovement, generator: torch.Generator) -> Tensor:
        """Return the best scaled point found, shape (d,)."""
        to_unit = acquisition.surrogate.to_unit
        x, values = _top(acquisition, to_unit(self._propose(generator)), self.restarts)
        size = torch.full((len(x), 1), 0.1, dtype=x.dtype, device=x.device)
        for _ in range(self.refinements):
            point = x.clone().requires_grad_()
            (slope,) = torch.autograd.grad(acquisition(point).sum(), point)
            slope = slope / slope.norm(dim=1, keepdim=True).clamp_min(1e-30)
            noise = torch.randn(len(x), x.shape[1], generator=generator, dtype=torch.float64).to(x)
            # a share of noise lets a climb slide along the boundary of the region, where the slope alone leads out
            mixed = slope + noise / noise.norm(dim=1, keepdim=True)
            steps = torch.stack([slope, mixed / mixed.norm(dim=1, keepdim=True).clamp_min(1e-30)])
            moved = (x + size * steps).flatten(0, 1)
            with torch.no_grad():
                gain = acquisition(moved)
            inside = self.contains(acquisition.surrogate.to_codes(moved))
            gain = torch.where(inside, gain, -math.inf).reshape(2, -1)
            gain, which = gain.max(0)
            better = gain > values
            x = torch.where(
                better[:, None], moved.reshape(2, *x.shape)[which, torch.arange(len(x), device=x.device)], x
            )
            values = torch.where(better, gain, values)
            size = torch.where(better[:, None], 1.5 * size, 0.5 * size)
        return x[values.argmax()]

    def _propose(self, generator: torch.Generator) -> Tensor:
        draws = self.density.sample(self.candidates, generator=generator).to(self._fallback)
        if len(self._parents):
            count = self.candidates // 2
            parent = self._parents[torch.randint(len(self._parents), (count,), generator=generator)]
            share = torch.rand(count, 1, generator=generator, dtype=torch.float64).to(draws)
            draws[:count] = parent + share * (draws[:count] - parent)
        inside = draws[self.contains(draws)]
        if len(inside) < self.restarts:
            index = torch.randint(len(self._fallback), (self.restarts,), generator=generator)
            inside = torch.cat([inside, self._fallback[index.to(self._fallback.device)]])
        return inside
