"""Log-likelihood of an example under the generative model z ~ q, x = D(z) + noise, by importance sampling.

A regularized autoencoder with an ex-post density is a latent-variable model,

    p(x) = integral of q(z) N(x; D(z), diag(noise)) dz.

Codes that explain x lie close together around E(x), so the integral is estimated there, with draws z_k from a Gaussian
that fits the integrand (Rezende et al. 2014, appendix F):

    log p(x) ~ log 1/K sum_k q(z_k) N(x; D(z_k), diag(noise)) / r(z_k),   r(z) = N(z; c, P^-1).

Center and precision are those of the posterior of a decoder that is linear around z, with Jacobian J, and a Gaussian q
with the codes' mean m and covariance C (Gauss-Newton steps, from z = E(x)):

    P = J^T diag(noise)^-1 J + C^-1,   c = z + P^-1 (J^T diag(noise)^-1 (x - D(z)) + C^-1 (m - z)).

Where the decoder's surface comes close to itself, E(x) may lie on the wrong sheet, or on one of two. So r is an equal
mixture of two such Gaussians; the second starts from the best of some draws from q. Mostly both end at the same place.

For a linear decoder and that Gaussian q the estimate is exact, whatever the draws. Elsewhere it is unbiased for p(x)
and hence, on average, a lower bound on log p(x), which grows with K. With the weights w_k = q N / r and the effective
number of draws ESS = (sum w)^2 / sum w^2, its standard error and, to second order, its distance from log p(x) are

    error = sqrt(1 / ESS - 1 / K),   gap = error^2 / 2.

Rows whose error exceeds `ERROR` are estimated again with `GROWTH` times as many draws, up to `ROUNDS` times.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from expost.densities import TractableDensity
from expost.densities.linalg import LOG_2PI

#: Draws from q, the best of which is the second start beside the encoder's code.
ANCHORS = 512
#: Gauss-Newton steps; each is taken only where it raises the integrand.
STEPS = 3
#: Largest distance from the codes' mean that they may reach, in standard deviations of the codes.
REACH = 1e3
#: Largest standard error of the estimate, in nats, that needs no more draws.
ERROR = 0.1
#: How many times as many draws loose rows then get, and how often.
GROWTH, ROUNDS = 4, 4
#: Numbers (draws times dimensions) that one chunk of examples may take.
CHUNK = 2_000_000


@dataclass(frozen=True)
class _Gaussians:
    """N Gaussians: centers, shape (N, d), and lower Cholesky factors L of the precisions L L^T, shape (N, d, d)."""

    center: Tensor
    factor: Tensor

    def draw(self, noise: Tensor) -> Tensor:
        """Turn standard normal rows, shape (k, d), into draws of each, shape (N, k, d)."""
        offsets = torch.linalg.solve_triangular(self.factor.mT, noise.T.expand(len(self.center), -1, -1), upper=True)
        return self.center[:, None] + offsets.mT

    def log_prob(self, points: Tensor) -> Tensor:
        """Evaluate each at its points, shape (N, k, d) to (N, k)."""
        whitened = (points - self.center[:, None]) @ self.factor
        log_det = self.factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return log_det[:, None] - 0.5 * (whitened.square().sum(2) + points.shape[2] * LOG_2PI)


@dataclass(frozen=True)
class LatentVariableModel:
    """p(x) = integral of q(z) N(x; D(z), diag(noise)) dz.

    Attributes:
        decode: D, maps codes (B, d), float64, to examples (B, D), row by row.
        density: q, fitted.
        noise: Variances of the Gaussian noise on D(z), shape (D,), float64, positive.
        mean: Mean m of the codes, shape (d,), float64.
        covariance: Covariance C of the codes, shape (d, d), float64, positive definite.

    Example:
        >>> import torch
        >>> from expost.densities import make_density
        >>> z = torch.tensor([[-1.0], [1.0]]).repeat(50, 1)
        >>> q = make_density("gaussian", regularization=0.0).fit(z)
        >>> one = torch.ones(1, dtype=torch.float64)
        >>> model = LatentVariableModel(lambda z: 2 * z, q, noise=one, mean=0 * one, covariance=one[:, None])
        >>> model.log_prob(torch.zeros(1, 1), torch.zeros(1, 1), draws=2)  # log N(0; 0, 4 + 1)
        tensor([-1.7237], dtype=torch.float64)
    """

    decode: Callable[[Tensor], Tensor]
    density: TractableDensity
    noise: Tensor
    mean: Tensor
    covariance: Tensor

    @torch.no_grad()
    def log_prob(self, x: Tensor, z: Tensor, draws: int = 64, seed: int = 0) -> Tensor:
        """Estimate log p(x), natural logarithm, shape (N,), float64.

        A row's value does not depend on what else is in the batch: all rows share the same draws of standard normal
        noise, and those of loose rows go on with further ones. The two Gaussians get them with opposite signs.

        Args:
            x: Examples, shape (N, D), float64.
            z: Codes from which to start, E(x), shape (N, d).
            draws: K, an even number, at first: at most `GROWTH ** ROUNDS` times as many are taken where the bound is
                loose. 0 takes Laplace's approximation instead, with the centers for draws.
            seed: Seeds the draws.
        """
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(max(1, draws // 2), z.shape[1], generator=generator, dtype=torch.float64) * bool(draws)
        anchors = self.density.sample(ANCHORS, generator=generator).to(x.device).double()
        values, errors = self._in_parts(x, z.double(), anchors, noise.to(x.device))
        for _ in range(ROUNDS if draws else 0):
            loose = (errors > ERROR).nonzero()[:, 0]
            if not len(loose):
                break
            noise = torch.randn(GROWTH * len(noise), z.shape[1], generator=generator, dtype=torch.float64)
            values[loose], errors[loose] = self._in_parts(x[loose], z[loose].double(), anchors, noise.to(x.device))
        return values

    def _in_parts(self, x: Tensor, z: Tensor, anchors: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return estimates and their standard errors, each (N,), a few rows at a time."""
        decoded = self.decode(anchors).double()
        log_q = self.density.log_prob(anchors).to(x.device)
        rows = max(1, CHUNK // (max(2 * len(noise), z.shape[1]) * x.shape[1]))
        parts = []
        for part, start in zip(torch.split(x, rows), torch.split(z, rows), strict=True):
            # log q + log N, without the terms that all anchors share
            fits = log_q + (part / self.noise) @ decoded.T - 0.5 * (decoded.square() / self.noise).sum(1)
            parts.append(self._estimate(part, start, anchors[fits.argmax(1)], noise))
        values, errors = zip(*parts, strict=True)
        return torch.cat(values), torch.cat(errors)

    def joint(self, x: Tensor, z: Tensor) -> Tensor:
        """Return log q(z) + log N(x; D(z), diag(noise)) for every row, shape (N,)."""
        residual = x - self.decode(z).double()
        log_noise = -0.5 * (residual.square() / self.noise + self.noise.log() + LOG_2PI).sum(1)
        return self.density.log_prob(z).to(x.device) + log_noise

    def _estimate(self, x: Tensor, z: Tensor, anchor: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        near, other = self._fitted(x, z), self._fitted(x, anchor)
        points = torch.cat([near.draw(noise), other.draw(-noise)], 1)
        k = points.shape[1]
        joint = self.joint(x.repeat_interleave(k, 0), points.flatten(0, 1)).view(-1, k)
        log_r = torch.logaddexp(near.log_prob(points), other.log_prob(points)) - math.log(2)
        total = torch.logsumexp(joint - log_r, 1)
        one_over_ess = torch.logsumexp(2 * (joint - log_r), 1).sub(2 * total).exp()
        return total - math.log(k), (one_over_ess - 1 / k).clamp_min(0).sqrt()

    def _fitted(self, x: Tensor, z: Tensor) -> _Gaussians:
        """Return a Gaussian for every row that fits the integrand near z."""
        value = self.joint(x, z)
        reach = REACH * self.covariance.diagonal().sqrt()
        for _ in range(STEPS):
            candidate = torch.clamp(z + self._newton(x, z)[0], self.mean - reach, self.mean + reach)
            candidate = torch.where(candidate.isfinite(), candidate, z)
            other = self.joint(x, candidate)
            better = other > value
            z, value = torch.where(better[:, None], candidate, z), torch.where(better, other, value)
        return _Gaussians(z, self._newton(x, z)[1])

    def _newton(self, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return the Gauss-Newton step from z, shape (N, d), and the lower Cholesky factor of P, shape (N, d, d)."""
        jacobian = self._jacobian(z)
        weighted = jacobian / self.noise[:, None]
        prior = torch.linalg.inv(self.covariance)
        precision = weighted.mT @ jacobian + 0.5 * (prior + prior.mT)
        gradient = (weighted.mT @ (x - self.decode(z).double())[..., None]).squeeze(-1) + (self.mean - z) @ prior
        factor = torch.linalg.cholesky(precision)
        return torch.cholesky_solve(gradient[..., None], factor).squeeze(-1), factor

    def _jacobian(self, z: Tensor) -> Tensor:
        """Return dD/dz, shape (N, D, d), float64, a forward-mode product per dimension of the code."""
        columns = []
        for direction in torch.eye(z.shape[1], dtype=z.dtype, device=z.device):
            tangent = direction.expand_as(z).contiguous()
            columns.append(torch.func.jvp(self.decode, (z,), (tangent,))[1])
        return torch.stack(columns, 2)
