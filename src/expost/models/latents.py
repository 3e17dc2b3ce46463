"""The latent slot: from the encoder's features to a code.

| name | code | noise |
|---|---|---|
| deterministic | z = W h + b | none |
| gaussian | mean = W h + b, log sigma = 5 tanh(V h + c) | z = mean + s sigma eps, s = 1 |
| constant-variance | mean = W h + b, one sigma for all | z = mean + s sigma eps, s = 1 |
| vector-quantized | the nearest of K codebook vectors at each position of a map | none |

All arithmetic here is float32, whatever precision the networks run in.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

from expost.distributed.shards import batch_rows, batch_total, choices_for_all, normal_like
from expost.errors import UsageError
from expost.networks.layers import glorot
from expost.registry import Registry
from expost.types import LatentCode


class Latent(nn.Module, ABC):
    """Turns features into codes, and decides what the decoder gets.

    Args (of every entry in `LATENTS`):
        in_features: Number of features (vector latents), or of channels of the feature map (spatial latents).
        latent_dim: Dimension d of a code (vector latents), or of one codebook vector (spatial latents).
    """

    #: Whether the code is a map (B, d, h, w), so that the networks keep their spatial axes, or a vector (B, d).
    spatial: ClassVar[bool] = False
    #: Codes k drawn for each example in the loss; of more than one it is the importance-weighted bound.
    samples: int = 1

    @abstractmethod
    def forward(self, features: Tensor, noise: bool) -> LatentCode:
        """Return the code of `features`.

        Args:
            features: Shape (B, in_features), or (B, in_features, h, w) for spatial latents.
            noise: Whether a stochastic latent draws z from its posterior (training) or takes the mean (encoding).
        """

    @abstractmethod
    def decodable(self, z: Tensor) -> Tensor:
        """Return what the decoder gets for a point `z` of the code space, e.g. of a density or an interpolation."""


def _linear(in_features: int, out_features: int) -> nn.Linear:
    return glorot(nn.Linear(in_features, out_features))


def _noise_scale(value: float) -> float:
    if not 0 <= value < math.inf:
        raise UsageError(f"noise_scale is {value}; give a number of at least 0, 1 for the noise of the posterior")
    return value


def _samples(samples: int, noise_scale: float) -> int:
    if samples < 1:
        raise UsageError(f"samples is {samples}; give at least 1 code an example")
    if samples > 1 and noise_scale != 1:
        raise UsageError(
            f"samples is {samples} and noise_scale {noise_scale:g}: the bound of several codes needs draws from the "
            "posterior itself; leave noise_scale at 1"
        )
    return samples


class Deterministic(Latent):
    """z = W h + b: no noise at all.

    Example:
        >>> Deterministic(in_features=8, latent_dim=2)(torch.zeros(3, 8), noise=True).z.shape
        torch.Size([3, 2])
    """

    def __init__(self, in_features: int, latent_dim: int) -> None:
        super().__init__()
        self.mean = _linear(in_features, latent_dim)

    def forward(self, features: Tensor, noise: bool) -> LatentCode:
        """Return the code; `noise` has no effect."""
        z = self.mean(features)
        return LatentCode(z=z, mean=z)

    def decodable(self, z: Tensor) -> Tensor:
        """Return `z`."""
        return z


class Gaussian(Latent):
    """A diagonal Gaussian posterior with learned variance, z = mean + s sigma eps with eps ~ N(0, I).

    Args:
        in_features: Number of features.
        latent_dim: Dimension d.
        bound: Largest absolute value B of log sigma = B tanh(V h + c); 5 in the official code of Ghosh et al. None: the
            log-variance is linear, log sigma^2 = V h + c, as in the code of the Grammar VAE (Kusner et al. 2017).
        noise_scale: s, at least 0. 1 is a VAE; the Grammar VAE's code has 0.01 there, and sigma itself in the KL term.
        samples: k, at least 1; see `Latent.samples`.

    Raises:
        UsageError: if `bound` is not positive, `noise_scale` negative, or `samples` is below 1, or above 1 with a
            `noise_scale` other than 1.
    """

    def __init__(
        self,
        in_features: int,
        latent_dim: int,
        bound: float | None = 5.0,
        noise_scale: float = 1.0,
        samples: int = 1,
    ) -> None:
        super().__init__()
        self.samples = _samples(samples, noise_scale)
        if bound is not None and not bound > 0:
            raise UsageError(f"bound is {bound}; give a positive bound of log sigma, or null for none")
        self.bound = bound
        self.noise_scale = _noise_scale(noise_scale)
        self.mean = _linear(in_features, latent_dim)
        self.log_sigma = _linear(in_features, latent_dim)

    def forward(self, features: Tensor, noise: bool) -> LatentCode:
        """Return mean and log-variance, and z with noise if `noise`."""
        mean = self.mean(features)
        linear = self.log_sigma(features)
        log_sigma = 0.5 * linear if self.bound is None else self.bound * torch.tanh(linear)
        z = mean + self.noise_scale * log_sigma.exp() * normal_like(mean) if noise else mean
        return LatentCode(z=z, mean=mean, log_var=2 * log_sigma)

    def decodable(self, z: Tensor) -> Tensor:
        """Return `z`."""
        return z


class ConstantVariance(Latent):
    """A Gaussian posterior with one constant sigma (the CV-VAE of Ghosh et al., section 3).

    Args:
        in_features: Number of features.
        latent_dim: Dimension d.
        sigma: Standard deviation of the posterior, positive; 0.7 in the official code.
        noise_scale: What it is multiplied by where z is drawn, not in the KL term; see `Gaussian`.
        samples: k, at least 1; see `Gaussian`.

    Raises:
        UsageError: if `sigma` is not positive; and as `Gaussian`.
    """

    def __init__(
        self, in_features: int, latent_dim: int, sigma: float = 0.7, noise_scale: float = 1.0, samples: int = 1
    ) -> None:
        super().__init__()
        self.samples = _samples(samples, noise_scale)
        if not sigma > 0:
            raise UsageError(f"sigma is {sigma}; give a positive standard deviation, or use the deterministic latent")
        self.sigma = sigma
        self.noise_scale = _noise_scale(noise_scale)
        self.mean = _linear(in_features, latent_dim)

    def forward(self, features: Tensor, noise: bool) -> LatentCode:
        """Return the mean, the constant log-variance, and z = mean + sigma * eps if `noise`."""
        mean = self.mean(features)
        z = mean + self.noise_scale * self.sigma * normal_like(mean) if noise else mean
        return LatentCode(z=z, mean=mean, log_var=mean.new_full((1, 1), 2 * math.log(self.sigma)).expand_as(mean))

    def decodable(self, z: Tensor) -> Tensor:
        """Return `z`."""
        return z


class VectorQuantized(Latent):
    """The nearest codebook vector at each position, gradients straight through (van den Oord et al. 2017, eq. 1-2).

    The codebook starts at vectors of the first training batch (so that it lies where the encoder's output lies), and a
    vector that no position has chosen for `patience` training batches is moved to a position of the current batch:
    without both, a few vectors take everything and the others never get a gradient.

    Args:
        in_features: Channels of the encoder's feature map.
        latent_dim: Dimension D of a codebook vector.
        codebook_size: Number K of vectors, at least 2.
        patience: Training batches after which an unused vector is moved, at least 1.

    Raises:
        UsageError: if `codebook_size` or `patience` is too small.
    """

    spatial: ClassVar[bool] = True

    def __init__(self, in_features: int, latent_dim: int, codebook_size: int = 512, patience: int = 20) -> None:
        super().__init__()
        if codebook_size < 2 or patience < 1:
            raise UsageError(f"codebook_size is {codebook_size}, patience {patience}; give at least 2 and 1")
        self.patience = patience
        self.mean = glorot(nn.Conv2d(in_features, latent_dim, 1))
        self.codebook = nn.Parameter(torch.randn(codebook_size, latent_dim))
        self.unused: Tensor
        self.started: Tensor
        self.register_buffer("unused", torch.zeros(codebook_size, dtype=torch.int64))
        self.register_buffer("started", torch.zeros((), dtype=torch.bool))

    def nearest(self, vectors: Tensor) -> Tensor:
        """Return the indices (int64, shape (M,)) of the codebook vectors nearest to `vectors` (M, D)."""
        codebook = self.codebook.detach()
        # argmin of |v - e|^2 = |v|^2 - 2 v.e + |e|^2, whose first term does not matter
        return torch.addmm(codebook.square().sum(1), vectors, codebook.t(), alpha=-2).argmin(1)

    def forward(self, features: Tensor, noise: bool) -> LatentCode:
        """Return quantised codes; in training mode with `noise` (that is, in the loss) the codebook is also tended."""
        mean = self.mean(features)
        vectors = _positions(mean.detach())
        if noise and self.training:
            self._tend(vectors, _positions(batch_rows(mean.detach())))
        indices = self.nearest(vectors).reshape(mean.shape[0], *mean.shape[2:])
        quantized = self.codebook[indices].movedim(-1, 1)
        # the decoder sees the codebook vector; its gradient goes to the encoder as if nothing had been rounded
        return LatentCode(mean + (quantized - mean).detach(), mean, quantized=quantized, indices=indices)

    def decodable(self, z: Tensor) -> Tensor:
        """Return the nearest codebook vectors of the map `z` (B, D, h, w)."""
        indices = self.nearest(_positions(z)).reshape(z.shape[0], *z.shape[2:])
        return self.codebook[indices].movedim(-1, 1)

    @torch.no_grad()
    def _tend(self, vectors: Tensor, candidates: Tensor) -> None:
        size = len(self.codebook)
        chosen = candidates[choices_for_all(len(candidates), size, vectors.device)]
        # no branch on what the device holds: it would have to be waited for
        self.codebook.copy_(torch.where(self.started, self.codebook, chosen))
        self.started.fill_(True)
        used = batch_total(torch.zeros_like(self.unused).index_fill_(0, self.nearest(vectors), 1))
        self.unused.add_(1).masked_fill_(used > 0, 0)
        stale = self.unused >= self.patience
        self.codebook.copy_(torch.where(stale[:, None], chosen, self.codebook))
        self.unused.masked_fill_(stale, 0)


def _positions(x: Tensor) -> Tensor:
    """Return the vectors at all positions of maps (B, D, h, w), shape (B h w, D)."""
    return x.movedim(1, -1).reshape(-1, x.shape[1])


#: The latent slot. A new one is a class above and a line here.
LATENTS: Registry[type[Latent]] = Registry(
    "latent",
    {
        "deterministic": Deterministic,
        "gaussian": Gaussian,
        "constant-variance": ConstantVariance,
        "vector-quantized": VectorQuantized,
    },
)
