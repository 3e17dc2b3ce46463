"""A run in one sentence, computed from its scores. Nothing is said that a stored figure does not carry.

| clause | figure | thresholds |
|---|---|---|
| reconstructs well, roughly, poorly | share of the test examples' variance kept; of strings, accuracy | 90 %, 60 % |
| ... but blurred | SSIM of reconstructions, where it was scored | below 0.8, it is at best "roughly" |
| A samples better than B | the densities' first ranked score with an interval | the intervals do not overlap |
| copies | `copying`, C_T; of strings, the novelty | below -3; more than 5 % of the strings known |
| farther than held-out examples | `copying`, C_T | above 3 |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from expost.densities import DENSITIES, StandardNormal
from expost.errors import Symptom
from expost.evaluation.catalog import direction_of
from expost.evaluation.protocol import CODES, INTERPOLATION, RECONSTRUCTION
from expost.evaluation.scores import Score
from expost.examples import kind_of_data
from expost.metrics.latent import LATENT_SCORES
from expost.report.blocks import Verdict
from expost.types import to_unit
from expost.utils.seeding import PAIRS, generator

if TYPE_CHECKING:  # scoring says symptoms, and draws nothing
    from expost.report.subject import Subject
    from expost.run import Trouble

#: Shares of variance, or of strings that come back, from which a model reconstructs well, and roughly.
WELL, ROUGHLY = 0.9, 0.6
#: SSIM from which reconstructions are sharp.
SHARP = 0.8
#: Standard deviations of C_T: below minus this many, samples lie too close to training examples.
DEVIATIONS = 3.0
#: The most of the distinct valid strings that may be training strings and still be few.
FEW_KNOWN = 0.05
#: Fewer examples than this are said to be few.
FEW = 100
#: Standard errors on either side of a score that make a 95 % interval.
NORMAL = 1.96
#: Test examples whose reconstruction is measured, and most numbers in them.
MEASURED, NUMBERS = 1_000, 2**25


@dataclass(frozen=True)
class Fidelity:
    """How much of the test examples a reconstruction keeps.

    Attributes:
        kept: Share of their variance, at most 1; 0 for the mean of all, below 0 for worse.
        of: Of what, in words.
    """

    kept: float
    of: str


def fidelity(subject: Subject) -> Fidelity | None:
    """Measure how much of the variance of the test examples is kept.

        1 - sum_i |x_i - D(E(x_i))|^2 / sum_i |x_i - mean|^2,

    for images over all pixels together; for vectors the mean over columns of the share of each, so that the units of
    columns do not matter. Columns that do not vary are left out.

    Returns:
        None for strings, and where nothing varies.
    """
    if kind_of_data(subject.data).symbols:
        return None
    test = subject.data.test.x
    count = max(2, min(MEASURED, NUMBERS // max(1, test[0].numel())))
    chosen = torch.randperm(len(test), generator=generator(subject.seed, PAIRS, 1))[:count]
    x = test[chosen]
    back = subject.generator.reconstruct(x).flatten(1).double()
    true = to_unit(x).flatten(1).double()
    lost, spread = (true - back).square().mean(0), (true - true.mean(0)).square().mean(0)
    if not bool((spread > 0).any()):
        return None
    if kind_of_data(subject.data).pixels:
        kept, of = 1 - float(lost.sum() / spread.sum()), f"the pixels' variance in {len(x):,} test images"
    else:
        varied = spread > 0
        kept = 1 - float((lost[varied] / spread[varied]).mean())
        of = f"a column's variance in {len(x):,} test rows, on average"
    return Fidelity(kept, of)


def interval(score: Score) -> tuple[float, float] | None:
    """Return a score's 95 % interval: the stored one, or 1.96 standard errors on either side; None if neither is."""
    if score.interval is not None:
        return score.interval
    if score.error is not None:
        return score.value - NORMAL * score.error, score.value + NORMAL * score.error
    return None


def apart(a: Score, b: Score) -> bool | None:
    """Return whether two scores' intervals are disjoint; None if one has none."""
    first, second = interval(a), interval(b)
    if first is None or second is None:
        return None
    return first[1] < second[0] or second[1] < first[0]


def decisive(scores: Sequence[Score]) -> str | None:
    """Return the name of the score that stands for samples.

    The first that ranks, cannot be won by a trivial model and compares models; one that has an interval for every
    density goes before those without.
    """
    found: dict[str, list[Score]] = {}
    for score in of_densities(scores):
        direction = direction_of(score.name)
        if direction.sign and not direction.gameable and not direction.within_model:
            found.setdefault(score.name, []).append(score)
    firm = [name for name, mine in found.items() if all(interval(score) is not None for score in mine)]
    return next(iter([*firm, *found]), None)


