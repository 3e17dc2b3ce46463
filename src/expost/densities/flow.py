"""A normalizing flow on the codes: zuko's neural splines and affine maps, started from one Gaussian."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, final

import numpy as np
import torch
from torch import Tensor, nn

from expost.densities.base import Fit
from expost.densities.checks import check_choice, check_depth, check_determined, check_float, check_int, check_seed
from expost.densities.drawing import draw_normal
from expost.densities.gaussian import Gaussian
from expost.densities.linalg import LOG_2PI, whiten
from expost.densities.tractable import TractableDensity
from expost.densities.training import hold_out, in_batches, train
from expost.errors import DataError
from expost.utils.extras import require

_PREFIX = "map."
#: The most numbers that a map holds at a time.
_AT_ONCE = 2**24
#: Largest norm of a step's gradient; splines take a rare step far too far.
_CLIP = 5.0


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Flow(TractableDensity):
    """q(z): N(0, I) seen through an invertible network T, with its exact density (Rezende & Mohamed 2015).

    The codes are whitened, x = L^-1 (z - m) with m and L L^T the mean and covariance of `Gaussian`, and

        log q(z) = log N(T(x); 0, I) + log |det dT/dx| - log det L.

    T is a chain of `transforms` maps of the package zuko (extra `flows`), each of which turns one dimension after the
    other by a function whose parameters a masked perceptron (`depth` layers of `width`) computes of the others:

    | kind | function of a dimension | parameters from | source |
    |---|---|---|---|
    | coupling | monotonic rational-quadratic spline | the half that is left as it is | Durkan et al. 2019 |
    | autoregressive | the same | the dimensions before it | the same |
    | affine | shift and scale | the dimensions before it | Papamakarios et al. 2017 |

    Splines of `bins` pieces bend what lies in [-5, 5] standard deviations; beyond, the density is that of one Gaussian.
    A sample takes one pass through a coupling map and d passes through the others.

    Every map starts as the identity, so that training starts from one Gaussian. It is by AdamW on the mean negative
    log-likelihood for `steps` steps, with a rate that falls by a half cosine, in float32. One tenth of the codes is
    held out: 20 times in a training their likelihood is measured, and the best weights stay if they lead the start by
    two standard errors. So codes too few to learn from give one Gaussian. Far tails are learned from few codes: samples
    can be narrower than codes with a far outlier.

    Statistics: `seed`, `steps`, `best_step` (0: one Gaussian), `validation_loss` (of it: nats of a whitened code) and
    `gaussian_loss` (of step 0).

    Attributes:
        kind: "coupling", "autoregressive" or "affine"; with one dimension, coupling is autoregressive.
        transforms: Maps in the chain.
        width: Units of a hidden layer.
        depth: Hidden layers.
        bins: Pieces of a spline, at least 2.
        steps: Training steps.
        batch_size: Codes of a step.
        lr: Largest learning rate.
        regularization: That of `Gaussian`, above 0.
        seed: Seed of weights, orders of dimensions, held-out part and batches.
    """

    name: ClassVar[str] = "flow"
    words: ClassVar[str] = "the flow"
    kind: Literal["coupling", "autoregressive", "affine"] = "coupling"
    transforms: int = 4
    width: int = 128
    depth: int = 2
    bins: int = 8
    steps: int = 1_000
    batch_size: int = 512
    lr: float = 1e-3
    regularization: float = 1e-6
    seed: int = 0

    def _check(self) -> None:
        check_choice("kind", self.kind, ["coupling", "autoregressive", "affine"])
        for name in ("width", "steps", "batch_size"):
            check_int(name, getattr(self, name), minimum=1)
        for name in ("transforms", "depth"):
            check_depth(name, getattr(self, name))
        check_int("bins", self.bins, minimum=2)
        check_float("lr", self.lr, minimum=0, above=True)
        check_float("regularization", self.regularization, minimum=0, above=True)
        check_seed(self.seed)

    def _fit(self, z: Tensor) -> Fit:
        check_determined(self.name, *z.shape)
        start = Gaussian(regularization=self.regularization).fit(z).tensors
        with torch.enable_grad():
            weights, statistics = self._train(whiten(z, start["mean"], start["cholesky"]).float())
        kept = {_PREFIX + name: tensor for name, tensor in weights.items()}
        return Fit(start | kept, {"seed": self.seed, **statistics})

    def _train(self, x: Tensor) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Train on whitened codes, float32; return the best weights and the statistics."""
        generator = torch.Generator().manual_seed(self.seed)  # on the CPU: every device takes the same steps
        held_out, training = hold_out(x, generator)
        flow = self._network(x.shape[1]).to(x.device)
        _start_at_identity(flow)
        optimizer = torch.optim.AdamW(flow.parameters(), lr=self.lr, fused=True if x.is_cuda else None)

        def step(batch: Tensor) -> None:
            optimizer.zero_grad()
            (-_log_prob(flow, batch).mean()).backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(flow.parameters(), _CLIP)
            optimizer.step()

        def judge() -> Tensor:
            with torch.no_grad():
                return -self._in_parts(held_out, lambda x: _log_prob(flow, x))

        batches = in_batches(training, self.batch_size, self.steps, generator)
        return train(self.name, optimizer, self.lr, batches, self.steps, step, lambda: _parameters(flow), judge)

    def _network(self, d: int) -> Any:
        """Return zuko's chain of maps, its weights and orders of dimensions drawn with the seed."""
        flows, lazy, transforms = (
            require(f"zuko.{name}", "flows", f"density '{self.name}' needs zuko")
            for name in ("flows.autoregressive", "lazy", "transforms")
        )
        options: dict[str, Any] = {"hidden_features": [self.width] * self.depth}
        if self.kind != "affine":
            options["univariate"] = transforms.MonotonicRQSTransform
            options["shapes"] = [(self.bins,), (self.bins,), (self.bins - 1,)]
        if self.kind == "coupling" and d > 1:
            options["passes"] = 2
        orders = np.random.RandomState(self.seed)  # its permutations are promised to stay, and a file holds none
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            maps = [
                flows.MaskedAutoregressiveTransform(d, order=torch.from_numpy(orders.permutation(d)), **options)
                for _ in range(self.transforms)
            ]
        return lazy.LazyComposedTransform(*maps)

    def _fitted(self) -> Any:
        """Return the chain with the fitted weights, float64, on the device of the fit."""
        chain = self._network(self.dim)
        fit = self.tensors
        with torch.no_grad():
            for name, weight in chain.named_parameters():
                weight.copy_(fit[_PREFIX + name])
        return chain.double().to(fit["mean"].device)

    def _draw(self, n: int, generator: torch.Generator | None, temperature: float) -> Tensor:
        fit = self.tensors
        noise = draw_normal(n, self.dim, generator, fit["mean"].device, temperature)
        inverse = self._fitted()().inv
        return fit["mean"] + self._in_parts(noise, inverse) @ fit["cholesky"].T

    def _log_prob(self, z: Tensor) -> Tensor:
        fit = self.tensors
        flow = self._fitted()
        logs = self._in_parts(whiten(z, fit["mean"], fit["cholesky"]), lambda x: _log_prob(flow, x))
        if not bool(logs.isfinite().all()):
            row = int((~logs.isfinite()).nonzero()[0])
            raise DataError(
                f"{self.name}: the density of code {row} is not finite; it is too far from the fitted codes"
            )
        return logs - fit["cholesky"].diagonal().log().sum()

    def _in_parts(self, x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        """Return a function of rows, computed of so many at a time that memory is bounded."""
        a_row = x.shape[1] * max(3 * self.bins, self.width)
        return torch.cat([function(part) for part in torch.split(x, max(1, _AT_ONCE // a_row))])

    def _layout(self, statistics: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        d = statistics["d"]
        weights = _parameters(self._network(d))
        return {"mean": (d,), "cholesky": (d, d)} | {_PREFIX + k: tuple(v.shape) for k, v in weights.items()}


def _parameters(flow: nn.Module) -> dict[str, Tensor]:
    return {name: weight.detach() for name, weight in flow.named_parameters()}


def _start_at_identity(flow: Any) -> None:
    """Set to 0 what the functions' parameters are computed by last; zuko's splines and affine maps are then identities.

    In one dimension these parameters depend on nothing, and are all there is.
    """
    with torch.no_grad():
        for each in flow.transforms:
            last = each.hyper[-1].parameters() if "hyper" in dict(each.named_children()) else each.parameters()
            for weight in last:
                weight.zero_()


def _log_prob(flow: Any, x: Tensor) -> Tensor:
    """Return the log-density of whitened codes, shape (N,)."""
    if not len(x):
        return x.new_zeros(0)
    u, log_determinant = flow().call_and_ladj(x)
    log_prob: Tensor = log_determinant - 0.5 * (u.square().sum(1) + x.shape[1] * LOG_2PI)
    return log_prob
