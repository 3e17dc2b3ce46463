"""The latent slot: from the encoder's features to a code.

| name | code | noise |
|---|---|---|
| deterministic | z = W h + b | none |
| gaussian | mean = W h + b, log sigma = 5 tanh(V h + c) | z = mean + s sigma eps, s = 1 |
| constant-variance | mean = W h + b, one sigma for all | z = mean + s sigma eps, s = 1 |
| vector-quantized | the nearest of K codebook vectors at each position of a map | none |
| finite-scalar | d numbers at each position of a map, each rounded to a few levels | none |

All arithmetic here is float32, whatever precision the networks run in.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from expost.distributed.shards import batch_rows, batch_total, choices_for_all, normal_like
from expost.errors import UsageError
from expost.networks.layers import glorot
from expost.registry import Registry
from expost.types import LatentCode

#: Most symbols of a discrete latent without a codebook.
MOST_SYMBOLS = 2**16
#: Levels of finite scalar quantisation by the number of dimensions (Mentzer et al. 2024, table 1).
LEVELS = {3: (8, 6, 5), 4: (8, 5, 5, 5), 5: (7, 5, 5, 5, 5), 6: (8, 8, 8, 5, 5, 5)}


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

    @classmethod
    def dimension(cls, options: Mapping[str, Any], usual: int) -> int:
        """Return the dimension of a code where none is given.

        Args:
            options: Of this latent.
            usual: What a preset takes.
        """
        return usual

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


class Discrete(Latent):
    """A grid of symbols: at each position of a map one of `symbols` vectors, numbered from 0.

    A code is then a grid (B, h, w) of whole numbers, or the map (B, d, h, w) of their vectors; `decodable` takes both.
    A new one has `symbols`, `vectors`, `nearest` and `forward`, whose code has `indices`.
    """

    spatial: ClassVar[bool] = True

    @property
    @abstractmethod
    def symbols(self) -> int:
        """Number of symbols K."""

    @abstractmethod
    def vectors(self, indices: Tensor) -> Tensor:
        """Return the vectors of symbols, shape (B, d, h, w), of their numbers, int64, shape (B, h, w)."""

    @abstractmethod
    def nearest(self, z: Tensor) -> Tensor:
        """Return the symbols whose vectors are nearest to a map's, int64, shape (B, h, w), of shape (B, d, h, w)."""

    def decodable(self, z: Tensor) -> Tensor:
        """Return the vectors of a grid of symbols (B, h, w), or those nearest to a map of vectors (B, d, h, w).

        Whole numbers as floats are symbols too; beyond 0 to K - 1 the nearest of these is taken.
        """
        indices = z.round().long().clamp(0, self.symbols - 1) if z.dim() == 3 else self.nearest(z)
        return self.vectors(indices)