def of_densities(scores: Sequence[Score]) -> list[Score]:
    """Return the scores of samples of densities."""
    return [score for score in scores if score.of not in (RECONSTRUCTION, INTERPOLATION, CODES)]


def verdict(scores: Sequence[Score], kept: Fidelity | None = None, trouble: Trouble | None = None) -> Verdict | None:
    """Return what the figures say in one sentence, and the figures with their thresholds; None if they say nothing.

    Args:
        scores: Of one run.
        kept: What its reconstructions keep.
        trouble: What is wrong with its training, if anything (`Run.trouble`).
    """
    clauses, grounds = [], []
    if trouble:
        clauses.append(trouble.name)
    for clause, ground in (_reconstruction(scores, kept), _sampling(scores), _copies(scores), _few(scores)):
        clauses += [clause] if clause else []
        grounds += [ground] if ground else []
    if not clauses:
        return None
    text = "; ".join(clauses)
    found = ([trouble.symptom] if trouble else []) + [each for _, each in symptoms(scores, kept)]
    return Verdict(f"{text[0].upper()}{text[1:]}.", " ".join(grounds), tuple(dict.fromkeys(found)))


def symptoms(scores: Sequence[Score], kept: Fidelity | None = None) -> list[tuple[str, Symptom]]:
    """Return what the figures show that has a remedy, in words, by the thresholds of the sentence.

    Args:
        scores: Of one run.
        kept: What its reconstructions keep, where it was measured.
    """
    found = []
    clause, _ = _reconstruction(scores, kept)
    if clause and clause != "reconstructs well":
        found.append((clause, Symptom.POOR))
    name = decisive(scores)
    mine = {score.of: score for score in of_densities(scores) if score.name == name}
    normal = mine.get(StandardNormal.name)
    if normal is not None and name is not None:
        sign = direction_of(name).sign
        ahead = [of for of, score in mine.items() if sign * (score.value - normal.value) > 0 and apart(score, normal)]
        if ahead:
            found.append(
                (f"codes of N(0, I) give worse samples than {listed(list(map(spoken, ahead)))}", Symptom.NOISE)
            )
    far = [score for score in of_densities(scores) if score.name == "copying" and score.value > DEVIATIONS]
    close = [score for score in of_densities(scores) if score.name == "copying" and score.value < -DEVIATIONS]
    if close:
        words = listed([spoken(score.of) for score in close])
        found.append((f"samples of {words} lie so close to training examples that they may be copies", Symptom.COPIES))
    if far and not (normal is not None and {score.of for score in far} == {normal.of}):
        words = listed([spoken(score.of) for score in far])
        found.append((f"samples of {words} lie farther from the data than test examples do", Symptom.BAD_SAMPLES))
    return found


def _reconstruction(scores: Sequence[Score], kept: Fidelity | None) -> tuple[str, str]:
    by_name = {score.name: score for score in scores if score.of == RECONSTRUCTION}
    if kept is not None:
        share, figure = kept.kept, f"keeps {_percent(kept.kept)} of {kept.of}"
        if kept.kept <= 0:
            figure = f"keeps less than the mean example would of {kept.of}"
    elif "accuracy" in by_name:
        accuracy = by_name["accuracy"]
        share = accuracy.value
        figure = f"returns {_percent(share)} of {accuracy.card.count:,} test strings letter by letter"
    else:
        return "", ""
    word = "well" if share >= WELL else "roughly" if share >= ROUGHLY else "poorly"
    sharp = by_name.get("ssim")
    blurred = sharp is not None and sharp.value < SHARP
    ground = f"Reconstruction {figure}: from {WELL:.0%} it is well, from {ROUGHLY:.0%} roughly"
    if sharp is not None:
        ground += f", with an SSIM of {sharp.value:.2f}; below {SHARP} it is blurred"
    if word == "well" and blurred:
        word = "roughly"
    return f"reconstructs {word}{', blurred' if blurred and word != 'poorly' else ''}", f"{ground}."


