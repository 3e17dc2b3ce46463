"""The penalty slot: what keeps the codes together. Each is summed over a code's dimensions, averaged over the batch.

| name | term L_Z |
|---|---|
| none | 0 |
| half-norm | 1/2 ||z||^2 |
| kl | KL(N(mean, diag sigma^2) || N(0, I)) = 1/2 sum (mean^2 + sigma^2 - log sigma^2 - 1) |
| posterior-mixture | log N(z; mean, diag sigma^2) - log 1/K sum_k N(z; m_k, diag s_k^2), of the code z that is drawn |
| mmd | MMD^2 between the batch's codes and draws from N(0, I) |
| vector-quantization | ||sg(z_e) - e||^2 + c ||z_e - sg(e)||^2 |
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor

from expost.distributed.shards import batch_rows, normal_for_all
from expost.errors import UsageError
from expost.registry import Registry
from expost.types import LatentCode


class Penalty(ABC):
    """A term on the codes; the caller weighs it by beta."""

    #: Whether there is a term, which needs a weight.
    has_term: ClassVar[bool] = True
    #: How many pseudo-inputs it wants the model to learn, whose posteriors codes then come with.
    pseudo_inputs: int = 0

    @abstractmethod
    def __call__(self, code: LatentCode) -> Tensor:
        """Return the scalar term for a batch of codes."""


class Divergence(Penalty):
    """A penalty that is, or estimates, the divergence of the posterior q(z | x) from a prior p(z)."""

    @abstractmethod
    def log_ratio(self, code: LatentCode) -> Tensor:
        """Return log q(z | x) - log p(z) in nats at the codes z that were drawn, shape (B,)."""


class NoPenalty(Penalty):
    """No penalty: a plain autoencoder."""

    has_term: ClassVar[bool] = False

    def __call__(self, code: LatentCode) -> Tensor:
        """Return zero."""
        return code.z.new_zeros(())


class HalfNorm(Penalty):
    """L_Z = 1/2 ||z||^2 (Ghosh et al. 2020, eq. 11).

    Example:
        >>> z = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
        >>> HalfNorm()(LatentCode(z=z, mean=z))
        tensor(6.2500)
    """

    def __call__(self, code: LatentCode) -> Tensor:
        """Return half the squared norm of the noiseless codes."""
        return 0.5 * code.mean.flatten(1).square().sum(1).mean()


def _variance_of(code: LatentCode, name: str) -> Tensor:
    """Return the log-variance of a code, or refuse one that has none."""
    if code.log_var is None:
        raise UsageError(f"the {name} penalty needs a latent with a variance; use gaussian or constant-variance")
    return code.log_var


def _log_normal(z: Tensor, mean: Tensor, log_var: Tensor) -> Tensor:
    """Return log N(z; mean, diag exp(log_var)) without its constant, -d/2 log 2 pi, summed over the last axis."""
    return -0.5 * (log_var + (z - mean).square() * (-log_var).exp()).sum(-1)


class KullbackLeibler(Divergence):
    """KL divergence of the posterior from N(0, I) (Kingma & Welling 2014, appendix B).

    With one constant sigma it is the half norm plus the constant d/2 (sigma^2 - log sigma^2 - 1), which is how the
    CV-VAE leads to the RAE (Ghosh et al. 2020, section 3).

    Raises:
        UsageError: for a latent without a variance.
    """

    def __call__(self, code: LatentCode) -> Tensor:
        """Return the divergence in nats."""
        log_var = _variance_of(code, "kl")
        terms = code.mean.square() + log_var.exp() - log_var - 1
        return 0.5 * terms.flatten(1).sum(1).mean()

    def log_ratio(self, code: LatentCode) -> Tensor:
        """Return log N(z; mean, diag sigma^2) - log N(z; 0, I), whose expectation is the divergence."""
        z, mean, log_var = code.z, code.mean, _variance_of(code, "kl").expand_as(code.mean)
        parts = _log_normal(z.flatten(1), mean.flatten(1), log_var.flatten(1))
        return parts + 0.5 * z.flatten(1).square().sum(1)


class MixtureOfPosteriors(Divergence):
    """Divergence of the posterior from the posteriors of K learned pseudo-inputs (Tomczak & Welling 2018, eq. 9).

    L_Z = log q(z | x) - log p(z), p(z) = 1/K sum_k q(z | u_k), at the z that is drawn: an estimate without bias of the
    divergence, which has no closed form. Pseudo-inputs see batch norm as evaluation does.

    Args:
        components: K, at least 2; 500 in the paper. Each costs an example's pass through the encoder in every step.

    Raises:
        UsageError: if there are fewer; when called, for a latent without a variance.
    """

    def __init__(self, components: int = 50) -> None:
        if components < 2:
            raise UsageError(f"components is {components}; give at least 2 pseudo-inputs")
        self.pseudo_inputs = components

    def __call__(self, code: LatentCode) -> Tensor:
        """Return the mean over the batch of the log-ratio at the codes that were drawn."""
        return self.log_ratio(code).mean()

    def log_ratio(self, code: LatentCode) -> Tensor:
        """Return log q(z | x) - log 1/K sum_k q(z | u_k)."""
        if code.prior_mean is None or code.prior_log_var is None:
            raise UsageError(
                "the posterior-mixture penalty needs a model with pseudo-inputs; expost.build gives it them"
            )
        z, log_var = code.z.flatten(1), _variance_of(code, "posterior-mixture").expand_as(code.mean)
        own = _log_normal(z, code.mean.flatten(1), log_var.flatten(1))
        each = _log_normal(z[:, None], code.prior_mean.flatten(1), code.prior_log_var.flatten(1))  # (B, K)
        return own - each.logsumexp(1) + math.log(each.shape[1])


def mmd(a: Tensor, b: Tensor, scales: Sequence[float], unbiased: bool = True) -> Tensor:
    """Squared maximum mean discrepancy of two samples under a sum of inverse multiquadric kernels.

    k(u, v) = sum_s C_s / (C_s + ||u - v||^2) with C_s = 2 d s (the expected squared distance of two draws from N(0, I)
    is 2 d). Source: Tolstikhin et al. 2018, section 4.

    Args:
        a: First sample, shape (n, d).
        b: Second sample, shape (m, d).
        scales: The scales s, positive.
        unbiased: The U-statistic (without the diagonal; unbiased, so that it is negative about half of the time when
            both samples come from one distribution) or the V-statistic (never negative; 0 for a sample with itself).

    Returns:
        Scalar.

    Raises:
        UsageError: if a sample has fewer than two points and `unbiased`.
    """
    if unbiased and min(len(a), len(b)) < 2:
        raise UsageError(f"mmd needs at least 2 points on each side, got {len(a)} and {len(b)}; use a larger batch")

    points, n = torch.cat([a, b]), len(a)
    squares = points.square().sum(1)
    distance = (squares[:, None] + squares - 2 * points @ points.t()).clamp_min(0)
    constants = _constants(tuple(scales), a.shape[1], a.dtype, a.device)
    kernel = (constants / (constants + distance)).sum(0)

    def within(values: Tensor) -> Tensor:
        m = len(values)
        return (values.sum() - values.diagonal().sum()) / (m * (m - 1)) if unbiased else values.mean()

    return within(kernel[:n, :n]) + within(kernel[n:, n:]) - 2 * kernel[:n, n:].mean()


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def _constants(scales: tuple[float, ...], dim: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return 2 d s for every scale, shape (S, 1, 1); kept, since copying them to a GPU waits for it."""
    return torch.tensor([2.0 * dim * scale for scale in scales], dtype=dtype, device=device)[:, None, None]


