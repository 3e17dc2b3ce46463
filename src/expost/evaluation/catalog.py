"""Every score that an evaluation can give: its direction, and which measure gives it for which data."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from expost.errors import UsageError
from expost.examples.domains import DOMAINS
from expost.metrics import FEATURES
from expost.metrics.direction import HIGHER, LOWER, NEITHER, Direction
from expost.metrics.image import PIXEL_SCORES
from expost.metrics.latent import LATENT_SCORES
from expost.metrics.measures import MEASURES
from expost.metrics.memorization import MEMORIZATION_SCORES
from expost.metrics.strings import STRING_SCORES

#: Measures that need more than the features of two sets: the training examples, or the codes.
MEMORIZATION, LATENT = "memorization", "latent"
ALL_MEASURES = (*MEASURES, MEMORIZATION, LATENT)
#: Optional measures of strings; accuracy, validity, uniqueness and novelty are always computed.
PROPERTIES, DISTANCE, REGRESSION = "properties", "distance", "regression"
STRING_MEASURES = (PROPERTIES, DISTANCE, REGRESSION, LATENT)
#: The direction of each score of the regression.
REGRESSION_SCORES = {"regression-rmse": LOWER, "regression-log-likelihood": HIGHER}

#: How often samples by label are heard as the digit of their label, and reconstructions as the one that was spoken.
INTENDED, KEPT = "intended-digit", "kept-digit"


@dataclass(frozen=True)
class Family:
    """Scores that one measure gives.

    Attributes:
        measure: Its name; empty for scores that are always computed.
        of: What they are scores of, in words.
        scores: Their directions, by name.
    """

    measure: str
    of: str
    scores: Mapping[str, Direction]


_TENSORS = "images and of vectors"
FAMILIES: tuple[Family, ...] = (
    *(Family(name, _TENSORS, measure.directions) for name, measure in MEASURES.items()),
    Family("", "reconstructed images (mse: of vectors too)", {k: each.direction for k, each in PIXEL_SCORES.items()}),
    Family(MEMORIZATION, _TENSORS, MEMORIZATION_SCORES),
    Family(LATENT, "the codes of any model", LATENT_SCORES),
    Family("", "spoken digits", {INTENDED: HIGHER, KEPT: HIGHER}),
    Family("", "strings", STRING_SCORES),
    Family(REGRESSION, "the codes of molecules and expressions", REGRESSION_SCORES),
    *(Family(f"{PROPERTIES} and {DISTANCE}", name, each.directions) for name, each in DOMAINS.items()),
)
#: The direction of every score that an evaluation can give, by name.
DIRECTIONS: Mapping[str, Direction] = {name: way for family in FAMILIES for name, way in family.scores.items()}


def direction_of(name: str) -> Direction:
    """Return a score's direction; a name that no measure gives has none.

    Example:
        >>> direction_of("recall").better, direction_of("fid-768").better, direction_of("copying").better
        ('higher', 'lower', 'neither')
    """
    return DIRECTIONS.get(name, NEITHER)


def where(name: str) -> str:
    """Say in words where a score or measure exists: for which data, and by which measure; empty for an unknown name.

    Example:
        >>> where("fcd"), where("recall")
        ('fcd is a score of molecules', 'recall is a score of images and of vectors, by the measure neighbours')
        >>> where("validity")
        'validity-greedy, validity-sampled, validity-best-of-k are scores of strings'
    """
    if name in DIRECTIONS:
        family = next(each for each in FAMILIES if name in each.scores)
        by = f", by the measure {family.measure}" if family.measure in ALL_MEASURES else ""
        on = next((f" on {each.name}" for each in FEATURES.values() if each.score_name == name), "")
        return f"{name} is a score of {'images' if on else family.of}{by}{on}"
    if name in ALL_MEASURES or name in STRING_MEASURES:
        kinds = [text for text, names in ((_TENSORS, ALL_MEASURES), ("strings", STRING_MEASURES)) if name in names]
        return f"{name} is a measure of {' and of '.join(kinds)}"
    begun = [each for each in DIRECTIONS if each.startswith(f"{name}-") or each.endswith(f"-{name}")]
    if begun:
        of = next(family.of for family in FAMILIES if begun[0] in family.scores)
        return f"{', '.join(begun)} {'are scores' if len(begun) > 1 else 'is a score'} of {of}"
    return ""


def check_measures(asked: Sequence[str], available: Sequence[str]) -> None:
    """Refuse measures that are not available for the data at hand, saying where they are.

    Raises:
        UsageError: for the first of them.
    """
    for name in asked:
        if name in available:
            continue
        known = where(name)
        near = difflib.get_close_matches(name, [*available, *DIRECTIONS], 1)
        reason = known or (f"there is no such measure; did you mean {near[0]}?" if near else "there is no such measure")
        raise UsageError(f"measure '{name}' does not apply here: {reason}; choose of: {', '.join(available)}")


def no_such_score(name: str, have: Collection[str]) -> str:
    """Say why a score cannot be had, where it exists, and which ones there are or are spelt like it.

    Args:
        name: The score asked for.
        have: Those there are.
    """
    known = where(name)
    near = difflib.get_close_matches(name, have, 1, cutoff=0.5) or difflib.get_close_matches(name, DIRECTIONS, 1)
    kin = [each for family in FAMILIES if name in family.scores for each in family.scores if each in have]
    hint = f"; its kin here: {', '.join(kin)}" if kin else f"; did you mean {near[0]}?" if near and not known else ""
    return f"{known or 'no measure gives it'}{hint}"