class VectorQuantized(Discrete):
    """The nearest codebook vector at each position, gradients straight through (van den Oord et al. 2017, eq. 1-2).

    The codebook is learned by the gradient of its penalty (eq. 3), or, with `decay` g, as moving means of what chooses
    each vector (appendix A.1): with n_k the positions of a batch that choose e_k, and s_k the sum of their z_e,

        N_k <- g N_k + (1 - g) n_k,    m_k <- g m_k + (1 - g) s_k,    e_k = m_k / N_k.

    The codebook starts at vectors of the first training batch (so that it lies where the encoder's output lies; then
    N_k = 1 and m_k = e_k), and a vector that no position has chosen for `patience` training batches is moved to a
    position of the current batch, as if it had just started (as Dhariwal et al. 2020 restart dead codes): without both,
    a few vectors take everything and the others never get a gradient. The paper has neither.

    Args:
        in_features: Channels of the encoder's feature map.
        latent_dim: Dimension D of a codebook vector.
        codebook_size: Number K of vectors, at least 2.
        patience: Training batches after which an unused vector is moved, at least 1; None never moves one.
        decay: g, in [0, 1); None learns the codebook by gradients.
        from_data: Whether the codebook starts at vectors of the first batch; else at draws from N(0, I).

    Raises:
        UsageError: if an option is out of its range.
    """

    def __init__(
        self,
        in_features: int,
        latent_dim: int,
        codebook_size: int = 512,
        patience: int | None = 20,
        decay: float | None = None,
        from_data: bool = True,
    ) -> None:
        super().__init__()
        if codebook_size < 2 or (patience is not None and patience < 1):
            raise UsageError(f"codebook_size is {codebook_size}, patience {patience}; give at least 2 and 1")
        if decay is not None and not 0 <= decay < 1:
            raise UsageError(f"decay is {decay}; give a number from 0, below 1, or null for a codebook with gradients")
        self.patience, self.decay = patience, decay
        self.mean = glorot(nn.Conv2d(in_features, latent_dim, 1))
        self.codebook: Tensor
        self.unused: Tensor
        self.started: Tensor
        codebook = torch.randn(codebook_size, latent_dim)
        if decay is None:
            self.codebook = nn.Parameter(codebook)
        else:
            self.counts: Tensor
            self.sums: Tensor
            self.register_buffer("codebook", codebook)
            self.register_buffer("counts", torch.ones(codebook_size))
            self.register_buffer("sums", codebook.clone())
        self.register_buffer("unused", torch.zeros(codebook_size, dtype=torch.int64))
        self.register_buffer("started", torch.tensor(not from_data))

    @property
    def symbols(self) -> int:
        """The size of the codebook."""
        return len(self.codebook)

    def vectors(self, indices: Tensor) -> Tensor:
        """Return codebook vectors, with gradients to a codebook that is learned by them."""
        return self.codebook[indices].movedim(-1, 1)

    def nearest(self, z: Tensor) -> Tensor:
        """Return the indices of the codebook vectors nearest to a map's."""
        return self._nearest(_positions(z)).reshape(z.shape[0], *z.shape[2:])

    def _nearest(self, vectors: Tensor) -> Tensor:
        """Return the indices (int64, shape (M,)) of the codebook vectors nearest to `vectors` (M, D)."""
        codebook = self.codebook.detach()
        # argmin of |v - e|^2 = |v|^2 - 2 v.e + |e|^2, whose first term does not matter
        return torch.addmm(codebook.square().sum(1), vectors, codebook.t(), alpha=-2).argmin(1)

    def forward(self, features: Tensor, noise: bool) -> LatentCode:
        """Return quantised codes; in training mode with `noise` (that is, in the loss) the codebook is also tended.

        Moving means follow after the batch is quantised, so that its loss is that of the codebook it saw.
        """
        mean = self.mean(features)
        tended = noise and self.training
        if tended:
            vectors = _positions(mean.detach())
            self._tend(vectors, _positions(batch_rows(mean.detach())))
        indices = self.nearest(mean)
        quantized = self.vectors(indices)
        if tended and self.decay is not None:
            self._follow(vectors, indices.reshape(-1), self.decay)
        # the decoder sees the codebook vector; its gradient goes to the encoder as if nothing had been rounded
        return LatentCode(mean + (quantized - mean).detach(), mean, quantized=quantized, indices=indices)

    @torch.no_grad()
    def _tend(self, vectors: Tensor, candidates: Tensor) -> None:
        """Start the codebook, and move vectors that nothing has chosen for too long."""
        chosen = candidates[choices_for_all(len(candidates), self.symbols, vectors.device)]
        # no branch on what the device holds: it would have to be waited for
        self._move(~self.started, chosen)
        self.started.fill_(True)
        used = batch_total(torch.zeros_like(self.unused).index_fill_(0, self._nearest(vectors), 1))
        self.unused.add_(1).masked_fill_(used > 0, 0)
        if self.patience is None:
            return
        stale = self.unused >= self.patience
        self._move(stale[:, None], chosen)
        self.unused.masked_fill_(stale, 0)

    def _move(self, which: Tensor, to: Tensor) -> None:
        """Move vectors of the codebook, `which` of shape () or (K, 1), to those of `to` (K, D)."""
        self.codebook.copy_(torch.where(which, to, self.codebook))
        if self.decay is not None:
            self.sums.copy_(torch.where(which, to, self.sums))
            self.counts.masked_fill_(which.reshape(-1), 1.0)

    @torch.no_grad()
    def _follow(self, vectors: Tensor, indices: Tensor, decay: float) -> None:
        """Move the means of the codebook towards the batch's vectors (M, D), which chose `indices` (M,)."""
        # a product with one-hot rows: sums by scattering have no fixed order on a GPU
        chosen = (torch.arange(self.symbols, device=indices.device)[:, None] == indices).to(vectors.dtype)
        found = batch_total(chosen @ torch.cat([vectors, vectors.new_ones(len(vectors), 1)], 1))
        self.sums.mul_(decay).add_(found[:, :-1], alpha=1 - decay)
        self.counts.mul_(decay).add_(found[:, -1], alpha=1 - decay)
        # what was not chosen for thousands of batches has lost its count to rounding, and stays where it is
        kept = self.counts[:, None] > torch.finfo(self.counts.dtype).tiny
        self.codebook.copy_(torch.where(kept, self.sums / self.counts[:, None], self.codebook))


