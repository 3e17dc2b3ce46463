"""Sources of logits for a codec: a table of all of them, or a decoder that reads the symbols chosen before."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from expost.errors import UsageError

#: Gives the logits of the next symbol of N rows, (N, V), from the last symbols (N,), None at first; the groups (N,) of
#: the symbols that may come next, as `Codec.groups` numbers them; and which rows of the call before go on, their
#: numbers, or None for all.
Walk = Callable[[Tensor | None, Tensor, Tensor | None], Tensor]


class Stepwise(ABC):
    """Logits of N rows of L symbols out of V that depend on the symbols chosen before: l[t] = f(z, x[:t]).

    Attributes:
        shape: (N, L, V).
        device: Of the logits.
    """

    shape: tuple[int, int, int]
    device: torch.device

    @abstractmethod
    def walk(self) -> Walk:
        """Return a function to be called once a step, from the first symbol on."""

    @abstractmethod
    def rows(self, first: int, last: int, repeats: int = 1) -> Stepwise:
        """Return the rows from `first` up to `last`, each repeated."""

    def __len__(self) -> int:
        """Return N."""
        return self.shape[0]


def check_logits(logits: Tensor | Stepwise, size: int, what: str) -> None:
    """Raise UsageError unless logits are floating-point numbers of shape (N, L, size)."""
    dtype = torch.float32 if isinstance(logits, Stepwise) else logits.dtype
    if len(logits.shape) != 3 or logits.shape[2] != size or not dtype.is_floating_point:
        raise UsageError(
            f"logits have shape {tuple(logits.shape)} and type {dtype}; give floating-point numbers of shape "
            f"(N, L, {size}) for {what} and the padding"
        )


def rows(logits: Tensor | Stepwise, first: int, last: int, repeats: int) -> Tensor | Stepwise:
    """Return rows of logits of either kind, each repeated; of a single row of a table it is a view."""
    if isinstance(logits, Stepwise):
        return logits.rows(first, last, repeats)
    return logits[first:last].unsqueeze(1).expand(-1, repeats, -1, -1).flatten(0, 1)


def walk(logits: Tensor | Stepwise) -> Walk:
    """Return a function that gives the logits step by step, for either kind."""
    if isinstance(logits, Stepwise):
        return logits.walk()
    steps = iter(logits.detach().unbind(1))  # a choice has no gradient
    return lambda previous, groups, kept: next(steps)