class MaximumMeanDiscrepancy(Penalty):
    """MMD^2 between the codes and as many draws from N(0, I): the WAE-MMD of Tolstikhin et al. 2018.

    Args:
        scales: Kernel scales; the default is the official seven.
    """

    def __init__(self, scales: Sequence[float] = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)) -> None:
        if not scales or min(scales) <= 0:
            raise UsageError(f"mmd scales are {list(scales)}; give at least one, all positive")
        self.scales = tuple(scales)

    def __call__(self, code: LatentCode) -> Tensor:
        """Return the unbiased estimate; it may be negative."""
        z = batch_rows(code.z.flatten(1))
        return mmd(z, normal_for_all(z), self.scales)


class VectorQuantization(Penalty):
    """Codebook and commitment terms, ||sg(z_e) - e||^2 + c ||z_e - sg(e)||^2 (van den Oord et al. 2017, eq. 3).

    Of a codebook of moving means the first term has no gradient. It stays in the value, so that curves compare.

    Args:
        commitment: The weight c of the second term; 0.25 in the paper.

    Raises:
        UsageError: for a latent that is not vector quantised.
    """

    def __init__(self, commitment: float = 0.25) -> None:
        self.commitment = commitment

    def __call__(self, code: LatentCode) -> Tensor:
        """Return both terms, summed over the map."""
        if code.quantized is None:
            raise UsageError("the vector-quantization penalty needs the vector-quantized latent")
        codebook = (code.quantized - code.mean.detach()).square().flatten(1).sum(1).mean()
        commitment = (code.mean - code.quantized.detach()).square().flatten(1).sum(1).mean()
        return codebook + self.commitment * commitment


#: The penalty slot. A new one is a class above and a line here.
PENALTIES: Registry[type[Penalty]] = Registry(
    "penalty",
    {
        "none": NoPenalty,
        "half-norm": HalfNorm,
        "kl": KullbackLeibler,
        "mmd": MaximumMeanDiscrepancy,
        "vector-quantization": VectorQuantization,
        "posterior-mixture": MixtureOfPosteriors,
    },
)
