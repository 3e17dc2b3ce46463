"""Paths between codes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from expost.registry import Registry


def linear(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """Return (1 - t) a + t b.

    Args:
        a: Codes at t = 0, shape (N, ...).
        b: Codes at t = 1, same shape.
        t: Positions in [0, 1], broadcastable to (N, ...).

    Example:
        >>> linear(torch.zeros(1, 2), torch.ones(1, 2), torch.tensor(0.25))
        tensor([[0.2500, 0.2500]])
    """
    return (1 - t) * a + t * b


def rescaled(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """Return the linear path, each point rescaled to the norm (1 - t) ||a|| + t ||b||.

    The straight line between two codes of a high-dimensional cloud passes nearer to its center than any code lies; this
    path does not. Arguments as for `linear`.
    """
    point = linear(a, b, t)
    norm = linear(_norm(a), _norm(b), t)
    return point * norm / _norm(point).clamp_min(torch.finfo(point.dtype).tiny)


def spherical(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """Return the path of constant angular speed, sin((1-t) w)/sin(w) a + sin(t w)/sin(w) b, w the angle between them.

    The path is linear if the angle is 0, or so near to pi that the great circle is not unique (Shoemake 1985).
    Arguments as for `linear`.
    """
    cosine = (a * b).flatten(1).sum(1).view(_norm(a).shape) / (_norm(a) * _norm(b)).clamp_min(torch.finfo(a.dtype).tiny)
    angle = cosine.clamp(-1, 1).acos()
    sine = angle.sin()
    degenerate = sine < 1e-4
    safe = torch.where(degenerate, torch.ones_like(sine), sine)
    path = (((1 - t) * angle).sin() * a + (t * angle).sin() * b) / safe
    return torch.where(degenerate, linear(a, b, t), path)


def _norm(z: Tensor) -> Tensor:
    return z.flatten(1).norm(dim=1).view(-1, *[1] * (z.dim() - 1))


#: Methods of interpolation. A new one is a function above and a line here.
INTERPOLATIONS: Registry[Callable[[Tensor, Tensor, Tensor], Tensor]] = Registry(
    "interpolation", {"linear": linear, "linear-rescaled": rescaled, "spherical": spherical}
)
