"""Scores, each with a card that states its protocol."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from expost.errors import DataError, UsageError

if TYPE_CHECKING:  # the command line's parser does without torch
    from expost.metrics.influence import Influence

#: Version of the files that hold scores, in a run's folder and in a published one.
FORMAT = 1
#: Half the width of a 95 % interval, in standard errors.
WIDTH = 1.96
#: Fewer examples than this are called few.
FEW = 1_000

#: Fields that name what was scored. All others say how, and must agree before two scores are compared.
SUBJECT = ("model", "density")


@dataclass(frozen=True)
class Card:
    """How a score was computed; scores whose cards differ in more than their subject are not to be compared.

    Attributes:
        model: SHA-256 of the scored weights' file; empty for examples that no run made.
        features: What turned examples into vectors; "none" for scores of pixels.
        weights: SHA-256 of the features' weights; empty where there are none.
        reference: The data set and split that was compared with; of a path that leads elsewhere only its last part.
        reference_hash: SHA-256 of its examples.
        reference_count: Its number of examples.
        count: Number of examples scored.
        preprocessing: Resize, channels, quantisation and precision, as the features state them.
        density: What the samples came from, with its options; empty where there is none.
        seed: Seed of samples, pairs and the measure's own draws.
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

    def __post_init__(self) -> None:
        """Keep folders of this machine out of cards, which are published: of a path to elsewhere, its last part."""
        place = PurePath(self.reference)
        if place.is_absolute() or self.reference.startswith("~") or ".." in place.parts:
            object.__setattr__(self, "reference", place.name)


@dataclass(frozen=True)
class Score:
    """One number with its protocol.

    Attributes:
        name: For example "fid", "fid-768", "frechet-digits", "kid", "recall", "mse".
        of: What was scored: "reconstruction", "interpolation", "codes", or a density's name.
        value: The number.
        card: How it was computed.
        error: Its standard error over new draws of the examples that it compares, where the measure gives one. It says
            nothing of training the model again.
        interval: A confidence interval (low, high), where one was asked for.
        deviations: How the score moves under random weights of its examples, which scores of as many examples share
            (`Influence.deviations`), packed as text; empty where it is not known.
    """

    name: str
    of: str
    value: float
    card: Card
    error: float | None = None
    interval: tuple[float, float] | None = None
    deviations: str = ""

    @classmethod
    def measured(
        cls,
        name: str,
        of: str,
        value: float,
        card: Card,
        influence: Influence,
        error: float | None = None,
        interval: tuple[float, float] | None = None,
    ) -> Score:
        """Return a score with its standard error, and the deviations by which it is compared with others.

        Args:
            name: As the attribute, as are the others.
            of: What was scored.
            value: The number.
            card: How it was computed.
            influence: How much each example moves it.
            error: Its standard error; None takes that of the influence.
            interval: A confidence interval, where one was asked for.
        """
        known = influence.standard_error if error is None else error
        if not math.isfinite(known):
            return cls(name, of, value, card, None, interval)
        from expost.metrics.influence import packed

        return cls(name, of, value, card, known, interval, packed(influence.deviations(), known))

    @property
    def uncertainty(self) -> float | None:
        """The standard error; of a score that has an interval alone, what the interval's width implies; else None."""
        if self.error is not None or self.interval is None:
            return self.error
        return (self.interval[1] - self.interval[0]) / (2 * WIDTH)

    def moved(self) -> NDArray[np.float64] | None:
        """Return the deviations in units of the score, None where they are not known.

        Raises:
            DataError: if they cannot be read.
        """
        if not self.deviations or self.error is None:
            return None
        try:
            from expost.metrics.influence import unpacked

            return unpacked(self.deviations, self.error)
        except ValueError:
            raise DataError(f"the deviations of {self.name} of {self.of} cannot be read; evaluate again") from None


def error_of_difference(a: Score, b: Score) -> float | None:
    """Return the standard error of the difference of two scores, None where either's is unknown.

    Where both were moved by the same random weights, what they have in common (the test examples) cancels.

    Raises:
        DataError: if the deviations of either cannot be read.
    """
    if a.uncertainty is None or b.uncertainty is None:
        return None
    from expost.metrics.influence import difference_error

    return difference_error(a.uncertainty, b.uncertainty, a.moved(), b.moved())


def headline(scores: Sequence[Score]) -> str:
    """Return one line on how scores were computed: how many examples, on what, against what, and what to beware of."""
    from expost.metrics import FEATURES

    on_features = [score.card for score in scores if score.card.features in FEATURES]
    card = on_features[0] if on_features else scores[0].card
    if card.features in FEATURES:
        what = f"images, {FEATURES[card.features].caution or f'{card.features} features'}"
    else:
        what = {"values": "vectors, standardized values", "strings": "strings"}.get(card.features, "examples")
    few = "; few: differences within the errors mean nothing" if min(card.count, card.reference_count) < FEW else ""
    return f"{card.count:,} {what}; against {card.reference} ({card.reference_count:,}), seed {card.seed}{few}"


def saved_scores(path: Path) -> list[dict[str, Any]]:
    """Return the scores, as JSON values, that a run's `metrics.json` holds; nothing if there is none.

    Raises:
        DataError: if it holds something else, or a newer expost wrote it.
    """
    from expost.utils.store import read_json

    if not path.exists():
        return []
    record = read_json(path)
    version = record.get("format") if isinstance(record, dict) else None
    if isinstance(version, int) and version > FORMAT:
        raise DataError(f"{path} has format {version}, newer than {FORMAT}; upgrade with: pip install -U expost")
    scores = record.get("scores") if isinstance(record, dict) else None
    if not isinstance(scores, list) or not all(
        isinstance(s, dict) and {"name", "of", "card"} <= s.keys() for s in scores
    ):
        raise DataError(f"{path} does not hold scores; move it away to evaluate anew")
    return scores


def score_from_json(value: Any, where: Path | str) -> Score:
    """Read a saved score back.

    Args:
        value: Parsed JSON.
        where: What errors call its file.

    Raises:
        DataError: if it is not a score, or its card lacks a field of this version.
    """
    try:
        return TypeAdapter(Score).validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise DataError(f"{where} has a score that cannot be read ({field}: {first['msg']}); evaluate again") from None


def differences(a: Card, b: Card, ignoring: Sequence[str] = ()) -> dict[str, tuple[Any, Any]]:
    """Return the fields of protocol in which two cards differ, with both values.

    Args:
        a: One card.
        b: Another.
        ignoring: Fields that may differ; the caller judges that it does not matter.

    Raises:
        UsageError: for an ignored field that no card has.
    """
    names = [each.name for each in fields(Card)]
    for name in ignoring:
        if name not in names:
            raise UsageError(f"a protocol card has no field '{name}'; its fields: {', '.join(names)}")
    same = {"reference"} if a.reference_hash and a.reference_hash == b.reference_hash else set()  # by another way
    compared = [name for name in names if name not in SUBJECT and name not in ignoring and name not in same]
    return {name: (getattr(a, name), getattr(b, name)) for name in compared if getattr(a, name) != getattr(b, name)}


def in_rows(scores: Sequence[Score]) -> list[tuple[str, dict[str, Score]]]:
    """Arrange scores in rows of one name and one protocol, with a column for each subject.

    Fields that differ between subjects by nature (a density, the path of an interpolation) do not split a row.

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