class FiniteScalar(Discrete):
    """Each of d numbers rounded to one of a few levels: no codebook to learn (Mentzer et al. 2024, section 3).

    With L levels, h = (L - 1) (1 - 1e-3) / 2, and o = 1/2 for even L, 0 for odd, the number x of the encoder becomes

        f(x) = h tanh(x + tan(o / h)) - o,    z = round(f(x)) / floor(L / 2),

    one of L values in [-1, 1], with the gradient of f(x) / floor(L / 2). The number of a symbol is
    sum_j (z_j + 1) floor(L_j / 2) prod_{i < j} L_i, so that there are prod_j L_j symbols.

    Args:
        in_features: Channels of the encoder's feature map.
        latent_dim: d, the number of `levels`.
        levels: L in each dimension, at least 2. None takes those of table 1 of the paper: (8, 6, 5) in 3 dimensions,
            (8, 5, 5, 5), which makes 1,000 symbols, in 4, (7, 5, 5, 5, 5) in 5, (8, 8, 8, 5, 5, 5) in 6.

    Raises:
        UsageError: if there are no levels, one is below 2, there are more than 65,536 symbols, or `latent_dim` is
            another number.
    """

    def __init__(self, in_features: int, latent_dim: int, levels: Sequence[int] | None = None) -> None:
        super().__init__()
        if levels is None:
            levels = LEVELS.get(latent_dim)
        if not levels:
            raise UsageError(f"latent_dim={latent_dim} has no usual levels; give them: --set latent.levels=[8,5,5]")
        if min(levels) < 2 or math.prod(levels) > MOST_SYMBOLS:
            raise UsageError(
                f"levels are {list(levels)}; give at least 2 in each dimension, and at most {MOST_SYMBOLS:,} symbols"
            )
        if latent_dim != len(levels):
            raise UsageError(
                f"latent_dim is {latent_dim}, and there are {len(levels)} levels; give --latent-dim {len(levels)}"
            )
        self.mean = glorot(nn.Conv2d(in_features, latent_dim, 1))
        self.levels = tuple(int(level) for level in levels)
        count = torch.tensor(self.levels).view(1, -1, 1, 1)
        place = torch.tensor([math.prod(self.levels[:j]) for j in range(latent_dim)]).view(1, -1, 1, 1)
        self.middle: Tensor
        self.count: Tensor
        self.place: Tensor
        self.register_buffer("middle", count // 2, persistent=False)
        self.register_buffer("count", count, persistent=False)
        self.register_buffer("place", place, persistent=False)

    @classmethod
    def dimension(cls, options: Mapping[str, Any], usual: int) -> int:
        """Return the number of levels, 4 where none are given."""
        return len(options.get("levels") or LEVELS[4])

    @property
    def symbols(self) -> int:
        """The product of the levels."""
        return math.prod(self.levels)

    def forward(self, features: Tensor, noise: bool) -> LatentCode:
        """Return rounded codes; `noise` has no effect."""
        x = self.mean(features)
        amplitude = (self.count - 1).to(x.dtype) * (1 - 1e-3) / 2
        offset = (self.count % 2 == 0).to(x.dtype) / 2
        bounded = amplitude * torch.tanh(x + torch.tan(offset / amplitude)) - offset
        mean = bounded / self.middle
        rounded = (bounded.round() / self.middle).detach()
        return LatentCode(mean + (rounded - mean).detach(), mean, quantized=rounded, indices=self.nearest(rounded))

    def vectors(self, indices: Tensor) -> Tensor:
        """Return the levels of symbols, in [-1, 1]."""
        digits = indices[:, None] // self.place % self.count
        return (digits - self.middle).to(self.mean.weight.dtype) / self.middle

    def nearest(self, z: Tensor) -> Tensor:
        """Return the symbols whose levels are nearest to a map's numbers."""
        digits = (z * self.middle + self.middle).round().clamp_min(0).long()
        return (torch.minimum(digits, self.count - 1) * self.place).sum(1)


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
        "finite-scalar": FiniteScalar,
    },
)
