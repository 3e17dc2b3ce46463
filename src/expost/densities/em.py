"""Expectation-maximization for mixtures of Gaussians (Dempster, Laird & Rubin 1977; Bishop 2006, section 9.2.2).

E-step: r_nk = w_k N(z_n; m_k, S_k) / sum_j w_j N(z_n; m_j, S_j), in logarithms.
M-step: N_k = sum_n r_nk, w_k = N_k / N, m_k = sum_n r_nk z_n / N_k,
        S_k = sum_n r_nk (z_n - m_k)(z_n - m_k)^T / N_k + eps I.

The codes are given in the unit of each dimension (`units`), in which the ridge eps (`regularization`) is a pure number.
It makes every S_k positive definite. It is no part of the likelihood that is reported, so EM's guarantee, a
log-likelihood that never falls, is exact only for eps = 0; with a ridge it can fall by an amount of the order of eps
times the mean of trace(S_k^-1), which is negligible until a component collapses onto a subspace. The trace is kept, and
the largest fall recorded.

Over several processes (`distributed.together`) all have the codes, each takes a part of them in the passes, and the
moments are summed: K (1 + d + d^2) numbers an iteration, however many codes there are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from expost import distributed
from expost.densities.covariances import Covariance
from expost.densities.kmeans import lloyd, plus_plus
from expost.densities.linalg import LOG_2PI, ml_covariance
from expost.errors import DataError
from expost.utils.progress import progress

# Whitened residuals held at once. On a CPU 8 MB stays near the caches and is fastest; a GPU wants fewer, larger
# launches.
_CPU_ELEMENTS, _GPU_ELEMENTS = 2**20, 2**25

# A responsibility below it cannot change a float64 sum of responsibilities; in many dimensions nearly all are.
_NEGLIGIBLE = 1e-20

# A component that holds fewer examples than this counts as empty, and is started again.
_EMPTY = 1e-8


@dataclass(frozen=True)
class Components:
    """The parameters of a mixture with K components.

    Attributes:
        weights: w, shape (K,), positive, sum 1.
        means: m, shape (K, d).
        scale: Cholesky factors (K, d, d) or standard deviations (K, d), see `covariances`.
    """

    weights: Tensor
    means: Tensor
    scale: Tensor


@dataclass(frozen=True)
class Moments:
    """What one pass over the codes collects.

    Attributes:
        log_densities: log q(z_n), shape (N,), or of this process's part of the codes.
        counts: N_k, shape (K,).
        first: sum_n r_nk y_nk, shape (K, d), of the whitened residuals y.
        second: sum_n r_nk y_nk y_nk^T, shape (K, d, d), or its diagonal, (K, d).
    """

    log_densities: Tensor
    counts: Tensor
    first: Tensor
    second: Tensor


@dataclass(frozen=True)
class Result:
    """What EM returns.

    Attributes:
        components: The parameters after the last M-step.
        trace: Mean log-likelihood per example, of the start and after every M-step: one more than there were M-steps.
        converged: Whether the mean log-likelihood changed by less than the tolerance.
        reseeded: How many times an empty component was started again.
    """

    components: Components
    trace: list[float]
    converged: bool
    reseeded: int

    @property
    def largest_decrease(self) -> float:
        """The most by which the trace ever fell in one step; 0 if it never did."""
        return max(0.0, *(before - after for before, after in zip(self.trace, self.trace[1:], strict=False)))


def rows_per_chunk(elements_per_row: int, device: torch.device) -> int:
    """Return how many codes to process at once, so that memory stays bounded for any number of codes."""
    budget = _CPU_ELEMENTS if device.type == "cpu" else _GPU_ELEMENTS
    return max(16, budget // elements_per_row)


def _log_joint(y: Tensor, components: Components, covariance: Covariance) -> Tensor:
    """Return log w_k N(z_n; m_k, S_k), shape (n, K), from the whitened residuals."""
    d = components.means.shape[1]
    constant = components.weights.log() - covariance.log_det(components.scale) - 0.5 * d * LOG_2PI
    return constant - 0.5 * torch.linalg.vector_norm(y, dim=2).square()


def log_density(z: Tensor, components: Components, covariance: Covariance) -> Tensor:
    """Evaluate log q(z) = log sum_k w_k N(z; m_k, S_k), in chunks.

    Args:
        z: Codes, shape (N, d), float64.
        components: The mixture.
        covariance: Its structure.

    Returns:
        Log-densities, shape (N,).
    """
    center = components.weights @ components.means
    components = replace(components, means=components.means - center)
    whitener = covariance.whitener(components.scale)
    parts = [
        _log_joint(covariance.whiten(chunk - center, components.means, whitener), components, covariance).logsumexp(1)
        for chunk in torch.split(z, rows_per_chunk(components.means.numel(), z.device))
    ]
    return torch.cat(parts) if parts else z.new_zeros(0)


def collect(x: Tensor, components: Components, covariance: Covariance, labels: Tensor | None = None) -> Moments:
    """Make one pass: responsibilities of every code, and the moments that the M-step needs.

    Args:
        x: Codes, shape (N, d), float64, centered on their mean; each process takes its part of them.
        components: The current parameters.
        covariance: Their structure.
        labels: A component per code, int64, shape (N,), that replaces the responsibilities; to start from k-means.
    """
    x, labels = distributed.shard(x), None if labels is None else distributed.shard(labels)
    k, d = components.means.shape
    whitener = covariance.whitener(components.scale)
    counts, first, second = x.new_zeros(k), x.new_zeros(k, d), torch.zeros_like(components.scale)
    rows = rows_per_chunk(k * d, x.device)
    log_densities = [x.new_zeros(0)]
    for start in range(0, x.shape[0], rows):
        y = covariance.whiten(x[start : start + rows], components.means, whitener)
        log_joint = _log_joint(y, components, covariance)
        largest = log_joint.amax(1, keepdim=True)
        r = (log_joint - largest).exp_()
        total = r.sum(1, keepdim=True)
        log_densities.append((largest + total.log()).squeeze(1))
        r /= total
        if labels is not None:
            r = torch.zeros_like(r).scatter_(1, labels[start : start + rows, None], 1.0)
        counts += r.sum(0)
        _add_moments(y, r, covariance, first, second)
    return Moments(torch.cat(log_densities), *distributed.total(counts, first, second))


def _add_moments(y: Tensor, r: Tensor, covariance: Covariance, first: Tensor, second: Tensor) -> None:
    """Add a chunk's weighted sums to `first` and `second`; y (n, K, d), r (n, K).

    In many dimensions a code belongs to one or two components; then leaving out the negligible responsibilities, which
    changes nothing in float64, saves most of the M-step on a CPU.
    """
    kept = r > _NEGLIGIBLE
    # on a GPU, selecting them would wait for their number; the full products are faster
    if y.device.type != "cpu" or 2 * int(kept.sum()) > kept.numel():
        first += torch.bmm(r.T[:, None], y.transpose(0, 1)).squeeze(1)
        second += covariance.second_moments(y, r)
        return
    for k in range(r.shape[1]):
        rows = kept[:, k].nonzero().squeeze(1)
        y_k, r_k = y[:, k].index_select(0, rows), r[:, k].index_select(0, rows)
        first[k] += r_k @ y_k
        second[k] += covariance.second_moment(y_k, r_k)


def maximize(
    components: Components, moments: Moments, covariance: Covariance, regularization: float
) -> tuple[Components, Tensor]:
    """Take the M-step.

    Returns:
        The new parameters, and which components were empty, bool, shape (K,); those keep their mean and scale.
    """
    empty = moments.counts < _EMPTY
    counts = torch.where(empty, 1.0, moments.counts)
    matrices = (-1, *[1] * (moments.second.dim() - 1))
    # an empty component is updated with moments that change nothing: selecting the others would wait for a GPU
    first = torch.where(empty[:, None], 0.0, moments.first / counts[:, None])
    second = torch.where(
        empty.view(matrices), covariance.neutral(moments.second), moments.second / counts.view(matrices)
    )
    shift, scale = covariance.update(components.scale, first, second, regularization)
    scale = torch.where(empty.view(matrices), components.scale, scale)
    return Components(moments.counts / moments.counts.sum(), components.means + shift, scale), empty


def reseed(x: Tensor, components: Components, empty: Tensor, worst: Tensor, fresh: Components) -> Components:
    """Start empty components again: at the codes that the mixture explains worst, with the covariance of all the codes.

    Args:
        x: Codes, shape (N, d).
        components: Parameters with empty components.
        empty: Which, bool, shape (K,).
        worst: log q(z_n), shape (N,), or of this process's part; the codes of lowest density become means, as many as
            are needed.
        fresh: Source of a restarted component's scale.
    """
    rows = distributed.gather(worst, x.shape[0]).topk(int(empty.sum()), largest=False).indices
    means, scale = components.means.clone(), components.scale.clone()
    means[empty], scale[empty] = x[rows], fresh.scale[empty]
    weights = torch.where(empty, 1 / x.shape[0], components.weights)
    return Components(weights / weights.sum(), means, scale)


def fresh_components(x: Tensor, k: int, covariance: Covariance, regularization: float) -> Components:
    """Return k equal components with the mean and covariance of all the codes."""
    mean, overall = ml_covariance(x, regularization)
    return Components(x.new_full((k,), 1 / k), mean.expand(k, -1).clone(), covariance.initial_scale(overall, k))


def kmeans_start(
    x: Tensor, k: int, covariance: Covariance, regularization: float, units: Tensor, generator: torch.Generator
) -> Components:
    """Start from k-means: one M-step with each code given wholly to its cluster.

    Args:
        x: Codes, shape (N, d), float64, centered on their mean, in the unit of each dimension.
        k: Number of components.
        covariance: Their structure.
        regularization: The ridge.
        units: Of the dimensions, shape (d,): k-means takes distances between x times them, the codes as they are.
        generator: Source of randomness, on the CPU.

    Raises:
        DataError: if there are fewer than k different codes.
    """
    z = x * units
    centers, labels = lloyd(z, plus_plus(z, k, generator))
    centers = centers / units
    fresh = fresh_components(x, k, covariance, regularization)
    moments = collect(x, replace(fresh, means=centers), covariance, labels)
    components, empty = maximize(replace(fresh, means=centers), moments, covariance, regularization)
    return reseed(x, components, empty, moments.log_densities, fresh) if bool(empty.any()) else components


def run(
    x: Tensor, start: Components, covariance: Covariance, regularization: float, tol: float, max_iter: int
) -> Result:
    """Iterate from `start` until the mean log-likelihood changes by less than `tol`, or `max_iter` M-steps.

    Args:
        x: Codes, shape (N, d), float64, centered on their mean, in the unit of each dimension.
        start: Parameters to start from, in the same coordinates.
        covariance: Their structure.
        regularization: The ridge.
        tol: Change of the mean log-likelihood per example (nats) at which to stop.
        max_iter: At most this many M-steps, at least 1.

    Raises:
        DataError: if the log-likelihood stops being finite, a covariance is not positive definite, or components keep
            emptying.
    """
    components, trace, reseeded, converged = start, list[float](), 0, False
    fresh = fresh_components(x, start.weights.shape[0], covariance, regularization)
    with progress("fitting a mixture, at most", max_iter) as bar:
        for _ in range(max_iter):
            bar.advance()
            moments = collect(x, components, covariance)
            trace.append(_finite_mean(moments.log_densities, len(trace)))
            components, empty = maximize(components, moments, covariance, regularization)
            if bool(empty.any()):
                reseeded += int(empty.sum())
                if reseeded > 10 * empty.shape[0]:
                    raise DataError(
                        f"components keep emptying ({reseeded} times in {len(trace)} iterations); use fewer of them"
                    )
                components = reseed(x, components, empty, moments.log_densities, fresh)
            elif len(trace) > 1 and abs(trace[-1] - trace[-2]) < tol:
                converged = True
                break
    trace.append(_finite_mean(log_density(distributed.shard(x), components, covariance), len(trace)))
    return Result(components, trace, converged, reseeded)


def _finite_mean(log_densities: Tensor, iteration: int) -> float:
    mean = distributed.mean(log_densities).item()
    if mean - mean != 0:
        raise DataError(
            f"the log-likelihood is {mean} in iteration {iteration}; raise regularization or use fewer components"
        )
    return mean
