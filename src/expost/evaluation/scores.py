"""Scores that carry their protocol, and comparisons that mind it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from pydantic import TypeAdapter, ValidationError

from expost.errors import DataError, UsageError

#: What a score is *of*. All other fields of a card say *how* it was computed, and must agree before two are compared.
SUBJECT = ("model", "density")
#: Scores of which more is better.
HIGHER_IS_BETTER = frozenset(
    {"psnr", "ssim", "f8", "f1/8", "precision", "recall", "density", "coverage", "log-likelihood"}
    | {"accuracy", "validity-greedy", "validity-sampled", "validity-best-of-k", "unique-valid"}
    | {"uniqueness", "novelty"}
    | {"internal-diversity", "scaffold-diversity", "mean-qed", "mean-plogp", "regression-log-likelihood"}
)
#: Scores of which less is better.
LOWER_IS_BETTER = frozenset(
    {"fid", "fid-768", "frechet-digits", "frechet-pixels", "frechet-values", "kid", "kid-768", "kernel-distance", "mse"}
    | {"truncated", "mean-sa", "fcd", "expression-score", "best-expression-score", "regression-rmse"}
    | {"kl-from-normal", "frechet-from-normal"}
)
#: Scores without a preferred direction, which describe: `copying` far below 0 is copying, far above 0 underfitting;
#: `authenticity` is 0 for copies and 1 for samples that are far off.
UNRANKED = frozenset(
    ("copying", "authenticity", "participation-ratio", "active-units", "mmd-z-from-normal", "mean-logp")
)

#: Scores that a model wins by making one string over and over, or next to none: none to rank by unless asked for.
FLATTERING = frozenset(
    {"validity-greedy", "validity-sampled", "validity-best-of-k", "truncated", "uniqueness", "novelty"}
)


@dataclass(frozen=True)
class Card:
    """How a score was computed; scores whose cards differ in more than their subject are not to be compared.

    Attributes:
        model: SHA-256 of the weights' file that was scored; empty for what is not of a run.
        features: What turned examples into vectors; "none" for scores of pixels.
        weights: SHA-256 of the features' weights; empty where there are none.
        reference: The data set and split that was compared with.
        reference_hash: SHA-256 of its examples.
        reference_count: Its number of examples.
        count: Number of examples scored.
        preprocessing: Resize, channels, quantisation and precision, as the features state them.
        density: What the samples came from, with its options; empty where there is none.
        seed: What seeded samples, pairs and the measure's own draws.
        version: The expost version.
        settings: The measure's own settings (neighbours, clusters, subsets, the path of an interpolation).
    """

    model: str
    features: str
    weights: str
    reference: str
    reference_hash: str
    reference_count: int
    count: int
    preprocessing: dict[str, Any]
    density: dict[str, Any]
    seed: int
    version: str
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Score:
    """One number with its protocol.

    Attributes:
        name: For example "fid", "fid-768", "frechet-digits", "kid", "recall", "mse".
        of: What was scored: "reconstruction", "interpolation", "codes", or a density's name.
        value: The number.
        card: How it was computed.
        error: Its standard error, where the measure gives one.
        interval: A confidence interval (low, high), where one was asked for.
    """

    name: str
    of: str
    value: float
    card: Card
    error: float | None = None
    interval: tuple[float, float] | None = None


def score_from_json(value: Any) -> Score:
    """Read a saved score back.

    Raises:
        DataError: if it is none, or lacks what this version puts on its card.
    """
    try:
        return TypeAdapter(Score).validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise DataError(f"a saved score cannot be read ({where}: {first['msg']}); evaluate the run again") from None


def differences(a: Card, b: Card, ignoring: Sequence[str] = ()) -> dict[str, tuple[Any, Any]]:
    """Return the fields of protocol in which two cards differ, with both values.

    Args:
        a: One card.
        b: Another.
        ignoring: Fields that a person takes the responsibility for.

    Raises:
        UsageError: for an ignored field that no card has.
    """
    names = [each.name for each in fields(Card)]
    for name in ignoring:
        if name not in names:
            raise UsageError(f"a protocol card has no field '{name}'; its fields: {', '.join(names)}")
    compared = [name for name in names if name not in SUBJECT and name not in ignoring]
    return {name: (getattr(a, name), getattr(b, name)) for name in compared if getattr(a, name) != getattr(b, name)}


def in_rows(scores: Sequence[Score]) -> list[tuple[str, dict[str, Score]]]:
    """Put scores into rows of a table, one column a subject: in a row are scores of one name and one protocol.

    What differs between subjects by nature, a density or the path of an interpolation, does not part them.

    Returns:
        Names, in order of appearance, with scores by subject; a name has several rows if it was scored in several ways.
    """
    rows: dict[str, dict[str, list[dict[str, Score]]]] = {}
    for score in scores:
        shared = {k: v for k, v in asdict(score.card).items() if k not in (*SUBJECT, "settings")}
        alike = rows.setdefault(score.name, {}).setdefault(json.dumps(shared, sort_keys=True), [])
        row = next((each for each in alike if score.of not in each), None)
        if row is None:
            alike.append(row := {})
        row[score.of] = score
    return [(name, row) for name, ways in rows.items() for alike in ways.values() for row in alike]


def rank(scores: Mapping[str, Score], ignoring: Sequence[str] = ()) -> list[tuple[str, Score]]:
    """Order scores from best to worst, if they may be compared.

    Args:
        scores: Scores by what a person calls them.
        ignoring: Fields of the cards that may differ all the same.

    Raises:
        UsageError: if the scores have different names, or cards that differ in a field of protocol: the message says
            which, and the values.
    """
    items = list(scores.items())
    for _, score in items[:1]:
        if score.name not in HIGHER_IS_BETTER | LOWER_IS_BETTER:
            raise UsageError(f"{score.name} has no preferred direction, so it cannot rank; choose another score")
    for label, score in items[1:]:
        first_label, first = items[0]
        if score.name != first.name:
            raise UsageError(f"{first_label} has {first.name}, {label} has {score.name}; rank scores of one name")
        for name, (one, other) in differences(first.card, score.card, ignoring).items():
            raise UsageError(
                f"{first_label} and {label} cannot be ranked by {score.name}: their protocols differ in {name} "
                f"({_shown(one)}, {_shown(other)}); score both in the same way, or say that it may differ"
            )
    if not items:
        return []
    return sorted(items, key=lambda item: item[1].value, reverse=items[0][1].name in HIGHER_IS_BETTER)


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
