"""Euclidean distances between many points: found fast by matrix products, settled exactly where rounding could matter.

A block of squared distances by `||x||^2 + ||y||^2 - 2 x.y` costs one matrix product, some 20 times less than from the
differences, but suffers cancellation: a duplicate comes out at a small distance instead of 0, and ties break at random.
So products only decide what is clearly near or far, with a bound on their rounding error; distances within that bound
are computed again from the differences. The results equal those of the direct computation, for any size of the chunks.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

CHUNK_ELEMENTS = 2**22
"""Elements of a block: 32 MiB in float64; a few such blocks are alive at once."""

_SPARE = 8  # candidates beyond the neighbours asked for, so that few ties send a row the slow way
_EXACT = "donot_use_mm_for_euclid_dist"


class Points:
    """A set of points to measure distances to.

    Args:
        points: Shape (N, D), float64, finite, N at least 1.
        chunk: Elements of a block.
    """

    def __init__(self, points: Tensor, chunk: int = CHUNK_ELEMENTS) -> None:
        self.points = points
        self.chunk = chunk
        self._squares = points.square().sum(dim=1)
        self._largest = float(self._squares.max())

    def __len__(self) -> int:
        """Return the number of points."""
        return len(self.points)

    def blocks(self, queries: Tensor, per_row: int = 0) -> Iterator[Block]:
        """Yield the queries, shape (Q, D), float64, some rows at a time.

        Args:
            queries: Points to measure from.
            per_row: Elements that the caller needs for each row, if more than N.
        """
        rows = max(1, self.chunk // max(len(self), per_row, queries.shape[1]))
        for start in range(0, len(queries), rows):
            part = queries[start : start + rows]
            squares = part.square().sum(dim=1, keepdim=True)
            # ||x||^2 + ||y||^2 - 2 x.y has a relative rounding error of at most (D + 2) u of ||x||^2 + ||y||^2 in each
            # of its parts, u the unit roundoff; the factor leaves room for the square of the exact distance
            slack = 4 * (part.shape[1] + 8) * torch.finfo(part.dtype).eps * (squares + self._largest)
            fast = torch.addmm(squares + self._squares, part, self.points.T, alpha=-2)
            yield Block(self, start, part, fast, slack)

    def nearest(self, queries: Tensor, n: int, *, skip_self: bool = False) -> tuple[Tensor, Tensor]:
        """Return distances to the n nearest points, float64 (Q, n), ascending, and their indices, int64.

        Of points at equal distance the one of lower index comes first. (Of more than 8 points at distance 0 any may.)

        Args:
            queries: Shape (Q, D), float64.
            n: At most N, or N - 1 where a point is skipped.
            skip_self: The queries are the points themselves; none is its own neighbour.
        """
        width = min(n + _SPARE + skip_self, len(self))
        found = [block.nearest(n, width, skip_self) for block in self.blocks(queries, width * queries.shape[1])]
        if not found:
            return queries.new_empty(0, n), torch.empty(0, n, dtype=torch.int64, device=queries.device)
        distances, indices = zip(*found, strict=True)
        return torch.cat(distances), torch.cat(indices)


class Block:
    """Some queries against all points.

    Attributes:
        start: Number of the first query.
        queries: Shape (B, D).
        fast: Squared distances by products, shape (B, N).
        slack: Bound on their error, shape (B, 1).
    """

    def __init__(self, to: Points, start: int, queries: Tensor, fast: Tensor, slack: Tensor) -> None:
        self._to = to
        self.start = start
        self.queries = queries
        self.fast = fast
        self.slack = slack

    def within(self, radii: Tensor) -> Tensor:
        """Return which distances are at most `radii`, broadcastable to (B, N); bool (B, N)."""
        squares = radii.square()
        inside = self.fast <= squares
        close = (self.fast - squares).abs_() <= self.slack
        rows, columns = close.nonzero(as_tuple=True)
        if len(rows) > close.numel() // 20:  # on a grid, say, too many distances tie to fetch them one by one
            return torch.cdist(self.queries, self._to.points, compute_mode=_EXACT) <= radii
        limits = radii.expand_as(inside)
        pairs = max(1, self._to.chunk // self.queries.shape[1])
        for i, j in zip(torch.split(rows, pairs), torch.split(columns, pairs), strict=True):
            exact = torch.cdist(self.queries[i, None], self._to.points[j, None], compute_mode=_EXACT)
            inside[i, j] = exact[:, 0, 0] <= limits[i, j]
        return inside

    def nearest(self, n: int, width: int, skip_self: bool) -> tuple[Tensor, Tensor]:
        """Do what `Points.nearest` does, with `width` candidates a row."""
        own = torch.arange(self.start, self.start + len(self.queries), device=self.fast.device)
        fast = self.fast
        if skip_self:
            fast = fast.scatter(1, own[:, None], torch.inf)
        values, candidates = fast.topk(width, dim=1, largest=False)
        candidates = candidates.sort(dim=1).values
        exact = torch.cdist(self.queries[:, None], self._to.points[candidates], compute_mode=_EXACT)[:, 0]
        if skip_self:
            exact[candidates == own[:, None]] = torch.inf
        distances, order = exact.sort(dim=1, stable=True)
        distances, indices = distances[:, :n], candidates.gather(1, order[:, :n])
        if width < len(self._to):
            # all other points lie beyond the farthest candidate, up to the error of the products
            last = distances[:, -1]
            unsure = (values[:, -1:] - self.slack <= last.square()[:, None])[:, 0] & (last > 0)
            rows = unsure.nonzero()[:, 0]
            if len(rows):
                distances[rows], indices[rows] = self._slowly(rows, own, n, skip_self)
        return distances, indices

    def _slowly(self, rows: Tensor, own: Tensor, n: int, skip_self: bool) -> tuple[Tensor, Tensor]:
        exact = torch.cdist(self.queries[rows], self._to.points, compute_mode=_EXACT)
        if skip_self:
            exact.scatter_(1, own[rows, None], torch.inf)
        distances, indices = exact.sort(dim=1, stable=True)
        return distances[:, :n], indices[:, :n]
