"""Scores of codes: how many dimensions they use, how far they are from N(0, I), and how well a density fits them.

All of them are computed in float64 from codes alone, shape (n, d). For stochastic latents, choose which codes to give:
means E(x) describe the encoder (`active_units` is defined for them), draws z are what a prior has to match.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from expost.densities import Density, TractableDensity
from expost.densities.checks import check_float
from expost.errors import UsageError
from expost.metrics.checks import check_features
from expost.metrics.direction import HIGHER, LOWER, NEITHER, Direction
from expost.metrics.distances import CHUNK_ELEMENTS
from expost.metrics.influence import Influence

ACTIVE_VARIANCE = 0.01

#: The direction of each score of codes. Halving the scale of the codes raises a likelihood.
LATENT_SCORES: dict[str, Direction] = {
    "log-likelihood": replace(HIGHER, within_model=True),
    "participation-ratio": NEITHER,
    "active-units": NEITHER,
    "kl-from-normal": LOWER,
    "frechet-from-normal": LOWER,
    "mmd-z-from-normal": NEITHER,
    "symbol-perplexity": NEITHER,
    "symbol-usage": NEITHER,
}


@dataclass(frozen=True)
class Dimensions:
    """How many dimensions codes use, with l_1 >= ... >= l_d the eigenvalues of their covariance.

    Attributes:
        participation_ratio: (sum l)^2 / sum l^2, from 1 (a line) to d (isotropic); 0 if all codes are equal.
        active_units: Dimensions whose variance exceeds 0.01 (Burda et al. 2016, section 5), 0 to d. Depends on scale.
    """

    participation_ratio: float
    active_units: int


def dimensions(codes: Tensor) -> Dimensions:
    """Count the dimensions that codes use, in two ways.

    Args:
        codes: Shape (n, d), n at least 2; to count active units, the means of the posteriors.

    Raises:
        UsageError: if `codes` are no (n, d) tensor of floats.
        DataError: for fewer than 2 codes, NaN or infinity.

    Example:
        >>> dimensions(torch.tensor([[1.0, 0.0, 5.0], [-1.0, 0.0, 5.0], [0.0, 1.0, 5.0], [0.0, -1.0, 5.0]]))
        Dimensions(participation_ratio=2.0, active_units=2)
    """
    _, cov = _moments(check_features("codes", codes, 2))
    eigenvalues = torch.linalg.eigvalsh(cov).clamp(min=0).flip(0)
    total = eigenvalues.sum()
    if float(total) == 0.0:
        return Dimensions(0.0, 0)
    return Dimensions(
        participation_ratio=float(total**2 / eigenvalues.square().sum()),
        active_units=int((cov.diagonal() > ACTIVE_VARIANCE).sum()),
    )


@dataclass(frozen=True)
class SymbolUse:
    """How many of K symbols codes use, with p_k the share of symbol k at all sites of all codes.

    Attributes:
        perplexity: exp(-sum_k p_k log p_k), from 1 to K: as many equally likely symbols have this entropy.
        usage: Share of the symbols that occur, in (0, 1].
    """

    perplexity: float
    usage: float


def symbol_use(occurred: Tensor) -> SymbolUse:
    """Measure how evenly symbols are used.

    Args:
        occurred: How often each of the K symbols occurs, shape (K,), not all 0.

    Example:
        >>> symbol_use(torch.tensor([2, 2, 0, 0]))
        SymbolUse(perplexity=2.0, usage=0.5)
    """
    counts = occurred.double()
    entropy = torch.special.entr(counts / counts.sum()).sum()
    return SymbolUse(entropy.exp().item(), (counts > 0).double().mean().item())


@dataclass(frozen=True)
class PriorGap:
    """How far codes are from N(0, I).

    Attributes:
        kl: KL(N(m, S) || N(0, I)) = (tr S + m.m - d - log det S) / 2 in nats, with m and S the codes' mean and
            covariance; infinite if S is singular.
        frechet: Squared Wasserstein-2 distance of the same two, m.m + sum_i (sqrt(l_i) - 1)^2, l the eigenvalues of S.
        mmd: Unbiased estimate of the squared MMD between the codes' distribution itself and N(0, I); about 0, of either
            sign, if they agree.
        mmd_z: `mmd` over its standard deviation under N(0, I). Beyond 3 or so, the codes are not from N(0, I).
        kl_influence: How much each code moves `kl`.
        frechet_influence: How much each code moves `frechet`.
    """

    kl: float
    frechet: float
    mmd: float
    mmd_z: float
    kl_influence: Influence = field(repr=False, compare=False)
    frechet_influence: Influence = field(repr=False, compare=False)


def prior_gap(codes: Tensor, bandwidth: float | None = None) -> PriorGap:
    """Return distances from N(0, I), of the Gaussian with the codes' moments and of the codes' distribution itself.

    The MMD has the kernel k(x, y) = exp(-||x - y||^2 / (2 s^2)). N(0, I) is not sampled: with Z, Z' ~ N(0, I),

        g(x) = E k(x, Z) = (s^2 / (s^2 + 1))^(d/2) exp(-||x||^2 / (2 (s^2 + 1))),
        c = E k(Z, Z') = (s^2 / (s^2 + 2))^(d/2),
        MMD^2 = mean_{i != j} k(z_i, z_j) - 2 mean_i g(z_i) + c,

    and for n codes from N(0, I) it has mean 0 and variance 2 (E k^2 - 2 E g^2 + c^2) / (n (n - 1)), likewise in closed
    form (the test of normality by Henze & Zirkler 1990, for known moments). It takes n^2 d / 2 multiplications.

    Both Gaussian figures are those of estimated moments: even for codes from N(0, I) they are about d (d + 3) / (4 n)
    and d (d + 5) / (4 n) for n far above d.

    Args:
        codes: Shape (n, d), n at least 2.
        bandwidth: The kernel's s, in units of the codes; sqrt(d) if None.

    Raises:
        UsageError: if `codes` are no (n, d) tensor of floats, or the bandwidth is not above 0.
        DataError: for fewer than 2 codes, NaN or infinity.

    Example:
        >>> codes = torch.tensor([[1.0], [-1.0], [3.0], [1.0]])  # mean 1, variance 8/3
        >>> gap = prior_gap(codes)
        >>> round(gap.kl, 4), round(gap.frechet, 4)  # (8/3 + 1 - 1 - log(8/3)) / 2 and 1 + (sqrt(8/3) - 1)^2
        (0.8429, 1.4007)
    """
    z = check_features("codes", codes, 2)
    d = z.shape[1]
    scale = math.sqrt(d) if bandwidth is None else bandwidth
    check_float("bandwidth", scale, minimum=0, above=True)
    mean, cov = _moments(z)
    eigenvalues, vectors = torch.linalg.eigh(cov)
    eigenvalues = eigenvalues.clamp(min=0)
    shift = float(mean.square().sum())
    full = bool(eigenvalues[0] > _rounding(eigenvalues))
    kl = (float(eigenvalues.sum() - eigenvalues.log().sum()) + shift - d) / 2 if full else math.inf
    mmd, deviation = _mmd_to_prior(z, float(scale) ** 2)
    # an unbounded bandwidth makes the kernel constant, and both 0
    standardized = mmd / deviation if deviation > 0 else 0.0
    # d KL = mean.d mean + tr((I - S^-1) dS) / 2,  d W^2 = 2 mean.d mean + tr((I - S^-1/2) dS)
    along = z - mean
    squares, linear = (along @ vectors).square() * (len(z) / (len(z) - 1)), along @ mean
    inverse = torch.where(eigenvalues > _rounding(eigenvalues), 1 / eigenvalues, 0.0)
    frechet = shift + float((eigenvalues.sqrt() - 1).square().sum())
    kl_influence = Influence(linear + squares @ (1 - inverse) / 2)
    frechet_influence = Influence(2 * linear + squares @ (1 - inverse.sqrt()))
    return PriorGap(kl, frechet, mmd, standardized, kl_influence, frechet_influence)


@dataclass(frozen=True)
class HeldOutLikelihood:
    """Log-likelihood of codes that the density was not fitted on.

    Attributes:
        mean: Mean of log q(z) over the codes, in nats; minus infinity if q is 0 at some code.
        standard_error: Standard deviation over the codes, divided by sqrt(n); infinite if the mean is.
        n: Number of codes.
    """

    mean: float
    standard_error: float
    n: int


def held_out_log_likelihood(density: Density, codes: Tensor) -> HeldOutLikelihood:
    """Return the mean log-likelihood of held-out codes under a fitted density, and its standard error.

    It compares densities only on the same codes: rescaling codes changes it.

    Args:
        density: A fitted density that can be evaluated.
        codes: Codes that it was not fitted on, of their shape, n at least 2.

    Raises:
        UsageError: if the density cannot be evaluated or was not fitted, or `codes` are no tensor of floats.
        DataError: for fewer than 2 codes, another shape than it was fitted on, NaN or infinity.

    Example:
        >>> from expost.densities import StandardNormal
        >>> density = StandardNormal().fit(torch.eye(2))
        >>> round(held_out_log_likelihood(density, torch.zeros(3, 2)).mean, 4)  # -log(2 pi)
        -1.8379
    """
    if not isinstance(density, TractableDensity):
        raise UsageError(f"density '{density.name}' has no log-likelihood; use one that has, such as gaussian or gmm")
    z = check_features("codes", codes.flatten(1) if codes.dim() > 2 else codes, 2)
    values = density.log_prob(z.reshape(codes.shape))
    mean = float(values.mean())
    error = float(values.std()) / math.sqrt(len(z)) if math.isfinite(mean) else math.inf
    return HeldOutLikelihood(mean, error, len(z))


def _moments(z: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean, shape (d,), and covariance divided by n - 1, shape (d, d)."""
    mean = z.mean(dim=0)
    centered = z - mean
    return mean, centered.T @ centered / (len(z) - 1)


def _rounding(eigenvalues: Tensor) -> float:
    """Return the threshold below which an eigenvalue counts as 0, by the rule of `numpy.linalg.matrix_rank`."""
    return float(eigenvalues[-1]) * len(eigenvalues) * torch.finfo(eigenvalues.dtype).eps


def _parts(z: Tensor) -> Iterator[Tensor]:
    rows = max(1, CHUNK_ELEMENTS // len(z))
    for start in range(0, len(z), rows):
        yield z[start : start + rows]


def _mmd_to_prior(z: Tensor, v: float) -> tuple[float, float]:
    """Return MMD^2 for a kernel of squared bandwidth v, and its standard deviation under N(0, I)."""
    n, d = z.shape
    squares = z.square().sum(dim=1)
    pairs, start = 0.0, 0
    for part in _parts(z):
        both = part.square().sum(dim=1, keepdim=True) + squares
        both.addmm_(part, z.T, alpha=-2).clamp_(min=0)
        both[:, start : start + len(part)].fill_diagonal_(math.inf)  # of large codes rounding leaves them a distance
        pairs += float(both.mul_(-0.5 / v).exp_().sum())
        start += len(part)
    c = (v / (v + 2)) ** (d / 2)
    g = (v / (v + 1)) ** (d / 2) * (squares * (-0.5 / (v + 1))).exp().mean()
    mmd = pairs / (n * (n - 1)) - 2 * float(g) + c
    k_squared = (v / (v + 4)) ** (d / 2)
    g_squared = (v / (v + 1)) ** d * ((v + 1) / (v + 3)) ** (d / 2)
    variance = 2 * (k_squared - 2 * g_squared + c**2) / (n * (n - 1))
    return mmd, math.sqrt(max(variance, 0.0))
