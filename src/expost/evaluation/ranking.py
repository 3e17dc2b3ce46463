"""Ranking by a score, in the direction that its measure states: places with ties, among scores of one protocol."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from expost.errors import UsageError
from expost.evaluation.scores import WIDTH, Card, Score, differences, error_of_difference

T = TypeVar("T")


class Ranked(NamedTuple):
    """A score with its place.

    Attributes:
        label: Of the run.
        score: Its score.
        place: From 1: one more than the number of runs that are better beyond chance, and no better than the place of a
            run with a better value.
        tied: Whether other runs have this place.
    """

    label: str
    score: Score
    place: int
    tied: bool

    @property
    def shown(self) -> str:
        """The place as text: "1", or "2=" where several share it."""
        return shown_place(self.place, self.tied)


def better(a: Score, b: Score) -> bool:
    """Return whether a score is better than another beyond chance.

    It is if the 95 % interval of the difference, paired as far as the scores share examples, does not reach 0; where a
    standard error is unknown, any difference counts.
    """
    from expost.evaluation.catalog import direction_of

    lead = direction_of(a.name).sign * (a.value - b.value)
    error = error_of_difference(a, b)
    return lead > (0.0 if error is None else WIDTH * error)


def rank(scores: Mapping[str, Score], ignoring: Sequence[str] = ()) -> list[Ranked]:
    """Order scores from best to worst, with places that are shared where chance may have decided.

    Args:
        scores: Scores by label, all of one protocol: see `comparable`.
        ignoring: Fields of the cards that may differ.

    Raises:
        UsageError: if the scores have different names or no direction, or their protocols differ: the message names the
            field and both values.
    """
    _, odd = comparable(scores, ignoring)
    for label, reason in odd.items():
        raise UsageError(f"{label} cannot be ranked with the others: {reason}")
    from expost.evaluation.catalog import direction_of

    ordered = sorted(scores.items(), key=lambda item: -direction_of(item[1].name).sign * item[1].value)
    places = places_of([score for _, score in ordered], better)
    return [
        Ranked(label, score, place, places.count(place) > 1)
        for (label, score), place in zip(ordered, places, strict=True)
    ]


def places_of(ordered: Sequence[T], better: Callable[[T, T], bool]) -> list[int]:
    """Return places with ties.

    Args:
        ordered: Best first.
        better: Whether one is better than another beyond chance.

    Returns:
        From 1: one more than the number of those that are better, and no better than the place of the one before.

    Example:
        >>> places_of([1.0, 1.5, 2.2, 9.0], lambda a, b: b - a > 1)
        [1, 1, 2, 4]
    """
    places: list[int] = []
    for one in ordered:
        ahead = 1 + sum(better(other, one) for other in ordered)
        places.append(max(ahead, places[-1]) if places else ahead)
    return places


def shown_place(place: int, tied: bool) -> str:
    """Return a place as text: "1", or "2=" where several share it."""
    return f"{place}{'=' if tied else ''}"


def comparable(
    scores: Mapping[str, Score], ignoring: Sequence[str] = (), shapes: Mapping[str, Sequence[int]] | None = None
) -> tuple[dict[str, Score], dict[str, str]]:
    """Return the largest group of scores of one protocol, and why each of the others is not of it.

    Of groups of one size the one that comes first counts.

    Args:
        scores: Scores of one name, by label.
        ignoring: Fields of the cards that may differ.
        shapes: Shapes of the runs' examples by label, for the reasons; (C, H, W) for images.

    Returns:
        The group, and reasons by label.

    Raises:
        UsageError: if the scores have different names or no direction.
    """
    from expost.evaluation.catalog import direction_of

    groups: list[dict[str, Score]] = []
    for label, score in scores.items():
        if not direction_of(score.name).sign:
            raise UsageError(f"{score.name} has no preferred direction, so it cannot rank; choose another score")
        first_label, first = next(iter(scores.items()))
        if score.name != first.name:
            raise UsageError(f"{first_label} has {first.name}, {label} has {score.name}; rank scores of one name")
        for group in groups:
            if not differences(next(iter(group.values())).card, score.card, ignoring):
                group[label] = score
                break
        else:
            groups.append({label: score})
    if not groups:
        return {}, {}
    chosen = max(groups, key=len)
    one = next(iter(chosen))
    odd = {
        label: _reason(scores[label].card, chosen[one].card, ignoring, one, label, shapes or {})
        for label in scores
        if label not in chosen
    }
    return chosen, odd


def _reason(
    own: Card, others: Card, ignoring: Sequence[str], one: str, label: str, shapes: Mapping[str, Sequence[int]]
) -> str:
    """Say in which fields a protocol differs from that of the others, and both values."""
    found = differences(own, others, ignoring)
    if label in shapes and one in shapes and tuple(shapes[label]) != tuple(shapes[one]):  # which explains the rest
        return f"its examples are of another size ({_sizes(shapes[label], shapes[one])})"
    parts = [f"{name} ({_SHOWN.get(name, _values)(*values)})" for name, values in found.items()]
    return f"protocols differ in {', '.join(parts)}"


def _sizes(own: Sequence[int], others: Sequence[int]) -> str:
    """Return two sizes in words.

    Example:
        >>> _sizes((3, 32, 32), (3, 64, 64)), _sizes((1, 8, 8), (3, 8, 8)), _sizes((5,), (7,))
        ('32 x 32 against 64 x 64', 'channels: 1 against 3', '5 columns against 7 columns')
    """
    if len(own) == len(others) == 3 and tuple(own[1:]) == tuple(others[1:]):
        return f"channels: {own[0]} against {others[0]}"
    return " against ".join(
        f"{shape[2]} x {shape[1]}" if len(shape) == 3 else " x ".join(map(str, shape)) + " columns" * (len(shape) == 1)
        for shape in (own, others)
    )


def _values(one: Any, other: Any) -> str:
    """Return two values side by side; of mappings only what differs."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        keys = [key for key in dict.fromkeys((*one, *other)) if one.get(key) != other.get(key)]
        return "; ".join(f"{key} {_short(one.get(key))} against {_short(other.get(key))}" for key in keys)
    return f"{_short(one)} against {_short(other)}"


def _short(value: Any) -> str:
    text = "none" if value in (None, "") else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


#: How fields are shown whose values would say nothing to a reader.
_SHOWN: dict[str, Callable[[Any, Any], str]] = {
    "reference_hash": lambda one, other: "other examples: another split, size or version of the data",
    "weights": lambda one, other: "the features have other weights",
    "reference_count": lambda one, other: f"{one:,} against {other:,} examples",
    "count": lambda one, other: f"{one:,} against {other:,} examples",
}
