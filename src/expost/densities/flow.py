"""A normalizing flow on the codes: zuko's neural splines and affine maps, started from a mixture of Gaussians."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from expost.densities.base import Fit, restore_part
from expost.densities.checks import check_choice, check_depth, check_determined, check_float, check_int, check_seed
from expost.densities.choice import lead
from expost.densities.covariances import COVARIANCES
from expost.densities.drawing import draw_normal
from expost.densities.em import Components, log_density
from expost.densities.gaussian import Gaussian
from expost.densities.grouped import Grouped, embed, initial_embedding, read_counts
from expost.densities.joint import JointDensity
from expost.densities.labels import Classes
from expost.densities.linalg import LOG_2PI, whiten
from expost.densities.mixture import GaussianMixture, default_components
from expost.densities.standards import Whitened
from expost.densities.training import Means, hold_out, in_batches, train
from expost.errors import DataError
from expost.utils.extras import require

_PREFIX = "map."
_BASE = "base."
_EMBEDDING = "classes.embedding"
#: Numbers that tell the maps of a class.
_EMBEDDED = 16
#: The most numbers that a map holds at a time.
_AT_ONCE = 2**24
#: Largest norm of a step's gradient; splines take a rare step far too far.
_CLIP = 5.0
#: Where splines end, in standard deviations; beyond, they are the identity.
_BOUND = 8.0


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Flow(JointDensity):
    """q(z): a mixture of Gaussians seen through an invertible network T, with its exact density.

    The codes are whitened, x = L^-1 (z - m) with m and L L^T the mean and covariance of `Gaussian`, and

        log q(z) = log p(T(x)) + log |det dT/dx| - log det L        (Rezende & Mohamed 2015)

    where p is the mixture `gmm` of x, since clusters are hard to make of one Gaussian (Stimper et al. 2022); or
    N(0, I), if `components` is 1, with labels, or if held-out codes are no likelier under the mixture by two standard
    errors. T is a chain of `transforms` maps of the package zuko (extra `flows`), each of which turns one dimension
    after the other by a function whose parameters a masked perceptron (`depth` layers of `width`) computes of the
    others:

    | kind | function of a dimension | parameters from | source |
    |---|---|---|---|
    | coupling | monotonic rational-quadratic spline | the half that is left as it is | Durkan et al. 2019 |
    | autoregressive | the same | the dimensions before it | the same |
    | affine | shift and scale | the dimensions before it | Papamakarios et al. 2017 |

    The order of dimensions is drawn for every second map and turned around for the next: of two coupling maps in a row
    each bends the half that the other one leaves.

    Splines of `bins` pieces bend what lies in [-8, 8] standard deviations; beyond, the density is p's. A sample takes
    one pass through a coupling map and d passes through the others.

    **With labels** one chain learns all classes: the perceptrons are also given an embedding of the class, which is
    learned (of ordered bins: the sum of a step for each bin up to it). The codes are whitened about the mean of their
    class, by the covariance within classes, so that training starts from N(m_c, S). q(z | c) is exact, and q(z) the
    mean of them with weights N_c / N.

    Every map starts as the identity, so that training starts from p: the mixture, or one Gaussian. It is by AdamW on
    the mean negative log-likelihood for `steps` steps, with a rate that falls by a half cosine, in float32; what is
    kept is the mean of the weights over steps (`Means`). One tenth of the codes is held out, from the mixture too: 20
    times in a training their likelihood is measured, and the best weights stay if they lead the start by two standard
    errors. So codes too few to learn from give the start. Far tails are learned from few codes: samples can be narrower
    than codes with a far outlier.

    Statistics: `seed`, `components` of p and its fit `base`, `steps`, `best_step` (0: the start), `validation_loss` (of
    it: nats of a whitened code) and `start_loss` (of step 0); with labels `labels`, `edges` and `counts`.

    Attributes:
        components: The most Gaussians of p; there is one for every 5 (d + 1) codes at most.
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
    components: int = 10
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
        for name in ("components", "width", "steps", "batch_size"):
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
        weights, statistics = self._train(whiten(z, start["mean"], start["cholesky"]), None)
        return Fit(start | weights, {"seed": self.seed, **statistics})

    def _fit_labelled(self, z: Tensor, classes: Classes, index: NDArray[np.int64]) -> Fit:
        check_determined(self.name, *z.shape)
        groups = Grouped.of(z, classes, index, Whitened, (z.shape[1],), self.regularization)
        weights, statistics = self._train(groups.x, groups)
        start = {"mean": groups.means, **groups.standard.tensors}
        return Fit(start | weights, {"seed": self.seed, **statistics, **groups.record})

    def _train(self, x: Tensor, groups: Grouped | None) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Train on whitened codes; return the best weights, with the base that they go with, and the statistics."""
        generator = torch.Generator().manual_seed(self.seed)  # on the CPU: every device takes the same steps
        held_out, training = hold_out(len(x), generator)
        base = None if groups is not None else self._base(x[training.to(x.device)], x[held_out.to(x.device)])
        start = _log_base(base)
        x = x.float()
        flow = self._network(x.shape[1], groups is not None).to(x.device)
        _start_at_identity(flow)
        learned = list(flow.parameters())
        if groups is not None:
            embedding = initial_embedding(groups.classes, _EMBEDDED, generator, x.device).requires_grad_()
            learned.append(embedding)
        optimizer = torch.optim.AdamW(learned, lr=self.lr, fused=True)
        means = Means(learned)
        smooth = copy.deepcopy(flow)  # with the means for weights
        for weight, mean in zip(smooth.parameters(), means.tensors, strict=False):
            weight.data = mean

        def loss(flow: Any, learned: Sequence[Tensor], rows: Tensor) -> Tensor:
            rows = rows.to(x.device)
            given = None if groups is None else embed(learned[-1], groups.classes)[groups.index[rows]]
            return -_log_prob(flow, x[rows], given, start)

        def step(rows: Tensor) -> None:
            optimizer.zero_grad()
            loss(flow, learned, rows).mean().backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(learned, _CLIP)
            optimizer.step()
            means.update()

        def judge() -> Tensor:
            parts = torch.split(held_out, self._rows_at_once(x.shape[1]))
            with torch.no_grad():
                return torch.cat([loss(smooth, means.tensors, rows) for rows in parts])

        def weights() -> dict[str, Tensor]:
            named = {_PREFIX + name: weight.detach() for name, weight in smooth.named_parameters()}
            return named if groups is None else named | {_EMBEDDING: embed(means.tensors[-1], groups.classes)}

        batches = in_batches(training, self.batch_size, self.steps, generator)
        with torch.enable_grad():
            best, statistics = train(self.name, optimizer, self.lr, batches, self.steps, step, weights, judge)
        if base is None:
            return best, statistics
        best |= {_BASE + name: tensor for name, tensor in base.tensors.items()}
        return best, {"components": base.components, "base": base.statistics, **statistics}

    def _base(self, x: Tensor, held_out: Tensor) -> GaussianMixture | None:
        """Return a mixture of whitened codes; None if held-out ones are no likelier under it than under N(0, I)."""
        components = default_components(len(x), x.shape[1], self.components)
        if components == 1:
            return None
        mixture = self._mixture(components)
        try:
            mixture.fit(x)
        except DataError:  # so few of them differ
            return None
        gained = lead(mixture.log_prob(held_out), _log_normal(held_out))
        return mixture if gained is not None and gained.clearly > 0 else None

    def _mixture(self, components: int) -> GaussianMixture:
        return GaussianMixture(components=components, regularization=self.regularization, seed=self.seed)

    def _network(self, d: int, labelled: bool) -> Any:
        """Return zuko's chain of maps, its weights and orders of dimensions drawn with the seed."""
        flows, couplings, lazy, transforms = (
            require(f"zuko.{name}", "flows", f"density '{self.name}' needs zuko")
            for name in ("flows.autoregressive", "flows.coupling", "lazy", "transforms")
        )
        options: dict[str, Any] = {
            "hidden_features": [self.width] * self.depth,
            "context": _EMBEDDED if labelled else 0,
        }
        if self.kind != "affine":
            options["univariate"] = partial(transforms.MonotonicRQSTransform, bound=_BOUND)
            options["shapes"] = [(self.bins,), (self.bins,), (self.bins - 1,)]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            if self.kind == "coupling" and d > 1:
                maps = [
                    couplings.GeneralCouplingTransform(d, mask=torch.from_numpy(order < d // 2), **options)
                    for order in self._orders(d)
                ]
            else:
                maps = [
                    flows.MaskedAutoregressiveTransform(d, order=torch.from_numpy(order), **options)
                    for order in self._orders(d)
                ]
        return lazy.LazyComposedTransform(*maps)

    def _orders(self, d: int) -> list[NDArray[np.int64]]:
        """Return an order of the dimensions for every map: drawn for every second one, turned around for the next.

        So each of two coupling maps in a row bends the half that the other one leaves.
        """
        random = np.random.RandomState(self.seed)  # its permutations are promised to stay, and a file holds none
        orders: list[NDArray[np.int64]] = []
        for k in range(self.transforms):
            orders.append(d - 1 - orders[-1] if k % 2 else random.permutation(d))
        return orders

    def _fitted(self) -> Any:
        """Return the chain with the fitted weights, float64, on the device of the fit."""
        chain = self._network(self.dim, self.labelled)
        fit = self.tensors
        with torch.no_grad():
            for name, weight in chain.named_parameters():
                weight.copy_(fit[_PREFIX + name])
        return chain.double().to(fit["mean"].device)

    def _arrive(self, n: int, index: Tensor | None, generator: torch.Generator | None, temperature: float) -> Tensor:
        """Return the codes of n draws of noise, of the classes `index` (n,), None without labels."""
        fit, chain, base = self.tensors, self._fitted(), self._fitted_base()
        if base is None:
            noise = draw_normal(n, self.dim, generator, fit["mean"].device, temperature)
        else:
            noise = base.sample(n, generator=generator, temperature=temperature).double()
        found = [noise[:0]]
        for rows in torch.split(torch.arange(n, device=noise.device), self._rows_at_once(self.dim)):
            given = None if index is None else fit[_EMBEDDING][index[rows]].double()
            found.append(chain(given).inv(noise[rows]))
        return (fit["mean"] if index is None else fit["mean"][index]) + torch.cat(found) @ fit["cholesky"].T

    def _log_density(self, z: Tensor, c: int | None) -> Tensor:
        """Return the log-density of codes, shape (N,), float64, of class number c."""
        fit, flow, base = self.tensors, self._fitted(), self._fitted_base()
        start = _log_base(base)
        given = None if c is None else fit[_EMBEDDING][c].double()
        x = whiten(z, fit["mean"] if c is None else fit["mean"][c], fit["cholesky"])
        parts = torch.split(x, self._rows_at_once(self.dim))
        logs = torch.cat(
            [_log_prob(flow, part, None if given is None else given.expand(len(part), -1), start) for part in parts]
        )
        if not bool(logs.isfinite().all()):
            row = int((~logs.isfinite()).nonzero()[0])
            raise DataError(
                f"{self.name}: the density of code {row} is not finite; it is too far from the fitted codes"
            )
        return logs - fit["cholesky"].diagonal().log().sum()

    def _fitted_base(self) -> GaussianMixture | None:
        """Return the mixture; None if it is N(0, I)."""
        if (components := self.statistics.get("components", 1)) == 1:
            return None
        mixture, record = self._mixture(components), self.statistics["base"]
        return restore_part(mixture, record, self.tensors, _BASE, self.tensors["mean"].device)

    def _rows_at_once(self, d: int) -> int:
        """Return how many codes are computed at a time, so that memory is bounded."""
        return max(1, _AT_ONCE // (d * max(3 * self.bins, self.width)))

    def _layout(self, statistics: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        d, labelled = statistics["d"], "labels" in statistics
        named = self._network(d, labelled).named_parameters()
        layout: dict[str, tuple[int, ...]] = {"mean": (d,), "cholesky": (d, d)}
        layout |= {_PREFIX + name: tuple(weight.shape) for name, weight in named}
        if (components := statistics.get("components", 1)) != 1:
            inner = self._mixture(components)._layout({"d": d})
            layout |= {_BASE + name: shape for name, shape in inner.items()}
        if labelled:
            classes = len(read_counts(statistics))
            layout |= {"mean": (classes, d), _EMBEDDING: (classes, _EMBEDDED)}
        return layout


def _start_at_identity(flow: Any) -> None:
    """Set to 0 what the functions' parameters are computed by last; zuko's splines and affine maps are then identities.

    In one dimension these parameters depend on nothing, and are all there is.
    """
    with torch.no_grad():
        for each in flow.transforms:
            last = each.hyper[-1].parameters() if "hyper" in dict(each.named_children()) else each.parameters()
            for weight in last:
                weight.zero_()


def _log_normal(u: Tensor) -> Tensor:
    """Return the log-density of N(0, I), shape (N,)."""
    return -0.5 * (u.square().sum(1) + u.shape[1] * LOG_2PI)


def _log_base(mixture: GaussianMixture | None) -> Callable[[Tensor], Tensor]:
    """Return the log-density of what a flow arrives at, a mixture or N(0, I), in the precision of its argument."""
    if mixture is None:
        return _log_normal
    tensors = mixture.tensors

    def log_mixture(u: Tensor) -> Tensor:
        components = Components(**{name: tensor.to(u.dtype) for name, tensor in tensors.items()})
        return log_density(u, components, COVARIANCES["full"])

    return log_mixture


def _log_prob(flow: Any, x: Tensor, given: Tensor | None, base: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the log-density of whitened codes, shape (N,), of classes with the embeddings `given` (N, e), if any."""
    if not len(x):
        return x.new_zeros(0)
    u, log_determinant = flow(given).call_and_ladj(x)
    log_prob: Tensor = log_determinant + base(u)
    return log_prob
