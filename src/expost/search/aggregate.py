"""Means and standard errors over repetitions of a search."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from expost.errors import DataError, UsageError
from expost.search.result import SearchResult


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
      So the average looks better than it is, the more so the more points were invalid. The molecule script takes each
      repetition's own worst score, the expression script that of the last repetition for all of them; both take 0 where
      the worst is better than that (they minimize, and start the search for the maximum there).
    - The standard error is the population standard deviation (divisor R) by the square root of the number of rounds,
      5, and not of repetitions, 10. With these numbers it is sqrt(2 * 9/10) = 1.34 times the standard error of the
      mean.

    If no point is better than the cutoff, that code divides zero by zero; here it is the mean over all points.

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
    cutoffs = [(run if cutoff == "own" else runs[-1]).published_cutoff for run in runs]
    averages = [run.published_average(limit) for run, limit in zip(runs, cutoffs, strict=True)]
    rounds = len(runs[0].rounds)

    def error(values: np.ndarray) -> float:
        return float(values.std()) / math.sqrt(rounds)

    return _aggregate(runs, averages, error)


def _check(runs: Sequence[SearchResult]) -> None:
    if not runs:
        raise UsageError("no searches to put together; give at least one")
    labels = sorted({f"{run.objective} ({'lower' if run.minimize else 'higher'} is better)" for run in runs})
    if len(labels) > 1:
        raise UsageError(f"these searches have different objectives: {'; '.join(labels)}; give those of one")
    if not all(run.rounds for run in runs):
        raise DataError("one of these searches has no finished round; continue it first")


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
