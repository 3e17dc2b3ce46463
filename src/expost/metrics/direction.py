"""The direction of a score; each measure states those of the scores that it gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Direction:
    """Which values of a score are better, and whether models can be ranked by it.

    Attributes:
        sign: 1 if higher is better, -1 if lower is, 0 if the score only describes.
        gameable: Whether a trivial model wins by it, one that repeats a string or makes hardly any: no default ranking
            uses it.
        within_model: Whether it compares only densities of one model, because it depends on the scale of the codes.
    """

    sign: Literal[-1, 0, 1]
    gameable: bool = False
    within_model: bool = False

    @property
    def better(self) -> str:
        """Which values are better: "higher", "lower" or "neither"."""
        return {1: "higher", -1: "lower", 0: "neither"}[self.sign]


HIGHER, LOWER, NEITHER = Direction(1), Direction(-1), Direction(0)
