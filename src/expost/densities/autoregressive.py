"""A transformer over grids of symbols: each symbol given those before it in raster order."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from expost.densities.base import Fit, code_shape
from expost.densities.checks import check_depth, check_float, check_int, check_seed
from expost.densities.symbols import SymbolDensity, choose_symbols, draw_uniform, frequencies, tempered
from expost.densities.training import hold_out, in_batches, train
from expost.densities.transformer import Transformer
from expost.errors import UsageError

_PREFIX = "network."
#: The most numbers that an activation, or the keys and values of all blocks, hold at a time.
_AT_ONCE = 2**24
#: Largest number of held-out codes that a check looks at.
_JUDGED = 512
#: Largest norm of a step's gradient.
_CLIP = 1.0


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Autoregressive(SymbolDensity):
    """P(z) = prod_t P(z_t | z_0, ..., z_{t-1}), with t running through the grid in raster order.

    This is the prior of VQ-VAEs (van den Oord et al. 2017, section 3.3), there a PixelCNN. Here it is a decoder-only
    transformer (see `Transformer`), whose logits f are added to those of `Categorical`, p_t:

        P(z_t = k | z_<t, c) proportional to p_t(k) exp(f_k(z_<t, t, c)).

    It starts from f = 0 and is trained by AdamW on the mean of -log P(z) for `steps` steps, with a rate that falls by a
    half cosine, in float32. One tenth of the codes is held out: 20 times in a training their likelihood is measured,
    and the best weights stay if they lead the start by two standard errors. So codes too few to learn from give
    independent symbols.

    With labels, c is the class of a code, and P(z) = sum_c pi_c P(z | c). A temperature T divides the logits of each
    symbol in turn, and `top_k` leaves the k likeliest: both change samples, never `log_prob`, which is that of P.

    Statistics: those of `SymbolDensity`, `seed`, `steps`, `best_step` (0: independent symbols), `validation_loss`
    (nats of a code) and `categorical_loss` (of step 0).

    Attributes:
        width: Numbers of a position, a multiple of `heads`.
        depth: Blocks.
        heads: Heads of attention.
        steps: Training steps.
        batch_size: Codes of a step.
        lr: Largest learning rate.
        dropout: Share of numbers set to 0 in training, at least 0, below 1.
        top_k: Likeliest symbols that a draw chooses from; None is all.
        seed: Seed of weights, held-out part, batches and dropout.

    Example:
        >>> z = torch.randint(0, 3, (64, 2, 2), generator=torch.Generator().manual_seed(0)).float()
        >>> density = Autoregressive(symbols=3, width=8, depth=1, heads=1, steps=4).fit(z)
        >>> density.sample(5).shape, density.log_prob(z).shape
        (torch.Size([5, 2, 2]), torch.Size([64]))
    """

    name: ClassVar[str] = "autoregressive"
    words: ClassVar[str] = "the autoregressive prior"
    width: int = 128
    depth: int = 3
    heads: int = 4
    steps: int = 1_500
    batch_size: int = 32
    lr: float = 1e-3
    dropout: float = 0.1
    top_k: int | None = None
    seed: int = 0

    def _check_own(self) -> None:
        check_depth("depth", self.depth)
        for name in ("width", "heads", "steps", "batch_size"):
            check_int(name, getattr(self, name), minimum=1)
        if self.width % self.heads:
            raise UsageError(f"width={self.width} must be a multiple of heads={self.heads}")
        check_float("lr", self.lr, minimum=0, above=True)
        check_float("dropout", self.dropout, minimum=0, below=1)
        if self.top_k is not None:
            check_int("top_k", self.top_k, minimum=1)
        check_seed(self.seed)

    def _fit_grids(self, grids: Tensor, classes: Tensor, count: int, symbols: int) -> Fit:
        network = self._network(self._state.shape, count, symbols)
        generator = torch.Generator().manual_seed(self.seed)  # on the CPU: every device takes the same steps
        held_out, training = hold_out(len(grids), generator)
        start = frequencies(grids[training.to(grids.device)], symbols).log()
        table, judged = start.float(), held_out[:_JUDGED]
        weights = network.initial(generator, grids.device)
        trained = [tensor.requires_grad_() for tensor in weights.values()]
        optimizer = torch.optim.AdamW(trained, lr=self.lr, fused=True if grids.is_cuda else None)

        def losses(rows: Tensor, dropout: float) -> Tensor:
            rows = rows.to(grids.device)
            logits = table + network.logits(grids[rows], classes[rows], weights, dropout)
            flat = functional.cross_entropy(logits.flatten(0, 1), grids[rows].flatten(), reduction="none")
            return flat.view(len(rows), -1).sum(1)

        def step(rows: Tensor) -> None:
            optimizer.zero_grad()
            losses(rows, self.dropout).mean().backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(trained, _CLIP)
            optimizer.step()

        def judge() -> Tensor:
            with torch.no_grad():
                parts = judged.split(self._rows(network, symbols))  # type: ignore[no-untyped-call]
                return torch.cat([losses(part, 0.0) for part in parts]).double()

        batches = in_batches(training, self.batch_size, self.steps, generator)
        with torch.enable_grad(), torch.random.fork_rng(devices=[grids.device] if grids.is_cuda else []):
            torch.manual_seed(self.seed)  # of dropout
            best, found = train(self.name, optimizer, self.lr, batches, self.steps, step, lambda: weights, judge)
        statistics = {"seed": self.seed, **found}
        statistics["categorical_loss"] = statistics.pop("start_loss")
        return Fit({"start": start} | {_PREFIX + name: weight for name, weight in best.items()}, statistics)

    def _network(self, shape: tuple[int, ...], classes: int, symbols: int) -> Transformer:
        grid = (math.prod(shape[:-1]), shape[-1])
        return Transformer(symbols, grid, classes, self.width, self.depth, self.heads)

    def _fitted(self) -> tuple[Transformer, dict[str, Tensor]]:
        """Return the network and its weights."""
        weights = {name.removeprefix(_PREFIX): each for name, each in self.tensors.items() if name != "start"}
        return self._network(self.shape, len(self.counts), self.known), weights

    def _rows(self, network: Transformer, symbols: int) -> int:
        """Return how many grids are evaluated at a time."""
        return max(1, _AT_ONCE // (network.sites * max(symbols, 4 * self.width)))

    def _log_prob_of(self, grids: Tensor, classes: Tensor) -> Tensor:
        network, weights = self._fitted()
        rows, found = self._rows(network, self.known), []
        for some, c in zip(grids.split(rows), classes.split(rows), strict=True):  # type: ignore[no-untyped-call]
            logits = self.tensors["start"] + network.logits(some, c, weights).double()
            logs = torch.log_softmax(logits, -1).gather(2, some[..., None])[..., 0]
            found.append(logs.sum(1))
        return torch.cat(found)

    def _draw_of(self, classes: Tensor, generator: torch.Generator | None, temperature: float) -> Tensor:
        network, weights = self._fitted()
        start = self.tensors["start"]
        uniform = draw_uniform(len(classes), network.sites, generator, start.device)
        rows = max(1, _AT_ONCE // (2 * self.depth * network.sites * self.width))
        drawn = torch.empty(len(classes), network.sites, dtype=torch.int64, device=start.device)
        for first in range(0, len(classes), rows):
            some, c = drawn[first : first + rows], classes[first : first + rows].to(start.device)
            cache = network.empty(len(some), weights)
            for t in range(network.sites):
                logits = start[t] + network.step(some[:, max(0, t - 1)], t, c, cache, weights).double()
                probabilities = tempered(logits, temperature, self.top_k)
                some[:, t] = choose_symbols(probabilities, uniform[first : first + rows, t])
        return drawn

    def _layout(self, statistics: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        classes, symbols, shape = self._check_counts(statistics)
        network = self._network(code_shape(statistics), classes, symbols)
        return {"start": (math.prod(shape), symbols)} | {
            _PREFIX + name: each for name, each in network.shapes().items()
        }