def _sampling(scores: Sequence[Score]) -> tuple[str, str]:
    name = decisive(scores)
    mine = {score.of: score for score in of_densities(scores) if score.name == name}
    if name is None or len(mine) < 2:
        return "", ""
    sign = direction_of(name).sign
    order = sorted(mine.values(), key=lambda score: -sign * score.value)
    best, others = order[0], order[1:]
    figures = ", ".join(f"{score.of} {described(score)}" for score in order)
    ground = f"Samples by {name} ({'more' if sign > 0 else 'less'} is better): {figures}"
    told = [apart(best, other) for other in others]
    if None in told:
        clause = f"{spoken(best.of)} has the best {name}, without an interval to tell it from chance"
        return clause, f"{ground}; without intervals no difference is called one."
    beaten = [spoken(other.of) for other, one in zip(others, told, strict=True) if one]
    alike = [spoken(other.of) for other, one in zip(others, told, strict=True) if not one]
    if not alike:
        clause = f"{spoken(best.of)} samples better than {listed(beaten)}"
    else:
        clause = f"{listed([spoken(best.of), *alike])} sample alike"
        clause += f", better than {listed(beaten)}" if beaten else ""
    return clause, f"{ground}; one is better where 95 % intervals do not overlap."


def _copies(scores: Sequence[Score]) -> tuple[str, str]:
    sampled = of_densities(scores)
    found = {score.of: score.value for score in sampled if score.name == "copying"}
    if found:
        figures = ", ".join(f"{of} {_number(value)}" for of, value in found.items())
        ground = (
            f"Copying test C_T, in standard deviations: {figures}; below −{DEVIATIONS:g} samples lie closer to the "
            f"training examples than test examples do, above {DEVIATIONS:g} farther."
        )
        close = [spoken(of) for of, value in found.items() if value < -DEVIATIONS]
        far = [spoken(of) for of, value in found.items() if value > DEVIATIONS]
        if close:
            return f"samples of {listed(close)} lie so close to training examples that they may be copies", ground
        words = "no sign of copies"
        if far:
            words += f", but samples of {listed(far)} lie farther from the data than test examples do"
        return words, ground
    valid = {score.of: score.value for score in sampled if score.name == "validity-greedy"}
    known = {score.of: 1 - score.value for score in sampled if score.name == "novelty" and valid.get(score.of, 1.0) > 0}
    if not (known or valid):
        return "", ""
    clauses, grounds = [], []
    if valid:
        clauses.append(listed([f"{_percent(share)} of the samples of {spoken(of)}" for of, share in valid.items()]))
        clauses[0] += " are valid"
    if known:
        figures = ", ".join(f"{of} {_percent(share)}" for of, share in known.items())
        grounds.append(f"Distinct valid samples that are training strings: {figures}; up to {FEW_KNOWN:.0%} are few.")
        many = [
            f"{_percent(share)} of those of {spoken(of)}" for of, share in known.items() if 1 - share < 1 - FEW_KNOWN
        ]
        clauses.append(f"{listed(many)} are training strings" if many else "few or none are training strings")
    return ", and ".join(clauses) if len(known) and len(valid) else clauses[0], " ".join(grounds)


def _few(scores: Sequence[Score]) -> tuple[str, str]:
    counts = [
        min(score.card.count, score.card.reference_count)
        for score in scores
        if score.of != CODES and score.name not in LATENT_SCORES
    ]
    if not counts or min(counts) >= FEW:
        return "", ""
    return f"scored on {min(counts)} examples only, so small differences are chance", ""


def spoken(density: str) -> str:
    """Return what a density is called in a sentence; its own name if it is none of the registered ones.

    Example:
        >>> spoken("gaussian"), spoken("mine")
        ('one Gaussian', 'mine')
    """
    return DENSITIES[density].words if density in DENSITIES else density


def listed(items: Sequence[str]) -> str:
    """Join words with commas and an "and".

    Example:
        >>> listed(["a"]), listed(["a", "b", "c"])
        ('a', 'a, b and c')
    """
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def described(score: Score) -> str:
    """Return a score's value and its 95 % interval, if it has one.

    Example:
        >>> from expost.evaluation.scores import Card
        >>> card = Card("", "", "", "", "", 9, 9, {}, {}, 0, "")
        >>> described(Score("fid", "gmm", 3.0, card, error=0.5)), described(Score("fid", "gmm", 3.0, card))
        ('3 [2.02, 3.98]', '3')
    """
    found = interval(score)
    return _number(score.value) if found is None else f"{_number(score.value)} {bracket(found)}"


def bracket(ends: tuple[float, float]) -> str:
    """Return an interval in brackets."""
    return f"[{_number(ends[0], 3)}, {_number(ends[1], 3)}]"


def _number(value: float, digits: int = 4) -> str:
    return f"{value:.{digits}g}".replace("-", "−")


def _percent(share: float) -> str:
    """Return a share without rounding it up to all, or down to none."""
    if 0.995 <= share < 1:
        return f"{int(1000 * share) / 10:g}\N{NO-BREAK SPACE}%"
    digits = ".0f" if share >= 0.005 or share <= 0 else ".1g"
    return f"{100 * share:{digits}}\N{NO-BREAK SPACE}%"
