"""A small decoder-only transformer over a grid of symbols in raster order (Vaswani et al. 2017; Radford et al. 2019).

Position t predicts symbol t from symbols 0 to t - 1: what goes in is the embedding of symbol t - 1 (of a start symbol
at t = 0), of t's row, of t's column and of the class. Weights are a dictionary of tensors, so that a density can keep
them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Transformer:
    """Sizes of the network; its weights are given to every call.

    Attributes:
        symbols: Number K of symbols.
        shape: Height and width of the grid.
        classes: Number of classes, 1 without labels.
        width: Numbers w of a position, a multiple of `heads`.
        depth: Blocks of attention and a perceptron of 4 w units, each after a layer norm.
        heads: Heads of attention.
    """

    symbols: int
    shape: tuple[int, int]
    classes: int
    width: int
    depth: int
    heads: int

    @property
    def sites(self) -> int:
        """Number S of positions."""
        return math.prod(self.shape)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the weights by name."""
        w = self.width
        found: dict[str, tuple[int, ...]] = {
            "symbol": (self.symbols + 1, w),
            "row": (self.shape[0], w),
            "column": (self.shape[1], w),
            "class": (self.classes, w),
        }
        for k in range(self.depth):
            found |= {
                f"block{k}.norm1": (2, w),
                f"block{k}.attention": (3 * w, w),
                f"block{k}.mixed": (w, w),
                f"block{k}.norm2": (2, w),
                f"block{k}.up": (4 * w, w),
                f"block{k}.up_bias": (4 * w,),
                f"block{k}.down": (w, 4 * w),
                f"block{k}.down_bias": (w,),
            }
        return found | {"norm": (2, w), "out": (self.symbols, w)}

    def initial(self, generator: torch.Generator, device: torch.device) -> dict[str, Tensor]:
        """Return weights that make all logits 0: N(0, 0.02^2), smaller by sqrt(2 depth) where a block adds; `out` 0."""
        weights = {}
        for name, shape in self.shapes().items():
            weight = torch.zeros(shape)
            if "norm" in name:
                weight[0] = 1.0  # scale, then shift
            elif name != "out" and "bias" not in name:
                added = name.endswith(("mixed", "down"))
                deviation = 0.02 / math.sqrt(2 * self.depth) if added else 0.02
                weight = deviation * torch.randn(shape, generator=generator)
            weights[name] = weight.to(device)
        return weights

    def logits(self, grids: Tensor, classes: Tensor, weights: Mapping[str, Tensor], dropout: float = 0.0) -> Tensor:
        """Return the logits of every symbol given those before it, shape (N, S, K).

        Args:
            grids: Symbols in raster order, int64, shape (N, S).
            classes: Numbers of the classes, int64, shape (N,).
            weights: By name.
            dropout: Share of embedded numbers, and of those that a block adds, that are set to 0 (by torch's global
                generator); 0 outside training.
        """
        start = torch.full_like(grids[:, :1], self.symbols)
        given = torch.cat([start, grids[:, :-1]], 1)
        x = functional.dropout(self._embedded(given, classes, 0, weights), dropout)
        for k in range(self.depth):
            q, key, value = self._heads(x, k, weights)
            mixed = functional.scaled_dot_product_attention(q, key, value, is_causal=True)
            x = self._rest(x, mixed, k, weights, dropout)
        return self._out(x, weights)

    def empty(self, n: int, weights: Mapping[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Return room for the keys and values of n grids, a pair of tensors (n, heads, S, w / heads) a block."""
        like = weights["symbol"]
        shape = (n, self.heads, self.sites, self.width // self.heads)
        return [(like.new_empty(shape), like.new_empty(shape)) for _ in range(self.depth)]

    def step(
        self,
        previous: Tensor,
        t: int,
        classes: Tensor,
        cache: list[tuple[Tensor, Tensor]],
        weights: Mapping[str, Tensor],
    ) -> Tensor:
        """Return the logits of symbol t, shape (N, K), and add its keys and values to the cache.

        Args:
            previous: Symbols t - 1, int64, shape (N,); not looked at if t is 0.
            t: The position, from 0 in steps of 1.
            classes: As `logits` takes them.
            cache: From `empty`, filled by the steps before.
            weights: By name.
        """
        given = torch.full_like(previous, self.symbols) if t == 0 else previous
        x = self._embedded(given[:, None], classes, t, weights)
        for k, (keys, values) in enumerate(cache):
            q, keys[:, :, t : t + 1], values[:, :, t : t + 1] = self._heads(x, k, weights)
            mixed = functional.scaled_dot_product_attention(q, keys[:, :, : t + 1], values[:, :, : t + 1])
            x = self._rest(x, mixed, k, weights, 0.0)
        return self._out(x, weights)[:, 0]

    def _embedded(self, given: Tensor, classes: Tensor, first: int, weights: Mapping[str, Tensor]) -> Tensor:
        """Return embeddings at the positions from `first` of the symbols before them, shape (N, T, w)."""
        sites = torch.arange(first, first + given.shape[1], device=given.device)
        rows, columns = sites // self.shape[1], sites % self.shape[1]
        placed = weights["row"][rows] + weights["column"][columns] + weights["class"][classes][:, None]
        return functional.embedding(given, weights["symbol"]) + placed

    def _heads(self, x: Tensor, k: int, weights: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values, shape (N, heads, T, w / heads)."""
        n, t, _ = x.shape
        found = functional.linear(_norm(x, weights[f"block{k}.norm1"]), weights[f"block{k}.attention"])
        q, key, value = found.view(n, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        return q, key, value

    def _rest(self, x: Tensor, mixed: Tensor, k: int, weights: Mapping[str, Tensor], dropout: float) -> Tensor:
        """Return what follows attention in a block."""
        joined = functional.linear(mixed.transpose(1, 2).flatten(2), weights[f"block{k}.mixed"])
        x = x + functional.dropout(joined, dropout)
        up = functional.linear(
            _norm(x, weights[f"block{k}.norm2"]), weights[f"block{k}.up"], weights[f"block{k}.up_bias"]
        )
        down = functional.linear(functional.gelu(up), weights[f"block{k}.down"], weights[f"block{k}.down_bias"])
        return x + functional.dropout(down, dropout)

    def _out(self, x: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
        return functional.linear(_norm(x, weights["norm"]), weights["out"])


def _norm(x: Tensor, scale_and_shift: Tensor) -> Tensor:
    return functional.layer_norm(x, x.shape[-1:], scale_and_shift[0], scale_and_shift[1])
