"""Choosing a density for codes, and its options: candidates are fitted side by side and compared on held-out codes.

Of candidates fitted on the same codes the one is kept under which held-out codes are likeliest, by the rule of
`expost.densities.choice`: of those that are as likely to within two standard errors of the paired difference, the
simplest. The held-out codes are those of validation examples; where fewer than `FEW` codes are fitted, each fifth of
them in turn is held out instead. Test examples have no part in it.

A candidate that memorises is passed over. With L(z) the distance of a code to the nearest fitted one,

    m = P(L(sample) < L(held out)) + P(L(sample) = L(held out)) / 2,

over pairs of a sample and a held-out code, is 1/2 for samples that are like held-out codes, and 1 for copies. One
Gaussian holds no single code, so what it reaches is no memory: a candidate memorises if m > max(`MEMORISED`, m of one
Gaussian + `SPARE`).
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from expost.densities import (
    DENSITIES,
    Categorical,
    Density,
    Gaussian,
    TractableDensity,
    make_density,
    make_labelled,
)
from expost.densities.choice import KEPT, best, lead, log_likelihoods, spaced
from expost.errors import DataError, UsageError
from expost.generators.selection_table import options_in_words
from expost.metrics.memorization import closer
from expost.metrics.pool import Pool
from expost.registry import Part, construct
from expost.utils.progress import progress
from expost.utils.seeding import SAMPLES, stream_seed

#: The word that asks for a choice: in the place of a density, or of an option's value.
AUTO = "auto"
#: Of fewer codes each fifth in turn is held out.
FEW, FOLDS = 1_000, 5
#: Most codes that candidates are fitted on; the chosen one is then fitted on all.
MOST_FITTED = 10_000
#: See m above.
MEMORISED, SPARE = 0.75, 0.05
#: Standard errors behind the best after the first fifth, at which a candidate is not fitted on the others.
HOPELESS = 4.0

Labels = tuple[ArrayLike | Tensor, int | None]


@dataclass(frozen=True, eq=False)
class Trial:
    """A candidate, and how it did.

    Attributes:
        density: Its name.
        options: Its options, those that are not at their default.
        log_likelihood: Mean over held-out codes, nats a code; None where it could not be fitted.
        standard_error: Of that.
        memorisation: m, see this module's first lines.
        frechet: Frechet distance between its decoded samples and validation examples; None where it was not computed.
        seconds: To fit, evaluate and sample it.
        reason: Why it was passed over; empty if it was not.
        values: Log-likelihoods of the held-out codes.
        fitted: The density as it was fitted first.
    """

    density: str
    options: Mapping[str, Any]
    log_likelihood: float | None = None
    standard_error: float | None = None
    memorisation: float | None = None
    frechet: float | None = None
    seconds: float = 0.0
    reason: str = ""
    values: Tensor | None = None
    fitted: Density | None = None

    def record(self) -> dict[str, Any]:
        """Return what is written of it."""
        return {
            "density": self.density,
            "options": dict(self.options),
            "log_likelihood": _finite(self.log_likelihood),
            "standard_error": _finite(self.standard_error),
            "memorisation": self.memorisation,
            "frechet": _finite(self.frechet),
            "seconds": round(self.seconds, 2),
            "reason": self.reason,
        }


@dataclass(frozen=True, eq=False)
class Selection:
    """What was chosen, and of what.

    Attributes:
        density: The chosen density, fitted on all codes.
        name: Its name in the registry.
        options: Its options, those that are not at their default.
        trials: The candidates, in the order in which they were tried.
        chosen: Place of the chosen one among them.
        why: A clause.
        fitted: Number of codes that candidates were fitted on.
        held_out: Number of held-out codes that they were compared on.
        folds: Parts that were held out in turn; 1 for codes of their own.
    """

    density: Density
    name: str
    options: Mapping[str, Any]
    trials: tuple[Trial, ...]
    chosen: int
    why: str
    fitted: int
    held_out: int
    folds: int

    def record(self) -> dict[str, Any]:
        """Return what is written of it."""
        return {
            "chosen": self.chosen,
            "why": self.why,
            "fitted": self.fitted,
            "held_out": self.held_out,
            "folds": self.folds,
            "trials": [trial.record() for trial in self.trials],
        }


def asked(density: str, options: Mapping[str, Any]) -> bool:
    """Return whether a density or one of its options is to be chosen."""
    return density == AUTO or any(value == AUTO for value in options.values() if isinstance(value, str))


def select(
    density: str,
    options: Mapping[str, Any],
    z: Tensor,
    held_out: Tensor | None = None,
    labels: Labels | None = None,
    distance: Callable[[Density], float | None] | None = None,
    symbols: int | None = None,
) -> Selection:
    """Choose a density for codes, or options of one, and fit it: see this module's first lines.

    Args:
        density: Entry of `DENSITIES`; or `auto`, which tries those that can be evaluated.
        options: Options of the density, of which `auto` ones are chosen; with density `auto` those of candidates, as
            `gmm.covariance`.
        z: Codes, shape (N, d).
        held_out: Codes of other examples, at least 2; None holds out a tenth of `z`, drawn at random.
        labels: Classes, or values of a property, shape (N,), and its number of bins: every candidate is fitted by
            label, one kind for all classes.
        distance: Computes the Frechet distance of a fitted density, for the table; the best candidate of each kind.
        symbols: Number of symbols, where codes are symbols: then candidates are densities of symbols.

    Raises:
        UsageError: for an unknown name or option, or an option that has no values to choose from.
        DataError: if no candidate can be fitted.
    """
    parts = candidates(density, options, z, labels is not None, symbols)
    task = _Task.of(z, held_out, labels)
    plain = Part(Gaussian.name) if symbols is None else Part(Categorical.name, {"symbols": symbols})
    reference = task.memorised(plain)
    trials: list[Trial] = []
    with progress("comparing densities", len(parts)) as bar:
        for part in parts:
            trials.append(task.tried(part, trials))
            bar.advance()
    allowed = MEMORISED if reference is None else max(MEMORISED, reference + SPARE)
    trials = [_judged(trial, allowed) for trial in trials]
    chosen, why = _chosen(trials)
    if distance is not None:
        shown = {_best_of(trials, name) for name in {trial.density for trial in trials}} | {chosen}
        trials = [
            replace(trial, frechet=distance(trial.fitted)) if i in shown and trial.fitted is not None else trial
            for i, trial in enumerate(trials)
        ]
    taken = trials[chosen]
    fitted = taken.fitted if task.whole else task.fit(Part(taken.density, dict(taken.options)), torch.arange(len(z)))
    assert fitted is not None
    trials = [replace(trial, fitted=None) for trial in trials]
    counts = len(task.parts[0].rows), sum(len(part.held_out) for part in task.parts), len(task.parts)
    return Selection(fitted, taken.density, taken.options, tuple(trials), chosen, why, *counts)


def candidates(
    density: str, options: Mapping[str, Any], z: Tensor, by_label: bool = False, symbols: int | None = None
) -> list[Part]:
    """Return what is tried: every combination of the values of the options that are `auto`.

    Args:
        density: As `select` takes it.
        options: As `select` takes them.
        z: The codes, of which some grids depend.
        by_label: Whether they are fitted by label: then a kind's default, which suits the size of each class, is too.
        symbols: As `select` takes it.

    Example:
        >>> [part.options for part in candidates("gmm", {"components": "auto", "covariance": "diag"}, torch.eye(3))][:2]
        [{'components': 1, 'covariance': 'diag'}, {'components': 2, 'covariance': 'diag'}]
    """
    found = []
    for name, given in _given(density, options, symbols is not None).items():
        open_, fixed = _open(name, given)
        if symbols is not None:
            fixed = {"symbols": symbols} | fixed
        if by_label and open_:
            found.append(Part(name, fixed))
        grids = [DENSITIES[name].grids[option](z.flatten(1), fixed) for option in open_]
        found += [Part(name, dict(zip(open_, values, strict=True)) | fixed) for values in itertools.product(*grids)]
    return found


def check_candidates(density: str, options: Mapping[str, Any], of_symbols: bool = False) -> None:
    """Refuse what `select` would, before there are codes.

    Raises:
        UsageError: for an unknown name or option, or an option that has no values to choose from.
    """
    for name, given in _given(density, options, of_symbols).items():
        _open(name, given)


def _given(density: str, options: Mapping[str, Any], of_symbols: bool) -> dict[str, dict[str, Any]]:
    """Return the options of each density that is tried."""
    if density != AUTO:
        return {density: dict(options)}
    own: dict[str, dict[str, Any]] = {
        name: dict(kind.tried)
        for name, kind in DENSITIES.items()
        if issubclass(kind, TractableDensity) and kind.tried is not None and kind.of_symbols == of_symbols
    }
    for key, value in options.items():
        name, dot, option = key.partition(".")
        if not dot or name not in own:
            raise UsageError(
                f"option '{key}' is of no candidate; with density {AUTO} write DENSITY.OPTION=VALUE, the density one "
                f"of: {', '.join(own)}"
            )
        own[name][option] = value
    return own


def _open(name: str, options: Mapping[str, Any]) -> tuple[list[str], dict[str, Any]]:
    """Return the options that are to be chosen, and the others."""
    kind = DENSITIES[name]
    open_ = [option for option, value in options.items() if isinstance(value, str) and value == AUTO]
    for option in open_:
        if option not in kind.grids:
            known = ", ".join(kind.grids) or "none"
            raise UsageError(f"{option}={AUTO}: density '{name}' can choose no {option} (what it can: {known})")
    fixed = {option: value for option, value in options.items() if option not in open_}
    construct(DENSITIES, Part(name, fixed))
    return open_, fixed


def folds(count: int, labels: ArrayLike | Tensor | None = None) -> list[tuple[Tensor, Tensor]]:
    """Return rows to fit on and rows to hold out, for each of `FOLDS` parts of so many codes, drawn at random.

    Args:
        count: How many codes.
        labels: Their classes, shape (count,): each part then has its share of every class.
    """
    order, parts = _shuffled(count), min(FOLDS, count)
    if labels is not None:
        order = order[torch.from_numpy(np.argsort(np.asarray(labels)[order.numpy()], kind="stable"))]
    turn = torch.empty_like(order)
    turn[order] = torch.arange(count) % parts
    return [((turn != k).nonzero()[:, 0], (turn == k).nonzero()[:, 0]) for k in range(parts)]


def _shuffled(count: int) -> Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(stream_seed(0, SAMPLES)))


@dataclass(frozen=True, eq=False)
class _Fold:
    """Codes to fit on, by their rows, and codes that are held out, with their distances to the nearest fitted ones."""

    rows: Tensor
    held_out: Tensor
    pool: Pool
    apart: Tensor

    @classmethod
    def of(cls, z: Tensor, rows: Tensor, held_out: Tensor) -> _Fold:
        pool = Pool(z[rows].cpu().flatten(1), "codes")
        return cls(rows, held_out, pool, pool.nearest(held_out.cpu().flatten(1)).distances[:, 0])


@dataclass(frozen=True, eq=False)
class _Task:
    """What candidates are fitted on, and compared on.

    Attributes:
        z: All codes.
        labels: See `select`.
        parts: The parts of the comparison.
        whole: Whether candidates are fitted on all codes.
    """

    z: Tensor
    labels: Labels | None
    parts: tuple[_Fold, ...]
    whole: bool

    @classmethod
    def of(cls, z: Tensor, held_out: Tensor | None, labels: Labels | None) -> _Task:
        if len(z) < FEW:
            turns = folds(len(z), None if labels is None else labels[0])
            return cls(z, labels, tuple(_Fold.of(z, rows, z[others]) for rows, others in turns), False)
        order = _shuffled(len(z))
        if held_out is not None and len(held_out) > 1:
            others = spaced(len(held_out), KEPT)
            kept = held_out if others is None else held_out[others]
            rows = order
        else:
            count = min(KEPT, len(z) // 10)
            kept, rows = z[order[:count]], order[count:]
        whole = len(z) == len(rows) <= MOST_FITTED
        rows = torch.arange(len(z)) if whole else rows[:MOST_FITTED].sort().values
        return cls(z, labels, (_Fold.of(z, rows, kept),), whole)

    def fit(self, part: Part, rows: Tensor) -> Density:
        """Fit a candidate on some of the codes."""
        z = self.z[rows.to(self.z.device)]
        if self.labels is None:
            return make_density(part.name, **part.options).fit(z)
        labels, bins = self.labels
        return make_labelled(part.name, **part.options).fit(z, np.asarray(labels)[rows.numpy()], bins)

    def memorised(self, part: Part) -> float | None:
        """Return m of a candidate; None if it cannot be fitted."""
        return self.tried(part, ()).memorisation

    def tried(self, part: Part, before: Sequence[Trial]) -> Trial:
        """Fit a candidate on every part, evaluate and sample it; give up after one if others are far ahead."""
        begun, values, near = time.perf_counter(), [], []
        trial = Trial(part.name, part.options)
        for number, fold in enumerate(self.parts):
            try:
                fitted = self.fit(part, fold.rows)
            except (DataError, UsageError) as error:
                return replace(trial, reason=str(error), seconds=time.perf_counter() - begun)
            found = log_likelihoods(fitted, fold.held_out)
            if found is None:
                return replace(trial, reason="it cannot be evaluated", seconds=time.perf_counter() - begun)
            source = torch.Generator().manual_seed(stream_seed(0, SAMPLES))
            samples = fitted.sample(len(fold.held_out), generator=source).cpu().flatten(1)
            values.append(found)
            near.append(fold.pool.nearest(samples).distances[:, 0])
            trial = trial if number else replace(trial, fitted=fitted)
            if number == 0 and len(self.parts) > 1 and _hopeless(found, before):
                break
        joined = torch.cat(values)
        apart = torch.cat([fold.apart for fold in self.parts[: len(values)]])
        deviation = float(joined.std()) if len(joined) > 1 else math.inf
        return replace(
            trial,
            log_likelihood=float(joined.mean()),
            standard_error=deviation / math.sqrt(len(joined)),
            memorisation=closer(torch.cat(near).numpy(), apart.numpy()),
            seconds=time.perf_counter() - begun,
            reason="" if len(values) == len(self.parts) else "far behind on the first fifth",
            values=joined,
        )


def _hopeless(values: Tensor, before: Sequence[Trial]) -> bool:
    """Return whether a candidate is far behind another one on the first part."""
    leads = [lead(trial.values[: len(values)], values) for trial in before if trial.values is not None]
    return any(each is not None and each.mean > HOPELESS * each.error for each in leads)


def _judged(trial: Trial, allowed: float) -> Trial:
    """Note with a candidate why it is passed over, if it memorises or a held-out code is impossible under it."""
    if trial.reason or trial.memorisation is None or trial.log_likelihood is None:
        return trial
    if not math.isfinite(trial.log_likelihood):
        return replace(trial, reason="a held-out code is impossible under it")
    if trial.memorisation > allowed:
        return replace(trial, reason=f"it memorises: {trial.memorisation:.2f} > {allowed:.2f}")
    return trial


def _chosen(trials: Sequence[Trial]) -> tuple[int, str]:
    """Return the place of the candidate to keep, and why.

    Raises:
        DataError: if none was fitted.
    """
    values = {str(i): each.values for i, each in enumerate(trials) if not each.reason and each.values is not None}
    if not values:
        reasons = "; ".join(dict.fromkeys(f"{each.density}: {each.reason}" for each in trials))
        raise DataError(f"no density can be chosen for these codes ({reasons}); name one with --density")
    sizes = {name: each.size for name in values if (each := trials[int(name)].fitted) is not None}
    taken, first = int(best(values, sizes)), int(max(values, key=lambda name: float(values[name].mean())))
    if taken == first:
        return taken, "held-out codes are likeliest under it"
    return taken, f"held-out codes are as likely under it as under {_words(trials[first])}, and it is simpler"


def _best_of(trials: Sequence[Trial], name: str) -> int:
    """Return the place of the candidate of a kind that is shown: the likeliest of those not passed over, if any is."""
    mine = [i for i, trial in enumerate(trials) if trial.density == name]
    return max(mine, key=lambda i: (not trials[i].reason, _order(trials[i])))


def _order(trial: Trial) -> float:
    return -math.inf if trial.log_likelihood is None else trial.log_likelihood


def _words(trial: Trial) -> str:
    return f"{trial.density} ({options_in_words(trial.options)})" if trial.options else trial.density


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
