"""What a search found, round by round."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from torch import Tensor

from expost.errors import DataError

#: scored; nothing decoded; decoded, but the objective failed or gave no finite number
Outcome = Literal["valid", "invalid", "skipped"]


@dataclass(frozen=True)
class Round:
    """One batch: chosen, decoded, scored.

    Attributes:
        codes: The points, shape (B, d), float64.
        strings: What they decoded to; None where no decode was valid.
        scores: The surrogate's targets: the objective's value, or the worst training score where there is none.
        outcomes: Which of the two it was, and why.
        message: The first thing that went wrong in the objective, one line, or None.
        seconds: Wall-clock seconds to fit, choose, decode and score.
    """

    codes: Tensor
    strings: list[str | None]
    scores: list[float]
    outcomes: list[Outcome]
    message: str | None
    seconds: dict[str, float]

    @property
    def valid(self) -> float:
        """Share of points with a valid string, scored or not."""
        return sum(outcome != "invalid" for outcome in self.outcomes) / len(self.outcomes)

    @property
    def skipped(self) -> int:
        """Valid strings without a score."""
        return self.outcomes.count("skipped")


@dataclass(frozen=True)
class Found:
    """A string, its score, and the round (from 1) in which it was first found.

    Attributes:
        string: What was decoded.
        score: Its score.
        round: From 1.
        new: Whether it is not a training string; None if this was not looked up.
    """

    string: str
    score: float
    round: int
    new: bool | None = None


@dataclass(frozen=True)
class SearchResult:
    """A search, finished or not.

    Attributes:
        objective: Name and options of the objective, one line.
        region: "box" or "density".
        minimize: Whether lower scores are better.
        worst: Worst training score, which stands for the invalid and the skipped.
        start: Best score among the training strings that the search began with.
        rounds: The rounds, in order.
        known: The found strings that are training strings, whether the search began with them or not; None if this was
            not looked up.
    """

    objective: str
    region: str
    minimize: bool
    worst: float
    start: float
    rounds: list[Round]
    known: frozenset[str] | None = None

    @property
    def strings(self) -> list[str]:
        """The different strings found, scored or not, by their spelling, in the order of discovery."""
        return list(dict.fromkeys(string for batch in self.rounds for string in batch.strings if string is not None))

    @property
    def new(self) -> int | None:
        """How many of `strings` are not training strings; None if this was not looked up."""
        return None if self.known is None else sum(string not in self.known for string in self.strings)

    @property
    def improved(self) -> bool:
        """Whether a string was found that is better than all that the search began with."""
        return any(self.sign * found.score < self.sign * self.start for found in self.best(1))

    @property
    def sign(self) -> float:
        """1 if lower scores are better, -1 if higher are: a score times this is to be minimized."""
        return 1.0 if self.minimize else -1.0

    @property
    def scores(self) -> list[float]:
        """Scores of all points, the worst training score where there is none."""
        return [score for batch in self.rounds for score in batch.scores]

    @property
    def valid(self) -> float:
        """Share of all points with a valid string; NaN before the first round."""
        outcomes = [outcome for batch in self.rounds for outcome in batch.outcomes]
        return sum(outcome != "invalid" for outcome in outcomes) / len(outcomes) if outcomes else math.nan

    @property
    def skipped(self) -> int:
        """Valid strings without a score."""
        return sum(batch.skipped for batch in self.rounds)

    def best(self, count: int = 10) -> list[Found]:
        """Return the best different strings, best first; of equals the one found first."""
        first: dict[str, Found] = {}
        for number, batch in enumerate(self.rounds, 1):
            for string, score, outcome in zip(batch.strings, batch.scores, batch.outcomes, strict=True):
                if string is not None and outcome == "valid":
                    new = None if self.known is None else string not in self.known
                    first.setdefault(string, Found(string, score, number, new))
        return sorted(first.values(), key=lambda found: self.sign * found.score)[:count]

    def best_so_far(self) -> list[float | None]:
        """Return the best score found up to each round, without training scores; None as long as there is none."""
        pick = min if self.minimize else max
        best: float | None = None
        trace = []
        for batch in self.rounds:
            scored = [s for s, outcome in zip(batch.scores, batch.outcomes, strict=True) if outcome == "valid"]
            best = pick([*scored, *([] if best is None else [best])], default=None)
            trace.append(best)
        return trace

    def average(self, original: bool = False) -> float:
        """Return the mean score of the points, invalid and skipped ones at the worst training score.

        Args:
            original: Leave out every point whose score equals the worst score of this search; see `aggregate_original`.

        Raises:
            DataError: before the first round.
        """
        if not self.rounds:
            raise DataError("this search has no finished round to average; continue it first")
        return self.published_average(self.published_cutoff) if original else float(np.mean(self.scores))

    @property
    def published_cutoff(self) -> float:
        """The worst score, negated where larger is better, or 0 if that is worse; see `aggregate_original`."""
        return max(0.0, max(self.sign * score for score in self.scores))

    def published_average(self, cutoff: float) -> float:
        """Return the mean of the scores better than a cutoff, or of all if none is; see `aggregate_original`."""
        scores = self.sign * np.array(self.scores)
        kept = scores[scores < cutoff]
        return self.sign * float(np.mean(kept if len(kept) else scores))

    def summary(self) -> dict[str, Any]:
        """Return the figures of the whole search and of its rounds as JSON values."""
        best = self.best(1)
        return {
            "objective": self.objective,
            "region": self.region,
            "minimize": self.minimize,
            "training": {"best": self.start, "worst": self.worst},
            "points": len(self.scores),
            "valid": self.valid if self.rounds else None,
            "skipped": self.skipped,
            "different": len(self.strings),
            "new": self.new,
            "average": self.average() if self.rounds else None,
            "average_without_worst": self.average(original=True) if self.rounds else None,
            "best": asdict(best[0]) if best else None,
            "rounds": [
                {
                    "valid": batch.valid,
                    "skipped": batch.skipped,
                    "average": float(np.mean(batch.scores)),
                    "best_so_far": so_far,
                    "seconds": batch.seconds,
                    "message": batch.message,
                }
                for batch, so_far in zip(self.rounds, self.best_so_far(), strict=True)
            ],
        }
