"""The search itself: fit, choose, decode, score, add to the data, again (Kusner et al. 2017, section 4.3).

A round, its random numbers included, is a function of the configuration, the data and the finished rounds alone: an
interrupted search continues as if nothing had happened.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from expost.densities import Density, TractableDensity
from expost.densities.checks import check_codes
from expost.errors import DataError, UsageError
from expost.search.acquisition import BatchImprovement, Box, DensityRegion, Region
from expost.search.config import SearchConfig
from expost.search.objective import Objective
from expost.search.records import Session
from expost.search.result import Outcome, Round, SearchResult
from expost.search.surrogate import fit_surrogate
from expost.utils.progress import Bar, progress, say
from expost.utils.seeding import generator

#: Streams of the seed, beside those of `expost.utils.seeding`.
FIT, REGION, CHOICE, DECODING = range(100, 104)

#: Decodes codes: gets codes (M, d), float32 on the CPU, the number k of decodes of each, and a generator; returns one
#: string per code, the most frequent valid one of its k decodes, or None if none is valid.
Decode = Callable[[Tensor, int, torch.Generator], list[str | None]]


def optimize(
    codes: Tensor,
    scores: Tensor,
    decode: Decode,
    objective: Objective,
    config: SearchConfig,
    density: Density | None,
    folder: Path,
    known: Callable[[Sequence[str]], Collection[str]] | None = None,
) -> SearchResult:
    """Search the latent space for strings of good score.

    Each round fits the surrogate to all codes and scores, chooses a batch (`acquisition`), decodes it, scores the
    strings, and adds codes and scores to the data. A point that has no valid string, or whose string the objective
    cannot score, gets the worst training score. After each round `folder` holds all of it (`search.json`,
    `search.safetensors`); called again with the same arguments, a search continues after its last finished round, to
    the same result bit for bit (on the same machine with the same number of threads). Surrogate and acquisition run on
    the CPU; the decoder and the density may live elsewhere.

    Args:
        codes: Codes of training examples, shape (N, d), finite, N at least 2. (The paper: 90 % of the training set.)
        scores: Their objective's values, shape (N,), finite, not all equal.
        decode: Turns codes into strings; see `Decode`. All its randomness must come from the generator.
        objective: From `make_objective`.
        config: How to search.
        density: The density fitted on the codes; needed for region "density", else unused.
        folder: Where the search is kept.
        known: Returns those of the given strings that are training strings, so that the result can say what is new.

    Returns:
        All rounds.

    Raises:
        UsageError: if an argument is wrong, `folder` holds a search with other settings, which the message names, or
            another process searches in it.
        DataError: if codes or scores are unusable, or the folder's files are damaged.
        OSError: if the folder cannot be written.
    """
    codes, scores = _check(codes, scores)
    tractable = _check_density(density, config, codes)
    minimize = objective.minimize if config.minimize is None else config.minimize
    best, worst = (float(scores.min()), float(scores.max()))[:: 1 if minimize else -1]
    session = Session(folder, config, objective.label, minimize, codes, scores, tractable)
    with session.held():
        result = SearchResult(objective.label, config.region, minimize, worst, best, *session.read())
        while len(result.rounds) < config.rounds:
            number = len(result.rounds)
            with progress(f"round {number + 1} of {config.rounds}", config.steps + config.batch) as bar:
                result.rounds.append(_round(number, codes, scores, decode, objective, config, tractable, result, bar))
            result = replace(result, known=None)  # the look-up covered earlier rounds only
            session.write(result)
            _tell(result, config.rounds)
        if known is not None and result.known is None:
            result = replace(result, known=frozenset(known(result.strings)))
            session.write(result)
        return result


def _round(
    number: int,
    codes: Tensor,
    scores: Tensor,
    decode: Decode,
    objective: Objective,
    config: SearchConfig,
    density: TractableDensity | None,
    result: SearchResult,
    bar: Bar,
) -> Round:
    """Do one round. Everything random in it follows from the seed and its number."""
    seconds = {}
    clock = time.perf_counter()

    def lap(name: str) -> None:
        nonlocal clock
        now = time.perf_counter()
        seconds[name], clock = round(now - clock, 3), now

    seen = torch.cat([codes.double(), *(batch.codes for batch in result.rounds)])
    values = torch.cat([scores.double(), torch.tensor(result.scores, dtype=torch.float64)])
    targets = -values if result.minimize else values
    source = generator(config.seed, FIT, number)
    surrogate = fit_surrogate(
        seen, targets, config.inducing, config.steps, config.minibatch, config.lr, source, bar.advance
    )
    lap("fit")

    effort = (config.candidates, config.restarts, config.refinements)
    region: Region = Box(codes, *effort)
    if density is not None:
        region = DensityRegion(density, codes, seen, targets, config.quantile, *effort, generator(config.seed, REGION))
    source = generator(config.seed, CHOICE, number)
    observed = (config.incumbent or ("observed" if config.region == "box" else "mean")) == "observed"
    best = (targets if observed else surrogate.predict(seen)[0]).max()
    acquisition = BatchImprovement(surrogate, float(best), config.fantasies, source)
    chosen = []
    for _ in range(config.batch):
        point = region.maximize(acquisition, source)
        acquisition.add(point)
        chosen.append(surrogate.to_codes(point))
        bar.advance()
    # the surrogate learns from exactly what the decoder gets: float32
    points = torch.stack(chosen).float()
    lap("choose")

    strings = list(decode(points, config.decodes, generator(config.seed, DECODING, number)))
    if len(strings) != len(points):
        raise DataError(
            f"decode gave {len(strings)} strings for {len(points)} codes; it must give one, or None, for each"
        )
    strings = [string or None for string in strings]
    lap("decode")

    valid = [index for index, string in enumerate(strings) if string is not None]
    scored = objective.score([string for string in strings if string is not None])
    outcomes: list[Outcome] = ["invalid"] * len(strings)
    told = [result.worst] * len(strings)
    for index, value in zip(valid, scored.values, strict=True):
        outcomes[index] = "skipped" if value is None else "valid"
        told[index] = result.worst if value is None else value
    lap("score")
    return Round(points.double(), strings, told, outcomes, scored.message, seconds)


def _tell(result: SearchResult, rounds: int) -> None:
    """Print a line on the last round, and warnings, to stderr."""
    last, number = result.rounds[-1], len(result.rounds)
    best = result.best_so_far()[-1]
    say(
        f"round {number} of {rounds}: {last.valid:.0%} valid, "
        f"best {'none' if best is None else f'{best:.4g}'} (training {result.start:.4g})"
    )
    if last.skipped:
        share = "all" if last.skipped == len(last.outcomes) - last.outcomes.count("invalid") else str(last.skipped)
        say(f"warning: the objective gave no score for {share} of the valid strings; the first: {last.message}")
    elif "valid" not in last.outcomes:
        say(f"warning: none of the {len(last.outcomes)} points decoded to a valid string")


def _check(codes: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """Return codes and scores as tensors, or refuse them."""
    codes, scores = torch.as_tensor(codes).detach().cpu(), torch.as_tensor(scores).detach().cpu()
    check_codes(codes)
    if scores.shape != codes.shape[:1]:
        raise UsageError(f"{len(codes)} codes but scores of shape {tuple(scores.shape)}; give one score for each code")
    bad = int((~scores.double().isfinite()).sum())
    if bad:
        raise DataError(f"{bad} of {len(scores)} training scores are NaN or infinite; leave those examples out")
    if scores.max() == scores.min():
        raise DataError(f"all {len(scores)} training scores are {float(scores[0]):g}; there is nothing to search by")
    return codes if codes.dtype == torch.float64 else codes.float(), scores.double()


def _check_density(density: Density | None, config: SearchConfig, codes: Tensor) -> TractableDensity | None:
    if config.region == "box":
        return None
    if density is None:
        raise UsageError("region 'density' needs a density fitted on the codes; fit one, or choose region 'box'")
    if not isinstance(density, TractableDensity):
        raise UsageError(
            f"density '{density.name}' cannot be evaluated and bounds no region; fit gmm or gaussian, or choose 'box'"
        )
    if not density.fitted or density.dim != codes.shape[1]:
        what = f"of {density.dim} dimensions" if density.fitted else "not fitted"
        raise UsageError(f"density '{density.name}' is {what}, the codes have {codes.shape[1]}; fit it on these codes")
    return density
