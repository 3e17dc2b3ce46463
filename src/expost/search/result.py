"""What a search found, and how repetitions of it are put together."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from torch import Tensor

from expost.errors import DataError, UsageError

#: scored; nothing decoded; decoded, but the objective failed or gave no finite number
Outcome = Literal["valid", "invalid", "skipped"]


@dataclass(frozen=True)
class Round:
    """One batch: chosen, decoded, scored.

    Attributes:
        codes: The points, shape (B, d), float64.
        strings: What they decoded to; None where no decode was valid.
        scores: What the surrogate was told: the objective's value, or the worst training score where there is none.
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
        new: Whether it is no training string; None where nobody looked.
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
        known: Those of the strings found that are training strings, begun with or not; None where nobody looked.
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
        """The different strings found, as spelled, scored or not, in the order in which they were."""
        return list(dict.fromkeys(string for batch in self.rounds for string in batch.strings if string is not None))

    @property
    def new(self) -> int | None:
        """How many of `strings` are no training strings; None where nobody looked."""
        return None if self.known is None else sum(string not in self.known for string in self.strings)

    @property
    def improved(self) -> bool:
        """Whether a string was found that is better than all that the search began with."""
        return any(self.sign * found.score < self.sign * self.start for found in self.best(1))

    @property
    def sign(self) -> float:
        """1 where lower scores are better, -1 where higher are: times this, scores are minimized."""
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
        """Return the best score found up to each round, training scores apart; None as long as there is none."""
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
            raise DataError("this search has no finished round to average; go on with it first")
        return _published_average(self, _published_cutoff(self)) if original else float(np.mean(self.scores))

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


@dataclass(frozen=True)
class Estimate:
    """A mean over repetitions and its standard error; the error is None for a single repetition."""

    mean: float
    error: float | None


@dataclass(frozen=True)
class Aggregate:
    """Repetitions of a search with different seeds, put together.

    Attributes:
        repetitions: How many.
        valid: Share of points with a valid string, 0 to 1.
        score: Average score of a repetition's points.
        best: Best score of a repetition; None if one of them found nothing.
    """

    repetitions: int
    valid: Estimate
    score: Estimate
    best: Estimate | None


def aggregate_corrected(runs: Sequence[SearchResult]) -> Aggregate:
    """Put repetitions together: mean and standard error of the mean over repetitions.

    A repetition's score is the mean over all of its points, an invalid one at the worst training score, so that a
    search cannot gain by decoding to nothing. For R repetitions with values v_r the error is s / sqrt(R) with the
    sample standard deviation s (divisor R - 1).

    Args:
        runs: At least one search, each with at least one round, all of the same objective.

    Raises:
        UsageError: if there is none, or their objectives differ.
        DataError: if one has no finished round.
    """
    _check(runs)

    def error(values: np.ndarray) -> float:
        return float(values.std(ddof=1)) / math.sqrt(len(values))

    return _aggregate(runs, [run.average() for run in runs], error)


def aggregate_original(runs: Sequence[SearchResult], cutoff: Literal["own", "last"] = "own") -> Aggregate:
    """Put repetitions together as the code published with Kusner et al. 2017 does, to compare with published figures.

    It differs from `aggregate_corrected` in two ways:

    - A repetition's score is the mean over the points that score strictly better than a cutoff, the worst score. Where
      points were invalid they share that score, and none of them counts; otherwise the single worst point is left out.
      The average so looks better than it is, the more so the more points were invalid. The molecule script takes each
      repetition's own worst score, the expression script that of the last repetition for all of them; both take 0 where
      the worst is better than that (they minimize, and start the search for the maximum there).
    - The standard error is the population standard deviation (divisor R) by the square root of the number of rounds,
      5, and not of repetitions, 10. With these numbers it is sqrt(2 * 9/10) = 1.34 times the standard error of the
      mean.

    Where no point is better than the cutoff that code divides zero by zero; here the mean over all points stands.

    Args:
        runs: As for `aggregate_corrected`; the number of rounds is the first one's.
        cutoff: "own" as for molecules, "last" as for expressions.

    Raises:
        UsageError: if there is none, their objectives differ, or the cutoff is unknown.
        DataError: if one has no finished round.
    """
    _check(runs)
    if cutoff not in ("own", "last"):
        raise UsageError(f"unknown cutoff '{cutoff}'; choose one of: own, last")
    cutoffs = [_published_cutoff(run if cutoff == "own" else runs[-1]) for run in runs]
    averages = [_published_average(run, limit) for run, limit in zip(runs, cutoffs, strict=True)]
    rounds = len(runs[0].rounds)

    def error(values: np.ndarray) -> float:
        return float(values.std()) / math.sqrt(rounds)

    return _aggregate(runs, averages, error)


def _published_cutoff(run: SearchResult) -> float:
    return max(0.0, max(run.sign * score for score in run.scores))


def _published_average(run: SearchResult, cutoff: float) -> float:
    scores = run.sign * np.array(run.scores)
    kept = scores[scores < cutoff]
    return run.sign * float(np.mean(kept if len(kept) else scores))


def _check(runs: Sequence[SearchResult]) -> None:
    if not runs:
        raise UsageError("no searches to put together; give at least one")
    labels = sorted({f"{run.objective} ({'lower' if run.minimize else 'higher'} is better)" for run in runs})
    if len(labels) > 1:
        raise UsageError(f"these searches have different objectives: {'; '.join(labels)}; give those of one")
    if not all(run.rounds for run in runs):
        raise DataError("one of these searches has no finished round; go on with it first")


def _aggregate(
    runs: Sequence[SearchResult], averages: Sequence[float], error: Callable[[np.ndarray], float]
) -> Aggregate:
    def estimate(values: Sequence[float]) -> Estimate:
        array = np.array(values, dtype=float)
        return Estimate(float(array.mean()), error(array) if len(array) > 1 else None)

    bests = [found.score for run in runs for found in run.best(1)]
    return Aggregate(
        repetitions=len(runs),
        valid=estimate([run.valid for run in runs]),
        score=estimate(averages),
        best=estimate(bests) if len(bests) == len(runs) else None,
    )
