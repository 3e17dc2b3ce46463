"""Distances to a training set that is too large to hold as floats: exact, computed block by block."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from expost.densities.checks import check_int
from expost.densities.linalg import precise_device
from expost.errors import DataError
from expost.metrics.checks import check_features, check_same_dim
from expost.metrics.distances import Points
from expost.metrics.neighbours import Nearest
from expost.types import to_unit
from expost.utils.progress import progress

BLOCK_ELEMENTS = 2**23
"""Numbers in a block of examples: 64 MiB as float64."""


class Pool:
    """Examples to measure Euclidean distances to; a block of them at a time is turned into floats.

    Args:
        examples: Shape (N, ...), N at least 1: uint8 images, which become floats in [0, 1], or floats as they are.
        name: What errors call them.
        block: Elements of a block; the results do not depend on it.

    Raises:
        UsageError: if they are no floating-point vectors or uint8 images.
        DataError: if there are none.

    Example:
        >>> pool = Pool(torch.tensor([[0.0], [1.0], [4.0]]), block=2)
        >>> pool.nearest(torch.tensor([[0.9], [5.0]])).indices
        tensor([[1],
                [2]])
    """

    def __init__(self, examples: Tensor, name: str = "pool", block: int | None = None) -> None:
        block = BLOCK_ELEMENTS if block is None else block
        check_int("block", block, minimum=1)
        self.examples = examples
        self.name = name
        self._one = vectors(name, examples[:1], minimum=1)
        self._rows = max(1, block // self._one.shape[1])

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self.examples)

    def check(self, name: str, queries: Tensor, minimum: int) -> None:
        """Refuse fewer than `minimum` queries, or queries of another dimension; only the first ones are looked at."""
        first = vectors(name, queries[:minimum] if minimum else queries[:1], minimum)
        check_same_dim(**{self.name: self._one, name: first})

    def nearest(self, queries: Tensor, n: int = 1, name: str = "queries") -> Nearest:
        """Return the n nearest examples for every query, as `expost.metrics.neighbours.nearest` does, on the CPU.

        Args:
            queries: Shape (Q, ...), as the examples.
            n: How many, at most N.
            name: What errors call the queries.

        Raises:
            UsageError: for an n below 1, or queries of another dimension.
            DataError: for fewer than n examples, NaN or infinity.
        """
        check_int("n", n, minimum=1)
        if len(self) < n:
            raise DataError(f"{self.name}: got {len(self)} examples, but at least {n} are needed; give more")
        self.check(name, queries, 0)
        best = torch.full((len(queries), n), torch.inf, dtype=torch.float64)
        indices = torch.zeros(len(queries), n, dtype=torch.int64)
        with progress(f"distances to {self.name}", len(self)) as bar:
            for start, block in self._blocks(self.name, self.examples):
                points = Points(block)
                for first, part in self._blocks(name, queries):
                    here = slice(first, first + len(part))
                    distances, rows = points.nearest(part.to(block.device), min(n, len(block)))
                    # of equal distances the earlier one stays first: it has the lower index
                    distances, order = torch.cat([best[here], distances.cpu()], 1).sort(dim=1, stable=True)
                    best[here] = distances[:, :n]
                    indices[here] = torch.cat([indices[here], rows.cpu() + start], 1).gather(1, order[:, :n])
                bar.advance(len(block))
        return Nearest(best, indices)

    def _blocks(self, name: str, examples: Tensor) -> Iterator[tuple[int, Tensor]]:
        for start in range(0, len(examples), self._rows):
            yield start, vectors(name, examples[start : start + self._rows], first=start)


def vectors(name: str, examples: object, minimum: int = 0, first: int = 0) -> Tensor:
    """Return examples as vectors, float64, shape (n, D); arguments and errors are those of `check_features`."""
    if not isinstance(examples, Tensor) or examples.dim() < 3:
        return check_features(name, examples, minimum, first)
    plain = to_unit(examples).flatten(1)
    if examples.dtype == torch.uint8 and len(examples) >= minimum:  # uint8 pixels need no check
        return plain.to(precise_device(plain.device), torch.float64)
    return check_features(name, plain, minimum, first)
