"""Ranking by a score, in the direction that its measure states, if the protocols agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from expost.errors import UsageError
from expost.evaluation.scores import Score, differences
from expost.evaluation.strings import REGRESSION_SCORES
from expost.examples.domains import DOMAINS
from expost.metrics.direction import NEITHER, Direction
from expost.metrics.image import PIXEL_SCORES
from expost.metrics.latent import LATENT_SCORES
from expost.metrics.measures import MEASURES
from expost.metrics.memorization import MEMORIZATION_SCORES
from expost.metrics.strings import STRING_SCORES

#: The direction of every score that an evaluation can give, by name.
DIRECTIONS: Mapping[str, Direction] = {
    **dict(chain.from_iterable(measure.directions.items() for measure in MEASURES.values())),
    **{name: score.direction for name, score in PIXEL_SCORES.items()},
    **MEMORIZATION_SCORES,
    **LATENT_SCORES,
    **STRING_SCORES,
    **REGRESSION_SCORES,
    **dict(chain.from_iterable(domain.directions.items() for domain in DOMAINS.values())),
}


def direction_of(name: str) -> Direction:
    """Return a score's direction; a name that no measure gives has none.

    Example:
        >>> direction_of("recall").better, direction_of("fid-768").better, direction_of("copying").better
        ('higher', 'lower', 'neither')
    """
    return DIRECTIONS.get(name, NEITHER)


def rank(scores: Mapping[str, Score], ignoring: Sequence[str] = ()) -> list[tuple[str, Score]]:
    """Order scores from best to worst, if they may be compared.

    Args:
        scores: Scores by label.
        ignoring: Fields of the cards that may differ.

    Raises:
        UsageError: if the scores have different names or no direction, or their protocols differ: the message names the
            field and both values.
    """
    items = list(scores.items())
    for _, score in items[:1]:
        if not direction_of(score.name).sign:
            raise UsageError(f"{score.name} has no preferred direction, so it cannot rank; choose another score")
    for label, score in items[1:]:
        first_label, first = items[0]
        if score.name != first.name:
            raise UsageError(f"{first_label} has {first.name}, {label} has {score.name}; rank scores of one name")
        for name, (one, other) in differences(first.card, score.card, ignoring).items():
            raise UsageError(
                f"{first_label} and {label} cannot be ranked by {score.name}: their protocols differ in {name} "
                f"({_shown(one)}, {_shown(other)}); evaluate both in the same way, or pass --ignoring {name}"
            )
    return sorted(items, key=lambda item: -direction_of(item[1].name).sign * item[1].value)


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
